//! Products and sums whose bits do not depend on the number of threads, and the visible changes of precision and order.

use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatRef, Par, unzip, zip};
use rayon::iter::{IndexedParallelIterator, ParallelIterator};

use crate::{LinalgError, Real};

/// Rows (or columns) of the result that one task computes. Fixed: were it derived from the thread count, blocks would
/// meet the kernels' edges elsewhere and round differently.
const BLOCK: usize = 256;

/// `a · b`: `[m, k] · [k, n] -> [m, n]`, in parallel on the current rayon pool, same bits on any number of threads.
///
/// faer's own parallel product divides the work by the thread count; here the longer side of the result is cut into
/// blocks of 256 and each block is a sequential product.
///
/// Each entry is one sum of k products in the precision of the operands: it is off by at most `k·ε·Σ|aᵢ·bᵢ|`, and by about
/// √k·ε of it where roundings cancel. That is enough for the widths of layers (k up to some thousands, ε = 6e-8 in
/// f32); sums over tokens have no such limit and are added up in f64.
///
/// # Panics
/// Panics when the inner dimensions differ.
#[must_use]
pub fn multiply<T: Real>(a: MatRef<'_, T>, b: MatRef<'_, T>) -> Mat<T> {
    assert_eq!(a.ncols(), b.nrows(), "inner dimensions of a product");
    let (m, n) = (a.nrows(), b.ncols());
    let mut product = Mat::<T>::zeros(m, n);
    if m == 0 || n == 0 || a.ncols() == 0 {
        return product;
    }
    let one = T::from_f64(1.0);
    if m >= n {
        product.as_mut().par_row_chunks_mut(BLOCK).zip(a.par_row_chunks(BLOCK)).for_each(|(block, rows)| {
            matmul(block, Accum::Replace, rows, b, one, Par::Seq);
        });
    } else {
        product.as_mut().par_col_chunks_mut(BLOCK).zip(b.par_col_chunks(BLOCK)).for_each(
            |(block, columns)| {
                matmul(block, Accum::Replace, a, columns, one, Par::Seq);
            },
        );
    }
    product
}

/// Tokens that one product in f32 sums over: 1024·6e-8 = 6e-5 of `Σ|aᵢ·bᵢ|` is lost at most, and 2e-6 where roundings cancel.
const TOKENS: usize = 1024;

/// `sum += aᵀ · b`, `a: [n, m]`, `b: [n, k]`, `sum: [m, k]`: a sum over n tokens, however many, each block of them a product in
/// f32 and the blocks added in f64.
///
/// # Panics
/// Panics when the numbers of tokens differ.
pub(crate) fn add_over_tokens(sum: &mut Mat<f64>, a: MatRef<'_, f32>, b: MatRef<'_, f32>) {
    assert_eq!(a.nrows(), b.nrows(), "tokens of a sum");
    for first in (0..a.nrows()).step_by(TOKENS) {
        let count = TOKENS.min(a.nrows() - first);
        let part = multiply(a.subrows(first, count).transpose(), b.subrows(first, count));
        zip!(&mut *sum, &part).for_each(|unzip!(sum, part)| *sum += f64::from(*part));
    }
}

/// `‖a‖²_F`, summed in f64: an f32 sum over millions of squares keeps only three digits.
#[must_use]
pub fn energy<T: Real>(a: MatRef<'_, T>) -> f64 {
    // Walk memory in the order in which it lies.
    let a = if a.row_stride().unsigned_abs() > a.col_stride().unsigned_abs() { a.transpose() } else { a };
    let square = |x: &T| x.to_f64() * x.to_f64();
    let mut sum = 0.0;
    for column in 0..a.ncols() {
        sum += match a.col(column).try_as_col_major() {
            Some(column) => {
                // Eight sums side by side: one alone waits for each addition to end.
                let (eights, rest) = column.as_slice().as_chunks::<8>();
                let mut sums = [0.0; 8];
                for eight in eights {
                    sums.iter_mut().zip(eight).for_each(|(sum, x)| *sum += square(x));
                }
                sums.iter().sum::<f64>() + rest.iter().map(square).sum::<f64>()
            }
            None => a.col(column).iter().map(square).sum(),
        };
    }
    sum
}

