//! The heads of an encoder: what they make of the last hidden states, and their losses.

use lowrank_adapt::Linear;
use lowrank_record::Seed;
use lowrank_tensor::ops::{self, Targets};
use lowrank_tensor::{Int, Matrix, Tensor, from_rows};
use serde_json::Value;

use super::{Batch, Encoder, Input, Labels};
use crate::activation::Activation;
use crate::checkpoint::Checkpoint;
use crate::keys::{Keys, bad};
use crate::norm::LayerNorm;
use crate::{ModelError, network};

/// What an encoder is built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The mean of the last hidden states of each sequence: sentence embeddings (Reimers & Gurevych, "Sentence-BERT", 2019).
    Embed,
    /// The classification head of the file; with one label it is a regression.
    Classify,
    /// A classification head that the file does not hold, drawn anew. A pooler of the file is kept.
    Fresh {
        /// Classes; 1 is a regression.
        labels: usize,
        /// Where the draws come from.
        seed: Seed,
    },
    /// The masked-language head of the file.
    MaskedLanguage,
}

impl Purpose {
    /// What the model was written as, by the `architectures` of its `config.json`.
    ///
    /// # Errors
    /// [`ModelError`] where it says nothing, or names a head that is not ours.
    pub fn of(json: &Value) -> Result<Purpose, ModelError> {
        const KEY: &str = "architectures";
        let hint = "heads of our own are sequence classification, masked language and none";
        match Keys(json).architecture() {
            Some("BertModel" | "RobertaModel") => Ok(Purpose::Embed),
            Some("BertForSequenceClassification" | "RobertaForSequenceClassification") => {
                Ok(Purpose::Classify)
            }
            Some("BertForMaskedLM" | "RobertaForMaskedLM" | "BertForPreTraining") => {
                Ok(Purpose::MaskedLanguage)
            }
            Some(other) => Err(bad(KEY, other, hint)),
            None => Err(bad(KEY, "absent", hint)),
        }
    }
}

/// The head of an encoder, its layers with their names.
pub(super) enum Head {
    /// Nothing is learned here.
    Embed,
    /// `out(tanh(dense(first token)))`.
    Classify {
        dense: (String, Linear),
        out: (String, Linear),
        /// The layers that no file held.
        drawn: Vec<String>,
    },
    /// `norm(activation(dense(h))) · embeddingᵀ + bias`.
    Masked { dense: (String, Linear), activation: Activation, norm: Box<LayerNorm>, bias: Box<Matrix> },
}

impl Head {
    /// The layers that hold slots.
    pub(super) fn linears(&self) -> Vec<&(String, Linear)> {
        match self {
            Head::Embed => vec![],
            Head::Classify { dense, out, .. } => vec![dense, out],
            Head::Masked { dense, .. } => vec![dense],
        }
    }

    /// The same, to mount adapters on.
    pub(super) fn linears_mut(&mut self) -> Vec<&mut (String, Linear)> {
        match self {
            Head::Embed => vec![],
            Head::Classify { dense, out, .. } => vec![dense, out],
            Head::Masked { dense, .. } => vec![dense],
        }
    }

    fn answers(&self) -> &'static str {
        match self {
            Head::Embed => "sentence embeddings",
            Head::Classify { out, .. } if out.1.shape()[0] == 1 => "a number for each sequence",
            Head::Classify { .. } => "classes",
            Head::Masked { .. } => "tokens",
        }
    }
}

impl Encoder {
    /// The layers that know the task alone, and are trained whole beside adapters: the classifier, and what of the head no file
    /// held. PEFT's `modules_to_save` for classification.
    #[must_use]
    pub fn task_layers(&self) -> Vec<String> {
        let Head::Classify { dense, out, drawn } = &self.head else { return Vec::new() };
        let of_task = |name: &String| name.starts_with("classifier") || drawn.contains(name);
        [&dense.0, &out.0].into_iter().filter(|name| of_task(name)).cloned().collect()
    }

    /// Classes of the classification head, 1 for a number; 0 for another head.
    #[must_use]
    pub fn labels(&self) -> usize {
        match &self.head {
            Head::Classify { out, .. } => out.1.shape()[0],
            Head::Embed | Head::Masked { .. } => 0,
        }
    }

    /// Draws the layers that no file held anew, as [`Purpose::Fresh`] does with this seed.
    ///
    /// # Errors
    /// [`ModelError::Head`] for a layer that cannot be replaced: an adapter is merged into it, or it is trained.
    pub fn draw_head(&mut self, seed: Seed) -> Result<(), ModelError> {
        let Head::Classify { dense, out, drawn } = &mut self.head else { return Ok(()) };
        let mut layers = [dense, out].into_iter().filter(|(name, _)| drawn.contains(name));
        layers.try_for_each(|(name, linear)| Checkpoint::draw_again(name, linear, seed))
    }

