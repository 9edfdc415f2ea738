//! Everything that a tuning run can be told: one definition feeds the flags, the recipe file, the help and the
//! printed recipe.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::adaptation::{Adaptation, Method, OWN_START};
use crate::choices::{
    FormatChoice, LossOn, OffsetChoice, PeftType, RecomputeChoice, ScheduleChoice, Shown, TaskChoice, Widen,
};
use crate::{AppError, Progress, recipes, typed};
use lowrank_command::options::key_value;

/// A tuning run. Each field is a flag (`--rank 8`) and a key of the recipe file (`rank = 8`).
#[derive(Debug, Clone, PartialEq, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Tune {
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
    /// Share of the data held out for evaluation, 0 to 0.9
    #[arg(long, default_value_t = 0.05, value_name = "SHARE", help_heading = "Model and data")]
    pub held_out: f64,
    /// Use at most this many records of the data; 0 is all
    #[arg(long, default_value_t = 0, value_name = "N", help_heading = "Model and data")]
    pub limit: usize,
    /// Where the adapter goes; refused when it exists, unless --overwrite
    #[arg(long, value_name = "DIR", help_heading = "Model and data")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub out: Option<PathBuf>,
    /// Where the base goes that the start leaves, as a Hugging Face directory in f32: with `init` for training in Python, with
    /// `tune` for a start that brings its base (loftq, qpissa)
    #[arg(long, value_name = "DIR", help_heading = "Model and data")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_out: Option<PathBuf>,
    /// Where recipe, metrics, checkpoints and report.html go; without it run, run-2, …
    #[arg(long, value_name = "DIR", help_heading = "Model and data")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<PathBuf>,
    /// Replace an adapter folder that exists
    #[arg(long, help_heading = "Model and data")]
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub overwrite: bool,
    /// Hold weights as f32 (once) or widen stored bf16, f16 or GGUF blocks in each product (on-use: less memory)
    #[arg(long, default_value = "once", value_enum, help_heading = "Model and data")]
    pub widen: Widen,

    /// A method by name, which fills in start, form, their choices and the rate; what is given beside it wins; see `lowrank
    /// list`
    #[arg(long, value_name = "NAME", help_heading = "Adapter")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Where the adapter starts; see `lowrank list` [default: lora-ga]
    #[arg(long, value_name = "NAME", help_heading = "Adapter")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<String>,
    /// A choice of the start, as name=value; may be repeated; see `lowrank explain NAME`
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value, help_heading = "Adapter")]
    #[serde(default, with = "lowrank_command::options::table", skip_serializing_if = "Vec::is_empty")]
    pub init_option: Vec<(String, String)>,
    /// How the change is parametrised; see `lowrank list` [default: lora]
    #[arg(long, value_name = "NAME", help_heading = "Adapter")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub form: Option<String>,
    /// A choice of the form, as name=value; may be repeated; see `lowrank explain NAME`
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value, help_heading = "Adapter")]
    #[serde(default, with = "lowrank_command::options::table", skip_serializing_if = "Vec::is_empty")]
    pub form_option: Vec<(String, String)>,
    /// Rank of the change
    #[arg(long, default_value_t = 8, value_name = "R", help_heading = "Adapter")]
    pub rank: usize,
    /// Scale of the change is alpha/rank, or alpha/√rank with --rank-stabilised
    #[arg(long, default_value_t = 16.0, value_name = "ALPHA", help_heading = "Adapter")]
    pub alpha: f64,
    /// Divide alpha by the root of the rank
    #[arg(long, help_heading = "Adapter")]
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rank_stabilised: bool,
    /// Layers to adapt: `all-linear`, names or dotted suffixes separated by commas, or a regular expression as /…/
    #[arg(long, default_value = "all-linear", value_name = "TARGETS", help_heading = "Adapter")]
    pub targets: String,
    /// Layers to leave out, written like --targets
    #[arg(long, value_name = "TARGETS", help_heading = "Adapter")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exclude: Option<String>,
    /// Blocks to adapt, as in 0-3,8; without it all
    #[arg(long, value_name = "RANGES", help_heading = "Adapter")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layers: Option<String>,
    /// Another rank for layers that match, as pattern=rank; may be repeated; PEFT's rule
    #[arg(long, value_name = "PATTERN=R", value_parser = key_value, help_heading = "Adapter")]
    #[serde(default, with = "lowrank_command::options::table", skip_serializing_if = "Vec::is_empty")]
    pub rank_pattern: Vec<(String, String)>,
    /// Another alpha for layers that match, as pattern=alpha; may be repeated; PEFT's rule
    #[arg(long, value_name = "PATTERN=A", value_parser = key_value, help_heading = "Adapter")]
    #[serde(default, with = "lowrank_command::options::table", skip_serializing_if = "Vec::is_empty")]
    pub alpha_pattern: Vec<(String, String)>,
    /// How a start that is not zero is taken back: beside the weight (shadow) or inside it (base)
    #[arg(long, default_value = "shadow", value_enum, help_heading = "Adapter")]
    pub offset: OffsetChoice,
    /// Write the adapter at its own rank by SVD of the change, instead of exactly at twice the rank
    #[arg(long, help_heading = "Adapter")]
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub recompress: bool,
    /// The type of PEFT's that the adapter is written in: that of its form (own), or a plain LoRA (lora), exact where the change is a
    /// product of thin factors (vera, adalora), the best of its rank with the error told elsewhere
    #[arg(long, default_value = "own", value_enum, help_heading = "Adapter")]
    #[serde(default = "own_type")]
    pub peft_type: PeftType,
    /// Records that a start from gradients sees, drawn from the training data; 0 is the batch of the first step, for a start from inputs those of the first sixteen
    #[arg(long, default_value_t = 0, value_name = "N", help_heading = "Adapter")]
    pub calibration: usize,
    /// Rows of one calibration pass, 0 is --batch; where several passes are needed, all are repeated for the power iterations
    #[arg(long, default_value_t = 0, value_name = "N", help_heading = "Adapter")]
    pub calibration_batch: usize,
    /// Calibrate on these rows of token ids (a JSON list of lists) instead of the data
    #[arg(long, value_name = "FILE.json", help_heading = "Adapter")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calibration_tokens: Option<PathBuf>,
    /// Tokens that a start from inputs sees: all, or those that are learned
    #[arg(long, default_value = "all", value_enum, help_heading = "Adapter")]
    pub shown: Shown,

    /// Longest sequence in tokens; longer ones are cut; 0 is the model's context, at most 1024
    #[arg(long, default_value_t = 0, value_name = "TOKENS", help_heading = "Text")]
    pub max_length: usize,
    /// Put several short records into one row; attention and positions stay within each record
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL", help_heading = "Text")]
    pub packing: bool,
    /// Whether prompts go through the model's chat template
    #[arg(long, default_value = "auto", value_enum, help_heading = "Text")]
    pub format: FormatChoice,
    /// Which tokens carry loss
    #[arg(long, default_value = "completion", value_enum, help_heading = "Text")]
    pub loss_on: LossOn,

    /// Passes over the data; ignored when --steps is given
    #[arg(long, default_value_t = 1.0, value_name = "N", help_heading = "Training")]
    pub epochs: f64,
    /// Optimiser steps
    #[arg(long, value_name = "N", help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    /// Sequences in one forward pass
    #[arg(long, default_value_t = 8, value_name = "N", help_heading = "Training")]
    pub batch: usize,
    /// Forward passes summed into one step
    #[arg(long, default_value_t = 1, value_name = "N", help_heading = "Training")]
    pub accumulate: u32,
    /// How gradients become steps; see `lowrank list`
    #[arg(long, default_value = "adamw", value_name = "NAME", help_heading = "Training")]
    pub optimiser: String,
    /// A choice of the optimiser, as name=value; may be repeated; see `lowrank explain NAME`
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value, help_heading = "Training")]
    #[serde(default, with = "lowrank_command::options::table", skip_serializing_if = "Vec::is_empty")]
    pub optimiser_option: Vec<(String, String)>,
    /// Learning rate at the top of the schedule; gradient starts like the rate of full fine-tuning, plain ones a larger
    /// [default: 5e-4]
    #[arg(long, value_name = "RATE", help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    /// How the rate runs over the steps
    #[arg(long, default_value = "cosine", value_enum, help_heading = "Training")]
    pub schedule: ScheduleChoice,
    /// Share of the steps over which the rate rises from zero
    #[arg(long, default_value_t = 0.03, value_name = "SHARE", help_heading = "Training")]
    pub warmup: f64,
    /// Rate of the left factor over that of the right (LoRA+)
    #[arg(long, default_value_t = 1.0, value_name = "RATIO", help_heading = "Training")]
    pub lora_plus: f64,
    /// Decoupled weight decay; a start that is not zero is pulled towards the base without it, so 0
    #[arg(long, default_value_t = 0.0, value_name = "DECAY", help_heading = "Training")]
    pub weight_decay: f64,
    /// Largest norm of the gradient; larger ones are scaled down; 0 is no limit
    #[arg(long, default_value_t = 1.0, value_name = "NORM", help_heading = "Training")]
    pub clip: f64,
    /// Keep all activations, or compute each block's again in the backward pass (less memory, one more forward pass)
    #[arg(long, default_value = "nothing", value_enum, help_heading = "Training")]
    pub recompute: RecomputeChoice,
    /// Evaluate every so many steps; 0 is a tenth of the run
    #[arg(long, default_value_t = 0, value_name = "STEPS", help_heading = "Training")]
    pub eval_every: u64,
    /// Hold out, and evaluate on, at most this many records (rows of a plain text); 0 is no limit
    #[arg(long, default_value_t = 64, value_name = "N", help_heading = "Training")]
    pub eval_limit: usize,
    /// Stop after so many evaluations without improvement; 0 never stops early
    #[arg(long, default_value_t = 0, value_name = "N", help_heading = "Training")]
    pub patience: u32,
    /// Save a checkpoint every so many steps; 0 is a fifth of the run
    #[arg(long, default_value_t = 0, value_name = "STEPS", help_heading = "Training")]
    pub checkpoint_every: u64,
    /// Go on from the newest checkpoint in the run folder
    #[arg(long, help_heading = "Training")]
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub resume: bool,
    /// Seed of every random draw
    #[arg(long, default_value_t = 0, value_name = "SEED", help_heading = "Training")]
    pub seed: u64,
    /// Another method or start (which takes the form lora) trained on the same budget for comparison, with a rate of its own if
    /// one is given; may be repeated
    #[arg(long, value_name = "NAME[@RATE]", help_heading = "Training")]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub compare: Vec<String>,
}

