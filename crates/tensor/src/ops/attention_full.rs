//! Attention over whole sequences: every query sees every key that is no padding. For encoders, for the two stacks of an
//! encoder–decoder, and for the attention of one sequence over another (Vaswani et al., "Attention Is All You Need", 2017).
//!
//! The fused [`super::attention`] says with a first visible index what a token sees of its past; keys behind the token,
//! rows with padding at either end, a bias for each score and keys of another sequence are beyond that. Composed from the
//! engine's operations on every device, so the scores `[batch, heads, queries, keys]` are in memory, and its backward is the
//! engine's.

use std::sync::Arc;

use burn::tensor::{Bool, Device, Tensor, TensorData, activation};

/// What takes the place of a hidden score: so low that its share is 0, and finite, so that a query that sees nothing gives
/// the mean of all values instead of NaN. Callers refuse rows that are all padding.
const HIDDEN: f32 = -1e30;

/// Which keys a query sees, and what is added to its scores.
#[derive(Debug, Clone)]
pub struct FullAttention {
    /// Sequences.
    pub batch: usize,
    /// Queries in each sequence.
    pub queries: usize,
    /// Keys in each sequence; another number than the queries where one sequence looks at another.
    pub keys: usize,
    /// Heads, of queries as of keys.
    pub heads: usize,
    /// Factor on the scores: `1/√head_dim`, or 1 where the model does not scale (T5).
    pub scale: f64,
    /// For each key of each sequence, row-major `[batch, keys]`, whether it may be seen; all may when absent.
    pub visible: Option<Arc<[bool]>>,
    /// Whether a query sees only the keys up to its own index.
    pub causal: bool,
    /// Added to the scaled scores of every sequence, `[heads, queries, keys]` row-major (Shaw et al., "Self-Attention with
    /// Relative Position Representations", 2018, in the form of Raffel et al., 2020).
    pub bias: Option<Arc<[f32]>>,
}

impl FullAttention {
    /// Every token of every sequence sees every token of it: scores divided by √head_dim, nothing added.
    #[must_use]
    pub fn dense(batch: usize, time: usize, heads: usize, head_dim: usize) -> FullAttention {
        let scale = 1.0 / (head_dim as f64).sqrt();
        let (visible, causal, bias) = (None, false, None);
        FullAttention { batch, queries: time, keys: time, heads, scale, visible, causal, bias }
    }

    /// True where a query must not see a key, `[batch, 1, queries, keys]`; nothing where all is seen.
    fn hidden(&self, device: &Device) -> Option<Tensor<4, Bool>> {
        let (batch, queries, keys) = (self.batch, self.queries, self.keys);
        if let Some(visible) = &self.visible {
            assert_eq!(visible.len(), batch * keys, "one mark for each of {keys} keys in {batch} sequences");
        } else if !self.causal {
            return None;
        }
        let mut hidden = Vec::with_capacity(batch * queries * keys);
        for row in 0..batch * queries {
            let (sequence, query) = (row / queries, row % queries);
            hidden.extend((0..keys).map(|key| {
                let padding = self.visible.as_ref().is_some_and(|visible| !visible[sequence * keys + key]);
                padding || self.causal && key > query
            }));
        }
        Some(Tensor::from_data(TensorData::new(hidden, [batch, 1, queries, keys]), device))
    }
}

/// `softmax(scale · q kᵀ + bias) v`, head by head, over the keys that are visible.
///
/// # Shapes
/// `q: [batch · queries, heads · head_dim]`, `k` and `v: [batch · keys, heads · head_dim]` ->
/// `[batch · queries, heads · head_dim]`.
///
/// # Panics
/// Panics when the marks or the bias of `how` have another number of values than its sides say.
#[must_use]
pub fn attention_full(q: Tensor<2>, k: Tensor<2>, v: Tensor<2>, how: &FullAttention) -> Tensor<2> {
    let FullAttention { batch, queries, keys, heads, .. } = *how;
    let (device, dtype, width) = (q.device().without_autodiff(), q.dtype(), q.dims()[1]);
    let split = |x: Tensor<2>, time: usize| -> Tensor<4> {
        x.reshape([batch, time, heads, width / heads]).swap_dims(1, 2)
    };
    let (q, k, v) = (split(q, queries), split(k, keys), split(v, keys));
    let mut scores = q.matmul(k.swap_dims(2, 3)) * how.scale; // [batch, heads, queries, keys]
    if let Some(bias) = &how.bias {
        assert_eq!(bias.len(), heads * queries * keys, "one bias for each head, query and key");
        let data = TensorData::new(bias.to_vec(), [1, heads, queries, keys]).convert_dtype(dtype);
        scores = scores + Tensor::from_data(data, (&device, dtype));
    }
    if let Some(hidden) = how.hidden(&device) {
        scores = scores.mask_fill(hidden.repeat_dim(1, heads), HIDDEN);
    }
    activation::softmax(scores, 3).matmul(v).swap_dims(1, 2).reshape([batch * queries, width])
}
