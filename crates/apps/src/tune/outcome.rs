//! What `tune` and `init` tell when they are over.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use crate::adaptation::{RunSummary, loss, mebibytes};

/// What `lowrank tune` did.
#[derive(Serialize)]
pub struct Tuned {
    /// The run, and those it was compared with.
    pub runs: Vec<RunSummary>,
    /// The adapter folder.
    pub adapter: PathBuf,
    /// The report.
    pub report: PathBuf,
    /// Seconds in all.
    pub seconds: f64,
}

/// What `lowrank init` did.
#[derive(Debug, Serialize)]
pub struct Initialised {
    /// The adapter folder.
    pub adapter: PathBuf,
    /// The start.
    pub init: String,
    /// Layers started.
    pub sites: usize,
    /// Values that are trained.
    pub parameters: usize,
    /// Largest memory of the process while the evidence was collected.
    pub evidence_peak_bytes: Option<u64>,
    /// Seconds of collecting it.
    pub evidence_seconds: f64,
    /// Seconds from the opened model to the mounted adapters, the evidence included.
    pub start_seconds: f64,
    /// Seconds of the passes before and after that see whether the start leaves the function as it was.
    pub check_seconds: f64,
    /// Largest memory of the process meanwhile, the model included, where the system tells.
    pub start_peak_bytes: Option<u64>,
    /// What part of what it looked at the start holds, averaged over the layers, in the start's own words.
    pub captured: Option<(String, f64)>,
    /// Largest difference of logits between the mounted and the re-read adapter.
    pub verified: f64,
    /// Seconds in all.
    pub seconds: f64,
}

impl fmt::Display for Tuned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<16} {:>8} {:>8} {:>10} {:>10} {:>10} {:>10}",
            "start", "rate", "steps", "loss", "held out", "before", "tokens/s"
        )?;
        for run in &self.runs {
            let speed = run.tokens_per_second.map_or_else(|| "–".to_owned(), |speed| format!("{speed:.0}"));
            writeln!(
                f,
                "{:<16} {:>8.1e} {:>8} {:>10} {:>10} {:>10} {:>10}",
                run.init,
                run.rate,
                run.steps,
                loss(run.last_loss),
                loss(run.held_out_after),
                loss(run.held_out_before),
                speed
            )?;
        }
        for run in &self.runs {
            if let Some(score) = run.score {
                let before = run
                    .score_before
                    .map_or_else(String::new, |before| format!(", {:.3} before", before.value));
                writeln!(f, "{}: held-out {} {:.3}{before}", run.init, score.name, score.value)?;
            }
        }
        if let Some(run) = self.runs.first() {
            if run.values_of != run.steps {
                writeln!(f, "the adapter has the values of step {}, the best evaluation", run.values_of)?;
            }
            if let Some(ranks) = run.ranks() {
                writeln!(f, "ranks: {ranks}")?;
            }
            if let Some(seconds) = run.seconds_to_first_step {
                writeln!(f, "first step done after {seconds:.2} s")?;
            }
            writeln!(
                f,
                "peak memory: {} in training, {} while the start was computed",
                mebibytes(run.training_peak_bytes),
                mebibytes(run.evidence_peak_bytes)
            )?;
            if let Some(difference) = run.verified {
                writeln!(f, "adapter re-read from disk: logits differ by at most {difference:.1e}")?;
            }
        }
        writeln!(f, "adapter: {}", self.adapter.display())?;
        write!(f, "report:  {} ({:.0} s in all)", self.report.display(), self.seconds)
    }
}

impl fmt::Display for Initialised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} started at {} layers, {} values", self.init, self.sites, self.parameters)?;
        if self.evidence_peak_bytes.is_some() {
            writeln!(f, "peak memory while the start was computed: {}", mebibytes(self.evidence_peak_bytes))?;
        }
        writeln!(f, "adapter re-read from disk: logits differ by at most {:.1e}", self.verified)?;
        write!(f, "adapter: {} ({:.1} s)", self.adapter.display(), self.seconds)
    }
}