/// The same matrix in f64; exact.
#[must_use]
pub fn widen<T: Real>(a: MatRef<'_, T>) -> Mat<f64> {
    let mut wide = Mat::zeros(a.nrows(), a.ncols());
    zip!(&mut wide, a).for_each(|unzip!(wide, a)| *wide = a.to_f64());
    wide
}

/// The same matrix in f32 (or f64), each entry rounded to nearest.
#[must_use]
pub fn narrow<T: Real>(a: MatRef<'_, f64>) -> Mat<T> {
    let mut narrow = Mat::zeros(a.nrows(), a.ncols());
    zip!(&mut narrow, a).for_each(|unzip!(narrow, a)| *narrow = T::from_f64(*a));
    narrow
}

/// A matrix from values in row-major order, as files and tensors hold them.
///
/// # Errors
/// [`LinalgError::Shape`] when there are not `rows · cols` values.
pub fn from_rows(values: &[f32], rows: usize, cols: usize) -> Result<Mat<f32>, LinalgError> {
    if rows.checked_mul(cols) != Some(values.len()) {
        let what = "values in row-major order";
        return Err(LinalgError::Shape {
            what,
            want_rows: rows,
            want_cols: cols,
            rows: 1,
            cols: values.len(),
        });
    }
    Ok(Mat::from_fn(rows, cols, |i, j| values[i * cols + j]))
}

/// The values in row-major order.
#[must_use]
pub fn to_rows(a: MatRef<'_, f32>) -> Vec<f32> {
    let mut values = Vec::with_capacity(a.nrows() * a.ncols());
    for i in 0..a.nrows() {
        values.extend(a.row(i).iter().copied());
    }
    values
}

/// Refuses infinities and NaN, naming the first place in column order.
///
/// # Errors
/// [`LinalgError::NonFinite`].
pub fn finite<T: Real>(a: MatRef<'_, T>) -> Result<(), LinalgError> {
    let mut all = true;
    zip!(a).for_each(|unzip!(x)| all &= x.to_f64().is_finite());
    if all {
        return Ok(());
    }
    let (rows, cols) = a.shape();
    let place = |col: usize| a.col(col).iter().position(|x| !x.to_f64().is_finite()).map(|row| (row, col));
    match (0..cols).find_map(place) {
        Some((row, col)) => Err(LinalgError::NonFinite { rows, cols, row, col }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_agree_with_the_definition_and_with_row_major_views() {
        let a = Mat::<f32>::from_fn(300, 7, |i, j| ((i * 7 + j) % 11) as f32 - 5.0);
        let b = Mat::<f32>::from_fn(7, 520, |i, j| ((i * 3 + j * 5) % 13) as f32 - 6.0);
        let by_hand = |i: usize, j: usize| (0..7).map(|k| a[(i, k)] * b[(k, j)]).sum::<f32>();
        let product = multiply(a.as_ref(), b.as_ref());
        // Small integers: exact in f32, so equality is the right test.
        assert_eq!(product, Mat::from_fn(300, 520, by_hand));
        let rows = to_rows(a.as_ref());
        let view = MatRef::from_row_major_slice(&rows, 300, 7);
        assert_eq!(multiply(view, b.as_ref()), product);
        assert_eq!(from_rows(&rows, 300, 7).unwrap(), a);
        assert_eq!(energy(view), energy(a.as_ref()));
        assert!(from_rows(&rows, 299, 7).is_err());
    }

    #[test]
    fn many_small_terms_are_not_lost_beside_a_large_one() {
        // In f32, 2²⁵ + 1 is 2²⁵.
        let n = 5 * TOKENS + 7;
        let ones = Mat::<f32>::from_fn(n, 3, |_, _| 1.0);
        let terms = Mat::<f32>::from_fn(n, 2, |i, _| match i {
            0 => 2.0_f32.powi(25),
            i if i < TOKENS => 0.0,
            _ => 1.0,
        });
        let mut sum = Mat::zeros(3, 2);
        add_over_tokens(&mut sum, ones.as_ref(), terms.as_ref());
        assert_eq!(sum, Mat::from_fn(3, 2, |_, _| 2.0_f64.powi(25) + (n - TOKENS) as f64));
    }

    #[test]
    fn an_empty_inner_dimension_gives_zero() {
        let (a, b) = (Mat::<f32>::zeros(3, 0), Mat::<f32>::zeros(0, 2));
        assert_eq!(multiply(a.as_ref(), b.as_ref()), Mat::zeros(3, 2));
    }
}
