//! Single entries of a matrix (completion): `⟨e_i·e_jᵀ, X⟩ = X_ij`.
//!
//! Entries are held by row, and once more by column, as compressed sparse matrices are. One step costs `6·m·k` operations: an
//! inner product for each entry and a row of a factor added on each side. Rows of the left factor are computed by one task each, as
//! are rows of the right one, so no sum depends on the number of threads.

use std::ops::Range;

use faer::{Mat, MatRef};
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::{Adjoint, Measurement, Pull, Weigh};
use crate::recovery::RecoveryError;
use crate::recovery::dot::{PADDED, add_padded, dot_padded};

/// Rows (or columns) of one task.
const PART: usize = 16;

/// Observed entries, in the order of rows, within a row of columns.
#[derive(Debug, Clone)]
pub struct Entries {
    rows: usize,
    cols: usize,
    /// Entries of row i are `by_row[i]..by_row[i + 1]`.
    by_row: Vec<usize>,
    /// Column of each entry.
    column: Vec<u32>,
    /// Places of column j in the two lists below are `by_column[j]..by_column[j + 1]`.
    by_column: Vec<usize>,
    /// Row of each place.
    row: Vec<u32>,
    /// Number of the entry at each place.
    entry: Vec<u32>,
}

impl Entries {
    /// Observed entries from `(row, column, value)`, counted from 0, in any order, with the values in the order of the measurements.
    ///
    /// # Errors
    /// [`RecoveryError::Empty`], [`RecoveryError::OutOfRange`], [`RecoveryError::NonFinite`], [`RecoveryError::Duplicate`].
    pub fn from_triples(
        rows: usize,
        cols: usize,
        triples: Vec<(usize, usize, f64)>,
    ) -> Result<(Entries, Vec<f64>), RecoveryError> {
        if triples.is_empty() {
            return Err(RecoveryError::Empty);
        }
        let limit = u32::MAX as usize;
        for (what, count) in
            [("the number of rows", rows), ("of columns", cols), ("of observations", triples.len())]
        {
            if count > limit {
                return Err(RecoveryError::Setting {
                    what,
                    value: count as f64,
                    allowed: "at most 4294967295 are held",
                });
            }
        }
        for (index, &(row, col, value)) in triples.iter().enumerate() {
            if row >= rows || col >= cols {
                return Err(RecoveryError::OutOfRange { index, row, col, rows, cols });
            }
            if !value.is_finite() {
                return Err(RecoveryError::NonFinite { index, value });
            }
        }
        let mut triples = triples;
        triples.sort_unstable_by_key(|&(row, col, _)| (row, col));
        if let Some(twice) = triples.windows(2).find(|pair| (pair[0].0, pair[0].1) == (pair[1].0, pair[1].1))
        {
            return Err(RecoveryError::Duplicate { row: twice[0].0, col: twice[0].1 });
        }
        let by_row = starts(rows, triples.iter().map(|triple| triple.0));
        let by_column = starts(cols, triples.iter().map(|triple| triple.1));
        let mut next = by_column.clone();
        let (mut row, mut entry) = (vec![0; triples.len()], vec![0; triples.len()]);
        for (number, &(i, j, _)) in triples.iter().enumerate() {
            row[next[j]] = i as u32;
            entry[next[j]] = number as u32;
            next[j] += 1;
        }
        let column = triples.iter().map(|triple| triple.1 as u32).collect();
        let values = triples.iter().map(|triple| triple.2).collect();
        Ok((Entries { rows, cols, by_row, column, by_column, row, entry }, values))
    }

    /// Row and column of each measurement, in their order.
    pub fn places(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        (0..self.rows).flat_map(|i| {
            self.column[self.by_row[i]..self.by_row[i + 1]].iter().map(move |&j| (i, j as usize))
        })
    }
}

/// Where the entries of each of `count` lines begin, and the number of entries behind the last.
fn starts(count: usize, lines: impl Iterator<Item = usize>) -> Vec<usize> {
    let mut starts = vec![0; count + 1];
    lines.for_each(|line| starts[line + 1] += 1);
    for line in 0..count {
        starts[line + 1] += starts[line];
    }
    starts
}

