//! `y = x·Φ(x)` (Hendrycks & Gimpel, "Gaussian Error Linear Units", 2016), exactly or with the authors' tanh.
//!
//! Saved: x; the backward computes the factor again.

use burn::tensor::Tensor;

use crate::fused::{FlexTensor, Fused, run1, tensor, values};
use crate::kernels::memory::zeros;
use crate::kernels::{Real, gelu as kernel};
use crate::{is_cpu, with_float};

use super::composed;

pub use kernel::Gelu;

#[derive(Debug)]
pub(super) struct FeedForward {
    pub(super) kind: Gelu,
}

/// The activation of GPT-2, GPT-NeoX, BERT and their like.
///
/// # Shapes
/// `x: [n, f]` -> `[n, f]`.
#[must_use]
pub fn gelu(x: Tensor<2>, kind: Gelu) -> Tensor<2> {
    if !is_cpu(&x.device()) {
        return composed::gelu(x, kind);
    }
    run1(x, FeedForward { kind })
}

impl FeedForward {
    fn run<T: Real>(&self, x: &FlexTensor) -> FlexTensor {
        let (n, f) = (x.layout().shape()[0], x.layout().shape()[1]);
        let mut y = zeros(n * f);
        kernel::forward(self.kind, values::<T>(x), &mut y);
        tensor(y, &[n, f])
    }

    fn differentiate<T: Real>(&self, x: &FlexTensor, grad: &FlexTensor) -> FlexTensor {
        let (n, f) = (grad.layout().shape()[0], grad.layout().shape()[1]);
        let mut dx = zeros(n * f);
        kernel::backward(self.kind, values::<T>(x), values(grad), &mut dx);
        tensor(dx, &[n, f])
    }
}

impl Fused for FeedForward {
    fn forward(&self, inputs: &[FlexTensor], keep: bool) -> (FlexTensor, Vec<FlexTensor>) {
        let output = with_float!(inputs[0], T => self.run::<T>(&inputs[0]));
        (output, if keep { inputs.to_vec() } else { Vec::new() })
    }

    fn backward(&self, grad: FlexTensor, saved: Vec<FlexTensor>, wanted: &[bool]) -> Vec<Option<FlexTensor>> {
        let dx = wanted[0].then(|| with_float!(grad, T => self.differentiate::<T>(&saved[0], &grad)));
        vec![dx]
    }
}
