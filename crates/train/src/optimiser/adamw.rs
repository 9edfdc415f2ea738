//! Adam with decoupled weight decay, element by element, at update `t` (from 1):
//!
//! ```text
//! m ← β₁·m + (1 − β₁)·g            v ← β₂·v + (1 − β₂)·g²
//! θ ← θ − η·( (m / (1 − β₁ᵗ)) / (√(v / (1 − β₂ᵗ)) + ε) + λ·θ )
//! ```
//!
//! I. Loshchilov, F. Hutter, "Decoupled Weight Decay Regularization", 2019, <https://arxiv.org/abs/1711.05101>,
//! algorithm 2.
//!
//! Where we differ: the paper multiplies λ by the schedule alone; we multiply by the whole rate η, as the common
//! libraries do, so that published settings of λ carry over. All of a step happens in one pass over the memory.

use lowrank_record::{Choice, Source};
use serde::{Deserialize, Serialize};

use super::{Buffer, Optimiser, OptimiserCard, Update, at_rest};
use crate::TrainError;

/// What AdamW is.
pub(super) const CARD: OptimiserCard = OptimiserCard {
    name: "adamw",
    summary: "θ − η·(m̂ / (√v̂ + ε) + λ·θ): steps scaled by running moments of the gradient, weight decay apart from them.",
    source: Source {
        authors: "Loshchilov, Hutter",
        title: "Decoupled Weight Decay Regularization",
        year: 2019,
        link: "https://arxiv.org/abs/1711.05101",
    },
    choices: &[
        Choice {
            name: "beta1",
            default: "0.9",
            values: "0 to below 1",
            meaning: "memory of the mean gradient; larger is smoother and slower to turn",
        },
        Choice {
            name: "beta2",
            default: "0.999",
            values: "0 to below 1",
            meaning: "memory of the squared gradient; larger is steadier",
        },
        Choice {
            name: "epsilon",
            default: "1e-8",
            values: "above 0",
            meaning: "added to the root of the second moment; larger damps parameters with tiny gradients",
        },
    ],
    notes: &["weight decay is multiplied by the whole learning rate, not by the schedule alone"],
};

/// Settings of AdamW.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdamW {
    /// β₁, 0 to below 1: memory of the mean gradient; larger is smoother and slower to turn.
    pub beta1: f64,
    /// β₂, 0 to below 1: memory of the squared gradient; larger is steadier.
    pub beta2: f64,
    /// ε, above 0: larger damps parameters with tiny gradients.
    pub epsilon: f64,
}

impl Default for AdamW {
    fn default() -> Self {
        AdamW { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 }
    }
}

impl AdamW {
    pub(super) fn check(&self) -> Result<(), TrainError> {
        for (field, beta) in [("optimiser.beta1", self.beta1), ("optimiser.beta2", self.beta2)] {
            if !(0.0..1.0).contains(&beta) {
                return Err(TrainError::setting(field, beta, "at least 0 and below 1"));
            }
        }
        // The smallest normal f32: below it ε would be lost in the f32 arithmetic of a step, and 0/0 becomes possible.
        if !(self.epsilon >= f64::from(f32::MIN_POSITIVE) && self.epsilon.is_finite()) {
            return Err(TrainError::setting(
                "optimiser.epsilon",
                self.epsilon,
                "at least 1.2e-38 and finite",
            ));
        }
        Ok(())
    }

    pub(super) fn build(self, sizes: &[usize]) -> Box<dyn Optimiser> {
        Box::new(State { settings: self, first: at_rest(sizes), second: at_rest(sizes) })
    }
}

/// Running moments of each parameter.
struct State {
    settings: AdamW,
    first: Vec<Vec<f32>>,
    second: Vec<Vec<f32>>,
}

impl Optimiser for State {
    fn update(&mut self, index: usize, value: &mut [f32], gradient: &[f32], update: Update) {
        let AdamW { beta1, beta2, epsilon } = self.settings;
        // Bias corrections in f64: 1 − 0.999 in f32 has four good digits.
        let count = update.count as f64;
        let correction1 = 1.0 - beta1.powf(count);
        let correction2 = 1.0 - beta2.powf(count);
        let length = (update.rate / correction1) as f32;
        let inverse_root = (1.0 / correction2.sqrt()) as f32;
        let shrink = (update.rate * update.decay) as f32;
        let scale = update.scale as f32;
        let (keep1, take1) = (beta1 as f32, (1.0 - beta1) as f32);
        let (keep2, take2) = (beta2 as f32, (1.0 - beta2) as f32);
        let epsilon = epsilon as f32;

        let moments = self.first[index].iter_mut().zip(&mut self.second[index]);
        for ((value, &gradient), (first, second)) in value.iter_mut().zip(gradient).zip(moments) {
            let gradient = gradient * scale;
            *first = keep1 * *first + take1 * gradient;
            *second = keep2 * *second + take2 * gradient * gradient;
            let denominator = second.sqrt() * inverse_root + epsilon;
            // Decay and step are added before they meet the value: one rounding, and `1 − rate·decay`, which f32
            // cannot hold for the usual tiny products, is never formed.
            *value -= length * *first / denominator + shrink * *value;
        }
    }

