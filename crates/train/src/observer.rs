//! What a run tells while it runs, and how it is asked to stop. There is no clock here: whoever watches may hold one.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lowrank_record::Report;

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

impl Outcome {
    /// The outcome as named facts.
    #[must_use]
    pub fn report(&self) -> Report {
        let stopped = match self.stopped {
            Stopped::Finished => "finished",
            Stopped::Early => "early: the held-out loss no longer fell",
            Stopped::Interrupted => "interrupted",
        };
        let count = |number: u64| lowrank_record::Value::Count(number);
        let mut report = Report::default()
            .with("stopped", stopped)
            .with("steps", count(self.steps))
            .with("tokens", count(self.tokens));
        if let Some(loss) = self.loss {
            report = report.with("last training loss", loss);
        }
        if let Some(best) = self.best {
            report = report.with("best held-out loss", best.loss).with("best step", count(best.step));
        }
        report = report.with("values of step", count(self.values_of));
        if let Some(resumed) = &self.resumed {
            report = report.with("resumed at step", count(resumed.step));
            for skipped in &resumed.skipped {
                report = report
                    .with("unreadable checkpoint", format!("{}: {}", skipped.path.display(), skipped.reason));
            }
            if resumed.missing_metrics > 0 {
                report = report.with("steps without metrics", count(resumed.missing_metrics));
            }
        }
        if !self.untouched.is_empty() {
            report = report.with("never had a gradient", self.untouched.join(", "));
        }
        report
    }
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
    use super::{Best, Outcome, Resumed, Skipped, Stop, Stopped};
    use lowrank_record::Value;

    #[test]
    fn clones_share_the_flag() {
        let stop = Stop::default();
        let other = stop.clone();
        assert!(!stop.requested());
        other.request();
        assert!(stop.requested());
    }

    #[test]
    fn the_report_hides_nothing() {
        let skipped = vec![Skipped { path: "checkpoint-000009.safetensors".into(), reason: "torn".into() }];
        let outcome = Outcome {
            stopped: Stopped::Early,
            steps: 12,
            tokens: 340,
            loss: Some(0.5),
            best: Some(Best { step: 8, loss: 0.25 }),
            values_of: 8,
            resumed: Some(Resumed { step: 6, path: None, skipped, missing_metrics: 2 }),
            checkpoint: None,
            untouched: vec!["q.left".into()],
        };
        let report = outcome.report();
        assert_eq!(report.get("best step"), Some(&Value::Count(8)));
        assert_eq!(report.get("steps without metrics"), Some(&Value::Count(2)));
        assert_eq!(report.get("never had a gradient"), Some(&Value::Text("q.left".into())));
        let text = report.get("unreadable checkpoint").unwrap().to_string();
        assert!(text.contains("000009") && text.contains("torn"), "{text}");
    }
}
