//! Factors side by side.

use lowrank_record::{Card, Kind, Promise, Source};

use super::part::check;
use super::{Combination, CombinationError, Part, Settings};
use crate::LowRank;

static CARD: Card = Card {
    name: "cat",
    kind: Kind::Combination,
    summary: "left = [left₁ left₂ …], right = [w₁s₁·right₁; w₂s₂·right₂; …]: the weighted sum of the changes, exactly, of a rank \
              that is the sum of all ranks",
    source: Source {
        authors: "Hugging Face",
        title: "PEFT: add_weighted_adapter, combination_type cat",
        year: 2023,
        link: "https://github.com/huggingface/peft",
    },
    needs: &[],
    promise: Promise::None,
    choices: &[],
    notes: &[
        "Weight and scale go into the right factor, as in PEFT.",
        "Every combination is written at scale 1, with alpha = rank. PEFT writes the same alpha but keeps the first adapter's use_rslora, \
         which multiplies the combined change by the root of its rank.",
        "A layer that some adapters leave alone gets the sum of the ranks of those that change it; PEFT pads it with zeros to \
         the sum over all adapters, which is the same change.",
    ],
};

/// Factors side by side.
pub(super) struct Cat;

impl Combination for Cat {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn combine(&self, parts: &[Part], _: &Settings<'_>) -> Result<LowRank, CombinationError> {
        side_by_side(parts)
    }
}

/// `Σ weight·scale·left·right` as one pair of factors.
pub(super) fn side_by_side(parts: &[Part]) -> Result<LowRank, CombinationError> {
    let (out, inp) = check(parts)?;
    let mut sum = LowRank::zeros(out, inp, 0);
    for Part { factors, scale, weight } in parts {
        let factor = weight * scale;
        let mut scaled = factors.clone();
        for column in 0..inp {
            for entry in scaled.right.as_mut().col_mut(column).iter_mut() {
                *entry = (f64::from(*entry) * factor) as f32;
            }
        }
        sum = sum.add(&scaled)?;
    }
    Ok(sum)
}
