//! Combinations: the changes that several adapters make to one weight, put together into one change.
//!
//! The arithmetic is that of PEFT 0.21.2 (`LoraModel.add_weighted_adapter`, `peft.utils.merge_utils`), which has two roads.
//! The plain methods work *on the factors*: left with left and right with right, each multiplied by √|weight·scale|, so that
//! the product of two combined factors holds mixed terms that are in no adapter. The methods that end in `-svd`, and `svd`
//! itself, work *on the change*, and cut the result back to a rank.
//!
//! Every result counts at scale 1. A method joins by a file and a line in [`ALL`].

mod cat;
mod dare;
mod elect;
mod error;
mod linear;
mod magnitude;
mod part;
mod roads;
mod sparse;
mod svd;
mod ties;

use lowrank_record::Card;

use crate::LowRank;

pub use elect::Election;
pub use error::CombinationError;
pub use part::Part;
pub use sparse::Masks;

/// One way to put the changes of several adapters together.
pub trait Combination: Sync {
    /// What it is. The names of its choices are the fields of [`Settings`] that it looks at.
    fn card(&self) -> &'static Card;

    /// The one change of a weight, at scale 1, from the change that each adapter makes to it. Adapters without a change of
    /// this weight are left out; that is the same as a change of zero in every method.
    ///
    /// # Errors
    /// [`CombinationError`] with what does not fit.
    fn combine(&self, parts: &[Part], settings: &Settings<'_>) -> Result<LowRank, CombinationError>;
}

/// What a method may be told; each method says in its card what it looks at.
#[derive(Clone, Copy)]
pub struct Settings<'a> {
    /// The part of the entries that is kept, above 0 and at most 1.
    pub density: Option<f64>,
    /// How the sign of an entry is elected.
    pub election: Election,
    /// Rank of the result where it is cut by SVD; without it the largest rank of the parts.
    pub rank: Option<usize>,
    /// Where the result is cut by SVD: the quantile of the entries of both factors at which they are clamped.
    pub clamp: Option<f64>,
    /// Where random masks come from.
    pub masks: &'a dyn Masks,
}

impl<'a> Settings<'a> {
    /// No density, signs by total, the largest rank, nothing clamped.
    #[must_use]
    pub fn new(masks: &'a dyn Masks) -> Settings<'a> {
        Settings { density: None, election: Election::Total, rank: None, clamp: None, masks }
    }
}

/// Every combination, in the order in which they are listed.
pub const ALL: [&dyn Combination; 11] = [
    &cat::Cat,
    &linear::Linear,
    &svd::ByDecomposition,
    &ties::Ties,
    &ties::TiesSvd,
    &dare::DareLinear,
    &dare::DareLinearSvd,
    &dare::DareTies,
    &dare::DareTiesSvd,
    &magnitude::MagnitudePrune,
    &magnitude::MagnitudePruneSvd,
];

/// The combination of this name.
#[must_use]
pub fn named(name: &str) -> Option<&'static dyn Combination> {
    ALL.into_iter().find(|combination| combination.card().name == name)
}
