//! `sensing-gd`: over-parameterised gradient descent, symmetric against asymmetric (Xiong, Ding and Du, 2024).

mod beyond;
mod finite;
mod full;

use lowrank_command::{AppError, Progress};
use lowrank_record::Seed;

use super::Size;
use super::problem::{Followed, Truth, follow};
use super::studied::{About, Measured, Paper, Studied};
use crate::recovery::{
    Descent, Factors, Limits, Loss, Measurement, Problem, RecoveryError, Start, Steps, When,
};

const ABOUT: About = About {
    study: "sensing-gd",
    name: "Gradient descent with too many columns",
    claim: "With more columns than the rank, gradient descent on X·Xᵀ cannot be faster than 1/T² (squared error), while F·Gᵀ from \
            factors of different size converges as exp(−Θ(α²·T)), α the size of the start; one change of balance makes the rate independent \
            of α. With exactly as many columns both are linear.",
    paper: Paper {
        authors: "N. Xiong, L. Ding and S. S. Du",
        title: "How Over-Parameterization Slows Down Gradient Descent in Matrix Sensing: The Curses of Symmetry and Initialization",
        year: 2024,
        link: "https://arxiv.org/abs/2310.01769",
    },
    question: "Are the powers, the rates and their independence what the paper says, on matrices of 50 x 50 seen whole and of 20 x 20 seen \
               through Gaussian measurements?",
    not_shown: &[
        "The paper's figures and constants could not be read; bounds are from the specification's own measurements.",
        "Rectangular matrices, and ranks above 5.",
        "When the change of balance should be made: the study makes it at step 400, as the specification does.",
    ],
};

/// Step size, for ‖X*‖₂ = 1.
const STEP: f64 = 0.1;
/// Size of G by that of F at the start.
const RATIO: f64 = 1.0 / 3.0;
/// The step before which the factors are rebalanced.
const CHANGE: usize = 400;

/// Columns, size of the start and steps of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Plan {
    k: usize,
    alpha: f64,
    steps: usize,
}

/// What is made of the factors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Symmetric,
    Asymmetric,
    Modified,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Way::Symmetric => "X·Xᵀ",
            Way::Asymmetric => "F·Gᵀ",
            Way::Modified => "F·Gᵀ, rebalanced",
        }
    }

    fn descent(self, step: f64, steps: usize) -> Descent {
        let limits = Limits { every: (steps / 2000).max(1), ..Limits::steps(steps) };
        match self {
            Way::Symmetric => Descent::symmetric(Loss::Squared, Steps::Constant(step), limits),
            Way::Asymmetric => Descent::asymmetric(Loss::Squared, Steps::Constant(step), limits),
            Way::Modified => Way::Asymmetric.descent(step, steps).rebalanced(1.0, When::Step(CHANGE)),
        }
    }

    /// A random start; the same draws for every α and way.
    fn start(
        self,
        problem: &Problem<'_>,
        k: usize,
        alpha: f64,
        seed: Seed,
    ) -> Result<Factors, RecoveryError> {
        let start = Start::Random { alpha, ratio: RATIO };
        match self {
            Way::Symmetric => start.symmetric(problem, Loss::Squared, k, seed),
            Way::Asymmetric | Way::Modified => start.factors(problem, Loss::Squared, k, seed),
        }
    }

    fn run(
        self,
        a: &dyn Measurement,
        y: &[f64],
        truth: &Truth,
        plan: Plan,
        seed: u64,
    ) -> Result<Followed, RecoveryError> {
        let start = self.start(&Problem::new(a, y)?, plan.k, plan.alpha, Seed(seed))?;
        follow(self.descent(STEP, plan.steps), a, y, &start, truth)
    }
}

/// Runs the study.
///
/// # Errors
/// [`AppError::Usage`] without a seed; [`AppError::Failed`] when a run could not begin or the user stopped it.
pub fn sensing_gd(size: Size, progress: &mut dyn Progress) -> Result<Studied, AppError> {
    let mut measured = Measured::default();
    measured.extend(full::measured(size, progress)?);
    measured.extend(finite::measured(size, progress)?);
    measured.extend(beyond::measured(size, progress)?);
    let ground = [
        (
            "matrices",
            "symmetric, positive, eigenvalues 1, 0.8, 0.6 (two of them where n = 20), random directions"
                .to_owned(),
        ),
        (
            "descent",
            format!("constant step {STEP}, entries of the start from N(0, α²/n), G a third of F, f64"),
        ),
        ("errors", "squared: ‖X − X*‖²_F".to_owned()),
        ("problems", format!("{} from seed {}", size.seeds, size.first)),
    ];
    let ground = ground.map(|(name, value)| (name.to_owned(), value)).into();
    Ok(Studied::new(ABOUT, ground, size.quick, measured))
}
