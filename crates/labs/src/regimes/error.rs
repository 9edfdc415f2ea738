//! Why an analysis of a regime stopped.

use lowrank_linalg::LinalgError;

/// Why an analysis of a regime stopped.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RegimeError {
    /// A matrix of recurrent weights that is not square.
    #[error(
        "recurrent weights are square, one row and one column a unit; found [{rows}, {cols}]: give a square matrix"
    )]
    NotSquare {
        /// Rows found.
        rows: usize,
        /// Columns found.
        cols: usize,
    },
    /// A rank that no matrix of this size has.
    #[error("rank {rank} asked of a matrix [{size}, {size}]: give a rank from 1 to {size}")]
    Rank {
        /// The rank asked for.
        rank: usize,
        /// Units.
        size: usize,
    },
    /// A number that an option cannot have.
    #[error("{what}: found {found}; give {wanted}")]
    Value {
        /// Which option.
        what: &'static str,
        /// What it was.
        found: f64,
        /// What it can be.
        wanted: &'static str,
    },
    /// Things that should be of one size are not.
    #[error("{what}: expected {wanted}, found {found}")]
    Size {
        /// Which things.
        what: &'static str,
        /// How many there should be.
        wanted: usize,
        /// How many there are.
        found: usize,
    },
    /// Weights that cannot be brought to a norm because theirs is zero.
    #[error(
        "{connectivity}: the {norm} of its weights is 0, so no factor brings it to that of the control; take another norm"
    )]
    NoNorm {
        /// The initialiser.
        connectivity: &'static str,
        /// The norm.
        norm: &'static str,
    },
    /// The loss left the numbers.
    #[error(
        "the loss is infinite or not a number after {iteration} iterations at the rate {rate}: take a smaller rate"
    )]
    Diverged {
        /// Iterations done.
        iteration: usize,
        /// Learning rate.
        rate: f64,
    },
    /// A flow that did not come to rest.
    #[error(
        "after {steps} steps the residual of the linear network is still {residual:.1e} of the target: allow more steps"
    )]
    NotAtRest {
        /// Steps done.
        steps: usize,
        /// What is left, relative to the target.
        residual: f64,
    },
    /// A site of a run that cannot be analysed.
    #[error("site {site}: {cause}")]
    Site {
        /// Its name.
        site: String,
        /// Why.
        cause: LinalgError,
    },
    /// A decomposition has no answer.
    #[error(transparent)]
    Linalg(#[from] LinalgError),
}
