//! Orthonormal columns of a tall, skinny matrix by products instead of reflections: `AᵀA = RᵀR`, `Q = A·R⁻¹` (Cholesky QR).
//!
//! Reflections go through a skinny matrix column by column; the two products here run at the rate of products, which is many
//! times that. The price is that the loss of orthogonality grows with the square of the condition number, so columns are first
//! scaled to one length, the factor is checked, a second round repairs what the first one lost (Yamamoto et al., "Roundoff Error
//! Analysis of the CholeskyQR2 Algorithm", 2015), and a matrix that is too close to losing a direction takes the reflections.

use faer::{Mat, MatRef};

use crate::product::multiply;
use crate::qr::{Qr, qr_in_f64};

/// The smallest pivot, of unit columns, from which one round leaves columns orthonormal to about 1e-9: enough where they are
/// rounded to f32 next.
const ONE_ROUND: f64 = 1e-6;

/// The smallest pivot from which a second round leaves them orthonormal to the rounding of f64; below, reflections are used.
const TWO_ROUNDS: f64 = 1e-9;

/// Orthonormal columns `[m, min(m, n)]` whose span holds those of `a: [m, n]`, to about 1e-9, to be used in f32.
pub(crate) fn basis_in_f64(a: Mat<f64>) -> Mat<f64> {
    let (m, n) = a.shape();
    if m < 2 * n || n == 0 {
        return qr_in_f64(a).q;
    }
    match round(a.as_ref()) {
        Some((q, _, least)) if least >= ONE_ROUND => q,
        Some((q, _, least)) if least >= TWO_ROUNDS => match round(q.as_ref()) {
            Some((q, _, _)) => q,
            None => qr_in_f64(a).q,
        },
        _ => qr_in_f64(a).q,
    }
}

/// As [`qr_in_f64`], to the rounding of f64, faster where `a` is tall and well conditioned.
pub(crate) fn tall_qr(a: Mat<f64>) -> Qr<f64> {
    let (m, n) = a.shape();
    if m < 2 * n || n == 0 {
        return qr_in_f64(a);
    }
    let first = round(a.as_ref()).filter(|(_, _, least)| *least >= TWO_ROUNDS);
    let second = first.and_then(|(q, before, _)| round(q.as_ref()).map(|(q, after, _)| (q, after, before)));
    match second {
        Some((q, after, before)) => Qr { q, r: multiply(after.as_ref(), before.as_ref()) },
        None => qr_in_f64(a),
    }
}

/// One round: Q, R and the smallest pivot; `None` where there is none.
fn round(a: MatRef<'_, f64>) -> Option<(Mat<f64>, Mat<f64>, f64)> {
    let n = a.ncols();
    let gram = multiply(a.transpose(), a);
    let length: Vec<f64> = (0..n).map(|j| gram[(j, j)].sqrt()).collect();
    if length.iter().any(|length| !length.is_normal()) {
        return None;
    }
    // R of unit columns, row by row.
    let mut r = Mat::<f64>::zeros(n, n);
    let mut least = f64::INFINITY;
    for i in 0..n {
        for j in i..n {
            let known: f64 = (0..i).map(|k| r[(k, i)] * r[(k, j)]).sum();
            r[(i, j)] = gram[(i, j)] / (length[i] * length[j]) - known;
        }
        let pivot = r[(i, i)];
        if pivot.is_nan() || pivot <= 0.0 {
            return None;
        }
        least = least.min(pivot);
        let root = pivot.sqrt();
        (i..n).for_each(|j| r[(i, j)] /= root);
    }
    // Its inverse, column by column from the diagonal up.
    let mut inverse = Mat::<f64>::zeros(n, n);
    for j in 0..n {
        inverse[(j, j)] = r[(j, j)].recip();
        for i in (0..j).rev() {
            let known: f64 = (i + 1..=j).map(|k| r[(i, k)] * inverse[(k, j)]).sum();
            inverse[(i, j)] = -known / r[(i, i)];
        }
    }
    // A·D⁻¹·R⁻¹, D the lengths; R of A itself is R·D.
    for j in 0..n {
        for i in 0..=j {
            inverse[(i, j)] /= length[i];
            r[(i, j)] *= length[j];
        }
    }
    Some((multiply(a, inverse.as_ref()), r, least))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::from_rows;
    use crate::product::{energy, widen};
    use lowrank_record::Seed;

    /// Random columns of very different lengths, the last one almost in the span of the others.
    fn matrix(m: usize, n: usize, apart: f64) -> Mat<f64> {
        let draws = widen(from_rows(&Seed(4).normal(m * n), m, n).unwrap().as_ref());
        Mat::from_fn(m, n, |i, j| {
            let last = (0..n - 1).map(|k| draws[(i, k)]).sum::<f64>() + apart * draws[(i, n - 1)];
            10.0_f64.powi(j as i32 - 4) * if j + 1 == n { last } else { draws[(i, j)] }
        })
    }

    fn off(q: MatRef<'_, f64>) -> f64 {
        energy((multiply(q.transpose(), q) - Mat::<f64>::identity(q.ncols(), q.ncols())).as_ref()).sqrt()
    }

    #[test]
    fn it_is_the_qr_by_reflections_at_every_condition() {
        // The last is beyond a Gram matrix in f64: reflections must have been taken.
        for apart in [1.0, 1e-3, 1e-4, 1e-9] {
            let a = matrix(80, 9, apart);
            let (wanted, found) = (qr_in_f64(a.clone()), tall_qr(a.clone()));
            assert!(off(found.q.as_ref()) < 1e-13, "{apart:e}: {:e}", off(found.q.as_ref()));
            let put_back = multiply(found.q.as_ref(), found.r.as_ref());
            for j in 0..9 {
                let error = (put_back.col(j) - a.col(j)).norm_l2() / a.col(j).norm_l2();
                assert!(error < 1e-13, "{apart:e}: column {j} is {error:e} off");
            }
            let basis = basis_in_f64(a);
            assert!(off(basis.as_ref()) < 1e-8, "{apart:e}: {:e}", off(basis.as_ref()));
            let turned = multiply(wanted.q.transpose(), basis.as_ref());
            assert!(off(turned.as_ref()) < 1e-6, "{apart:e}: another span");
        }
    }

    #[test]
    fn what_has_no_basis_by_products_still_gets_one() {
        let q = basis_in_f64(Mat::zeros(9, 3));
        assert!(off(q.as_ref()) < 1e-13);
        assert!(off(tall_qr(Mat::full(9, 3, 2.0)).q.as_ref()) < 1e-13);
        assert_eq!(basis_in_f64(Mat::zeros(9, 0)).ncols(), 0);
    }
}
