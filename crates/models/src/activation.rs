//! The activations between the two layers of a feed-forward part.

use lowrank_tensor::Tensor;
use lowrank_tensor::ops::{self, Gelu};

use crate::ModelError;
use crate::keys::bad;

/// What stands between two linear layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub enum Activation {
    /// `x·Φ(x)`: `gelu`.
    Gelu,
    /// GELU with its authors' tanh: `gelu_new`, `gelu_pytorch_tanh`.
    GeluTanh,
    /// `max(x, 0)`: `relu`.
    Relu,
}

impl Activation {
    /// By its name in `config.json`.
    ///
    /// # Errors
    /// [`ModelError::BadKey`] for any other.
    pub(crate) fn of(key: &'static str, name: &str) -> Result<Activation, ModelError> {
        match name {
            "gelu" => Ok(Activation::Gelu),
            "gelu_new" | "gelu_pytorch_tanh" => Ok(Activation::GeluTanh),
            "relu" => Ok(Activation::Relu),
            other => {
                Err(bad(key, other, "supported activations are gelu, gelu_new, gelu_pytorch_tanh and relu"))
            }
        }
    }

    /// Value by value: `[n, f] -> [n, f]`.
    #[must_use]
    pub(crate) fn apply(self, x: Tensor<2>) -> Tensor<2> {
        match self {
            Activation::Gelu => ops::gelu(x, Gelu::Exact),
            Activation::GeluTanh => ops::gelu(x, Gelu::Tanh),
            Activation::Relu => x.clamp_min(0.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lowrank_tensor::{Var, cpu, to_rows};

    #[test]
    fn relu_passes_what_is_positive_and_its_gradient() {
        let x = Var::new(vec![-1.5, 2.0, -0.25, 0.5], [2, 2], &cpu());
        let y = Activation::Relu.apply(x.tensor());
        assert_eq!(to_rows(y.clone()), [0.0, 2.0, 0.0, 0.5]);
        let mut gradients = (y * 3.0).sum().backward();
        assert_eq!(to_rows(x.take_gradient(&mut gradients).unwrap()), [0.0, 3.0, 0.0, 3.0]);
    }

    #[test]
    fn an_activation_of_another_network_is_refused() {
        let message = Activation::of("hidden_act", "swish").unwrap_err().to_string();
        assert!(message.contains("\"hidden_act\" is swish"), "{message}");
    }
}
