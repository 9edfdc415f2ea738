//! BERT and RoBERTa: bidirectional attention, post-norm blocks, and a head.
//!
//! `h = norm(word + position + segment)`; layer by layer `h ← norm(h + output(attention(h)))`, then
//! `h ← norm(h + outer(gelu(inner h)))`. Hidden states are `[n, hidden]` with `n = batch · time`.
//!
//! Sources: Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers", 2019; Liu et al., "RoBERTa: A Robustly
//! Optimized BERT Pretraining Approach", 2019; Wang et al., "MiniLM", 2020. Dropout is off, in training too.

pub mod config;
mod head;
mod input;
mod load;

use lowrank_adapt::Linear;
use lowrank_tensor::ops::{self, FullAttention};
use lowrank_tensor::{Device, Gradients, Matrix, Tensor};

pub use config::{Config, Family};
use head::Head;
pub use head::Purpose;
pub use input::{Batch, Input, Labels};

use crate::network::{self, Network};
use crate::norm::LayerNorm;
use crate::{ModelError, Passed, Recompute};

/// An encoder whose linear layers hold slots.
pub struct Encoder {
    /// Shape and constants.
    pub config: Config,
    device: Device,
    /// `bert.`, `roberta.`, or nothing where the file has no head.
    prefix: String,
    /// `[vocabulary, hidden]`.
    words: Matrix,
    /// `[positions, hidden]`.
    positions: Matrix,
    /// `[segments, hidden]`.
    segments: Matrix,
    norm: LayerNorm,
    /// The blocks, first to last.
    pub blocks: Vec<Block>,
    head: Head,
}

/// One layer of the encoder.
pub struct Block {
    /// `[hidden, hidden]`.
    pub query: Linear,
    /// `[hidden, hidden]`.
    pub key: Linear,
    /// `[hidden, hidden]`.
    pub value: Linear,
    /// `[hidden, hidden]`.
    pub output: Linear,
    attention_norm: LayerNorm,
    /// `[intermediate, hidden]`.
    pub inner: Linear,
    /// `[hidden, intermediate]`.
    pub outer: Linear,
    norm: LayerNorm,
}

/// The linear layers of a block by their checkpoint names, in the order in which they run.
pub const LINEAR_NAMES: [&str; 6] = [
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
];

impl Block {
    /// The linear layers in the order of [`LINEAR_NAMES`].
    #[must_use]
    pub fn linears(&self) -> [&Linear; 6] {
        [&self.query, &self.key, &self.value, &self.output, &self.inner, &self.outer]
    }

    /// The linear layers in the order of [`LINEAR_NAMES`], to mount adapters on.
    pub fn linears_mut(&mut self) -> [&mut Linear; 6] {
        [&mut self.query, &mut self.key, &mut self.value, &mut self.output, &mut self.inner, &mut self.outer]
    }
}

impl Encoder {
    /// The last hidden states `[n, hidden]`; inference, nothing is recorded.
    ///
    /// # Errors
    /// [`ModelError`] for an input that does not fit the model.
    pub fn hidden(&self, input: &Input) -> Result<Tensor<2>, ModelError> {
        Ok(self.run(self.embed(input)?.inner(), input))
    }

    /// What the head answers: logits of the classes or the number `[batch, labels]`, embeddings `[batch, hidden]`, or logits
    /// of all tokens `[n, vocabulary]`. Inference, nothing is recorded. Embeddings are not normalised.
    ///
    /// # Errors
    /// [`ModelError`] for an input that does not fit the model.
    pub fn outputs(&self, input: &Input) -> Result<Tensor<2>, ModelError> {
        Ok(self.answer(self.hidden(input)?, input))
    }

    /// The summed loss of a batch and the weight of the rows that carry it; inference, nothing is recorded.
    ///
    /// # Errors
    /// [`ModelError`] for a batch that does not fit the model.
    pub fn evaluate(&self, batch: &Batch) -> Result<Passed, ModelError> {
        let (loss, weight) = self.loss(self.hidden(&batch.input)?, batch)?;
        Ok(network::end(&loss, weight, &mut |_| {}))
    }

    /// Token ids to the first hidden state `[n, hidden]`.
    fn embed(&self, input: &Input) -> Result<Tensor<2>, ModelError> {
        input.check(&self.config)?;
        let rows = |ids: &[u32], table: &Matrix| ops::embedding(ids, table, &self.device);
        let zeros;
        let segments = match &input.segments {
            Some(segments) => segments,
            None => {
                zeros = vec![0; input.tokens.len()];
                &zeros
            }
        };
        let words = rows(&input.tokens, &self.words);
        let positions = rows(&input.positions(&self.config), &self.positions);
        Ok(self.norm.apply(words + positions + rows(segments, &self.segments)))
    }

