//! `y = (x − μ) / √(mean((x − μ)²) + ε) ⊙ gain + bias`, row by row (Ba, Kiros & Hinton, "Layer Normalization", 2016).
//!
//! Saved: x, gain, the means and the reciprocal roots `[n]`. The gradients of gain and bias are computed only when these are
//! trained.

use burn::tensor::Tensor;

use crate::fused::{FlexTensor, Fused, run3, tensor, values};
use crate::kernels::memory::zeros;
use crate::kernels::{Real, layer_norm as kernel};
use crate::{is_cpu, with_float};

use super::composed;

#[derive(Debug)]
pub(super) struct LayerNorm {
    pub(super) epsilon: f64,
}

/// Normalisation of each row to mean `bias` and spread `gain`.
///
/// # Shapes
/// `x: [n, d]`, `gain: [1, d]`, `bias: [1, d]` -> `[n, d]`.
#[must_use]
pub fn layer_norm(x: Tensor<2>, gain: Tensor<2>, bias: Tensor<2>, epsilon: f64) -> Tensor<2> {
    if !is_cpu(&x.device()) {
        return composed::layer_norm(x, gain, bias, epsilon);
    }
    run3(x, gain, bias, LayerNorm { epsilon })
}

impl LayerNorm {
    fn run<T: Real>(&self, inputs: &[FlexTensor]) -> (FlexTensor, [FlexTensor; 2]) {
        let (n, d) = (inputs[0].layout().shape()[0], inputs[0].layout().shape()[1]);
        let (mut y, mut mean, mut inverse) = (zeros(n * d), zeros(n), zeros(n));
        let [x, gain, bias] = [0, 1, 2].map(|input| values::<T>(&inputs[input]));
        kernel::forward(x, [gain, bias], self.epsilon, &mut y, &mut mean, &mut inverse);
        (tensor(y, &[n, d]), [tensor(mean, &[n]), tensor(inverse, &[n])])
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
    let mut dbias = wanted[2].then(|| zeros(d));
    let moments = kernel::Moments { mean: values::<T>(&saved[2]), inverse: values(&saved[3]) };
    kernel::backward(
        values(&saved[0]),
        values(&saved[1]),
        &moments,
        values(grad),
        &mut dx,
        [dgain.as_deref_mut(), dbias.as_deref_mut()],
    );
    vec![
        wanted[0].then(|| tensor(dx, &[n, d])),
        dgain.map(|dgain| tensor(dgain, &[1, d])),
        dbias.map(|dbias| tensor(dbias, &[1, d])),
    ]
}

impl Fused for LayerNorm {
    fn forward(&self, inputs: &[FlexTensor], keep: bool) -> (FlexTensor, Vec<FlexTensor>) {
        let (y, [mean, inverse]) = with_float!(inputs[0], T => self.run::<T>(inputs));
        (y, if keep { vec![inputs[0].clone(), inputs[1].clone(), mean, inverse] } else { Vec::new() })
    }

    fn backward(&self, grad: FlexTensor, saved: Vec<FlexTensor>, wanted: &[bool]) -> Vec<Option<FlexTensor>> {
        with_float!(grad, T => differentiate::<T>(&grad, &saved, wanted))
    }
}
