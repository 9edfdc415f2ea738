//! Products and sums whose bits do not depend on the number of threads, and the visible changes of precision and order.

use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatRef, Par};
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

/// `‖a‖²_F`, summed in f64: an f32 sum over millions of squares keeps only three digits.
#[must_use]
pub fn energy<T: Real>(a: MatRef<'_, T>) -> f64 {
    // Walk memory in the order in which it lies.
    let a = if a.row_stride().unsigned_abs() > a.col_stride().unsigned_abs() { a.transpose() } else { a };
    let mut sum = 0.0;
    for column in 0..a.ncols() {
        sum += a.col(column).iter().map(|&x| x.to_f64() * x.to_f64()).sum::<f64>();
    }
    sum
}

/// The same matrix in f64; exact.
#[must_use]
pub fn widen<T: Real>(a: MatRef<'_, T>) -> Mat<f64> {
    Mat::from_fn(a.nrows(), a.ncols(), |i, j| a[(i, j)].to_f64())
}

/// The same matrix in f32 (or f64), each entry rounded to nearest.
#[must_use]
pub fn narrow<T: Real>(a: MatRef<'_, f64>) -> Mat<T> {
    Mat::from_fn(a.nrows(), a.ncols(), |i, j| T::from_f64(a[(i, j)]))
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
    for col in 0..a.ncols() {
        for (row, &x) in a.col(col).iter().enumerate() {
            if !x.to_f64().is_finite() {
                return Err(LinalgError::NonFinite { rows: a.nrows(), cols: a.ncols(), row, col });
            }
        }
    }
    Ok(())
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
    fn an_empty_inner_dimension_gives_zero() {
        let (a, b) = (Mat::<f32>::zeros(3, 0), Mat::<f32>::zeros(0, 2));
        assert_eq!(multiply(a.as_ref(), b.as_ref()), Mat::zeros(3, 2));
    }
}
