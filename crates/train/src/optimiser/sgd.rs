//! Stochastic gradient descent with momentum, element by element:
//!
//! ```text
//! b ← μ·b + g        θ ← θ − η·(b + λ·θ)                 (Nesterov: g + μ·b in place of b)
//! ```
//!
//! I. Sutskever, J. Martens, G. Dahl, G. Hinton, "On the importance of initialization and momentum in deep learning",
//! 2013, equations 1 to 4, in the form where the rate multiplies the buffer on its way out, so that a schedule acts at
//! once. Decay as in I. Loshchilov, F. Hutter, "Decoupled Weight Decay Regularization", 2019, algorithm 1.
//!
//! Where we differ: the common libraries add λ·θ to the gradient, so that it passes through the momentum; here decay
//! means the same for every optimiser.

use lowrank_record::{Choice, Source};
use serde::{Deserialize, Serialize};

use super::{Buffer, Optimiser, OptimiserCard, Update, at_rest};
use crate::TrainError;

/// What SGD is.
pub(super) const CARD: OptimiserCard = OptimiserCard {
    name: "sgd",
    summary: "θ − η·(b + λ·θ) with b ← μ·b + g: plain gradient steps, with momentum where asked.",
    source: Source {
        authors: "Sutskever, Martens, Dahl, Hinton",
        title: "On the importance of initialization and momentum in deep learning",
        year: 2013,
        link: "https://proceedings.mlr.press/v28/sutskever13.html",
    },
    choices: &[
        Choice {
            name: "momentum",
            default: "0.0",
            values: "0 to below 1",
            meaning: "memory of past gradients; larger goes further in a steady direction",
        },
        Choice {
            name: "nesterov",
            default: "false",
            values: "true, false",
            meaning: "look ahead along the momentum; needs momentum above 0",
        },
    ],
    notes: &["weight decay is decoupled: it does not pass through the momentum"],
};

/// Settings of SGD.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sgd {
    /// μ, 0 to below 1: larger goes further in a steady direction; 0 keeps no state.
    pub momentum: f64,
    /// Look ahead along the momentum.
    pub nesterov: bool,
}

impl Sgd {
    pub(super) fn check(&self) -> Result<(), TrainError> {
        if !(0.0..1.0).contains(&self.momentum) {
            return Err(TrainError::setting("optimiser.momentum", self.momentum, "at least 0 and below 1"));
        }
        if self.nesterov && self.momentum == 0.0 {
            return Err(TrainError::setting(
                "optimiser.nesterov",
                true,
                "false where optimiser.momentum is 0",
            ));
        }
        Ok(())
    }

    pub(super) fn build(self, sizes: &[usize]) -> Box<dyn Optimiser> {
        let buffer = (self.momentum > 0.0).then(|| at_rest(sizes));
        Box::new(State { settings: self, buffer })
    }
}

/// The momentum buffer of each parameter; none where momentum is 0.
struct State {
    settings: Sgd,
    buffer: Option<Vec<Vec<f32>>>,
}

impl Optimiser for State {
    fn update(&mut self, index: usize, value: &mut [f32], gradient: &[f32], update: Update) {
        let momentum = self.settings.momentum as f32;
        let ahead = self.settings.nesterov;
        let rate = update.rate as f32;
        let shrink = (update.rate * update.decay) as f32;
        let scale = update.scale as f32;
        let Some(buffer) = &mut self.buffer else {
            for (value, &gradient) in value.iter_mut().zip(gradient) {
                *value -= rate * (gradient * scale) + shrink * *value;
            }
            return;
        };
        for ((value, &gradient), buffer) in value.iter_mut().zip(gradient).zip(&mut buffer[index]) {
            let gradient = gradient * scale;
            *buffer = momentum * *buffer + gradient;
            let direction = if ahead { gradient + momentum * *buffer } else { *buffer };
            *value -= rate * direction + shrink * *value;
        }
    }

    fn buffers(&mut self) -> Vec<Buffer<'_>> {
        self.buffer.iter_mut().map(|buffer| ("momentum", buffer)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Sgd;
    use crate::optimiser::Update;

    /// Rate ½, gradients 4, −2, 6 seen at scale ½, that is 2, −1, 3; start 16.
    fn check(settings: Sgd, decay: f64, expected: [f32; 3]) {
        let mut state = settings.build(&[1]);
        let mut value = [16.0_f32];
        for (index, gradient) in [4.0, -2.0, 6.0].into_iter().enumerate() {
            let update = Update { count: index as u64 + 1, rate: 0.5, decay, scale: 0.5 };
            state.update(0, &mut value, &[gradient], update);
            assert_eq!(value[0], expected[index], "{settings:?}, step {index}");
        }
        assert_eq!(state.buffers().len(), usize::from(settings.momentum > 0.0));
    }

    #[test]
    fn three_steps_by_hand() {
        check(Sgd::default(), 0.0, [15.0, 15.5, 14.0]);
        // Each value loses a quarter besides: 16 − 1 − 4 = 11, 11 + ½ − 2¾ = 8¾, 8¾ − 1½ − 2 3/16 = 5 1/16.
        check(Sgd::default(), 0.5, [11.0, 8.75, 5.0625]);
        // b: 2, 0, 3.
        check(Sgd { momentum: 0.5, nesterov: false }, 0.0, [15.0, 15.0, 13.5]);
        // b: 2, 0, 3; directions 2 + 1 = 3, −1 + 0 = −1, 3 + 1½ = 4½.
        check(Sgd { momentum: 0.5, nesterov: true }, 0.0, [14.5, 15.0, 12.75]);
    }

    #[test]
    fn decay_does_not_pass_through_the_momentum() {
        let mut state = Sgd { momentum: 0.5, nesterov: false }.build(&[1]);
        let mut value = [8.0_f32];
        for (count, expected) in [(1, 6.0), (2, 4.5)] {
            state.update(0, &mut value, &[0.0], Update { count, rate: 0.5, decay: 0.5, scale: 1.0 });
            assert_eq!(value[0], expected);
        }
    }
}
