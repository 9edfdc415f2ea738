//! Putting adapters on layers: from a start, or from stored factors. Restoring never initialises.

use std::collections::BTreeMap;

use faer::{Mat, MatRef};
use lowrank_adapt::{Adapter, Form, Linear, Offset, Site as FormSite, Start as FormStart};
use lowrank_init::{Base, Evidence, Gradient, InitError, Initialiser, Site as InitSite, Start};
use lowrank_linalg::{LowRank, to_rows};
use lowrank_models::Decoder;
use lowrank_record::{Need, Report, Seed};
use lowrank_store::peft::{Factor, Place};
use lowrank_tensor::{Device, Matrix, Var};
use rayon::prelude::*;

use crate::{AttachError, Gradients, Plan, Site};

/// One adapter on one layer.
#[derive(Debug, Clone)]
pub struct Attached {
    /// The layer.
    pub site: Site,
    /// The trainable tensors with the names that files use (`right`, `left`), in a fixed order.
    pub variables: Vec<(&'static str, Var)>,
    /// What the start says of itself.
    pub report: Report,
    /// The start's factors `(left₀ [out, r], right₀ [r, in])`, at scale 1: always kept, they are small and without them an
    /// offset adapter cannot be exported.
    pub initial: (Vec<f32>, Vec<f32>),
    /// Whether the start is taken back, beside the weight or inside it: export then needs [`Attached::initial`].
    pub offset: Offset,
}

/// Starts an adapter on every layer of the plan and mounts it under `name`.
///
/// Layers are started in parallel; each draws from its own seed, so the result does not depend on their order.
///
/// # Errors
/// [`AttachError`] naming the layer. Nothing is mounted unless every layer could be started.
#[allow(clippy::too_many_arguments)] // The two traits, the plan, the evidence and three choices.
pub fn attach(
    model: &mut Decoder,
    plan: &Plan,
    initialiser: &dyn Initialiser,
    form: &dyn Form,
    offset: Offset,
    gradients: Option<&Gradients>,
    seed: Seed,
    name: &str,
) -> Result<Vec<Attached>, AttachError> {
    let needs = initialiser.needs();
    if needs.contains(&Need::Gradient) && gradients.is_none() {
        let source = InitError::Missing { method: initialiser.card().name, need: Need::Gradient };
        let site = plan.sites.first().map_or_else(String::new, |site| site.name.clone());
        return Err(AttachError::Init { site, source });
    }
    let sites: BTreeMap<String, &Linear> = model.sites().into_iter().collect();
    let started: Vec<Started> = plan
        .sites
        .par_iter()
        .map(|site| start_site(site, frozen(&sites, site)?, initialiser, &needs, gradients, offset, seed))
        .collect::<Result<_, AttachError>>()?;
    mount_all(model, plan, started, form, seed, name)
}

/// Mounts starts kept from an earlier run, one for each layer of the plan and in its order: no evidence, no initialiser.
///
/// # Errors
/// [`AttachError`] naming the layer that is missing, or whose factors do not fit.
pub fn attach_stored(
    model: &mut Decoder,
    plan: &Plan,
    starts: Vec<FormStart>,
    form: &dyn Form,
    name: &str,
) -> Result<Vec<Attached>, AttachError> {
    if starts.len() != plan.sites.len() {
        return Err(AttachError::Starts { have: starts.len(), want: plan.sites.len() });
    }
    let sites: BTreeMap<String, &Linear> = model.sites().into_iter().collect();
    let started: Vec<Started> = plan
        .sites
        .iter()
        .zip(starts)
        .map(|(site, start)| {
            let weight = frozen(&sites, site)?;
            if start.rank != site.rank {
                let (site, rank, want) = (site.name.clone(), start.rank, site.rank);
                return Err(AttachError::StoredRank { site, rank, want });
            }
            let base = match start.offset {
                Offset::Base => Some(base_of(site, weight, &start)?),
                Offset::None | Offset::Shadow => None,
            };
            Ok(Started { start, base, report: Report::default() })
        })
        .collect::<Result<_, AttachError>>()?;
    mount_all(model, plan, started, form, Seed(0), name)
}

/// `W − scale·left·right`, by the same arithmetic as when it was started.
fn base_of(site: &Site, weight: &Matrix, start: &FormStart) -> Result<Matrix, AttachError> {
    let [out, inp] = site.shape;
    let delta = LowRank::from_rows(&start.left, &start.right, out, inp, start.rank)
        .map_err(|source| AttachError::Stored { site: site.name.clone(), source })?;
    let start = Start { delta, core: None, base: Base::Subtract, report: Report::default() };
    subtracted(site, &weight.to_f32(), &start)
}

/// The weight that the start leaves, of the layer's shape.
fn subtracted(site: &Site, values: &[f32], start: &Start) -> Result<Matrix, AttachError> {
    let [out, inp] = site.shape;
    let base = start.base_weight(MatRef::from_row_major_slice(values, out, inp), site.scale);
    matrix(site, &base)
}

fn matrix(site: &Site, values: &Mat<f32>) -> Result<Matrix, AttachError> {
    let (out, inp) = values.shape();
    fits(&site.name, [out, inp], site.shape)?;
    match Matrix::from_f32(to_rows(values.as_ref()), site.shape) {
        Ok(matrix) => Ok(matrix),
        Err(error) => unreachable!("a matrix has as many values as its shape says: {error}"),
    }
}

fn frozen<'a>(sites: &BTreeMap<String, &'a Linear>, site: &Site) -> Result<&'a Matrix, AttachError> {
    let linear = sites.get(&site.name).ok_or_else(|| AttachError::UnknownSite(site.name.clone()))?;
    let weight = linear.frozen().map_err(|source| AttachError::Adapt { site: site.name.clone(), source })?;
    fits(&site.name, site.shape, weight.shape())?;
    Ok(weight)
}

