//! A matrix as two factors in f64, `X = L·Rᵀ`.

use faer::{Mat, MatRef};
use lowrank_linalg::{LinalgError, multiply, orthonormal_basis, svd_in_f64};

use super::RecoveryError;

/// `X = left·rightᵀ`, left `[n1, k]`, right `[n2, k]`. Of the symmetric form `X·Xᵀ` both are the same matrix.
#[derive(Debug, Clone, PartialEq)]
pub struct Factors {
    /// `[n1, k]`.
    pub left: Mat<f64>,
    /// `[n2, k]`.
    pub right: Mat<f64>,
}

impl Factors {
    /// Factors that fit each other.
    ///
    /// # Errors
    /// [`RecoveryError::Shape`] when they differ in k.
    pub fn new(left: Mat<f64>, right: Mat<f64>) -> Result<Factors, RecoveryError> {
        if left.ncols() != right.ncols() {
            let (rows, cols) = right.shape();
            let (what, want_cols) = ("the right factor", left.ncols());
            return Err(RecoveryError::Shape { what, want_rows: rows, want_cols, rows, cols });
        }
        Ok(Factors { left, right })
    }

    /// `X·Xᵀ`.
    #[must_use]
    pub fn symmetric(factor: Mat<f64>) -> Factors {
        Factors { left: factor.clone(), right: factor }
    }

    /// k, an upper bound of the rank.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.left.ncols()
    }

    /// `(n1, n2)`.
    #[must_use]
    pub fn shape(&self) -> (usize, usize) {
        (self.left.nrows(), self.right.nrows())
    }

    /// `left·rightᵀ`, formed: for small matrices and for looking at them.
    #[must_use]
    pub fn product(&self) -> Mat<f64> {
        multiply(self.left.as_ref(), self.right.transpose())
    }

    /// Entry (row, col) of the product.
    #[must_use]
    pub fn entry(&self, row: usize, col: usize) -> f64 {
        (0..self.rank()).map(|j| self.left[(row, j)] * self.right[(col, j)]).sum()
    }

    /// `‖left·rightᵀ − X‖_F`, formed.
    #[must_use]
    pub fn distance(&self, matrix: MatRef<'_, f64>) -> f64 {
        (self.product() - matrix).norm_l2()
    }

    /// Singular values of the product, descending, without forming it: `L = Q₁R₁`, `R = Q₂R₂`, those of `R₁R₂ᵀ`.
    ///
    /// # Errors
    /// [`LinalgError`] when an entry is not finite.
    pub fn spectrum(&self) -> Result<Vec<f64>, LinalgError> {
        let triangle = |factor: &Mat<f64>| {
            let basis = orthonormal_basis(factor.as_ref())?;
            Ok(multiply(basis.transpose(), factor.as_ref()))
        };
        let (left, right) = (triangle(&self.left)?, triangle(&self.right)?);
        Ok(svd_in_f64(multiply(left.as_ref(), right.transpose()).as_ref())?.values)
    }

    /// The eigenvalues of `LᵀL − RᵀR`, ascending: nearly conserved by gradient descent, and what drives spare columns to zero where
    /// they are positive (Xiong, Ding and Du, 2024).
    ///
    /// # Errors
    /// [`LinalgError`] when an entry is not finite.
    pub fn imbalance(&self) -> Result<Vec<f64>, LinalgError> {
        let gram = |factor: &Mat<f64>| multiply(factor.transpose(), factor.as_ref());
        let mut values = eigenvalues((gram(&self.left) - gram(&self.right)).as_ref())?.0;
        values.reverse();
        Ok(values)
    }
}

/// Eigenvalues, descending, and eigenvectors, as columns, of a symmetric matrix S `[n, n]`: by the singular values of the positive
/// definite `S + 2‖S‖·I`, which are its eigenvalues and come from a decomposition that is the same on any number of threads. Off by
/// the rounding of ‖S‖.
pub(super) fn eigenvalues(s: MatRef<'_, f64>) -> Result<(Vec<f64>, Mat<f64>), LinalgError> {
    let shift = 2.0 * s.norm_l2();
    let shifted = Mat::from_fn(s.nrows(), s.ncols(), |i, j| {
        0.5 * (s[(i, j)] + s[(j, i)]) + if i == j { shift } else { 0.0 }
    });
    let svd = svd_in_f64(shifted.as_ref())?;
    Ok((svd.values.iter().map(|value| value - shift).collect(), svd.right.transpose().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use lowrank_record::Seed;

    #[test]
    fn the_spectrum_is_that_of_the_product_and_the_imbalance_that_of_the_grams() {
        let draws = Seed(1).normal(60);
        let at = |k: usize| f64::from(draws[k]);
        let factors = Factors::new(
            Mat::from_fn(7, 3, |i, j| at(3 * i + j)),
            Mat::from_fn(5, 3, |i, j| at(30 + 3 * i + j)),
        );
        let factors = factors.unwrap();
        let direct = svd_in_f64(factors.product().as_ref()).unwrap().values;
        for (a, b) in factors.spectrum().unwrap().iter().zip(&direct) {
            assert!((a - b).abs() < 1e-13 * direct[0]);
        }
        // LᵀL − RᵀR with R = 0 and L = diag(2, 1).
        let diagonal = Mat::from_fn(2, 2, |i, j| if i == j { 2.0 - i as f64 } else { 0.0 });
        let found = Factors::new(diagonal, Mat::zeros(4, 2)).unwrap().imbalance().unwrap();
        assert!((found[0] - 1.0).abs() < 1e-14 && (found[1] - 4.0).abs() < 1e-14, "{found:?}");
        assert!(Factors::new(Mat::zeros(3, 2), Mat::zeros(3, 1)).is_err());
    }

    #[test]
    fn eigenvalues_keep_their_signs() {
        let s = Mat::from_fn(2, 2, |i, j| [[1.0, 2.0], [2.0, 1.0]][i][j]);
        let (values, vectors) = eigenvalues(s.as_ref()).unwrap();
        assert!((values[0] - 3.0).abs() < 1e-14 && (values[1] + 1.0).abs() < 1e-14);
        let turned = multiply(s.as_ref(), vectors.as_ref());
        assert!((0..2).all(|i| (turned[(i, 1)] + vectors[(i, 1)]).abs() < 1e-14));
    }
}
