//! Sensing by dense matrices: `⟨A_i, X⟩` with every entry of A_i drawn from N(0, 1).
//!
//! The A_i are one matrix `[m, n1·n2]`. Its entries are f32 (as drawn, so nothing is lost), its products are summed in f64. A step
//! reads it once: each row's value decides its weight, and the row goes into D while it is still in the cache. The two products
//! `A·x` and `Aᵀ·w` in f64 would read four times as many bytes.

use faer::{Mat, MatRef};
use lowrank_linalg::multiply;
use lowrank_record::Seed;
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::{Adjoint, Measurement, Pull, Weigh, product_in_rows};
use crate::recovery::RecoveryError;
use crate::recovery::dot::{add_narrow, dot_narrow};

/// Parts into which the measurements are cut at most; each holds its own sum of `n1·n2`. Fixed, so that sums do not depend on the
/// number of threads.
const PARTS: usize = 16;
/// Measurements of a part at least.
const LEAST: usize = 32;

/// Dense measurements `[m, n1·n2]`.
#[derive(Debug, Clone)]
pub struct DenseSensing {
    rows: usize,
    cols: usize,
    /// Row-major: A_i is `entries[i·n1·n2..][..n1·n2]`, itself row-major.
    entries: Vec<f32>,
}

impl DenseSensing {
    /// `count` matrices `[rows, cols]` of independent draws from N(0, 1). Held: `4·count·rows·cols` bytes.
    ///
    /// # Errors
    /// [`RecoveryError::Empty`] when there would be none.
    pub fn gaussian(
        rows: usize,
        cols: usize,
        count: usize,
        seed: Seed,
    ) -> Result<DenseSensing, RecoveryError> {
        if count * rows * cols == 0 {
            return Err(RecoveryError::Empty);
        }
        let width = rows * cols;
        let draw = |i: usize| seed.at("measurement", &i.to_string()).normal(width);
        let entries = (0..count).into_par_iter().flat_map_iter(draw).collect();
        Ok(DenseSensing { rows, cols, entries })
    }

    /// Given measurements, A_i after A_i, each row-major; their entries should have mean square 1 for steps to mean what they say.
    ///
    /// # Errors
    /// [`RecoveryError::Empty`], [`RecoveryError::Shape`].
    pub fn from_rows(rows: usize, cols: usize, entries: Vec<f32>) -> Result<DenseSensing, RecoveryError> {
        let width = rows * cols;
        if width == 0 || entries.is_empty() {
            return Err(RecoveryError::Empty);
        }
        if !entries.len().is_multiple_of(width) {
            let what = "entries of dense measurements";
            let (count, cols) = (entries.len().div_ceil(width), entries.len());
            return Err(RecoveryError::Shape { what, want_rows: count, want_cols: width, rows: 1, cols });
        }
        Ok(DenseSensing { rows, cols, entries })
    }

    fn width(&self) -> usize {
        self.rows * self.cols
    }

    /// Measurements of one part.
    fn part(&self) -> usize {
        self.count().div_ceil(PARTS).max(LEAST)
    }

    /// D, row-major, from the parts' sums in their order.
    fn gather(&self, parts: Vec<Vec<f64>>) -> Formed {
        let mut parts = parts.into_iter();
        let mut sum = parts.next().unwrap_or_default();
        for part in parts {
            sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
        }
        Formed { transposed: Mat::from_fn(self.cols, self.rows, |j, i| sum[i * self.cols + j]) }
    }

    /// Values of all measurements, and D, each row of A read once.
    fn swept(&self, x: &[f64], weigh: &Weigh<'_>) -> (Vec<f64>, Formed) {
        let (width, part) = (self.width(), self.part());
        let mut values = vec![0.0; self.count()];
        let rows = self.entries.par_chunks(part * width).zip(values.par_chunks_mut(part)).enumerate();
        let sums = rows.map(|(index, (rows, values))| {
            let mut sum = vec![0.0; width];
            Arch::new().dispatch(Sweep { rows, x, first: index * part, weigh, values, sum: &mut sum });
            sum
        });
        let sums = sums.collect();
        (values, self.gather(sums))
    }
}

/// Values and the sum of one part.
struct Sweep<'a> {
    rows: &'a [f32],
    x: &'a [f64],
    first: usize,
    weigh: &'a Weigh<'a>,
    values: &'a mut [f64],
    sum: &'a mut [f64],
}

