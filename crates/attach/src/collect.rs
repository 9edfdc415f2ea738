//! Evidence from the model itself: the leading factors of each target's loss gradient `G = δᵀX`.
//!
//! A tap on each target sees the layer's inputs X and output gradients δ in the backward pass. With one calibration batch
//! the whole subspace iteration on `δᵀ(XΩ)` and `Xᵀ(δQ)` runs right there, and X and δ are dropped: one forward and one
//! backward pass in all, and memory close to a training step's. With several batches the same iteration runs pass by
//! pass over the same batches. No set of weight gradients exists at any time: at most one layer's, for a moment, where
//! forming it costs less than multiplying with its factors.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use faer::{Mat, MatRef, unzip, zip};
use lowrank_init::{Exactness, GradientMap, Leading};
use lowrank_linalg::{LinalgError, OuterProducts, Sketched, SubspaceIteration, narrow};
use lowrank_models::network::Text;
use lowrank_models::{Network, Recompute};
use lowrank_record::Seed;
use lowrank_tensor::ops::Observer;

use crate::{AttachError, Plan, Site};

/// One batch of what evidence is collected on.
#[derive(Debug, Clone)]
pub struct Calibration<B = Text> {
    /// What the network is fed, and what it should answer.
    pub batch: B,
    /// Whether each row of each stream ([`Network::stream`]) enters the statistics of inputs: padding does not. A stream that is
    /// not named here is let in whole.
    pub shown: Vec<Vec<bool>>,
}

/// The leading factors of each site's gradient of the mean token loss, or of a map of it, by site name.
#[derive(Debug, Clone)]
pub struct Gradients {
    /// Factors, captured share of the energy, whether the energy is exact.
    pub sites: BTreeMap<String, Sketched>,
    /// Of which map of the gradient they are the factors.
    pub of: GradientMap,
    /// Mean loss of the calibration batches: nats per token of text.
    pub loss: f64,
    /// Weight of what carries loss: tokens of text. (The rank of a gradient is at most the number of tokens shown, not this: keys and values have
    /// gradients at tokens without loss too.)
    pub weight: f64,
}

/// Where one site's iteration stands.
enum Progress {
    /// The whole decomposition runs on the one batch.
    Once { leading: Leading, seed: Seed },
    /// One of several passes over several batches.
    Pass(Box<SubspaceIteration>),
    /// All of the gradient is added up over several batches.
    Whole { leading: Leading, seed: Seed, sum: Mat<f64> },
    /// Finished on the one batch.
    Done(Box<Sketched>),
    /// Finished, and then shown more of the same gradient.
    Twice,
    /// What went wrong.
    Failed(LinalgError),
}

struct SiteTap {
    shape: [usize; 2],
    progress: Mutex<Progress>,
    /// Whether a backward pass came here at all: nothing seen is not a gradient of zero.
    reached: AtomicBool,
}

