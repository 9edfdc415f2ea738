//! From the mounted adapter to a PEFT folder that loads on the unmodified base, verified by reading it back.

use std::collections::BTreeMap;
use std::path::Path;

use lowrank_adapt::Offset;
use lowrank_attach::{Attached, Plan};
use lowrank_models::is_head;
use lowrank_store::atomic::Existing;
use lowrank_store::peft::{
    AdapterConfig, AdapterFolder, Factor, Kind as Type, Targets, TypedFolder, kind_of,
};
use lowrank_store::{hash, tensors};

use super::handed::{Handed, handed};
use super::prepare::{Prepared, Started};
use super::{Adaptation, Method};
use crate::choices::PeftType;
use crate::model::{BASE_HASH, OFFSET};
use crate::output::verified;
use crate::subject::Subject;
use crate::verify::{allowed, largest_difference, sample_logits};
use crate::{AppError, Progress};
use lowrank_command::Because;

/// Refuses to replace an adapter that is not this run's.
///
/// # Errors
/// [`AppError::Usage`].
pub(crate) fn refuse_another(out: &Path, identity: &BTreeMap<String, String>) -> Result<(), AppError> {
    let provenance = |out: &Path| match kind_of(out) {
        Ok(Type::Lora) => AdapterFolder::read(out).map(|found| found.provenance),
        Ok(_) => TypedFolder::read(out).map(|found| found.provenance),
        Err(error) => Err(error),
    };
    let same = |found: BTreeMap<String, String>| found.get(RUN) == Some(&run_hash(identity));
    if out.exists() && !provenance(out).is_ok_and(same) {
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

/// What is written, and where.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Written<'a> {
    /// The adapter folder.
    pub(crate) out: &'a Path,
    /// What happens to one that is there.
    pub(crate) existing: Existing,
    /// Where the base without the start was written, if it was.
    pub(crate) base: Option<&'a Path>,
    /// Whether a change of twice the rank is cut down to the rank of the start.
    pub(crate) recompress: bool,
    /// The type that is written.
    pub(crate) peft_type: PeftType,
    /// Steps of training behind the values; none for a start alone.
    pub(crate) steps: Option<u64>,
}

/// Writes the adapter as it stands, trained or just started, with the start's own factors in `initial/` where the change is a
/// product of thin factors; returns the largest difference of logits after reading it back. It takes its name only when it
/// was verified: an older adapter of that name survives a failure. The model is left without adapters, its weights as they
/// were opened.
///
/// # Errors
/// [`AppError::Failed`] when it cannot be written, or is not what was trained once it is read back.
pub(crate) fn write<N: Subject>(
    prepared: &mut Prepared<N>,
    options: &Adaptation,
    method: &Method,
    started: &Started,
    written: Written<'_>,
    progress: &mut dyn Progress,
) -> Result<f64, AppError> {
    let mut provenance = provenance(prepared, options, method, started, written.steps);
    if is_replaced(started) {
        // It belongs on the base that was written, if one was, and on no other.
        let hash = match written.base {
            Some(base) => {
                let source = tensors::open(base).while_doing("reading the base back")?;
                hash::of_tensors(&*source).while_doing("reading the base back")?
            }
            None => "a base that was not written".to_owned(),
        };
        provenance.insert(BASE_HASH.to_owned(), hash);
    }
    let mut handed = handed(prepared, options, method, started, written, progress)?;
    handed.add_provenance(&provenance);
    let mut initial = initial(prepared, options, started, written);
    if let Some(initial) = &mut initial {
        initial.provenance.extend(provenance);
    }
    write_verified(prepared, &handed, initial.as_ref(), started, written, progress)
}

/// Whether the factors belong on a base from which the start was taken away.
fn has_offset(started: &Started) -> bool {
    started.attached.iter().any(|each| each.offset != Offset::None)
}

/// Whether the adapter belongs on a base of its own.
fn is_replaced(started: &Started) -> bool {
    started.attached.iter().any(|each| each.replaced)
}

/// The factors that the training began with, an adapter of their own; `None` for a form that makes its own start.
fn initial<N: Subject>(
    prepared: &Prepared<N>,
    options: &Adaptation,
    started: &Started,
    written: Written<'_>,
) -> Option<AdapterFolder> {
    let factors: Option<Vec<Factor>> =
        started.attached.iter().map(|each| each.initial.as_ref().map(|start| factor(each, start))).collect();
    let mut initial = AdapterFolder::new(config(prepared, options, &started.plan), factors?);
    if has_offset(started) {
        let mark = "belongs on W - scale·B·A, not on the base itself".to_owned();
        initial.provenance.insert(OFFSET.to_owned(), mark);
    }
    if has_offset(started) || is_replaced(started) {
        // The unmodified base would be the wrong one; the changed one has a name only where it was written.
        initial.config.base_model = written.base.map(|path| path.display().to_string());
    }
    Some(initial)
}

fn factor(each: &Attached, (left, right): &(Vec<f32>, Vec<f32>)) -> Factor {
    let [out, inp] = each.site.shape;
    let rank = right.len() / inp.max(1);
    Factor::linear(&each.site.name, (out, inp, rank), left.clone(), right.clone())
}

/// The configuration of the factors as they are trained, before anything is converted.
fn config<N: Subject>(prepared: &Prepared<N>, options: &Adaptation, plan: &Plan) -> AdapterConfig {
    let targets = plan.sites.iter().map(|site| site.name.clone()).collect();
    let mut config = AdapterConfig::new(options.rank, options.alpha, Targets::List(targets));
    config.rank_stabilised = options.rank_stabilised;
    // One entry a layer, by its full name: no pattern can match more than was meant.
    let differs = plan.sites.iter().filter(|site| site.rank != options.rank);
    config.rank_pattern = differs.map(|site| (site.name.clone(), site.rank)).collect();
    let differs = plan.sites.iter().filter(|site| (site.alpha - options.alpha).abs() > 0.0);
    config.alpha_pattern = differs.map(|site| (site.name.clone(), site.alpha)).collect();
    config.task_type = prepared.model.decoder.peft_task().map(str::to_owned);
    // Factors do not depend on how the base stores its weights; PEFT is told all the same, and needs no correction.
    config.fan_in_fan_out =
        prepared.model.decoder.is_transposed() && plan.sites.iter().any(|site| !is_head(&site.name));
    config.base_model = prepared.model.path.as_ref().map(|path| path.display().to_string());
    config
}

fn provenance<N: Subject>(
    prepared: &Prepared<N>,
    options: &Adaptation,
    method: &Method,
    started: &Started,
    steps: Option<u64>,
) -> BTreeMap<String, String> {
    let choices: Vec<String> = started.settings.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let pairs = method.form_options.iter();
    let form_choices: Vec<String> = pairs.map(|(key, value)| format!("{key}={value}")).collect();
    let mut facts = vec![
        ("lowrank.version", env!("CARGO_PKG_VERSION").to_owned()),
        (BASE_HASH, prepared.model.hash.clone()),
        ("lowrank.data_hash", prepared.data.hash.clone()),
        ("lowrank.init", method.init.clone()),
        ("lowrank.init_options", choices.join(" ")),
        ("lowrank.form", method.form.clone()),
        ("lowrank.form_options", form_choices.join(" ")),
        ("lowrank.rank", options.rank.to_string()),
        ("lowrank.seed", options.seed.to_string()),
        (RUN, run_hash(&started.identity)),
    ];
    facts.extend(N::provenance(&prepared.data));
    facts.extend(steps.map(|steps| ("lowrank.steps", steps.to_string())));
    facts.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// Writes beside, reads back, mounts what was read on the unmodified base (or on the start's own), compares logits on sample
/// tokens, and gives the result its name.
fn write_verified<N: Subject>(
    prepared: &mut Prepared<N>,
    handed: &Handed,
    initial: Option<&AdapterFolder>,
    started: &Started,
    written: Written<'_>,
    progress: &mut dyn Progress,
) -> Result<f64, AppError> {
    let out = written.out;
    let trained = sample_logits(&prepared.model)?;
    if is_replaced(started) {
        prepared.model.unmount()?;
    } else {
        prepared.clear()?;
    }
    let model = &mut prepared.model;
    let base = sample_logits(model)?;
    let mut expected = trained.clone();
    if handed.is_approximate {
        // Another function, as was asked or as the file can hold; the file is held to it, and what it costs is told.
        expected = handed.logits(model)?;
        let difference = largest_difference(&trained, &expected);
        progress
            .say(&format!("the file's logits differ from the trained adapter's by at most {difference:.1e}"));
    }
    let checked = verified(out, written.existing, |beside| {
        handed.write(initial, beside)?;
        let difference = largest_difference(&expected, &handed.read(beside)?.logits(model)?);
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
    });
    prepared.clear()?;
    checked
}