/// Refuses a change that was planned, or made, for a layer of another shape.
fn fits(site: &str, [out, inp]: [usize; 2], [model_out, model_inp]: [usize; 2]) -> Result<(), AttachError> {
    if [out, inp] == [model_out, model_inp] {
        return Ok(());
    }
    Err(AttachError::SiteShape { site: site.to_owned(), out, inp, model_out, model_inp })
}

/// Builds every adapter first and mounts them then, so that a layer that refuses its adapter leaves the model as it was.
fn mount_all(
    model: &mut Decoder,
    plan: &Plan,
    started: Vec<Started>,
    form: &dyn Form,
    seed: Seed,
    name: &str,
) -> Result<Vec<Attached>, AttachError> {
    let device = model.device().clone();
    let mut waiting: BTreeMap<&str, (&Site, Started)> =
        plan.sites.iter().zip(started).map(|(site, started)| (site.name.as_str(), (site, started))).collect();
    let (mut attached, mut built) = (Vec::with_capacity(plan.sites.len()), Vec::new());
    for (site_name, linear) in model.sites() {
        let Some((site, Started { start, base, report })) = waiting.remove(site_name.as_str()) else {
            continue;
        };
        let (initial, offset) = ((start.left.clone(), start.right.clone()), start.offset);
        let adapter = build(linear, &site_name, base.as_ref(), start, site.scale, form, seed, name, &device)?;
        let variables = adapter.trainable();
        built.push((site_name, base, adapter));
        attached.push(Attached { site: site.clone(), variables, report, initial, offset });
    }
    if let Some(missing) = waiting.into_keys().next() {
        return Err(AttachError::UnknownSite(missing.to_owned()));
    }
    put(model, built, name)?;
    Ok(attached)
}

/// The form on one layer, whose weight `base` will replace; refused where it could not be mounted.
#[allow(clippy::too_many_arguments)] // One layer's part of everything that attaching takes.
fn build(
    linear: &Linear,
    site: &str,
    base: Option<&Matrix>,
    start: FormStart,
    scale: f64,
    form: &dyn Form,
    seed: Seed,
    name: &str,
    device: &Device,
) -> Result<Box<dyn Adapter>, AttachError> {
    let refused = |source| AttachError::Adapt { site: site.to_owned(), source };
    linear.admits(name, base.is_some()).map_err(refused)?;
    let weight = match base {
        Some(base) => base,
        None => linear.frozen().map_err(refused)?,
    };
    let site = FormSite::alone(site, weight, start.rank, scale, seed, device);
    form.build(&site, Some(start)).map_err(refused)
}