/// Recipes of versions that knew no other.
fn own_type() -> PeftType {
    PeftType::Own
}

/// Where an adapter starts when nothing is said.
const INIT: &str = "lora-ga";
/// Its form.
const FORM: &str = "lora";

/// Learning rate when none is given: the size that full fine-tuning of small decoders takes.
const RATE: f64 = 5e-4;

/// What a run without arguments does, so that it is over in two minutes on two cores.
const DEMONSTRATION_STEPS: u64 = 80;
/// Its rate, for both of its starts: of the size that full fine-tuning takes, where gradient starts are at home.
pub(super) const DEMONSTRATION_RATE: f64 = 1e-3;

impl Tune {
    /// Whether nothing was said of model and data.
    #[must_use]
    pub fn is_demonstration(&self) -> bool {
        self.model.is_none() && self.data.is_none()
    }

    /// With the method replaced by what it stands for, under what was given beside it; a conflict is told.
    ///
    /// # Errors
    /// [`AppError::Usage`] for a method that is not known.
    pub fn composed(&self, progress: &mut dyn Progress) -> Result<Tune, AppError> {
        let mut options = self.clone();
        if let Some(name) = options.method.take() {
            let recipes::Composed { init, init_options, form, form_options, .. } = recipes::named(&name)?;
            let rate = recipes::named(&name)?.rate();
            let mut part =
                |flag: &str, own: &mut Option<String>, chosen: &mut Vec<(String, String)>, it, more| {
                    let (it, more): (String, BTreeMap<String, String>) = (it, more);
                    if let Some(own) = own.as_ref().filter(|own| **own != it) {
                        progress
                            .say(&format!("note: {flag} {own} wins over --method {name}, which has {it}"));
                        return;
                    }
                    *own = Some(it);
                    for (key, value) in more {
                        match chosen.iter().find(|(given, _)| *given == key) {
                        Some((_, given)) if *given != value => progress.say(&format!(
                            "note: {flag}-option {key}={given} wins over --method {name}, which has {value}"
                        )),
                        Some(_) => {}
                        None => chosen.push((key, value)),
                    }
                    }
                };
            part("--init", &mut options.init, &mut options.init_option, init, init_options);
            part("--form", &mut options.form, &mut options.form_option, form, form_options);
            options.rate = options.rate.or(Some(rate));
        }
        let form = options.form.get_or_insert_with(|| FORM.to_owned());
        options.init.get_or_insert_with(|| recipes::usual_start(form, INIT).to_owned());
        Ok(options)
    }

