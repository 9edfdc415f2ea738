//! Causal grouped-query attention without the `[time, time]` score matrix in memory (Dao et al., "FlashAttention",
//! 2022; Ainslie et al., "GQA", 2023): tiles of scores, an online softmax, and tiles recomputed in the backward.
//!
//! Saved: q, k, v, the output and one log-sum-exp for each query head and token.

use std::sync::Arc;

use burn::tensor::Tensor;

use crate::fused::{FlexTensor, Fused, run3, tensor, values};
use crate::kernels::memory::zeros;
use crate::kernels::{Real, attention as kernel};
use crate::{from_rows, is_cpu, with_float};

use super::composed;

/// How the flattened rows of a batch lie: `[batch · time]`, row-major.
#[derive(Debug, Clone)]
pub struct Layout {
    /// Number of rows of the batch.
    pub batch: usize,
    /// Tokens in each row, padding included.
    pub time: usize,
    /// Position of each token for the rotary embedding; restarts with each packed document.
    pub positions: Arc<[u32]>,
    /// For each token the first index, within its row, that it may look at: the start of its document, or the edge of
    /// a sliding window.
    pub starts: Arc<[u32]>,
}

/// Head counts of a grouped-query attention; `heads` is a multiple of `kv_heads`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heads {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
}

impl Heads {
    /// Scores are divided by √head_dim.
    #[must_use]
    pub fn scale(&self) -> f64 {
        1.0 / (self.head_dim as f64).sqrt()
    }

    fn shape(&self, batch: usize, time: usize, past: usize) -> kernel::Shape {
        kernel::Shape {
            batch,
            time,
            past,
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
        }
    }
}

impl Layout {
    /// One document per row, all of the same length: positions count up, every token sees its whole past.
    #[must_use]
    pub fn dense(batch: usize, time: usize) -> Layout {
        let positions: Vec<u32> = (0..batch).flat_map(|_| 0..time as u32).collect();
        Layout { batch, time, positions: positions.into(), starts: vec![0; batch * time].into() }
    }

    /// The same rows seen through a sliding window of `window` tokens, the token itself included.
    #[must_use]
    pub fn windowed(&self, window: usize) -> Layout {
        let time = self.time.max(1);
        let starts = self.starts.iter().enumerate();
        let starts =
            starts.map(|(row, &start)| start.max(((row % time) as u32 + 1).saturating_sub(window as u32)));
        Layout { starts: starts.collect(), ..self.clone() }
    }
}

#[derive(Debug)]
pub(super) struct Attention {
    pub(super) heads: Heads,
    pub(super) layout: Layout,
}

/// Causal attention within each document of each row.
///
/// # Shapes
/// `q: [n, heads · head_dim]`, `k: [n, kv_heads · head_dim]`, `v` like k -> `[n, heads · head_dim]`, `n = batch · time`.
#[must_use]
pub fn attention(q: Tensor<2>, k: Tensor<2>, v: Tensor<2>, heads: Heads, layout: &Layout) -> Tensor<2> {
    if !is_cpu(&q.device()) {
        return composed::attention(q, k, v, heads, layout);
    }
    run3(q, k, v, Attention { heads, layout: layout.clone() })
}

/// Attention of new tokens over cached keys and values of one sequence; inference only.
///
/// # Shapes
/// `q: [time, heads · head_dim]`, `keys` and `values`: row-major `[past + time, kv_heads · head_dim]`,
/// `starts: time` -> `[time, heads · head_dim]`.
#[must_use]
pub fn attend(q: Tensor<2>, keys: &[f32], values: &[f32], starts: &[u32], heads: Heads) -> Tensor<2> {
    let device = q.device();
    let [time, width] = q.dims();
    let past = keys.len() / (heads.kv_heads * heads.head_dim) - time;
    let q = crate::to_rows(q);
    let (mut out, mut lse) = (vec![0.0; time * width], vec![0.0; time * heads.heads]);
    let shape = heads.shape(1, time, past);
    kernel::forward::<f32>(&shape, heads.scale(), &q, keys, values, starts, &mut out, &mut lse);
    from_rows(out, [time, width], &device)
}

impl Attention {
    fn shape(&self) -> kernel::Shape {
        self.heads.shape(self.layout.batch, self.layout.time, 0)
    }

    fn run<T: Real>(&self, inputs: &[FlexTensor]) -> (FlexTensor, FlexTensor) {
        let n = self.layout.batch * self.layout.time;
        let width = self.heads.heads * self.heads.head_dim;
        let (mut out, mut lse) = (zeros(n * width), zeros(n * self.heads.heads));
        kernel::forward::<T>(
            &self.shape(),
            self.heads.scale(),
            values(&inputs[0]),
            values(&inputs[1]),
            values(&inputs[2]),
            &self.layout.starts,
            &mut out,
            &mut lse,
        );
        (tensor(out, &[n, width]), tensor(lse, &[n, self.heads.heads]))
    }

    fn differentiate<T: Real>(
        &self,
        grad: &FlexTensor,
        saved: &[FlexTensor],
        wanted: &[bool],
    ) -> Vec<Option<FlexTensor>> {
        let [q, k, v, out, lse] = saved else { unreachable!("the forward saves five tensors") };
        let n = self.layout.batch * self.layout.time;
        let width = self.heads.heads * self.heads.head_dim;
        let kv_width = self.heads.kv_heads * self.heads.head_dim;
        let mut dq = zeros(n * width);
        let (mut dk, mut dv) = (zeros(n * kv_width), zeros(n * kv_width));
        kernel::backward::<T>(
            &self.shape(),
            self.heads.scale(),
            values(q),
            values(k),
            values(v),
            &self.layout.starts,
            values(out),
            values(lse),
            values(grad),
            &mut dq,
            &mut dk,
            &mut dv,
        );
        // One pass over the tiles makes all three; it would hardly be shorter with fewer.
        vec![
            wanted[0].then(|| tensor(dq, &[n, width])),
            wanted[1].then(|| tensor(dk, &[n, kv_width])),
            wanted[2].then(|| tensor(dv, &[n, kv_width])),
        ]
    }
}

impl Fused for Attention {
    fn forward(&self, inputs: &[FlexTensor], keep: bool) -> (FlexTensor, Vec<FlexTensor>) {
        let (out, lse) = with_float!(inputs[0], T => self.run::<T>(inputs));
        let saved = if keep { [inputs, &[out.clone(), lse]].concat() } else { Vec::new() };
        (out, saved)
    }

    fn backward(&self, grad: FlexTensor, saved: Vec<FlexTensor>, wanted: &[bool]) -> Vec<Option<FlexTensor>> {
        with_float!(grad, T => self.differentiate::<T>(&grad, &saved, wanted))
    }
}
