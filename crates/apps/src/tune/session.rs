//! One start, trained.

use std::collections::BTreeMap;
use std::path::Path;

use lowrank_record::Seed;
use lowrank_train::{
    AdamW, EarlyStop, Group, Method, Outcome, Place, Run, Schedule, Settings, Sgd, Shape, Stop, metrics,
    train as run,
};

use super::outcome::{RunSummary, SiteChange};
use super::prepare::{Prepared, Started};
use super::watch::Watch;
use super::{ScheduleChoice, Tune};
use crate::error::Because;
use crate::objective::{Trainable, Training};
use crate::{AppError, Progress};

/// Starts and trains one adapter; it stays mounted.
#[allow(clippy::too_many_arguments)] // What to start from, how to train it, and where to tell of it.
pub(super) fn train(
    prepared: &mut Prepared,
    options: &Tune,
    name: &str,
    choices: &BTreeMap<String, String>,
    rate: f64,
    folder: &Path,
    begun: f64,
    progress: &mut dyn Progress,
) -> Result<RunSummary, AppError> {
    std::fs::create_dir_all(folder).while_doing(format!("creating {}", folder.display()))?;
    let started =
        prepared.start(options, name, choices, Some(&folder.join("start.safetensors")), progress)?;
    let started_at = progress.now();
    progress.reset_peak();
    let (settings, identity) =
        (settings(prepared, options, rate)?, identity(prepared, options, name, &started));
    let training = Training::new(
        &prepared.model.decoder,
        trainables(&started),
        &prepared.data.train,
        &prepared.data.held_out,
        prepared.batching,
        options.accumulate,
        prepared.recompute,
        Seed(options.seed).at("data", "order"),
    );
    let mut training = training.input("batching the data")?;
    let place = if options.resume { Place::Resume(folder.into()) } else { Place::Fresh(folder.into()) };
    let stop = Stop::default();
    progress.begin(name, settings.steps);
    let mut watch = Watch::new(progress, stop.clone());
    let outcome = run(&mut training, &settings, &Run { place, identity }, &mut watch, &stop);
    let watched = watch.finish();
    progress.end();
    let outcome: Outcome = outcome.while_doing(format!("training {name}"))?;
    if !outcome.untouched.is_empty() {
        progress.say(&format!("warning: never had a gradient: {}", outcome.untouched.join(", ")));
    }
    let lines = metrics::read(folder).while_doing("reading the metrics")?;
    Ok(RunSummary {
        init: name.to_owned(),
        rate,
        stopped: outcome.stopped,
        steps: outcome.steps,
        tokens: outcome.tokens,
        first_loss: lines.iter().find_map(|line| line.loss),
        last_loss: outcome.loss,
        held_out_before: lines.iter().find_map(|line| line.eval.filter(|_| line.step == 0)),
        held_out_after: lines.iter().rev().find_map(|line| line.eval),
        tokens_per_second: (watched.seconds > 0.0).then(|| watched.tokens as f64 / watched.seconds),
        seconds_to_first_step: watched.first_step.map(|at| at - begun),
        seconds_to_start: started_at - begun,
        evidence_peak_bytes: started.evidence_peak,
        training_peak_bytes: progress.peak_memory(),
        verified: None,
        curve: lines,
        times: watched.times,
        changes: changes(&started)?,
        started,
    })
}

fn trainables(started: &Started) -> Vec<Trainable> {
    let mut all = Vec::new();
    for each in &started.attached {
        for (part, variable) in &each.variables {
            let group = match *part {
                "left" => Group::Left,
                "right" => Group::Right,
                _ => Group::Dense,
            };
            let name = format!("{}.{part}", each.site.name);
            all.push(Trainable { name, group, decay: true, variable: variable.clone() });
        }
    }
    all
}

fn settings(prepared: &Prepared, options: &Tune, rate: f64) -> Result<Settings, AppError> {
    let steps = match options.steps {
        Some(steps) => steps,
        None => {
            let plan = lowrank_task::BatchPlan::new(
                &prepared.data.train,
                prepared.batching,
                Seed(options.seed).at("data", "order"),
                0,
            );
            let batches = plan.input("batching the data")?.batches() as f64;
            ((batches * options.epochs / f64::from(options.accumulate)).ceil() as u64).max(1)
        }
    };
    let optimiser = match options.optimiser.as_str() {
        "adamw" => Method::AdamW(AdamW::default()),
        "sgd" => Method::Sgd(Sgd::default()),
        other => return Err(AppError::usage(format!("--optimiser {other}: known are adamw and sgd"))),
    };
    let shape = match options.schedule {
        ScheduleChoice::Constant => Shape::Constant,
        ScheduleChoice::Linear => Shape::Linear,
        ScheduleChoice::Cosine => Shape::Cosine,
    };
    let has_held_out = !prepared.data.held_out.is_empty();
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
    settings.check().input("the recipe")?;
    Ok(settings)
}

/// What else decides a run's numbers: a checkpoint is gone on with only where all of it agrees.
fn identity(prepared: &Prepared, options: &Tune, name: &str, started: &Started) -> BTreeMap<String, String> {
    let settings = started.settings.iter().map(|(key, value)| format!("{key}={value}"));
    [
        ("model", prepared.model.hash.clone()),
        ("data", prepared.data.hash.clone()),
        ("init", name.to_owned()),
        ("init options", settings.collect::<Vec<_>>().join(" ")),
        ("form", options.form.clone()),
        ("plan", format!("{:?}", prepared.plan)),
        ("offset", format!("{:?}", options.offset)),
        ("batching", format!("{:?}", prepared.batching)),
        ("widen", format!("{:?}", options.widen)),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

/// What the training made of each layer's change.
fn changes(started: &Started) -> Result<Vec<SiteChange>, AppError> {
    use lowrank_linalg::{LowRank, effective_rank};
    let mut all = Vec::new();
    for each in &started.attached {
        let [out, inp] = each.site.shape;
        let part = |wanted: &str| {
            each.variables.iter().find(|(part, _)| *part == wanted).map(|(_, var)| var.values())
        };
        let (Some(left), Some(right)) = (part("left"), part("right")) else { continue };
        let build = |left: &[f32], right: &[f32]| {
            LowRank::from_rows(left, right, out, inp, each.site.rank).while_doing(&each.site.name)
        };
        let mut change = build(&left, &right)?.times(each.site.scale);
        if each.offset != lowrank_adapt::Offset::None {
            let start = build(&each.initial.0, &each.initial.1)?.times(-each.site.scale);
            change = change.add(&start).while_doing(&each.site.name)?;
        }
        let spectrum = change.factor().while_doing(&each.site.name)?;
        all.push(SiteChange {
            site: each.site.name.clone(),
            rank: each.site.rank,
            norm: spectrum.energy().sqrt(),
            largest: spectrum.values.first().copied().unwrap_or(0.0),
            effective_rank: effective_rank(&spectrum.values),
        });
    }
    Ok(all)
}
