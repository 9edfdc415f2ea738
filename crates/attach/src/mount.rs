//! Putting adapters on layers: from a start, or from stored parts. Restoring never initialises.

use std::collections::BTreeMap;

use lowrank_adapt::{Adapter, Form, Linear, Offset, Part, Site as FormSite, Takes};
use lowrank_init::Initialiser;
use lowrank_models::Network;
use lowrank_record::{Report, Seed};
use lowrank_store::peft::{Factor, Place};
use lowrank_tensor::{Matrix, Var};
use rayon::prelude::*;

use crate::start::{Started, base_of, fits, frozen, has_evidence, start_site};
use crate::{AttachError, Collected, Plan, Site};

/// One adapter on one layer.
#[derive(Debug, Clone)]
pub struct Attached {
    /// The layer.
    pub site: Site,
    /// The trainable tensors with the names that files use (`right`, `left`), in a fixed order.
    pub variables: Vec<(&'static str, Var)>,
    /// What the start says of itself.
    pub report: Report,
    /// The adapter as it was started: what [`attach_stored`] mounts again.
    pub parts: Vec<Part>,
    /// The change that it started at, at scale 1: `(left₀·core₀ [out, r], right₀ [r, in])`; `None` where the form made its own
    /// start. Always kept: it is small, and without it an offset adapter cannot be exported.
    pub initial: Option<(Vec<f32>, Vec<f32>)>,
    /// Whether the start is taken back, beside the weight or inside it: export then needs [`Attached::initial`].
    pub offset: Offset,
    /// Whether the start put a weight of its own in the base's place: the adapter then belongs on that.
    pub replaced: bool,
}

/// How a change is started and parametrised.
#[derive(Clone, Copy)]
pub struct Way<'a> {
    /// Where it starts; `None` for a form that makes its own start.
    pub initialiser: Option<&'a dyn Initialiser>,
    /// How it is parametrised.
    pub form: &'a dyn Form,
    /// How a start that is not zero is taken back.
    pub offset: Offset,
}

impl Way<'_> {
    /// Refuses an initialiser where the form takes none, and the lack of one where it does.
    ///
    /// # Errors
    /// [`AttachError::TakesNoStart`], [`AttachError::NeedsStart`].
    pub fn check(&self) -> Result<(), AttachError> {
        let form = self.form.card().name;
        match (self.initialiser, self.form.takes()) {
            (Some(init), Takes::Nothing) => Err(AttachError::TakesNoStart { form, init: init.card().name }),
            (None, Takes::Factors | Takes::Core | Takes::Diagonal) => Err(AttachError::NeedsStart { form }),
            _ => Ok(()),
        }
    }
}

/// Starts an adapter on every layer of the plan and mounts it under `name`.
///
/// Layers are started in parallel; each draws from its own seed, so the result does not depend on their order.
///
/// # Errors
/// [`AttachError`] naming the layer. Nothing is mounted unless every layer could be started.
pub fn attach<N: Network>(
    model: &mut N,
    plan: &Plan,
    way: Way<'_>,
    collected: Collected<'_>,
    seed: Seed,
    name: &str,
) -> Result<Vec<Attached>, AttachError> {
    way.check()?;
    let sites: BTreeMap<String, &Linear> = model.sites().into_iter().collect();
    let started: Vec<Started> = match way.initialiser {
        None => plan.sites.iter().map(|_| Started::of_form()).collect(),
        Some(initialiser) => {
            has_evidence(plan, initialiser, collected)?;
            let start = |site: &Site| {
                start_site(site, frozen(&sites, site)?, initialiser, collected, way.offset, seed)
            };
            plan.sites.par_iter().map(start).collect::<Result<_, AttachError>>()?
        }
    };
    mount_all(model, plan, started, way.form, seed, name)
}

/// A start kept from an earlier run.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredStart {
    /// The parts of the adapter, as [`Attached::parts`].
    pub parts: Vec<Part>,
    /// As [`Attached::initial`].
    pub initial: Option<(Vec<f32>, Vec<f32>)>,
    /// How it is taken back.
    pub offset: Offset,
    /// The weight `[out, in]` that the start put in the base's place, row-major, if it did.
    pub base: Option<Vec<f32>>,
}

