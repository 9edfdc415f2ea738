//! From the mounted adapter to a PEFT folder that loads on the unmodified base, verified by reading it back.

use std::collections::BTreeMap;
use std::path::Path;

use lowrank_adapt::Offset;
use lowrank_attach::Attached;
use lowrank_models::is_head;
use lowrank_store::atomic::Existing;
use lowrank_store::export::{fold, stack};
use lowrank_store::peft::{AdapterConfig, AdapterFolder, Factor, Targets};
use lowrank_task::Kind;

use super::prepare::{Prepared, Started};
use super::{Tune, existing};
use crate::error::Because;
use crate::model::{BASE_HASH, OFFSET, PROMPT};
use crate::output::verified;
use crate::recompress::recompress;
use crate::verify::{allowed, largest_difference, logits_with, sample_logits};
use crate::{AppError, Progress};

/// Refuses to replace an adapter that is not this run's.
///
/// # Errors
/// [`AppError::Usage`].
pub(super) fn refuse_another(out: &Path, identity: &BTreeMap<String, String>) -> Result<(), AppError> {
    let same = |found: AdapterFolder| found.provenance.get(RUN) == Some(&run_hash(identity));
    if out.exists() && !AdapterFolder::read(out).is_ok_and(same) {
        return Err(AppError::usage(format!(
            "{} exists already and is not the adapter of this run; give another --out, or --overwrite",
            out.display()
        )));
    }
    Ok(())
}

/// By what an adapter is known as that of a run.
fn run_hash(identity: &BTreeMap<String, String>) -> String {
    lowrank_store::hash::of_bytes(format!("{identity:?}").as_bytes())
}

/// Where the hash of a run's identity stands in an adapter's provenance.
const RUN: &str = "lowrank.run";

/// Writes the adapter as it stands, trained or just started, with the start's own factors in `initial/`; returns the
/// largest difference of logits after reading it back. It takes its name only when it was verified: an older adapter of
/// that name survives a failure. The model is left without adapters, its weights as they were opened.
pub(super) fn write(
    prepared: &mut Prepared,
    options: &Tune,
    init: &str,
    started: &Started,
    steps: Option<u64>,
    out: &Path,
    progress: &mut dyn Progress,
) -> Result<f64, AppError> {
    let provenance = provenance(prepared, options, init, started, steps);
    let mut folder = folder(prepared, options, started, progress)?;
    folder.provenance = provenance.clone();
    let mut initial = initial(prepared, options, started);
    initial.provenance.extend(provenance);
    write_verified(prepared, options, &folder, &initial, started, out, progress)
}

/// Whether the factors belong on a base from which the start was taken away.
fn has_offset(started: &Started) -> bool {
    started.attached.iter().any(|each| each.offset != Offset::None)
}

/// The factors that the training began with, an adapter of their own.
fn initial(prepared: &Prepared, options: &Tune, started: &Started) -> AdapterFolder {
    let factors = started.attached.iter().map(|each| factor(each, &each.initial)).collect();
    let mut initial = AdapterFolder::new(config(prepared, options), factors);
    if has_offset(started) {
        let mark = "belongs on W - scale·B·A, not on the base itself".to_owned();
        initial.provenance.insert(OFFSET.to_owned(), mark);
        // The unmodified base would be the wrong one; the changed one has a name only where it was written.
        initial.config.base_model = options.base_out.as_ref().map(|path| path.display().to_string());
    }
    initial
}

/// The adapter that is exact on the unmodified base.
fn folder(
    prepared: &Prepared,
    options: &Tune,
    started: &Started,
    progress: &mut dyn Progress,
) -> Result<AdapterFolder, AppError> {
    let values = |each: &Attached, wanted: &str| {
        let found = each.variables.iter().find(|(part, _)| *part == wanted);
        found.map(|(_, variable)| variable.values()).unwrap_or_default()
    };
    let factors = started
        .attached
        .iter()
        .map(|each| factor(each, &(values(each, "left"), values(each, "right"))))
        .collect();
    let mut folder = AdapterFolder::new(config(prepared, options), factors);
    if has_offset(started) {
        folder = stack(&folder, &initial(prepared, options, started)).while_doing("taking the start back")?;
        if options.recompress {
            let rank_of = |module: &str| {
                let site = started.attached.iter().find(|each| each.site.name == module);
                site.map(|each| each.site.rank)
            };
            let (smaller, worst) = recompress(&folder, &rank_of)?;
            folder = smaller;
            progress
                .say(&format!("recompressed to the rank of the start: relative error at most {worst:.2e}"));
        }
    }
    // Scale folded in: no reader can get α, its square root or a pattern wrong.
    fold(&folder).while_doing("folding the scale")
}