    fn buffers(&mut self) -> Vec<Buffer<'_>> {
        vec![("first", &mut self.first), ("second", &mut self.second)]
    }
}

#[cfg(test)]
mod tests {
    use super::AdamW;
    use crate::optimiser::Update;
    use lowrank_record::Seed;

    /// β₁ = ½, β₂ = ¾, ε = 1, rate ½, no decay, θ₀ = 2, gradients 4, 0, −2, worked by hand:
    ///
    /// | t | m | v | m̂ | v̂ | step ½·m̂ / (√v̂ + 1) |
    /// | --- | --- | --- | --- | --- | --- |
    /// | 1 | 2 | 4 | 4 | 16 | 2/5 |
    /// | 2 | 1 | 3 | 4/3 | 48/7 | (2/3) / (√(48/7) + 1) |
    /// | 3 | −½ | 13/4 | −4/7 | 208/37 | (−2/7) / (√(208/37) + 1) |
    #[test]
    fn three_steps_by_hand() {
        let mut state = AdamW { beta1: 0.5, beta2: 0.75, epsilon: 1.0 }.build(&[1]);
        let mut value = [2.0_f32];
        let mut expected = 2.0_f64;
        let steps = [
            2.0 / 5.0,
            (2.0 / 3.0) / ((48.0_f64 / 7.0).sqrt() + 1.0),
            (-2.0 / 7.0) / ((208.0_f64 / 37.0).sqrt() + 1.0),
        ];
        for (index, (gradient, step)) in [4.0, 0.0, -2.0].into_iter().zip(steps).enumerate() {
            let update = Update { count: index as u64 + 1, rate: 0.5, decay: 0.0, scale: 1.0 };
            state.update(0, &mut value, &[gradient], update);
            expected -= step;
            assert!((f64::from(value[0]) - expected).abs() < 1e-6, "step {index}: {value:?}, {expected}");
        }
    }

    /// Algorithm 2 line by line in f64, nothing fused.
    fn reference(
        settings: AdamW,
        start: &[f32],
        gradients: &[Vec<f32>],
        rates: &[f64],
        decay: f64,
        scale: f64,
    ) -> Vec<f64> {
        let mut value: Vec<f64> = start.iter().map(|&x| f64::from(x)).collect();
        let (mut m, mut v) = (vec![0.0; start.len()], vec![0.0; start.len()]);
        for (t, (gradient, rate)) in gradients.iter().zip(rates).enumerate() {
            for i in 0..start.len() {
                let g = f64::from(gradient[i]) * scale;
                m[i] = settings.beta1 * m[i] + (1.0 - settings.beta1) * g;
                v[i] = settings.beta2 * v[i] + (1.0 - settings.beta2) * g.powi(2);
                let m_hat = m[i] / (1.0 - settings.beta1.powi(t as i32 + 1));
                let v_hat: f64 = v[i] / (1.0 - settings.beta2.powi(t as i32 + 1));
                value[i] =
                    value[i] - rate * decay * value[i] - rate * m_hat / (v_hat.sqrt() + settings.epsilon);
            }
        }
        value
    }

    #[test]
    fn agrees_with_the_paper_in_f64() {
        let settings = AdamW { beta1: 0.8, beta2: 0.97, epsilon: 1e-6 };
        let (decay, scale, size) = (0.3, 1.0 / 7.0, 37);
        let start = Seed(1).normal(size);
        let gradients: Vec<Vec<f32>> = (0..50).map(|t| Seed(100 + t).normal(size)).collect();
        let rates: Vec<f64> = (0..50).map(|t| 0.02 / (1.0 + 0.1 * f64::from(t))).collect();
        let mut state = settings.build(&[3, size]);
        let mut value = start.clone();
        for (t, (gradient, &rate)) in gradients.iter().zip(&rates).enumerate() {
            state.update(1, &mut value, gradient, Update { count: t as u64 + 1, rate, decay, scale });
        }
        let wanted = reference(settings, &start, &gradients, &rates, decay, scale);
        for (got, wanted) in value.iter().zip(&wanted) {
            assert!((f64::from(*got) - wanted).abs() < 2e-6 * wanted.abs().max(1.0), "{got}, {wanted}");
        }
    }

    #[test]
    fn decay_does_not_pass_through_the_moments() {
        // No gradient: plain Adam with L2 would take a full step; decoupled decay shrinks by rate · decay.
        let mut state = AdamW::default().build(&[2]);
        let mut value = [4.0_f32, -8.0];
        state.update(0, &mut value, &[0.0, 0.0], Update { count: 1, rate: 0.5, decay: 0.25, scale: 1.0 });
        assert_eq!(value, [3.5, -7.0]);
    }
}
