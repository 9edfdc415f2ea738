//! Putting adapters on layers: from a start, or from stored factors. Restoring never initialises.

use std::collections::BTreeMap;

use faer::{Mat, MatRef};
use lowrank_adapt::{Form, Linear, Offset, Start as FormStart};
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
    mount_all(model, plan, started, form, name)
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
    let sites: BTreeMap<String, &Linear> = model.sites().into_iter().collect();
    let started: Vec<Started> = plan
        .sites
        .iter()
        .zip(starts)
        .map(|(site, start)| {
            let base = match start.offset {
                Offset::Base => Some(base_of(site, frozen(&sites, site)?, &start)?),
                Offset::None | Offset::Shadow => None,
            };
            Ok(Started { start, base, report: Report::default() })
        })
        .collect::<Result<_, AttachError>>()?;
    mount_all(model, plan, started, form, name)
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
    let [model_out, model_inp] = site.shape;
    let (out, inp) = values.shape();
    Matrix::from_f32(to_rows(values.as_ref()), site.shape).map_err(|_| AttachError::SiteShape {
        site: site.name.clone(),
        out,
        inp,
        model_out,
        model_inp,
    })
}

fn frozen<'a>(sites: &BTreeMap<String, &'a Linear>, site: &Site) -> Result<&'a Matrix, AttachError> {
    let linear = sites.get(&site.name).ok_or_else(|| AttachError::UnknownSite(site.name.clone()))?;
    linear.frozen().map_err(|source| AttachError::Adapt { site: site.name.clone(), source })
}

fn mount_all(
    model: &mut Decoder,
    plan: &Plan,
    started: Vec<Started>,
    form: &dyn Form,
    name: &str,
) -> Result<Vec<Attached>, AttachError> {
    let device = model.device().clone();
    let mut waiting: BTreeMap<&str, (&Site, Started)> =
        plan.sites.iter().zip(started).map(|(site, started)| (site.name.as_str(), (site, started))).collect();
    let mut attached = Vec::with_capacity(plan.sites.len());
    for (site_name, linear) in model.sites_mut() {
        let Some((site, Started { start, base, report })) = waiting.remove(site_name.as_str()) else {
            continue;
        };
        if let Some(base) = base {
            linear.replace_weight(base);
        }
        let (initial, offset) = ((start.left.clone(), start.right.clone()), start.offset);
        let variables = mount(linear, &site_name, start, site.scale, form, name, &device)?;
        attached.push(Attached { site: site.clone(), variables, report, initial, offset });
    }
    Ok(attached)
}

/// Builds the form on one layer and puts it into the slot; gives its trainable tensors.
fn mount(
    linear: &mut Linear,
    site: &str,
    start: FormStart,
    scale: f64,
    form: &dyn Form,
    name: &str,
    device: &Device,
) -> Result<Vec<(&'static str, Var)>, AttachError> {
    let refused = |source| AttachError::Adapt { site: site.to_owned(), source };
    let weight = linear.frozen().map_err(refused)?.clone();
    let adapter = form.build(&weight, start, scale, device).map_err(refused)?;
    let variables = adapter.trainable();
    linear.mount(name, adapter).map_err(refused)?;
    Ok(variables)
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
        let energy = Some(sketched.energy);
        seen = seen.with_gradient(Gradient::Factors { leading: sketched.svd.clone(), energy });
    }
    let start = initialiser.start(&seen, site.rank, seed.at("start", &site.name)).map_err(failed)?;
    let (offset, base) = match (&start.base, offset) {
        (Base::Keep, _) => (Offset::None, None),
        (Base::Subtract, Offset::Base) => {
            let values = values.unwrap_or_else(|| weight.to_f32());
            (Offset::Base, Some(subtracted(site, &values, &start)?))
        }
        (Base::Subtract, _) => (Offset::Shadow, None),
        (Base::Replace(replacement), _) => (Offset::None, Some(matrix(site, replacement)?)),
    };
    let (left, right) = start.delta.to_rows();
    Ok(Started { start: FormStart { left, right, rank: site.rank, offset }, base, report: start.report })
}

/// Mounts trained factors as they are: `scale(module)` is the scale that their configuration says.
///
/// # Errors
/// [`AttachError::UnknownSite`] or [`AttachError::SiteShape`] when they were made for another model.
pub fn restore(
    model: &mut Decoder,
    factors: &[Factor],
    scale: &dyn Fn(&str) -> f64,
    form: &dyn Form,
    name: &str,
) -> Result<(), AttachError> {
    let shapes: BTreeMap<String, [usize; 2]> =
        model.sites().into_iter().map(|(name, linear)| (name, linear.shape())).collect();
    for factor in factors {
        let Some(&[model_out, model_inp]) = shapes.get(&factor.module) else {
            return Err(AttachError::UnknownSite(factor.module.clone()));
        };
        let (out, inp) = (factor.output, factor.input);
        if factor.place != Place::Linear || (out, inp) != (model_out, model_inp) {
            return Err(AttachError::SiteShape {
                site: factor.module.clone(),
                out,
                inp,
                model_out,
                model_inp,
            });
        }
    }
    let device = model.device().clone();
    for (site, linear) in model.sites_mut() {
        let Some(factor) = factors.iter().find(|factor| factor.module == site) else { continue };
        let (left, right) = (factor.left.clone(), factor.right.clone());
        let start = FormStart { left, right, rank: factor.rank, offset: Offset::None };
        mount(linear, &site, start, scale(&site), form, name, &device)?;
    }
    Ok(())
}