/// Mounts starts kept from an earlier run, one for each layer of the plan and in its order: no evidence, no initialiser.
///
/// # Errors
/// [`AttachError`] naming the layer that is missing, or whose parts do not fit.
pub fn attach_stored<N: Network>(
    model: &mut N,
    plan: &Plan,
    starts: Vec<StoredStart>,
    form: &dyn Form,
    name: &str,
) -> Result<Vec<Attached>, AttachError> {
    if starts.len() != plan.sites.len() {
        return Err(AttachError::Starts { have: starts.len(), want: plan.sites.len() });
    }
    let largest = largest(plan);
    let device = model.device().clone();
    let sites: BTreeMap<String, &Linear> = model.sites().into_iter().collect();
    let (mut attached, mut built) = (Vec::with_capacity(starts.len()), BTreeMap::new());
    for (site, stored) in plan.sites.iter().zip(starts) {
        let weight = frozen(&sites, site)?;
        let replaced = stored.base.is_some();
        let base = match (stored.base, stored.offset, &stored.initial) {
            (Some(values), ..) => Some(of_shape(site, values)?),
            (None, Offset::Base, Some((left, right))) => Some(base_of(site, weight, left, right)?),
            (None, Offset::Base, None) => {
                return Err(AttachError::StoredBase { site: site.name.clone() });
            }
            (None, Offset::None | Offset::Shadow, _) => None,
        };
        let refused = |source| AttachError::Adapt { site: site.name.clone(), source };
        let linear = sites.get(&site.name).ok_or_else(|| AttachError::UnknownSite(site.name.clone()))?;
        linear.admits(name, base.is_some()).map_err(refused)?;
        let at = form_site(site, base.as_ref().unwrap_or(weight), Seed(0), largest, &device);
        let parts = stored.parts.clone();
        let adapter = form.restore(&at, stored.parts, stored.offset).map_err(refused)?;
        attached.push(Attached {
            site: site.clone(),
            variables: adapter.trainable(),
            report: Report::default(),
            parts,
            initial: stored.initial,
            offset: stored.offset,
            replaced,
        });
        built.insert(site.name.clone(), (base, adapter));
    }
    put(model, built, name)?;
    Ok(attached)
}

fn of_shape(site: &Site, values: Vec<f32>) -> Result<Matrix, AttachError> {
    Matrix::from_f32(values, site.shape).map_err(|_| AttachError::StoredBase { site: site.name.clone() })
}

/// The largest rows, columns and rank over all layers of the plan, each by itself.
fn largest(plan: &Plan) -> [usize; 3] {
    let most = |of: &dyn Fn(&Site) -> usize| plan.sites.iter().map(of).max().unwrap_or(0);
    [most(&|site| site.shape[0]), most(&|site| site.shape[1]), most(&|site| site.rank)]
}

fn form_site<'a>(
    site: &'a Site,
    base: &'a Matrix,
    seed: Seed,
    largest: [usize; 3],
    device: &'a lowrank_tensor::Device,
) -> FormSite<'a> {
    FormSite { name: &site.name, base, rank: site.rank, scale: site.scale, seed, largest, device }
}

/// Builds every adapter first and mounts them then, so that a layer that refuses its adapter leaves the model as it was.
fn mount_all<N: Network>(
    model: &mut N,
    plan: &Plan,
    started: Vec<Started>,
    form: &dyn Form,
    seed: Seed,
    name: &str,
) -> Result<Vec<Attached>, AttachError> {
    let device = model.device().clone();
    let largest = largest(plan);
    let sites: BTreeMap<String, &Linear> = model.sites().into_iter().collect();
    let (mut attached, mut built) = (Vec::with_capacity(plan.sites.len()), BTreeMap::new());
    for (site, mut started) in plan.sites.iter().zip(started) {
        let refused = |source| AttachError::Adapt { site: site.name.clone(), source };
        let weight = frozen(&sites, site)?;
        let base = started.base.take();
        let linear = sites.get(&site.name).ok_or_else(|| AttachError::UnknownSite(site.name.clone()))?;
        linear.admits(name, base.is_some()).map_err(refused)?;
        let (initial, offset) = (started.change(site.shape), started.offset());
        let at = form_site(site, base.as_ref().unwrap_or(weight), seed, largest, &device);
        let adapter = form.build(&at, started.start).map_err(refused)?;
        attached.push(Attached {
            site: site.clone(),
            variables: adapter.trainable(),
            report: started.report,
            parts: adapter.parts(),
            initial,
            offset,
            replaced: started.replaced,
        });
        built.insert(site.name.clone(), (base, adapter));
    }
    put(model, built, name)?;
    Ok(attached)
}

