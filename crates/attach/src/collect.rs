//! Evidence from the model itself: the leading factors of each target's loss gradient `G = δᵀX`.
//!
//! A tap on each target sees the layer's inputs X and output gradients δ in the backward pass. With one calibration batch
//! the whole subspace iteration on `δᵀ(XΩ)` and `Xᵀ(δQ)` runs right there, and X and δ are dropped: one forward and one
//! backward pass in all, and memory close to a training step's. With several batches the same iteration runs pass by
//! pass over the same batches. No set of weight gradients exists at any time: at most one layer's, for a moment, where
//! forming it costs less than multiplying with its factors.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use faer::MatRef;
use lowrank_init::{Exactness, Leading};
use lowrank_linalg::{
    LinalgError, Operator, OuterProducts, Sketched, SubspaceIteration, energy, randomised_svd, svd_in_f64,
};
use lowrank_models::{Decoder, Recompute};
use lowrank_record::Seed;
use lowrank_tensor::ops::{Layout, Observer, Targets};

use crate::{AttachError, Plan, Site};

/// One batch of calibration text.
#[derive(Debug, Clone)]
pub struct Calibration {
    /// Token ids, row-major `[batch, time]`.
    pub tokens: Vec<u32>,
    /// What each token should predict.
    pub targets: Targets,
    /// Rows, positions and document starts.
    pub layout: Layout,
}

/// The leading factors of each site's gradient of the mean token loss, by site name.
#[derive(Debug, Clone)]
pub struct Gradients {
    /// Factors, captured share of the energy, whether the energy is exact.
    pub sites: BTreeMap<String, Sketched>,
    /// Mean loss of the calibration text, in nats per token.
    pub loss: f64,
    /// Tokens that carry loss; the rank of a gradient is at most this.
    pub weight: f64,
}

/// Where one site's iteration stands.
enum Progress {
    /// The whole iteration runs on the one batch.
    Once { rank: usize, leading: Leading, seed: Seed },
    /// One of several passes over several batches.
    Pass(Box<SubspaceIteration>),
    /// Finished.
    Done(Box<Sketched>),
    /// What went wrong.
    Failed(LinalgError),
    /// Handed over.
    Taken,
}

struct SiteTap {
    shape: [usize; 2],
    progress: Mutex<Progress>,
    /// Whether a backward pass came here at all: nothing seen is not a gradient of zero.
    reached: AtomicBool,
}

impl Observer for SiteTap {
    fn observe(&self, inputs: &[f32], output_gradients: &[f32], n: usize) {
        let [out, inp] = self.shape;
        let x = MatRef::from_row_major_slice(inputs, n, inp);
        let delta = MatRef::from_row_major_slice(output_gradients, n, out);
        self.reached.store(true, Ordering::Relaxed);
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = match &mut *progress {
            Progress::Once { rank, leading, seed } => {
                let mut gradient = OuterProducts::new(out, inp);
                gradient
                    .push(delta, x)
                    .and_then(|()| factored(&gradient, *rank, *leading, *seed))
                    .map(|sketched| Some(Progress::Done(Box::new(sketched))))
            }
            // A layer that needs fewer passes than another is done before it.
            Progress::Pass(iteration) if iteration.passes_left() == 0 => Ok(None),
            Progress::Pass(iteration) => iteration.absorb_outer(delta, x).map(|()| None),
            Progress::Done(_) | Progress::Failed(_) | Progress::Taken => Ok(None),
        };
        match outcome {
            Ok(Some(next)) => *progress = next,
            Ok(None) => {}
            Err(error) => *progress = Progress::Failed(error),
        }
    }
}

/// The leading triplets of one layer's gradient. Where the whole gradient is formed, it is dropped right here.
fn factored(
    gradient: &OuterProducts<'_>,
    rank: usize,
    leading: Leading,
    seed: Seed,
) -> Result<Sketched, LinalgError> {
    let smaller = gradient.rows().min(gradient.cols());
    if leading.is_exact(smaller) {
        let whole = gradient.form();
        let svd = svd_in_f64(whole.as_ref())?.head(rank);
        return Ok(Sketched { svd, energy: energy(whole.as_ref()), exact: true });
    }
    let sketch = leading.sketch();
    if gradient.is_cheaper_formed(2 * sketch.power + 2, (rank + sketch.oversampling).min(smaller)) {
        randomised_svd(&gradient.form(), rank, sketch, seed)
    } else {
        randomised_svd(gradient, rank, sketch, seed)
    }
}

