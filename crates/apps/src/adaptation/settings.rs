//! From the options to the trainer's settings, and to the facts by which a run is known again.

use std::collections::BTreeMap;

use lowrank_record::Seed;
use lowrank_store::hash;
use lowrank_train::{EarlyStop, Schedule, Settings, Shape};

use super::prepare::{Prepared, form, initialiser};
use super::{Adaptation, Method};
use crate::AppError;
use crate::choices::ScheduleChoice;
use crate::subject::{Order, Subject};
use crate::training::checked;
use lowrank_command::Because;

/// Optimiser steps: as asked, or as many as the epochs have.
///
/// # Errors
/// [`AppError::Usage`] when the data cannot be batched.
pub(super) fn steps<N: Subject>(prepared: &Prepared<N>, options: &Adaptation) -> Result<u64, AppError> {
    if let Some(steps) = options.steps {
        return Ok(steps);
    }
    let plan = N::epoch(&prepared.data.train, prepared.laying, Order::Drawn(data_order(options), 0));
    let batches = plan.input("batching the data")?.batches() as f64;
    Ok(((batches * options.epochs / f64::from(options.accumulate)).ceil() as u64).max(1))
}

/// The seed of the order in which the training data are met.
pub(super) fn data_order(options: &Adaptation) -> Seed {
    Seed(options.seed).at("data", "order")
}

/// The trainer's settings for one start.
///
/// # Errors
/// [`AppError::Usage`] naming what cannot be.
pub(super) fn of<N: Subject>(
    prepared: &Prepared<N>,
    options: &Adaptation,
    rate: f64,
) -> Result<Settings, AppError> {
    let steps = steps(prepared, options)?;
    let choices = options.optimiser_option.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    let optimiser = checked(lowrank_train::Method::by_name(&options.optimiser, choices))?;
    let shape = match options.schedule {
        ScheduleChoice::Constant => Shape::Constant,
        ScheduleChoice::Linear => Shape::Linear,
        ScheduleChoice::Cosine => Shape::Cosine,
    };
    let has_held_out = !prepared.data.held_out.is_empty();
    if !has_held_out && (options.patience > 0 || options.eval_every > 0) {
        let flag = if options.patience > 0 { "--patience" } else { "--eval-every" };
        return Err(AppError::usage(format!(
            "{flag} needs held-out data: give --held-out a share above 0, or --held-out-data FILE"
        )));
    }
    let every = |asked: u64, parts: u64| if asked > 0 { asked } else { (steps / parts).max(1) };
    let settings = Settings {
        steps,
        accumulation: options.accumulate,
        rate,
        left_ratio: options.lora_plus,
        weight_decay: options.weight_decay,
        clip_norm: options.clip,
        optimiser,
        schedule: Schedule { shape, warmup_ratio: options.warmup, ..Schedule::default() },
        eval_every: if has_held_out { every(options.eval_every, 10) } else { 0 },
        early_stop: (options.patience > 0)
            .then_some(EarlyStop { patience: options.patience, min_improvement: 0.0 }),
        restore_best: options.patience > 0,
        checkpoint_every: every(options.checkpoint_every, 5),
        seed: Seed(options.seed),
        ..Settings::default()
    };
    checked(settings.check())?;
    Ok(settings)
}

/// What else decides a run's numbers: a start or a checkpoint is gone on with only where all of it agrees.
///
/// # Errors
/// [`AppError::Usage`] for calibration rows that cannot be read.
pub(crate) fn identity<N: Subject>(
    prepared: &Prepared<N>,
    options: &Adaptation,
    method: &Method,
) -> Result<BTreeMap<String, String>, AppError> {
    let words = |settings: Vec<(&'static str, String)>| {
        settings.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
    };
    let choices = initialiser(method)?.map(|initialiser| words(initialiser.settings())).unwrap_or_default();
    let rows = match &options.calibration_tokens {
        Some(file) => format!(
            " of {}",
            hash::of_bytes(format!("{:?}", N::token_rows(file, &prepared.model)?).as_bytes())
        ),
        None => String::new(),
    };
    let facts = [
        ("model", prepared.model.hash.clone()),
        ("training data", N::hash(&prepared.data.train)),
        ("held-out data", N::hash(&prepared.data.held_out)),
        ("seed", options.seed.to_string()),
        ("init", method.init.clone()),
        ("init options", choices),
        (
            "calibration",
            format!(
                "{} by {}, {:?} shown{rows}",
                options.calibration, options.calibration_batch, options.shown
            ),
        ),
        ("form", method.form.clone()),
        ("form options", words(form(method)?.settings())),
        ("rank", options.rank.to_string()),
        ("alpha", options.alpha.to_string()),
        ("rank-stabilised", options.rank_stabilised.to_string()),
        ("layers", hash::of_bytes(format!("{:?}", prepared.plan).as_bytes())),
        ("offset", format!("{:?}", options.offset)),
        ("batching", format!("{:?}", prepared.laying)),
        ("widen", format!("{:?}", options.widen)),
    ];
    let mut facts: BTreeMap<String, String> = facts.map(|(key, value)| (key.to_owned(), value)).into();
    if let Some(task) = options.task {
        facts.insert("task".to_owned(), format!("{task:?}"));
    }
    if !method.form_options.is_empty() {
        let chosen = method.form_options.iter().map(|(key, value)| format!("{key}={value}"));
        facts.insert("form options".to_owned(), chosen.collect::<Vec<_>>().join(" "));
    }
    Ok(facts)
}