    /// The start.
    #[must_use]
    pub fn start(&self) -> &str {
        self.init.as_deref().unwrap_or(INIT)
    }

    /// [`Tune::composed`] with every default filled in that depends on other options: the rate, and what a demonstration
    /// does.
    ///
    /// # Errors
    /// As [`Tune::composed`].
    pub fn resolved(&self, progress: &mut dyn Progress) -> Result<Tune, AppError> {
        let mut options = self.composed(progress)?;
        if options.is_demonstration() {
            options.steps = options.steps.or(Some(DEMONSTRATION_STEPS));
            options.rate = options.rate.or(Some(DEMONSTRATION_RATE));
            if options.compare.is_empty() && options.start() != "kaiming" {
                options.compare.push("kaiming".to_owned());
            }
        }
        options.rate = Some(options.own_rate());
        Ok(options)
    }

    /// The rate of the start itself.
    #[must_use]
    pub fn own_rate(&self) -> f64 {
        self.rate.unwrap_or(RATE)
    }

    /// What all starts share.
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
            rank_pattern: options.rank_pattern,
            alpha_pattern: options.alpha_pattern,
            offset: self.offset(),
            calibration: options.calibration,
            calibration_batch: options.calibration_batch,
            calibration_tokens: options.calibration_tokens,
            shown: options.shown,
            max_length: options.max_length,
            packing: options.packing,
            format: options.format,
            loss_on: options.loss_on,
            epochs: options.epochs,
            steps: options.steps,
            batch: options.batch,
            accumulate: options.accumulate,
            optimiser: options.optimiser,
            optimiser_option: options.optimiser_option,
            schedule: options.schedule,
            warmup: options.warmup,
            lora_plus: options.lora_plus,
            weight_decay: options.weight_decay,
            clip: options.clip,
            recompute: options.recompute,
            eval_every: options.eval_every,
            eval_limit: options.eval_limit,
            patience: options.patience,
            checkpoint_every: options.checkpoint_every,
            seed: options.seed,
        }
    }

    /// The start itself, and those to compare it with, which have no choices of their own.
    ///
    /// # Errors
    /// [`AppError::Usage`] when what is behind an @ is no number, and for --recompress with a form that it is nothing to.
    pub(crate) fn methods(&self) -> Result<Vec<Method>, AppError> {
        let form = self.form.clone().unwrap_or_else(|| FORM.to_owned());
        let init = self.start().to_owned();
        let own = Method {
            name: if init == OWN_START { form.clone() } else { init.clone() },
            init,
            init_options: self.init_option.iter().cloned().collect(),
            form,
            form_options: self.form_option.iter().cloned().collect(),
            rate: self.own_rate(),
        };
        if self.recompress && typed::keeps_its_type(&own.form, self.peft_type) {
            return Err(AppError::usage(format!(
                "--recompress: an adapter of the form {} is written as it is, in PEFT's own type, and has no rank to be cut to; leave \
                 it out",
                own.form
            )));
        }
        let mut methods = vec![own];
        for (name, rate) in self.compared()? {
            let recipes::Composed { init, init_options, form, form_options, .. } = recipes::named(name)?;
            methods.push(Method { name: name.to_owned(), init, init_options, form, form_options, rate });
        }
        Ok(methods)
    }

    /// The starts to compare with, each with its rate.
    ///
    /// # Errors
    /// [`AppError::Usage`] when what is behind the @ is no number.
    fn compared(&self) -> Result<Vec<(&str, f64)>, AppError> {
        let one = |entry: &'_ String| -> Result<(usize, f64), AppError> {
            let Some(at) = entry.find('@') else { return Ok((entry.len(), self.own_rate())) };
            let rate = entry[at + 1..].parse().map_err(|_| {
                AppError::usage(format!("--compare {entry}: \"{}\" is not a learning rate", &entry[at + 1..]))
            })?;
            Ok((at, rate))
        };
        self.compare.iter().map(|entry| one(entry).map(|(end, rate)| (&entry[..end], rate))).collect()
    }

    /// How the start is taken back: inside the base where that was asked for, or where the changed base is to be written.
    fn offset(&self) -> OffsetChoice {
        if self.base_out.is_some() { OffsetChoice::Base } else { self.offset }
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, Command, FromArgMatches as _};

    use super::*;

    #[test]
    fn the_flags_have_the_defaults_that_every_command_shares() {
        let matches = Tune::augment_args(Command::new("tune")).try_get_matches_from(["tune"]).unwrap();
        assert_eq!(Tune::from_arg_matches(&matches).unwrap().adaptation(), Adaptation::default());
    }
}
