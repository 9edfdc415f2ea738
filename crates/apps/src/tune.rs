//! `lowrank tune` and `lowrank init`: choose where an adapter starts, train it, hand it over as a PEFT folder.

mod options;
mod outcome;
mod report;

use std::path::Path;

use lowrank_models::{Decoder, Encoder, T5, Vision};
use lowrank_store::atomic::Existing;
use lowrank_train::Stopped;

use options::DEMONSTRATION_RATE;
pub use options::Tune;
pub use outcome::{Initialised, Tuned};

use crate::adaptation::{DryRun, Folder, Kept, Method, Prepared, RunSummary, Written};
use crate::model::{NO_TOKENIZER, directory_files};
use crate::output::{STARTED_FILES, Writes};
use crate::subject::{Kind, Subject, kind};
use crate::{AppError, Progress, adaptation, output};
use lowrank_command::Because;

const DEMONSTRATION_NOTE: &str = "note: one rate for both starts, of the size of full fine-tuning's. With a rate tuned for \
                                  each start the plain one catches up: studies/lora-ga/demonstration/NOTE.md";

/// Trains an adapter, and those to compare it with, and writes adapter, metrics and report.
///
/// # Errors
/// [`AppError::Usage`] before anything was started, [`AppError::Failed`] afterwards; checkpoints are kept.
pub fn tune(options: &Tune, progress: &mut dyn Progress) -> Result<Tuned, AppError> {
    let options = options.resolved(progress)?;
    match kind(&options.adaptation())? {
        Kind::Decoder => tune_on::<Decoder>(&options, progress),
        Kind::Encoder => tune_on::<Encoder>(&options, progress),
        Kind::Vision => tune_on::<Vision>(&options, progress),
        Kind::T5 => tune_on::<T5>(&options, progress),
    }
}

fn tune_on<N: Subject>(options: &Tune, progress: &mut dyn Progress) -> Result<Tuned, AppError> {
    options.base_out.as_deref().map_or(Ok(()), N::admits_base)?;
    let (ground, methods) = (options.adaptation(), options.methods()?);
    let replaces = brings_its_base(&methods)?;
    if options.base_out.is_some() && !replaces {
        return Err(AppError::usage(
            "--base-out belongs to `lowrank init`: what `tune` writes needs no changed base, but for a start that brings one \
             (loftq, qpissa)",
        ));
    }
    needs_base_out(options, replaces)?;
    let run =
        output::run_folder(options.run.as_deref(), "run", options.resume, &["metrics.jsonl", "recipe.toml"])?;
    let out = options.out.clone().unwrap_or_else(|| run.join("adapter"));
    // A resumed run may have written its adapter before it was stopped; that it is its own is checked with the run's identity.
    let replace = options.overwrite || options.resume;
    // The run folder is made with the run.
    let in_new_run = out.parent() == Some(run.as_path()) && !run.exists();
    if !in_new_run {
        output::admit(&out, replace, Writes::Folder(&STARTED_FILES))?;
    }
    let begun = progress.now();
    let mut prepared = Prepared::<N>::open(&ground, &methods, progress)?;
    prepared.describe(&ground, &methods, progress);
    std::fs::create_dir_all(&run).while_doing(format!("creating {}", run.display()))?;
    if options.resume
        && let Some(own) = methods.first()
    {
        let identity = adaptation::identity(&prepared, &ground, own)?;
        adaptation::check_start(Kept { path: &adaptation::start_path(&run), identity: &identity })?;
        if !options.overwrite {
            adaptation::refuse_another(&out, &identity)?;
        }
    }
    let recipe = lowrank_command::options::print(options)?;
    if !options.resume {
        write(&run.join("recipe.toml"), &recipe)?;
    }
    let mut summaries = Vec::new();
    for (index, method) in methods.iter().enumerate() {
        let folder =
            if index == 0 { run.clone() } else { run.join(format!("compare-{index}-{}", method.init)) };
        let begun = if index == 0 { begun } else { progress.now() };
        let at = Folder { path: &folder, resume: options.resume, begun };
        let summary = adaptation::train(&mut prepared, &ground, method, at, progress)?;
        if summary.stopped == Stopped::Interrupted {
            return Err(AppError::failed(format!(
                "stopped at step {}; the same command with --resume --run {} goes on from there",
                summary.steps,
                run.display()
            )));
        }
        if index == 0 {
            if let Some(base) = &options.base_out {
                N::write_base(&prepared.model, base, existing(options))?;
            }
            let written = written(options, &out, Some(summary.values_of));
            let written =
                adaptation::write(&mut prepared, &ground, method, &summary.started, written, progress)?;
            summaries.push(RunSummary { verified: Some(written), ..summary });
        } else {
            summaries.push(summary);
        }
        prepared.clear()?;
    }
    let report = run.join("report.html");
    write(&report, &report::page(&prepared, options, &summaries, &recipe).html()?)?;
    let studied = options.start() == "lora-ga" && options.compare.iter().any(|name| name == "kaiming");
    if options.is_demonstration() && studied && options.rate == Some(DEMONSTRATION_RATE) {
        progress.say(DEMONSTRATION_NOTE);
    }
    Ok(Tuned { runs: summaries, adapter: out, report, seconds: progress.now() - begun })
}

