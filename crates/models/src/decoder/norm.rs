//! The norms of a decoder: RMSNorm, or LayerNorm where there is a bias.

use lowrank_tensor::ops;
use lowrank_tensor::{Device, Tensor, Var, to_rows};

/// A vector `[1, d]` of a norm, frozen or trained.
pub(super) enum Gain {
    Frozen(Box<Tensor<2>>),
    Trained(Var),
}

impl Gain {
    /// The vector for a hidden state: recorded only where the state is, see [`lowrank_adapt::Linear::forward`].
    fn beside(&self, h: &Tensor<2>) -> Tensor<2> {
        match self {
            Gain::Frozen(tensor) => Tensor::clone(tensor),
            Gain::Trained(var) if h.is_autodiff() => var.tensor(),
            Gain::Trained(var) => var.tensor().inner(),
        }
    }

    /// Makes the vector trainable.
    fn train(&mut self, device: &Device) -> Var {
        let var = match self {
            Gain::Trained(var) => var.clone(),
            Gain::Frozen(tensor) => {
                let width = tensor.dims()[1];
                Var::new(to_rows(Tensor::clone(tensor)), [1, width], device)
            }
        };
        *self = Gain::Trained(var.clone());
        var
    }
}

/// A norm over the width of the hidden state.
pub(super) struct Norm {
    pub(super) gain: Gain,
    /// Where there is one, the mean is taken out too.
    pub(super) bias: Option<Gain>,
}

impl Norm {
    /// `[n, d] -> [n, d]`.
    pub(super) fn apply(&self, h: Tensor<2>, epsilon: f64) -> Tensor<2> {
        let gain = self.gain.beside(&h);
        match &self.bias {
            None => ops::rms_norm(h, gain, epsilon),
            Some(bias) => {
                let bias = bias.beside(&h);
                ops::layer_norm(h, gain, bias, epsilon)
            }
        }
    }

    pub(super) fn is_trained(&self) -> bool {
        [Some(&self.gain), self.bias.as_ref()]
            .into_iter()
            .flatten()
            .any(|each| matches!(each, Gain::Trained(_)))
    }

    /// Makes gain and bias trainable: each with the end of its name.
    pub(super) fn train(&mut self, device: &Device) -> Vec<(&'static str, Var)> {
        let mut all = vec![("weight", self.gain.train(device))];
        all.extend(self.bias.as_mut().map(|bias| ("bias", bias.train(device))));
        all
    }
}
