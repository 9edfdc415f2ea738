//! The root of a backward pass that begins with a given gradient: `⟨y, gradient⟩` for a constant gradient, whose own value
//! nobody asks for.
//!
//! Composed, that is a product, a sum, and the gradients of both, each a pass over all values. Here nothing is computed:
//! the backward hands out what was saved. Saved: the gradient.

use burn::tensor::Tensor;

use crate::fused::{FlexTensor, Fused, run2, scaled, tensor, values};
use crate::kernels::Real;
use crate::{is_cpu, with_float};

#[derive(Debug)]
pub(super) struct Pullback;

/// A value whose backward pass gives `y` this gradient; the value itself means nothing.
///
/// # Shapes
/// `y: [n, d]`, `gradient: [n, d]` -> `[1]`.
#[must_use]
pub fn pullback(y: Tensor<2>, gradient: Tensor<2>) -> Tensor<1> {
    let gradient = gradient.autodiff();
    if !is_cpu(&y.device()) {
        return (y * gradient).sum();
    }
    run2(y, gradient, Pullback)
}

fn nothing<T: Real>() -> FlexTensor {
    tensor(vec![T::ZERO], &[1])
}

impl Fused for Pullback {
    fn forward(&self, inputs: &[FlexTensor], keep: bool) -> (FlexTensor, Vec<FlexTensor>) {
        let value = with_float!(inputs[0], T => nothing::<T>());
        (value, if keep { vec![inputs[1].clone()] } else { Vec::new() })
    }

    fn backward(&self, grad: FlexTensor, saved: Vec<FlexTensor>, wanted: &[bool]) -> Vec<Option<FlexTensor>> {
        assert!(!wanted[1], "the gradient that a pass begins with is a constant");
        let hand = |saved| with_float!(grad, T => scaled::<T>(saved, values::<T>(&grad)[0]));
        vec![saved.into_iter().next().map(hand), None]
    }
}
