//! How far each step goes.

use super::RecoveryError;
use super::error::positive;

/// A geometric schedule ends where its step is this part of the first one.
const VANISHED: f64 = 1e-11;

/// A rule for the step size η. With measurements in units ([`super::Measurement::unit`]) and `‖X*‖₂ = 1`, 0.25 is a good first step of
/// the sub-gradient method and 0.1 of gradient descent; divide the latter by `‖X*‖₂`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Steps {
    /// η always. The sub-gradient method then ends within O(η) of its goal.
    Constant(f64),
    /// `η_t = first·ratio^t`: for unknown noise (Ma and Fattahi, 2023). Its whole length `first/(1 − ratio)` must be enough to grow
    /// from the start to the signal: [`Steps::geometric_from`].
    Geometric {
        /// η_0.
        first: f64,
        /// ρ, in (0, 1).
        ratio: f64,
    },
    /// `η_t = factor·f(X_t)`: for the absolute loss without noise, whose value is the distance that is left.
    LossProportional(f64),
    /// Polyak's step `(f − f*)/‖∂f‖²`, f* known, at most `cap`: from a small start the gradient is nearly zero and the step would be
    /// without bound.
    Polyak {
        /// f*.
        optimum: f64,
        /// The largest step.
        cap: f64,
    },
    /// Polyak's step towards `best − δ`, δ grown or shrunk by what is achieved (Nedić and Bertsekas, "Incremental Subgradient Methods
    /// for Nondifferentiable Optimization", 2001, dynamic step size): for an optimum that is not known.
    PolyakEstimated {
        /// The largest step.
        cap: f64,
    },
    /// `first`, halved whenever the best loss has not fallen by a thousandth in `patience` steps.
    Adaptive {
        /// η_0.
        first: f64,
        /// Steps without progress before it is halved.
        patience: usize,
    },
}

impl Steps {
    /// The geometric schedule whose length grows from a start of size `alpha` to the signal and no further:
    /// `first/(1 − ρ) = c·ln(1/α)·spread/(√(2/π)·(1 − p))`, with `spread = ‖X*‖_F/σ_r` and p the share of gross errors. Too short
    /// never leaves zero, too long fits the errors; c from 1.3 to 1.6 worked in our measurements.
    ///
    /// # Errors
    /// [`RecoveryError::Setting`].
    pub fn geometric_from(
        alpha: f64,
        spread: f64,
        outliers: f64,
        first: f64,
        c: f64,
    ) -> Result<Steps, RecoveryError> {
        positive("the size of the start", alpha)?;
        for (what, value) in
            [("the spread of the spectrum", spread), ("the first step", first), ("the length's factor", c)]
        {
            positive(what, value)?;
        }
        if alpha >= 1.0 {
            return Err(RecoveryError::Setting {
                what: "the size of the start",
                value: alpha,
                allowed: "give one below 1",
            });
        }
        if !(0.0..1.0).contains(&outliers) {
            return Err(RecoveryError::Setting {
                what: "the share of outliers",
                value: outliers,
                allowed: "give 0 or more, below 1",
            });
        }
        let length =
            c * (1.0 / alpha).ln() * spread / (std::f64::consts::FRAC_2_PI.sqrt() * (1.0 - outliers));
        let ratio = 1.0 - first / length;
        if ratio <= 0.0 {
            return Err(RecoveryError::Setting {
                what: "the first step",
                value: first,
                allowed: "it is longer than the whole way",
            });
        }
        Ok(Steps::Geometric { first, ratio })
    }

    /// How many steps until the schedule has vanished, for schedules that do.
    #[must_use]
    pub fn length(self) -> Option<usize> {
        match self {
            Steps::Geometric { ratio, .. } => Some((VANISHED.ln() / ratio.ln()).ceil() as usize),
            _ => None,
        }
    }

    /// Refuses numbers that are no step sizes.
    pub(super) fn check(self) -> Result<(), RecoveryError> {
        match self {
            Steps::Constant(step) => positive("the step", step),
            Steps::LossProportional(factor) => positive("the step's factor", factor),
            Steps::PolyakEstimated { cap } => positive("the largest step", cap),
            Steps::Adaptive { first, .. } => positive("the first step", first),
            Steps::Geometric { first, ratio } => {
                positive("the first step", first)?;
                if ratio > 0.0 && ratio < 1.0 {
                    return Ok(());
                }
                Err(RecoveryError::Setting {
                    what: "the ratio of steps",
                    value: ratio,
                    allowed: "give one between 0 and 1",
                })
            }
            Steps::Polyak { optimum, cap } => {
                positive("the largest step", cap)?;
                if optimum.is_finite() && optimum >= 0.0 {
                    return Ok(());
                }
                Err(RecoveryError::Setting {
                    what: "the optimum",
                    value: optimum,
                    allowed: "give the least loss, 0 or more",
                })
            }
        }
    }
}

