//! One method, started and trained.

use std::path::Path;

use lowrank_attach::Attached;
use lowrank_train::{Group, Settings, metrics};

use super::change::Changes;
use super::outcome::{RunSummary, SiteChange};
use super::prepare::{Prepared, Started, parameters};
use super::{Adaptation, Method, prepare, settings, stored_start};
use crate::objective::{Allotted, Trainable, Training};
use crate::subject::{Laying as _, Subject};
use crate::training::{self, Told};
use crate::{AppError, Model, Progress};
use lowrank_command::Because;

/// Where a run lives, and when it began.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Folder<'a> {
    /// The run folder.
    pub(crate) path: &'a Path,
    /// Whether the run goes on with what the folder holds.
    pub(crate) resume: bool,
    /// The moment from which its seconds count.
    pub(crate) begun: f64,
}

/// Starts and trains one adapter; it stays mounted.
///
/// # Errors
/// [`AppError::Usage`] for what cannot be, [`AppError::Failed`] for what went wrong.
pub(crate) fn train<N: Subject>(
    prepared: &mut Prepared<N>,
    options: &Adaptation,
    method: &Method,
    at: Folder<'_>,
    progress: &mut dyn Progress,
) -> Result<RunSummary, AppError> {
    let Folder { path: folder, resume, begun } = at;
    std::fs::create_dir_all(folder).while_doing(format!("creating {}", folder.display()))?;
    let settings = settings::of(prepared, options, method.rate)?;
    let kept = stored_start::path(folder);
    let kept_before = kept.is_file();
    let started = prepared.start(options, method, Some(&kept), progress)?;
    let started_at = progress.now();
    if !kept_before {
        write_reports(&started, &folder.join("start.json"))?;
    }
    progress.reset_peak();
    let mut training = training_of(prepared, options, method, &started)?;
    progress.say(&budget(prepared, options, &settings));
    let score_before = training.score().while_doing("evaluating")?;
    let told = Told { label: &method.name, folder, resume, identity: started.identity.clone() };
    let (outcome, watched) = training::run(&mut training, &settings, told, progress)?;
    if !outcome.untouched.is_empty() {
        progress.say(&format!("warning: never had a gradient: {}", outcome.untouched.join(", ")));
    }
    let score = training.score().while_doing("evaluating")?;
    let lines = metrics::read(folder).while_doing("reading the metrics")?;
    let held_out_at = |step: u64| lines.iter().find(|line| line.step == step).and_then(|line| line.eval);
    Ok(RunSummary {
        init: method.name.clone(),
        rate: method.rate,
        stopped: outcome.stopped,
        steps: outcome.steps,
        values_of: outcome.values_of,
        parameters: parameters(&started),
        tokens: outcome.tokens,
        first_loss: lines.iter().find_map(|line| line.loss),
        last_loss: outcome.loss,
        held_out_before: held_out_at(0),
        held_out_after: held_out_at(outcome.values_of),
        // A run that is gone on with does not know what it began with.
        score_before: score_before.filter(|_| !resume),
        score,
        tokens_per_second: (watched.seconds > 0.0).then(|| watched.tokens as f64 / watched.seconds),
        seconds_to_first_step: watched.first_step.map(|at| at - begun),
        seconds_to_start: started_at - begun,
        start_difference: started.moved,
        evidence_peak_bytes: started.evidence.peak,
        training_peak_bytes: progress.peak_memory(),
        verified: None,
        curve: lines,
        times: watched.times,
        changes: changes(&prepared.model, &started)?,
        started,
    })
}

/// The mounted adapter and the data as something to be trained.
///
/// # Errors
/// [`AppError::Usage`] when the data cannot be batched.
pub(super) fn training_of<'a, N: Subject>(
    prepared: &'a Prepared<N>,
    options: &Adaptation,
    method: &Method,
    started: &Started,
) -> Result<Training<'a, N>, AppError> {
    let form = prepare::form(method)?;
    let steps = settings::steps(prepared, options)?;
    let allocator = prepare::allocator(&*form, &started.plan, steps).input(&method.name)?;
    let counts = || started.attached.iter().map(|each| each.variables.len()).collect();
    let allotted = allocator.map(|allocator| Allotted { allocator, counts: counts() });
    let training = Training::new(
        &prepared.model.decoder,
        trainables(started),
        &prepared.data.train,
        &prepared.data.held_out,
        prepared.laying,
        options.accumulate,
        prepared.recompute,
        settings::data_order(options),
    );
    Ok(training.input("batching the data")?.with(allotted))
}

/// What will be done, in a line.
fn budget<N: Subject>(prepared: &Prepared<N>, options: &Adaptation, settings: &Settings) -> String {
    let batching = prepared.laying.batching();
    let rows = batching.batch * options.accumulate as usize;
    let length = if batching.packing { "of" } else { "of up to" };
    let evaluated = match settings.eval_every {
        0 => "no held-out data".to_owned(),
        every => format!("{} held out, evaluated every {every} steps", prepared.data.held_out.len()),
    };
    format!(
        "{} steps of {rows} rows {length} {} tokens at rate {:.1e}; {evaluated}",
        settings.steps, batching.time, settings.rate
    )
}

/// What the start says of each layer.
fn write_reports(started: &Started, path: &Path) -> Result<(), AppError> {
    let layer = |each: &Attached| {
        serde_json::json!({
            "layer": each.site.name, "rank": each.site.rank, "scale": each.site.scale, "facts": each.report,
        })
    };
    let layers: Vec<serde_json::Value> = started.attached.iter().map(layer).collect();
    let text = serde_json::to_string_pretty(&layers).while_doing("writing what the start says")?;
    lowrank_store::text::write(path, &(text + "\n")).while_doing("writing what the start says")
}

fn trainables(started: &Started) -> Vec<Trainable> {
    let mut all = Vec::new();
    for each in started.attached.iter().chain(&started.head) {
        for (part, variable) in &each.variables {
            let group = match *part {
                "left" => Group::Left,
                "right" => Group::Right,
                _ => Group::Dense,
            };
            let name = format!("{}.{part}", each.site.name);
            // Of the head the change is held: decay would pull it back to where it was drawn.
            let decay = !started.head.iter().any(|whole| whole.site.name == each.site.name);
            all.push(Trainable { name, group, decay, variable: variable.clone() });
        }
    }
    all
}

/// The shorter side up to which a change that is no product of thin factors is decomposed whole.
const DECOMPOSED: usize = 1024;

/// What the training made of each layer's change.
fn changes<N: Subject>(model: &Model<N>, started: &Started) -> Result<Vec<SiteChange>, AppError> {
    let changes = Changes::of(model);
    let mut all = Vec::new();
    for each in &started.attached {
        let Some(spectrum) = changes.spectrum(each, DECOMPOSED)? else { continue };
        all.push(SiteChange {
            site: each.site.name.clone(),
            rank: changes.adapter(each)?.rank().unwrap_or(each.site.rank),
            norm: spectrum.energy().sqrt(),
            largest: spectrum.values.first().copied().unwrap_or(0.0),
            effective_rank: lowrank_linalg::effective_rank(&spectrum.values),
        });
    }
    Ok(all)
}
