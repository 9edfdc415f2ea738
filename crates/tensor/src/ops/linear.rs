//! `y = x Wᵀ + b + (x rightᵀ) leftᵀ` with W `[out, in]` and b frozen, left `[out, r]` and right `[r, in]` trainable.
//!
//! Backward, in the cheap order: `dh = dy·left`, `dright = dhᵀ x`, `dleft = dyᵀ h` with the saved `h = x rightᵀ`, and
//! `dx = dy·W + dh·right` accumulated in one buffer. There is no gradient for W, ever. Saved: x (shared with the
//! caller; only where `right` is tracked, which alone needs it), h `[n, r]`, left, right.

use burn::tensor::Tensor;

use crate::fused::{FlexTensor, Fused, run1, run3, tensor, values};
use crate::kernels::{Real, linear as kernel};
use crate::{Matrix, is_cpu, with_float};

use super::composed;

#[derive(Debug)]
pub(super) struct Linear {
    pub(super) weight: Matrix,
    pub(super) bias: Option<Matrix>,
    /// Whether a gradient of `right` may be asked for.
    pub(super) right_tracked: bool,
}

/// A frozen linear layer with an optional low-rank path; the scale is already folded into `left`.
///
/// # Shapes
/// `x: [n, in]`, `weight: [out, in]`, `bias: [1, out]`, `low_rank: ([out, r], [r, in])` -> `[n, out]`.
#[must_use]
pub fn linear(
    x: Tensor<2>,
    weight: &Matrix,
    bias: Option<&Matrix>,
    low_rank: Option<(Tensor<2>, Tensor<2>)>,
) -> Tensor<2> {
    if !is_cpu(&x.device()) {
        return composed::linear(x, weight, bias, low_rank);
    }
    let right_tracked = low_rank.as_ref().is_some_and(|(_, right)| right.is_tracked());
    let operation = Linear { weight: weight.clone(), bias: bias.cloned(), right_tracked };
    match low_rank {
        None => run1(x, operation),
        Some((left, right)) => run3(x, left, right, operation),
    }
}

impl Linear {
    fn run<T: Real>(&self, inputs: &[FlexTensor], keep: bool) -> (FlexTensor, Vec<FlexTensor>) {
        let x = values::<T>(&inputs[0]);
        let [out, _] = self.weight.shape();
        let n = inputs[0].layout().shape()[0];
        let bias: Option<Vec<T>> = self.bias.as_ref().map(|bias| bias.gather(&[0]));
        let factors = match inputs {
            [_, left, right] => Some(kernel::LowRank { left: values(left), right: values(right) }),
            _ => None,
        };
        let (y, hidden) = kernel::forward::<T>(x, &self.weight, bias.as_deref(), factors);
        let output = tensor(y, &[n, out]);
        if !keep {
            return (output, Vec::new());
        }
        match inputs {
            [x, left, right] => {
                let rank = right.layout().shape()[0];
                let hidden = tensor(hidden, &[n, rank]);
                let mut saved = vec![hidden, left.clone(), right.clone()];
                saved.extend(self.right_tracked.then(|| x.clone()));
                (output, saved)
            }
            _ => (output, Vec::new()),
        }
    }

    fn differentiate<T: Real>(
        &self,
        grad: &FlexTensor,
        saved: &[FlexTensor],
        wanted: &[bool],
    ) -> Vec<Option<FlexTensor>> {
        let dy = values::<T>(grad);
        let [out, inp] = self.weight.shape();
        let n = grad.layout().shape()[0];
        let (factors, x, hidden, rank) = match saved {
            [hidden, left, right, x @ ..] => {
                let factors = kernel::LowRank { left: values::<T>(left), right: values::<T>(right) };
                let x = x.first().map_or(&[][..], values::<T>);
                (Some(factors), x, values::<T>(hidden), right.layout().shape()[0])
            }
            _ => (None, &[][..], &[][..], 0),
        };
        let want = kernel::Wanted {
            dx: wanted[0],
            dleft: wanted.get(1).is_some_and(|&w| w),
            dright: wanted.get(2).is_some_and(|&w| w),
        };
        assert!(!want.dright || self.right_tracked, "a factor that was not tracked is asked for a gradient");
        let gradients = kernel::backward::<T>(dy, x, hidden, &self.weight, factors, want);
        let mut list = vec![gradients.dx.map(|dx| tensor(dx, &[n, inp]))];
        if wanted.len() == 3 {
            list.push(gradients.dleft.map(|dleft| tensor(dleft, &[out, rank])));
            list.push(gradients.dright.map(|dright| tensor(dright, &[rank, inp])));
        }
        list
    }
}

impl Fused for Linear {
    fn forward(&self, inputs: &[FlexTensor], keep: bool) -> (FlexTensor, Vec<FlexTensor>) {
        with_float!(inputs[0], T => self.run::<T>(inputs, keep))
    }

    fn backward(&self, grad: FlexTensor, saved: Vec<FlexTensor>, wanted: &[bool]) -> Vec<Option<FlexTensor>> {
        with_float!(grad, T => self.differentiate::<T>(&grad, &saved, wanted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inputs_are_kept_only_where_the_right_factor_is_tracked() {
        let ones = |shape: [usize; 2]| tensor(vec![1.0_f64; shape[0] * shape[1]], &shape);
        for right_tracked in [true, false] {
            let weight = Matrix::from_f64(vec![0.5; 35], [7, 5]).unwrap();
            let operation = Linear { weight, bias: None, right_tracked };
            let (_, saved) = operation.forward(&[ones([4, 5]), ones([7, 3]), ones([3, 5])], true);
            let inputs = saved.iter().filter(|saved| saved.layout().shape().to_vec() == [4, 5]).count();
            assert_eq!(inputs, usize::from(right_tracked));
            let gradients = operation.backward(ones([4, 7]), saved, &[true, true, right_tracked]);
            assert_eq!(gradients[2].is_some(), right_tracked);
            assert!(gradients[0].is_some() && gradients[1].is_some());
        }
    }
}
