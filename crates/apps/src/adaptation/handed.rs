//! What is handed over: a PEFT folder made from the mounted adapters, by the exact road that their form has.
//!
//! A change that is a product of thin factors becomes a plain LoRA with its scale folded in, whatever trained it: exact, and
//! loadable by every reader, unless PEFT has a type of its own for the form and no plain LoRA was asked for. DoRA keeps its magnitudes. A change without thin factors (a fully trained weight) becomes
//! the best LoRA of the planned rank, and what that costs is told.

use std::collections::BTreeMap;
use std::path::Path;

use lowrank_adapt::Part;
use lowrank_attach::Attached;
use lowrank_linalg::LowRank;
use lowrank_models::is_head;
use lowrank_store::atomic::Existing;
use lowrank_store::peft::{AdapterConfig, AdapterFolder, Factor, Targets, TypedFolder, Whole};

use super::change::{Changes, less};
use super::handover::Written;
use super::prepare::{Prepared, Started, form};
use super::{Adaptation, Method, settings};
use crate::choices::PeftType;
use crate::model::ADAPTER;
use crate::recompress::recompress;
use crate::subject::Subject;
use crate::verify::{logits_with, sample_logits};
use crate::{AppError, Model, Progress, typed};
use lowrank_command::Because;

/// A folder to be written.
enum Folder {
    /// Two factors a layer, perhaps with magnitudes.
    Lora(AdapterFolder),
    /// A type of PEFT's own.
    Typed(TypedFolder),
}

/// What is handed over.
pub(super) struct Handed {
    folder: Folder,
    /// Whether it does something else than the mounted adapters, beyond rounding.
    pub(super) is_approximate: bool,
}

impl Handed {
    pub(super) fn add_provenance(&mut self, facts: &BTreeMap<String, String>) {
        let provenance = match &mut self.folder {
            Folder::Lora(folder) => &mut folder.provenance,
            Folder::Typed(folder) => &mut folder.provenance,
        };
        provenance.extend(facts.clone());
    }

    /// Writes it, with the start in `initial/` where there is one.
    pub(super) fn write(&self, initial: Option<&AdapterFolder>, out: &Path) -> Result<(), AppError> {
        match (&self.folder, initial) {
            (Folder::Lora(folder), Some(initial)) => {
                folder.write_with_initial(initial, out, Existing::Refuse)
            }
            (Folder::Lora(folder), None) => folder.write(out, Existing::Refuse),
            (Folder::Typed(folder), _) => folder.write(out, Existing::Refuse),
        }
        .while_doing("writing the adapter")
    }

    /// What is read back.
    pub(super) fn read(&self, out: &Path) -> Result<Handed, AppError> {
        let folder = match &self.folder {
            Folder::Lora(_) => AdapterFolder::read(out).map(Folder::Lora),
            Folder::Typed(_) => TypedFolder::read(out).map(Folder::Typed),
        };
        let folder = folder.while_doing("reading the adapter back")?;
        Ok(Handed { folder, is_approximate: self.is_approximate })
    }

    /// The logits of a model with it.
    pub(super) fn logits<N: Subject>(&self, model: &mut Model<N>) -> Result<Vec<f32>, AppError> {
        match &self.folder {
            Folder::Lora(folder) => logits_with(model, folder),
            Folder::Typed(folder) => {
                typed::mount(model, folder, ADAPTER, 1.0).while_doing("mounting the adapter")?;
                let logits = sample_logits(model)?;
                model.unmount()?;
                Ok(logits)
            }
        }
    }
}