/// A factor by rows, each padded with zeros to whole lanes.
struct Rows {
    stride: usize,
    values: Vec<f64>,
}

impl Rows {
    fn of(factor: MatRef<'_, f64>) -> Rows {
        let mut rows = Rows::zeros(factor.nrows(), factor.ncols());
        for j in 0..factor.ncols() {
            for (i, &x) in factor.col(j).iter().enumerate() {
                rows.values[i * rows.stride + j] = x;
            }
        }
        rows
    }
    fn zeros(rows: usize, cols: usize) -> Rows {
        let stride = cols.next_multiple_of(PADDED);
        Rows { stride, values: vec![0.0; rows * stride] }
    }
    fn row(&self, i: usize) -> &[f64] {
        &self.values[i * self.stride..][..self.stride]
    }
    fn to_mat(&self, cols: usize) -> Mat<f64> {
        Mat::from_fn(self.values.len() / self.stride.max(1), cols, |i, j| self.values[i * self.stride + j])
    }
}

/// Neighbouring pieces of these lengths.
fn pieces(mut all: &mut [f64], lengths: impl Iterator<Item = usize>) -> Vec<&mut [f64]> {
    let mut pieces = Vec::new();
    for length in lengths {
        let (piece, rest) = all.split_at_mut(length);
        pieces.push(piece);
        all = rest;
    }
    pieces
}

/// Rows of one part, its values and weights, and its rows of `D·R`.
struct RowPart<'a> {
    of: &'a Entries,
    rows: Range<usize>,
    left: &'a Rows,
    right: &'a Rows,
    weigh: &'a Weigh<'a>,
    values: &'a mut [f64],
    weights: &'a mut [f64],
    sums: &'a mut [f64],
}

impl WithSimd for RowPart<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let (first, stride) = (self.of.by_row[self.rows.start], self.right.stride);
        for (i, sum) in self.rows.zip(self.sums.chunks_exact_mut(stride)) {
            let left = self.left.row(i);
            for number in self.of.by_row[i]..self.of.by_row[i + 1] {
                let right = self.right.row(self.of.column[number] as usize);
                let value = dot_padded(left, right);
                let weight = (self.weigh)(number, value);
                self.values[number - first] = value;
                self.weights[number - first] = weight;
                // Where only values are asked for, all weights are zero.
                if weight != 0.0 {
                    add_padded(weight, right, sum);
                }
            }
        }
    }
}

/// Columns of one part, and its rows of `Dᵀ·L`.
struct ColumnPart<'a> {
    of: &'a Entries,
    columns: Range<usize>,
    left: &'a Rows,
    weights: &'a [f64],
    sums: &'a mut [f64],
}

impl WithSimd for ColumnPart<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (j, sum) in self.columns.zip(self.sums.chunks_exact_mut(self.left.stride)) {
            for place in self.of.by_column[j]..self.of.by_column[j + 1] {
                let weight = self.weights[self.of.entry[place] as usize];
                add_padded(weight, self.left.row(self.of.row[place] as usize), sum);
            }
        }
    }
}

impl Entries {
    /// Values and weights of all entries, and `D·R`.
    fn by_rows(&self, left: &Rows, right: &Rows, weigh: &Weigh<'_>) -> (Vec<f64>, Vec<f64>, Rows) {
        let (mut values, mut weights) = (vec![0.0; self.column.len()], vec![0.0; self.column.len()]);
        let mut sums = Rows { stride: right.stride, values: vec![0.0; self.rows * right.stride] };
        let parts: Vec<Range<usize>> =
            (0..self.rows).step_by(PART).map(|first| first..(first + PART).min(self.rows)).collect();
        let lengths = || parts.iter().map(|rows| self.by_row[rows.end] - self.by_row[rows.start]);
        let tasks: Vec<_> = pieces(&mut values, lengths())
            .into_iter()
            .zip(pieces(&mut weights, lengths()))
            .zip(sums.values.chunks_mut(PART * right.stride))
            .zip(parts.iter().cloned())
            .collect();
        tasks.into_par_iter().for_each(|(((values, weights), sums), rows)| {
            Arch::new().dispatch(RowPart { of: self, rows, left, right, weigh, values, weights, sums });
        });
        (values, weights, sums)
    }

