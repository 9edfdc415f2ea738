//! The start of one layer: its evidence gathered, its initialiser asked, its answer turned into what a form and a layer take.

use std::collections::BTreeMap;

use faer::{Mat, MatRef};
use lowrank_adapt::{Linear, Offset, Start as FormStart};
use lowrank_init::{Base, Evidence, Gradient, InitError, Initialiser, Site as InitSite, Start};
use lowrank_linalg::{LowRank, multiply, to_rows};
use lowrank_record::{Need, Report, Seed};
use lowrank_tensor::Matrix;

use crate::{AttachError, Gradients, InputStatistics, Plan, Site};

/// What was collected for a start; a start that needs more fails by name.
#[derive(Debug, Clone, Copy, Default)]
pub struct Collected<'a> {
    /// The gradients.
    pub gradients: Option<&'a Gradients>,
    /// What the layers are fed.
    pub inputs: Option<&'a InputStatistics>,
    /// The learning rate of the first step of the training to come.
    pub first_rate: Option<f64>,
}

/// Where one layer's change starts.
pub(crate) struct Started {
    /// For the form; `None` for one that makes its own.
    pub(crate) start: Option<FormStart>,
    /// The weight that takes the base's place.
    pub(crate) base: Option<Matrix>,
    /// Whether that weight is the start's own, not the base without the start.
    pub(crate) replaced: bool,
    /// What the start says of itself.
    pub(crate) report: Report,
}

impl Started {
    /// Of a form that makes its own start.
    pub(crate) fn of_form() -> Started {
        Started { start: None, base: None, replaced: false, report: Report::default() }
    }

    /// How the start is taken back.
    pub(crate) fn offset(&self) -> Offset {
        self.start.as_ref().map_or(Offset::None, |start| start.offset)
    }

    /// The change that it starts at, at scale 1: left `[out, r]` with the core in it, right `[r, in]`.
    pub(crate) fn change(&self, [out, _]: [usize; 2]) -> Option<(Vec<f32>, Vec<f32>)> {
        let FormStart { left, right, core, rank, .. } = self.start.as_ref()?;
        let left = match core {
            None => left.clone(),
            Some(core) => {
                let left = MatRef::from_row_major_slice(left, out, *rank);
                to_rows(multiply(left, MatRef::from_row_major_slice(core, *rank, *rank)).as_ref())
            }
        };
        Some((left, right.clone()))
    }
}

/// Whether everything that the initialiser needs was collected at all; what a single layer lacks is found there.
///
/// # Errors
/// [`AttachError::Init`].
pub(crate) fn has_evidence(
    plan: &Plan,
    initialiser: &dyn Initialiser,
    collected: Collected<'_>,
) -> Result<(), AttachError> {
    for need in initialiser.needs() {
        let found = match need {
            Need::Gradient => collected.gradients.is_some(),
            Need::Inputs => collected.inputs.is_some(),
            Need::Weight | Need::Fisher => true,
        };
        if !found {
            let source = InitError::Missing { method: initialiser.card().name, need };
            let site = plan.sites.first().map_or_else(String::new, |site| site.name.clone());
            return Err(AttachError::Init { site, source });
        }
    }
    Ok(())
}