    /// All blocks: `[n, hidden] -> [n, hidden]`.
    fn run(&self, h: Tensor<2>, input: &Input) -> Tensor<2> {
        let attention = self.attention(input);
        self.blocks.iter().fold(h, |h, block| self.block(block, h, &attention))
    }

    /// Every token of a sequence sees every other that is no padding.
    fn attention(&self, input: &Input) -> FullAttention {
        let heads = self.config.heads;
        FullAttention {
            visible: input.visible.as_ref().map(|visible| visible.clone().into()),
            ..FullAttention::dense(input.batch, input.time, heads, self.config.hidden / heads)
        }
    }

    fn block(&self, block: &Block, h: Tensor<2>, attention: &FullAttention) -> Tensor<2> {
        let (q, k) = (block.query.forward(h.clone()), block.key.forward(h.clone()));
        let v = block.value.forward(h.clone());
        let attended = block.output.forward(ops::attention_full(q, k, v, attention));
        let h = block.attention_norm.apply(h + attended);
        let inner = self.config.activation.apply(block.inner.forward(h.clone()));
        block.norm.apply(h + block.outer.forward(inner))
    }
}

impl Network for Encoder {
    type Batch = Batch;

    fn sites(&self) -> Vec<(String, &Linear)> {
        let mut sites: Vec<(String, &Linear)> = Vec::new();
        for (layer, block) in self.blocks.iter().enumerate() {
            let named = LINEAR_NAMES.iter().zip(block.linears());
            let at = |name: &str| format!("{}encoder.layer.{layer}.{name}", self.prefix);
            sites.extend(named.map(|(name, linear)| (at(name), linear)));
        }
        sites.extend(self.head.linears().into_iter().map(|(name, linear)| (name.clone(), linear)));
        sites
    }

    fn sites_mut(&mut self) -> Vec<(String, &mut Linear)> {
        let mut sites: Vec<(String, &mut Linear)> = Vec::new();
        for (layer, block) in self.blocks.iter_mut().enumerate() {
            let named = LINEAR_NAMES.iter().zip(block.linears_mut());
            let at = |name: &str| format!("{}encoder.layer.{layer}.{name}", self.prefix);
            sites.extend(named.map(|(name, linear)| (at(name), linear)));
        }
        sites.extend(self.head.linears_mut().into_iter().map(|(name, linear)| (name.clone(), linear)));
        sites
    }

    fn device(&self) -> &Device {
        &self.device
    }

    fn bytes(&self) -> usize {
        let tables = [&self.words, &self.positions, &self.segments].map(Matrix::bytes);
        let layers = self.sites().iter().map(|(_, site)| site.weight().bytes()).sum::<usize>();
        tables.iter().sum::<usize>() + layers
    }

    fn gradients(
        &self,
        batch: &Batch,
        recompute: Recompute,
        track_all: bool,
        collect: &mut dyn FnMut(&mut Gradients),
    ) -> Result<Passed, ModelError> {
        let h = network::begin(self.embed(&batch.input)?, recompute, track_all, "an encoder")?;
        let (loss, weight) = self.loss(self.run(h, &batch.input), batch)?;
        Ok(network::end(&loss, weight, collect))
    }

    fn weight(&self, batch: &Batch) -> f64 {
        batch.labels.weight(batch.input.batch)
    }

    fn show_inputs(&self, batch: &Batch) -> Result<(), ModelError> {
        let input = &batch.input;
        let h = self.embed(input)?.inner();
        if self.head.linears().iter().any(|(_, linear)| linear.shows_inputs()) {
            self.loss(self.run(h, input), batch)?;
            return Ok(());
        }
        let shows = |block: &Block| block.linears().iter().any(|linear| linear.shows_inputs());
        let blocks = self.blocks.iter().rposition(shows).map_or(0, |index| index + 1);
        let attention = self.attention(input);
        self.blocks[..blocks].iter().fold(h, |h, block| self.block(block, h, &attention));
        Ok(())
    }

    /// The blocks are fed a row for each token, a classifier one for each sequence and a masked-language head one for each token
    /// that carries loss.
    fn stream(&self, site: &str) -> usize {
        usize::from(self.head.linears().iter().any(|(name, _)| name == site))
    }
}
