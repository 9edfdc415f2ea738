//! One forward and one backward pass in which each layer is looked at by itself: its weight, its inputs and its gradient, what
//! starts would make of them, and how much of the gradient those could follow. Nothing is mounted.
//!
//! A layer's gradient is formed in its own backward pass, looked at, and dropped there and then. Layers that are fed the same
//! tensor one after another are told by its values, and share what is found of it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use faer::{Mat, MatRef, Scale};
use lowrank_adapt::{Form, Linear};
use lowrank_init::{Evidence, Gradient, Initialiser, Inputs, Site as InitSite, Statistic, most_rank};
use lowrank_linalg::{
    Components, LinalgError, Moments, OuterProducts, Sketch, energy, finite, randomised_svd,
};
use lowrank_models::{Network, Recompute};
use lowrank_record::{Need, Report, Seed};
use lowrank_tensor::Matrix;
use lowrank_tensor::ops::Observer;
use rayon::prelude::*;

use crate::collect::observe;
use crate::followed::{Followed, followed};
use crate::start::frozen;
use crate::{AttachError, Calibration, Plan, Site, Spectrum};

/// A method that is asked what it would start with.
pub struct Candidate {
    /// Where it starts; `None` for a form that makes its own start.
    pub initialiser: Option<Box<dyn Initialiser>>,
    /// How it is parametrised.
    pub form: Box<dyn Form>,
    /// The seed of its start, as [`crate::attach`] takes it.
    pub seed: Seed,
    /// The learning rate of the first step of the training to come.
    pub first_rate: f64,
}

/// What is looked at.
pub struct Wanted {
    /// The methods.
    pub candidates: Vec<Candidate>,
    /// Spectra are whole where the shorter side has at most so many values.
    pub whole_up_to: usize,
    /// How many times its planned rank a site may be suggested.
    pub rho: f64,
}

/// What a method would start with at one layer.
#[derive(Debug, Clone, PartialEq)]
pub struct Tried {
    /// What of the gradient it follows; `None` for a form that does not tell.
    pub followed: Option<Followed>,
    /// What the start says of itself.
    pub report: Report,
}

/// One layer, looked at.
#[derive(Debug, Clone, PartialEq)]
pub struct Looked {
    /// The layer.
    pub site: Site,
    /// Of its weight.
    pub weight: Spectrum,
    /// Of its inputs X `[n, in]`: squared values over n are the eigenvalues of their second moment.
    pub inputs: Arc<Spectrum>,
    /// The parts of the inputs' variance about their mean that their leading components hold, descending.
    pub explained: Arc<Vec<f64>>,
    /// Of the gradient of the mean loss.
    pub gradient: Spectrum,
    /// Each candidate in their order; why not, for one that cannot start here.
    pub candidates: Vec<Result<Tried, String>>,
}

/// All layers, in the order of the plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Survey {
    /// The layers.
    pub sites: Vec<Looked>,
    /// Mean loss of the batch, nats per token.
    pub loss: f64,
    /// Tokens that carry loss.
    pub weight: f64,
    /// Tokens (or patches) whose inputs were looked at.
    pub tokens: usize,
}

