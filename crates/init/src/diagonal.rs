//! A core that is diagonal.

use faer::Mat;

/// `diag(values)`, `[r, r]`, rounded to f32.
pub(crate) fn diagonal(values: &[f64]) -> Mat<f32> {
    Mat::from_fn(values.len(), values.len(), |i, j| if i == j { values[i] as f32 } else { 0.0 })
}
