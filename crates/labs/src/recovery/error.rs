//! Why a recovery cannot begin.

use lowrank_linalg::LinalgError;

/// What was handed in and cannot be solved. What goes wrong during a solution is no error but a [`super::Stop`].
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RecoveryError {
    /// Nothing was measured.
    #[error("there are no observations; give at least one")]
    Empty,
    /// Not one observation for each measurement.
    #[error("{measurements} measurements, but {observations} observations: give one of each")]
    Count {
        /// Measurements.
        measurements: usize,
        /// Observations.
        observations: usize,
    },
    /// An observation that is no number.
    #[error("observation {index} (from 0) is {value}; leave out what was not observed")]
    NonFinite {
        /// Which, from 0.
        index: usize,
        /// What it is.
        value: f64,
    },
    /// A rank that the matrix does not have.
    #[error("rank {rank} asked of a matrix [{rows}, {cols}]: give a rank from 1 to {max}", max = (*rows).min(*cols))]
    Rank {
        /// The rank asked for.
        rank: usize,
        /// Rows of the matrix.
        rows: usize,
        /// Columns of the matrix.
        cols: usize,
    },
    /// X·Xᵀ is square.
    #[error("X·Xᵀ is square, the matrix is [{rows}, {cols}]: use the asymmetric solver")]
    NotSquare {
        /// Rows of the matrix.
        rows: usize,
        /// Columns of the matrix.
        cols: usize,
    },
    /// An entry beside the matrix.
    #[error(
        "observation {index} (from 0) is of row {row}, column {col} of a matrix [{rows}, {cols}]; rows and columns count from 0"
    )]
    OutOfRange {
        /// Which observation, from 0.
        index: usize,
        /// Its row.
        row: usize,
        /// Its column.
        col: usize,
        /// Rows of the matrix.
        rows: usize,
        /// Columns of the matrix.
        cols: usize,
    },
    /// An entry that is given twice.
    #[error("row {row}, column {col} (from 0) is observed twice; keep one, or their mean")]
    Duplicate {
        /// Row, from 0.
        row: usize,
        /// Column, from 0.
        col: usize,
    },
    /// Shapes that do not fit.
    #[error("{what}: expected [{want_rows}, {want_cols}], found [{rows}, {cols}]")]
    Shape {
        /// Which operand.
        what: &'static str,
        /// Rows it should have.
        want_rows: usize,
        /// Columns it should have.
        want_cols: usize,
        /// Rows it has.
        rows: usize,
        /// Columns it has.
        cols: usize,
    },
    /// A setting outside of what it may be.
    #[error("{what} is {value}; {allowed}")]
    Setting {
        /// Which.
        what: &'static str,
        /// What it is.
        value: f64,
        /// What it may be.
        allowed: &'static str,
    },
    /// A decomposition failed.
    #[error(transparent)]
    Linalg(#[from] LinalgError),
}

/// Refuses a setting that is not a number above zero.
pub(super) fn positive(what: &'static str, value: f64) -> Result<(), RecoveryError> {
    if value.is_finite() && value > 0.0 {
        return Ok(());
    }
    Err(RecoveryError::Setting { what, value, allowed: "give a number above 0" })
}
