//! TIES: trim, elect a sign, average those that agree.

use lowrank_record::{Card, Choice, Kind, Promise, Source};

use super::elect::disjoint_mean;
use super::part::Task;
use super::roads::{on_change, on_factors};
use super::sparse::{density, keep_largest};
use super::svd::{CLAMP, CUT, DENSE, RANK};
use super::{Combination, CombinationError, Part, Settings};
use crate::LowRank;

const SOURCE: Source = Source {
    authors: "Yadav, Tam, Choshen, Raffel, Bansal",
    title: "TIES-Merging: Resolving Interference When Merging Models",
    year: 2023,
    link: "https://arxiv.org/abs/2306.01708",
};

/// The part of the entries that stays.
pub(super) const DENSITY: Choice = Choice {
    name: "density",
    default: "none: it must be given",
    values: "above 0, at most 1",
    meaning: "The part of each tensor's entries that is kept. 1 keeps all.",
};

/// How signs are elected.
pub(super) const SIGN: Choice = Choice {
    name: "sign",
    default: "total",
    values: "total, frequency",
    meaning: "What elects the sign of an entry: the sum of the adapters' entries, or the number of adapters of each sign. A tie is \
              positive.",
};

/// What every election says of itself.
pub(super) const ELECTION: &str = "As in PEFT, signs are elected before the weights are applied, so a negative weight does not vote; \
                                   the mean divides by the number of entries that agree, not by their weights.";

const TRIMMED: &str = "⌊density·entries⌋ entries of each tensor are kept; of equal magnitudes the earlier one, where torch leaves it open.";

static CARD: Card = Card {
    name: "ties",
    kind: Kind::Combination,
    summary: "of each factor the largest entries are kept, a sign is elected for each entry, and the weighted entries of that sign are \
              averaged",
    source: SOURCE,
    needs: &[],
    promise: Promise::None,
    choices: &[DENSITY, SIGN],
    notes: &[
        "The paper trims and elects on the whole change of the weights; PEFT's plain form, and this one, do it on the factors. ties-svd does it \
         on the change.",
        ELECTION,
        TRIMMED,
        "Ranks must agree.",
    ],
};

static CARD_SVD: Card = Card {
    name: "ties-svd",
    kind: Kind::Combination,
    summary: "TIES on the changes themselves: the largest entries of each are kept, a sign is elected for each entry, the weighted entries \
              of that sign are averaged, and the result is cut to a rank by SVD",
    source: SOURCE,
    needs: &[],
    promise: Promise::None,
    choices: &[DENSITY, SIGN, RANK, CLAMP],
    notes: &[DENSE, ELECTION, TRIMMED, CUT],
};

/// On the factors.
pub(super) struct Ties;

/// On the change.
pub(super) struct TiesSvd;

impl Combination for Ties {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn combine(&self, parts: &[Part], settings: &Settings<'_>) -> Result<LowRank, CombinationError> {
        density(CARD.name, settings)?;
        on_factors(CARD.name, parts, settings, ties)
    }
}

impl Combination for TiesSvd {
    fn card(&self) -> &'static Card {
        &CARD_SVD
    }

    fn combine(&self, parts: &[Part], settings: &Settings<'_>) -> Result<LowRank, CombinationError> {
        density(CARD_SVD.name, settings)?;
        on_change(parts, settings, ties)
    }
}

fn ties(
    mut tasks: Vec<Task>,
    _: &'static str,
    settings: &Settings<'_>,
) -> Result<Vec<f32>, CombinationError> {
    keep_largest(&mut tasks, density(CARD.name, settings)?)?;
    Ok(disjoint_mean(&tasks, settings.election))
}
