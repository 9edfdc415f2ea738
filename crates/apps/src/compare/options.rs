//! Everything that a comparison can be told.

use std::path::PathBuf;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::AppError;
use crate::adaptation::Adaptation;
use crate::choices::{FormatChoice, LossOn, RecomputeChoice, ScheduleChoice, TaskChoice, Widen};

/// A comparison. Each field is a flag (`--rank 8`) and a key of the recipe file (`rank = 8`).
#[derive(Debug, Clone, PartialEq, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Compare {
    /// Model: a Hugging Face directory or a GGUF file; without it the small decoder inside this binary
    #[arg(long, value_name = "DIR|FILE", help_heading = "Model and data")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<PathBuf>,
    /// What an encoder should learn (BERT, RoBERTa, MiniLM); its data are records of text (or two texts) and label
    #[arg(long, value_name = "TASK", value_enum, help_heading = "Model and data")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskChoice>,
    /// Training data: JSONL or a JSON list (text, prompt/completion, question/answer or messages), a BIG-bench task.json, or
    /// plain text
    #[arg(long, value_name = "FILE", help_heading = "Model and data")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<PathBuf>,
    /// Held-out data; without it a share of the training data is held out
    #[arg(long, value_name = "FILE", help_heading = "Model and data")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_out_data: Option<PathBuf>,
    /// Share of the data held out: rates are chosen on one half of it, losses told of the other
    #[arg(long, default_value_t = 0.05, value_name = "SHARE", help_heading = "Model and data")]
    pub held_out: f64,
    /// Multiple-choice questions to ask each trained adapter: JSONL (question, choices, answer) or a BIG-bench task.json
    #[arg(long, value_name = "FILE", help_heading = "Model and data")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub questions: Option<PathBuf>,
    /// Use at most this many records of the data; 0 is all
    #[arg(long, default_value_t = 0, value_name = "N", help_heading = "Model and data")]
    pub limit: usize,
    /// Where the finished runs, compare.json and compare.html go; without it compare, compare-2, …
    #[arg(long, value_name = "DIR", help_heading = "Model and data")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<PathBuf>,
    /// Hold weights as f32 (once) or widen stored blocks in each product (on-use: less memory)
    #[arg(long, default_value = "once", value_enum, help_heading = "Model and data")]
    pub widen: Widen,

    /// What to compare, separated by commas: methods of `lowrank list`, a start alone, or INIT+FORM; the first is what the
    /// others are measured against; NAME@RATE takes that rate and searches none [default: lora,pissa,lora-ga]
    #[arg(long, value_delimiter = ',', value_name = "NAME[@RATE],…", help_heading = "Comparison")]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// What is made equal: the number of trained values, by choosing ranks, or the rank
    #[arg(long, default_value = "parameters", value_enum, help_heading = "Comparison")]
    pub equal: Equal,
    /// Training runs of each method, each with its own order of the data and draws; the same for all methods
    #[arg(long, default_value_t = 3, value_name = "N", help_heading = "Comparison")]
    pub seeds: u32,
    /// Time for everything, as in 90s, 10m or 2h, from which the number of steps follows [default: 10m]
    #[arg(long, value_name = "TIME", help_heading = "Comparison")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<String>,
    /// Optimiser steps of each run, instead of a budget: the same numbers on any machine
    #[arg(long, value_name = "N", help_heading = "Comparison")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    /// Rates tried for each method in runs of a quarter of the steps, the best again in runs of half; 1 takes the recipe's
    #[arg(long, default_value_t = 5, value_name = "N", help_heading = "Comparison")]
    pub rates: usize,
    /// Seeds over which the search for a rate averages; they are none of those compared
    #[arg(long, default_value_t = 1, value_name = "N", help_heading = "Comparison")]
    pub tuning_seeds: u32,
    /// Go on with the comparison in the run folder: finished runs are kept, and methods may be added
    #[arg(long, help_heading = "Comparison")]
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub resume: bool,

    /// Rank of the first method
    #[arg(long, default_value_t = 8, value_name = "R", help_heading = "Adapters")]
    pub rank: usize,
    /// Scale of the change is alpha/rank, or alpha/√rank with --rank-stabilised
    #[arg(long, default_value_t = 16.0, value_name = "ALPHA", help_heading = "Adapters")]
    pub alpha: f64,
    /// Divide alpha by the root of the rank
    #[arg(long, help_heading = "Adapters")]
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rank_stabilised: bool,
    /// Layers to adapt: `all-linear`, names or dotted suffixes separated by commas, or a regular expression as /…/
    #[arg(long, default_value = "all-linear", value_name = "TARGETS", help_heading = "Adapters")]
    pub targets: String,
    /// Layers to leave out, written like --targets
    #[arg(long, value_name = "TARGETS", help_heading = "Adapters")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exclude: Option<String>,
    /// Blocks to adapt, as in 0-3,8; without it all
    #[arg(long, value_name = "RANGES", help_heading = "Adapters")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layers: Option<String>,
    /// Records that a start from evidence sees, drawn from the training data; 0 is the batch of the first step
    #[arg(long, default_value_t = 0, value_name = "N", help_heading = "Adapters")]
    pub calibration: usize,

    /// Longest sequence in tokens; longer ones are cut; 0 is the model's context, at most 1024
    #[arg(long, default_value_t = 0, value_name = "TOKENS", help_heading = "Text")]
    pub max_length: usize,
    /// Put several short records into one row; attention and positions stay within each record
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL", help_heading = "Text")]
    pub packing: bool,
    /// Whether prompts go through the chat template
    #[arg(long, default_value = "auto", value_enum, help_heading = "Text")]
    pub format: FormatChoice,
    /// Which tokens carry loss
    #[arg(long, default_value = "completion", value_enum, help_heading = "Text")]
    pub loss_on: LossOn,

    /// Sequences in one forward pass [default: 8, without --model and --data 4]
    #[arg(long, value_name = "N", help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch: Option<usize>,
    /// Forward passes summed into one step
    #[arg(long, default_value_t = 1, value_name = "N", help_heading = "Training")]
    pub accumulate: u32,
    /// How gradients become steps; see `lowrank list`
    #[arg(long, default_value = "adamw", value_name = "NAME", help_heading = "Training")]
    pub optimiser: String,
    /// How the rate runs over the steps
    #[arg(long, default_value = "cosine", value_enum, help_heading = "Training")]
    pub schedule: ScheduleChoice,
    /// Share of the steps over which the rate rises from zero
    #[arg(long, default_value_t = 0.03, value_name = "SHARE", help_heading = "Training")]
    pub warmup: f64,
    /// Largest norm of the gradient; larger ones are scaled down; 0 is no limit
    #[arg(long, default_value_t = 1.0, value_name = "NORM", help_heading = "Training")]
    pub clip: f64,
    /// Keep all activations, or compute each block's again in the backward pass (less memory, one more forward pass)
    #[arg(long, default_value = "nothing", value_enum, help_heading = "Training")]
    pub recompute: RecomputeChoice,
    /// Hold out at most this many records (rows of a plain text); 0 is no limit [default: 64, without --model and --data 32]
    #[arg(long, value_name = "N", help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval_limit: Option<usize>,
    /// The first seed; the others follow it
    #[arg(long, default_value_t = 0, value_name = "SEED", help_heading = "Training")]
    pub seed: u64,
}

