//! Numbers that a step holds in memory, from shapes.

use lowrank_adapt::{Form, Offset, Weight};
use lowrank_attach::Plan;
use lowrank_models::Recompute;

use super::prepare::Prepared;
use crate::subject::Subject;

/// What a plan's adapters hold.
pub(super) struct Adapters {
    pub(super) trained: usize,
    frozen: usize,
    keeps_inputs: bool,
    kept: usize,
    formed: usize,
}

impl Adapters {
    pub(super) fn of(form: &dyn Form, plan: &Plan, offset: Offset) -> Adapters {
        let mut all = Adapters { trained: 0, frozen: 0, keeps_inputs: false, kept: 0, formed: 0 };
        for site in &plan.sites {
            let one = form.footprint(site.shape, site.rank, offset);
            all.trained += one.trained;
            all.frozen += one.frozen;
            all.keeps_inputs |= one.keeps_inputs;
            all.kept += one.kept;
            all.formed += one.formed;
        }
        all
    }

    /// Numbers in a step of so many tokens, the model's own states included: values, gradients, both moments of the optimiser and its
    /// copies; the start as it is kept for the files; what the backward pass finds, without the inputs of these widths where no
    /// layer keeps them.
    pub(super) fn floats<N: Subject>(
        &self,
        prepared: &Prepared<N>,
        widths: &[usize],
        tokens: usize,
    ) -> usize {
        let unkept = if self.keeps_inputs { 0 } else { widths.iter().sum::<usize>() };
        // Of blocks that are computed again one at a time is held.
        let blocks = match prepared.recompute {
            Recompute::Nothing => 1,
            Recompute::Blocks => prepared.model.decoder.sides().layers.max(1),
        };
        let states = floats(prepared, tokens).saturating_sub(tokens * unkept / blocks);
        states + 6 * self.trained + 2 * self.frozen + (tokens * self.kept + self.formed) / blocks
    }
}

/// Numbers that the backward of a block finds, for each token: the states before the norms and linears.
fn block<N: Subject>(prepared: &Prepared<N>) -> usize {
    let config = prepared.model.decoder.sides();
    let kv = config.kv_heads * config.head_dim;
    5 * config.hidden + 4 * config.heads * config.head_dim + 4 * kv + 3 * config.intermediate
}

/// Numbers that a step of `tokens` keeps besides the model and its adapters.
pub(super) fn floats<N: Subject>(prepared: &Prepared<N>, tokens: usize) -> usize {
    let config = prepared.model.decoder.sides();
    let kept = match prepared.recompute {
        Recompute::Nothing => config.layers * block(prepared),
        Recompute::Blocks => config.layers * config.hidden + block(prepared),
    };
    let chunk = (6 << 20).min(tokens * config.vocabulary);
    tokens * kept + chunk + 4 * tokens * config.intermediate + widest(prepared)
}

/// Numbers that a forward pass of `tokens` has at a time.
pub(super) fn passing<N: Subject>(prepared: &Prepared<N>, tokens: usize) -> usize {
    tokens * block(prepared) + widest(prepared)
}

/// A stored weight is widened into a buffer while it is used.
fn widest<N: Subject>(prepared: &Prepared<N>) -> usize {
    let sites = prepared.model.decoder.sites();
    let widened = sites.iter().map(|(_, site)| match site.weight() {
        Weight::Frozen(matrix) if matrix.bytes() < 4 * matrix.shape().iter().product::<usize>() => {
            matrix.shape().iter().product::<usize>()
        }
        _ => 0,
    });
    widened.max().unwrap_or(0)
}

/// Code, tokenizer and data of a small run, in bytes.
pub(super) const PROCESS: usize = 20_000_000;
