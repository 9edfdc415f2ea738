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

/// Sees one layer's inputs `[n, in]`, row-major, in a forward pass. No gradient is needed for that.
pub trait InputObserver: Send + Sync {
    /// Called in the forward pass; `n` is the number of tokens. Layers that are fed the same tensor one after another are
    /// shown the same memory.
    fn observe_inputs(&self, inputs: &[f32], n: usize);
}

/// Shows `x: [n, in]` to an observer of inputs.
///
/// # Panics
/// On a device other than the CPU: evidence is computed by the CPU's linear algebra.
pub fn show_inputs(x: &Tensor<2>, observer: &Arc<dyn InputObserver>) {
    assert!(is_cpu(&x.device()), "evidence is collected on the CPU device");
    // An operation, because those are handed the engine's own memory; its output is the input, and nobody's.
    drop(run1::<2, 2>(x.clone().inner(), Show(Arc::clone(observer))));
}

struct Show(Arc<dyn InputObserver>);

impl fmt::Debug for Show {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Show")
    }
}

impl Fused for Show {
    fn forward(&self, inputs: &[FlexTensor], _keep: bool) -> (FlexTensor, Vec<FlexTensor>) {
        let n = inputs[0].layout().shape()[0];
        self.0.observe_inputs(values::<f32>(&inputs[0]), n);
        (inputs[0].clone(), Vec::new())
    }

    fn backward(&self, grad: FlexTensor, _: Vec<FlexTensor>, _: &[bool]) -> Vec<Option<FlexTensor>> {
        vec![Some(grad)]
    }
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
