//! All singular values without vectors, for spectra: the roots of the eigenvalues of the smaller Gram matrix, in f64.
//!
//! Less work than a singular value decomposition with vectors. Squaring loses the values below √ε·σ₁ = 1.5e-8·σ₁, which no
//! spectrum of f32 numbers has to tell of.

use faer::diag::Diag;
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::evd::{ComputeEigenvectors, self_adjoint_evd, self_adjoint_evd_scratch};
use faer::{MatRef, Par, Spec};

use crate::LinalgError;
use crate::product::{finite, multiply, widen};

/// All min(m, n) singular values of a matrix, descending; those below 1.5e-8 of the largest are rounding.
///
/// # Errors
/// [`LinalgError::NonFinite`], [`LinalgError::NoConvergence`].
pub fn singular_values(a: MatRef<'_, f32>) -> Result<Vec<f64>, LinalgError> {
    finite(a)?;
    let wide = widen(if a.nrows() < a.ncols() { a.transpose() } else { a });
    let n = wide.ncols();
    if n == 0 {
        return Ok(Vec::new());
    }
    let gram = multiply(wide.transpose(), wide.as_ref());
    let mut squares = Diag::<f64>::zeros(n);
    let wanted = ComputeEigenvectors::No;
    let mut memory = MemBuffer::new(self_adjoint_evd_scratch::<f64>(n, wanted, Par::Seq, Spec::default()));
    let stack = MemStack::new(&mut memory);
    self_adjoint_evd(gram.as_ref(), squares.as_mut(), None, Par::Seq, stack, Spec::default())
        .map_err(|_| LinalgError::NoConvergence { rows: a.nrows(), cols: a.ncols() })?;
    let mut values: Vec<f64> = (0..n).map(|i| squares.column_vector()[i].max(0.0).sqrt()).collect();
    values.sort_by(|a, b| b.total_cmp(a));
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{from_rows, svd_in_f64};
    use lowrank_record::Seed;

    #[test]
    fn the_values_are_those_of_the_decomposition() {
        for (rows, cols, size) in [(23, 11, 1.0), (11, 23, 1e-20), (5, 5, 1e15)] {
            let draws =
                Seed(3).normal(rows * cols).into_iter().map(|value| size * value).collect::<Vec<f32>>();
            let a = from_rows(&draws, rows, cols).unwrap();
            let (found, wanted) =
                (singular_values(a.as_ref()).unwrap(), svd_in_f64(a.as_ref()).unwrap().values);
            assert_eq!(found.len(), wanted.len());
            for (found, wanted_value) in found.iter().zip(&wanted) {
                assert!((found - wanted_value).abs() < 1e-7 * wanted[0], "{found} {wanted_value}");
            }
        }
        assert!(singular_values(from_rows(&[f32::NAN], 1, 1).unwrap().as_ref()).is_err());
    }
}
