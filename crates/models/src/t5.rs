//! T5: an encoder and a decoder with relative positions, and text for text.
//!
//! Both stacks: `h ← h + o(attention(q, k, v of norm h))`, the decoder's over its past and then over the encoder's output, and
//! `h ← h + wo(activation(wi(norm h)))`; scores are not scaled, and each stack has a bias for each head and bucket of relative
//! positions. Norms are RMSNorm, no layer has a bias. Hidden states are `[n, hidden]` with `n = batch · time`.
//!
//! Source: Raffel et al., "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer", 2020. Dropout is
//! off, in training too.

pub mod config;
mod load;
mod relative;
mod stack;

use lowrank_adapt::{Linear, Weight};
use lowrank_tensor::ops::{self, Targets};
use lowrank_tensor::{Device, Gradients, Matrix, Tensor, to_rows};

pub use config::Config;
use stack::{Attention, Block, FeedForward, Memory, Side, Stack};

use crate::network::{self, Network};
use crate::{ModelError, Passed, Recompute};

/// An encoder–decoder whose linear layers hold slots.
pub struct T5 {
    /// Shape and constants.
    pub config: Config,
    device: Device,
    /// `[vocabulary, hidden]`, the embedding of both stacks.
    shared: Matrix,
    encoder: Stack,
    decoder: Stack,
    /// `None` when the embedding is the head.
    head: Option<Linear>,
}

/// Sequences of one length for the encoder.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// Token ids, row-major `[batch, time]`.
    pub tokens: Vec<u32>,
    /// Whether each token may be seen: false at padding. All may when absent.
    pub visible: Option<Vec<bool>>,
    /// Sequences.
    pub batch: usize,
    /// Tokens in each sequence, padding included.
    pub time: usize,
}

/// One batch to learn from.
#[derive(Debug, Clone)]
pub struct Batch {
    /// What the encoder reads.
    pub source: Source,
    /// What the decoder reads, row-major `[batch, time]`: the answer behind [`Config::start`].
    pub tokens: Vec<u32>,
    /// What each of these tokens should predict: the answer, negative where a row is filled up.
    pub targets: Targets,
}

impl Source {
    fn check(&self, config: &Config) -> Result<(), ModelError> {
        network::fits("tokens", self.tokens.len(), self.batch.saturating_mul(self.time).max(1))?;
        network::tokens_fit(&self.tokens, config.vocabulary)?;
        network::marks_fit(self.visible.as_deref(), self.batch, self.time)
    }
}

impl T5 {
    /// The output of the encoder, `[n, hidden]`; inference, nothing is recorded.
    ///
    /// # Errors
    /// [`ModelError`] for a source that does not fit the model.
    pub fn encode(&self, source: &Source) -> Result<Tensor<2>, ModelError> {
        source.check(&self.config)?;
        Ok(self.read(source, self.embed(&source.tokens)))
    }

    /// Logits `[batch · time, vocabulary]` of the token behind each token of `tokens`, row-major `[batch, time]`; inference,
    /// nothing is recorded.
    ///
    /// # Errors
    /// [`ModelError`] for sequences that do not fit the model.
    pub fn logits(&self, source: &Source, tokens: &[u32]) -> Result<Tensor<2>, ModelError> {
        let states = self.encode(source)?;
        self.check_answer(source, tokens)?;
        Ok(self.unembed(self.write(source, states, self.embed(tokens))))
    }

    /// The summed loss of a batch and the weight of the tokens that carry it; inference, nothing is recorded.
    ///
    /// # Errors
    /// [`ModelError`] for a batch that does not fit the model.
    pub fn evaluate(&self, batch: &Batch) -> Result<Passed, ModelError> {
        let states = self.encode(&batch.source)?;
        self.check_batch(batch)?;
        let h = self.write(&batch.source, states, self.embed(&batch.tokens));
        Ok(network::end(&self.loss(h, &batch.targets)?, network::weight_of(&batch.targets), &mut |_| {}))
    }

    /// Answers one source with the likeliest token each time, at most `limit` of them; ends early at a token of `stop`, which
    /// is not returned. The lowest token wins a tie.
    ///
    /// # Errors
    /// [`ModelError`] for a source that does not fit the model or is more than one, and [`ModelError::NotFinite`].
    pub fn generate(&self, source: &Source, limit: usize, stop: &[u32]) -> Result<Vec<u32>, ModelError> {
        network::fits("sequences", source.batch, 1)?;
        let states = self.encode(source)?;
        let mut tokens = vec![self.config.start];
        while tokens.len() <= limit {
            let h = self.write(source, states.clone(), self.embed(&tokens));
            let logits = to_rows(self.unembed(h.narrow(0, tokens.len() - 1, 1)));
            // NaN has no order: whatever were chosen from it would look like an answer.
            if !logits.iter().all(|logit| logit.is_finite()) {
                return Err(ModelError::NotFinite { seen: tokens.len() });
            }
            let mut best = 0;
            for (index, &logit) in logits.iter().enumerate() {
                if logit > logits[best] {
                    best = index;
                }
            }
            if stop.contains(&(best as u32)) {
                break;
            }
            tokens.push(best as u32);
        }
        tokens.remove(0);
        Ok(tokens)
    }