    /// What the head makes of the last hidden states: `[batch, labels]`, `[batch, hidden]` or `[n, vocabulary]`.
    pub(super) fn answer(&self, h: Tensor<2>, input: &Input) -> Tensor<2> {
        let hidden = self.config.hidden;
        match &self.head {
            Head::Embed => self.mean(h, input),
            Head::Classify { dense, out, .. } => {
                let first = h.reshape([input.batch, input.time, hidden]).narrow(1, 0, 1);
                out.1.forward(dense.1.forward(first.reshape([input.batch, hidden])).tanh())
            }
            Head::Masked { dense, activation, norm, bias } => {
                let x = norm.apply(activation.apply(dense.1.forward(h)));
                ops::linear(x, &self.words, Some(bias), None)
            }
        }
    }

    /// The mean over the tokens of each sequence that are no padding: `[n, hidden] -> [batch, hidden]`.
    fn mean(&self, h: Tensor<2>, input: &Input) -> Tensor<2> {
        let Input { batch, time, .. } = *input;
        let h: Tensor<3> = h.reshape([batch, time, self.config.hidden]);
        let shares: Vec<f32> = match &input.visible {
            None => vec![1.0 / time as f32; batch * time],
            Some(visible) => {
                let share = |row: &[bool]| {
                    let share = 1.0 / row.iter().filter(|&&seen| seen).count() as f32;
                    row.iter().map(|&seen| if seen { share } else { 0.0 }).collect::<Vec<_>>()
                };
                visible.chunks_exact(time).flat_map(share).collect()
            }
        };
        let shares: Tensor<3> = from_rows(shares, [batch, time], &self.device).reshape([batch, time, 1]);
        (h * shares).sum_dim(1).reshape([batch, self.config.hidden])
    }

    /// The summed loss of last hidden states, and the weight of the rows that carry it.
    pub(super) fn loss(&self, h: Tensor<2>, batch: &Batch) -> Result<(Tensor<1>, f64), ModelError> {
        let input = &batch.input;
        match (&self.head, &batch.labels) {
            (Head::Classify { out, .. }, Labels::Classes(targets)) if out.1.shape()[0] > 1 => {
                network::classes_fit(targets, input.batch, out.1.shape()[0])?;
                let loss = ops::cross_entropy_of_logits(self.answer(h, input), targets)?;
                Ok((loss, network::weight_of(targets)))
            }
            (Head::Classify { out, .. }, Labels::Values(values)) if out.1.shape()[0] == 1 => {
                network::fits("numbers", values.len(), input.batch)?;
                Ok((self.distance(self.answer(h, input), values), input.batch as f64))
            }
            (Head::Embed, Labels::Vectors(values)) => {
                network::fits("values of embeddings", values.len(), input.batch * self.config.hidden)?;
                Ok((self.distance(self.answer(h, input), values), input.batch as f64))
            }
            (Head::Masked { .. }, Labels::Tokens(targets)) => {
                network::classes_fit(targets, input.tokens.len(), self.config.vocabulary)?;
                Ok((self.masked_loss(h, input, targets)?, network::weight_of(targets)))
            }
            (head, labels) => Err(ModelError::Labels { asked: labels.name(), given: head.answers() }),
        }
    }

    /// The cross-entropy of the tokens that carry loss: the logits of the others, which are most, are not formed.
    fn masked_loss(&self, h: Tensor<2>, input: &Input, targets: &Targets) -> Result<Tensor<1>, ModelError> {
        let rows: Vec<usize> = (0..targets.ids.len()).filter(|&row| targets.ids[row] >= 0).collect();
        if rows.is_empty() {
            return Ok(ops::cross_entropy_of_logits(self.answer(h, input), targets)?);
        }
        let indices: Vec<i64> = rows.iter().map(|&row| row as i64).collect();
        let indices = Tensor::<1, Int>::from_ints(indices.as_slice(), &self.device);
        let kept = Targets {
            ids: rows.iter().map(|&row| targets.ids[row]).collect(),
            weights: targets.weights.as_ref().map(|weights| rows.iter().map(|&row| weights[row]).collect()),
        };
        Ok(ops::cross_entropy_of_logits(self.answer(h.select(0, indices), input), &kept)?)
    }

    /// `Σ (y − values)²`. The engine adds up in f32: n terms of one sign, so at most n · 6e-8 of the sum is lost.
    fn distance(&self, y: Tensor<2>, values: &[f32]) -> Tensor<1> {
        let shape = y.dims();
        let difference = y - from_rows(values.to_vec(), shape, &self.device);
        (difference.clone() * difference).sum()
    }
}
