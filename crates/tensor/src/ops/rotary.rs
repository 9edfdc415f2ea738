//! Rotary position embedding: each pair of a head turns by its position times the pair's frequency
//! (Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding", 2021).
//!
//! The pairs are (i, i + d/2), d the width that turns, as in Hugging Face checkpoints; files whose rows are permuted for neighbouring pairs
//! (GGUF) are put back when they are read. The backward turns by the opposite angle; nothing is saved.

use std::sync::Arc;

use burn::tensor::Tensor;

use crate::fused::{FlexTensor, Fused, run1, tensor, values};
use crate::kernels::memory::zeros;
use crate::kernels::{Real, rotary as kernel};
use crate::{is_cpu, with_float};

use super::composed;

/// Cosines and sines for the positions `0..positions`, each `[positions, rotary_dim / 2]`, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct Rotary {
    /// Cosines, already multiplied by the attention factor of the scaling variant.
    pub cos: Vec<f32>,
    /// Sines, already multiplied by the attention factor of the scaling variant.
    pub sin: Vec<f32>,
    /// Width of one head.
    pub head_dim: usize,
    /// How many values at the beginning of each head turn; even, at most `head_dim`. The rest keeps its values (partial
    /// rotation, as in GPT-NeoX and Phi).
    pub rotary_dim: usize,
}

#[derive(Debug)]
struct Turn {
    tables: Arc<Rotary>,
    positions: Arc<[u32]>,
}

/// Turns each head of each row by its position.
///
/// # Shapes
/// `x: [n, heads · head_dim]`, `positions: n` -> `[n, heads · head_dim]`.
///
/// # Panics
/// Panics when a position lies outside the tables; the model builds them for the longest row.
#[must_use]
pub fn rotary(x: Tensor<2>, tables: &Arc<Rotary>, positions: &Arc<[u32]>) -> Tensor<2> {
    if !is_cpu(&x.device()) {
        return composed::rotary(x, tables, positions);
    }
    run1(x, Turn { tables: Arc::clone(tables), positions: Arc::clone(positions) })
}

impl Turn {
    fn run<T: Real>(&self, x: &FlexTensor, direction: kernel::Direction) -> FlexTensor {
        let (n, width) = (x.layout().shape()[0], x.layout().shape()[1]);
        let mut y = zeros(n * width);
        let Rotary { cos, sin, head_dim, rotary_dim } = &*self.tables;
        let tables = kernel::Tables { cos, sin, head_dim: *head_dim, rotary_dim: *rotary_dim };
        kernel::apply(values::<T>(x), &mut y, &tables, &self.positions, direction);
        tensor(y, &[n, width])
    }
}

impl Fused for Turn {
    fn forward(&self, inputs: &[FlexTensor], _keep: bool) -> (FlexTensor, Vec<FlexTensor>) {
        (with_float!(inputs[0], T => self.run::<T>(&inputs[0], kernel::Direction::Forward)), Vec::new())
    }

    fn backward(
        &self,
        grad: FlexTensor,
        _saved: Vec<FlexTensor>,
        _wanted: &[bool],
    ) -> Vec<Option<FlexTensor>> {
        vec![Some(with_float!(grad, T => self.run::<T>(&grad, kernel::Direction::Backward)))]
    }
}