/// Looks at every layer of the plan on one batch.
///
/// # Errors
/// [`AttachError`] naming the layer, or what the model says. What a candidate alone cannot do is told with the layer.
pub fn survey<N: Network>(
    model: &mut N,
    plan: &Plan,
    batch: &Calibration<N::Batch>,
    recompute: Recompute,
    wanted: Wanted,
    seed: Seed,
) -> Result<Survey, AttachError> {
    let weight = model.weight(&batch.batch);
    if weight <= 0.0 {
        return Err(AttachError::NoLoss);
    }
    if !batch.shown.iter().all(|stream| stream.contains(&true)) {
        return Err(AttachError::NothingShown);
    }
    let places = |stream: &Vec<bool>| (0..stream.len()).filter(|&row| stream[row]).collect();
    let shown: Vec<Vec<usize>> = batch.shown.iter().map(places).collect();
    let shared = Arc::new(Shared {
        wanted,
        weight,
        shown,
        last: Mutex::new(None),
        seed: seed.at("attach", "survey"),
        rows: AtomicUsize::new(0),
    });
    let sites: BTreeMap<String, &Linear> = model.sites().into_iter().collect();
    let mut eyes: BTreeMap<String, Arc<Eye>> = BTreeMap::new();
    for site in &plan.sites {
        let (weight, stream) = (frozen(&sites, site)?.clone(), model.stream(&site.name));
        let eye = Eye {
            site: site.clone(),
            weight,
            stream,
            shared: Arc::clone(&shared),
            found: Mutex::new(None),
            times: AtomicUsize::new(0),
        };
        eyes.insert(site.name.clone(), Arc::new(eye));
    }
    observe(model, &|name| eyes.get(name).map(|eye| Arc::clone(eye) as Arc<dyn Observer>));
    let passed = model.gradients(&batch.batch, recompute, true, &mut |_| {});
    observe(model, &|_| None);
    let passed = passed?;
    // A stream that is not named is let in whole.
    let tokens = shared.shown.first().map_or(shared.rows.load(Ordering::Relaxed), Vec::len);
    let mut looked = Vec::with_capacity(plan.sites.len());
    for site in &plan.sites {
        let eye = eyes.get(&site.name);
        if eye.is_some_and(|eye| eye.times.load(Ordering::Relaxed) > 1) {
            return Err(AttachError::SeenTwice { site: site.name.clone() });
        }
        let found = eye.and_then(|eye| lock(&eye.found).take());
        let found = found.ok_or_else(|| AttachError::NotReached { site: site.name.clone() })?;
        looked.push(found.map_err(AttachError::evidence(&site.name))?);
    }
    Ok(Survey { sites: looked, loss: passed.loss_sum / weight, weight, tokens })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What all layers of a pass share.
struct Shared {
    wanted: Wanted,
    weight: f64,
    /// The rows of each stream whose inputs are looked at.
    shown: Vec<Vec<usize>>,
    /// The inputs that were looked at last, and what was found.
    last: Mutex<Option<(Mat<f32>, Arc<Fed>)>>,
    seed: Seed,
    /// Rows of the layer that was looked at last.
    rows: AtomicUsize,
}

/// What was found of a layer's inputs.
struct Fed {
    spectrum: Arc<Spectrum>,
    explained: Arc<Vec<f64>>,
    /// About zero and about the mean, where a candidate asks for components.
    components: [Option<Components>; 2],
    /// Where a candidate asks for moments.
    moments: Option<Moments>,
    /// The largest rank that it was looked at for.
    rank: usize,
}

/// One layer's observer.
struct Eye {
    site: Site,
    weight: Matrix,
    stream: usize,
    shared: Arc<Shared>,
    found: Mutex<Option<Result<Looked, LinalgError>>>,
    /// How often the backward pass came here.
    times: AtomicUsize,
}

impl Observer for Eye {
    fn observe(&self, inputs: &[f32], output_gradients: &[f32], n: usize) {
        let [out, inp] = self.site.shape;
        let x = MatRef::from_row_major_slice(inputs, n, inp);
        let delta = MatRef::from_row_major_slice(output_gradients, n, out);
        if self.times.fetch_add(1, Ordering::Relaxed) > 0 {
            // A part of the gradient: told of at the end.
            return;
        }
        self.shared.rows.store(n, Ordering::Relaxed);
        let found = self.look(x, delta);
        *lock(&self.found) = Some(found);
    }
}

impl Eye {
    fn look(&self, x: MatRef<'_, f32>, delta: MatRef<'_, f32>) -> Result<Looked, LinalgError> {
        let ([out, inp], shared) = (self.site.shape, &self.shared);
        let wanted = &shared.wanted;
        let mut sum = OuterProducts::new(out, inp);
        sum.push(delta, x)?;
        // δ came from the summed loss.
        let gradient = Scale((1.0 / shared.weight) as f32) * sum.form();
        finite(gradient.as_ref())?;
        let fed = self.fed(x)?;
        let values = self.weight.to_f32();
        let weight = MatRef::from_row_major_slice(&values, out, inp);
        let count = self.count();
        let spectrum = |matrix, name: &str| {
            Spectrum::of(matrix, count, wanted.whole_up_to, shared.seed.at(name, &self.site.name))
        };
        let (of_weight, (of_gradient, candidates)) = rayon::join(
            || spectrum(weight, "weight"),
            || {
                rayon::join(
                    || spectrum(gradient.as_ref(), "gradient"),
                    || -> Vec<Result<Tried, String>> {
                        let all = wanted.candidates.par_iter();
                        all.map(|each| self.tried(each, weight, gradient.as_ref(), &fed)).collect()
                    },
                )
            },
        );
        Ok(Looked {
            site: self.site.clone(),
            weight: of_weight?,
            inputs: Arc::clone(&fed.spectrum),
            explained: Arc::clone(&fed.explained),
            gradient: of_gradient?,
            candidates,
        })
    }

    /// Singular values that are of use: as many as may be suggested, or as two factors can follow, and the next.
    fn count(&self) -> usize {
        let ([out, inp], rank) = (self.site.shape, self.site.rank);
        most_rank(self.shared.wanted.rho.max(2.0), rank, out.min(inp)).saturating_add(1)
    }

    /// What was found of these inputs: by the layer before, if it was fed the same.
    fn fed(&self, x: MatRef<'_, f32>) -> Result<Arc<Fed>, LinalgError> {
        let shared = &self.shared;
        let rows = match shared.shown.get(self.stream) {
            Some(shown) => Mat::from_fn(shown.len(), x.ncols(), |i, j| x[(shown[i], j)]),
            None => x.to_owned(),
        };
        let last = lock(&shared.last).take();
        if let Some((before, fed)) = last
            && fed.rank >= self.site.rank
            // Matrices of different shapes are not compared but refused.
            && before.shape() == rows.shape()
            && before == rows
        {
            *lock(&shared.last) = Some((before, Arc::clone(&fed)));
            return Ok(fed);
        }
        let fed = Arc::new(self.look_at_inputs(rows.as_ref())?);
        *lock(&shared.last) = Some((rows, Arc::clone(&fed)));
        Ok(fed)
    }

    fn look_at_inputs(&self, rows: MatRef<'_, f32>) -> Result<Fed, LinalgError> {
        let (shared, rank) = (&self.shared, self.site.rank);
        let (mut counts, mut moments) = ([None, Some(self.count())], false);
        for candidate in &shared.wanted.candidates {
            let Some(init) = candidate.initialiser.as_deref() else { continue };
            if !init.needs().contains(&Need::Inputs) {
                continue;
            }
            let [out, inp] = self.site.shape;
            let most = init.redistributes().map_or(rank, |rho| most_rank(rho, rank, out.min(inp)));
            let asked = init.inputs(most);
            if asked.statistic == Statistic::Moments {
                moments = true;
            } else {
                let count = &mut counts[usize::from(asked.centred)];
                *count = (*count).max(Some(asked.count));
            }
        }
        let seed = shared.seed.at("inputs", &self.site.name);
        let (spectrum, components) = rayon::join(
            || Spectrum::of(rows, self.count(), shared.wanted.whole_up_to, seed),
            || -> Result<[Option<Components>; 2], LinalgError> {
                let of = |centred: bool| {
                    let count = counts[usize::from(centred)];
                    count.map(|count| components(rows, count, centred, seed)).transpose()
                };
                Ok([of(false)?, of(true)?])
            },
        );
        let components = components?;
        let explained = components[1].as_ref().map(Components::ratios).unwrap_or_default();
        let moments = if moments {
            let mut seen = Moments::new(rows.ncols());
            seen.absorb(rows)?;
            Some(seen)
        } else {
            None
        };
        Ok(Fed { spectrum: Arc::new(spectrum?), explained: Arc::new(explained), components, moments, rank })
    }

    /// What a method would start with; why not, where it cannot.
    fn tried(
        &self,
        candidate: &Candidate,
        weight: MatRef<'_, f32>,
        gradient: MatRef<'_, f32>,
        fed: &Fed,
    ) -> Result<Tried, String> {
        let ([out, inp], scale) = (self.site.shape, self.site.scale);
        let Some(init) = candidate.initialiser.as_deref() else {
            // Without factors there is nothing to reach by, but for a form that reaches everything.
            let nothing = lowrank_linalg::LowRank::zeros(out, inp, 0);
            let followed = match candidate.form.reach() {
                reach @ lowrank_adapt::Reach::Whole => followed(reach, gradient, &nothing, None, scale),
                _ => Ok(None),
            };
            return Ok(Tried {
                followed: followed.map_err(|error| error.to_string())?,
                report: Report::default(),
            });
        };
        let mut seen = Evidence::of(InitSite { out, inp, scale })
            .with_weight(weight)
            .with_gradient(Gradient::Exact(gradient))
            .with_rate(candidate.first_rate);
        if init.needs().contains(&Need::Inputs) {
            let asked = init.inputs(self.site.rank);
            let components = fed.components[usize::from(asked.centred)].as_ref();
            let inputs = match asked.statistic {
                Statistic::Moments => fed.moments.as_ref().map(Inputs::Moments),
                Statistic::Components => components.map(Inputs::Components),
            };
            if let Some(inputs) = inputs {
                seen = seen.with_inputs(inputs);
            }
        }
        let start = init.start(&seen, self.site.rank, candidate.seed.at("start", &self.site.name));
        let start = start.map_err(|error| error.to_string())?;
        let core = start.core.as_ref().map(Mat::as_ref);
        let followed = followed(candidate.form.reach(), gradient, &start.delta, core, scale);
        Ok(Tried { followed: followed.map_err(|error| error.to_string())?, report: start.report })
    }
}

/// The leading components of the rows, about their mean or about zero, by subspace iteration.
fn components(
    rows: MatRef<'_, f32>,
    count: usize,
    centred: bool,
    seed: Seed,
) -> Result<Components, LinalgError> {
    let (n, width) = rows.shape();
    let mean: Vec<f64> = (0..width)
        .map(|j| rows.col(j).iter().map(|&value| f64::from(value)).sum::<f64>() / n.max(1) as f64)
        .collect();
    let about = Mat::from_fn(n, width, |i, j| {
        if centred { (f64::from(rows[(i, j)]) - mean[j]) as f32 } else { rows[(i, j)] }
    });
    let count = count.clamp(1, n.min(width).max(1));
    let found = randomised_svd(&about, count, Sketch::for_rank(count), seed.at("components", "rows"))?;
    Ok(Components {
        rows: n as u64,
        mean,
        centred,
        values: found.svd.values,
        right: found.svd.right,
        energy: energy(about.as_ref()),
        // Of all rows; what a sketch of twice the width and two power iterations misses is less than what is told of it.
        exact: true,
        converged: true,
        cosines: None,
        carried: None,
    })
}
