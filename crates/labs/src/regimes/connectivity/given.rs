//! Weights from elsewhere, such as connectivity that was measured by electron microscopy, and their control: the same entries in random places,
//! which keeps every number and drops all structure.

use faer::{Mat, MatRef};
use lowrank_linalg::finite;
use lowrank_record::Seed;

use super::{Connectivity, Entry};
use crate::regimes::RegimeError;

pub(super) const GIVEN: Entry = Entry { name: "given", summary: "any square matrix of yours" };

pub(super) const SHUFFLED: Entry =
    Entry { name: "shuffled", summary: "the entries of a square matrix of yours in random places" };

/// A matrix as it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Given {
    /// `[n, n]`.
    pub weights: Mat<f64>,
}

/// A matrix with its entries permuted.
#[derive(Debug, Clone, PartialEq)]
pub struct Shuffled {
    /// `[n, n]`.
    pub weights: Mat<f64>,
}

impl Connectivity for Given {
    fn name(&self) -> &'static str {
        GIVEN.name
    }

    fn draw(&self, control: MatRef<'_, f64>, _seed: Seed) -> Result<Mat<f64>, RegimeError> {
        of_size(&self.weights, control.nrows())?;
        Ok(self.weights.clone())
    }
}

impl Connectivity for Shuffled {
    fn name(&self) -> &'static str {
        SHUFFLED.name
    }

    fn draw(&self, control: MatRef<'_, f64>, seed: Seed) -> Result<Mat<f64>, RegimeError> {
        let size = control.nrows();
        of_size(&self.weights, size)?;
        let from = seed.permutation(size * size);
        Ok(Mat::from_fn(size, size, |i, j| {
            let at = from[i * size + j];
            self.weights[(at / size, at % size)]
        }))
    }
}

/// Refuses what is not a finite matrix `[size, size]`.
pub(super) fn of_size(weights: &Mat<f64>, size: usize) -> Result<(), RegimeError> {
    let (rows, cols) = weights.shape();
    if rows != cols {
        return Err(RegimeError::NotSquare { rows, cols });
    }
    if rows != size {
        return Err(RegimeError::Size { what: "units of the given weights", wanted: size, found: rows });
    }
    Ok(finite(weights.as_ref())?)
}