/// Starts an adapter without training it and writes it, with the start's own factors beside it.
///
/// # Errors
/// As [`tune`].
pub fn init(options: &Tune, progress: &mut dyn Progress) -> Result<Initialised, AppError> {
    let training = [
        ("--resume", options.resume),
        ("--compare", !options.compare.is_empty()),
        ("--run", options.run.is_some()),
    ];
    if let Some((flag, _)) = training.iter().find(|(_, given)| *given) {
        return Err(AppError::usage(format!("{flag} belongs to `lowrank tune`: `init` trains nothing")));
    }
    let options = &options.composed(progress)?;
    match kind(&options.adaptation())? {
        Kind::Decoder => init_on::<Decoder>(options, progress),
        Kind::Encoder => init_on::<Encoder>(options, progress),
        Kind::Vision => init_on::<Vision>(options, progress),
        Kind::T5 => init_on::<T5>(options, progress),
    }
}

fn init_on<N: Subject>(options: &Tune, progress: &mut dyn Progress) -> Result<Initialised, AppError> {
    options.base_out.as_deref().map_or(Ok(()), N::admits_base)?;
    let out =
        options.out.clone().ok_or_else(|| AppError::usage("--out DIR is needed: where the adapter goes"))?;
    output::admit(&out, options.overwrite, Writes::Folder(&STARTED_FILES))?;
    needs_base_out(options, brings_its_base(&options.methods()?)?)?;
    let begun = progress.now();
    let (ground, methods) = (options.adaptation(), options.methods()?);
    let mut prepared = Prepared::<N>::open(&ground, &methods, progress)?;
    prepared.describe(&ground, &methods, progress);
    let [method] = &methods[..] else {
        return Err(AppError::usage("`init` starts one adapter"));
    };
    let before_start = progress.now();
    progress.reset_peak();
    let started = prepared.start(&ground, method, None, progress)?;
    let check_seconds = started.check_seconds;
    let start_seconds = progress.now() - before_start - check_seconds;
    let start_peak_bytes = progress.peak_memory();
    let offset = started.attached.iter().any(|each| each.offset != lowrank_adapt::Offset::None);
    if let Some(base) = &options.base_out {
        N::write_base(&prepared.model, base, existing(options))?;
        if !prepared.model.is_directory() {
            progress.say(NO_TOKENIZER);
        }
    }
    let written = written(options, &out, None);
    let verified = adaptation::write(&mut prepared, &ground, method, &started, written, progress)?;
    if offset {
        progress.say(&on_changed_base(options, &out));
    }
    Ok(Initialised {
        adapter: out,
        init: method.init.clone(),
        sites: started.attached.len(),
        parameters: adaptation::parameters(&started),
        evidence_peak_bytes: started.evidence.peak,
        evidence_seconds: started.evidence.seconds,
        start_seconds,
        check_seconds,
        start_peak_bytes,
        captured: adaptation::captured(&started),
        verified,
        seconds: progress.now() - begun,
    })
}

/// Whether the first method's start puts a weight of its own in the base's place.
fn brings_its_base(methods: &[Method]) -> Result<bool, AppError> {
    methods.first().map_or(Ok(false), adaptation::replaces_base)
}