fn factor(each: &Attached, (left, right): &(Vec<f32>, Vec<f32>)) -> Factor {
    let [out, inp] = each.site.shape;
    Factor::linear(&each.site.name, (out, inp, each.site.rank), left.clone(), right.clone())
}

/// The configuration of the factors as they are trained, before anything is converted.
fn config(prepared: &Prepared, options: &Tune) -> AdapterConfig {
    let plan = &prepared.plan;
    let targets = plan.sites.iter().map(|site| site.name.clone()).collect();
    let mut config = AdapterConfig::new(options.rank, options.alpha, Targets::List(targets));
    config.rank_stabilised = options.rank_stabilised;
    // One entry a layer, by its full name: no pattern can match more than was meant.
    let differs = plan.sites.iter().filter(|site| site.rank != options.rank);
    config.rank_pattern = differs.map(|site| (site.name.clone(), site.rank)).collect();
    let differs = plan.sites.iter().filter(|site| (site.alpha - options.alpha).abs() > 0.0);
    config.alpha_pattern = differs.map(|site| (site.name.clone(), site.alpha)).collect();
    config.task_type = Some("CAUSAL_LM".to_owned());
    // Factors do not depend on how the base stores its weights; PEFT is told all the same, and needs no correction.
    config.fan_in_fan_out = prepared.model.decoder.config.family.is_conv1d()
        && plan.sites.iter().any(|site| !is_head(&site.name));
    config.base_model = prepared.model.path.as_ref().map(|path| path.display().to_string());
    config
}

fn provenance(
    prepared: &Prepared,
    options: &Tune,
    init: &str,
    started: &Started,
    steps: Option<u64>,
) -> BTreeMap<String, String> {
    let choices: Vec<String> = started.settings.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let mut facts = vec![
        ("lowrank.version", env!("CARGO_PKG_VERSION").to_owned()),
        (BASE_HASH, prepared.model.hash.clone()),
        ("lowrank.data_hash", prepared.data.hash.clone()),
        ("lowrank.init", init.to_owned()),
        ("lowrank.init_options", choices.join(" ")),
        ("lowrank.form", options.form.clone()),
        (PROMPT, prompt_format(prepared).to_owned()),
        ("lowrank.rank", options.rank.to_string()),
        ("lowrank.seed", options.seed.to_string()),
        (RUN, run_hash(&started.identity)),
    ];
    facts.extend(steps.map(|steps| ("lowrank.steps", steps.to_string())));
    facts.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// The format of `lowrank generate` that writes a prompt as the training did.
fn prompt_format(prepared: &Prepared) -> &'static str {
    let summary = &prepared.data.summary;
    match summary.kind {
        _ if summary.chat => "chat",
        Kind::QuestionAnswer => "plain",
        _ => "raw",
    }
}

/// Writes beside, reads back, mounts what was read on the unmodified base, compares logits on sample tokens, and gives
/// the result its name.
fn write_verified(
    prepared: &mut Prepared,
    options: &Tune,
    folder: &AdapterFolder,
    initial: &AdapterFolder,
    started: &Started,
    out: &Path,
    progress: &mut dyn Progress,
) -> Result<f64, AppError> {
    let trained = sample_logits(&prepared.model)?;
    prepared.clear()?;
    let model = &mut prepared.model;
    let base = sample_logits(model)?;
    let mut expected = trained.clone();
    if options.recompress && has_offset(started) {
        // Another function, as was asked; the file is held to it, and what it costs is told.
        expected = logits_with(model, folder)?;
        let difference = largest_difference(&trained, &expected);
        progress.say(&format!(
            "recompressed: logits differ from the trained adapter's by at most {difference:.1e}"
        ));
    }
    verified(out, existing(options), |beside| {
        folder.write_with_initial(initial, beside, Existing::Refuse).while_doing("writing the adapter")?;
        let read = AdapterFolder::read(beside).while_doing("reading the adapter back")?;
        let difference = largest_difference(&expected, &logits_with(model, &read)?);
        let allowed = allowed(&base, &expected);
        // NaN is not within anything.
        if difference.is_nan() || difference > allowed {
            return Err(AppError::failed(format!(
                "what was written gives other logits than the adapter: they differ by {difference:.2e}, allowed are \
                 {allowed:.2e}; {} was not written",
                out.display()
            )));
        }
        Ok(difference)
    })
}
