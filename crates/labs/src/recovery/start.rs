//! Where the factors begin: small, along the leading directions of the data or at random.

use faer::Mat;
use lowrank_linalg::{multiply, orthonormal_basis, svd_in_f64};
use lowrank_record::Seed;

use super::error::positive;
use super::factors::eigenvalues;
use super::{Adjoint, Factors, Loss, Problem, RecoveryError};

/// Sides up to which a spectral start sees the whole of C rather than a subspace of it.
const WHOLE: usize = 128;
/// Rounds of subspace iteration on larger matrices.
const ROUNDS: usize = 8;

/// How the factors begin.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Start {
    /// `C = Σ y_i·A_i`, or `Σ sign(y_i)·A_i` for the absolute loss, scaled to norm 1; `α` times the square root of its leading part
    /// (Ma and Fattahi, 2023, algorithm 1). Symmetric: of its positive eigenvalues, so columns beyond their number are zero, and
    /// stay so. Asymmetric: of its singular values, `α·√σ` in both factors.
    Spectral {
        /// α.
        alpha: f64,
    },
    /// Entries from N(0, α²/n), n the rows of the factor; the right factor of the asymmetric form is `ratio` times as large, 1/3 in
    /// Xiong, Ding and Du (2024), because equal sizes would be nearly balanced.
    Random {
        /// α.
        alpha: f64,
        /// Size of the right factor by that of the left one.
        ratio: f64,
    },
    /// As [`Start::Random`] with `R = ratio·L`, the same draws, for square matrices: with a ratio of 1 exactly balanced.
    Twin {
        /// α.
        alpha: f64,
        /// R by L.
        ratio: f64,
    },
}

impl Start {
    /// Factors of rank k for the asymmetric form.
    ///
    /// # Errors
    /// [`RecoveryError::Rank`], [`RecoveryError::Setting`], [`RecoveryError::NotSquare`] of a twin start.
    pub fn factors(
        self,
        problem: &Problem<'_>,
        loss: Loss,
        rank: usize,
        seed: Seed,
    ) -> Result<Factors, RecoveryError> {
        let (rows, cols) = self.check(problem, rank)?;
        match self {
            Start::Random { alpha, ratio } => {
                let left = gaussian(rows, rank, alpha, seed.at("start", "left"));
                Factors::new(left, gaussian(cols, rank, alpha * ratio, seed.at("start", "right")))
            }
            Start::Twin { .. } if rows != cols => Err(RecoveryError::NotSquare { rows, cols }),
            Start::Twin { alpha, ratio } => {
                let left = gaussian(rows, rank, alpha, seed.at("start", "left"));
                let right = faer::Scale(ratio) * &left;
                Factors::new(left, right)
            }
            Start::Spectral { alpha } => {
                let adjoint = signal(problem, loss);
                let norm = size(adjoint.as_ref())?;
                let right = basis(adjoint.as_ref(), rows, cols, rank, seed)?;
                let image = adjoint.times(right.as_ref());
                let svd = svd_in_f64(image.as_ref())?;
                let root = |j: usize| alpha * (svd.values[j] / norm).sqrt();
                let left = Mat::from_fn(rows, rank, |i, j| svd.left[(i, j)] * root(j));
                let turned = multiply(right.as_ref(), svd.right.transpose());
                Factors::new(left, Mat::from_fn(cols, rank, |i, j| turned[(i, j)] * root(j)))
            }
        }
    }

    /// The factor `[n, k]` of the symmetric form, as both factors.
    ///
    /// # Errors
    /// [`RecoveryError::Rank`], [`RecoveryError::NotSquare`], [`RecoveryError::Setting`].
    pub fn symmetric(
        self,
        problem: &Problem<'_>,
        loss: Loss,
        rank: usize,
        seed: Seed,
    ) -> Result<Factors, RecoveryError> {
        let (rows, cols) = self.check(problem, rank)?;
        if rows != cols {
            return Err(RecoveryError::NotSquare { rows, cols });
        }
        let factor = match self {
            Start::Random { alpha, .. } | Start::Twin { alpha, .. } => {
                gaussian(rows, rank, alpha, seed.at("start", "left"))
            }
            Start::Spectral { alpha } => {
                let adjoint = signal(problem, loss);
                let basis = basis(adjoint.as_ref(), rows, cols, rank, seed)?;
                let half = adjoint.times(basis.as_ref()) + adjoint.transpose_times(basis.as_ref());
                let image = faer::Scale(0.5) * half;
                let seen = multiply(basis.transpose(), image.as_ref());
                let norm = size(adjoint.as_ref())?;
                let (values, vectors) = eigenvalues(seen.as_ref())?;
                let turned = multiply(basis.as_ref(), vectors.as_ref());
                let root = |j: usize| alpha * (values[j].max(0.0) / norm).sqrt();
                Mat::from_fn(rows, rank, |i, j| turned[(i, j)] * root(j))
            }
        };
        Ok(Factors::symmetric(factor))
    }

