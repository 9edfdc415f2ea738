//! The first two moments of rows `x [in]` that come in batches: how many, their mean, and their scatter `Σ (x − μ)(x − μ)ᵀ`,
//! from which the centred and the uncentred second moment follow exactly.
//!
//! Batches are pooled as Chan, Golub and LeVeque do ("Algorithms for Computing the Sample Variance", 1983): each block of rows
//! is centred at its own mean, so that a large mean costs no digits of the scatter, and two sets are merged by one outer
//! product. All of it is in f64: singular values of the rows are roots of what is summed here, and the rounding of f32 products,
//! 1e-8 of the largest, would hide what is below 1e-4 of it. Sums are in an order that the rows alone decide.

use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatMut, MatRef, Par};
use lowrank_record::Seed;
use rayon::iter::{IndexedParallelIterator, ParallelIterator};

use crate::basis::basis_in_f64;
use crate::components::Components;
use crate::product::{finite, multiply};
use crate::{LinalgError, svd_in_f64};

/// Rows centred and multiplied at a time.
const BLOCK: usize = 1024;

/// Rows of the scatter that one task computes; fixed, as in [`crate::multiply`]. Of the upper triangle, which nobody reads, half of so many
/// columns is computed with it.
const TASK: usize = 64;

/// Above this width the leading components are iterated for instead of decomposing everything.
const DENSE: usize = 128;

/// An iteration for the leading components ends when one more adds less than this part to what they hold.
const SETTLED: f64 = 1e-10;

/// The most steps of that iteration: a spectrum that is flat after them has no leading components to speak of.
const STEPS: usize = 100;

/// Count, mean and scatter of rows of one width.
///
/// Memory: `8·in²` bytes (32 MB at a width of 2048), as much again while a matrix is handed out, and `8·1024·in` while rows are absorbed.
/// Time: `n·in²` operations for n rows, as only one triangle is computed.
#[derive(Debug, Clone, PartialEq)]
pub struct Moments {
    rows: u64,
    mean: Vec<f64>,
    /// The lower triangle of `Σ (x − μ)(x − μ)ᵀ`, `[in, in]`.
    scatter: Mat<f64>,
}

impl Moments {
    /// Of no rows yet, of this width.
    #[must_use]
    pub fn new(width: usize) -> Moments {
        Moments { rows: 0, mean: vec![0.0; width], scatter: Mat::zeros(width, width) }
    }

    /// Entries of a row (`in`).
    #[must_use]
    pub fn width(&self) -> usize {
        self.mean.len()
    }

    /// Rows seen.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The mean row, `[in]`.
    #[must_use]
    pub fn mean(&self) -> &[f64] {
        &self.mean
    }

    /// Adds rows `[n, in]`. Nothing is added where it fails.
    ///
    /// # Errors
    /// [`LinalgError::Shape`], [`LinalgError::NonFinite`].
    pub fn absorb(&mut self, rows: MatRef<'_, f32>) -> Result<(), LinalgError> {
        check_rows(rows, self.width())?;
        for first in (0..rows.nrows()).step_by(BLOCK) {
            let block = rows.subrows(first, BLOCK.min(rows.nrows() - first));
            let (mean, about) = centred(block);
            self.pool(block.nrows() as u64, &mean, |from, sum, weight, apart| {
                let (over, until) = (sum.nrows(), sum.ncols());
                let (a, b) = (about.as_ref().subcols(from, over), about.as_ref().subcols(0, until));
                let mut part = Mat::<f64>::zeros(over, until);
                matmul(part.as_mut(), Accum::Replace, a.transpose(), b, 1.0, Par::Seq);
                add(sum, from, |i, j| part[(i - from, j)], weight, apart);
            });
        }
        Ok(())
    }

