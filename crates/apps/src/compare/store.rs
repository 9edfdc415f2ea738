//! What is kept in the run folder, so that a comparison can be stopped and gone on with: what it began as, each trial of a
//! rate, and each finished run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::AppError;
use crate::adaptation::Cost;
use lowrank_command::Because;

/// The file that marks a run folder as a comparison.
pub(super) const PLAN: &str = "plan.json";

/// What a comparison began as.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Begun {
    /// What decides the numbers, by name.
    pub(super) facts: BTreeMap<String, String>,
    /// Steps of each run.
    pub(super) steps: u64,
    /// What each method costs, as measured.
    pub(super) costs: BTreeMap<String, Cost>,
}

impl Begun {
    /// Refuses to go on as something else.
    ///
    /// # Errors
    /// [`AppError::Usage`] naming what differs.
    pub(super) fn agrees(
        &self,
        facts: &BTreeMap<String, String>,
        steps: Option<u64>,
    ) -> Result<(), AppError> {
        let steps = steps.unwrap_or(self.steps);
        let differs = (steps != self.steps)
            .then(|| ("steps".to_owned(), self.steps.to_string(), steps.to_string()))
            .or_else(|| {
                let keys: std::collections::BTreeSet<&String> =
                    self.facts.keys().chain(facts.keys()).collect();
                keys.into_iter().find(|key| self.facts.get(*key) != facts.get(*key)).map(|key| {
                    let of = |facts: &BTreeMap<String, String>| {
                        facts.get(key).cloned().unwrap_or_else(|| "nothing".to_owned())
                    };
                    (key.clone(), of(&self.facts), of(facts))
                })
            });
        match differs {
            None => Ok(()),
            Some((key, before, now)) => Err(AppError::usage(format!(
                "the comparison began with {key} = {before}, but now it is {now}; resume with the options that it began \
                 with, or start a new one with another --run"
            ))),
        }
    }
}

/// One rate, tried.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tried {
    /// The seed.
    pub seed: u64,
    /// Steps of the run.
    pub steps: u64,
    /// The rate at the top of the schedule.
    pub rate: f64,
    /// Loss on the half of the held-out data that chooses rates; none where the run diverged.
    pub loss: Option<f64>,
}

/// One finished run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finished {
    /// The seed.
    pub seed: u64,
    /// The rate.
    pub rate: f64,
    /// The steps.
    pub steps: u64,
    /// What else the method is: start, form and their choices.
    pub method: String,
    /// Loss on the half of the held-out data that chose no rate, nats per token.
    pub held_out: f64,
    /// The same before the first step.
    pub held_out_before: f64,
    /// Training loss of the last step.
    pub last_loss: Option<f64>,
    /// Share of questions answered rightly.
    pub accuracy: Option<f64>,
    /// Seconds of a step.
    pub step_seconds: Option<f64>,
    /// From nothing to the start, its evidence included, in seconds.
    pub start_seconds: f64,
    /// Largest memory of the process in training, in bytes.
    pub training_peak_bytes: Option<u64>,
    /// Effective rank of the learned change, averaged over layers; none where the form is not two factors.
    pub effective_rank: Option<f64>,
    /// Step and held-out loss.
    pub held_out_curve: Vec<(u64, f64)>,
    /// Step and training loss.
    pub training_curve: Vec<(u64, f64)>,
}

/// Where the runs of a method go.
pub(super) fn folder(run: &Path, method: &str) -> PathBuf {
    run.join("methods").join(method)
}

/// A file of ours, if it is there.
///
/// # Errors
/// [`AppError::Usage`] for a file that is not what was written.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, AppError> {
    if !path.is_file() {
        return Ok(None);
    }
    let value = lowrank_store::json::read(path).input("going on with a comparison")?;
    let value = serde_json::from_value(value).input(path.display())?;
    Ok(Some(value))
}

/// Writes it, whole or not at all.
///
/// # Errors
/// [`AppError::Failed`].
pub(super) fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), AppError> {
    let text = serde_json::to_string_pretty(value).while_doing(format!("writing {}", path.display()))?;
    lowrank_store::text::write(path, &(text + "\n")).while_doing(format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_named() {
        let facts = |rank: &str| BTreeMap::from([("rank".to_owned(), rank.to_owned())]);
        let begun = Begun { facts: facts("8"), steps: 40, costs: BTreeMap::new() };
        begun.agrees(&facts("8"), None).unwrap();
        begun.agrees(&facts("8"), Some(40)).unwrap();
        let message = begun.agrees(&facts("4"), None).unwrap_err().to_string();
        assert!(message.contains("rank = 8") && message.contains("now it is 4"), "{message}");
        let message = begun.agrees(&facts("8"), Some(20)).unwrap_err().to_string();
        assert!(message.contains("steps = 40"), "{message}");
        assert!(begun.agrees(&BTreeMap::new(), None).unwrap_err().to_string().contains("nothing"));
    }

    #[test]
    fn what_is_kept_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tried.json");
        assert_eq!(read::<Vec<Tried>>(&path).unwrap(), None);
        let tried = vec![Tried { seed: 1, steps: 3, rate: 3.2e-4, loss: None }];
        write(&path, &tried).unwrap();
        assert_eq!(read(&path).unwrap(), Some(tried));
        std::fs::write(&path, "{}").unwrap();
        assert!(read::<Vec<Tried>>(&path).is_err());
    }
}
