//! Perplexity: `exp` of the mean `−log p` of the tokens that carry loss.

use lowrank_models::{Decoder, ModelError};
use lowrank_task::Batch;

/// How well a model predicts a text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Perplexity {
    /// Mean loss, nats per token.
    pub loss: f64,
    /// `e^loss`.
    pub perplexity: f64,
    /// Tokens that carry loss.
    pub tokens: u64,
}

impl Perplexity {
    /// From a sum of losses in nats; `None` when no token carries loss.
    #[must_use]
    pub fn of(loss_sum: f64, tokens: u64) -> Option<Perplexity> {
        let loss = loss_sum / tokens as f64;
        (tokens > 0).then(|| Perplexity { loss, perplexity: loss.exp(), tokens })
    }
}

/// Perplexity on batches, summed in f64; `each` sees the number of batches done. `None` when no token carries loss.
///
/// # Errors
/// [`ModelError`] for tokens outside the vocabulary or rows beyond the context.
pub fn perplexity(
    model: &Decoder,
    batches: &[Batch],
    each: &mut dyn FnMut(usize),
) -> Result<Option<Perplexity>, ModelError> {
    let (mut sum, mut tokens) = (0.0, 0);
    for (index, batch) in batches.iter().enumerate() {
        let layout = lowrank_tensor::ops::Layout {
            batch: batch.batch,
            time: batch.time,
            positions: batch.positions.clone().into(),
            starts: batch.starts.clone().into(),
        };
        let losses = model.log_likelihoods(&batch.tokens, &batch.targets, &layout)?;
        sum += losses.iter().map(|&loss| f64::from(loss)).sum::<f64>();
        tokens += batch.loss_tokens() as u64;
        each(index + 1);
    }
    Ok(Perplexity::of(sum, tokens))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uniform_guess_has_the_perplexity_of_the_vocabulary() {
        let tokens = 7;
        let guess = Perplexity::of(tokens as f64 * 512.0_f64.ln(), tokens).unwrap();
        assert!((guess.perplexity - 512.0).abs() < 1e-9);
        assert_eq!(Perplexity::of(0.0, 0), None);
    }
}
