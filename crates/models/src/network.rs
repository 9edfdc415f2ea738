//! What adapters and evidence need of any network: its linear layers by name, and the gradients of its loss.

use std::sync::Arc;

use lowrank_adapt::Linear;
use lowrank_tensor::ops::{Layout, Targets};
use lowrank_tensor::{Device, Gradients, Tensor};

use crate::{Decoder, ModelError, Passed, Recompute};

/// A network whose linear layers hold slots.
pub trait Network {
    /// What it is fed, and what it should answer.
    type Batch;

    /// Every linear layer with its checkpoint name, in a fixed order.
    fn sites(&self) -> Vec<(String, &Linear)>;

    /// The same list, to mount adapters on.
    fn sites_mut(&mut self) -> Vec<(String, &mut Linear)>;

    /// Where the network computes.
    fn device(&self) -> &Device;

    /// Bytes that the weights of the embeddings and the linear layers take as they are held.
    fn bytes(&self) -> usize;

    /// Runs forward and backward; `collect` is handed the gradients of the summed loss, once or in parts, and takes those of
    /// the variables that it knows.
    ///
    /// `track_all` lets gradients flow to the first hidden state even where nothing below is trained: evidence is collected
    /// from layers that have no adapter yet.
    ///
    /// # Errors
    /// [`ModelError`] for a batch that does not fit the network, and [`ModelError::Recompute`] where it cannot drop
    /// activations.
    fn gradients(
        &self,
        batch: &Self::Batch,
        recompute: Recompute,
        track_all: bool,
        collect: &mut dyn FnMut(&mut Gradients),
    ) -> Result<Passed, ModelError>;

    /// The weight of what carries loss in a batch: what [`Network::gradients`] will say of it, known beforehand.
    fn weight(&self, batch: &Self::Batch) -> f64;

    /// Runs forward as far as a layer shows its inputs ([`Linear::observe_inputs`]), and no further. Nothing is recorded.
    ///
    /// # Errors
    /// [`ModelError`] for a batch that does not fit the network.
    fn show_inputs(&self, batch: &Self::Batch) -> Result<(), ModelError>;

    /// Of which stream of rows a site is fed: 0 for the tokens or patches, which most networks have alone. Each stream has its
    /// own padding.
    fn stream(&self, site: &str) -> usize {
        let _ = site;
        0
    }
}

/// Text for a decoder.
#[derive(Debug, Clone)]
pub struct Text {
    /// Token ids, row-major `[batch, time]`.
    pub tokens: Vec<u32>,
    /// What each token should predict.
    pub targets: Targets,
    /// Rows, positions and document starts.
    pub layout: Layout,
}

impl Network for Decoder {
    type Batch = Text;

    fn sites(&self) -> Vec<(String, &Linear)> {
        Decoder::sites(self)
    }

    fn sites_mut(&mut self) -> Vec<(String, &mut Linear)> {
        Decoder::sites_mut(self)
    }

    fn device(&self) -> &Device {
        Decoder::device(self)
    }

    fn bytes(&self) -> usize {
        Decoder::bytes(self)
    }

    fn gradients(
        &self,
        batch: &Text,
        recompute: Recompute,
        track_all: bool,
        collect: &mut dyn FnMut(&mut Gradients),
    ) -> Result<Passed, ModelError> {
        Decoder::gradients(self, &batch.tokens, &batch.targets, &batch.layout, recompute, track_all, collect)
    }

    fn weight(&self, batch: &Text) -> f64 {
        weight_of(&batch.targets)
    }

    fn show_inputs(&self, batch: &Text) -> Result<(), ModelError> {
        Decoder::show_inputs(self, &batch.tokens, &batch.layout)
    }
}

/// A first hidden state, ready to be differentiated through.
pub(crate) fn begin(
    h: Tensor<2>,
    recompute: Recompute,
    track_all: bool,
    network: &'static str,
) -> Result<Tensor<2>, ModelError> {
    if recompute == Recompute::Blocks {
        return Err(ModelError::Recompute(network));
    }
    let h = h.autodiff();
    Ok(if track_all { h.require_grad() } else { h })
}

/// Runs a summed loss backward, if anything below it is tracked.
pub(crate) fn end(loss: &Tensor<1>, weight: f64, collect: &mut dyn FnMut(&mut Gradients)) -> Passed {
    let value = lowrank_tensor::to_rows(loss.clone()).first().copied().map_or(f64::NAN, f64::from);
    if loss.is_tracked() {
        collect(&mut loss.backward());
    }
    Passed { loss_sum: value, weight }
}

/// The summed weight of the rows that carry loss.
pub(crate) fn weight_of(targets: &Targets) -> f64 {
    let weighted = (0..targets.ids.len()).filter(|&row| targets.ids[row] >= 0);
    // A weight that is not there is refused by the network.
    let given = |weights: &Arc<[f32]>, row: usize| weights.get(row).copied().map_or(0.0, f64::from);
    let weight = |row: usize| targets.weights.as_ref().map_or(1.0, |weights| given(weights, row));
    weighted.map(weight).sum()
}

/// Refuses a part of a batch that does not have as many values as its sides say.
pub(crate) fn fits(what: &'static str, found: usize, expected: usize) -> Result<(), ModelError> {
    if found == expected { Ok(()) } else { Err(ModelError::Batch { what, found, expected }) }
}

/// Refuses classes that the head does not have, and weights that are not one for each row.
pub(crate) fn classes_fit(targets: &Targets, rows: usize, labels: usize) -> Result<(), ModelError> {
    fits("labels", targets.ids.len(), rows)?;
    fits("weights of labels", targets.weights.as_ref().map_or(rows, |weights| weights.len()), rows)?;
    match targets.ids.iter().position(|&id| usize::try_from(id).is_ok_and(|id| id >= labels)) {
        Some(index) => Err(ModelError::Label { label: targets.ids[index], index, labels }),
        None => Ok(()),
    }
}

/// Refuses token ids outside a vocabulary.
pub(crate) fn tokens_fit(tokens: &[u32], vocabulary: usize) -> Result<(), ModelError> {
    match tokens.iter().position(|&token| token as usize >= vocabulary) {
        Some(index) => Err(ModelError::Token { token: tokens[index], index, vocabulary }),
        None => Ok(()),
    }
}

/// Refuses marks of which no sequence is left anything to look at.
pub(crate) fn marks_fit(visible: Option<&[bool]>, batch: usize, time: usize) -> Result<(), ModelError> {
    let Some(visible) = visible else { return Ok(()) };
    fits("padding marks", visible.len(), batch.saturating_mul(time))?;
    match visible.chunks_exact(time.max(1)).position(|row| !row.contains(&true)) {
        Some(row) => Err(ModelError::Padding { row }),
        None => Ok(()),
    }
}
