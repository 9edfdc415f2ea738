//! `A = Q · R`, A `[m, n]`, Q `[m, k]` with orthonormal columns, R `[k, n]` upper trapezoidal, k = min(m, n).
//!
//! Householder reflections by faer, in f64 whatever the input: the factors are skinny, so it costs little, and the
//! bases that leave here are orthonormal to the rounding of f32 even when A is rank-deficient.
//! The signs are fixed by a non-negative diagonal of R; LAPACK and faer leave them to the reflections.

use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::householder::{
    apply_block_householder_sequence_on_the_left_in_place_scratch as apply_scratch,
    apply_block_householder_sequence_on_the_left_in_place_with_conj as apply,
};
use faer::linalg::qr::no_pivoting::factor::{qr_in_place, qr_in_place_scratch, recommended_block_size};
use faer::{Conj, Mat, MatRef, Par, Spec};

use crate::product::{finite, narrow, widen};
use crate::{LinalgError, Real};

/// The two factors of [`qr`].
#[derive(Debug, Clone, PartialEq)]
pub struct Qr<T = f32> {
    /// `[m, k]`, orthonormal columns.
    pub q: Mat<T>,
    /// `[k, n]`, zero below a non-negative diagonal.
    pub r: Mat<T>,
}

/// `A = Q · R` without pivoting, computed in f64.
///
/// # Errors
/// [`LinalgError::NonFinite`].
pub fn qr(a: MatRef<'_, f32>) -> Result<Qr, LinalgError> {
    finite(a)?;
    let Qr { q, r } = qr_in_f64(widen(a));
    Ok(Qr { q: narrow(q.as_ref()), r: narrow(r.as_ref()) })
}

/// Orthonormal columns `[m, min(m, n)]` whose span holds the columns of `a: [m, n]`; where `a` is rank-deficient the
/// rest is an arbitrary but repeatable completion.
///
/// # Errors
/// [`LinalgError::NonFinite`].
pub fn orthonormal_basis<T: Real>(a: MatRef<'_, T>) -> Result<Mat<T>, LinalgError> {
    finite(a)?;
    Ok(narrow(qr_in_f64(widen(a)).q.as_ref()))
}

/// The work, on a matrix known to be finite.
pub(crate) fn qr_in_f64(mut a: Mat<f64>) -> Qr<f64> {
    let (m, n) = a.shape();
    let k = m.min(n);
    if k == 0 {
        return Qr { q: Mat::zeros(m, 0), r: Mat::zeros(0, n) };
    }
    // A block that is recommended for speed; the sequential path makes the result a function of the input alone.
    let block = recommended_block_size::<f64>(m, n);
    let mut coefficients = Mat::zeros(block, k);
    let mut memory = MemBuffer::new(qr_in_place_scratch::<f64>(m, n, block, Par::Seq, Spec::default()));
    qr_in_place(a.as_mut(), coefficients.as_mut(), Par::Seq, MemStack::new(&mut memory), Spec::default());
    let mut r = Mat::from_fn(k, n, |i, j| if i <= j { a[(i, j)] } else { 0.0 });
    let mut q = Mat::identity(m, k);
    let mut memory = MemBuffer::new(apply_scratch::<f64>(m, block, k));
    let reflections = a.as_ref().subcols(0, k);
    apply(reflections, coefficients.as_ref(), Conj::No, q.as_mut(), Par::Seq, MemStack::new(&mut memory));
    for i in 0..k {
        if r[(i, i)] < 0.0 {
            q.as_mut().col_mut(i).iter_mut().for_each(|x| *x = -*x);
            r.as_mut().row_mut(i).iter_mut().for_each(|x| *x = -*x);
        }
    }
    Qr { q, r }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hand_worked_case() {
        // [3 1; 4 2] = [0.6 -0.8; 0.8 0.6] · [5 2.2; 0 0.4]
        let a = Mat::from_fn(2, 2, |i, j| [[3.0_f32, 1.0], [4.0, 2.0]][i][j]);
        let Qr { q, r } = qr(a.as_ref()).unwrap();
        for (found, wanted) in
            [(q[(0, 0)], 0.6), (q[(0, 1)], -0.8), (r[(0, 0)], 5.0), (r[(0, 1)], 2.2), (r[(1, 1)], 0.4)]
        {
            assert!((found - wanted).abs() < 1e-6, "{found} {wanted}");
        }
        assert_eq!(r[(1, 0)], 0.0);
    }

    #[test]
    fn a_zero_matrix_still_gives_a_basis() {
        let q = orthonormal_basis(Mat::<f32>::zeros(5, 3).as_ref()).unwrap();
        assert_eq!(q, Mat::identity(5, 3));
    }
}
