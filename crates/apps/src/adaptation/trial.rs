//! Short runs that leave nothing behind but their numbers: what a method costs, and what a rate comes to.

use std::collections::BTreeMap;
use std::path::Path;

use lowrank_record::Value;
use lowrank_train::{Objective as _, Run, Settings, Stop, Stopped, TrainError};
use serde::{Deserialize, Serialize};

use super::prepare::{Prepared, Started};
use super::{Adaptation, Method, alignment, session, settings};
use crate::subject::Subject;
use crate::watch::{Watch, Watched};
use crate::{AppError, Progress};
use lowrank_command::Because;

/// Steps that are run to know what one costs; the first is not counted.
const MEASURED: u64 = 3;

/// What a method costs, and what it is before any training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cost {
    /// Seconds from nothing to the mounted start, its evidence included.
    pub(crate) start_seconds: f64,
    /// Largest memory of the process while the evidence was collected, where there is any and the system tells.
    pub(crate) evidence_peak_bytes: Option<u64>,
    /// Seconds of one step.
    pub(crate) step_seconds: f64,
    /// Seconds of one evaluation.
    pub(crate) eval_seconds: f64,
    /// Values that are trained.
    pub(crate) parameters: usize,
    /// Cosine of the first step with the full gradient.
    pub(crate) alignment: Option<f64>,
    /// What part of what it looked at the start holds, averaged over layers, in its own words.
    pub(crate) captured: Option<(String, f64)>,
    /// Largest difference that the start makes to sample logits.
    pub(crate) start_difference: f64,
}

/// How a trial ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Ended {
    /// With this held-out loss.
    Loss(f64),
    /// With numbers that are none: the rate is too large.
    Diverged,
    /// The user stopped it.
    Stopped,
}

/// Starts a method, runs a few steps and an evaluation, and takes it off again. The start is kept in `start`.
///
/// # Errors
/// As starting and training.
pub(crate) fn measure<N: Subject>(
    prepared: &mut Prepared<N>,
    options: &Adaptation,
    method: &Method,
    start: &Path,
    energies: &BTreeMap<String, f64>,
    progress: &mut dyn Progress,
) -> Result<Cost, AppError> {
    let (whole, options) = (options, Adaptation { steps: Some(MEASURED), ..options.clone() });
    let begun = progress.now();
    let started = prepared.start(&options, method, Some(start), progress)?;
    let start_seconds = progress.now() - begun;
    // What a form does over the whole run: three steps alone might be too few for it.
    let mut training = session::training_of(prepared, whole, method, &started)?;
    let first = training.gradients(0, 0).while_doing(format!("the first gradient of {}", method.name))?;
    let mean = |gradient: Vec<f32>| -> Vec<f32> {
        gradient.into_iter().map(|value| (f64::from(value) / first.weight) as f32).collect()
    };
    let gradients: Vec<Vec<f32>> = first.gradients.into_iter().map(mean).collect();
    let alignment = alignment::first_step(&started, &gradients, energies)?;
    let settings = quiet(settings::of(prepared, &options, method.rate)?);
    let (outcome, watched) = steps(&mut training, &settings, &method.name, progress);
    outcome.while_doing(format!("trying {}", method.name))?;
    let before = progress.now();
    training.evaluate().while_doing(format!("evaluating {}", method.name))?;
    let eval_seconds = progress.now() - before;
    let parameters = training.parameters().iter().map(|parameter| parameter.value.len()).sum();
    drop(training);
    prepared.clear()?;
    let first_step = watched.times.first().map_or(0.0, |(_, seconds)| *seconds);
    Ok(Cost {
        start_seconds,
        evidence_peak_bytes: started.evidence.peak,
        step_seconds: (watched.seconds - first_step) / (MEASURED - 1) as f64,
        eval_seconds,
        parameters,
        alignment,
        captured: captured(&started),
        start_difference: started.moved,
    })
}

/// Trains for the steps of `options` and measures the held-out loss; the start is taken from `start`, or kept there.
///
/// # Errors
/// As starting and training; numbers that are none are no error here.
pub(crate) fn trial<N: Subject>(
    prepared: &mut Prepared<N>,
    options: &Adaptation,
    method: &Method,
    start: &Path,
    progress: &mut dyn Progress,
) -> Result<Ended, AppError> {
    let started = prepared.start(options, method, Some(start), progress)?;
    let settings = quiet(settings::of(prepared, options, method.rate)?);
    let mut training = session::training_of(prepared, options, method, &started)?;
    let (outcome, _) = steps(&mut training, &settings, &method.name, progress);
    let ended = match outcome {
        Ok(Stopped::Interrupted) => Ended::Stopped,
        Ok(Stopped::Finished | Stopped::Early) => {
            let held_out = training.evaluate().while_doing(format!("evaluating {}", method.name))?;
            let loss = held_out.loss_sum / held_out.weight;
            if loss.is_finite() { Ended::Loss(loss) } else { Ended::Diverged }
        }
        Err(
            TrainError::LossNotFinite { .. }
            | TrainError::GradientNotFinite { .. }
            | TrainError::GradientTooLarge { .. }
            | TrainError::ValueNotFinite { .. },
        ) => Ended::Diverged,
        Err(other) => return Err(other).while_doing(format!("trying {}", method.name)),
    };
    drop(training);
    prepared.clear()?;
    Ok(ended)
}

/// Without evaluations and checkpoints on the way.
fn quiet(settings: Settings) -> Settings {
    Settings { eval_every: 0, checkpoint_every: 0, early_stop: None, restore_best: false, ..settings }
}

fn steps<N: Subject>(
    training: &mut crate::objective::Training<'_, N>,
    settings: &Settings,
    label: &str,
    progress: &mut dyn Progress,
) -> (Result<Stopped, TrainError>, Watched) {
    let stop = Stop::default();
    if progress.stopping() {
        stop.request();
    }
    progress.begin(label, settings.steps);
    let mut watch = Watch::new(progress, stop.clone());
    let outcome = lowrank_train::train(training, settings, &Run::default(), &mut watch, &stop);
    let watched = watch.finish();
    progress.end();
    (outcome.map(|outcome| outcome.stopped), watched)
}

/// The first fact of the start's reports that speaks of energy or variance, averaged over the layers that state it.
pub(crate) fn captured(started: &Started) -> Option<(String, f64)> {
    let speaks = |name: &str| ["energy", "variance", "captured"].iter().any(|word| name.contains(word));
    let first = started.attached.iter().flat_map(|each| each.report.iter());
    let mut numbers = first.filter(|(_, value)| matches!(value, Value::Number(_))).map(|(name, _)| name);
    let name = numbers.find(|name| speaks(name))?.to_owned();
    let values: Vec<f64> = started
        .attached
        .iter()
        .filter_map(|each| match each.report.get(&name) {
            Some(Value::Number(value)) => Some(*value),
            _ => None,
        })
        .collect();
    Some((name, values.iter().sum::<f64>() / values.len() as f64))
}
