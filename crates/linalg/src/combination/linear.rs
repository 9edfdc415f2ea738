//! Factor onto factor.

use lowrank_record::{Card, Kind, Promise, Source};

use super::roads::{add, on_factors};
use super::{Combination, CombinationError, Part, Settings};
use crate::LowRank;

static CARD: Card = Card {
    name: "linear",
    kind: Kind::Combination,
    summary: "left = Σ √|wᵢsᵢ|·leftᵢ, right = Σ ±√|wᵢsᵢ|·rightᵢ: factors added to factors, which keeps the rank and is a rough \
              approximation of the sum of the changes",
    source: Source {
        authors: "Hugging Face",
        title: "PEFT: add_weighted_adapter, combination_type linear",
        year: 2023,
        link: "https://github.com/huggingface/peft",
    },
    needs: &[],
    promise: Promise::None,
    choices: &[],
    notes: &[
        "The product of the sums holds every left factor with every right one: mixed terms that no adapter has. Adapters that began \
         with the same right factor (of one seed) have few of them; cat and svd have none.",
        "Ranks must agree. A negative weight turns the sign of the right factor alone.",
    ],
};

/// Factor onto factor.
pub(super) struct Linear;

impl Combination for Linear {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn combine(&self, parts: &[Part], settings: &Settings<'_>) -> Result<LowRank, CombinationError> {
        on_factors(CARD.name, parts, settings, add)
    }
}
