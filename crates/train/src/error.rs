//! What can go wrong in a training run.

use std::fmt::Display;
use std::path::PathBuf;

use crate::objective::Failure;

/// Why a run did not start, stopped or could not be resumed.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// A setting has no meaning.
    #[error("setting `{field}` is {value}; it must be {need}")]
    Setting {
        /// The setting, with dots.
        field: String,
        /// What it was.
        value: String,
        /// What it must be.
        need: String,
    },
    /// The objective has nothing to train.
    #[error("there is nothing to train: the objective has no trainable tensors; attach an adapter first")]
    NothingToTrain,
    /// Two parameters share a name, so that a checkpoint could not tell them apart.
    #[error("two trainable tensors are named `{name}`; names must be unique")]
    SameName {
        /// The name.
        name: String,
    },
    /// A parameter's value or gradient has another size than its shape says.
    #[error("{what} of `{name}` has {got} numbers, its shape {}×{} says {}", shape[0], shape[1], shape[0] * shape[1])]
    Size {
        /// `value` or `gradient`.
        what: &'static str,
        /// The parameter.
        name: String,
        /// Its shape.
        shape: [usize; 2],
        /// How many numbers there were.
        got: usize,
    },
    /// The objective returned another number of gradients than it has parameters.
    #[error("step {step}: the objective returned {got} gradients for {want} trainable tensors")]
    GradientCount {
        /// The step, from 1.
        step: u64,
        /// How many gradients came.
        got: usize,
        /// How many parameters there are.
        want: usize,
    },
    /// The objective failed.
    #[error("step {step}: {doing} failed: {source}")]
    Objective {
        /// The step, from 1; 0 before the first.
        step: u64,
        /// What was being done.
        doing: &'static str,
        /// Why.
        source: Failure,
    },
    /// The training loss is not finite.
    #[error(
        "step {step}, micro-batch {micro}: the loss is {loss}; checkpoints of earlier steps are untouched. Lower `rate`, \
         lengthen the warm-up, or look at the examples of this step"
    )]
    LossNotFinite {
        /// The step, from 1.
        step: u64,
        /// The micro-batch, from 0.
        micro: u32,
        /// The loss.
        loss: f64,
    },
    /// A gradient is not finite though the loss is.
    #[error(
        "step {step}: the gradient of `{name}` holds {value} at entry {entry}; checkpoints of earlier steps are untouched. \
         Lower `rate` or lengthen the warm-up; if it happens at step 1, the start or the loss is at fault"
    )]
    GradientNotFinite {
        /// The step, from 1.
        step: u64,
        /// The parameter.
        name: String,
        /// The first such entry.
        entry: usize,
        /// What it is.
        value: f32,
    },
    /// The gradient is finite but so large that the optimiser's moments would not be.
    #[error(
        "step {step}: the gradient's norm is {norm:e}, beyond {limit:e}, whose square f32 cannot hold; set `clip_norm` or \
         lower `rate`"
    )]
    GradientTooLarge {
        /// The step, from 1.
        step: u64,
        /// Norm of the mean gradient.
        norm: f64,
        /// The bound.
        limit: f64,
    },
    /// A value is not finite, at the start or after an update.
    #[error(
        "step {step}: `{name}` holds {value} at entry {entry}; checkpoints of earlier steps are untouched. Lower `rate`; \
         if it happens at step 0, the start itself is not finite"
    )]
    ValueNotFinite {
        /// The step, from 1; 0 for the values training starts from.
        step: u64,
        /// The parameter.
        name: String,
        /// The first such entry.
        entry: usize,
        /// What it is.
        value: f32,
    },
    /// The held-out loss is not finite, or has no weight.
    #[error(
        "step {step}: the held-out loss is {loss_sum} over weight {weight}; it must be finite over a weight above 0; \
         checkpoints of earlier steps are untouched. Lower `rate` if it grew, or look at the held-out examples"
    )]
    Evaluation {
        /// The step, from 1; 0 before the first.
        step: u64,
        /// The sum.
        loss_sum: f64,
        /// Its weight.
        weight: f64,
    },
    /// A step has no loss tokens, or a weight without meaning.
    #[error(
        "step {step}: the micro-batches hold weight {weight} in all, so there is no mean loss; use larger batches, raise \
         `accumulation`, or remove examples without loss tokens"
    )]
    Weight {
        /// The step, from 1.
        step: u64,
        /// The weight.
        weight: f64,
    },
    /// A fresh run was asked for in a folder that holds a run.
    #[error("{} already holds a run ({found}); resume it, or choose another folder", folder.display())]
    FolderInUse {
        /// The folder.
        folder: PathBuf,
        /// The file found there.
        found: String,
    },
    /// The checkpoint was made with another setting.
    #[error(
        "{}: made with {field} = {saved}, but now it is {now}; resume with the settings and data of the interrupted run, \
         or start a new run in another folder", path.display()
    )]
    Differs {
        /// The checkpoint.
        path: PathBuf,
        /// The setting, or the name in the run's identity.
        field: String,
        /// Its value in the checkpoint.
        saved: String,
        /// Its value now.
        now: String,
    },
    /// There are checkpoints, but none can be read.
    #[error(
        "{}: none of the {count} checkpoints can be read; the newest: {newest}. Start a new run in another folder",
        folder.display()
    )]
    NoneReadable {
        /// The folder.
        folder: PathBuf,
        /// How many there are.
        count: usize,
        /// What is wrong with the newest.
        newest: String,
    },
    /// A checkpoint could not be written.
    #[error("step {step}: the checkpoint was not saved, earlier ones are untouched: {source}")]
    Save {
        /// The step, from 1.
        step: u64,
        /// Why, with the file's name.
        source: Failure,
    },
    /// A line of the metrics cannot be read.
    #[error("{}, line {line}: {reason}; move the file away and resume (the run's numbers do not depend on it)", path.display())]
    Metrics {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// A file or folder could not be read or written.
    #[error("{}: {doing} failed: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// Why.
        source: Failure,
    },
}

impl TrainError {
    pub(crate) fn setting(field: impl Into<String>, value: impl Display, need: impl Into<String>) -> Self {
        TrainError::Setting { field: field.into(), value: value.to_string(), need: need.into() }
    }
}