    /// `Dᵀ·L`.
    fn by_columns(&self, left: &Rows, weights: &[f64]) -> Rows {
        let mut sums = Rows { stride: left.stride, values: vec![0.0; self.cols * left.stride] };
        sums.values.par_chunks_mut(PART * left.stride).enumerate().for_each(|(part, sums)| {
            let columns = part * PART..((part + 1) * PART).min(self.cols);
            Arch::new().dispatch(ColumnPart { of: self, columns, left, weights, sums });
        });
        sums
    }
}

/// Weights on the entries.
struct Sparse<'a> {
    of: &'a Entries,
    weights: Vec<f64>,
}

impl Adjoint for Sparse<'_> {
    fn times(&self, right: MatRef<'_, f64>) -> Mat<f64> {
        let nothing = Rows::zeros(self.of.rows, right.ncols());
        let (_, _, sums) = self.of.by_rows(&nothing, &Rows::of(right), &|number, _| self.weights[number]);
        sums.to_mat(right.ncols())
    }
    fn transpose_times(&self, left: MatRef<'_, f64>) -> Mat<f64> {
        self.of.by_columns(&Rows::of(left), &self.weights).to_mat(left.ncols())
    }
    fn energy(&self) -> f64 {
        self.weights.iter().map(|w| w * w).sum()
    }
}

impl Measurement for Entries {
    fn shape(&self) -> (usize, usize) {
        (self.rows, self.cols)
    }
    fn count(&self) -> usize {
        self.column.len()
    }
    fn unit(&self) -> f64 {
        ((self.rows * self.cols) as f64).sqrt()
    }
    fn apply(&self, left: MatRef<'_, f64>, right: MatRef<'_, f64>) -> Vec<f64> {
        self.by_rows(&Rows::of(left), &Rows::of(right), &|_, _| 0.0).0
    }
    fn adjoint<'a>(&'a self, weights: Vec<f64>) -> Box<dyn Adjoint + 'a> {
        Box::new(Sparse { of: self, weights })
    }
    fn pull(&self, left: MatRef<'_, f64>, right: MatRef<'_, f64>, weigh: &Weigh<'_>) -> Pull {
        let k = left.ncols();
        let (left, right) = (Rows::of(left), Rows::of(right));
        let (values, weights, to_left) = self.by_rows(&left, &right, weigh);
        let to_right = self.by_columns(&left, &weights);
        Pull { values, left: to_left.to_mat(k), right: to_right.to_mat(k) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_in_the_order_of_rows_and_the_odd_is_refused() {
        let (a, values) = Entries::from_triples(3, 2, vec![(2, 1, 5.0), (0, 1, 1.0), (0, 0, 2.0)]).unwrap();
        assert_eq!(values, [2.0, 1.0, 5.0]);
        assert_eq!(a.places().collect::<Vec<_>>(), [(0, 0), (0, 1), (2, 1)]);
        let refused = |triples| Entries::from_triples(3, 2, triples).unwrap_err();
        assert_eq!(refused(vec![]), RecoveryError::Empty);
        assert_eq!(refused(vec![(0, 1, 1.0), (0, 1, 2.0)]), RecoveryError::Duplicate { row: 0, col: 1 });
        assert_eq!(
            refused(vec![(0, 0, 1.0), (0, 2, 2.0)]),
            RecoveryError::OutOfRange { index: 1, row: 0, col: 2, rows: 3, cols: 2 }
        );
        assert!(matches!(refused(vec![(0, 0, f64::NAN)]), RecoveryError::NonFinite { index: 0, .. }));
    }
}