/// What the methods have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Equal {
    /// The number of trained values, as nearly as ranks allow.
    Parameters,
    /// The rank.
    Rank,
}

/// What is compared when nothing is said.
const METHODS: [&str; 3] = ["lora", "pissa", "lora-ga"];
/// The time when nothing is said.
const BUDGET: &str = "10m";
/// Steps without model and data, so that five methods and two seeds take some two minutes on two cores.
const DEMONSTRATION_STEPS: u64 = 24;

impl Compare {
    /// With every default filled in that depends on other options.
    ///
    /// # Errors
    /// [`AppError::Usage`] for numbers that cannot be.
    pub fn resolved(&self) -> Result<Compare, AppError> {
        let mut options = self.clone();
        let demonstration = options.model.is_none() && options.data.is_none();
        if options.methods.is_empty() {
            options.methods = METHODS.map(str::to_owned).to_vec();
        }
        if options.steps.is_some() && options.budget.is_some() {
            return Err(AppError::usage(
                "--steps and --budget: give one of them; a budget chooses the steps",
            ));
        }
        if options.steps.is_none() && options.budget.is_none() {
            if demonstration {
                options.steps = Some(DEMONSTRATION_STEPS);
            } else {
                options.budget = Some(BUDGET.to_owned());
            }
        }
        options.batch = options.batch.or(Some(if demonstration { 4 } else { 8 }));
        options.eval_limit = options.eval_limit.or(Some(if demonstration { 32 } else { 64 }));
        let at_least_1 = [
            ("--seeds", u64::from(options.seeds)),
            ("--rates", options.rates as u64),
            ("--tuning-seeds", u64::from(options.tuning_seeds)),
            ("--steps", options.steps.unwrap_or(1)),
        ];
        if let Some((flag, _)) = at_least_1.iter().find(|(_, number)| *number == 0) {
            return Err(AppError::usage(format!("{flag} 0: give at least 1")));
        }
        options.seconds()?;
        Ok(options)
    }

