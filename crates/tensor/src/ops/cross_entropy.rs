//! Next-token cross-entropy over vocabulary chunks, without the logits `[n, V]` in memory.
//!
//! Rows without a target are dropped first. For a chunk of rows the logits are formed, turned into `softmax − onehot`
//! in place and multiplied by the head at once: since the head is frozen, the gradient of the hidden states is known
//! in the forward pass, which costs two products in all. Saved: that gradient, `[n, d]`.

use std::sync::Arc;

use burn::tensor::Tensor;

use crate::fused::{FlexTensor, Fused, run1, run2, tensor, values};
use crate::kernels::{Real, SliceRows, cross_entropy as kernel};
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

/// `Σ wᵢ · −log p(targetᵢ | hᵢ)`, a single value, with a frozen head.
///
/// # Shapes
/// `h: [n, d]`, `head: [V, d]`, `targets: n` -> `[1]`.
///
/// # Errors
/// [`TargetError`] when a target lies outside the vocabulary.
pub fn cross_entropy(h: Tensor<2>, head: &Matrix, targets: &Targets) -> Result<Tensor<1>, TargetError> {
    kernel::check(&targets.ids, head.shape()[0])?;
    if !is_cpu(&h.device()) {
        let head = composed::widen(head, &h.device().without_autodiff());
        return Ok(composed::cross_entropy(h, head, targets));
    }
    Ok(run1(h, CrossEntropy { head: Some(head.clone()), targets: targets.clone() }))
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

/// `−log p(targetᵢ | hᵢ)` of each row, 0 where the row carries no loss; inference only.
///
/// # Errors
/// [`TargetError`] when a target lies outside the vocabulary.
pub fn log_likelihoods(h: Tensor<2>, head: &Matrix, targets: &[i32]) -> Result<Vec<f32>, TargetError> {
    kernel::check(targets, head.shape()[0])?;
    let h = crate::to_rows(h);
    let outcome = kernel::forward::<f32>(&h, head, targets, None, kernel::Wanted { dh: false, dw: false })?;
    Ok(outcome.nll)
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
    let head = SliceRows { values: &head, cols };
    let outcome = kernel::forward::<f32>(&h, &head, targets, None, kernel::Wanted { dh: false, dw: false })?;
    Ok(outcome.nll)
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
struct CrossEntropy {
    /// The frozen head; with a trained one it is the second input.
    head: Option<Matrix>,
    targets: Targets,
}

impl CrossEntropy {
    fn run<T: Real>(&self, inputs: &[FlexTensor], keep: bool) -> (FlexTensor, Vec<FlexTensor>) {
        let (n, d) = (inputs[0].layout().shape()[0], inputs[0].layout().shape()[1]);
        let weights: Option<Vec<T>> = self
            .targets
            .weights
            .as_ref()
            .map(|weights| weights.iter().map(|&w| T::from_f64(f64::from(w))).collect());
        let wanted = kernel::Wanted { dh: keep, dw: keep && self.head.is_none() };
        let (h, ids) = (values::<T>(&inputs[0]), &self.targets.ids);
        let outcome = match &self.head {
            Some(head) => kernel::forward(h, head, ids, weights.as_deref(), wanted),
            None => {
                let rows = SliceRows { values: values::<T>(&inputs[1]), cols: d };
                kernel::forward(h, &rows, ids, weights.as_deref(), wanted)
            }
        };
        // The targets were checked before the operation was made.
        let Ok(outcome) = outcome else { unreachable!("a checked target lies outside the vocabulary") };
        let mut saved = Vec::new();
        if let Some(dh) = outcome.dh {
            saved.push(tensor(dh, &[n, d]));
        }
        if let Some(dw) = outcome.dw {
            let v = dw.len() / d.max(1);
            saved.push(tensor(dw, &[v, d]));
        }
        (tensor(vec![T::from_f64(outcome.loss)], &[1]), saved)
    }
}

/// Multiplies in place by the gradient of the loss value, which is almost always 1.
fn scaled<T: Real>(mut saved: FlexTensor, by: T) -> FlexTensor {
    if by != T::ONE {
        for value in saved.storage_mut::<T>() {
            *value *= by;
        }
    }
    saved
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
