//! How residuals count: by their squares, or by their size.

use serde::{Deserialize, Serialize};

/// How residuals `r_i = ⟨A_i, X⟩ − y_i` count, for measurements of unit u ([`super::Measurement::unit`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
pub enum Loss {
    /// `f = (u²/2m)·Σ r²`, close to `½·‖X − X*‖²_F` for near-isotropic measurements. Best for Gaussian noise; one gross error
    /// moves it without bound.
    #[serde(rename = "l2")]
    #[value(name = "l2")]
    Squared,
    /// `f = (u/m)·Σ |r|`, close to `√(2/π)·‖X − X*‖_F`. An error moves it by its sign only, however large (Ma and Fattahi, 2023).
    #[serde(rename = "l1")]
    #[value(name = "l1")]
    Absolute,
}

impl Loss {
    /// The weight of `A_i` in the (sub-)gradient D of the matrix: `u²·r/m` or `u·sign(r)/m`, with `sign(0) = 0`.
    #[must_use]
    pub fn weight(self, residual: f64, unit: f64, count: usize) -> f64 {
        let count = count as f64;
        match self {
            Loss::Squared => unit * unit * residual / count,
            Loss::Absolute if residual > 0.0 => unit / count,
            Loss::Absolute if residual < 0.0 => -unit / count,
            // Zero, and NaN, which the loss itself shows.
            Loss::Absolute => 0.0,
        }
    }

    /// The loss of all residuals.
    #[must_use]
    pub fn value(self, residuals: impl Iterator<Item = f64>, unit: f64, count: usize) -> f64 {
        let count = count as f64;
        match self {
            Loss::Squared => 0.5 * unit * unit * residuals.map(|r| r * r).sum::<f64>() / count,
            Loss::Absolute => unit * residuals.map(f64::abs).sum::<f64>() / count,
        }
    }

    /// From a loss to a size that is linear in the residuals.
    #[must_use]
    pub fn size(self, loss: f64) -> f64 {
        match self {
            Loss::Squared => (2.0 * loss).sqrt(),
            Loss::Absolute => loss,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Loss;

    #[test]
    fn weights_are_the_derivatives_of_the_values() {
        for (loss, at) in [(Loss::Squared, 0.7), (Loss::Absolute, 0.7), (Loss::Absolute, -0.2)] {
            let value = |r: f64| loss.value([r, 3.0].into_iter(), 1.5, 2);
            let slope = (value(at + 1e-6) - value(at - 1e-6)) / 2e-6;
            assert!((slope - loss.weight(at, 1.5, 2)).abs() < 1e-9, "{loss:?}");
        }
        assert_eq!(Loss::Absolute.weight(0.0, 1.0, 1), 0.0);
        assert_eq!(Loss::Squared.size(Loss::Squared.value([3.0, 4.0].into_iter(), 1.0, 1)), 5.0);
    }
}
