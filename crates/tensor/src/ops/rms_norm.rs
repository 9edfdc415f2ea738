//! `y = x / √(mean(x²) + ε) ⊙ gain`, row by row (Zhang & Sennrich, "Root Mean Square Layer Normalization", 2019).
//!
//! Saved: x, gain and the reciprocal root `[n]`. The gain's gradient is computed only when the gain is trained.

use burn::tensor::Tensor;

use crate::fused::{FlexTensor, Fused, run2, tensor, values};
use crate::kernels::memory::zeros;
use crate::kernels::{Real, rms_norm as kernel};
use crate::{is_cpu, with_float};

use super::composed;

#[derive(Debug)]
pub(super) struct RmsNorm {
    pub(super) epsilon: f64,
}

/// Root-mean-square normalisation of each row.
///
/// # Shapes
/// `x: [n, d]`, `gain: [1, d]` -> `[n, d]`.
#[must_use]
pub fn rms_norm(x: Tensor<2>, gain: Tensor<2>, epsilon: f64) -> Tensor<2> {
    if !is_cpu(&x.device()) {
        return composed::rms_norm(x, gain, epsilon);
    }
    run2(x, gain, RmsNorm { epsilon })
}

impl RmsNorm {
    fn run<T: Real>(&self, x: &FlexTensor, gain: &FlexTensor) -> (FlexTensor, FlexTensor) {
        let (n, d) = (x.layout().shape()[0], x.layout().shape()[1]);
        let (mut y, mut inverse) = (zeros(n * d), zeros(n));
        kernel::forward(values::<T>(x), values(gain), self.epsilon, &mut y, &mut inverse);
        (tensor(y, &[n, d]), tensor(inverse, &[n]))
    }
}

fn differentiate<T: Real>(
    grad: &FlexTensor,
    saved: &[FlexTensor],
    wanted: &[bool],
) -> Vec<Option<FlexTensor>> {
    let (n, d) = (grad.layout().shape()[0], grad.layout().shape()[1]);
    let mut dx = zeros(n * d);
    let mut dgain = wanted[1].then(|| zeros(d));
    kernel::backward(
        values::<T>(&saved[0]),
        values(&saved[1]),
        values(&saved[2]),
        values(grad),
        &mut dx,
        dgain.as_deref_mut(),
    );
    vec![wanted[0].then(|| tensor(dx, &[n, d])), dgain.map(|dgain| tensor(dgain, &[1, d]))]
}

impl Fused for RmsNorm {
    fn forward(&self, inputs: &[FlexTensor], keep: bool) -> (FlexTensor, Vec<FlexTensor>) {
        let (y, inverse) = with_float!(inputs[0], T => self.run::<T>(&inputs[0], &inputs[1]));
        (y, if keep { vec![inputs[0].clone(), inputs[1].clone(), inverse] } else { Vec::new() })
    }

    fn backward(&self, grad: FlexTensor, saved: Vec<FlexTensor>, wanted: &[bool]) -> Vec<Option<FlexTensor>> {
        with_float!(grad, T => differentiate::<T>(&grad, &saved, wanted))
    }
}