/// Runs the model over the calibration batches and returns the leading `2·rank` triplets of each site's gradient (as
/// many as its smaller side allows), found as the method asks ([`lowrank_init::Initialiser::leading`]): `leading(rank)`
/// for a layer's rank.
///
/// Dropout is off and the loss is the training loss: labels masked, mean over tokens. Where several batches are given,
/// tokens weigh the same in all of them; the authors average the means of batches.
///
/// # Errors
/// [`AttachError`] naming the site, or what the model says.
pub fn collect(
    model: &mut Decoder,
    plan: &Plan,
    batches: &[Calibration],
    recompute: Recompute,
    leading: &dyn Fn(usize) -> Leading,
    seed: Seed,
) -> Result<Gradients, AttachError> {
    if batches.is_empty() {
        return Err(AttachError::NoCalibration);
    }
    let exact = |site: &Site| leading(site.rank).exactness == Exactness::Exact;
    if batches.len() > 1 && plan.sites.iter().any(exact) {
        return Err(AttachError::ExactInPasses { batches: batches.len() });
    }
    let mut taps: BTreeMap<String, Arc<SiteTap>> = BTreeMap::new();
    for site in &plan.sites {
        let width = site.shape[0].min(site.shape[1]);
        let rank = (2 * site.rank).min(width);
        let leading = leading(site.rank);
        let seed = seed.at("gradient", &site.name);
        let progress = if batches.len() == 1 {
            Progress::Once { rank, leading, seed }
        } else {
            let (q, passes) = ((rank + leading.oversampling).min(width), 2 * leading.power + 2);
            let iteration = SubspaceIteration::start(seed, site.shape[0], site.shape[1], q, passes);
            Progress::Pass(Box::new(
                iteration.map_err(|source| AttachError::Evidence { site: site.name.clone(), source })?,
            ))
        };
        taps.insert(
            site.name.clone(),
            Arc::new(SiteTap {
                shape: site.shape,
                progress: Mutex::new(progress),
                reached: AtomicBool::new(false),
            }),
        );
    }
    observe(model, &taps);
    let passes = match batches.len() {
        1 => 1,
        _ => plan.sites.iter().map(|site| 2 * leading(site.rank).power + 2).max().unwrap_or(0),
    };
    let outcome = run(model, &taps, batches, recompute, passes);
    observe(model, &BTreeMap::new());
    let (loss_sum, weight) = outcome?;
    if weight <= 0.0 {
        return Err(AttachError::NoLoss);
    }
    let mut sites = BTreeMap::new();
    for site in &plan.sites {
        let Some(tap) = taps.remove(&site.name) else { continue };
        let evidence = |source| AttachError::Evidence { site: site.name.clone(), source };
        if !tap.reached.load(Ordering::Relaxed) {
            return Err(AttachError::NotReached { site: site.name.clone() });
        }
        let progress = {
            let mut progress = tap.progress.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *progress, Progress::Taken)
        };
        let mut sketched = match progress {
            Progress::Done(sketched) => *sketched,
            Progress::Pass(iteration) => {
                let rank = (2 * site.rank).min(site.shape[0].min(site.shape[1]));
                iteration.finish(rank, None).map_err(evidence)?
            }
            Progress::Failed(source) => return Err(evidence(source)),
            Progress::Once { .. } | Progress::Taken => {
                return Err(AttachError::NotReached { site: site.name.clone() });
            }
        };
        // δ came from the summed loss.
        sketched.svd.values.iter_mut().for_each(|value| *value /= weight);
        sketched.energy /= weight * weight;
        sites.insert(site.name.clone(), sketched);
    }
    Ok(Gradients { sites, loss: loss_sum / weight, weight })
}

/// Runs all passes; a tapped layer finishes by itself when there is one batch.
fn run(
    model: &Decoder,
    taps: &BTreeMap<String, Arc<SiteTap>>,
    batches: &[Calibration],
    recompute: Recompute,
    passes: usize,
) -> Result<(f64, f64), AttachError> {
    let (mut loss_sum, mut weight) = (0.0, 0.0);
    for pass in 0..passes {
        for batch in batches {
            let passed = model.gradients(
                &batch.tokens,
                &batch.targets,
                &batch.layout,
                recompute,
                true,
                &mut |_| {},
            )?;
            if pass == 0 {
                loss_sum += passed.loss_sum;
                weight += passed.weight;
            }
        }
        for tap in taps.values() {
            let mut progress = tap.progress.lock().unwrap_or_else(PoisonError::into_inner);
            if let Progress::Pass(iteration) = &mut *progress
                && iteration.passes_left() > 0
                && let Err(error) = iteration.end_pass()
            {
                *progress = Progress::Failed(error);
            }
        }
    }
    Ok((loss_sum, weight))
}

fn observe(model: &mut Decoder, taps: &BTreeMap<String, Arc<SiteTap>>) {
    for (name, linear) in model.sites_mut() {
        linear.observe(taps.get(&name).map(|tap| Arc::clone(tap) as Arc<dyn Observer>));
    }
}
