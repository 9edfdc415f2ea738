//! How close two subspaces are.

use faer::MatRef;

use crate::product::{multiply, widen};
use crate::{LinalgError, svd_in_f64};

/// Cosines of the principal angles between the spans of `a: [d, j]` and `b: [d, k]`, both with orthonormal columns, descending;
/// min(j, k) of them (Björck and Golub, 1973). Angles below about 1e-4 are not resolved.
///
/// # Errors
/// [`LinalgError::Shape`] when d differs; [`LinalgError::NonFinite`].
pub fn principal_cosines(a: MatRef<'_, f32>, b: MatRef<'_, f32>) -> Result<Vec<f64>, LinalgError> {
    if a.nrows() != b.nrows() {
        let ((want_rows, _), (rows, cols)) = (a.shape(), b.shape());
        return Err(LinalgError::Shape { what: "the second basis", want_rows, want_cols: cols, rows, cols });
    }
    let between = multiply(widen(a).transpose(), widen(b).as_ref());
    Ok(svd_in_f64(between.as_ref())?.values.into_iter().map(|cosine| cosine.min(1.0)).collect())
}

/// `‖aᵀb‖²_F / min(j, k)`: 1 when one span holds the other, 0 when they are orthogonal, about max(j, k)/d for random ones.
///
/// # Errors
/// As [`principal_cosines`].
pub fn overlap(a: MatRef<'_, f32>, b: MatRef<'_, f32>) -> Result<f64, LinalgError> {
    let cosines = principal_cosines(a, b)?;
    let count = cosines.len().max(1) as f64;
    Ok(cosines.iter().map(|cosine| cosine * cosine).sum::<f64>() / count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use faer::Mat;

    #[test]
    fn a_known_angle_is_found() {
        let (sine, cosine) = 0.3_f32.sin_cos();
        let a = Mat::<f32>::identity(4, 2);
        // Shares e₁ with a, and turns e₀ by 0.3 towards e₂.
        let b = Mat::from_fn(4, 2, |i, j| [[cosine, 0.0], [0.0, 1.0], [sine, 0.0], [0.0, 0.0]][i][j]);
        let found = principal_cosines(a.as_ref(), b.as_ref()).unwrap();
        assert!((found[0] - 1.0).abs() < 1e-7 && (found[1] - f64::from(cosine)).abs() < 1e-7, "{found:?}");
        let wanted = (1.0 + f64::from(cosine).powi(2)) / 2.0;
        assert!((overlap(a.as_ref(), b.as_ref()).unwrap() - wanted).abs() < 1e-6);
        assert!(overlap(a.as_ref(), Mat::<f32>::identity(5, 2).as_ref()).is_err());
    }
}