/// Puts built adapters into their slots, which have been asked.
fn put<N: Network>(
    model: &mut N,
    mut built: BTreeMap<String, (Option<Matrix>, Box<dyn Adapter>)>,
    name: &str,
) -> Result<(), AttachError> {
    for (site, linear) in model.sites_mut() {
        let Some((base, adapter)) = built.remove(&site) else { continue };
        let refused = |source| AttachError::Adapt { site: site.clone(), source };
        if let Some(base) = base {
            linear.replace_weight(base).map_err(refused)?;
        }
        linear.mount(name, adapter).map_err(refused)?;
    }
    match built.into_keys().next() {
        Some(strange) => Err(AttachError::UnknownSite(strange)),
        None => Ok(()),
    }
}

/// Mounts trained factors as they are: `scale(module)` is the scale that their configuration says.
///
/// # Errors
/// [`AttachError::UnknownSite`] or [`AttachError::SiteShape`] when they were made for another model,
/// [`AttachError::Beside`] for a bias beside the factors. The model is then as it was.
pub fn restore<N: Network>(
    model: &mut N,
    factors: &[Factor],
    scale: &dyn Fn(&str) -> f64,
    form: &dyn Form,
    name: &str,
) -> Result<(), AttachError> {
    let mut parts = Vec::with_capacity(factors.len());
    for factor in factors {
        let Factor { module, output, input, rank, left, right, .. } = factor;
        if factor.place != Place::Linear || factor.bias.is_some() {
            return Err(AttachError::Beside { site: module.clone() });
        }
        let mut tensors = vec![
            Part::new("right", &[*rank, *input], right.clone()),
            Part::new("left", &[*output, *rank], left.clone()),
        ];
        let magnitude = factor.magnitude.as_ref();
        tensors.extend(magnitude.map(|values| Part::new("magnitude", &[1, *output], values.clone())));
        let shape = [*output, *input];
        parts.push(StoredParts { module: module.clone(), shape: Some(shape), rank: *rank, parts: tensors });
    }
    restore_parts(model, parts, scale, form, name)
}

/// What is stored of one layer's adapter.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredParts {
    /// The layer.
    pub module: String,
    /// `[out, in]` of the weight that it was made for, where the parts tell.
    pub shape: Option<[usize; 2]>,
    /// Its rank, where it has one.
    pub rank: usize,
    /// The parts, by the names of the form.
    pub parts: Vec<Part>,
}

/// Mounts adapters of any form from their parts: `scale(module)` is the scale that their configuration says.
///
/// # Errors
/// As [`restore`]; [`AttachError::Adapt`] for parts that are not the form's. The model is then as it was.
pub fn restore_parts<N: Network>(
    model: &mut N,
    stored: Vec<StoredParts>,
    scale: &dyn Fn(&str) -> f64,
    form: &dyn Form,
    name: &str,
) -> Result<(), AttachError> {
    let device = model.device().clone();
    let sites: BTreeMap<String, &Linear> = model.sites().into_iter().collect();
    let of =
        |module: &str| sites.get(module).copied().ok_or_else(|| AttachError::UnknownSite(module.to_owned()));
    let mut largest = [0; 3];
    for each in &stored {
        let [out, inp] = of(&each.module)?.shape();
        largest = [largest[0].max(out), largest[1].max(inp), largest[2].max(each.rank)];
    }
    let mut built = BTreeMap::new();
    for StoredParts { module, shape, rank, parts } in stored {
        let linear = of(&module)?;
        if let Some(shape) = shape {
            fits(&module, shape, linear.shape())?;
        }
        let refused = |source| AttachError::Adapt { site: module.clone(), source };
        linear.admits(name, false).map_err(refused)?;
        let base = linear.frozen().map_err(refused)?;
        let (scale, seed) = (scale(&module), Seed(0));
        let at = FormSite { name: &module, base, rank, scale, seed, largest, device: &device };
        let adapter = form.restore(&at, parts, Offset::None).map_err(refused)?;
        built.insert(module, (None, adapter));
    }
    put(model, built, name)
}