impl WithSimd for Sweep<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let width = self.sum.len();
        let groups = self.rows.chunks(4 * width).zip(self.values.chunks_mut(4));
        for (group, (rows, values)) in groups.enumerate() {
            let mut weights = [0.0; 4];
            for (g, (row, value)) in rows.chunks_exact(width).zip(values.iter_mut()).enumerate() {
                *value = dot_narrow(row, self.x);
                weights[g] = (self.weigh)(self.first + 4 * group + g, *value);
            }
            // The rows that the last group lacks are its first row, with weight 0.
            let row = |g: usize| rows.chunks_exact(width).nth(g).unwrap_or(&rows[..width]);
            add_narrow([row(0), row(1), row(2), row(3)], weights, self.sum);
        }
    }
}

/// Values alone, of one part.
struct Values<'a> {
    rows: &'a [f32],
    x: &'a [f64],
    values: &'a mut [f64],
}

impl WithSimd for Values<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (row, value) in self.rows.chunks_exact(self.x.len()).zip(self.values) {
            *value = dot_narrow(row, self.x);
        }
    }
}

/// D, held as its transpose.
struct Formed {
    transposed: Mat<f64>,
}

impl Adjoint for Formed {
    fn times(&self, right: MatRef<'_, f64>) -> Mat<f64> {
        multiply(self.transposed.transpose(), right)
    }
    fn transpose_times(&self, left: MatRef<'_, f64>) -> Mat<f64> {
        multiply(self.transposed.as_ref(), left)
    }
    fn energy(&self) -> f64 {
        lowrank_linalg::energy(self.transposed.as_ref())
    }
}

impl Measurement for DenseSensing {
    fn shape(&self) -> (usize, usize) {
        (self.rows, self.cols)
    }
    fn count(&self) -> usize {
        self.entries.len() / self.width()
    }
    fn unit(&self) -> f64 {
        1.0
    }
    fn apply(&self, left: MatRef<'_, f64>, right: MatRef<'_, f64>) -> Vec<f64> {
        let x = product_in_rows(left, right);
        let (width, part) = (self.width(), self.part());
        let mut values = vec![0.0; self.count()];
        let rows = self.entries.par_chunks(part * width).zip(values.par_chunks_mut(part));
        rows.for_each(|(rows, values)| Arch::new().dispatch(Values { rows, x: &x, values }));
        values
    }
    fn adjoint<'a>(&'a self, weights: Vec<f64>) -> Box<dyn Adjoint + 'a> {
        let nothing = vec![0.0; self.width()];
        Box::new(self.swept(&nothing, &|i, _| weights[i]).1)
    }
    fn pull(&self, left: MatRef<'_, f64>, right: MatRef<'_, f64>, weigh: &Weigh<'_>) -> Pull {
        let (values, formed) = self.swept(&product_in_rows(left, right), weigh);
        Pull { left: formed.times(right), right: formed.transpose_times(left), values }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_inner_products_and_the_last_group_is_whole() {
        // 35 measurements: two parts of 32 and 3, the second with an incomplete group.
        let a = DenseSensing::gaussian(3, 2, 35, Seed(1)).unwrap();
        let x = Mat::from_fn(3, 2, |i, j| (i + 2 * j) as f64);
        let identity = Mat::<f64>::identity(2, 2);
        let by_hand = |i: usize| -> f64 {
            (0..3)
                .flat_map(|p| (0..2).map(move |q| (p, q)))
                .map(|(p, q)| f64::from(a.entries[i * 6 + p * 2 + q]) * x[(p, q)])
                .sum()
        };
        for (i, value) in a.apply(x.as_ref(), identity.as_ref()).into_iter().enumerate() {
            assert!((value - by_hand(i)).abs() < 1e-12);
        }
        let last = a.adjoint((0..35).map(|i| f64::from(i == 34)).collect());
        let formed = last.times(identity.as_ref());
        assert_eq!(formed[(2, 1)], f64::from(a.entries[34 * 6 + 5]));
    }

    #[test]
    fn given_rows_must_be_whole() {
        assert!(DenseSensing::from_rows(2, 2, vec![1.0; 8]).is_ok());
        assert!(matches!(DenseSensing::from_rows(2, 2, vec![1.0; 7]), Err(RecoveryError::Shape { .. })));
        assert_eq!(DenseSensing::gaussian(2, 2, 0, Seed(0)).err(), Some(RecoveryError::Empty));
    }
}
