//! What a run tells while it runs, and how it is asked to stop. There is no clock here: whoever watches may hold one.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Sees what happens in a run.
pub trait Observer {
    /// Called for each event, in order, on the training thread.
    fn see(&mut self, event: &Event<'_>);
}

/// An observer that looks away.
impl Observer for () {
    fn see(&mut self, _: &Event<'_>) {}
}

/// Any closure over events is an observer.
impl<F: FnMut(&Event<'_>)> Observer for F {
    fn see(&mut self, event: &Event<'_>) {
        self(event);
    }
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event<'a> {
    /// The run goes on from a checkpoint.
    Resumed(&'a Resumed),
    /// One optimiser step is done.
    Step(Step),
    /// The held-out loss was measured.
    Evaluated {
        /// Steps done.
        step: u64,
        /// Mean held-out loss.
        loss: f64,
        /// Whether it counts as an improvement.
        improved: bool,
    },
    /// A checkpoint was written.
    CheckpointSaved {
        /// Steps done.
        step: u64,
        /// The file.
        path: &'a Path,
    },
    /// The run is over, or interrupted.
    Stopped {
        /// Steps done.
        step: u64,
        /// Why.
        reason: Stopped,
    },
}

/// The numbers of one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// Steps done, this one included.
    pub step: u64,
    /// Steps in all.
    pub steps: u64,
    /// Mean loss of the step, over all its loss tokens.
    pub loss: f64,
    /// Learning rate of the step (right factors and the rest; left factors times the LoRA+ ratio).
    pub rate: f64,
    /// Norm of the mean gradient before clipping.
    pub norm: f64,
    /// Whether the gradient was clipped.
    pub clipped: bool,
    /// Tokens read in this step.
    pub tokens: u64,
    /// Tokens read since the beginning of the run.
    pub total_tokens: u64,
}

/// Why a run came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// All steps are done.
    Finished,
    /// The held-out loss no longer fell.
    Early,
    /// It was asked to stop; it can be resumed.
    Interrupted,
}

/// Where a run was taken up again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resumed {
    /// Steps done; 0 where the folder held no checkpoint yet.
    pub step: u64,
    /// The checkpoint; none where the folder held none yet.
    pub path: Option<PathBuf>,
    /// Newer checkpoints that could not be read, newest first. Tell the user: steps are done again.
    pub skipped: Vec<Skipped>,
    /// Steps before the checkpoint that have no line in `metrics.jsonl` (0 unless lines were lost or removed).
    pub missing_metrics: u64,
}

/// A checkpoint that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

/// The best evaluation of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Best {
    /// Steps done when it was measured.
    pub step: u64,
    /// Mean held-out loss.
    pub loss: f64,
}

/// What a run came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Why it stopped.
    pub stopped: Stopped,
    /// Steps done since the beginning of the run.
    pub steps: u64,
    /// Tokens read since the beginning of the run.
    pub tokens: u64,
    /// Mean training loss of the last step.
    pub loss: Option<f64>,
    /// The best evaluation, if any.
    pub best: Option<Best>,
    /// The step whose values the objective now holds: `steps`, or the best evaluation's where it was restored.
    pub values_of: u64,
    /// Where the run was taken up again, if it was.
    pub resumed: Option<Resumed>,
    /// The newest checkpoint, if any.
    pub checkpoint: Option<PathBuf>,
    /// Parameters that never had a gradient other than zero: something between them and the loss is cut.
    pub untouched: Vec<String>,
}

/// Asks a run to stop after the present step. Clones share one flag; a signal handler may hold one.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Asks; asking again changes nothing.
    pub fn request(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it was asked.
    #[must_use]
    pub fn requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::Stop;

    #[test]
    fn clones_share_the_flag() {
        let stop = Stop::default();
        let other = stop.clone();
        assert!(!stop.requested());
        other.request();
        assert!(stop.requested());
    }
}
