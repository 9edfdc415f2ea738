//! Rows of a matrix that may be stored in another number format.

use std::ops::Range;

use super::Real;

/// A matrix `[rows, cols]` that is read a few rows at a time.
pub trait RowSource<T: Real>: Sync {
    /// Number of rows.
    fn rows(&self) -> usize;

    /// Number of columns.
    fn cols(&self) -> usize;

    /// Whether [`RowSource::read`] lends the rows as they lie, without work or memory.
    fn lends(&self) -> bool;

    /// Rows of the range, row-major: borrowed where they are stored in this type, else widened into `scratch`, which
    /// grows as needed and can be used again.
    fn read<'a>(&'a self, range: Range<usize>, scratch: &'a mut Vec<T>) -> &'a [T];
}

/// Rows that are in memory in this type.
#[derive(Debug, Clone, Copy)]
pub struct SliceRows<'a, T> {
    /// Row-major values.
    pub values: &'a [T],
    /// Number of columns.
    pub cols: usize,
}

impl<T: Real> RowSource<T> for SliceRows<'_, T> {
    fn rows(&self) -> usize {
        self.values.len() / self.cols.max(1)
    }

    fn cols(&self) -> usize {
        self.cols
    }

    fn lends(&self) -> bool {
        true
    }

    fn read<'a>(&'a self, range: Range<usize>, _scratch: &'a mut Vec<T>) -> &'a [T] {
        &self.values[range.start * self.cols..range.end * self.cols]
    }
}
