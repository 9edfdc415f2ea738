//! `A ≈ L · diag(d) · U` from r steps of Gaussian elimination: A `[m, n]`, L `[m, r]`, U `[r, n]`, both in A's own order of
//! rows and columns (no permutation is left over).
//!
//! The steps look back instead of ahead: a step computes one column and one row of what is left of A, from A and the
//! directions found so far, and nothing else. So r steps cost O((m + n)·r²) operations and never form the rest, where the full
//! factorisation costs O(m·n·min(m, n)). In exact arithmetic they are the first r steps of the full one.
//!
//! Source: Golub and Van Loan, "Matrix Computations", 3.2 to 3.4; the same steps are known as adaptive cross approximation
//! (Bebendorf, 2000). Where we differ from LAPACK's `getrf`, which goes on with a pivot of zero: a column without a usable
//! pivot is passed over for the next one.

use faer::{Mat, MatRef};
use lowrank_record::Named;

use crate::LinalgError;
use crate::product::{finite, multiply};

/// How a pivot is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pivoting {
    /// The next column, and in it the row of the largest entry: |L| ≤ 1.
    Partial,
    /// From there, to the largest entry of the row, of its column, and so on, until it is the largest of both (Neal and
    /// Poole, 1992): |L| ≤ 1 and |U| ≤ 1.
    Rook,
}

impl Named for Pivoting {
    const NAMES: &'static [(&'static str, Self)] =
        &[("partial", Pivoting::Partial), ("rook", Pivoting::Rook)];
}

/// The factors of [`ldu`], in f64.
#[derive(Debug, Clone, PartialEq)]
pub struct Ldu {
    /// L, `[m, r]`: 1 in its pivot row, 0 in the pivot rows before.
    pub left: Mat<f64>,
    /// The pivots, r of them, of either sign, in the order of the steps; 0 beyond [`Ldu::steps`].
    pub diagonal: Vec<f64>,
    /// U, `[r, n]`: 1 in its pivot column, 0 in the pivot columns before.
    pub right: Mat<f64>,
    /// The pivot row of each step.
    pub rows: Vec<usize>,
    /// The pivot column of each step; ascending with [`Pivoting::Partial`].
    pub columns: Vec<usize>,
    /// Steps with a pivot: r, or the rank of A where that is smaller. Each direction beyond is a unit vector on either side,
    /// of an unused row and an unused column, with 0 between.
    pub steps: usize,
}

impl Ldu {
    /// `L · diag(d) · U`, `[m, n]`.
    #[must_use]
    pub fn reconstruct(&self) -> Mat<f64> {
        let scaled =
            Mat::from_fn(self.left.nrows(), self.left.ncols(), |i, j| self.left[(i, j)] * self.diagonal[j]);
        multiply(scaled.as_ref(), self.right.as_ref())
    }
}

/// A pivot below this many f32 roundings of the largest entry, times √min(m, n), is rounding itself.
const ROUNDINGS: f64 = 4.0;

/// `rank` steps of elimination, in f64.
///
/// # Errors
/// [`LinalgError::NonFinite`]; [`LinalgError::Rank`] for a rank of 0 or above min(m, n).
pub fn ldu(a: MatRef<'_, f32>, rank: usize, pivoting: Pivoting) -> Result<Ldu, LinalgError> {
    finite(a)?;
    let (m, n) = a.shape();
    if rank == 0 || rank > m.min(n) {
        return Err(LinalgError::Rank { rank, rows: m, cols: n });
    }
    let largest =
        a.col_iter().flat_map(|column| column.iter().map(|x| f64::from(x.abs()))).fold(0.0, f64::max);
    let least = ROUNDINGS * f64::from(f32::EPSILON) * (m.min(n) as f64).sqrt() * largest;
    let mut work = Elimination::new(a, rank);
    let mut next = 0;
    while work.done.diagonal.len() < rank && next < n {
        if work.used_columns[next] {
            next += 1;
            continue;
        }
        let mut pivot = work.pivot_in_column(next);
        if pivot.value.abs() <= least {
            next += 1;
            continue;
        }
        if pivoting == Pivoting::Rook {
            pivot = work.rook(pivot);
        }
        work.eliminate(&pivot);
    }
    Ok(work.finish(rank))
}

/// The largest entry of a column or of a row of what is left.
#[derive(Clone, Copy)]
struct Pivot {
    row: usize,
    column: usize,
    value: f64,
}

/// Elimination in progress: directions so far, and which rows and columns they used up.
struct Elimination<'a> {
    a: MatRef<'a, f32>,
    /// `left [m, r]`, and `right` *transposed*, `[n, r]`, so that both grow by contiguous columns.
    done: Ldu,
    used_rows: Vec<bool>,
    used_columns: Vec<bool>,
}

