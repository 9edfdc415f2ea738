//! Next-token cross-entropy over chunks of rows, without the logits `[n, V]` in memory, also where the head carries a
//! low-rank path.
//!
//! Rows without a target are dropped first. For a chunk of rows the logits are formed, turned into `softmax − onehot`
//! in place and multiplied by the head at once: the gradient of a loss is known in the forward pass up to the factor that
//! the backward brings, so it costs two products in all. Saved: the gradient of each input, in its shape.
//!
//! A head with a bias, an observer or an adapter that is no low-rank path makes its logits itself, all of them
//! ([`cross_entropy_of_logits`]).

use std::sync::Arc;

use burn::tensor::Tensor;

use crate::fused::{FlexTensor, Fused, run1, run2, run3, scaled, tensor, values};
use crate::kernels::linear::LowRank;
use crate::kernels::{Real, RowSource, SliceRows, cross_entropy as kernel};
use crate::{Matrix, is_cpu, with_float};

use super::composed;

/// What each row should predict.
#[derive(Debug, Clone)]
pub struct Targets {
    /// The next token of each row; negative where the row carries no loss.
    pub ids: Arc<[i32]>,
    /// Weight of each row's loss; all 1 when absent.
    pub weights: Option<Arc<[f32]>>,
}

pub use crate::kernels::cross_entropy::TargetError;

/// `Σ wᵢ · −log p(targetᵢ | hᵢ)`, a single value, with a frozen head and an optional low-rank path beside it; the path's
/// scale is already folded into `left`.
///
/// # Shapes
/// `h: [n, d]`, `head: [V, d]`, `low_rank: ([V, r], [r, d])`, `targets: n` -> `[1]`.
///
/// # Errors
/// [`TargetError`] when a target lies outside the vocabulary.
pub fn cross_entropy(
    h: Tensor<2>,
    head: &Matrix,
    low_rank: Option<(Tensor<2>, Tensor<2>)>,
    targets: &Targets,
) -> Result<Tensor<1>, TargetError> {
    kernel::check(&targets.ids, head.shape()[0])?;
    if !is_cpu(&h.device()) {
        return Ok(composed::cross_entropy_of_logits(composed::linear(h, head, None, low_rank), targets));
    }
    let operation = CrossEntropy { head: Some(head.clone()), targets: targets.clone() };
    Ok(match low_rank {
        None => run1(h, operation),
        Some((left, right)) => run3(h, left, right, operation),
    })
}

/// The same with a trained head; its gradient is computed in the same pass.
///
/// # Errors
/// [`TargetError`] when a target lies outside the vocabulary.
pub fn cross_entropy_dense(
    h: Tensor<2>,
    head: Tensor<2>,
    targets: &Targets,
) -> Result<Tensor<1>, TargetError> {
    kernel::check(&targets.ids, head.dims()[0])?;
    if !is_cpu(&h.device()) {
        return Ok(composed::cross_entropy(h, head, targets));
    }
    Ok(run2(h, head, CrossEntropy { head: None, targets: targets.clone() }))
}

/// The same from logits `[n, V]` that are at hand: for heads with a bias or an adapter.
///
/// # Errors
/// [`TargetError`] when a target lies outside the vocabulary.
pub fn cross_entropy_of_logits(logits: Tensor<2>, targets: &Targets) -> Result<Tensor<1>, TargetError> {
    kernel::check(&targets.ids, logits.dims()[1])?;
    Ok(composed::cross_entropy_of_logits(logits, targets))
}

/// `−log p(targetᵢ | hᵢ)` of each row, 0 where the row carries no loss; inference only. The head as in [`cross_entropy`].
///
/// # Errors
/// [`TargetError`] when a target lies outside the vocabulary.
pub fn log_likelihoods(
    h: Tensor<2>,
    head: &Matrix,
    low_rank: Option<(Tensor<2>, Tensor<2>)>,
    targets: &[i32],
) -> Result<Vec<f32>, TargetError> {
    let factors = low_rank.map(|(left, right)| (crate::to_rows(left), crate::to_rows(right)));
    let low_rank = factors.as_ref().map(|(left, right)| LowRank { left, right });
    let head = kernel::Head { weight: head, low_rank };
    Ok(kernel::forward::<f32>(&crate::to_rows(h), head, targets, None, kernel::Wanted::NOTHING)?.nll)
}

