//! Everything that advice can be told.

use std::path::PathBuf;

use clap::ValueEnum;
use serde::Serialize;

use crate::adaptation::{Adaptation, Method};
use crate::choices::{FormatChoice, LossOn, RecomputeChoice, TaskChoice, Widen};
use crate::{AppError, recipes};

/// What is looked at. Each field is a flag; those that `lowrank tune` has too mean the same there.
#[derive(Debug, Clone, PartialEq, clap::Args)]
pub struct Advise {
    /// Model: a Hugging Face directory or a GGUF file; without it the small decoder inside this binary
    #[arg(long, value_name = "DIR|FILE", help_heading = "Model and data")]
    pub model: Option<PathBuf>,
    /// What an encoder should learn (BERT, RoBERTa, MiniLM); its data are records of text (or two texts) and label
    #[arg(long, value_name = "TASK", value_enum, help_heading = "Model and data")]
    pub task: Option<TaskChoice>,
    /// Data to be trained on: JSONL or a JSON list, a BIG-bench task.json, or plain text
    #[arg(long, value_name = "FILE", help_heading = "Model and data")]
    pub data: Option<PathBuf>,
    /// Share of the data that training would hold out; it is not looked at
    #[arg(long, default_value_t = 0.05, value_name = "SHARE", help_heading = "Model and data")]
    pub held_out: f64,
    /// Use at most this many records of the data; 0 is all
    #[arg(long, default_value_t = 0, value_name = "N", help_heading = "Model and data")]
    pub limit: usize,
    /// Where advise.html and advise.json go; without it advise, advise-2, …
    #[arg(long, value_name = "DIR", help_heading = "Model and data")]
    pub run: Option<PathBuf>,
    /// Hold weights as f32 (once) or widen stored blocks in each product (on-use: less memory)
    #[arg(long, default_value = "once", value_enum, help_heading = "Model and data")]
    pub widen: Widen,

    /// Methods to ask, separated by commas: of `lowrank list`, a start alone, or INIT+FORM
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "NAME,…",
        default_value = "lora,pissa,lora-ga,eva,lora-sb",
        help_heading = "Advice"
    )]
    pub methods: Vec<String>,
    /// Records that the one pass sees, drawn from the training data; 0 is the batch of the first step, which a gradient start sees
    #[arg(long, default_value_t = 8, value_name = "N", help_heading = "Advice")]
    pub calibration: usize,
    /// Part of the inputs' variance, or of the gradient, that a suggested rank of a layer by itself has to hold
    #[arg(long, default_value_t = 0.9, value_name = "SHARE", help_heading = "Advice")]
    pub share: f64,
    /// How many times its planned rank a layer may get when the same sum of ranks is given out anew
    #[arg(long, default_value_t = 2.0, value_name = "RHO", help_heading = "Advice")]
    pub rho: f64,
    /// What --write-ranks goes by: the variance of inputs, as EVA, or the energy of the gradient
    #[arg(long, default_value = "inputs", value_enum, help_heading = "Advice")]
    pub ranks_by: RanksBy,
    /// Write the suggested ranks as a recipe for `lowrank tune --recipe FILE`; refused when it exists
    #[arg(long, value_name = "FILE.toml", help_heading = "Advice")]
    pub write_ranks: Option<PathBuf>,

    /// Rank of the change
    #[arg(long, default_value_t = 8, value_name = "R", help_heading = "Adapters")]
    pub rank: usize,
    /// Scale of the change is alpha/rank, or alpha/√rank with --rank-stabilised
    #[arg(long, default_value_t = 16.0, value_name = "ALPHA", help_heading = "Adapters")]
    pub alpha: f64,
    /// Divide alpha by the root of the rank
    #[arg(long, help_heading = "Adapters")]
    pub rank_stabilised: bool,
    /// Layers to adapt: `all-linear`, names or dotted suffixes separated by commas, or a regular expression as /…/
    #[arg(long, default_value = "all-linear", value_name = "TARGETS", help_heading = "Adapters")]
    pub targets: String,
    /// Layers to leave out, written like --targets
    #[arg(long, value_name = "TARGETS", help_heading = "Adapters")]
    pub exclude: Option<String>,
    /// Blocks to adapt, as in 0-3,8; without it all
    #[arg(long, value_name = "RANGES", help_heading = "Adapters")]
    pub layers: Option<String>,

    /// Longest sequence in tokens; longer ones are cut; 0 is the model's context, at most 1024
    #[arg(long, default_value_t = 0, value_name = "TOKENS", help_heading = "Text and training")]
    pub max_length: usize,
    /// Put several short records into one row
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL", help_heading = "Text and training")]
    pub packing: bool,
    /// Whether prompts go through the chat template
    #[arg(long, default_value = "auto", value_enum, help_heading = "Text and training")]
    pub format: FormatChoice,
    /// Which tokens carry loss
    #[arg(long, default_value = "completion", value_enum, help_heading = "Text and training")]
    pub loss_on: LossOn,
    /// Sequences in one forward pass
    #[arg(long, default_value_t = 8, value_name = "N", help_heading = "Text and training")]
    pub batch: usize,
    /// Keep all activations, or compute each block's again in the backward pass
    #[arg(long, default_value = "nothing", value_enum, help_heading = "Text and training")]
    pub recompute: RecomputeChoice,
    /// Seed of every random draw
    #[arg(long, default_value_t = 0, value_name = "SEED", help_heading = "Text and training")]
    pub seed: u64,
}