    /// Checked token ids to hidden states.
    fn embed(&self, tokens: &[u32]) -> Tensor<2> {
        ops::embedding(tokens, &self.shared, &self.device)
    }

    /// The encoder over its first hidden state.
    fn read(&self, source: &Source, h: Tensor<2>) -> Tensor<2> {
        let sides = [source.batch, source.time];
        self.encoder.run(h, sides, source.visible.as_deref(), None, &self.config)
    }

    /// The decoder over its first hidden state and the output of the encoder; scaled for the head.
    fn write(&self, source: &Source, states: Tensor<2>, h: Tensor<2>) -> Tensor<2> {
        let sides = [source.batch, h.dims()[0] / source.batch];
        let memory = Memory { states, keys: source.time, visible: source.visible.as_deref() };
        let h = self.decoder.run(h, sides, None, Some(&memory), &self.config);
        if self.config.scaled { h * (self.config.hidden as f64).powf(-0.5) } else { h }
    }

    fn unembed(&self, h: Tensor<2>) -> Tensor<2> {
        match &self.head {
            Some(head) => head.forward(h),
            None => ops::linear(h, &self.shared, None, None),
        }
    }

    /// The summed loss of the decoder's output; only a head with an adapter, or a trained one, forms all logits.
    fn loss(&self, h: Tensor<2>, targets: &Targets) -> Result<Tensor<1>, ModelError> {
        let plain = match &self.head {
            None => Some(&self.shared),
            Some(head) => match head.weight() {
                Weight::Frozen(matrix) if head.adapters().is_empty() && !head.is_observed() => Some(matrix),
                Weight::Frozen(_) | Weight::Trained(_) => None,
            },
        };
        Ok(match plain {
            Some(matrix) => ops::cross_entropy(h, matrix, None, targets)?,
            None => ops::cross_entropy_of_logits(self.unembed(h), targets)?,
        })
    }

    fn check_answer(&self, source: &Source, tokens: &[u32]) -> Result<(), ModelError> {
        let batch = source.batch.max(1);
        // Rows of one length: what is left over is named.
        network::fits("tokens of answers", tokens.len(), (tokens.len() / batch).max(1) * batch)?;
        network::tokens_fit(tokens, self.config.vocabulary)
    }

    fn check_batch(&self, batch: &Batch) -> Result<(), ModelError> {
        self.check_answer(&batch.source, &batch.tokens)?;
        network::classes_fit(&batch.targets, batch.tokens.len(), self.config.vocabulary)
    }
}

impl Network for T5 {
    type Batch = Batch;

    fn sites(&self) -> Vec<(String, &Linear)> {
        let head = self.head.iter().map(|head| ("lm_head".to_owned(), head));
        self.encoder.sites().chain(self.decoder.sites()).chain(head).collect()
    }

    fn sites_mut(&mut self) -> Vec<(String, &mut Linear)> {
        let head = self.head.iter_mut().map(|head| ("lm_head".to_owned(), head));
        self.encoder.sites_mut().chain(self.decoder.sites_mut()).chain(head).collect()
    }

    fn device(&self) -> &Device {
        &self.device
    }

    fn bytes(&self) -> usize {
        self.shared.bytes() + self.sites().iter().map(|(_, site)| site.weight().bytes()).sum::<usize>()
    }

    fn gradients(
        &self,
        batch: &Batch,
        recompute: Recompute,
        track_all: bool,
        collect: &mut dyn FnMut(&mut Gradients),
    ) -> Result<Passed, ModelError> {
        batch.source.check(&self.config)?;
        self.check_batch(batch)?;
        let begin =
            |tokens: &[u32]| network::begin(self.embed(tokens), recompute, track_all, "an encoder-decoder");
        let states = self.read(&batch.source, begin(&batch.source.tokens)?);
        let h = self.write(&batch.source, states, begin(&batch.tokens)?);
        let loss = self.loss(h, &batch.targets)?;
        Ok(network::end(&loss, network::weight_of(&batch.targets), collect))
    }

    fn weight(&self, batch: &Batch) -> f64 {
        network::weight_of(&batch.targets)
    }

    fn show_inputs(&self, batch: &Batch) -> Result<(), ModelError> {
        let states = self.encode(&batch.source)?;
        self.check_batch(batch)?;
        let head = self.head.as_ref().filter(|head| head.shows_inputs());
        if head.is_some() || self.decoder.sites().any(|(_, linear)| linear.shows_inputs()) {
            let h = self.write(&batch.source, states, self.embed(&batch.tokens));
            if let Some(head) = head {
                head.show_inputs(&h);
            }
        }
        Ok(())
    }

    /// 0: the tokens of the source, which the encoder and the keys and values of the cross-attention are fed; 1: those of the
    /// answer.
    fn stream(&self, site: &str) -> usize {
        let of_source = |part: &str| site.ends_with(&format!("EncDecAttention.{part}"));
        usize::from(!site.starts_with("encoder.") && !of_source("k") && !of_source("v"))
    }
}