impl SiteTap {
    /// For the gradient of this site, which comes in so many batches.
    fn new(site: &Site, leading: Leading, batches: usize, seed: Seed) -> Result<SiteTap, AttachError> {
        admits_passes(&leading, batches)?;
        let [out, inp] = site.shape;
        let progress = if batches == 1 {
            Progress::Once { leading, seed }
        } else if !leading.of.is_linear() {
            Progress::Whole { leading, seed, sum: Mat::zeros(out, inp) }
        } else {
            let iteration = leading.in_passes(out, inp, seed);
            Progress::Pass(Box::new(iteration.map_err(AttachError::evidence(&site.name))?))
        };
        Ok(SiteTap { shape: site.shape, progress: Mutex::new(progress), reached: AtomicBool::new(false) })
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every batch of a pass has been seen.
    fn end_pass(&self) {
        let mut progress = self.progress();
        if let Progress::Pass(iteration) = &mut *progress
            && iteration.passes_left() > 0
            && let Err(error) = iteration.end_pass()
        {
            *progress = Progress::Failed(error);
        }
    }

    /// The leading `count` triplets, when everything has been seen.
    fn finish(&self, name: &str, count: usize) -> Result<Sketched, AttachError> {
        let site = || name.to_owned();
        if !self.reached.load(Ordering::Relaxed) {
            return Err(AttachError::NotReached { site: site() });
        }
        match &*self.progress() {
            Progress::Done(sketched) => Ok(Sketched::clone(sketched)),
            Progress::Pass(iteration) => {
                let [out, inp] = self.shape;
                let iteration = SubspaceIteration::clone(iteration);
                iteration.finish(count.min(out).min(inp), None).map_err(AttachError::evidence(name))
            }
            Progress::Whole { leading, seed, sum } => {
                leading.of(narrow(sum.as_ref()).as_ref(), *seed).map_err(AttachError::evidence(name))
            }
            Progress::Failed(source) => Err(AttachError::evidence(name)(source.clone())),
            Progress::Twice => Err(AttachError::SeenTwice { site: site() }),
            Progress::Once { .. } => Err(AttachError::NotReached { site: site() }),
        }
    }
}

impl Observer for SiteTap {
    fn observe(&self, inputs: &[f32], output_gradients: &[f32], n: usize) {
        let [out, inp] = self.shape;
        let x = MatRef::from_row_major_slice(inputs, n, inp);
        let delta = MatRef::from_row_major_slice(output_gradients, n, out);
        self.reached.store(true, Ordering::Relaxed);
        let mut progress = self.progress();
        let outcome = match &mut *progress {
            Progress::Once { leading, seed } => {
                let mut gradient = OuterProducts::new(out, inp);
                gradient
                    .push(delta, x)
                    .and_then(|()| leading.of_outer(&gradient, *seed))
                    .map(|sketched| Some(Progress::Done(Box::new(sketched))))
            }
            // A layer that needs fewer passes than another is done before it.
            Progress::Pass(iteration) if iteration.passes_left() == 0 => Ok(None),
            Progress::Pass(iteration) => iteration.absorb_outer(delta, x).map(|()| None),
            Progress::Whole { sum, .. } => {
                let mut gradient = OuterProducts::new(out, inp);
                gradient.push(delta, x).map(|()| {
                    let part = gradient.form();
                    zip!(sum, &part).for_each(|unzip!(sum, part)| *sum += f64::from(*part));
                    None
                })
            }
            // X and δ of the first part are gone: what was found is the factors of a part of the gradient.
            Progress::Done(_) => Ok(Some(Progress::Twice)),
            Progress::Twice | Progress::Failed(_) => Ok(None),
        };
        match outcome {
            Ok(Some(next)) => *progress = next,
            Ok(None) => {}
            Err(error) => *progress = Progress::Failed(error),
        }
    }
}

/// Refuses an exact decomposition of gradients that come in several batches and are never whole; known before any text is
/// read or any model runs. `svd = auto` is admitted, and is then fast at every layer.
///
/// # Errors
/// [`AttachError::ExactInPasses`].
pub fn admits_passes(leading: &Leading, batches: usize) -> Result<(), AttachError> {
    // A map of the gradient is decomposed whole, however many batches there are.
    if batches > 1 && leading.exactness == Exactness::Exact && leading.of.is_linear() {
        return Err(AttachError::ExactInPasses { batches });
    }
    Ok(())
}

/// Runs the model over the calibration batches and returns the leading triplets of each site's gradient, as many and found
/// as the method asks ([`lowrank_init::Initialiser::leading`]): `leading(rank)` for a layer's rank.
///
/// Dropout is off and the loss is the training loss: labels masked, mean over tokens. Where several batches are given,
/// tokens weigh the same in all of them; the authors of LoRA-GA and PEFT average the means of batches.
///
/// # Errors
/// [`AttachError`] naming the site, or what the model says.
pub fn collect<N: Network>(
    model: &mut N,
    plan: &Plan,
    batches: &[Calibration<N::Batch>],
    recompute: Recompute,
    leading: &dyn Fn(usize) -> Leading,
    seed: Seed,
) -> Result<Gradients, AttachError> {
    if batches.is_empty() {
        return Err(AttachError::NoCalibration);
    }
    // Known beforehand: what Adam adds to a gradient's size is meant for the mean loss, and δ comes from the summed one.
    let weight: f64 = batches.iter().map(|batch| model.weight(&batch.batch)).sum();
    if weight <= 0.0 {
        return Err(AttachError::NoLoss);
    }
    let of_sum = |rank: usize| {
        let leading = leading(rank);
        Leading { of: leading.of.of_sum(weight), ..leading }
    };
    let mut sites = BTreeMap::new();
    let mut loss_sum = 0.0;
    for round in rounds(plan, batches.len(), leading) {
        let mut taps: BTreeMap<String, Arc<SiteTap>> = BTreeMap::new();
        for site in round {
            let seed = seed.at("gradient", &site.name);
            let tap = SiteTap::new(site, of_sum(site.rank), batches.len(), seed)?;
            taps.insert(site.name.clone(), Arc::new(tap));
        }
        let passes = |site: &Site| match leading(site.rank) {
            Leading { of, .. } if !of.is_linear() => 1,
            Leading { sketch, .. } => sketch.passes(),
        };
        let passes = if batches.len() == 1 { 1 } else { round.iter().map(passes).max().unwrap_or(0) };
        observe(model, &|name| taps.get(name).map(|tap| Arc::clone(tap) as Arc<dyn Observer>));
        let outcome = run(model, &taps, batches, recompute, passes);
        observe(model, &|_| None);
        loss_sum = outcome?;
        for site in round {
            let Some(tap) = taps.remove(&site.name) else { continue };
            let wanted = leading(site.rank);
            let mut sketched = tap.finish(&site.name, wanted.count)?;
            if wanted.of == GradientMap::Itself {
                // δ came from the summed loss.
                sketched.svd.values.iter_mut().for_each(|value| *value /= weight);
                sketched.energy /= weight * weight;
            }
            sites.insert(site.name.clone(), sketched);
        }
    }
    let of = plan.sites.first().map_or(GradientMap::Itself, |site| leading(site.rank).of);
    Ok(Gradients { sites, of, loss: loss_sum / weight, weight })
}

/// Values of whole gradients that [`collect`] holds at a time, over several batches: 128 MB.
pub const WHOLE: usize = 16 << 20;

/// The sites whose gradients are collected together: all of them, unless several batches are added up into whole gradients;
/// then as many as fit.
fn rounds<'a>(plan: &'a Plan, batches: usize, leading: &dyn Fn(usize) -> Leading) -> Vec<&'a [Site]> {
    let size = |site: &Site| {
        let whole = batches > 1 && !leading(site.rank).of.is_linear();
        if whole { site.shape[0] * site.shape[1] } else { 0 }
    };
    let mut held = plan.sites.first().map_or(0, size);
    let together = |_: &Site, next: &Site| {
        let sum = held + size(next);
        held = if sum <= WHOLE { sum } else { size(next) };
        sum <= WHOLE
    };
    plan.sites.chunk_by(together).collect()
}

