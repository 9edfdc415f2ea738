//! The learning rate over time: a pure function of the step, so that a resumed run needs no schedule state.
//!
//! With `w` warm-up steps, `n` steps in all and floor `f`, step `s` (from 0) runs at `rate · factor(s)`:
//!
//! * warm-up, `s < w`: `(s + 1) / (w + 1)`
//! * after it, with progress `p = (s − w) / (n − w)`: constant `1`; linear `f + (1 − f)·(1 − p)`; cosine
//!   `f + (1 − f)·(1 + cos πp) / 2`
//!
//! Cosine: I. Loshchilov, F. Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", 2017,
//! <https://arxiv.org/abs/1608.03983>, equation 5, without restarts.
//!
//! Where we differ: common trainers warm up with `s / w`, which spends the first step at rate zero. Ours starts at
//! `1 / (w + 1)`, so that every step moves, and reaches 1 at step `w`. The last step, `n − 1`, is still above the
//! floor for the same reason.

use serde::{Deserialize, Serialize};

use crate::TrainError;

/// How the rate falls after warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shape {
    /// Stays at the full rate.
    Constant,
    /// Falls on a straight line to the floor.
    #[default]
    Linear,
    /// Falls along half a cosine to the floor.
    Cosine,
}

/// Warm-up and decay of the learning rate.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Schedule {
    /// How the rate falls after warm-up (default linear).
    pub shape: Shape,
    /// Steps of warm-up (default 0); more starts more gently. Not together with `warmup_ratio`.
    pub warmup_steps: u64,
    /// Warm-up as a part of all steps, 0 to below 1, rounded up (default 0). Not together with `warmup_steps`.
    pub warmup_ratio: f64,
    /// The factor that the rate falls to, 0 to 1 (default 0); 1 is the constant schedule.
    pub floor: f64,
}

impl Schedule {
    /// Refuses settings that have no meaning for a run of `steps` steps.
    ///
    /// # Errors
    /// [`TrainError::Setting`], naming the field.
    pub fn check(&self, steps: u64) -> Result<(), TrainError> {
        let unit = 0.0..1.0;
        if !unit.contains(&self.warmup_ratio) {
            return Err(TrainError::setting(
                "schedule.warmup_ratio",
                self.warmup_ratio,
                "at least 0 and below 1",
            ));
        }
        if self.warmup_steps > 0 && self.warmup_ratio > 0.0 {
            return Err(TrainError::setting(
                "schedule.warmup_ratio",
                self.warmup_ratio,
                "0 where schedule.warmup_steps is set; give one of the two",
            ));
        }
        if !(0.0..=1.0).contains(&self.floor) {
            return Err(TrainError::setting("schedule.floor", self.floor, "0 to 1"));
        }
        if self.warmup(steps) >= steps {
            return Err(TrainError::setting(
                "schedule.warmup_steps",
                self.warmup(steps),
                "fewer than `steps`; else the full rate is never reached",
            ));
        }
        Ok(())
    }

    /// Steps of warm-up in a run of `steps` steps.
    #[must_use]
    pub fn warmup(&self, steps: u64) -> u64 {
        if self.warmup_ratio > 0.0 {
            // A part below 1 leaves at least one step at the full rate.
            ((self.warmup_ratio * steps as f64).ceil() as u64).min(steps.saturating_sub(1))
        } else {
            self.warmup_steps
        }
    }

    /// What the full rate is multiplied by in step `step` (from 0) of `steps`; the floor past the end.
    #[must_use]
    pub fn factor(&self, step: u64, steps: u64) -> f64 {
        let warmup = self.warmup(steps);
        if step < warmup {
            return (step as f64 + 1.0) / (warmup as f64 + 1.0);
        }
        let progress = if step >= steps { 1.0 } else { (step - warmup) as f64 / (steps - warmup) as f64 };
        let left = match self.shape {
            Shape::Constant => return 1.0,
            Shape::Linear => 1.0 - progress,
            Shape::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
        };
        self.floor + (1.0 - self.floor) * left
    }
}

#[cfg(test)]
mod tests {
    use super::{Schedule, Shape};

    fn check(schedule: Schedule, steps: u64, expected: &[f64]) {
        for (step, &wanted) in expected.iter().enumerate() {
            let got = schedule.factor(step as u64, steps);
            assert!((got - wanted).abs() < 1e-12, "{schedule:?} at {step}: {got}, not {wanted}");
        }
    }

    #[test]
    fn linear_by_hand() {
        let plain = Schedule { shape: Shape::Linear, ..Schedule::default() };
        check(plain, 4, &[1.0, 0.75, 0.5, 0.25, 0.0, 0.0]);
        check(Schedule { floor: 0.2, ..plain }, 4, &[1.0, 0.8, 0.6, 0.4, 0.2, 0.2]);
        // 3 warm-up steps: quarters up, then 5 steps down in fifths.
        let warm = Schedule { warmup_steps: 3, ..plain };
        check(warm, 8, &[0.25, 0.5, 0.75, 1.0, 0.8, 0.6, 0.4, 0.2, 0.0]);
    }

    #[test]
    fn cosine_by_hand() {
        let cosine = Schedule { shape: Shape::Cosine, ..Schedule::default() };
        let half = std::f64::consts::FRAC_1_SQRT_2 / 2.0;
        check(cosine, 4, &[1.0, 0.5 + half, 0.5, 0.5 - half, 0.0]);
        // cos 60° = 1/2: 0.1 + 0.9 · 3/4.
        let warm = Schedule { warmup_steps: 1, floor: 0.1, ..cosine };
        check(warm, 4, &[0.5, 1.0, 0.775, 0.325, 0.1]);
    }

    #[test]
    fn constant_keeps_its_rate_and_ignores_the_floor() {
        let constant =
            Schedule { shape: Shape::Constant, floor: 0.3, warmup_steps: 1, ..Schedule::default() };
        check(constant, 3, &[0.5, 1.0, 1.0, 1.0]);
    }

    #[test]
    fn ratio_is_rounded_up() {
        let schedule = Schedule { warmup_ratio: 0.25, ..Schedule::default() };
        assert_eq!(schedule.warmup(10), 3);
        check(schedule, 10, &[0.25, 0.5, 0.75, 1.0, 1.0 - 1.0 / 7.0]);
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        let good = Schedule::default();
        for (schedule, field) in [
            (Schedule { warmup_ratio: 1.0, ..good }, "warmup_ratio"),
            (Schedule { warmup_ratio: f64::NAN, ..good }, "warmup_ratio"),
            (Schedule { warmup_ratio: 0.1, warmup_steps: 1, ..good }, "warmup_ratio"),
            (Schedule { warmup_steps: 10, ..good }, "warmup_steps"),
            (Schedule { floor: -0.1, ..good }, "floor"),
        ] {
            let message = schedule.check(10).unwrap_err().to_string();
            assert!(message.contains(field), "{message}");
        }
        good.check(10).unwrap();
    }
}
