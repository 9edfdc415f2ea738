//! The largest entries of each adapter, added up.

use lowrank_record::{Card, Kind, Promise, Source};

use super::part::Task;
use super::roads::{on_change, on_factors, sum};
use super::sparse::{density, keep_largest};
use super::svd::{CLAMP, CUT, DENSE, RANK};
use super::ties::DENSITY;
use super::{Combination, CombinationError, Part, Settings};
use crate::LowRank;

const SOURCE: Source = Source {
    authors: "Hugging Face",
    title: "PEFT: add_weighted_adapter, combination_type magnitude_prune",
    year: 2024,
    link: "https://github.com/huggingface/peft",
};

static CARD: Card = Card {
    name: "magnitude-prune",
    kind: Kind::Combination,
    summary: "of each factor the largest entries are kept, then factors are added as linear does",
    source: SOURCE,
    needs: &[],
    promise: Promise::None,
    choices: &[DENSITY],
    notes: &[
        "⌊density·entries⌋ entries of each factor are kept; of equal magnitudes the earlier one, where torch leaves it open.",
        "Ranks must agree.",
    ],
};

static CARD_SVD: Card = Card {
    name: "magnitude-prune-svd",
    kind: Kind::Combination,
    summary: "of each change the largest entries are kept, the changes are added with their weights and the sum is cut to a rank by SVD",
    source: SOURCE,
    needs: &[],
    promise: Promise::None,
    choices: &[DENSITY, RANK, CLAMP],
    notes: &[DENSE, CUT],
};

/// On the factors.
pub(super) struct MagnitudePrune;

/// On the change.
pub(super) struct MagnitudePruneSvd;

impl Combination for MagnitudePrune {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn combine(&self, parts: &[Part], settings: &Settings<'_>) -> Result<LowRank, CombinationError> {
        density(CARD.name, settings)?;
        on_factors(CARD.name, parts, settings, pruned)
    }
}

impl Combination for MagnitudePruneSvd {
    fn card(&self) -> &'static Card {
        &CARD_SVD
    }

    fn combine(&self, parts: &[Part], settings: &Settings<'_>) -> Result<LowRank, CombinationError> {
        density(CARD_SVD.name, settings)?;
        on_change(parts, settings, pruned)
    }
}

fn pruned(
    mut tasks: Vec<Task>,
    _: &'static str,
    settings: &Settings<'_>,
) -> Result<Vec<f32>, CombinationError> {
    keep_largest(&mut tasks, density(CARD.name, settings)?)?;
    Ok(sum(&tasks))
}