impl<'a> Elimination<'a> {
    fn new(a: MatRef<'a, f32>, rank: usize) -> Self {
        let (m, n) = a.shape();
        let done = Ldu {
            left: Mat::zeros(m, rank),
            diagonal: Vec::with_capacity(rank),
            right: Mat::zeros(n, rank),
            rows: Vec::with_capacity(rank),
            columns: Vec::with_capacity(rank),
            steps: 0,
        };
        Elimination { a, done, used_rows: vec![false; m], used_columns: vec![false; n] }
    }

    /// Column j of what is left of A: zero in the rows that are used up.
    fn column(&self, j: usize) -> Vec<f64> {
        let mut rest: Vec<f64> = self.a.col(j).iter().map(|&x| f64::from(x)).collect();
        for (k, pivot) in self.done.diagonal.iter().enumerate() {
            subtract(&mut rest, self.done.right[(j, k)] * pivot, self.done.left.as_ref().col(k));
        }
        clear(&mut rest, &self.used_rows);
        rest
    }

    /// Row i of what is left of A: zero in the columns that are used up.
    fn row(&self, i: usize) -> Vec<f64> {
        let mut rest: Vec<f64> = self.a.row(i).iter().map(|&x| f64::from(x)).collect();
        for (k, pivot) in self.done.diagonal.iter().enumerate() {
            subtract(&mut rest, self.done.left[(i, k)] * pivot, self.done.right.as_ref().col(k));
        }
        clear(&mut rest, &self.used_columns);
        rest
    }

    fn pivot_in_column(&self, column: usize) -> Pivot {
        let (row, value) = largest(&self.column(column));
        Pivot { row, column, value }
    }

    fn pivot_in_row(&self, row: usize) -> Pivot {
        let (column, value) = largest(&self.row(row));
        Pivot { row, column, value }
    }

    /// The pivot that is the largest of its row and of its column, from this one on.
    fn rook(&self, mut pivot: Pivot) -> Pivot {
        loop {
            let next = self.pivot_in_column(self.pivot_in_row(pivot.row).column);
            // Row and column each round their own way: without strict growth, two equal entries take turns for ever.
            if next.value.abs() <= pivot.value.abs() {
                return pivot;
            }
            pivot = next;
        }
    }

    fn eliminate(&mut self, pivot: &Pivot) {
        let (column, row) = (self.column(pivot.column), self.row(pivot.row));
        let k = self.done.diagonal.len();
        for (to, x) in self.done.left.as_mut().col_mut(k).iter_mut().zip(column) {
            *to = x / pivot.value;
        }
        for (to, x) in self.done.right.as_mut().col_mut(k).iter_mut().zip(row) {
            *to = x / pivot.value;
        }
        // The row and the column each computed the pivot; they may differ by a rounding.
        self.done.left[(pivot.row, k)] = 1.0;
        self.done.right[(pivot.column, k)] = 1.0;
        self.take(pivot.row, pivot.column, pivot.value);
        self.done.steps += 1;
    }

    fn take(&mut self, row: usize, column: usize, value: f64) {
        self.done.diagonal.push(value);
        self.done.rows.push(row);
        self.done.columns.push(column);
        self.used_rows[row] = true;
        self.used_columns[column] = true;
    }

    /// Unit vectors for what has no pivot, and U the right way round.
    fn finish(mut self, rank: usize) -> Ldu {
        let (mut row, mut column) = (0, 0);
        for k in self.done.diagonal.len()..rank {
            while self.used_rows[row] {
                row += 1;
            }
            while self.used_columns[column] {
                column += 1;
            }
            self.done.left[(row, k)] = 1.0;
            self.done.right[(column, k)] = 1.0;
            self.take(row, column, 0.0);
        }
        Ldu { right: self.done.right.transpose().to_owned(), ..self.done }
    }
}

fn subtract(from: &mut [f64], factor: f64, direction: faer::ColRef<'_, f64>) {
    for (x, y) in from.iter_mut().zip(direction.iter()) {
        *x -= factor * y;
    }
}

fn clear(values: &mut [f64], used: &[bool]) {
    for (x, _) in values.iter_mut().zip(used).filter(|(_, used)| **used) {
        *x = 0.0;
    }
}

/// Index and value of the entry of largest magnitude, the first among equals.
fn largest(values: &[f64]) -> (usize, f64) {
    let first = (0, 0.0_f64);
    values.iter().enumerate().fold(first, |most, (i, &x)| if x.abs() > most.1.abs() { (i, x) } else { most })
}