/// Runs all passes; a tapped layer finishes by itself when there is one batch.
fn run<N: Network>(
    model: &N,
    taps: &BTreeMap<String, Arc<SiteTap>>,
    batches: &[Calibration<N::Batch>],
    recompute: Recompute,
    passes: usize,
) -> Result<f64, AttachError> {
    let mut loss_sum = 0.0;
    for pass in 0..passes {
        for batch in batches {
            let passed = model.gradients(&batch.batch, recompute, true, &mut |_| {})?;
            if pass == 0 {
                loss_sum += passed.loss_sum;
            }
        }
        taps.values().for_each(|tap| tap.end_pass());
    }
    Ok(loss_sum)
}

/// Gives each layer its observer, or none.
pub(crate) fn observe<N: Network>(model: &mut N, observer: &dyn Fn(&str) -> Option<Arc<dyn Observer>>) {
    for (name, linear) in model.sites_mut() {
        linear.observe(observer(&name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lowrank_linalg::Sketch;

    /// Shows a tap the same batch in two halves.
    fn seen_in_halves(batches: usize) -> Result<Sketched, AttachError> {
        let site = Site { name: "layer".to_owned(), shape: [5, 4], rank: 1, alpha: 1.0, scale: 1.0 };
        let (sketch, of) = (Sketch::for_rank(2), GradientMap::Itself);
        let leading = Leading { count: 2, exactness: Exactness::Fast, sketch, of };
        let tap = SiteTap::new(&site, leading, batches, Seed(1))?;
        let (x, delta) = (Seed(2).normal(6 * 4), Seed(3).normal(6 * 5));
        for _ in 0..leading.sketch.passes() {
            tap.observe(&x[..12], &delta[..15], 3);
            tap.observe(&x[12..], &delta[15..], 3);
            tap.end_pass();
        }
        tap.finish(&site.name, leading.count)
    }

    #[test]
    fn a_layer_that_is_used_twice_is_refused_or_added_up() {
        let refused = seen_in_halves(1).unwrap_err();
        assert!(matches!(&refused, AttachError::SeenTwice { site } if site == "layer"), "{refused}");
        // Passes add up whatever they are shown.
        assert_eq!(seen_in_halves(2).unwrap().svd.rank(), 2);
    }
}
