//! What all methods of one command share: model, data, layers, and how they are trained.

use std::path::PathBuf;

use crate::choices::{
    FormatChoice, LossOn, OffsetChoice, RecomputeChoice, ScheduleChoice, Shown, TaskChoice, Widen,
};

/// The ground on which methods are tried. Each field is the flag of `lowrank tune` of that name.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Adaptation {
    /// The model; `None` is the decoder inside this binary.
    pub(crate) model: Option<PathBuf>,
    /// What an encoder learns; none for a decoder.
    pub(crate) task: Option<TaskChoice>,
    /// Training data; `None` is the text inside this binary.
    pub(crate) data: Option<PathBuf>,
    /// Held-out data, where it has a file of its own.
    pub(crate) held_out_data: Option<PathBuf>,
    /// Share held out otherwise.
    pub(crate) held_out: f64,
    /// Records used at most; 0 is all.
    pub(crate) limit: usize,
    /// How weights are held.
    pub(crate) widen: Widen,
    /// Rank of the change.
    pub(crate) rank: usize,
    /// Its alpha.
    pub(crate) alpha: f64,
    /// Whether alpha is divided by the root of the rank.
    pub(crate) rank_stabilised: bool,
    /// Layers adapted.
    pub(crate) targets: String,
    /// Layers left out.
    pub(crate) exclude: Option<String>,
    /// Blocks adapted.
    pub(crate) layers: Option<String>,
    /// Other ranks for layers that match.
    pub(crate) rank_pattern: Vec<(String, String)>,
    /// Other alphas for layers that match.
    pub(crate) alpha_pattern: Vec<(String, String)>,
    /// How a start that is not zero is taken back.
    pub(crate) offset: OffsetChoice,
    /// Records that evidence is collected on; 0 is the batch of the first step.
    pub(crate) calibration: usize,
    /// Rows of one calibration pass; 0 is the batch of training.
    pub(crate) calibration_batch: usize,
    /// Rows of token ids to collect evidence on instead.
    pub(crate) calibration_tokens: Option<PathBuf>,
    /// Which of its tokens enter statistics of inputs.
    pub(crate) shown: Shown,
    /// Longest sequence in tokens; 0 is the model's context.
    pub(crate) max_length: usize,
    /// Whether several short records share a row.
    pub(crate) packing: bool,
    /// Whether prompts go through the chat template.
    pub(crate) format: FormatChoice,
    /// Which tokens carry loss.
    pub(crate) loss_on: LossOn,
    /// Passes over the data.
    pub(crate) epochs: f64,
    /// Optimiser steps; instead of the passes.
    pub(crate) steps: Option<u64>,
    /// Sequences in one forward pass.
    pub(crate) batch: usize,
    /// Forward passes summed into one step.
    pub(crate) accumulate: u32,
    /// The optimiser.
    pub(crate) optimiser: String,
    /// Its choices.
    pub(crate) optimiser_option: Vec<(String, String)>,
    /// How the rate runs over the steps.
    pub(crate) schedule: ScheduleChoice,
    /// Share of the steps over which it rises.
    pub(crate) warmup: f64,
    /// Rate of the left factor over that of the right.
    pub(crate) lora_plus: f64,
    /// Decoupled weight decay.
    pub(crate) weight_decay: f64,
    /// Largest norm of the gradient; 0 is no limit.
    pub(crate) clip: f64,
    /// What the backward pass computes again.
    pub(crate) recompute: RecomputeChoice,
    /// Evaluate every so many steps; 0 is a tenth of the run.
    pub(crate) eval_every: u64,
    /// Examples evaluated on at most; 0 is all that are held out.
    pub(crate) eval_limit: usize,
    /// Evaluations without improvement before stopping; 0 never stops early.
    pub(crate) patience: u32,
    /// Save a checkpoint every so many steps; 0 is a fifth of the run.
    pub(crate) checkpoint_every: u64,
    /// Seed of every draw.
    pub(crate) seed: u64,
}

/// The defaults of `lowrank tune`, which a test there compares with those of its flags.
impl Default for Adaptation {
    fn default() -> Adaptation {
        Adaptation {
            model: None,
            task: None,
            data: None,
            held_out_data: None,
            held_out: 0.05,
            limit: 0,
            widen: Widen::Once,
            rank: 8,
            alpha: 16.0,
            rank_stabilised: false,
            targets: "all-linear".to_owned(),
            exclude: None,
            layers: None,
            rank_pattern: Vec::new(),
            alpha_pattern: Vec::new(),
            offset: OffsetChoice::Shadow,
            calibration: 0,
            calibration_batch: 0,
            calibration_tokens: None,
            shown: Shown::All,
            max_length: 0,
            packing: true,
            format: FormatChoice::Auto,
            loss_on: LossOn::Completion,
            epochs: 1.0,
            steps: None,
            batch: 8,
            accumulate: 1,
            optimiser: "adamw".to_owned(),
            optimiser_option: Vec::new(),
            schedule: ScheduleChoice::Cosine,
            warmup: 0.03,
            lora_plus: 1.0,
            weight_decay: 0.0,
            clip: 1.0,
            recompute: RecomputeChoice::Nothing,
            eval_every: 0,
            eval_limit: 64,
            patience: 0,
            checkpoint_every: 0,
            seed: 0,
        }
    }
}
