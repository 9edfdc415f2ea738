//! How alike two representations of the same rows are, whatever their widths.
//!
//! For `X [n, p]` and `Y [n, q]`, `⟨XXᵀ, YYᵀ⟩_F / (‖XXᵀ‖·‖YYᵀ‖) = ‖XᵀY‖² / (‖XᵀX‖·‖YᵀY‖)`: from 0 to 1, 1 where one is a rotation and a
//! positive multiple of the other. The Gram matrices `[n, n]` are never formed.

use faer::{Mat, MatRef};

use crate::product::{energy, multiply, widen};
use crate::{LinalgError, Real};

/// Representation alignment about zero, as Liu et al. ("How connectivity structure shapes rich and lazy learning in neural
/// circuits", 2024) measure it. 1 where both are zero, 0 where one is.
///
/// # Errors
/// [`LinalgError::Shape`] when the numbers of rows differ.
pub fn representation_alignment<T: Real>(
    before: MatRef<'_, T>,
    after: MatRef<'_, T>,
) -> Result<f64, LinalgError> {
    aligned(widen(before).as_ref(), widen(after).as_ref())
}

/// The same about the mean row of each: linear centred kernel alignment (Kornblith et al., "Similarity of Neural Network
/// Representations Revisited", 2019, eq. 3), blind to a constant that all rows share.
///
/// # Errors
/// As [`representation_alignment`].
pub fn centred_alignment<T: Real>(before: MatRef<'_, T>, after: MatRef<'_, T>) -> Result<f64, LinalgError> {
    aligned(centred(before).as_ref(), centred(after).as_ref())
}

fn aligned(before: MatRef<'_, f64>, after: MatRef<'_, f64>) -> Result<f64, LinalgError> {
    if before.nrows() != after.nrows() {
        let (want_rows, (rows, cols)) = (before.nrows(), after.shape());
        let what = "the second representation";
        return Err(LinalgError::Shape { what, want_rows, want_cols: cols, rows, cols });
    }
    let between = |a: MatRef<'_, f64>, b: MatRef<'_, f64>| energy(multiply(a.transpose(), b).as_ref());
    let size = (between(before, before) * between(after, after)).sqrt();
    if size > 0.0 {
        return Ok((between(before, after) / size).min(1.0));
    }
    Ok(if energy(before) == energy(after) { 1.0 } else { 0.0 })
}

fn centred<T: Real>(rows: MatRef<'_, T>) -> Mat<f64> {
    let mut rows = widen(rows);
    let count = rows.nrows().max(1) as f64;
    for j in 0..rows.ncols() {
        let mean = rows.col(j).iter().sum::<f64>() / count;
        rows.col_mut(j).iter_mut().for_each(|x| *x -= mean);
    }
    rows
}

#[cfg(test)]
mod tests {
    use lowrank_record::Seed;

    use super::*;
    use crate::orthonormal_basis;

    fn random(n: usize, width: usize, seed: u64) -> Mat<f32> {
        let values = Seed(seed).normal(n * width);
        Mat::from_fn(n, width, |i, j| values[i * width + j])
    }

    #[test]
    fn it_is_that_of_the_gram_matrices() {
        let (x, y) = (random(9, 4, 1), random(9, 6, 2));
        let gram = |x: &Mat<f32>| {
            let x = widen(x.as_ref());
            &x * x.transpose()
        };
        let (a, b) = (gram(&x), gram(&y));
        let inner = |a: &Mat<f64>, b: &Mat<f64>| -> f64 {
            (0..9).flat_map(|i| (0..9).map(move |j| (i, j))).map(|at| a[at] * b[at]).sum()
        };
        let wanted = inner(&a, &b) / (inner(&a, &a) * inner(&b, &b)).sqrt();
        let found = representation_alignment(x.as_ref(), y.as_ref()).unwrap();
        assert!((found - wanted).abs() < 1e-12 && found > 0.0 && found < 1.0, "{found} {wanted}");
        assert!(representation_alignment(x.as_ref(), random(8, 4, 3).as_ref()).is_err());
    }

    #[test]
    fn a_rotation_and_a_factor_change_nothing_and_a_constant_only_what_is_not_centred() {
        let x = random(12, 5, 4);
        let rotation = orthonormal_basis(random(5, 5, 5).as_ref()).unwrap();
        let turned = multiply(x.as_ref(), rotation.as_ref());
        let turned = Mat::from_fn(12, 5, |i, j| 3.0 * turned[(i, j)]);
        assert!((representation_alignment(x.as_ref(), turned.as_ref()).unwrap() - 1.0).abs() < 1e-6);
        let moved = Mat::from_fn(12, 5, |i, j| turned[(i, j)] + 7.0);
        assert!((centred_alignment(x.as_ref(), moved.as_ref()).unwrap() - 1.0).abs() < 1e-5);
        assert!(representation_alignment(x.as_ref(), moved.as_ref()).unwrap() < 0.9);
    }
}
