//! Loss and gradients of one batch, with or without keeping every block's activations.

use lowrank_adapt::Weight;
use lowrank_tensor::ops::{self, Layout, Targets};
use lowrank_tensor::{Gradients, Tensor};

use super::{Block, Decoder};
use crate::ModelError;

/// What the backward pass finds in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Recompute {
    /// Everything that the forward pass computed.
    #[default]
    Nothing,
    /// Only the hidden state before each block from the first trained one on; a block's activations are computed again
    /// when the backward reaches it. Costs about one more forward pass of these blocks and leaves one block's activations
    /// in memory.
    Blocks,
}

/// What a pass over one batch gave.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Passed {
    /// `Σ wᵢ · −log pᵢ`.
    pub loss_sum: f64,
    /// `Σ wᵢ` over rows with a target.
    pub weight: f64,
}

impl Decoder {
    /// Runs forward and backward; `collect` is handed the gradients of the summed loss, once or once a block, and takes
    /// those of the variables that it knows.
    ///
    /// `track_all` lets gradients flow to the embedding's output even where nothing below is trained: evidence is
    /// collected from layers that have no adapter yet.
    ///
    /// # Errors
    /// [`ModelError::Token`], [`ModelError::Context`] or [`ModelError::Target`].
    pub fn gradients(
        &self,
        tokens: &[u32],
        targets: &Targets,
        layout: &Layout,
        recompute: Recompute,
        track_all: bool,
        collect: &mut dyn FnMut(&mut Gradients),
    ) -> Result<Passed, ModelError> {
        let (layout, tables) = self.prepare(layout)?;
        let embedded = self.embed(tokens, &layout.positions)?.autodiff();
        // What a trained embedding gives is tracked already.
        let embedded = if track_all && !embedded.is_tracked() { embedded.require_grad() } else { embedded };
        let loss_sum = match recompute {
            Recompute::Nothing => {
                let mut h = embedded;
                for index in 0..self.blocks.len() {
                    h = self.block(index, h, &layout, &tables);
                }
                let loss = self.loss(self.last_norm(h), targets)?;
                let loss_sum = scalar(&loss);
                if loss.is_tracked() {
                    collect(&mut loss.backward());
                }
                loss_sum
            }
            Recompute::Blocks => {
                let track = |h: Tensor<2>| h.autodiff().require_grad();
                // The blocks below this one are run once, and nothing is kept of them.
                let trained = self.blocks.iter().position(Block::is_trained);
                let first = if embedded.is_tracked() { 0 } else { trained.unwrap_or(self.blocks.len()) };
                // Forward: only the state before each block is kept.
                let (mut states, mut h) = (Vec::new(), embedded.clone().inner());
                for index in 0..self.blocks.len() {
                    if index >= first {
                        states.push(h.clone());
                    }
                    h = self.block(index, h, &layout, &tables);
                }
                // Head: gradient of the last state.
                let last = track(h);
                let loss = self.loss(self.last_norm(last.clone()), targets)?;
                let loss_sum = scalar(&loss);
                let mut gradients = loss.backward();
                let mut upstream = last.grad_remove(&mut gradients);
                collect(&mut gradients);
                // Blocks, last to first.
                while let Some(state) = states.pop() {
                    let Some(gradient) = upstream.take() else { break };
                    let input = track(state);
                    let output = self.block(first + states.len(), input.clone(), &layout, &tables);
                    let mut gradients = ops::pullback(output, gradient).backward();
                    upstream = input.grad_remove(&mut gradients);
                    collect(&mut gradients);
                }
                if let Some(gradient) = upstream
                    && matches!(self.embedding, Weight::Trained(_))
                {
                    collect(&mut ops::pullback(embedded, gradient).backward());
                }
                loss_sum
            }
        };
        let weighted = (0..targets.ids.len()).filter(|&row| targets.ids[row] >= 0);
        let weight = weighted.map(|row| targets.weights.as_ref().map_or(1.0, |w| f64::from(w[row]))).sum();
        Ok(Passed { loss_sum, weight })
    }
}

fn scalar(loss: &Tensor<1>) -> f64 {
    lowrank_tensor::to_rows(loss.clone()).first().map_or(f64::NAN, |&value| f64::from(value))
}