/// Puts built adapters into their slots, which have been asked.
fn put(
    model: &mut Decoder,
    built: Vec<(String, Option<Matrix>, Box<dyn Adapter>)>,
    name: &str,
) -> Result<(), AttachError> {
    let mut built = built.into_iter().peekable();
    for (site, linear) in model.sites_mut() {
        // Both lists are in the order of the model.
        let Some((_, base, adapter)) = built.next_if(|(next, ..)| *next == site) else { continue };
        let refused = |source| AttachError::Adapt { site: site.clone(), source };
        if let Some(base) = base {
            linear.replace_weight(base).map_err(refused)?;
        }
        linear.mount(name, adapter).map_err(refused)?;
    }
    assert!(
        built.peek().is_none(),
        "adapters are built in the order of the model; left over: {:?}",
        built.peek().map(|(site, ..)| site)
    );
    Ok(())
}

struct Started {
    start: FormStart,
    /// The weight that takes the base's place.
    base: Option<Matrix>,
    report: Report,
}

fn start_site(
    site: &Site,
    weight: &Matrix,
    initialiser: &dyn Initialiser,
    needs: &[Need],
    gradients: Option<&Gradients>,
    offset: Offset,
    seed: Seed,
) -> Result<Started, AttachError> {
    let [out, inp] = site.shape;
    let failed = |source| AttachError::Init { site: site.name.clone(), source };
    let values = needs.contains(&Need::Weight).then(|| weight.to_f32());
    let mut seen = Evidence::of(InitSite { out, inp, scale: site.scale });
    if let Some(values) = &values {
        seen = seen.with_weight(MatRef::from_row_major_slice(values, out, inp));
    }
    if needs.contains(&Need::Gradient)
        && let Some(sketched) = gradients.and_then(|gradients| gradients.sites.get(&site.name))
    {
        // What is only estimated is not handed on as known.
        let energy = sketched.exact.then_some(sketched.energy);
        seen = seen.with_gradient(Gradient::Factors { leading: sketched.svd.clone(), energy });
    }
    let start = initialiser.start(&seen, site.rank, seed.at("start", &site.name)).map_err(failed)?;
    let (name, init) = (|| site.name.clone(), initialiser.card().name);
    if start.core.is_some() {
        return Err(AttachError::Core { site: name(), init });
    }
    let (offset, base) = match (&start.base, offset) {
        (Base::Keep, _) => (Offset::None, None),
        (Base::Subtract, Offset::None) => return Err(AttachError::NotTakenBack { site: name(), init }),
        (Base::Replace(_), _) => return Err(AttachError::Replaces { site: name(), init }),
        (Base::Subtract, Offset::Base) => {
            let values = values.unwrap_or_else(|| weight.to_f32());
            (Offset::Base, Some(subtracted(site, &values, &start)?))
        }
        (Base::Subtract, Offset::Shadow) => (Offset::Shadow, None),
    };
    let (left, right) = start.delta.to_rows();
    Ok(Started {
        start: FormStart { left, right, core: None, rank: site.rank, offset },
        base,
        report: start.report,
    })
}

/// Mounts trained factors as they are: `scale(module)` is the scale that their configuration says.
///
/// # Errors
/// [`AttachError::UnknownSite`] or [`AttachError::SiteShape`] when they were made for another model,
/// [`AttachError::Beside`] for a magnitude or bias beside the factors. The model is then as it was.
pub fn restore(
    model: &mut Decoder,
    factors: &[Factor],
    scale: &dyn Fn(&str) -> f64,
    form: &dyn Form,
    name: &str,
) -> Result<(), AttachError> {
    let device = model.device().clone();
    let mut waiting: BTreeMap<&str, &Factor> =
        factors.iter().map(|factor| (factor.module.as_str(), factor)).collect();
    let mut built = Vec::with_capacity(factors.len());
    for (site, linear) in model.sites() {
        let Some(factor) = waiting.remove(site.as_str()) else { continue };
        fits(&site, [factor.output, factor.input], linear.shape())?;
        if factor.place != Place::Linear || factor.magnitude.is_some() || factor.bias.is_some() {
            return Err(AttachError::Beside { site });
        }
        let (left, right) = (factor.left.clone(), factor.right.clone());
        let start = FormStart { left, right, core: None, rank: factor.rank, offset: Offset::None };
        let adapter = build(linear, &site, None, start, scale(&site), form, Seed(0), name, &device)?;
        built.push((site, None, adapter));
    }
    if let Some(strange) = waiting.into_keys().next() {
        return Err(AttachError::UnknownSite(strange.to_owned()));
    }
    put(model, built, name)
}
