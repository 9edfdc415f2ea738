//! The matrices that are to be found, and how a run is followed.

use faer::Mat;
use lowrank_command::AppError;
use lowrank_linalg::{multiply, orthonormal_basis};
use lowrank_record::Seed;

use crate::recovery::{Descent, Factors, Measurement, Moment, Problem, RecoveryError, Solution, Solver};

/// A symmetric, positive matrix `[n, n]` with these eigenvalues in random directions, and its factor `[n, r]`.
pub(super) struct Truth {
    pub(super) matrix: Mat<f64>,
    pub(super) factor: Mat<f64>,
}

impl Truth {
    pub(super) fn new(n: usize, values: &[f64], seed: Seed) -> Result<Truth, RecoveryError> {
        let r = values.len();
        let draws = seed.at("study", "truth").normal(n * r);
        let q = orthonormal_basis(Mat::from_fn(n, r, |i, j| f64::from(draws[i * r + j])).as_ref())?;
        Ok(Truth::of(Mat::from_fn(n, r, |i, j| q[(i, j)] * values[j].sqrt())))
    }

    pub(super) fn of(factor: Mat<f64>) -> Truth {
        Truth { matrix: multiply(factor.as_ref(), factor.transpose()), factor }
    }

    /// `⟨A_i, X*⟩`.
    pub(super) fn observed(&self, measurement: &dyn Measurement) -> Vec<f64> {
        measurement.apply(self.factor.as_ref(), self.factor.as_ref())
    }

    /// `‖X − X*‖_F`.
    pub(super) fn error(&self, factors: &Factors) -> f64 {
        factors.distance(self.matrix.as_ref())
    }
}

/// A run with its error against the truth every so many steps.
#[derive(Debug, Clone)]
pub(super) struct Followed {
    /// `(step, ‖X − X*‖_F)`.
    pub(super) errors: Vec<(f64, f64)>,
    pub(super) solution: Solution,
}

impl Followed {
    /// The error behind the last step.
    pub(super) fn last(&self) -> f64 {
        self.errors.last().map_or(f64::NAN, |point| point.1)
    }

    /// The smallest error on the way.
    pub(super) fn best(&self) -> f64 {
        self.errors.iter().fold(f64::INFINITY, |best, point| best.min(point.1))
    }

    /// The first step with an error of at most so much.
    pub(super) fn reached(&self, error: f64) -> f64 {
        self.errors.iter().find(|point| point.1 <= error).map_or(f64::NAN, |point| point.0)
    }

    /// Squared errors at steps of a range, above a floor that rounding sets.
    pub(super) fn squares(&self, from: f64, floor: f64) -> impl Iterator<Item = (f64, f64)> + '_ {
        let points = self.errors.iter().map(|&(step, error)| (step, error * error));
        points.filter(move |&(step, square)| step >= from && square > floor)
    }

    /// `log₁₀` of what is drawn, at most some hundred points of it.
    pub(super) fn drawn(&self, of: impl Fn(f64, f64) -> (f64, f64)) -> Vec<(f64, f64)> {
        let every = self.errors.len().div_ceil(240).max(1);
        let points = self.errors.iter().step_by(every).filter(|point| point.1 > 0.0);
        points
            .map(|&(step, error)| of(step, error))
            .filter(|point| point.0.is_finite() && point.1.is_finite())
            .collect()
    }
}

/// Runs a descent and follows its error.
pub(super) fn follow(
    descent: Descent,
    measurement: &dyn Measurement,
    y: &[f64],
    start: &Factors,
    truth: &Truth,
) -> Result<Followed, RecoveryError> {
    let mut errors = Vec::new();
    let mut watch = |moment: &Moment<'_>| {
        let error = truth.error(moment.factors);
        errors.push((moment.iteration as f64, error));
        (Some(error), true)
    };
    let solution = descent.solve(&Problem::new(measurement, y)?, start, &mut watch)?;
    Ok(Followed { errors, solution })
}

/// A failure of a study is ours, not the user's.
pub(super) fn failed(error: RecoveryError) -> AppError {
    AppError::failed(format!("a run of the study: {error}"))
}
