//! Perplexity: `exp` of the mean `−log p` of the tokens that carry loss.

use lowrank_models::{Decoder, ModelError};
use lowrank_task::Batch;
use lowrank_tensor::ops::Layout;

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

/// Perplexity on batches. `each` sees the number of batches done and says whether to go on: what was seen until then
/// counts. `None` when no token carries loss.
///
/// # Errors
/// [`ModelError`] for tokens outside the vocabulary or rows beyond the context.
pub fn perplexity(
    model: &Decoder,
    batches: &[Batch],
    each: &mut dyn FnMut(usize) -> bool,
) -> Result<Option<Perplexity>, ModelError> {
    let (sum, tokens) = total_loss(model, batches, each)?;
    Ok(Perplexity::of(sum, tokens))
}

/// Sum of the losses in nats, in f64, and the number of tokens that carry loss; `each` as for [`perplexity`].
///
/// # Errors
/// [`ModelError`] for tokens outside the vocabulary or rows beyond the context.
pub fn total_loss(
    model: &Decoder,
    batches: &[Batch],
    each: &mut dyn FnMut(usize) -> bool,
) -> Result<(f64, u64), ModelError> {
    let (mut sum, mut tokens) = (0.0, 0);
    for (index, batch) in batches.iter().enumerate() {
        let losses = model.log_likelihoods(&batch.tokens, &batch.targets, &layout(batch))?;
        sum += losses.iter().map(|&loss| f64::from(loss)).sum::<f64>();
        tokens += batch.loss_tokens() as u64;
        if !each(index + 1) {
            break;
        }
    }
    Ok((sum, tokens))
}

/// How a batch lies, for the model.
#[must_use]
pub fn layout(batch: &Batch) -> Layout {
    Layout {
        batch: batch.batch,
        time: batch.time,
        positions: batch.positions.clone().into(),
        starts: batch.starts.clone().into(),
    }
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
