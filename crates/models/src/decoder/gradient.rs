//! Loss and gradients of one batch, with or without keeping every block's activations.

use lowrank_tensor::ops::{Layout, Targets};
use lowrank_tensor::{Gradients, Tensor};

use super::Decoder;
use crate::ModelError;

/// What the backward pass finds in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Recompute {
    /// Everything that the forward pass computed.
    #[default]
    Nothing,
    /// Only the hidden state before each block; a block's activations are computed again when the backward reaches it.
    /// Costs about one more forward pass and leaves one block's activations in memory.
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
        let track = |h: Tensor<2>| h.autodiff().require_grad();
        let embedded = self.embed(tokens)?.autodiff();
        let loss_sum = match recompute {
            Recompute::Nothing => {
                let mut h = if track_all { track(embedded) } else { embedded };
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
                // Forward: only the state before each block is kept.
                let mut states = vec![embedded.clone().inner()];
                for index in 0..self.blocks.len() {
                    let h = self.block(index, states[index].clone(), &layout, &tables);
                    states.push(h.inner());
                }
                // Head: gradient of the last state.
                let last = track(states.pop().unwrap_or_else(|| embedded.clone().inner()));
                let loss = self.loss(self.last_norm(last.clone()), targets)?;
                let loss_sum = scalar(&loss);
                let mut gradients = loss.backward();
                let mut upstream = last.grad_remove(&mut gradients);
                collect(&mut gradients);
                // Blocks, last to first: the gradient of ⟨h_out, upstream⟩ is the block's backward.
                for index in (0..self.blocks.len()).rev() {
                    let (Some(gradient), Some(state)) = (upstream.take(), states.pop()) else { break };
                    let input = track(state);
                    let output = self.block(index, input.clone(), &layout, &tables);
                    let mut gradients = (output * gradient.autodiff()).sum().backward();
                    upstream = input.grad_remove(&mut gradients);
                    collect(&mut gradients);
                }
                if let Some(gradient) = upstream
                    && embedded.is_tracked()
                {
                    collect(&mut (embedded * gradient.autodiff()).sum().backward());
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
