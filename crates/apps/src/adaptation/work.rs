//! Floating-point operations of steps, evaluations and evidence, from shapes.

use lowrank_adapt::{Footprint, Form, Offset};
use lowrank_attach::{Plan, Site, WHOLE};
use lowrank_init::Leading;
use lowrank_models::Recompute;

use super::prepare::Prepared;
use crate::subject::{Laying as _, Subject};

/// Floating-point operations of passes over a model's layers, for rows of `time` tokens.
pub(super) struct Work {
    /// Values in the linear layers.
    linear: f64,
    /// Values in the head.
    head: f64,
    /// Causal attention, for each token and pass over the scores' products.
    attention: f64,
    /// Products with each frozen weight in a step: one more where blocks are computed again.
    products: f64,
}

/// What the adapters of a plan add to a pass.
#[derive(Clone, Copy, Default)]
pub(super) struct Added {
    /// Multiplications for each token of a forward pass.
    per_token: f64,
    /// And whatever the tokens.
    once: f64,
}

impl Added {
    /// Of this form on these layers.
    pub(super) fn of(form: &dyn Form, plan: &Plan, offset: Offset) -> Added {
        let mut added = Added::default();
        for site in &plan.sites {
            let Footprint { products, once, .. } = form.footprint(site.shape, site.rank, offset);
            added.per_token += products as f64;
            added.once += once as f64;
        }
        added
    }
}

impl Work {
    pub(super) fn of<N: Subject>(prepared: &Prepared<N>) -> Work {
        let config = prepared.model.decoder.sides();
        let values = |shape: [usize; 2]| shape.iter().product::<usize>() as f64;
        Work {
            linear: prepared.model.decoder.sites().iter().map(|(_, site)| values(site.shape())).sum(),
            head: (config.vocabulary * config.hidden) as f64,
            // Half of the scores are seen.
            attention: (prepared.laying.batching().time * config.heads * config.head_dim * config.layers)
                as f64,
            products: if prepared.recompute == Recompute::Blocks { 3.0 } else { 2.0 },
        }
    }

    /// Forward and backward. Frozen weights have no gradient of their own; attention computes its scores again.
    pub(super) fn step(&self, tokens: f64, added: Added) -> f64 {
        let frozen = 2.0 * (self.products * self.linear + 2.0 * self.head);
        tokens * (frozen + 6.0 * added.per_token + 7.0 * self.attention) + 6.0 * added.once
    }

    /// Forward alone.
    pub(super) fn evaluation(&self, tokens: f64, added: Added) -> f64 {
        let all = self.linear + self.head + added.per_token;
        tokens * (2.0 * all + 2.0 * self.attention) + 2.0 * added.once
    }

    /// The gradients of a plan's layers in so many batches of so many tokens, as [`lowrank_attach::collect`] goes about it.
    pub(super) fn gradients(
        &self,
        plan: &Plan,
        leading: &dyn Fn(usize) -> Leading,
        batches: usize,
        tokens: f64,
    ) -> f64 {
        let pass = self.step(tokens, Added::default());
        if batches == 1 {
            return pass
                + plan.sites.iter().map(|site| of_one_batch(site, &leading(site.rank), tokens)).sum::<f64>();
        }
        let whole = plan.sites.iter().any(|site| !leading(site.rank).of.is_linear());
        let passes = if whole {
            // A few layers' sums are held at a time, and each round runs all batches.
            let values: usize = plan.sites.iter().map(|site| site.shape[0] * site.shape[1]).sum();
            values.div_ceil(WHOLE)
        } else {
            plan.sites.iter().map(|site| leading(site.rank).sketch.passes()).max().unwrap_or(0)
        };
        let layer = |site: &Site| {
            let [out, inp] = site.shape.map(|side| side as f64);
            let found = leading(site.rank);
            if whole {
                return batches as f64 * 2.0 * tokens * out * inp + decomposed(site, &found);
            }
            let columns = found.sketch.width(found.count, site.shape[0].min(site.shape[1])) as f64;
            2.0 * columns * (out + inp) * tokens * (batches * found.sketch.passes()) as f64
        };
        (passes * batches) as f64 * pass + plan.sites.iter().map(layer).sum::<f64>()
    }

    /// Statistics of inputs of these widths, one for each distinct input, in so many batches: a forward pass each, and the
    /// products of all tokens with one another's entries, in f64.
    pub(super) fn inputs(
        &self,
        widths: &[usize],
        exact_up_to: usize,
        count: usize,
        batches: usize,
        tokens: f64,
    ) -> f64 {
        let width = |&width: &usize| {
            let columns = if width <= exact_up_to { width / 2 } else { 12 * count.min(width) };
            4.0 * tokens * (width * columns) as f64
        };
        batches as f64 * (self.evaluation(tokens, Added::default()) + widths.iter().map(width).sum::<f64>())
    }
}

/// One layer's decomposition in its own backward pass: formed or multiplied with, as is cheaper.
fn of_one_batch(site: &Site, leading: &Leading, tokens: f64) -> f64 {
    let [out, inp] = site.shape.map(|side| side as f64);
    let shorter = site.shape[0].min(site.shape[1]);
    let formed = 2.0 * tokens * out * inp + decomposed(site, leading);
    if !leading.of.is_linear() || leading.is_exact(shorter) {
        return formed;
    }
    let columns = leading.sketch.width(leading.count, shorter) as f64;
    formed.min(2.0 * leading.sketch.passes() as f64 * tokens * columns * (out + inp))
}

/// A matrix that is at hand: all of it in f64, or its leading part by thin products.
fn decomposed(site: &Site, leading: &Leading) -> f64 {
    let [out, inp] = site.shape.map(|side| side as f64);
    let shorter = site.shape[0].min(site.shape[1]);
    if leading.is_exact(shorter) {
        // Some twenty times the product in operations, in f64 and on one core.
        return 80.0 * out * inp * shorter as f64;
    }
    let columns = leading.sketch.width(leading.count, shorter) as f64;
    2.0 * leading.sketch.passes() as f64 * columns * out * inp
}
