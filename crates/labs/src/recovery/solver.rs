//! What a solver is given and what it gives back.

use super::error::positive;
use super::{Factors, Loss, Measurement, RecoveryError};

/// Measurements with their observations.
#[derive(Clone, Copy)]
pub struct Problem<'a> {
    pub(super) measurement: &'a dyn Measurement,
    pub(super) values: &'a [f64],
}

impl<'a> Problem<'a> {
    /// One finite observation for each measurement.
    ///
    /// # Errors
    /// [`RecoveryError::Empty`], [`RecoveryError::Count`], [`RecoveryError::NonFinite`].
    pub fn new(measurement: &'a dyn Measurement, values: &'a [f64]) -> Result<Problem<'a>, RecoveryError> {
        let (measurements, observations) = (measurement.count(), values.len());
        if measurements == 0 || observations == 0 {
            return Err(RecoveryError::Empty);
        }
        if measurements != observations {
            return Err(RecoveryError::Count { measurements, observations });
        }
        if let Some((index, &value)) = values.iter().enumerate().find(|(_, value)| !value.is_finite()) {
            return Err(RecoveryError::NonFinite { index, value });
        }
        Ok(Problem { measurement, values })
    }

    /// The loss of these factors.
    #[must_use]
    pub fn loss(&self, loss: Loss, factors: &Factors) -> f64 {
        let values = self.measurement.apply(factors.left.as_ref(), factors.right.as_ref());
        self.loss_of(loss, &values)
    }

    /// The loss of these values of the measurements.
    pub(super) fn loss_of(&self, loss: Loss, values: &[f64]) -> f64 {
        let residuals = values.iter().zip(self.values).map(|(value, y)| value - y);
        loss.value(residuals, self.measurement.unit(), self.measurement.count())
    }

    /// The loss of the zero matrix.
    #[must_use]
    pub fn loss_of_zero(&self, loss: Loss) -> f64 {
        loss.value(self.values.iter().copied(), self.measurement.unit(), self.measurement.count())
    }
}

/// When to stop, and how often to look.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Steps at most.
    pub iterations: usize,
    /// Converged when the residual is this part of the data, in the loss's own measure; 0 for never.
    pub tolerance: f64,
    /// Stagnated when the best loss has not fallen by a ten-thousandth in so many steps; `None` for never.
    pub patience: Option<usize>,
    /// Every how many steps the trace is written and the watcher asked; at least 1.
    pub every: usize,
}

impl Limits {
    /// So many steps, nothing else.
    #[must_use]
    pub fn steps(iterations: usize) -> Limits {
        Limits { iterations, tolerance: 0.0, patience: None, every: 1 }
    }

    pub(super) fn check(&self) -> Result<(), RecoveryError> {
        positive("the number of steps between looks", self.every as f64)?;
        if self.tolerance.is_finite() && self.tolerance >= 0.0 {
            return Ok(());
        }
        Err(RecoveryError::Setting {
            what: "the tolerance",
            value: self.tolerance,
            allowed: "give 0 or more",
        })
    }
}

/// Why a solution ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stop {
    /// The residual is within the tolerance.
    Converged,
    /// All steps were taken.
    Budget,
    /// The step size has run out.
    StepVanished,
    /// The loss does not fall any more.
    Stagnated,
    /// The loss grew beyond a million times that of the zero matrix, or beyond all numbers: the step is too large.
    Diverged,
    /// The watcher had seen enough.
    Asked,
}

impl Stop {
    /// As a sentence says it.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Stop::Converged => "converged: the residual is within the tolerance",
            Stop::Budget => "all steps were taken",
            Stop::StepVanished => "the schedule of steps has run out",
            Stop::Stagnated => "stagnated: the loss does not fall any more",
            Stop::Diverged => "diverged: the step is too large for this matrix",
            Stop::Asked => "stopped by what watches it",
        }
    }
}

/// What a watcher sees.
#[derive(Debug, Clone, Copy)]
pub struct Moment<'a> {
    /// Steps taken.
    pub iteration: usize,
    /// The loss of these factors.
    pub loss: f64,
    /// The factors.
    pub factors: &'a Factors,
}

/// One line of a trace.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Recorded {
    /// Steps taken.
    pub iteration: usize,
    /// The loss then.
    pub loss: f64,
    /// What the watcher measured: an error against the truth, or on held-out entries.
    pub seen: Option<f64>,
    /// The step size that followed; 0 behind the last.
    pub step: f64,
}

/// What the result is like.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Quality {
    /// The loss of the factors.
    pub loss: f64,
    /// The least loss on the way.
    pub best_loss: f64,
    /// Steps taken until then.
    pub best_iteration: usize,
    /// Size of the residual by that of the data: `√(Σr²/Σy²)`, or `Σ|r|/Σ|y|` for the absolute loss.
    pub relative_residual: f64,
    /// Singular values of the product, descending.
    pub spectrum: Vec<f64>,
}

/// What a solver found.
#[derive(Debug, Clone, PartialEq)]
pub struct Solution {
    /// The factors behind the last step whose loss is finite.
    pub factors: Factors,
    /// `⟨A_i, X⟩ − y_i`.
    pub residual: Vec<f64>,
    /// Steps taken.
    pub iterations: usize,
    /// Losses, steps and what was seen, every so many steps.
    pub trace: Vec<Recorded>,
    /// What it is like.
    pub quality: Quality,
    /// Why it ended.
    pub stop: Stop,
}

/// What is asked every so many steps: a number for the trace, and whether to go on.
pub type Watch<'a> = dyn FnMut(&Moment<'_>) -> (Option<f64>, bool) + 'a;

/// Sees nothing and goes on.
pub fn unwatched(_: &Moment<'_>) -> (Option<f64>, bool) {
    (None, true)
}

/// A way from a start to a solution.
pub trait Solver {
    /// Solves; trouble on the way is a [`Stop`] of the solution.
    ///
    /// # Errors
    /// [`RecoveryError`] for what cannot be begun: shapes, ranks and settings that do not fit.
    fn solve(
        &self,
        problem: &Problem<'_>,
        start: &Factors,
        watch: &mut Watch<'_>,
    ) -> Result<Solution, RecoveryError>;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recovery::Identity;

    #[test]
    fn observations_that_cannot_be_used_are_named() {
        let all = Identity::new(2, 2).unwrap();
        let refused = |values: &[f64]| Problem::new(&all, values).err();
        assert_eq!(refused(&[]), Some(RecoveryError::Empty));
        assert_eq!(refused(&[1.0; 3]), Some(RecoveryError::Count { measurements: 4, observations: 3 }));
        let odd = refused(&[1.0, 2.0, f64::INFINITY, 0.0]);
        assert_eq!(odd, Some(RecoveryError::NonFinite { index: 2, value: f64::INFINITY }));
        let problem = Problem::new(&all, &[3.0, 0.0, 4.0, 0.0]).unwrap();
        assert_eq!(problem.loss_of_zero(Loss::Squared), 12.5);
    }
}
