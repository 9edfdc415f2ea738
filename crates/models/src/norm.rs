//! The norms of a frozen network: their gains and biases stay as they are.

use lowrank_tensor::{Tensor, ops};

/// Layer normalisation with gain and bias (Ba et al., "Layer Normalization", 2016).
pub(crate) struct LayerNorm {
    /// `[1, width]`.
    pub(crate) gain: Tensor<2>,
    /// `[1, width]`.
    pub(crate) bias: Tensor<2>,
    /// Added to the variance.
    pub(crate) epsilon: f64,
}

impl LayerNorm {
    /// `[n, width] -> [n, width]`, row by row.
    pub(crate) fn apply(&self, x: Tensor<2>) -> Tensor<2> {
        ops::layer_norm(x, self.gain.clone(), self.bias.clone(), self.epsilon)
    }
}

/// Normalisation by the root mean square, with a gain alone.
pub(crate) struct RmsNorm {
    /// `[1, width]`.
    pub(crate) gain: Tensor<2>,
    /// Added to the mean square.
    pub(crate) epsilon: f64,
}

impl RmsNorm {
    /// `[n, width] -> [n, width]`, row by row.
    pub(crate) fn apply(&self, x: Tensor<2>) -> Tensor<2> {
        ops::rms_norm(x, self.gain.clone(), self.epsilon)
    }
}
