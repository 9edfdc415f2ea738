//! Token embedding: rows of the vocabulary matrix by id.

use burn::tensor::{Device, Tensor};

use crate::fused::{FlexTensor, Fused, run1, tensor, values};
use crate::kernels::Real;
use crate::{Matrix, from_rows, is_cpu, with_float};

/// Rows of a frozen vocabulary matrix.
///
/// # Shapes
/// `ids: n`, `vocabulary: [v, d]` -> `[n, d]`.
///
/// # Panics
/// Panics on an id outside the vocabulary; callers check what a user gave.
#[must_use]
pub fn embedding(ids: &[u32], vocabulary: &Matrix, device: &Device) -> Tensor<2> {
    from_rows(vocabulary.gather(ids), [ids.len(), vocabulary.shape()[1]], device)
}

/// Rows of a trained vocabulary matrix; the gradient is scattered back to them.
///
/// # Shapes
/// `ids: n`, `vocabulary: [v, d]` -> `[n, d]`.
#[must_use]
pub fn embedding_dense(ids: &[u32], vocabulary: Tensor<2>) -> Tensor<2> {
    if !is_cpu(&vocabulary.device()) {
        let ids: Vec<i64> = ids.iter().map(|&id| i64::from(id)).collect();
        let device = vocabulary.device();
        return vocabulary.select(0, Tensor::from_ints(ids.as_slice(), &device));
    }
    run1(vocabulary, Embedding { ids: ids.to_vec() })
}

#[derive(Debug)]
struct Embedding {
    ids: Vec<u32>,
}

impl Embedding {
    fn run<T: Real>(&self, vocabulary: &FlexTensor) -> FlexTensor {
        let d = vocabulary.layout().shape()[1];
        let rows = values::<T>(vocabulary);
        let mut out = Vec::with_capacity(self.ids.len() * d);
        for &id in &self.ids {
            out.extend_from_slice(&rows[id as usize * d..(id as usize + 1) * d]);
        }
        tensor(out, &[self.ids.len(), d])
    }

    /// Rows are added in token order, so the sums do not depend on the threads.
    fn scatter<T: Real>(&self, grad: &FlexTensor, v: usize) -> FlexTensor {
        let d = grad.layout().shape()[1];
        let mut out = vec![T::ZERO; v * d];
        for (&id, row) in self.ids.iter().zip(values::<T>(grad).chunks_exact(d)) {
            for (to, &from) in out[id as usize * d..].iter_mut().zip(row) {
                *to += from;
            }
        }
        tensor(out, &[v, d])
    }
}

impl Fused for Embedding {
    fn forward(&self, inputs: &[FlexTensor], keep: bool) -> (FlexTensor, Vec<FlexTensor>) {
        let output = with_float!(inputs[0], T => self.run::<T>(&inputs[0]));
        (output, if keep { vec![inputs[0].clone()] } else { Vec::new() })
    }

    fn backward(
        &self,
        grad: FlexTensor,
        saved: Vec<FlexTensor>,
        _wanted: &[bool],
    ) -> Vec<Option<FlexTensor>> {
        let v = saved[0].layout().shape()[0];
        vec![Some(with_float!(grad, T => self.scatter::<T>(&grad, v)))]
    }
}