/// What ranks are given out by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RanksBy {
    /// The parts of each layer's variance of inputs about their mean.
    Inputs,
    /// The parts of the whole gradient's energy.
    Gradient,
}

impl Advise {
    /// Refuses numbers that cannot be.
    ///
    /// # Errors
    /// [`AppError::Usage`] naming the flag.
    pub(super) fn checked(&self) -> Result<(), AppError> {
        if !(self.share > 0.0 && self.share <= 1.0) {
            return Err(AppError::usage(format!("--share {}: give a part above 0, up to 1", self.share)));
        }
        if !(self.rho >= 1.0 && self.rho.is_finite()) {
            return Err(AppError::usage(format!(
                "--rho {}: give a number from 1 on; at 1 every layer keeps its rank",
                self.rho
            )));
        }
        Ok(())
    }

    /// The methods that are asked.
    ///
    /// # Errors
    /// [`AppError::Usage`] naming the nearest known name, or a method that is there twice.
    pub(crate) fn asked(&self) -> Result<Vec<Method>, AppError> {
        let mut methods: Vec<Method> = Vec::with_capacity(self.methods.len());
        for name in self.methods.iter().map(|name| name.trim()) {
            let composed = recipes::named(name)?;
            let rate = composed.rate();
            let method = Method::of(name, composed, rate);
            if methods.iter().any(|other| other.does_the_same(&method)) {
                return Err(AppError::usage(format!("--methods: {name} is there twice")));
            }
            methods.push(method);
        }
        Ok(methods)
    }

    /// The ground that all methods share: that of a run of `lowrank tune` with these options.
    pub(crate) fn adaptation(&self) -> Adaptation {
        let options = self.clone();
        Adaptation {
            model: options.model,
            task: options.task,
            data: options.data,
            held_out: options.held_out,
            limit: options.limit,
            widen: options.widen,
            rank: options.rank,
            alpha: options.alpha,
            rank_stabilised: options.rank_stabilised,
            targets: options.targets,
            exclude: options.exclude,
            layers: options.layers,
            max_length: options.max_length,
            packing: options.packing,
            format: options.format,
            loss_on: options.loss_on,
            batch: options.batch,
            recompute: options.recompute,
            seed: options.seed,
            ..Adaptation::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, Command, FromArgMatches as _};

    use super::*;

    fn typed(flags: &[&str]) -> Advise {
        let command = Advise::augment_args(Command::new("advise"));
        Advise::from_arg_matches(&command.try_get_matches_from([&["advise"], flags].concat()).unwrap())
            .unwrap()
    }

    #[test]
    fn the_ground_is_that_of_tune_where_nothing_is_said() {
        assert_eq!(typed(&[]).adaptation(), Adaptation::default());
        assert_eq!(typed(&[]).asked().unwrap().len(), 5);
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        let refused = |flags: &[&str]| typed(flags).checked().unwrap_err().to_string();
        assert!(refused(&["--share", "0"]).contains("--share 0"));
        assert!(refused(&["--rho", "0.5"]).contains("--rho 0.5"));
        assert!(typed(&["--methods", "lora,kaiming"]).asked().unwrap_err().to_string().contains("twice"));
        assert!(typed(&["--methods", "pisa"]).asked().unwrap_err().to_string().contains("pissa"));
    }
}
