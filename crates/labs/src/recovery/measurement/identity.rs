//! Every entry of the matrix: denoising, and robust principal components where some entries are grossly wrong.

use faer::{Mat, MatRef};
use lowrank_linalg::multiply;
use rayon::prelude::*;

use super::{Adjoint, Measurement, Pull, Weigh, product_in_rows};
use crate::recovery::RecoveryError;

/// Rows of one task.
const PART: usize = 64;

/// All entries, row-major: measurement `i·n2 + j` is entry (i, j).
#[derive(Debug, Clone, Copy)]
pub struct Identity {
    rows: usize,
    cols: usize,
}

impl Identity {
    /// Of a matrix `[rows, cols]`.
    ///
    /// # Errors
    /// [`RecoveryError::Empty`] for a matrix without entries.
    pub fn new(rows: usize, cols: usize) -> Result<Identity, RecoveryError> {
        if rows * cols == 0 { Err(RecoveryError::Empty) } else { Ok(Identity { rows, cols }) }
    }
}

/// D, row-major.
struct Formed {
    rows: usize,
    cols: usize,
    values: Vec<f64>,
}

impl Formed {
    fn matrix(&self) -> MatRef<'_, f64> {
        MatRef::from_row_major_slice(&self.values, self.rows, self.cols)
    }
}

impl Adjoint for Formed {
    fn times(&self, right: MatRef<'_, f64>) -> Mat<f64> {
        multiply(self.matrix(), right)
    }
    fn transpose_times(&self, left: MatRef<'_, f64>) -> Mat<f64> {
        multiply(self.matrix().transpose(), left)
    }
    fn energy(&self) -> f64 {
        self.values.iter().map(|x| x * x).sum()
    }
}

impl Measurement for Identity {
    fn shape(&self) -> (usize, usize) {
        (self.rows, self.cols)
    }
    fn count(&self) -> usize {
        self.rows * self.cols
    }
    fn unit(&self) -> f64 {
        (self.count() as f64).sqrt()
    }
    fn apply(&self, left: MatRef<'_, f64>, right: MatRef<'_, f64>) -> Vec<f64> {
        product_in_rows(left, right)
    }
    fn adjoint<'a>(&'a self, weights: Vec<f64>) -> Box<dyn Adjoint + 'a> {
        Box::new(Formed { rows: self.rows, cols: self.cols, values: weights })
    }
    fn pull(&self, left: MatRef<'_, f64>, right: MatRef<'_, f64>, weigh: &Weigh<'_>) -> Pull {
        let values = self.apply(left, right);
        let mut weights = vec![0.0; values.len()];
        let parts = weights.par_chunks_mut(PART * self.cols).zip(values.par_chunks(PART * self.cols));
        parts.enumerate().for_each(|(part, (weights, values))| {
            for (i, (weight, &value)) in weights.iter_mut().zip(values).enumerate() {
                *weight = weigh(part * PART * self.cols + i, value);
            }
        });
        let formed = Formed { rows: self.rows, cols: self.cols, values: weights };
        Pull { left: formed.times(right), right: formed.transpose_times(left), values }
    }
}