/// Makes the folder of what is mounted.
///
/// # Errors
/// [`AppError::Failed`] naming the layer.
pub(super) fn handed<N: Subject>(
    prepared: &Prepared<N>,
    options: &Adaptation,
    method: &Method,
    started: &Started,
    written: Written<'_>,
    progress: &mut dyn Progress,
) -> Result<Handed, AppError> {
    let changes = Changes::of(&prepared.model);
    if written.peft_type == PeftType::Own && typed::FORMS.contains(&method.form.as_str()) {
        return typed_folder(prepared, options, method, started, &changes);
    }
    let mut factors = Vec::with_capacity(started.attached.len());
    let (mut whole, mut largest_error) = (0, 0.0_f64);
    for each in &started.attached {
        let change =
            if method.form == "dora" { Some(directions(&changes, each)?) } else { changes.factors(each)? };
        let (change, error) = match change {
            Some(change) => (change, None),
            None => {
                let (cut, error) = changes.cut(each)?;
                (cut, Some(error))
            }
        };
        if let Some(error) = error {
            whole += 1;
            largest_error = largest_error.max(error);
        }
        factors.push(factor(&changes, method, each, &change)?);
    }
    let mut is_approximate = whole > 0;
    if is_approximate {
        progress.say(&format!(
            "{whole} changes have no thin factors: written as the best of their rank, relative error at most {largest_error:.2e}"
        ));
    }
    let mut folder = AdapterFolder::new(config(prepared, method, written, started, &factors), factors);
    let wider =
        |each: &Attached| folder.factor(&each.site.name).is_some_and(|factor| factor.rank > each.site.rank);
    if written.recompress && method.form != "dora" && started.attached.iter().any(wider) {
        let rank_of = |module: &str| {
            let site = started.attached.iter().find(|each| each.site.name == module);
            site.map(|each| each.site.rank)
        };
        let (smaller, worst) = recompress(&folder, &rank_of)?;
        folder = smaller;
        is_approximate = true;
        progress.say(&format!("recompressed to the rank of the start: relative error at most {worst:.2e}"));
    }
    head(&mut folder, &changes, started)?;
    Ok(Handed { folder: Folder::Lora(folder), is_approximate })
}

/// Puts the layers that were trained whole into the folder, by the names under which PEFT keeps them (`modules_to_save`).
fn head(folder: &mut AdapterFolder, changes: &Changes<'_>, started: &Started) -> Result<(), AppError> {
    for each in &started.head {
        let module = &each.site.name;
        let (linear, adapter) = (changes.linear(each)?, changes.adapter(each)?);
        let base = linear.frozen().while_doing(module)?;
        let sum = |base: Vec<f32>, change: Vec<f32>| -> Vec<f32> {
            base.into_iter().zip(change).map(|(base, change)| base + change).collect()
        };
        let values = sum(base.to_f32(), adapter.delta(base));
        let shape = each.site.shape.to_vec();
        folder.whole.push(Whole { name: format!("{module}.weight"), shape, values });
        if let Some(bias) = linear.bias() {
            let change = adapter.bias_delta(bias).unwrap_or_default();
            let (name, shape) = (format!("{module}.bias"), vec![each.site.shape[0]]);
            folder.whole.push(Whole { name, shape, values: sum(bias.to_f32(), change) });
        }
        // The child of the model, or of its base, that holds the layer: PEFT keeps modules, and finds them by their last name.
        let mut parts = module.split('.');
        let first = parts.next().unwrap_or_default();
        let saved = if first == "classifier" { first } else { parts.next().unwrap_or(first) };
        if !folder.config.modules_to_save.iter().any(|known| known == saved) {
            folder.config.modules_to_save.push(saved.to_owned());
        }
    }
    Ok(())
}

