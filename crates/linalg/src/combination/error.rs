//! Why changes cannot be put together.

use crate::LinalgError;

/// Why changes cannot be put together.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CombinationError {
    /// Nothing to combine.
    #[error("nothing to combine: give the change of at least one adapter")]
    Empty,
    /// Changes of different weights.
    #[error("adapter {part} changes a weight [{out}, {inp}], the first one a weight [{want_out}, {want_in}]")]
    Shape {
        /// Which adapter, from 1.
        part: usize,
        /// Rows of its change.
        out: usize,
        /// Columns of its change.
        inp: usize,
        /// Rows of the first change.
        want_out: usize,
        /// Columns of the first change.
        want_in: usize,
    },
    /// Factors of different ranks cannot be put onto each other.
    #[error(
        "{method} puts factor onto factor, which needs one rank, but adapter {part} has rank {rank} and the first one \
         {first}; take cat, svd or a method that ends in -svd"
    )]
    Ranks {
        /// The method.
        method: &'static str,
        /// Which adapter, from 1.
        part: usize,
        /// Its rank.
        rank: usize,
        /// The rank of the first.
        first: usize,
    },
    /// A weight or scale that is infinite or not a number.
    #[error("adapter {part} counts with weight {weight} and scale {scale}; both must be finite numbers")]
    Weight {
        /// Which adapter, from 1.
        part: usize,
        /// The weight.
        weight: f64,
        /// The scale.
        scale: f64,
    },
    /// A method that drops entries was not told how many.
    #[error("{method} drops entries and needs a density: the part of them to keep, above 0 and at most 1")]
    NoDensity {
        /// The method.
        method: &'static str,
    },
    /// A density outside its range.
    #[error("density {density}: give the part of the entries to keep, above 0 and at most 1")]
    Density {
        /// The density.
        density: f64,
    },
    /// So few entries that none is left.
    #[error("density {density} keeps none of the {entries} entries of a tensor; give a larger one")]
    NothingKept {
        /// The density.
        density: f64,
        /// Entries of the tensor.
        entries: usize,
    },
    /// A mask of another size than the tensor.
    #[error("a mask of {found} entries was given for a tensor of {entries}")]
    Mask {
        /// Entries of the mask.
        found: usize,
        /// Entries of the tensor.
        entries: usize,
    },
    /// A rank of zero.
    #[error("rank 0: give at least 1")]
    NoRank,
    /// A quantile that leaves nothing.
    #[error(
        "clamping at the quantile {quantile} of the entries, which is {value}, would leave nothing; give a quantile near \
         1, such as 0.99"
    )]
    Clamp {
        /// The quantile asked for.
        quantile: f64,
        /// Its value.
        value: f64,
    },
    /// A decomposition without an answer.
    #[error(transparent)]
    Linalg(#[from] LinalgError),
}
