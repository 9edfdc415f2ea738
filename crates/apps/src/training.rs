//! Runs the trainer for a command: in its folder, with progress on the terminal, and its refusals in the words of the flags.

use std::collections::BTreeMap;
use std::path::Path;

use lowrank_train::{Objective, Outcome, Place, Run, Settings, Stop, TrainError, train};

use crate::watch::{Watch, Watched};
use crate::{AppError, Progress};
use lowrank_command::Because;

/// What to call a run and where it lives.
pub(crate) struct Told<'a> {
    /// What the progress shows.
    pub(crate) label: &'a str,
    /// The run folder.
    pub(crate) folder: &'a Path,
    /// Whether it goes on with what the folder holds.
    pub(crate) resume: bool,
    /// What decides the run's numbers besides the settings.
    pub(crate) identity: BTreeMap<String, String>,
}

/// Trains until the end, or until the user stops it.
///
/// # Errors
/// [`AppError::Usage`] when the folder's run is another one, [`AppError::Failed`] for what went wrong.
pub(crate) fn run(
    objective: &mut dyn Objective,
    settings: &Settings,
    told: Told<'_>,
    progress: &mut dyn Progress,
) -> Result<(Outcome, Watched), AppError> {
    let Told { label, folder, resume, identity } = told;
    let place = if resume { Place::Resume(folder.to_owned()) } else { Place::Fresh(folder.to_owned()) };
    let stop = Stop::default();
    if progress.stopping() {
        // Asked before the first step: the trainer then saves and stops at once.
        stop.request();
    }
    progress.begin(label, settings.steps);
    let mut watch = Watch::new(progress, stop.clone());
    let outcome = train(objective, settings, &Run { place, identity }, &mut watch, &stop);
    let watched = watch.finish();
    progress.end();
    match outcome {
        Ok(outcome) => Ok((outcome, watched)),
        Err(TrainError::Differs { path, field, saved, now }) => {
            let field = flag(&field);
            Err(AppError::usage(TrainError::Differs { path, field, saved, now }.to_string()))
        }
        Err(other) => Err(other).while_doing(format!("training {label}")),
    }
}

/// Refuses settings that have no meaning, by the flag that was typed.
///
/// # Errors
/// [`AppError::Usage`].
pub(crate) fn checked<T>(settings: Result<T, TrainError>) -> Result<T, AppError> {
    settings.map_err(|error| {
        AppError::usage(match error {
            TrainError::Setting { field, value, need } => {
                format!("{} is {value}; it must be {need}", flag(&field))
            }
            other => other.to_string(),
        })
    })
}

/// The flag behind a setting of the trainer; what is none keeps its name.
fn flag(field: &str) -> String {
    let flag = match field {
        "steps" => "--steps",
        "accumulation" => "--accumulate",
        "rate" => "--rate",
        "left_ratio" => "--lora-plus",
        "weight_decay" => "--weight-decay",
        "clip_norm" => "--clip",
        "eval_every" => "--eval-every",
        "restore_best" | "early_stop" | "early_stop.patience" => "--patience",
        "schedule.shape" => "--schedule",
        "schedule.warmup_ratio" | "schedule.warmup_steps" => "--warmup",
        "optimiser" | "optimiser.name" => "--optimiser",
        "seed" => "--seed",
        other => match other.strip_prefix("optimiser.") {
            Some(choice) => return format!("--optimiser-option {choice}"),
            None => other,
        },
    };
    flag.to_owned()
}

#[cfg(test)]
mod tests {
    use lowrank_train::Settings;

    use super::flag;

    #[test]
    fn every_setting_of_a_run_has_its_flag_or_none() {
        // These are no flags of any command: a value of them cannot be typed.
        let fixed = ["early_stop.min_improvement", "schedule.floor"];
        for field in Settings::default().fields().keys() {
            assert!(flag(field).starts_with("--") || fixed.contains(&field.as_str()), "{field}");
        }
    }
}
