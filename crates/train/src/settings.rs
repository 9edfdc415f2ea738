//! What can be chosen about a run.

use std::collections::BTreeMap;

use lowrank_record::Seed;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Group, Method, Schedule, TrainError};

/// Settings of a run. Unknown keys are refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Optimiser steps in all (default 100).
    pub steps: u64,
    /// Micro-batches a step (default 1); more give the gradient of a larger batch at the memory of a small one.
    pub accumulation: u32,
    /// Learning rate at the top of the schedule (default 2e-4).
    pub rate: f64,
    /// LoRA+ ratio (default 1, off): the rate of left factors is `left_ratio · rate`. S. Hayou, N. Ghosh, B. Yu,
    /// "LoRA+: Efficient Low Rank Adaptation of Large Models", 2024, <https://arxiv.org/abs/2402.12354>, which
    /// recommends about 16 where `left` starts at zero.
    pub left_ratio: f64,
    /// Weight decay (default 0), decoupled; each step shrinks a value by the part `rate · weight_decay`, with the
    /// group's rate.
    pub weight_decay: f64,
    /// The gradient's norm is cut to this (default 1); 0 turns clipping off.
    pub clip_norm: f64,
    /// The optimiser and its own settings.
    pub optimiser: Method,
    /// The rate over time.
    pub schedule: Schedule,
    /// Evaluate every so many steps, before the first and after the last (default 0: never).
    pub eval_every: u64,
    /// Stop when the held-out loss no longer falls (default: do not). Needs `eval_every`.
    pub early_stop: Option<EarlyStop>,
    /// At the end put the values of the best evaluation back (default false). Needs `eval_every`; keeps a copy of the
    /// trainable values.
    pub restore_best: bool,
    /// Save a checkpoint every so many steps (default 100); 0: only at the end and when interrupted.
    pub checkpoint_every: u64,
    /// Keep this many checkpoints (default 2, so that one damaged file costs little); 0 keeps all.
    pub keep_last: u32,
    /// Seed of everything random in the run. The trainer itself draws nothing: it is for the objective's data order
    /// and dropout, and a resumed run must have the same.
    pub seed: Seed,
}

/// When to stop early.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EarlyStop {
    /// Stop after this many evaluations in a row without an improvement; at least 1.
    pub patience: u32,
    /// A held-out loss counts as an improvement where it is lower than the best by more than this (default 0).
    #[serde(default)]
    pub min_improvement: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            steps: 100,
            accumulation: 1,
            rate: 2e-4,
            left_ratio: 1.0,
            weight_decay: 0.0,
            clip_norm: 1.0,
            optimiser: Method::default(),
            schedule: Schedule::default(),
            eval_every: 0,
            early_stop: None,
            restore_best: false,
            checkpoint_every: 100,
            keep_last: 2,
            seed: Seed(0),
        }
    }
}

/// Settings that change which files are kept, but no number: they may differ when a run is resumed.
const FREE: [&str; 2] = ["checkpoint_every", "keep_last"];

impl Settings {
    /// Refuses settings that have no meaning.
    ///
    /// # Errors
    /// [`TrainError::Setting`], naming the field.
    pub fn check(&self) -> Result<(), TrainError> {
        let positive = |x: f64| x.is_finite() && x > 0.0;
        let at_least_zero = |x: f64| x.is_finite() && x >= 0.0;
        require(self.steps > 0, "steps", self.steps, "at least 1")?;
        require(self.accumulation > 0, "accumulation", self.accumulation, "at least 1")?;
        require(positive(self.rate), "rate", self.rate, "above 0")?;
        require(positive(self.left_ratio), "left_ratio", self.left_ratio, "above 0; 1 turns it off")?;
        require(at_least_zero(self.weight_decay), "weight_decay", self.weight_decay, "at least 0")?;
        require(
            at_least_zero(self.clip_norm),
            "clip_norm",
            self.clip_norm,
            "at least 0; 0 turns clipping off",
        )?;
        let evaluates = self.eval_every > 0;
        require(evaluates || !self.restore_best, "eval_every", 0, "at least 1 where restore_best is set")?;
        if let Some(EarlyStop { patience, min_improvement: margin }) = self.early_stop {
            require(evaluates, "eval_every", 0, "at least 1 where early_stop is set")?;
            require(patience > 0, "early_stop.patience", patience, "at least 1")?;
            require(at_least_zero(margin), "early_stop.min_improvement", margin, "at least 0")?;
        }
        self.optimiser.check()?;
        self.schedule.check(self.steps)
    }

