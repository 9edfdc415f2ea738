//! Errors with and without outliers.

use serde::Serialize;

/// A residual farther from the median than so many robust deviations (1.4826 times the median of the distances from it, which is
/// the standard deviation of Gaussian residuals) is an outlier.
pub(super) const BEYOND: f64 = 5.0;

/// Sizes of some residuals.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Part {
    /// How many.
    pub count: usize,
    /// Root of the mean square.
    pub rmse: f64,
    /// Mean size.
    pub mae: f64,
}

/// Sizes of residuals, of all and of those that are no outliers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Errors {
    /// All.
    pub all: Part,
    /// Residuals beyond five robust deviations of the median.
    pub outliers: usize,
    /// The robust deviation.
    pub deviation: f64,
    /// All but the outliers.
    pub without: Part,
}

impl Part {
    fn of(residuals: impl Iterator<Item = f64> + Clone) -> Part {
        let count = residuals.clone().count();
        let mean = |sum: f64| if count == 0 { 0.0 } else { sum / count as f64 };
        let rmse = mean(residuals.clone().map(|r| r * r).sum()).sqrt();
        Part { count, rmse, mae: mean(residuals.map(f64::abs).sum()) }
    }
}

impl Errors {
    /// Of residuals.
    pub(super) fn of(residuals: &[f64]) -> Errors {
        let middle = median(residuals);
        let distances: Vec<f64> = residuals.iter().map(|r| (r - middle).abs()).collect();
        let deviation = 1.4826 * median(&distances);
        let kept = residuals.iter().copied().filter(|r| (r - middle).abs() <= BEYOND * deviation);
        let without = Part::of(kept);
        Errors {
            all: Part::of(residuals.iter().copied()),
            outliers: residuals.len() - without.count,
            deviation,
            without,
        }
    }
}

/// The middle of the values, between the two in the middle of an even number; 0 of none.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let n = sorted.len();
    match n {
        0 => 0.0,
        n if n % 2 == 1 => sorted[n / 2],
        n => 0.5 * (sorted[n / 2 - 1] + sorted[n / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outliers_are_told_and_left_out() {
        // Median 0; distances 1, 1, 1, 1, 0, 100: median 1, deviation 1.4826.
        let errors = Errors::of(&[1.0, -1.0, 1.0, -1.0, 0.0, 100.0]);
        assert!((errors.deviation - 1.4826).abs() < 1e-12);
        assert_eq!((errors.outliers, errors.without.count), (1, 5));
        assert!(
            (errors.without.mae - 0.8).abs() < 1e-12 && (errors.without.rmse - 0.8_f64.sqrt()).abs() < 1e-12
        );
        assert!((errors.all.mae - 104.0 / 6.0).abs() < 1e-12);
        assert_eq!(median(&[]), 0.0);
    }
}