    fn check(self, problem: &Problem<'_>, rank: usize) -> Result<(usize, usize), RecoveryError> {
        let (Start::Spectral { alpha } | Start::Random { alpha, .. } | Start::Twin { alpha, .. }) = self;
        positive("the size of the start", alpha)?;
        if let Start::Random { ratio, .. } | Start::Twin { ratio, .. } = self
            && !(ratio.is_finite() && ratio >= 0.0)
        {
            let (what, allowed) = ("the ratio of the factors", "give a number of 0 or more");
            return Err(RecoveryError::Setting { what, value: ratio, allowed });
        }
        let (rows, cols) = problem.measurement.shape();
        if rank == 0 || rank > rows.min(cols) {
            return Err(RecoveryError::Rank { rank, rows, cols });
        }
        Ok((rows, cols))
    }
}

/// C as an operator.
fn signal<'a>(problem: &Problem<'a>, loss: Loss) -> Box<dyn Adjoint + 'a> {
    let (unit, count) = (problem.measurement.unit(), problem.measurement.count());
    problem.measurement.adjoint(problem.values.iter().map(|&y| loss.weight(y, unit, count)).collect())
}

/// ‖C‖_F; 1 where C is zero, so that the start is zero too.
fn size(adjoint: &dyn Adjoint) -> Result<f64, RecoveryError> {
    let energy = adjoint.energy();
    Ok(if energy > 0.0 { energy.sqrt() } else { 1.0 })
}

/// Orthonormal columns `[cols, w]`, w ≥ rank, that hold the leading right directions of C.
fn basis(
    adjoint: &dyn Adjoint,
    rows: usize,
    cols: usize,
    rank: usize,
    seed: Seed,
) -> Result<Mat<f64>, RecoveryError> {
    if rows.max(cols) <= WHOLE {
        return Ok(Mat::identity(cols, cols));
    }
    let width = (2 * rank).max(rank + 8).min(rows.min(cols));
    let mut basis = orthonormal_basis(gaussian(cols, width, 1.0, seed.at("start", "subspace")).as_ref())?;
    for _ in 0..ROUNDS {
        let image = orthonormal_basis(adjoint.times(basis.as_ref()).as_ref())?;
        basis = orthonormal_basis(adjoint.transpose_times(image.as_ref()).as_ref())?;
    }
    Ok(basis)
}

/// Entries from N(0, α²/rows).
fn gaussian(rows: usize, cols: usize, alpha: f64, seed: Seed) -> Mat<f64> {
    let (draws, share) = (seed.normal(rows * cols), alpha / (rows as f64).sqrt());
    Mat::from_fn(rows, cols, |i, j| share * f64::from(draws[i * cols + j]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recovery::{Identity, Measurement};

    /// A symmetric matrix [n, n] with eigenvalues 3, 2, −1 and zeros in random directions.
    fn indefinite(n: usize) -> Mat<f64> {
        let q = orthonormal_basis(gaussian(n, 3, 1.0, Seed(5)).as_ref()).unwrap();
        let values = [3.0, 2.0, -1.0];
        let scaled = Mat::from_fn(n, 3, |i, j| q[(i, j)] * values[j]);
        multiply(scaled.as_ref(), q.transpose())
    }

    #[test]
    fn a_spectral_start_is_the_leading_part_in_both_forms_and_sizes() {
        for n in [9, WHOLE + 30] {
            let matrix = indefinite(n);
            let measurement = Identity::new(n, n).unwrap();
            let values = measurement.apply(matrix.as_ref(), Mat::<f64>::identity(n, n).as_ref());
            let problem = Problem::new(&measurement, &values).unwrap();
            let start = Start::Spectral { alpha: 0.1 };
            let factors = start.symmetric(&problem, Loss::Squared, 3, Seed(1)).unwrap();
            // Eigenvalues 3 and 2 over the norm √14, times α²; the negative one gives a zero column.
            let spectrum = factors.spectrum().unwrap();
            for (found, wanted) in spectrum.iter().zip([3.0, 2.0, 0.0]) {
                assert!((found - 0.01 * wanted / 14.0_f64.sqrt()).abs() < 1e-10, "{n}: {spectrum:?}");
            }
            assert!(factors.left.col(2).norm_l2() < 1e-8);
            let factors = start.factors(&problem, Loss::Squared, 3, Seed(1)).unwrap();
            let wanted = faer::Scale(0.01 / 14.0_f64.sqrt()) * &matrix;
            assert!(factors.distance(wanted.as_ref()) < 1e-10, "{n}");
        }
    }

    #[test]
    fn ranks_and_shapes_that_cannot_be_are_refused() {
        let measurement = Identity::new(4, 3).unwrap();
        let values = vec![1.0; 12];
        let problem = Problem::new(&measurement, &values).unwrap();
        let random = Start::Random { alpha: 0.1, ratio: 1.0 };
        for rank in [0, 4] {
            let refused = random.factors(&problem, Loss::Squared, rank, Seed(0));
            assert_eq!(refused.err(), Some(RecoveryError::Rank { rank, rows: 4, cols: 3 }));
        }
        let refused = random.symmetric(&problem, Loss::Squared, 2, Seed(0));
        assert_eq!(refused.err(), Some(RecoveryError::NotSquare { rows: 4, cols: 3 }));
        assert!(Start::Spectral { alpha: 0.0 }.factors(&problem, Loss::Squared, 2, Seed(0)).is_err());
        let factors = random.factors(&problem, Loss::Squared, 2, Seed(0)).unwrap();
        assert_eq!((factors.shape(), factors.rank()), ((4, 3), 2));
    }
}
