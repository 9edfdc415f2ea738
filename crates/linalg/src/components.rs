//! The leading components of a set of rows: what [`crate::Moments`] and [`crate::IncrementalSvd`] both give.

use faer::Mat;

use crate::svd::Svd;

/// The leading right singular vectors of the rows `X [n, in]` seen, about their mean or about zero, descending, signs fixed.
#[derive(Debug, Clone, PartialEq)]
pub struct Components {
    /// Rows seen.
    pub rows: u64,
    /// The mean row, `[in]`.
    pub mean: Vec<f64>,
    /// Whether they are about the mean.
    pub centred: bool,
    /// Singular values of X (less its mean, if centred), descending.
    pub values: Vec<f64>,
    /// The components, `[k, in]`, orthonormal rows.
    pub right: Mat<f32>,
    /// `Σ ‖x − μ‖²` (or `Σ ‖x‖²`) over all rows seen, also of what no component holds.
    pub energy: f64,
    /// Whether they come from all of the second moment, rather than from an incremental decomposition that was cut.
    pub exact: bool,
    /// Whether the iteration that found them ran to its end: `false` where it was stopped first, in a spectrum too flat to have
    /// leading components, so that they hold less than the best would. Always `true` of a whole decomposition.
    pub converged: bool,
    /// How far they had settled: [`crate::IncrementalSvd::cosines`] of the last update. `None` where they come from moments, or from
    /// a single update.
    pub cosines: Option<Vec<f64>>,
    /// The same by what they hold: [`crate::IncrementalSvd::carried`].
    pub carried: Option<Vec<f64>>,
}

impl Components {
    /// Of moments; fixes the signs.
    pub(crate) fn new(
        rows: u64,
        mean: Vec<f64>,
        centred: bool,
        values: Vec<f64>,
        right: Mat<f32>,
        energy: f64,
    ) -> Components {
        let mut signed = Svd { left: Mat::zeros(0, values.len()), values, right };
        signed.fix_signs();
        let Svd { values, right, .. } = signed;
        Components {
            rows,
            mean,
            centred,
            values,
            right,
            energy,
            exact: true,
            converged: true,
            cosines: None,
            carried: None,
        }
    }

    /// How many.
    #[must_use]
    pub fn count(&self) -> usize {
        self.values.len()
    }

    /// Entries of a row (`in`).
    #[must_use]
    pub fn width(&self) -> usize {
        self.mean.len()
    }

    /// The leading `count` (all of them when there are fewer).
    #[must_use]
    pub fn head(&self, count: usize) -> Components {
        let count = count.min(self.count());
        Components {
            values: self.values[..count].to_vec(),
            right: self.right.as_ref().subrows(0, count).to_owned(),
            ..self.clone()
        }
    }

    /// The part of all energy seen that each component holds, `σ²/energy`: descending, at most 1 together; 0 where there is none.
    #[must_use]
    pub fn ratios(&self) -> Vec<f64> {
        let of = |value: &f64| if self.energy > 0.0 { value * value / self.energy } else { 0.0 };
        self.values.iter().map(of).collect()
    }

    /// The part of all energy seen that the components hold together, 0 to 1; 1 where there is no energy.
    #[must_use]
    pub fn captured(&self) -> f64 {
        if self.energy > 0.0 { self.ratios().iter().sum::<f64>().min(1.0) } else { 1.0 }
    }
}
