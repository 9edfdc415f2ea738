//! What one run tells when it is over.

use lowrank_train::{Stopped, metrics::Line};
use serde::Serialize;

use super::prepare::Started;
use crate::subject::Score;

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
    /// Values that are trained.
    pub parameters: usize,
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
    /// What is told of held-out answers beside their loss, before the first step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score_before: Option<Score>,
    /// The same of the adapter's values.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<Score>,
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

impl RunSummary {
    /// The ranks in a line, where training took some away.
    #[must_use]
    pub fn ranks(&self) -> Option<String> {
        let begun: Vec<usize> = self.started.plan.sites.iter().map(|site| site.rank).collect();
        let left: Vec<usize> = self.changes.iter().map(|change| change.rank).collect();
        let (before, after) = (begun.iter().sum::<usize>(), left.iter().sum::<usize>());
        if left.len() != begun.len() || before == after {
            return None;
        }
        let least = left.iter().min().copied().unwrap_or(0);
        let most = left.iter().max().copied().unwrap_or(0);
        let mean = after as f64 / left.len().max(1) as f64;
        Some(format!("{after} of {before} directions left: {least} to {most} a layer, {mean:.1} on average"))
    }
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
    /// Rank of its factors; of a form that takes directions away while it trains, those that are left.
    pub rank: usize,
    /// Frobenius norm of the change.
    pub norm: f64,
    /// Largest singular value of the change.
    pub largest: f64,
    /// Effective rank of the change (exponential of the spectrum's entropy).
    pub effective_rank: f64,
}

/// A loss for a table; a dash where there is none.
pub(crate) fn loss(loss: Option<f64>) -> String {
    loss.map_or_else(|| "–".to_owned(), |loss| format!("{loss:.3}"))
}

/// A size for a table; a dash where the system does not tell.
pub(crate) fn mebibytes(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "–".to_owned(), |bytes| format!("{:.0} MiB", bytes as f64 / 1_048_576.0))
}
