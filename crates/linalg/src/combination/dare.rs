//! DARE: drop entries at random, rescale the rest.

use lowrank_record::{Card, Choice, Kind, Promise, Source};

use super::elect::disjoint_mean;
use super::part::Task;
use super::roads::{on_change, on_factors, sum};
use super::sparse::{density, keep_at_random};
use super::svd::{CLAMP, CUT, DENSE, RANK};
use super::ties::{DENSITY, ELECTION, SIGN};
use super::{Combination, CombinationError, Part, Settings};
use crate::LowRank;

const SOURCE: Source = Source {
    authors: "Yu, Yu, Yu, Huang, Li",
    title: "Language Models are Super Mario: Absorbing Abilities from Homologous Models as a Free Lunch",
    year: 2024,
    link: "https://arxiv.org/abs/2311.03099",
};

const SEED: Choice = Choice {
    name: "seed",
    default: "0",
    values: "a whole number",
    meaning: "What the masks are drawn from, split by layer, adapter and tensor.",
};

const DRAWN: &str = "The masks are ours: another draw than torch's, by the same law. With masks from outside the result is PEFT's.";

const MEANS: &str = "What stays is divided by the density, so that each factor keeps its mean. The mean of the product of both is kept as well, \
                     since their masks are independent.";

macro_rules! card {
    ($static:ident, $name:literal, $summary:literal, [$($choice:expr),*], [$($note:expr),*]) => {
        static $static: Card = Card {
            name: $name,
            kind: Kind::Combination,
            summary: $summary,
            source: SOURCE,
            needs: &[],
            promise: Promise::None,
            choices: &[$($choice),*],
            notes: &[$($note),*],
        };
    };
}

card!(
    LINEAR,
    "dare-linear",
    "each entry of each factor is dropped with probability 1 − density, the rest divided by the density, and factors are added as linear does",
    [DENSITY, SEED],
    [MEANS, DRAWN, "Ranks must agree."]
);
card!(
    LINEAR_SVD,
    "dare-linear-svd",
    "each entry of each change is dropped with probability 1 − density, the rest divided by the density; the weighted sum is cut to a rank by SVD",
    [DENSITY, SEED, RANK, CLAMP],
    [DENSE, DRAWN, CUT]
);
card!(
    TIES,
    "dare-ties",
    "entries of each factor are dropped at random and the rest rescaled; then a sign is elected for each entry and the weighted entries of \
     that sign are averaged, as ties does",
    [DENSITY, SIGN, SEED],
    [ELECTION, DRAWN, "Ranks must agree."]
);
card!(
    TIES_SVD,
    "dare-ties-svd",
    "entries of each change are dropped at random and the rest rescaled; a sign is elected for each entry, the weighted entries of that sign \
     are averaged, and the result is cut to a rank by SVD",
    [DENSITY, SIGN, SEED, RANK, CLAMP],
    [DENSE, ELECTION, DRAWN, CUT]
);

/// Added, on the factors.
pub(super) struct DareLinear;

/// Added, on the change.
pub(super) struct DareLinearSvd;

/// With an election, on the factors.
pub(super) struct DareTies;

/// With an election, on the change.
pub(super) struct DareTiesSvd;

impl Combination for DareLinear {
    fn card(&self) -> &'static Card {
        &LINEAR
    }

    fn combine(&self, parts: &[Part], settings: &Settings<'_>) -> Result<LowRank, CombinationError> {
        density(LINEAR.name, settings)?;
        on_factors(LINEAR.name, parts, settings, added)
    }
}

impl Combination for DareLinearSvd {
    fn card(&self) -> &'static Card {
        &LINEAR_SVD
    }

    fn combine(&self, parts: &[Part], settings: &Settings<'_>) -> Result<LowRank, CombinationError> {
        density(LINEAR_SVD.name, settings)?;
        on_change(parts, settings, added)
    }
}

impl Combination for DareTies {
    fn card(&self) -> &'static Card {
        &TIES
    }

    fn combine(&self, parts: &[Part], settings: &Settings<'_>) -> Result<LowRank, CombinationError> {
        density(TIES.name, settings)?;
        on_factors(TIES.name, parts, settings, elected)
    }
}

impl Combination for DareTiesSvd {
    fn card(&self) -> &'static Card {
        &TIES_SVD
    }

    fn combine(&self, parts: &[Part], settings: &Settings<'_>) -> Result<LowRank, CombinationError> {
        density(TIES_SVD.name, settings)?;
        on_change(parts, settings, elected)
    }
}

fn added(
    tasks: Vec<Task>,
    tensor: &'static str,
    settings: &Settings<'_>,
) -> Result<Vec<f32>, CombinationError> {
    Ok(sum(&dropped(tasks, tensor, settings)?))
}

fn elected(
    tasks: Vec<Task>,
    tensor: &'static str,
    settings: &Settings<'_>,
) -> Result<Vec<f32>, CombinationError> {
    Ok(disjoint_mean(&dropped(tasks, tensor, settings)?, settings.election))
}

fn dropped(
    mut tasks: Vec<Task>,
    tensor: &'static str,
    settings: &Settings<'_>,
) -> Result<Vec<Task>, CombinationError> {
    keep_at_random(&mut tasks, tensor, density(LINEAR.name, settings)?, settings.masks)?;
    Ok(tasks)
}
