//! What a run tells when it is over.

use std::fmt;
use std::path::PathBuf;

use lowrank_train::{Stopped, metrics::Line};
use serde::Serialize;

use super::prepare::Started;

/// One start, trained.
#[derive(Serialize)]
pub struct RunSummary {
    /// The start.
    pub init: String,
    /// Learning rate at the top of the schedule.
    pub rate: f64,
    /// Why it stopped.
    #[serde(serialize_with = "stopped")]
    pub stopped: Stopped,
    /// Steps done.
    pub steps: u64,
    /// The step whose values the adapter has: the last, or with --patience that of the best evaluation.
    pub values_of: u64,
    /// Tokens of examples read.
    pub tokens: u64,
    /// Training loss of the first step, nats per token.
    pub first_loss: Option<f64>,
    /// Training loss of the last step.
    pub last_loss: Option<f64>,
    /// Held-out loss before the first step.
    pub held_out_before: Option<f64>,
    /// Held-out loss of the adapter's values.
    pub held_out_after: Option<f64>,
    /// Speed of the steps alone.
    pub tokens_per_second: Option<f64>,
    /// From the start of the command to the end of the first step.
    pub seconds_to_first_step: Option<f64>,
    /// From the start of the command to the beginning of the training.
    pub seconds_to_start: f64,
    /// Largest difference that the start alone makes to sample logits.
    pub start_difference: f64,
    /// Largest memory of the process while the evidence was collected.
    pub evidence_peak_bytes: Option<u64>,
    /// Largest memory of the process while training.
    pub training_peak_bytes: Option<u64>,
    /// Largest difference of logits between the trained and the re-read adapter.
    pub verified: Option<f64>,
    /// Losses and rates step by step.
    #[serde(skip)]
    pub curve: Vec<Line>,
    /// Each step with the seconds of training up to its end.
    #[serde(skip)]
    pub times: Vec<(u64, f64)>,
    /// What became of each layer.
    pub changes: Vec<SiteChange>,
    #[serde(skip)]
    pub(crate) started: Started,
}

fn stopped<S: serde::Serializer>(stopped: &Stopped, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(match stopped {
        Stopped::Finished => "finished",
        Stopped::Early => "early",
        Stopped::Interrupted => "interrupted",
    })
}

/// The change of one layer after training.
#[derive(Debug, Clone, Serialize)]
pub struct SiteChange {
    /// The layer.
    pub site: String,
    /// Rank of its factors.
    pub rank: usize,
    /// Frobenius norm of the change.
    pub norm: f64,
    /// Largest singular value of the change.
    pub largest: f64,
    /// Effective rank of the change (exponential of the spectrum's entropy).
    pub effective_rank: f64,
}

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
    /// Values in the factors.
    pub parameters: usize,
    /// Largest memory of the process while the evidence was collected.
    pub evidence_peak_bytes: Option<u64>,
    /// Largest difference of logits between the mounted and the re-read adapter.
    pub verified: f64,
    /// Seconds in all.
    pub seconds: f64,
}

/// What `--dry-run` predicts.
#[derive(Debug, Clone, Serialize)]
pub struct DryRun {
    /// Layers that would be adapted, with their ranks.
    pub sites: Vec<(String, usize)>,
    /// Trainable values.
    pub parameters: usize,
    /// Bytes of the model as it would be held.
    pub model_bytes: usize,
    /// Predicted largest memory of the process.
    pub predicted_peak_bytes: usize,
    /// Steps.
    pub steps: u64,
    /// Places for tokens in a step, on average, padding included.
    pub tokens_per_step: usize,
    /// Floating-point operations of a step.
    pub flops_per_step: f64,
    /// Predicted seconds of evidence, steps and evaluations, at the rate of a product measured just now.
    pub predicted_seconds: f64,
}

pub(super) fn loss(loss: Option<f64>) -> String {
    loss.map_or_else(|| "–".to_owned(), |loss| format!("{loss:.3}"))
}

pub(super) fn mebibytes(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "–".to_owned(), |bytes| format!("{:.0} MiB", bytes as f64 / 1_048_576.0))
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
        if let Some(run) = self.runs.first() {
            if run.values_of != run.steps {
                writeln!(f, "the adapter has the values of step {}, the best evaluation", run.values_of)?;
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

impl fmt::Display for DryRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<56} rank", "layer")?;
        for (site, rank) in &self.sites {
            writeln!(f, "{site:<56} {rank:>4}")?;
        }
        writeln!(f, "{} layers, {} trainable parameters", self.sites.len(), self.parameters)?;
        writeln!(f, "model in memory   {:>9.1} MB", self.model_bytes as f64 / 1e6)?;
        writeln!(f, "predicted peak    {:>9.1} MB", self.predicted_peak_bytes as f64 / 1e6)?;
        writeln!(
            f,
            "steps             {:>9} of {} tokens, {:.1} GFLOP each",
            self.steps,
            self.tokens_per_step,
            self.flops_per_step / 1e9
        )?;
        write!(f, "predicted time    {:>9.0} s", self.predicted_seconds)
    }
}
