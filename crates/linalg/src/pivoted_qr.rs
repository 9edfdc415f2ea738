//! `A ≈ Q · R`, the first r steps of QR with column pivoting: A `[m, n]`, Q `[m, r]` with orthonormal columns, R `[r, n]` in
//! A's own order of columns.
//!
//! Each step takes the column of which most is left (Businger and Golub, 1965). The steps look back: what is left of a
//! column is A's column minus its part in Q, so A is never updated, and r steps cost O(m·n·r) operations where the full
//! factorisation costs O(m·n·min(m, n)). A column is orthogonalised twice, which makes Q orthonormal to rounding (Giraud
//! and others, 2005). In f64.

use faer::{Col, Mat, MatRef};

use crate::LinalgError;
use crate::product::{finite, multiply, widen};

/// The factors of [`pivoted_qr`], in f64.
#[derive(Debug, Clone, PartialEq)]
pub struct PivotedQr {
    /// `[m, r]`, orthonormal columns.
    pub q: Mat<f64>,
    /// `[r, n]`: `R[k, columns[k]] > 0`, and zero in the pivot columns before. Row k is zero where A had nothing left.
    pub r: Mat<f64>,
    /// The column of A that each step took, r of them.
    pub columns: Vec<usize>,
}

/// `rank` steps of QR with column pivoting.
///
/// # Errors
/// [`LinalgError::NonFinite`]; [`LinalgError::Rank`] for a rank of 0 or above min(m, n).
pub fn pivoted_qr(a: MatRef<'_, f32>, rank: usize) -> Result<PivotedQr, LinalgError> {
    finite(a)?;
    let (m, n) = a.shape();
    if rank == 0 || rank > m.min(n) {
        return Err(LinalgError::Rank { rank, rows: m, cols: n });
    }
    let a = widen(a);
    let (mut q, mut r) = (Mat::<f64>::zeros(m, rank), Mat::<f64>::zeros(rank, n));
    let mut left: Vec<f64> = a.col_iter().map(|column| column.squared_norm_l2()).collect();
    // What `left` was when it was last computed from the column itself.
    let mut computed = left.clone();
    let largest = left.iter().fold(0.0_f64, |most, &x| most.max(x));
    let least = (m as f64 * f64::EPSILON).powi(2) * largest;
    let mut columns: Vec<usize> = Vec::with_capacity(rank);
    for step in 0..rank {
        let free = (0..n).filter(|j| !columns.contains(j));
        // rank ≤ n, so that one is free; the first of equals.
        let taken = free.fold(n, |best, j| if best == n || left[j] > left[best] { j } else { best });
        let before = q.as_ref().subcols(0, step);
        let rest = without(a.col(taken).to_owned(), before);
        let size = rest.norm_l2();
        let is_pivot = size * size > least;
        let direction = if is_pivot { rest * faer::Scale(1.0 / size) } else { completion(before) };
        q.as_mut().col_mut(step).copy_from(&direction);
        if is_pivot {
            let row = multiply(q.as_ref().subcols(step, 1).transpose(), a.as_ref());
            for j in (0..n).filter(|j| !columns.contains(j)) {
                r[(step, j)] = row[(0, j)];
                left[j] = (left[j] - row[(0, j)].powi(2)).max(0.0);
                // Subtracting squares loses digits: where half of them are gone, it is computed anew.
                if left[j] <= 1e-8 * computed[j] && computed[j] > least {
                    left[j] = without(a.col(j).to_owned(), q.as_ref().subcols(0, step + 1)).squared_norm_l2();
                    computed[j] = left[j];
                }
            }
            r[(step, taken)] = size;
        }
        columns.push(taken);
    }
    Ok(PivotedQr { q, r, columns })
}

/// The vector without its part in the span of `basis`; twice, since the first time leaves a rounding of what was taken.
fn without(mut vector: Col<f64>, basis: MatRef<'_, f64>) -> Col<f64> {
    for _ in 0..2 {
        for direction in basis.col_iter() {
            let part: f64 = direction.iter().zip(vector.iter()).map(|(x, y)| x * y).sum();
            vector.iter_mut().zip(direction.iter()).for_each(|(x, y)| *x -= part * y);
        }
    }
    vector
}

/// A unit vector orthogonal to `basis: [m, k]`, k < m: the axis of which the basis holds least, without its part in it.
fn completion(basis: MatRef<'_, f64>) -> Col<f64> {
    let m = basis.nrows();
    let held = |i: usize| basis.row(i).iter().map(|x| x * x).sum::<f64>();
    let least = (0..m).map(|i| (held(i), i)).fold((f64::INFINITY, 0), |a, b| if b.0 < a.0 { b } else { a });
    let axis = Col::from_fn(m, |i| if i == least.1 { 1.0 } else { 0.0 });
    let rest = without(axis, basis);
    let size = rest.norm_l2();
    rest * faer::Scale(1.0 / size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hand_worked_case() {
        // Column norms 1, 5, 2: column 1 = (3, 4) first. Of (0, 1): 0.8 along it, (−0.48, 0.36) left, of length 0.6.
        // Of (2, 0): 1.2 along it, (1.28, −0.96) left, of length 1.6: the second pivot.
        let a = Mat::from_fn(2, 3, |i, j| [[0.0_f32, 3.0, 2.0], [1.0, 4.0, 0.0]][i][j]);
        let PivotedQr { q, r, columns } = pivoted_qr(a.as_ref(), 2).unwrap();
        assert_eq!(columns, [1, 2]);
        let wanted = ([[0.6, 0.8], [0.8, -0.6]], [[0.8, 5.0, 1.2], [-0.6, 0.0, 1.6]]);
        assert!((0..2).all(|i| (0..2).all(|j| (q[(i, j)] - wanted.0[i][j]).abs() < 1e-12)), "{q:?}");
        assert!((0..2).all(|i| (0..3).all(|j| (r[(i, j)] - wanted.1[i][j]).abs() < 1e-12)), "{r:?}");
    }

    #[test]
    fn nothing_left_is_completed() {
        let found = pivoted_qr(Mat::<f32>::zeros(4, 3).as_ref(), 3).unwrap();
        assert_eq!((found.q, found.r), (Mat::identity(4, 3), Mat::zeros(3, 3)));
        assert_eq!(found.columns, [0, 1, 2]);
    }
}
