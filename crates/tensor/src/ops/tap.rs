//! The identity on `y`, which shows an observer the layer's input X and the output gradient δ in the backward pass.
//!
//! This is how evidence is collected: the weight gradient is `δᵀX`, and both are at hand exactly here, for one layer
//! at a time, so that a full set of weight gradients never exists. Saved: x, shared with the layer itself.

use std::fmt;
use std::sync::Arc;

use burn::tensor::Tensor;

use crate::fused::{FlexTensor, Fused, run1, values};
use crate::is_cpu;

/// Sees one layer's inputs `[n, in]` and output gradients `[n, out]`, both row-major, once a backward pass.
pub trait Observer: Send + Sync {
    /// Called in the backward pass; `n` is the number of tokens.
    fn observe(&self, inputs: &[f32], output_gradients: &[f32], n: usize);
}

struct Tap {
    x: Tensor<2>,
    observer: Arc<dyn Observer>,
}

impl fmt::Debug for Tap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tap")
    }
}

/// Returns `y` unchanged; in the backward pass the observer is shown `x` and the gradient of `y`.
///
/// # Shapes
/// `x: [n, in]`, `y: [n, out]` -> `[n, out]`.
///
/// # Panics
/// On a device other than the CPU: evidence is computed by the CPU's linear algebra.
#[must_use]
pub fn tap(x: Tensor<2>, y: Tensor<2>, observer: Arc<dyn Observer>) -> Tensor<2> {
    assert!(is_cpu(&y.device()), "evidence is collected on the CPU device");
    run1(y, Tap { x: x.inner(), observer })
}

impl Fused for Tap {
    fn forward(&self, inputs: &[FlexTensor], _keep: bool) -> (FlexTensor, Vec<FlexTensor>) {
        (inputs[0].clone(), Vec::new())
    }

    fn backward(
        &self,
        grad: FlexTensor,
        _saved: Vec<FlexTensor>,
        _wanted: &[bool],
    ) -> Vec<Option<FlexTensor>> {
        let inputs = crate::to_rows(self.x.clone());
        self.observer.observe(&inputs, values::<f32>(&grad), grad.layout().shape()[0]);
        vec![Some(grad)]
    }
}
