//! What of a loss gradient a start decomposes: the gradient itself, or what an optimiser's first step makes of it.

use faer::{Mat, MatRef};

/// A map of the loss gradient of the whole calibration text, entry by entry.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum GradientMap {
    /// The gradient itself: a step of plain gradient descent.
    #[default]
    Itself,
    /// Its sign, 0 for 0: the first step of Adam without its epsilon.
    Sign,
    /// `g/(|g| + ε)`: the first step of Adam, whose moments are g and g² after bias correction.
    AdamFirstStep {
        /// ε, in units of the gradient of the mean loss.
        epsilon: f64,
    },
}

impl GradientMap {
    /// Whether the map of a sum is the sum of the maps, so that it can be had without the whole gradient.
    #[must_use]
    pub fn is_linear(self) -> bool {
        self == GradientMap::Itself
    }

    /// In words, for errors and reports.
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            GradientMap::Itself => "the gradient itself",
            GradientMap::Sign => "the gradient's sign",
            GradientMap::AdamFirstStep { .. } => "the gradient's first Adam step",
        }
    }

    /// The same map where the gradient is that of a summed loss, `weight` times that of the mean loss: what it gives is then
    /// the map of the mean's gradient (up to that factor for the gradient itself).
    #[must_use]
    pub fn of_sum(self, weight: f64) -> GradientMap {
        match self {
            GradientMap::AdamFirstStep { epsilon } => {
                GradientMap::AdamFirstStep { epsilon: epsilon * weight }
            }
            other => other,
        }
    }

    /// The map of a gradient, `[out, in] -> [out, in]`. What is not a number stays so.
    #[must_use]
    pub fn apply(self, gradient: MatRef<'_, f32>) -> Mat<f32> {
        let of = |g: f32| match self {
            GradientMap::Itself => g,
            // The sign of NaN is NaN, that of 0 (of either sign) is 0.
            GradientMap::Sign if g == 0.0 => 0.0,
            GradientMap::Sign => g.signum(),
            GradientMap::AdamFirstStep { .. } if g == 0.0 => 0.0,
            GradientMap::AdamFirstStep { epsilon } => {
                let g = f64::from(g);
                (g / (g.abs() + epsilon)) as f32
            }
        };
        Mat::from_fn(gradient.nrows(), gradient.ncols(), |i, j| of(gradient[(i, j)]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_map_of_a_few_numbers() {
        let g = Mat::from_fn(1, 4, |_, j| [-3.0_f32, 0.0, 1e-3, -0.0][j]);
        let row = |map: GradientMap| map.apply(g.as_ref()).row(0).iter().copied().collect::<Vec<f32>>();
        assert_eq!(row(GradientMap::Itself), [-3.0, 0.0, 1e-3, -0.0]);
        assert_eq!(row(GradientMap::Sign), [-1.0, 0.0, 1.0, 0.0]);
        let adam = GradientMap::AdamFirstStep { epsilon: 1e-3 };
        assert_eq!(row(adam), [(-3.0_f64 / 3.001) as f32, 0.0, 0.5, 0.0]);
        assert!(GradientMap::Sign.apply(Mat::from_fn(1, 1, |_, _| f32::NAN).as_ref())[(0, 0)].is_nan());
        // Of a sum over eight, the same.
        let eight = faer::Scale(8.0_f32) * &g;
        let of_sum = adam.of_sum(8.0).apply(eight.as_ref());
        assert_eq!(of_sum, adam.apply(g.as_ref()));
        assert!(GradientMap::Itself.is_linear() && !GradientMap::Sign.is_linear() && !adam.is_linear());
    }
}