/// Asks the initialiser where the change of this layer starts.
///
/// # Errors
/// [`AttachError::Init`], and [`AttachError::NotTakenBack`] for a start that is not zero where no offset takes it back.
pub(crate) fn start_site(
    site: &Site,
    weight: &Matrix,
    initialiser: &dyn Initialiser,
    collected: Collected<'_>,
    offset: Offset,
    seed: Seed,
) -> Result<Started, AttachError> {
    let [out, inp] = site.shape;
    let needs = initialiser.needs();
    let failed = |source| AttachError::Init { site: site.name.clone(), source };
    let values = needs.contains(&Need::Weight).then(|| weight.to_f32());
    let mut seen = Evidence::of(InitSite { out, inp, scale: site.scale });
    if let Some(values) = &values {
        seen = seen.with_weight(MatRef::from_row_major_slice(values, out, inp));
    }
    if needs.contains(&Need::Gradient)
        && let Some(gradients) = collected.gradients
        && let Some(sketched) = gradients.sites.get(&site.name)
    {
        // What is only estimated is not handed on as known.
        let energy = sketched.exact.then_some(sketched.energy);
        let leading = sketched.svd.clone();
        seen = seen.with_gradient(Gradient::Factors { leading, energy, of: gradients.of });
    }
    if needs.contains(&Need::Inputs)
        && let Some(inputs) = collected.inputs.and_then(|inputs| inputs.of(&site.name))
    {
        seen = seen.with_inputs(inputs);
    }
    if let Some(rate) = collected.first_rate {
        seen = seen.with_rate(rate);
    }
    let start = initialiser.start(&seen, site.rank, seed.at("start", &site.name)).map_err(failed)?;
    let (offset, base, replaced) = match (&start.base, offset) {
        (Base::Keep, _) => (Offset::None, None, false),
        // The start is what the other weight lacks: nothing is to be taken back.
        (Base::Replace(other), _) => (Offset::None, Some(matrix(site, other)?), true),
        (Base::Subtract, Offset::None) => {
            let (site, init) = (site.name.clone(), initialiser.card().name);
            return Err(AttachError::NotTakenBack { site, init });
        }
        (Base::Subtract, Offset::Base) => (Offset::Base, None, false),
        (Base::Subtract, Offset::Shadow) => (Offset::Shadow, None, false),
    };
    let (left, right) = start.delta.to_rows();
    let core = start.core.as_ref().map(|core| to_rows(core.as_ref()));
    let form_start = FormStart { left, right, core, rank: start.delta.rank(), offset };
    let mut started = Started { start: Some(form_start), base, replaced, report: start.report };
    if offset == Offset::Base
        && let Some((left, right)) = started.change(site.shape)
    {
        started.base = Some(base_of(site, weight, &left, &right)?);
    }
    Ok(started)
}

/// `W − scale·left·right`, with the core in the left factor: what a start leaves, and a stored one leaves again, bit for bit.
///
/// # Errors
/// [`AttachError::Stored`] for factors of another shape.
pub(crate) fn base_of(
    site: &Site,
    weight: &Matrix,
    left: &[f32],
    right: &[f32],
) -> Result<Matrix, AttachError> {
    let [out, inp] = site.shape;
    let delta = LowRank::from_rows(left, right, out, inp, right.len() / inp.max(1))
        .map_err(|source| AttachError::Stored { site: site.name.clone(), source })?;
    let start = Start { delta, core: None, base: Base::Subtract, report: Report::default() };
    let values = weight.to_f32();
    matrix(site, &start.base_weight(MatRef::from_row_major_slice(&values, out, inp), site.scale))
}

fn matrix(site: &Site, values: &Mat<f32>) -> Result<Matrix, AttachError> {
    let (out, inp) = values.shape();
    fits(&site.name, [out, inp], site.shape)?;
    match Matrix::from_f32(to_rows(values.as_ref()), site.shape) {
        Ok(matrix) => Ok(matrix),
        Err(error) => unreachable!("a matrix has as many values as its shape says: {error}"),
    }
}

/// The frozen weight of a layer of the plan.
///
/// # Errors
/// [`AttachError::UnknownSite`], [`AttachError::Adapt`], [`AttachError::SiteShape`].
pub(crate) fn frozen<'a>(
    sites: &BTreeMap<String, &'a Linear>,
    site: &Site,
) -> Result<&'a Matrix, AttachError> {
    let linear = sites.get(&site.name).ok_or_else(|| AttachError::UnknownSite(site.name.clone()))?;
    let weight = linear.frozen().map_err(|source| AttachError::Adapt { site: site.name.clone(), source })?;
    fits(&site.name, site.shape, weight.shape())?;
    Ok(weight)
}

/// Refuses a change that was planned, or made, for a layer of another shape.
pub(crate) fn fits(
    site: &str,
    [out, inp]: [usize; 2],
    [model_out, model_inp]: [usize; 2],
) -> Result<(), AttachError> {
    if [out, inp] == [model_out, model_inp] {
        return Ok(());
    }
    Err(AttachError::SiteShape { site: site.to_owned(), out, inp, model_out, model_inp })
}