    /// The budget in seconds, if there is one.
    ///
    /// # Errors
    /// [`AppError::Usage`] for what is no time.
    pub fn seconds(&self) -> Result<Option<f64>, AppError> {
        let Some(text) = &self.budget else { return Ok(None) };
        let refused = || AppError::usage(format!("--budget {text}: write a time such as 90s, 10m or 2h"));
        let (number, unit) =
            text.split_at(text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len()));
        let unit = match unit {
            "s" => 1.0,
            "m" | "min" => 60.0,
            "h" => 3600.0,
            _ => return Err(refused()),
        };
        let seconds = number.trim().parse::<f64>().map_err(|_| refused())? * unit;
        if seconds.is_finite() && seconds > 0.0 { Ok(Some(seconds)) } else { Err(refused()) }
    }

    /// What all methods share.
    pub(crate) fn adaptation(&self) -> Adaptation {
        let options = self.clone();
        Adaptation {
            model: options.model,
            task: options.task,
            data: options.data,
            held_out_data: options.held_out_data,
            held_out: options.held_out,
            limit: options.limit,
            widen: options.widen,
            rank: options.rank,
            alpha: options.alpha,
            rank_stabilised: options.rank_stabilised,
            targets: options.targets,
            exclude: options.exclude,
            layers: options.layers,
            calibration: options.calibration,
            max_length: options.max_length,
            packing: options.packing,
            format: options.format,
            loss_on: options.loss_on,
            batch: options.batch.unwrap_or(8),
            accumulate: options.accumulate,
            optimiser: options.optimiser,
            schedule: options.schedule,
            warmup: options.warmup,
            clip: options.clip,
            recompute: options.recompute,
            eval_limit: options.eval_limit.unwrap_or(64),
            seed: options.seed,
            ..Adaptation::default()
        }
    }

    /// What decides the numbers of every run, by name, and may not change when a comparison is gone on with: all but the
    /// methods, the seeds that are run, where it runs and for how long.
    ///
    /// # Errors
    /// [`AppError::Usage`] when a value cannot be written.
    pub(crate) fn facts(&self) -> Result<Vec<(String, String)>, AppError> {
        const FREE: [&str; 6] = ["methods", "seeds", "budget", "steps", "run", "resume"];
        let table = toml::Table::try_from(self).map_err(|error| AppError::usage(error.to_string()))?;
        let kept = table.into_iter().filter(|(key, _)| !FREE.contains(&key.as_str()));
        Ok(kept.map(|(key, value)| (key, value.to_string())).collect())
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, Command, FromArgMatches as _};

    use super::*;

    fn typed(flags: &[&str]) -> Compare {
        let command = Compare::augment_args(Command::new("compare"));
        Compare::from_arg_matches(&command.try_get_matches_from([&["compare"], flags].concat()).unwrap())
            .unwrap()
    }

    #[test]
    fn budgets_have_units() {
        let seconds = |text: &str| typed(&[&format!("--budget={text}"), "--data", "x"]).resolved()?.seconds();
        assert_eq!(seconds("90s").unwrap(), Some(90.0));
        assert_eq!(seconds("10m").unwrap(), Some(600.0));
        assert_eq!(seconds("1.5h").unwrap(), Some(5400.0));
        for wrong in ["10", "m", "10 years", "-3m", "0s", "infs"] {
            assert!(seconds(wrong).unwrap_err().to_string().contains("such as 90s"), "{wrong}");
        }
    }

    #[test]
    fn the_ground_is_that_of_tune_where_nothing_is_said() {
        let ground = typed(&["--data", "x"]).resolved().unwrap().adaptation();
        assert_eq!(ground, Adaptation { data: Some("x".into()), ..Adaptation::default() });
    }
}