/// Refuses a start that brings its own base where that would be lost, and a place for it that is taken.
fn needs_base_out(options: &Tune, replaces: bool) -> Result<(), AppError> {
    match &options.base_out {
        None if replaces => Err(AppError::usage(format!(
            "--init {}: the start puts a quantised weight in the base's place, and the adapter belongs on that; give --base-out \
             DIR, where that base goes",
            options.start()
        ))),
        None => Ok(()),
        Some(base) => {
            let files = directory_files(options.model.as_deref());
            output::admit(base, options.overwrite || options.resume, Writes::Folder(&files))
        }
    }
}

/// How people go on in Python from a start that is not zero.
fn on_changed_base(options: &Tune, out: &Path) -> String {
    let initial = out.join(lowrank_store::peft::INITIAL_NAME);
    let base = match &options.base_out {
        Some(base) => format!("on the base {}", base.display()),
        None => {
            "after subtracting scale·B·A of it from the base (--base-out DIR writes that base)".to_owned()
        }
    };
    format!(
        "note: this start is not zero. To train it in Python as published, load {} {base}; `lowrank export --initial` \
         then converts the result for the unmodified base",
        initial.display()
    )
}

/// What [`tune`] would adapt, with its predicted memory and time. Little is computed: one product, to know the machine's rate; and for
/// a start that gives out ranks anew, the inputs by which it does.
///
/// # Errors
/// [`AppError::Usage`] for options, model and data that `tune` would refuse; where it would write is not looked at.
pub fn dry_run(options: &Tune, progress: &mut dyn Progress) -> Result<DryRun, AppError> {
    let options = options.resolved(progress)?;
    predicted(&options, true, progress)
}

fn predicted(options: &Tune, train: bool, progress: &mut dyn Progress) -> Result<DryRun, AppError> {
    match kind(&options.adaptation())? {
        Kind::Decoder => predicted_on::<Decoder>(options, train, progress),
        Kind::Encoder => predicted_on::<Encoder>(options, train, progress),
        Kind::Vision => predicted_on::<Vision>(options, train, progress),
        Kind::T5 => predicted_on::<T5>(options, train, progress),
    }
}

fn predicted_on<N: Subject>(
    options: &Tune,
    train: bool,
    progress: &mut dyn Progress,
) -> Result<DryRun, AppError> {
    let (ground, methods) = (options.adaptation(), options.methods()?);
    let mut prepared = Prepared::<N>::open(&ground, &methods, progress)?;
    prepared.describe(&ground, &methods, progress);
    let plan = prepared.plan.clone();
    let planned: Vec<adaptation::Planned<'_>> =
        methods.iter().map(|method| adaptation::Planned { method, plan: &plan, given: None }).collect();
    adaptation::predict(&mut prepared, &ground, &planned, train, progress)
}

/// What [`init`] would start, as [`dry_run`].
///
/// # Errors
/// As [`dry_run`].
pub fn init_dry_run(options: &Tune, progress: &mut dyn Progress) -> Result<DryRun, AppError> {
    predicted(&options.composed(progress)?, false, progress)
}

/// The options as a recipe, checked against model and data as [`tune`] does, every default filled in.
///
/// # Errors
/// As [`dry_run`].
pub fn recipe(options: &Tune, progress: &mut dyn Progress) -> Result<String, AppError> {
    let options = options.resolved(progress)?;
    let (ground, methods) = (options.adaptation(), options.methods()?);
    match kind(&ground)? {
        Kind::Decoder => Prepared::<Decoder>::open(&ground, &methods, progress).map(drop)?,
        Kind::Encoder => Prepared::<Encoder>::open(&ground, &methods, progress).map(drop)?,
        Kind::Vision => Prepared::<Vision>::open(&ground, &methods, progress).map(drop)?,
        Kind::T5 => Prepared::<T5>::open(&ground, &methods, progress).map(drop)?,
    }
    lowrank_command::options::print(&options)
}

fn written<'a>(options: &'a Tune, out: &'a Path, steps: Option<u64>) -> Written<'a> {
    Written {
        out,
        existing: existing(options),
        base: options.base_out.as_deref(),
        recompress: options.recompress,
        peft_type: options.peft_type,
        steps,
    }
}

fn existing(options: &Tune) -> Existing {
    if options.overwrite || options.resume { Existing::Overwrite } else { Existing::Refuse }
}

fn write(path: &Path, content: &str) -> Result<(), AppError> {
    lowrank_store::text::write(path, content).map_err(|error| AppError::failed(error.to_string()))
}
