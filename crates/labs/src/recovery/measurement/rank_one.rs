//! Sensing by matrices of rank one: `⟨a_i·b_iᵀ, X⟩ = a_iᵀ·X·b_i`. With X in factors that is `Σ_j (A·L)_ij·(B·R)_ij`: O(m·k·(n1+n2))
//! operations instead of O(m·n1·n2), and the gradient's products reuse `A·L` and `B·R`.

use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatRef, Par};
use lowrank_record::Seed;
use rayon::prelude::*;

use super::{Adjoint, Measurement, Pull, Weigh};
use crate::recovery::RecoveryError;

/// Measurements of one task; fixed, so that sums do not depend on the number of threads.
const PART: usize = 512;

/// Measurements `a_i·b_iᵀ`.
#[derive(Debug, Clone)]
pub struct RankOne {
    /// The a_i as rows, `[m, n1]`.
    a: Mat<f64>,
    /// The b_i as rows, `[m, n2]`.
    b: Mat<f64>,
}

impl RankOne {
    /// `count` pairs of vectors with independent entries from N(0, 1).
    ///
    /// # Errors
    /// [`RecoveryError::Empty`] when there would be none.
    pub fn gaussian(rows: usize, cols: usize, count: usize, seed: Seed) -> Result<RankOne, RecoveryError> {
        let draw = |name: &str, width: usize| {
            let draws = seed.at("measurement", name).normal(count * width);
            Mat::from_fn(count, width, |i, j| f64::from(draws[i * width + j]))
        };
        RankOne::new(draw("a", rows), draw("b", cols))
    }

    /// Given vectors, the a_i as rows of `a: [m, n1]`, the b_i as rows of `b: [m, n2]`; entries should have mean square 1.
    ///
    /// # Errors
    /// [`RecoveryError::Empty`], [`RecoveryError::Shape`] when there are not as many of each.
    pub fn new(a: Mat<f64>, b: Mat<f64>) -> Result<RankOne, RecoveryError> {
        if a.nrows() * a.ncols() * b.ncols() == 0 {
            return Err(RecoveryError::Empty);
        }
        if a.nrows() != b.nrows() {
            let what = "the right vectors of rank-one measurements";
            let (rows, cols) = b.shape();
            return Err(RecoveryError::Shape { what, want_rows: a.nrows(), want_cols: cols, rows, cols });
        }
        Ok(RankOne { a, b })
    }

    /// What `each` gives of each part `(first, A, B)`, in their order.
    fn parts<T: Send>(&self, each: impl Fn(usize, MatRef<'_, f64>, MatRef<'_, f64>) -> T + Sync) -> Vec<T> {
        let count = self.a.nrows();
        let part = |index: usize| {
            let (first, rows) = (index * PART, PART.min(count - index * PART));
            each(first, self.a.subrows(first, rows), self.b.subrows(first, rows))
        };
        (0..count.div_ceil(PART)).into_par_iter().map(part).collect()
    }
}

fn product(a: MatRef<'_, f64>, b: MatRef<'_, f64>) -> Mat<f64> {
    let mut product = Mat::zeros(a.nrows(), b.ncols());
    matmul(product.as_mut(), Accum::Replace, a, b, 1.0, Par::Seq);
    product
}

/// Row sums of the product entry by entry.
fn inner(p: &Mat<f64>, q: &Mat<f64>) -> Vec<f64> {
    let mut sums = vec![0.0; p.nrows()];
    for j in 0..p.ncols() {
        for ((sum, p), q) in sums.iter_mut().zip(p.col_as_slice(j)).zip(q.col_as_slice(j)) {
            *sum += p * q;
        }
    }
    sums
}

/// Each row times its weight.
fn weighted(mut rows: Mat<f64>, weights: &[f64]) -> Mat<f64> {
    for j in 0..rows.ncols() {
        rows.col_as_slice_mut(j).iter_mut().zip(weights).for_each(|(x, w)| *x *= w);
    }
    rows
}

fn sum(parts: Vec<Mat<f64>>, rows: usize, cols: usize) -> Mat<f64> {
    parts.iter().fold(Mat::zeros(rows, cols), |sum, part| sum + part)
}

struct Weighted<'a> {
    of: &'a RankOne,
    weights: Vec<f64>,
}

impl Adjoint for Weighted<'_> {
    fn times(&self, right: MatRef<'_, f64>) -> Mat<f64> {
        let parts = self.of.parts(|first, a, b| {
            let rows = weighted(product(b, right), &self.weights[first..][..b.nrows()]);
            product(a.transpose(), rows.as_ref())
        });
        sum(parts, self.of.a.ncols(), right.ncols())
    }
    fn transpose_times(&self, left: MatRef<'_, f64>) -> Mat<f64> {
        let parts = self.of.parts(|first, a, b| {
            let rows = weighted(product(a, left), &self.weights[first..][..a.nrows()]);
            product(b.transpose(), rows.as_ref())
        });
        sum(parts, self.of.b.ncols(), left.ncols())
    }
    fn energy(&self) -> f64 {
        let formed = self.times(Mat::<f64>::identity(self.of.b.ncols(), self.of.b.ncols()).as_ref());
        lowrank_linalg::energy(formed.as_ref())
    }
}

impl Measurement for RankOne {
    fn shape(&self) -> (usize, usize) {
        (self.a.ncols(), self.b.ncols())
    }
    fn count(&self) -> usize {
        self.a.nrows()
    }
    fn unit(&self) -> f64 {
        1.0
    }
    fn apply(&self, left: MatRef<'_, f64>, right: MatRef<'_, f64>) -> Vec<f64> {
        self.parts(|_, a, b| inner(&product(a, left), &product(b, right))).concat()
    }
    fn adjoint<'a>(&'a self, weights: Vec<f64>) -> Box<dyn Adjoint + 'a> {
        Box::new(Weighted { of: self, weights })
    }
    fn pull(&self, left: MatRef<'_, f64>, right: MatRef<'_, f64>, weigh: &Weigh<'_>) -> Pull {
        let parts = self.parts(|first, a, b| {
            let (p, q) = (product(a, left), product(b, right));
            let values = inner(&p, &q);
            let weights: Vec<f64> = values.iter().enumerate().map(|(i, &v)| weigh(first + i, v)).collect();
            let to_left = product(a.transpose(), weighted(q, &weights).as_ref());
            let to_right = product(b.transpose(), weighted(p, &weights).as_ref());
            (values, to_left, to_right)
        });
        let k = left.ncols();
        let (mut values, mut to_left, mut to_right) = (Vec::with_capacity(self.count()), vec![], vec![]);
        for (part, left, right) in parts {
            values.extend(part);
            to_left.push(left);
            to_right.push(right);
        }
        Pull { values, left: sum(to_left, self.a.ncols(), k), right: sum(to_right, self.b.ncols(), k) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hand_worked_case() {
        // (1, 2)·X·(3, 1)ᵀ of X = [1 0; 0 2] = 3 + 4.
        let (a, b) = (Mat::from_fn(1, 2, |_, j| [1.0, 2.0][j]), Mat::from_fn(1, 2, |_, j| [3.0, 1.0][j]));
        let one = RankOne::new(a.clone(), b).unwrap();
        let x = Mat::from_fn(2, 2, |i, j| [[1.0, 0.0], [0.0, 2.0]][i][j]);
        assert_eq!(one.apply(x.as_ref(), Mat::<f64>::identity(2, 2).as_ref()), [7.0]);
        assert!(RankOne::new(a, Mat::zeros(2, 2)).is_err());
    }
}
