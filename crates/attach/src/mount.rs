//! Putting adapters on layers: from a start, or from stored factors. Restoring never initialises.

use std::collections::BTreeMap;

use faer::MatRef;
use lowrank_adapt::{Form, Offset, Start as FormStart};
use lowrank_init::{Base, Evidence, Gradient, InitError, Initialiser, Site as InitSite};
use lowrank_linalg::to_rows;
use lowrank_models::Decoder;
use lowrank_record::{Need, Report, Seed};
use lowrank_store::peft::{Factor, Place};
use lowrank_tensor::{Matrix, Var};
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
    let sites = model.sites();
    let by_name: BTreeMap<&str, &lowrank_adapt::Linear> =
        sites.iter().map(|(name, linear)| (name.as_str(), *linear)).collect();
    let started: Vec<Started> = plan
        .sites
        .par_iter()
        .map(|site| {
            let linear = by_name.get(site.name.as_str());
            let linear = linear.ok_or_else(|| AttachError::UnknownSite(site.name.clone()))?;
            let weight =
                linear.frozen().map_err(|source| AttachError::Adapt { site: site.name.clone(), source })?;
            start_site(site, weight, initialiser, &needs, gradients, offset, seed)
        })
        .collect::<Result<_, AttachError>>()?;
    let device = model.device().clone();
    let mut waiting: BTreeMap<String, (&Site, Started)> =
        plan.sites.iter().zip(started).map(|(site, started)| (site.name.clone(), (site, started))).collect();
    let mut attached = Vec::with_capacity(plan.sites.len());
    for (site_name, linear) in model.sites_mut() {
        let Some((site, started)) = waiting.remove(&site_name) else { continue };
        let refused = |source| AttachError::Adapt { site: site_name.clone(), source };
        if let Some(base) = started.base {
            linear.replace_weight(base);
        }
        let weight = linear.frozen().map_err(refused)?.clone();
        let initial = (started.start.left.clone(), started.start.right.clone());
        let offset = started.start.offset;
        let adapter = form.build(&weight, started.start, site.scale, &device).map_err(refused)?;
        let variables = adapter.trainable();
        linear.mount(name, adapter).map_err(refused)?;
        attached.push(Attached { site: site.clone(), variables, report: started.report, initial, offset });
    }
    Ok(attached)
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
            let base = start.base_weight(MatRef::from_row_major_slice(&values, out, inp), site.scale);
            (Offset::Base, Some(base))
        }
        (Base::Subtract, _) => (Offset::Shadow, None),
        (Base::Replace(matrix), _) => (Offset::None, Some(matrix.clone())),
    };
    let base = base
        .map(|base| Matrix::from_f32(to_rows(base.as_ref()), site.shape))
        .transpose()
        .map_err(|_| AttachError::UnknownSite(site.name.clone()))?;
    let (left, right) = start.delta.to_rows();
    Ok(Started { start: FormStart { left, right, rank: site.rank, offset }, base, report: start.report })
}

/// An adapter restored from a file.
#[derive(Debug, Clone)]
pub struct Restored {
    /// The layer.
    pub site: String,
    /// Rank of the stored change.
    pub rank: usize,
    /// Its trainable tensors.
    pub variables: Vec<(&'static str, Var)>,
}

/// Mounts stored factors: `scale(module)` is the scale that their configuration says.
///
/// # Errors
/// [`AttachError::UnknownSite`] or [`AttachError::SiteShape`] when they were made for another model.
pub fn restore(
    model: &mut Decoder,
    factors: &[Factor],
    scale: &dyn Fn(&str) -> f64,
    form: &dyn Form,
    name: &str,
) -> Result<Vec<Restored>, AttachError> {
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
    let mut restored = Vec::with_capacity(factors.len());
    for (site, linear) in model.sites_mut() {
        let Some(factor) = factors.iter().find(|factor| factor.module == site) else { continue };
        let refused = |source| AttachError::Adapt { site: site.clone(), source };
        let weight = linear.frozen().map_err(refused)?.clone();
        let start = FormStart {
            left: factor.left.clone(),
            right: factor.right.clone(),
            rank: factor.rank,
            offset: Offset::None,
        };
        let adapter = form.build(&weight, start, scale(&site), &device).map_err(refused)?;
        let variables = adapter.trainable();
        linear.mount(name, adapter).map_err(refused)?;
        restored.push(Restored { site, rank: factor.rank, variables });
    }
    Ok(restored)
}
