//! The pseudo-inverse of a small matrix, its small singular values left out: `A⁺ = Σ_{σᵢ > cut·σ₁} vᵢ·uᵢᵀ/σᵢ`, A `[m, n]`, A⁺
//! `[n, m]`.

use faer::{Mat, MatRef};

use crate::product::multiply;
use crate::{LinalgError, svd_in_f64};

/// What [`pseudo_inverse`] found.
#[derive(Debug, Clone, PartialEq)]
pub struct PseudoInverse {
    /// A⁺, `[n, m]`; zero for a zero matrix.
    pub matrix: Mat<f64>,
    /// How many singular values were inverted.
    pub kept: usize,
    /// The singular values of A, descending.
    pub values: Vec<f64>,
}

/// The pseudo-inverse without the singular values up to `cut` times the largest. A `cut` below the rounding of f64 times
/// max(m, n) counts as that: smaller values have no digits.
///
/// # Errors
/// [`LinalgError::NonFinite`], [`LinalgError::NoConvergence`].
pub fn pseudo_inverse(a: MatRef<'_, f64>, cut: f64) -> Result<PseudoInverse, LinalgError> {
    let svd = svd_in_f64(a)?;
    let floor = cut.max(f64::EPSILON * a.nrows().max(a.ncols()) as f64);
    let largest = svd.values.first().copied().unwrap_or(0.0);
    let kept = svd.values.iter().filter(|&&value| value > floor * largest).count();
    let inverted = Mat::from_fn(a.ncols(), kept, |i, j| svd.right[(j, i)] / svd.values[j]);
    let matrix = multiply(inverted.as_ref(), svd.left.as_ref().subcols(0, kept).transpose());
    Ok(PseudoInverse { matrix, kept, values: svd.values })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_values_are_left_out() {
        let a = Mat::from_fn(3, 2, |i, j| [[4.0, 0.0], [0.0, 0.2], [0.0, 0.0]][i][j]);
        let all = pseudo_inverse(a.as_ref(), 0.0).unwrap();
        assert_eq!((all.kept, all.matrix.shape()), (2, (2, 3)));
        assert!((all.matrix[(0, 0)] - 0.25).abs() < 1e-12 && (all.matrix[(1, 1)] - 5.0).abs() < 1e-12);
        let cut = pseudo_inverse(a.as_ref(), 0.1).unwrap();
        assert_eq!((cut.kept, cut.matrix[(1, 1)]), (1, 0.0));
        assert_eq!(pseudo_inverse(Mat::zeros(2, 5).as_ref(), 0.0).unwrap().matrix, Mat::zeros(5, 2));
    }
}
