//! What the singular values and eigenvalues of recurrent weights say: three effective ranks, and the two sizes that decide whether the
//! dynamics are calm, the largest singular value and the spectral radius.

use faer::diag::Diag;
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::evd::{ComputeEigenvectors, evd_real, evd_scratch};
use faer::{MatRef, Par, Spec};
use lowrank_linalg::{LinalgError, effective_rank, finite, participation_ratio, stable_rank, svd_in_f64};
use serde::Serialize;

use super::RegimeError;

/// Sizes and effective ranks of a square matrix. Which of the three ranks the paper (Liu et al., 2024) plots is not known, so all are given.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Spectrum {
    /// `‖W‖_F`.
    pub frobenius: f64,
    /// The largest singular value.
    pub top_singular_value: f64,
    /// The largest magnitude of an eigenvalue.
    pub spectral_radius: f64,
    /// `exp(H(σ/Σσ))` (Roy and Vetterli, 2007).
    pub effective_rank: f64,
    /// `‖W‖²_F/σ₁²`.
    pub stable_rank: f64,
    /// `(Σσ²)²/Σσ⁴`, the one in the closed form of [`super::linear::expected_alignment`].
    pub participation_ratio: f64,
}

impl Spectrum {
    /// Of a square matrix `[n, n]`.
    ///
    /// # Errors
    /// [`RegimeError::NotSquare`]; [`RegimeError::Linalg`] for entries that are no numbers.
    pub fn of(weights: MatRef<'_, f64>) -> Result<Spectrum, RegimeError> {
        let radius = spectral_radius(weights)?;
        let svd = svd_in_f64(weights)?;
        Ok(Spectrum {
            frobenius: svd.energy().sqrt(),
            top_singular_value: svd.values.first().copied().unwrap_or(0.0),
            spectral_radius: radius,
            effective_rank: effective_rank(&svd.values),
            stable_rank: stable_rank(&svd.values),
            participation_ratio: participation_ratio(&svd.values),
        })
    }
}

/// The largest magnitude of an eigenvalue of a square matrix, in f64.
///
/// # Errors
/// [`RegimeError::NotSquare`]; [`RegimeError::Linalg`] where an entry is no number or the iteration does not end.
pub fn spectral_radius(weights: MatRef<'_, f64>) -> Result<f64, RegimeError> {
    let (rows, cols) = weights.shape();
    if rows != cols {
        return Err(RegimeError::NotSquare { rows, cols });
    }
    finite(weights)?;
    if rows == 0 {
        return Ok(0.0);
    }
    let (mut real, mut imaginary) = (Diag::<f64>::zeros(rows), Diag::<f64>::zeros(rows));
    let none = ComputeEigenvectors::No;
    let mut memory = MemBuffer::new(evd_scratch::<f64>(rows, none, none, Par::Seq, Spec::default()));
    evd_real(
        weights,
        real.as_mut(),
        imaginary.as_mut(),
        None,
        None,
        Par::Seq,
        MemStack::new(&mut memory),
        Spec::default(),
    )
    .map_err(|_| LinalgError::NoConvergence { rows, cols })?;
    let size = |i: usize| real.column_vector()[i].hypot(imaginary.column_vector()[i]);
    Ok((0..rows).map(size).fold(0.0, f64::max))
}

#[cfg(test)]
mod tests {
    use super::*;
    use faer::Mat;

    #[test]
    fn a_rotation_has_radius_one_and_two_directions() {
        let turn = Mat::from_fn(2, 2, |i, j| [[0.0, -2.0], [2.0, 0.0]][i][j]);
        let found = Spectrum::of(turn.as_ref()).unwrap();
        for (found, wanted) in [
            (found.spectral_radius, 2.0),
            (found.top_singular_value, 2.0),
            (found.frobenius, 8.0_f64.sqrt()),
            (found.stable_rank, 2.0),
            (found.effective_rank, 2.0),
            (found.participation_ratio, 2.0),
        ] {
            assert!((found - wanted).abs() < 1e-12, "{found} {wanted}");
        }
    }

    #[test]
    fn a_nilpotent_matrix_has_size_without_a_radius() {
        let shift = Mat::from_fn(3, 3, |i, j| if j == i + 1 { 5.0 } else { 0.0 });
        let found = Spectrum::of(shift.as_ref()).unwrap();
        assert!(found.spectral_radius < 1e-12 && (found.top_singular_value - 5.0).abs() < 1e-12);
        assert!(spectral_radius(Mat::<f64>::zeros(2, 3).as_ref()).is_err());
        let broken = Mat::from_fn(2, 2, |_, _| f64::NAN);
        assert!(Spectrum::of(broken.as_ref()).is_err());
    }
}