    /// The learning rate of a group in step `step` (from 0).
    #[must_use]
    pub fn rate_of(&self, group: Group, step: u64) -> f64 {
        let ratio = if group == Group::Left { self.left_ratio } else { 1.0 };
        self.rate * self.schedule.factor(step, self.steps) * ratio
    }

    /// The settings that decide a run's numbers, by dotted name, as text: two runs with the same fields, identity and
    /// objective are the same run.
    ///
    /// Text and not numbers, because a number read back from JSON may differ in its last bit.
    #[must_use]
    pub fn fields(&self) -> BTreeMap<String, String> {
        let mut fields = BTreeMap::new();
        // A plain struct of numbers always serialises; the empty object could only come from our own mistake, and
        // would then be refused on resume.
        flatten("", &serde_json::to_value(self).unwrap_or_default(), &mut fields);
        fields.retain(|name, _| !FREE.contains(&name.as_str()));
        fields
    }
}

fn require(
    met: bool,
    field: &'static str,
    value: impl std::fmt::Display,
    need: &'static str,
) -> Result<(), TrainError> {
    if met { Ok(()) } else { Err(TrainError::setting(field, value, need)) }
}

fn flatten(prefix: &str, value: &Value, into: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(entries) => {
            for (name, value) in entries {
                let name = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                flatten(&name, value, into);
            }
        }
        leaf => {
            into.insert(prefix.to_owned(), leaf.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{EarlyStop, Settings};
    use crate::{Group, Method, Schedule, Sgd, Shape};

    #[test]
    fn defaults_are_sound_and_an_empty_table_means_them() {
        Settings::default().check().unwrap();
        assert_eq!(serde_json::from_str::<Settings>("{}").unwrap(), Settings::default());
    }

    #[test]
    fn unknown_keys_are_refused_at_every_depth() {
        for text in [
            r#"{"step":1}"#,
            r#"{"schedule":{"shape":"linear","warmup":3}}"#,
            r#"{"early_stop":{"patience":1,"delta":0}}"#,
            r#"{"optimiser":{"name":"sgd","beta1":0.9}}"#,
        ] {
            assert!(serde_json::from_str::<Settings>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        let good = Settings::default;
        let early = |patience, min_improvement| Some(EarlyStop { patience, min_improvement });
        for (settings, field) in [
            (Settings { steps: 0, ..good() }, "`steps`"),
            (Settings { accumulation: 0, ..good() }, "`accumulation`"),
            (Settings { rate: 0.0, ..good() }, "`rate`"),
            (Settings { rate: f64::NAN, ..good() }, "`rate`"),
            (Settings { left_ratio: -1.0, ..good() }, "`left_ratio`"),
            (Settings { weight_decay: -1.0, ..good() }, "`weight_decay`"),
            (Settings { clip_norm: f64::INFINITY, ..good() }, "`clip_norm`"),
            (Settings { early_stop: early(1, 0.0), ..good() }, "`eval_every`"),
            (Settings { early_stop: early(0, 0.0), eval_every: 1, ..good() }, "patience"),
            (Settings { early_stop: early(1, -0.1), eval_every: 1, ..good() }, "min_improvement"),
            (Settings { restore_best: true, ..good() }, "`eval_every`"),
            (Settings { schedule: Schedule { floor: 2.0, ..Schedule::default() }, ..good() }, "floor"),
        ] {
            let message = settings.check().unwrap_err().to_string();
            assert!(message.contains(field), "{message}");
        }
    }

    #[test]
    fn lora_plus_raises_the_rate_of_left_factors_alone() {
        let schedule = Schedule { shape: Shape::Linear, ..Schedule::default() };
        let settings = Settings { steps: 4, rate: 0.5, left_ratio: 16.0, schedule, ..Settings::default() };
        assert_eq!(settings.rate_of(Group::Left, 0), 8.0);
        assert_eq!(settings.rate_of(Group::Right, 0), 0.5);
        assert_eq!(settings.rate_of(Group::Dense, 2), 0.25);
        assert_eq!(settings.rate_of(Group::Left, 2), 4.0);
    }

    #[test]
    fn fields_see_every_change_of_a_number_and_no_other() {
        let fields = Settings::default().fields();
        assert_eq!(fields["schedule.shape"], "\"linear\"");
        assert_eq!(fields["optimiser.beta2"], "0.999");
        let other = Settings { optimiser: Method::Sgd(Sgd::default()), ..Settings::default() };
        assert_ne!(other.fields(), fields);
        let early = Settings {
            early_stop: Some(EarlyStop { patience: 2, min_improvement: 0.0 }),
            ..Settings::default()
        };
        assert_ne!(early.fields(), fields);
        let files = Settings { checkpoint_every: 7, keep_last: 9, ..Settings::default() };
        assert_eq!(files.fields(), fields);
    }
}