/// The same with a trained head.
///
/// # Errors
/// [`TargetError`] when a target lies outside the vocabulary.
pub fn log_likelihoods_dense(
    h: Tensor<2>,
    head: Tensor<2>,
    targets: &[i32],
) -> Result<Vec<f32>, TargetError> {
    let cols = head.dims()[1];
    let (h, head) = (crate::to_rows(h), crate::to_rows(head));
    let head = kernel::Head { weight: &SliceRows { values: &head, cols }, low_rank: None };
    Ok(kernel::forward::<f32>(&h, head, targets, None, kernel::Wanted::NOTHING)?.nll)
}

/// The same from logits `[n, V]` that are at hand.
///
/// # Errors
/// [`TargetError`] when a target lies outside the vocabulary.
pub fn log_likelihoods_of_logits(logits: Tensor<2>, targets: &[i32]) -> Result<Vec<f32>, TargetError> {
    let vocabulary = logits.dims()[1];
    kernel::check(targets, vocabulary)?;
    let logits = crate::to_rows(logits);
    let rows = logits.chunks_exact(vocabulary.max(1)).zip(targets);
    Ok(rows
        .map(|(row, &target)| {
            let Ok(target) = usize::try_from(target) else { return 0.0 };
            let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let sum: f64 = row.iter().map(|&logit| f64::from(logit - largest).exp()).sum();
            (f64::from(largest) + sum.ln() - f64::from(row[target])) as f32
        })
        .collect())
}

#[derive(Debug)]
pub(super) struct CrossEntropy {
    /// The frozen head, whose factors, if it has any, are the second and third input; a trained one is the second.
    pub(super) head: Option<Matrix>,
    pub(super) targets: Targets,
}

impl CrossEntropy {
    fn run<T: Real>(&self, inputs: &[FlexTensor], keep: bool) -> (FlexTensor, Vec<FlexTensor>) {
        let d = inputs[0].layout().shape()[1];
        let weights: Option<Vec<T>> = self
            .targets
            .weights
            .as_ref()
            .map(|weights| weights.iter().map(|&w| T::from_f64(f64::from(w))).collect());
        let trained;
        let weight: &dyn RowSource<T> = match &self.head {
            Some(head) => head,
            None => {
                trained = SliceRows { values: values::<T>(&inputs[1]), cols: d };
                &trained
            }
        };
        let low_rank = match inputs {
            [_, left, right] => Some(LowRank { left: values(left), right: values(right) }),
            _ => None,
        };
        let wanted = kernel::Wanted { dh: keep, dw: keep && self.head.is_none(), factors: keep };
        let head = kernel::Head { weight, low_rank };
        let (h, ids) = (values::<T>(&inputs[0]), &self.targets.ids);
        // The targets were checked before the operation was made.
        let Ok(outcome) = kernel::forward(h, head, ids, weights.as_deref(), wanted) else {
            unreachable!("a checked target lies outside the vocabulary")
        };
        let gradients = [outcome.dh, outcome.dw, outcome.dleft, outcome.dright].into_iter().flatten();
        let saved = gradients.zip(inputs).map(|(gradient, input)| tensor(gradient, input.layout().shape()));
        (tensor(vec![T::from_f64(outcome.loss)], &[1]), saved.collect())
    }
}

impl Fused for CrossEntropy {
    fn forward(&self, inputs: &[FlexTensor], keep: bool) -> (FlexTensor, Vec<FlexTensor>) {
        with_float!(inputs[0], T => self.run::<T>(inputs, keep))
    }

    fn backward(&self, grad: FlexTensor, saved: Vec<FlexTensor>, wanted: &[bool]) -> Vec<Option<FlexTensor>> {
        let saved = saved.into_iter().zip(wanted);
        saved
            .map(|(saved, &wanted)| {
                wanted.then(|| with_float!(grad, T => scaled::<T>(saved, values::<T>(&grad)[0])))
            })
            .collect()
    }
}
