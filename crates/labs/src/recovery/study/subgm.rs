//! `subgm`: the sub-gradient method from a small start (Ma and Fattahi, 2023).

mod noise;
mod outliers;
mod overfit;
mod rank;
mod samples;
mod size_of_start;

use lowrank_command::{AppError, Progress};
use lowrank_record::Seed;

use super::Size;
use super::problem::{Followed, Truth, follow};
use super::studied::{About, Measured, Paper, Studied};
use crate::recovery::{
    DenseSensing, Descent, Limits, Loss, Measurement, Problem, RecoveryError, Start, Steps,
};

const ABOUT: About = About {
    study: "subgm",
    name: "The sub-gradient method from a small start",
    claim: "min Σ|y_i − ⟨A_i, U·Uᵀ⟩| by plain sub-gradient steps from a small start finds X*, although a part of the observations is \
            grossly wrong, whatever the number r' ≥ r of columns, with a number of samples that does not depend on r', to an error that \
            falls with the size of the start, and even where the global minimum is another matrix.",
    paper: Paper {
        authors: "J. Ma and S. Fattahi",
        title: "Global Convergence of Sub-gradient Method for Robust Matrix Recovery: Small Initialization, Noisy Measurements, and \
                Over-parameterization",
        year: 2023,
        link: "https://arxiv.org/abs/2202.08788",
    },
    question: "Is the final error independent of r' and of the size of the outliers, does it fall with α, and does descent on squares \
               fail, on 20 x 20 matrices of rank 3 seen through Gaussian measurements?",
    not_shown: &[
        "The paper's constants and figures could not be read; bounds are from the specification's own measurements.",
        "Outliers of random sign only: signs that conspire, at half of the observations or more, cannot be withstood by any method.",
        "Ill-conditioned X*, and sizes beyond 20 x 20.",
    ],
};

/// Rows and columns of X*.
const D: usize = 20;
/// Its rank; all its eigenvalues are 1, ‖X*‖_F = √3.
const R: usize = 3;
/// The first step.
const FIRST: f64 = 0.25;
/// Standard deviation of the gross errors.
const GROSS: f64 = 10.0;

/// A problem: matrix, measurements, observations.
struct Sensed {
    truth: Truth,
    a: DenseSensing,
    y: Vec<f64>,
}

impl Sensed {
    /// `m` measurements, the part `outliers` of them with an error from N(0, gross²); what is drawn does not depend on the others' numbers.
    fn new(m: usize, outliers: f64, gross: f64, seed: u64) -> Result<Sensed, RecoveryError> {
        let seed = Seed(seed);
        let truth = Truth::new(D, &[1.0; R], seed)?;
        let a = DenseSensing::gaussian(D, D, m, seed)?;
        let mut y = truth.observed(&a);
        let wrong = (outliers * m as f64).round() as usize;
        let errors = seed.at("study", "gross").normal(wrong);
        for (index, error) in seed.at("study", "wrong").permutation(m).into_iter().zip(errors) {
            y[index] += gross * f64::from(error);
        }
        Ok(Sensed { truth, a, y })
    }

    /// With Gaussian noise on every observation.
    fn noisy(m: usize, deviation: f64, seed: u64) -> Result<Sensed, RecoveryError> {
        let mut sensed = Sensed::new(m, 0.0, 0.0, seed)?;
        let draws = Seed(seed).at("study", "noise").normal(m);
        sensed.y.iter_mut().zip(draws).for_each(|(y, draw)| *y += deviation * f64::from(draw));
        Ok(sensed)
    }

    fn problem(&self) -> Result<Problem<'_>, RecoveryError> {
        Problem::new(&self.a, &self.y)
    }

    /// A run of U·Uᵀ with k columns.
    fn run(
        &self,
        loss: Loss,
        start: Start,
        k: usize,
        steps: Steps,
        most: usize,
        seed: u64,
    ) -> Result<Followed, RecoveryError> {
        let start = start.symmetric(&self.problem()?, loss, k, Seed(seed))?;
        let limits = Limits { every: (most / 1000).max(1), ..Limits::steps(most) };
        follow(
            Descent::symmetric(loss, steps, limits),
            &self.a as &dyn Measurement,
            &self.y,
            &start,
            &self.truth,
        )
    }
}

/// The schedule that is tied to α ([`Steps::geometric_from`]), c = 1.3.
fn tied(alpha: f64, outliers: f64) -> Result<(Steps, usize), RecoveryError> {
    let steps = Steps::geometric_from(alpha, (R as f64).sqrt(), outliers, FIRST, 1.3)?;
    Ok((steps, steps.length().unwrap_or(0) + 1))
}

/// The name of a start.
fn named(start: Start) -> &'static str {
    match start {
        Start::Spectral { .. } => "spectral",
        Start::Random { .. } | Start::Twin { .. } => "Gaussian",
    }
}

fn gaussian(alpha: f64) -> Start {
    Start::Random { alpha, ratio: 1.0 }
}

/// Runs the study.
///
/// # Errors
/// [`AppError::Usage`] without a seed; [`AppError::Failed`] when a run could not begin or the user stopped it.
pub fn subgm(size: Size, progress: &mut dyn Progress) -> Result<Studied, AppError> {
    let mut measured = Measured::default();
    for part in [
        rank::measured as fn(Size, &mut dyn Progress) -> Result<Measured, AppError>,
        size_of_start::measured,
        samples::measured,
        outliers::measured,
        noise::measured,
        overfit::measured,
    ] {
        measured.extend(part(size, progress)?);
    }
    let ground = [
        (
            "matrices",
            format!(
                "{D} x {D}, rank {R}, positive, all eigenvalues 1, so that ‖X*‖_F = √3; random directions"
            ),
        ),
        (
            "measurements",
            "A_i of independent N(0, 1) entries; 600 = 10·d·r of them where nothing else is said".to_owned(),
        ),
        (
            "outliers",
            format!(
                "a part p of the observations gets an error from N(0, {GROSS}²) where nothing else is said"
            ),
        ),
        ("method", format!("η_0 = {FIRST}, geometric; D = (1/m)·Σ sign(r_i)·A_i, U ← U − η·D·U; f64")),
        ("errors", "not squared: ‖U·Uᵀ − X*‖_F".to_owned()),
        ("problems", format!("{} from seed {}", size.seeds, size.first)),
    ];
    let ground = ground.map(|(name, value)| (name.to_owned(), value)).into();
    Ok(Studied::new(ABOUT, ground, size.quick, measured))
}
