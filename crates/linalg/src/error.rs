//! Why a decomposition has no answer.

/// Why a decomposition has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinalgError {
    /// An entry is infinite or not a number.
    #[error(
        "the matrix [{rows}, {cols}] has an entry at row {row}, column {col} that is infinite or not a number; find where it \
         overflowed before it is decomposed"
    )]
    NonFinite {
        /// Rows of the matrix.
        rows: usize,
        /// Columns of the matrix.
        cols: usize,
        /// Row of the first such entry.
        row: usize,
        /// Column of the first such entry.
        col: usize,
    },
    /// No method found the singular values.
    #[error(
        "no singular values found for a matrix [{rows}, {cols}]: the iteration on it, the iteration on its triangular factor \
         in f64 and the eigenvalues of its Gram matrix all failed or gave another matrix back; please report this matrix"
    )]
    NoConvergence {
        /// Rows of the matrix.
        rows: usize,
        /// Columns of the matrix.
        cols: usize,
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
    /// A rank or width that the matrix does not have.
    #[error("rank {rank} asked of a matrix [{rows}, {cols}]: give a rank from 1 to {max}", max = (*rows).min(*cols))]
    Rank {
        /// The rank asked for.
        rank: usize,
        /// Rows of the matrix.
        rows: usize,
        /// Columns of the matrix.
        cols: usize,
    },
    /// A subspace iteration that was stopped early, fed too late, or planned too short.
    #[error("subspace iteration of {planned} passes, {done} done: {problem}")]
    Passes {
        /// Passes planned at the start.
        planned: usize,
        /// Passes ended.
        done: usize,
        /// What is wrong.
        problem: &'static str,
    },
}