    /// Adds the rows of another set, as if they had been absorbed here (up to rounding in f64).
    ///
    /// # Errors
    /// [`LinalgError::Shape`] for another width.
    pub fn merge(&mut self, other: &Moments) -> Result<(), LinalgError> {
        let (want_cols, cols) = (self.width(), other.width());
        if want_cols != cols {
            let rows = usize::try_from(other.rows).unwrap_or(usize::MAX);
            let what = "rows of moments to merge with";
            return Err(LinalgError::Shape { what, want_rows: rows, want_cols, rows, cols });
        }
        if other.rows > 0 {
            self.pool(other.rows, &other.mean, |from, sum, weight, apart| {
                add(sum, from, |i, j| other.scatter[(i, j)], weight, apart);
            });
        }
        Ok(())
    }

    /// Pools with a set of so many rows around this mean: `S += S' + n·n'/(n + n')·(μ − μ')(μ − μ')ᵀ`. `add` is called for
    /// blocks of rows of the triangle with `(first row, block, n·n'/(n + n'), μ − μ')`.
    fn pool(
        &mut self,
        rows: u64,
        mean: &[f64],
        add: impl Fn(usize, MatMut<'_, f64>, f64, &[f64]) + Sync + Send,
    ) {
        let (before, more) = (self.rows as f64, rows as f64);
        let apart: Vec<f64> = self.mean.iter().zip(mean).map(|(ours, theirs)| ours - theirs).collect();
        let weight = before * more / (before + more);
        self.scatter.as_mut().par_row_chunks_mut(TASK).enumerate().for_each(|(task, block)| {
            let from = task * TASK;
            let until = from + block.nrows();
            add(from, block.subcols_mut(0, until), weight, &apart);
        });
        for (ours, apart) in self.mean.iter_mut().zip(&apart) {
            *ours -= apart * (more / (before + more));
        }
        self.rows += rows;
    }

    /// `1/n · Σ (x − μ)(x − μ)ᵀ`, `[in, in]`; zero for no rows.
    #[must_use]
    pub fn covariance(&self) -> Mat<f64> {
        self.moment(true)
    }

    /// `1/n · Σ x·xᵀ`, `[in, in]`; zero for no rows.
    #[must_use]
    pub fn second_moment(&self) -> Mat<f64> {
        self.moment(false)
    }

    /// The covariance, or the second moment where it is not centred.
    #[must_use]
    pub fn moment(&self, centred: bool) -> Mat<f64> {
        let n = self.rows.max(1) as f64;
        let mean = |i: usize| if centred { 0.0 } else { self.mean[i] };
        Mat::from_fn(self.width(), self.width(), |i, j| {
            self.scatter[(i.max(j), i.min(j))] / n + mean(i) * mean(j)
        })
    }

    /// The variance of each entry, `1/n · Σ (x − μ)²`, `[in]`.
    #[must_use]
    pub fn variance(&self) -> Vec<f64> {
        let n = self.rows.max(1) as f64;
        (0..self.width()).map(|i| self.scatter[(i, i)] / n).collect()
    }

    /// `Σ ‖x − μ‖²` over all rows seen, or `Σ ‖x‖²` where it is not centred.
    #[must_use]
    pub fn energy(&self, centred: bool) -> f64 {
        let spread: f64 = (0..self.width()).map(|i| self.scatter[(i, i)]).sum();
        let square: f64 = self.mean.iter().map(|mean| mean * mean).sum();
        if centred { spread } else { spread + self.rows as f64 * square }
    }

    /// The leading `count` components of the rows, about their mean or about zero: eigenvectors of the moment. All of it is decomposed
    /// up to a width of 128; above, a block iteration in f64 with as many vectors again runs until another step adds less
    /// than 1e-10 to what the leading ones hold, or a hundred steps were taken ([`Components::converged`] says which). The seed is that
    /// iteration's first guess.
    ///
    /// # Errors
    /// [`LinalgError::Rank`] for a count of 0 or above the width, [`LinalgError::NoConvergence`].
    pub fn principal(&self, count: usize, centred: bool, seed: Seed) -> Result<Components, LinalgError> {
        let width = self.width();
        if count == 0 || count > width {
            return Err(LinalgError::Rank { rank: count, rows: width, cols: width });
        }
        let moment = self.moment(centred);
        let guess = count.saturating_add(count.max(8)).min(width);
        let exact = width <= DENSE || guess == width;
        let (values, vectors, converged) = if exact {
            let (values, vectors) = eigen(moment.as_ref())?;
            (values, vectors, true)
        } else {
            iterate(moment.as_ref(), count, guess, seed)?
        };
        let n = self.rows as f64;
        let values = values[..count].iter().map(|value| (value.max(0.0) * n).sqrt()).collect();
        let right = Mat::from_fn(count, width, |i, j| vectors[(j, i)] as f32);
        let energy = self.energy(centred);
        let mut found = Components::new(self.rows, self.mean.clone(), centred, values, right, energy);
        found.converged = converged;
        Ok(found)
    }
}

/// `sum += part + weight·apart·apartᵀ` over a block of rows of the lower triangle that begins at row `from`.
fn add(
    mut sum: MatMut<'_, f64>,
    from: usize,
    part: impl Fn(usize, usize) -> f64,
    weight: f64,
    apart: &[f64],
) {
    for j in 0..sum.ncols() {
        for i in from.max(j)..from + sum.nrows() {
            sum[(i - from, j)] += part(i, j) + weight * apart[i] * apart[j];
        }
    }
}

/// The mean of these rows, and the rows about it.
fn centred(rows: MatRef<'_, f32>) -> (Vec<f64>, Mat<f64>) {
    let mean = column_means(rows);
    let about = Mat::from_fn(rows.nrows(), rows.ncols(), |i, j| f64::from(rows[(i, j)]) - mean[j]);
    (mean, about)
}

/// The mean of each column; of no rows, zeros.
pub(crate) fn column_means(rows: MatRef<'_, f32>) -> Vec<f64> {
    let n = rows.nrows().max(1) as f64;
    (0..rows.ncols()).map(|j| rows.col(j).iter().map(|&x| f64::from(x)).sum::<f64>() / n).collect()
}

/// Refuses rows of another width, and rows that are not numbers.
pub(crate) fn check_rows(rows: MatRef<'_, f32>, width: usize) -> Result<(), LinalgError> {
    let (n, cols) = rows.shape();
    if cols != width {
        let what = "rows of inputs";
        return Err(LinalgError::Shape { what, want_rows: n, want_cols: width, rows: n, cols });
    }
    finite(rows)
}

/// All eigenvalues of a symmetric matrix without negative ones, descending, and its eigenvectors as columns.
fn eigen(moment: MatRef<'_, f64>) -> Result<(Vec<f64>, Mat<f64>), LinalgError> {
    let svd = svd_in_f64(moment)?;
    Ok((svd.values, svd.right.transpose().to_owned()))
}

/// The leading eigenvalues by block iteration, `width` vectors at a time, their vectors as columns, and whether it ran to its end:
/// until the first `count` of them settle. The others only make these settle sooner, and would take many more steps themselves.
fn iterate(
    moment: MatRef<'_, f64>,
    count: usize,
    width: usize,
    seed: Seed,
) -> Result<(Vec<f64>, Mat<f64>, bool), LinalgError> {
    let d = moment.nrows();
    let draws = seed.at("moments", "first guess").normal(d * width);
    let mut basis = basis_in_f64(Mat::from_fn(d, width, |i, j| f64::from(draws[j * d + i])));
    let (mut held, mut converged) = (0.0, false);
    for _ in 0..STEPS {
        let product = multiply(moment, basis.as_ref());
        let inner = multiply(basis.transpose(), product.as_ref());
        let now: f64 = eigen(inner.as_ref())?.0.iter().take(count).sum();
        basis = basis_in_f64(product);
        if now - held <= SETTLED * now {
            converged = true;
            break;
        }
        held = now;
    }
    let inner = multiply(basis.transpose(), multiply(moment, basis.as_ref()).as_ref());
    let (values, vectors) = eigen(inner.as_ref())?;
    Ok((values, multiply(basis.as_ref(), vectors.as_ref()), converged))
}