/// A rule at work.
#[derive(Debug, Clone)]
pub(super) struct Stepper {
    rule: Steps,
    taken: i32,
    /// The least loss so far, and how many steps ago it was a thousandth above.
    best: f64,
    since: usize,
    /// The present step of the adaptive rule.
    step: f64,
    /// How much less than the best the estimated rule aims at.
    aim: f64,
}

impl Stepper {
    pub(super) fn new(rule: Steps) -> Stepper {
        let step = if let Steps::Adaptive { first, .. } = rule { first } else { 0.0 };
        Stepper { rule, taken: 0, best: f64::INFINITY, since: 0, step, aim: f64::NAN }
    }

    /// The next step, of a loss and the square of its gradient's norm; `None` when the schedule has vanished.
    pub(super) fn next(&mut self, loss: f64, gradient: f64) -> Option<f64> {
        let step = match self.rule {
            Steps::Constant(step) => step,
            Steps::LossProportional(factor) => factor * loss,
            Steps::Geometric { first, ratio } => {
                let step = first * ratio.powi(self.taken);
                if step < VANISHED * first {
                    return None;
                }
                step
            }
            Steps::Polyak { optimum, cap } => polyak(loss - optimum, gradient, cap),
            Steps::PolyakEstimated { cap } => {
                if self.aim.is_nan() {
                    self.aim = 0.5 * loss;
                } else if loss > self.best - self.aim {
                    self.aim *= 0.95;
                }
                self.best = self.best.min(loss);
                polyak(loss - (self.best - self.aim).max(0.0), gradient, cap)
            }
            Steps::Adaptive { patience, .. } => {
                if loss < self.best * (1.0 - 1e-3) {
                    (self.best, self.since) = (loss, 0);
                } else {
                    self.since += 1;
                }
                if self.since >= patience.max(1) {
                    self.step *= 0.5;
                    self.since = 0;
                }
                self.step
            }
        };
        self.taken = self.taken.saturating_add(1);
        Some(step)
    }
}

fn polyak(above: f64, gradient: f64, cap: f64) -> f64 {
    if gradient > 0.0 { (above.max(0.0) / gradient).min(cap) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schedule_has_the_length_that_was_asked_for() {
        let steps = Steps::geometric_from(1e-6, 3.0_f64.sqrt(), 0.1, 0.25, 1.3).unwrap();
        let Steps::Geometric { first, ratio } = steps else { unreachable!() };
        let length = 1.3 * 1e6_f64.ln() * 3.0_f64.sqrt() / ((2.0 / std::f64::consts::PI).sqrt() * 0.9);
        assert!((first / (1.0 - ratio) - length).abs() < 1e-9 * length);
        let mut stepper = Stepper::new(steps);
        let taken = std::iter::from_fn(|| stepper.next(1.0, 1.0)).count();
        assert!(taken.abs_diff(steps.length().unwrap()) <= 1, "{taken} {:?}", steps.length());
        assert!(Steps::geometric_from(2.0, 1.0, 0.0, 0.25, 1.3).is_err());
        assert!(Steps::geometric_from(0.9, 1.0, 0.0, 9.0, 1.3).is_err());
        assert!(Steps::geometric_from(0.1, 1.0, 1.0, 0.1, 1.3).is_err());
    }

    #[test]
    fn each_rule_is_its_formula() {
        let first =
            |steps: Steps, loss: f64, gradient: f64| Stepper::new(steps).next(loss, gradient).unwrap();
        assert_eq!(first(Steps::LossProportional(0.5), 4.0, 1.0), 2.0);
        assert_eq!(first(Steps::Polyak { optimum: 1.0, cap: 9.0 }, 4.0, 2.0), 1.5);
        assert_eq!(first(Steps::Polyak { optimum: 1.0, cap: 1.0 }, 4.0, 2.0), 1.0);
        assert_eq!(
            first(Steps::PolyakEstimated { cap: 9.0 }, 4.0, 2.0),
            1.0,
            "it aims at half of the first loss"
        );
        let mut adaptive = Stepper::new(Steps::Adaptive { first: 1.0, patience: 2 });
        let steps: Vec<f64> =
            [1.0, 1.0, 1.0, 0.5, 0.5].iter().map(|&loss| adaptive.next(loss, 1.0).unwrap()).collect();
        assert_eq!(steps, [1.0, 1.0, 0.5, 0.5, 0.5]);
        assert!(
            Steps::Constant(f64::NAN).check().is_err()
                && Steps::Geometric { first: 0.1, ratio: 1.0 }.check().is_err()
        );
    }
}