/// The first `rank` pivot rows of elimination by partial pivoting over all columns of `panel: [m, r]`, so that
/// `panel[rows, :]` is as far from singular as elimination finds; used to choose the rows of a cross approximation.
///
/// # Errors
/// As [`ldu`].
pub fn pivot_rows(panel: MatRef<'_, f32>) -> Result<Vec<usize>, LinalgError> {
    Ok(ldu(panel, panel.nrows().min(panel.ncols()), Pivoting::Partial)?.rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::widen;
    use lowrank_record::Seed;

    fn random(m: usize, n: usize) -> Mat<f32> {
        let draws = Seed(31).normal(m * n);
        Mat::from_fn(m, n, |i, j| draws[i * n + j])
    }

    #[test]
    fn a_hand_worked_case() {
        // [1 2; 4 6]: pivot 4 in row 1, multiplier 1/4, what is left of (0, 1) is 2 - 6/4 = 1/2.
        let a = Mat::from_fn(2, 2, |i, j| [[1.0_f32, 2.0], [4.0, 6.0]][i][j]);
        let found = ldu(a.as_ref(), 2, Pivoting::Partial).unwrap();
        assert_eq!((found.rows, found.columns, found.diagonal), (vec![1, 0], vec![0, 1], vec![4.0, 0.5]));
        assert_eq!(found.left, Mat::from_fn(2, 2, |i, j| [[0.25, 1.0], [1.0, 0.0]][i][j]));
        assert_eq!(found.right, Mat::from_fn(2, 2, |i, j| [[1.0, 1.5], [0.0, 1.0]][i][j]));
        // The largest of its row and of its column is 6.
        let rook = ldu(a.as_ref(), 1, Pivoting::Rook).unwrap();
        assert_eq!((rook.rows, rook.columns, rook.diagonal), (vec![1], vec![1], vec![6.0]));
    }

    /// The textbook's elimination, all of what is left updated at each step.
    fn looking_ahead(a: &Mat<f32>, rank: usize) -> (Mat<f64>, Vec<f64>, Mat<f64>, Vec<usize>) {
        let mut rest = widen(a.as_ref());
        let (m, n) = rest.shape();
        let (mut left, mut right) = (Mat::<f64>::zeros(m, rank), Mat::<f64>::zeros(rank, n));
        let (mut diagonal, mut rows) = (vec![], vec![]);
        for k in 0..rank {
            let free = (0..m).filter(|i| !rows.contains(i));
            let row = free.max_by(|&i, &j| rest[(i, k)].abs().total_cmp(&rest[(j, k)].abs())).unwrap();
            let pivot = rest[(row, k)];
            left.as_mut().col_mut(k).copy_from(rest.col(k) * faer::Scale(1.0 / pivot));
            right.as_mut().row_mut(k).copy_from(rest.row(row) * faer::Scale(1.0 / pivot));
            rest -= left.col(k) * right.row(k) * faer::Scale(pivot);
            (0..n).for_each(|j| rest[(row, j)] = 0.0);
            (0..m).for_each(|i| rest[(i, k)] = 0.0);
            diagonal.push(pivot);
            rows.push(row);
        }
        (left, diagonal, right, rows)
    }

    #[test]
    fn r_steps_are_the_first_of_all_steps() {
        for (m, n, rank) in [(12, 12, 5), (20, 9, 4), (9, 20, 6), (64, 48, 48)] {
            let a = random(m, n);
            let (left, diagonal, right, rows) = looking_ahead(&a, m.min(n));
            let found = ldu(a.as_ref(), rank, Pivoting::Partial).unwrap();
            assert_eq!((&found.rows[..], found.steps), (&rows[..rank], rank));
            assert_eq!(found.columns, (0..rank).collect::<Vec<_>>());
            let off = |x: f64, y: f64| (x - y).abs() < 1e-9 * (1.0 + y.abs());
            assert!((0..rank).all(|k| off(found.diagonal[k], diagonal[k])));
            assert!((0..rank).all(|k| (0..m).all(|i| off(found.left[(i, k)], left[(i, k)]))));
            assert!((0..rank).all(|k| (0..n).all(|j| off(found.right[(k, j)], right[(k, j)]))));
        }
    }

    #[test]
    fn a_column_without_a_pivot_is_passed_over() {
        let mut a = random(6, 5);
        for i in 0..6 {
            a[(i, 0)] = 0.0;
            a[(i, 2)] = 3.0 * a[(i, 1)];
        }
        let found = ldu(a.as_ref(), 4, Pivoting::Partial).unwrap();
        assert_eq!((&found.columns[..3], found.steps), (&[1, 3, 4][..], 3));
        // Column 0 is the first unused one; the direction beyond is made of unit vectors.
        assert_eq!((found.columns[3], found.diagonal[3]), (0, 0.0));
        assert_eq!((found.left.col(3).sum(), found.right.row(3).sum()), (1.0, 1.0));
        assert!(ldu(a.as_ref(), 6, Pivoting::Partial).is_err());
    }
}
