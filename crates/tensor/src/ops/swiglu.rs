//! `y = silu(gate) ⊙ up` with `silu(g) = g / (1 + e⁻ᵍ)` (Shazeer, "GLU Variants Improve Transformer", 2020).
//!
//! Saved: gate and up; the backward recomputes the sigmoid and writes both gradients in one pass.

use burn::tensor::Tensor;

use crate::fused::{FlexTensor, Fused, run2, tensor, values};
use crate::kernels::memory::zeros;
use crate::kernels::{Real, swiglu as kernel};
use crate::{is_cpu, with_float};

use super::composed;

#[derive(Debug)]
pub(super) struct SwiGlu;

/// The gated activation of the Llama family.
///
/// # Shapes
/// `gate: [n, f]`, `up: [n, f]` -> `[n, f]`.
#[must_use]
pub fn swiglu(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    if !is_cpu(&gate.device()) {
        return composed::swiglu(gate, up);
    }
    run2(gate, up, SwiGlu)
}

fn run<T: Real>(gate: &FlexTensor, up: &FlexTensor) -> FlexTensor {
    let (n, f) = (gate.layout().shape()[0], gate.layout().shape()[1]);
    let mut y = zeros(n * f);
    kernel::forward(values::<T>(gate), values(up), &mut y);
    tensor(y, &[n, f])
}

fn differentiate<T: Real>(
    grad: &FlexTensor,
    saved: &[FlexTensor],
    wanted: &[bool],
) -> Vec<Option<FlexTensor>> {
    let (n, f) = (grad.layout().shape()[0], grad.layout().shape()[1]);
    let (mut dgate, mut dup) = (zeros(n * f), zeros(n * f));
    kernel::backward(values::<T>(&saved[0]), values(&saved[1]), values(grad), &mut dgate, &mut dup);
    vec![wanted[0].then(|| tensor(dgate, &[n, f])), wanted[1].then(|| tensor(dup, &[n, f]))]
}

impl Fused for SwiGlu {
    fn forward(&self, inputs: &[FlexTensor], keep: bool) -> (FlexTensor, Vec<FlexTensor>) {
        let output = with_float!(inputs[0], T => run::<T>(&inputs[0], &inputs[1]));
        (output, if keep { inputs.to_vec() } else { Vec::new() })
    }

    fn backward(&self, grad: FlexTensor, saved: Vec<FlexTensor>, wanted: &[bool]) -> Vec<Option<FlexTensor>> {
        with_float!(grad, T => differentiate::<T>(&grad, &saved, wanted))
    }
}
