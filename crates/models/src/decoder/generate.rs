//! Text generation: greedy, or sampled with temperature, top-k and top-p.

use rand::RngExt;

use lowrank_record::Seed;

use super::Decoder;
use crate::ModelError;

/// How the next token is chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// 0 takes the likeliest token; larger values flatten the distribution.
    pub temperature: f64,
    /// Only the k likeliest tokens take part; 0 is no limit.
    pub top_k: usize,
    /// Only the likeliest tokens that together reach this probability take part (Holtzman et al., 2020); 1 is no limit.
    pub top_p: f64,
    /// Where the draws come from.
    pub seed: Seed,
}

impl Sampling {
    /// Always the likeliest token.
    pub const GREEDY: Sampling = Sampling { temperature: 0.0, top_k: 0, top_p: 1.0, seed: Seed(0) };
}

impl Decoder {
    /// Continues a prompt by at most `limit` tokens; ends early at a token of `stop`, at the end of the context, or when
    /// `each` returns false. The stop token is not returned.
    ///
    /// # Errors
    /// [`ModelError::Token`], [`ModelError::Context`], or [`ModelError::NotFinite`] when the model computes NaN.
    pub fn generate(
        &self,
        prompt: &[u32],
        limit: usize,
        stop: &[u32],
        sampling: &Sampling,
        each: &mut dyn FnMut(u32) -> bool,
    ) -> Result<Vec<u32>, ModelError> {
        let mut rng = sampling.seed.at("generate", "tokens").rng();
        let mut cache = self.cache();
        let mut generated = Vec::new();
        let mut input = prompt.to_vec();
        while generated.len() < limit && !input.is_empty() {
            let logits = self.next_logits(&input, &mut cache)?;
            // NaN has no order: whatever were chosen from it would look like an answer.
            if !logits.iter().all(|logit| logit.is_finite()) {
                return Err(ModelError::NotFinite { seen: cache.seen() });
            }
            let token = choose(&logits, sampling, || rng.random::<f64>());
            if stop.contains(&token) {
                break;
            }
            generated.push(token);
            if !each(token) || cache.seen() >= self.config.context {
                break;
            }
            input = vec![token];
        }
        Ok(generated)
    }
}

/// The index of the largest logit; the lowest on a tie.
fn argmax(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (index, &logit) in logits.iter().enumerate() {
        if logit > logits[best] {
            best = index;
        }
    }
    best as u32
}

fn choose(logits: &[f32], sampling: &Sampling, draw: impl FnOnce() -> f64) -> u32 {
    if sampling.temperature <= 0.0 {
        return argmax(logits);
    }
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    // Stable, so ties keep the order of the vocabulary.
    order.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]));
    if sampling.top_k > 0 {
        order.truncate(sampling.top_k);
    }
    let Some(&first) = order.first() else { return 0 };
    let largest = f64::from(logits[first as usize]);
    let weight = |token: u32| ((f64::from(logits[token as usize]) - largest) / sampling.temperature).exp();
    let total: f64 = order.iter().map(|&token| weight(token)).sum();
    let mut kept = 0.0;
    let nucleus = order.iter().position(|&token| {
        kept += weight(token) / total;
        kept >= sampling.top_p
    });
    order.truncate(nucleus.map_or(order.len(), |last| last + 1));
    let total: f64 = order.iter().map(|&token| weight(token)).sum();
    let mut left = draw() * total;
    for &token in &order {
        left -= weight(token);
        if left < 0.0 {
            return token;
        }
    }
    order.last().copied().unwrap_or(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 4] = [1.0, 3.0, 3.0, -2.0];

    fn with(temperature: f64, top_k: usize, top_p: f64) -> Sampling {
        Sampling { temperature, top_k, top_p, seed: Seed(1) }
    }

    #[test]
    fn greedy_takes_the_first_of_the_largest() {
        assert_eq!(choose(&LOGITS, &Sampling::GREEDY, || 0.99), 1);
    }

    #[test]
    fn draws_follow_the_softmax() {
        let sampling = with(1.0, 0, 1.0);
        let mut counts = [0; 4];
        for step in 0..10_000 {
            counts[choose(&LOGITS, &sampling, || (f64::from(step) + 0.5) / 10_000.0) as usize] += 1;
        }
        let total: f64 = LOGITS.iter().map(|&l| f64::from(l).exp()).sum();
        for (count, logit) in counts.iter().zip(LOGITS) {
            assert!((f64::from(*count) / 10_000.0 - f64::from(logit).exp() / total).abs() < 2e-4);
        }
    }

    #[test]
    fn top_k_and_top_p_leave_the_tail_out() {
        for step in 0..100 {
            let draw = || f64::from(step) / 100.0;
            assert!([1, 2].contains(&choose(&LOGITS, &with(5.0, 2, 1.0), draw)));
            assert_eq!(choose(&LOGITS, &with(1.0, 0, 0.3), draw), 1);
        }
    }
}
