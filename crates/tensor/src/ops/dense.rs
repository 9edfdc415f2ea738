//! `y = x Wᵀ` with W `[out, in]` trained: for pretraining and for fully tuned sites. Saved: x and W.

use burn::tensor::Tensor;

use crate::fused::{FlexTensor, Fused, run2, tensor, values};
use crate::kernels::memory::zeros;
use crate::kernels::{Real, product};
use crate::{is_cpu, with_float};

#[derive(Debug)]
pub(super) struct Dense;

/// A linear layer whose weight is trained.
///
/// # Shapes
/// `x: [n, in]`, `weight: [out, in]` -> `[n, out]`.
#[must_use]
pub fn dense(x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
    if !is_cpu(&x.device()) {
        return x.matmul(weight.transpose());
    }
    run2(x, weight, Dense)
}

fn sizes(x: &FlexTensor, w: &FlexTensor) -> (usize, usize, usize) {
    (x.layout().shape()[0], x.layout().shape()[1], w.layout().shape()[0])
}

fn run<T: Real>(x: &FlexTensor, w: &FlexTensor) -> FlexTensor {
    let (n, inp, out) = sizes(x, w);
    let mut y = zeros::<T>(n * out);
    product::nt(&mut y, values(x), values(w), [n, inp, out], false);
    tensor(y, &[n, out])
}

fn differentiate<T: Real>(
    grad: &FlexTensor,
    x: &FlexTensor,
    w: &FlexTensor,
    wanted: &[bool],
) -> Vec<Option<FlexTensor>> {
    let (n, inp, out) = sizes(x, w);
    let dx = wanted[0].then(|| {
        let mut dx = zeros::<T>(n * inp);
        product::nn(&mut dx, values(grad), values(w), [n, out, inp], false);
        tensor(dx, &[n, inp])
    });
    let dw = wanted[1].then(|| {
        let mut dw = zeros::<T>(out * inp);
        product::tn(&mut dw, values(grad), values(x), [n, out, inp], false);
        tensor(dw, &[out, inp])
    });
    vec![dx, dw]
}

impl Fused for Dense {
    fn forward(&self, inputs: &[FlexTensor], keep: bool) -> (FlexTensor, Vec<FlexTensor>) {
        let output = with_float!(inputs[0], T => run::<T>(&inputs[0], &inputs[1]));
        (output, if keep { inputs.to_vec() } else { Vec::new() })
    }

    fn backward(&self, grad: FlexTensor, saved: Vec<FlexTensor>, wanted: &[bool]) -> Vec<Option<FlexTensor>> {
        with_float!(grad, T => differentiate::<T>(&grad, &saved[0], &saved[1], wanted))
    }
}
