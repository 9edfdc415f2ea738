//! The check behind every written adapter and merged model: do the logits agree?

use lowrank_tensor::ops::Layout;
use lowrank_tensor::to_rows;

use crate::error::Because;
use crate::{AppError, Model};

/// Logits may differ by this part of the largest logit where numbers were only regrouped in f32.
pub(crate) const TOLERANCE: f64 = 1e-4;

/// Logits of a fixed sequence, spread over the vocabulary.
pub(crate) fn sample_logits(model: &Model) -> Result<Vec<f32>, AppError> {
    let config = &model.decoder.config;
    let time = 16.min(config.context);
    let tokens: Vec<u32> =
        (0..2 * time).map(|index| ((index * 7919 + 13) % config.vocabulary) as u32).collect();
    let logits = model.decoder.logits(&tokens, &Layout::dense(2, time)).while_doing("running the model")?;
    Ok(to_rows(logits))
}

/// The largest absolute logit, for judging differences; at least 1.
pub(crate) fn size(logits: &[f32]) -> f64 {
    logits.iter().map(|&logit| f64::from(logit).abs()).fold(1.0, f64::max)
}

/// The largest absolute difference; NaN if one of them is not a number.
pub(crate) fn largest_difference(a: &[f32], b: &[f32]) -> f64 {
    let differences = a.iter().zip(b).map(|(&a, &b)| (f64::from(a) - f64::from(b)).abs());
    differences.fold(0.0, |most, next| if next.is_nan() || most.is_nan() { f64::NAN } else { most.max(next) })
}

#[cfg(test)]
mod tests {
    use super::largest_difference;

    #[test]
    fn a_difference_that_is_not_a_number_is_not_hidden() {
        assert_eq!(largest_difference(&[1.0, 2.0], &[1.5, 2.0]), 0.5);
        assert!(largest_difference(&[1.0, f32::NAN, 0.0], &[1.0, 2.0, 3.0]).is_nan());
    }
}
