//! From the trainer's events to the user's progress, with the speed of the steps alone.

use lowrank_train::{Event, Observer, Stop};

use crate::Progress;

/// Passes events on and measures the time of steps, without evaluations and checkpoints.
pub struct Watch<'a> {
    progress: &'a mut dyn Progress,
    stop: Stop,
    /// When the step in progress began.
    mark: f64,
    first: Option<f64>,
    seconds: f64,
    tokens: u64,
    times: Vec<(u64, f64)>,
}

/// What was measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Watched {
    /// Seconds in steps.
    pub seconds: f64,
    /// Tokens read in them.
    pub tokens: u64,
    /// The moment at which the first step was done.
    pub first_step: Option<f64>,
    /// Each step with the seconds in steps up to its end; of this process only, when it went on from a checkpoint.
    pub times: Vec<(u64, f64)>,
}

impl<'a> Watch<'a> {
    /// Starts the clock of the first step.
    pub fn new(progress: &'a mut dyn Progress, stop: Stop) -> Watch<'a> {
        let mark = progress.now();
        Watch { progress, stop, mark, first: None, seconds: 0.0, tokens: 0, times: Vec::new() }
    }

    /// What was measured.
    #[must_use]
    pub fn finish(self) -> Watched {
        Watched { seconds: self.seconds, tokens: self.tokens, first_step: self.first, times: self.times }
    }
}

impl Observer for Watch<'_> {
    fn see(&mut self, event: &Event<'_>) {
        let now = self.progress.now();
        match event {
            Event::Resumed(resumed) => {
                for skipped in &resumed.skipped {
                    let path = skipped.path.display();
                    self.progress.say(&format!(
                        "warning: {path} cannot be read ({}); going back further",
                        skipped.reason
                    ));
                }
                if resumed.missing_metrics > 0 {
                    let missing = resumed.missing_metrics;
                    self.progress.say(&format!("warning: metrics.jsonl lacks {missing} steps done before"));
                }
                self.progress.say(&format!("going on from step {}", resumed.step));
            }
            Event::Step(step) => {
                self.first.get_or_insert(now);
                self.seconds += now - self.mark;
                self.tokens += step.tokens;
                self.times.push((step.step, self.seconds));
                let speed = if self.seconds > 0.0 {
                    format!(", {:.0} tokens/s", self.tokens as f64 / self.seconds)
                } else {
                    String::new()
                };
                let note = format!("loss {:.3}, rate {:.1e}{speed}", step.loss, step.rate);
                self.progress.step(step.step, &note);
            }
            Event::Evaluated { step, loss, improved } => {
                let worse = if *improved { "" } else { ", no improvement" };
                self.progress.say(&format!("step {step}: held-out loss {loss:.3}{worse}"));
            }
            Event::CheckpointSaved { .. } | Event::Stopped { .. } => {}
        }
        if self.progress.stopping() {
            self.stop.request();
        }
        self.mark = self.progress.now();
    }
}