/// A folder of the type that PEFT has for the form.
fn typed_folder<N: Subject>(
    prepared: &Prepared<N>,
    options: &Adaptation,
    method: &Method,
    started: &Started,
    changes: &Changes<'_>,
) -> Result<Handed, AppError> {
    let mut mounted: BTreeMap<&str, Vec<Part>> = BTreeMap::new();
    for each in &started.attached {
        mounted.insert(&each.site.name, changes.adapter(each)?.parts());
    }
    let parts = |each: &Attached| mounted.get(each.site.name.as_str()).cloned().unwrap_or_default();
    let told = typed::Told { seed: options.seed, steps: settings::steps(prepared, options)? };
    let folder = typed::folder(&*form(method)?, &started.attached, &parts, told);
    let mut folder = folder.while_doing("writing the adapter")?;
    folder.config.task_type = prepared.model.decoder.peft_task().map(str::to_owned);
    folder.config.base_model = prepared.model.path.as_ref().map(|path| path.display().to_string());
    let says = matches!(method.form.as_str(), "ia3" | "vera" | "adalora");
    folder.config.fan_in_fan_out = says && prepared.model.decoder.is_transposed();
    Ok(Handed { folder: Folder::Typed(folder), is_approximate: false })
}

/// The factors of a DoRA's direction on the base as it was opened, left with the scale in it: those that are trained, and
/// behind them those of a start that is taken back.
fn directions(changes: &Changes<'_>, each: &Attached) -> Result<LowRank, AppError> {
    let [out, inp] = each.site.shape;
    let parts = changes.adapter(each)?.parts();
    let part = |name: &str| {
        let part = parts.iter().find(|part| part.name == name).map(|part| part.values.as_slice());
        part.ok_or_else(|| AppError::failed(format!("{}: the adapter has no {name}", each.site.name)))
    };
    let factors = |left: &[f32], right: &[f32]| {
        LowRank::from_rows(left, right, out, inp, right.len() / inp.max(1)).while_doing(&each.site.name)
    };
    let trained = factors(part("left")?, part("right")?)?.times(each.site.scale);
    match &each.initial {
        Some((left, right)) if each.offset != lowrank_adapt::Offset::None => {
            let start = factors(left, right)?.times(each.site.scale);
            less(&trained, &start).while_doing(&each.site.name)
        }
        _ => Ok(trained),
    }
}

fn factor(
    changes: &Changes<'_>,
    method: &Method,
    each: &Attached,
    change: &LowRank,
) -> Result<Factor, AppError> {
    let [out, inp] = each.site.shape;
    let (left, right) = change.to_rows();
    let mut factor = Factor::linear(&each.site.name, (out, inp, change.rank()), left, right);
    if method.form == "dora" {
        let parts = changes.adapter(each)?.parts();
        factor.magnitude = parts.into_iter().find(|part| part.name == "magnitude").map(|part| part.values);
    }
    Ok(factor)
}

/// Scale folded in: no reader can get α, its square root or a pattern wrong.
fn config<N: Subject>(
    prepared: &Prepared<N>,
    method: &Method,
    written: Written<'_>,
    started: &Started,
    factors: &[Factor],
) -> AdapterConfig {
    let rank = factors.first().map_or(1, |factor| factor.rank);
    let targets = factors.iter().map(|factor| factor.module.clone()).collect();
    let mut config = AdapterConfig::new(rank, rank as f64, Targets::List(targets));
    // One entry a layer, by its full name: no pattern can match more than was meant.
    let differs = factors.iter().filter(|factor| factor.rank != rank);
    config.rank_pattern = differs.map(|factor| (factor.module.clone(), factor.rank)).collect();
    config.alpha_pattern =
        config.rank_pattern.iter().map(|(name, rank)| (name.clone(), *rank as f64)).collect();
    config.task_type = prepared.model.decoder.peft_task().map(str::to_owned);
    config.dora = method.form == "dora";
    // Factors do not depend on how the base stores its weights; PEFT is told all the same, and needs no correction.
    config.fan_in_fan_out =
        prepared.model.decoder.is_transposed() && factors.iter().any(|factor| !is_head(&factor.module));
    // A start that brought its own base belongs on that, where it was written.
    let base = if started.attached.iter().any(|each| each.replaced) {
        written.base
    } else {
        prepared.model.path.as_deref()
    };
    config.base_model = base.map(|path| path.display().to_string());
    config
}
