//! The weighted sum of the changes, cut back to a rank.

use lowrank_record::{Card, Choice, Kind, Promise, Source};

use super::cat::side_by_side;
use super::{Combination, CombinationError, Part, Settings};
use crate::{LowRank, Svd};

/// The rank of a method that cuts.
pub(super) const RANK: Choice = Choice {
    name: "rank",
    default: "the largest rank of the adapters",
    values: "a whole number from 1",
    meaning: "Rank of the result. More keeps more of the combined change; the sum of all ranks keeps all of a weighted sum.",
};

/// The quantile of a method that cuts.
pub(super) const CLAMP: Choice = Choice {
    name: "clamp",
    default: "none",
    values: "above 0.5, at most 1",
    meaning: "Clamps the entries of both factors at this quantile of them all, to both sides. Smaller cuts more.",
};

/// What every method that cuts says of it.
pub(super) const CUT: &str = "The result is left = U·diag(σ), right = Vᵀ, as in PEFT; a rank beyond the shorter side of the \
                              weight is cut to it (PEFT fails).";

/// What every method that forms the change says of it.
pub(super) const DENSE: &str = "The change [out, in] of every adapter is formed, one layer at a time, and its result decomposed \
                                whole: memory of (adapters + 2)·out·in values, and the time of a full SVD for each layer.";

static CARD: Card = Card {
    name: "svd",
    kind: Kind::Combination,
    summary: "the best approximation of Σ wᵢsᵢ·leftᵢ·rightᵢ at a rank (Eckart and Young): cat, cut back by its singular values",
    source: Source {
        authors: "Hugging Face (after kohya-ss)",
        title: "PEFT: add_weighted_adapter, combination_type svd",
        year: 2023,
        link: "https://github.com/huggingface/peft",
    },
    needs: &[],
    promise: Promise::None,
    choices: &[RANK, CLAMP],
    notes: &[
        CUT,
        "PEFT forms the change [out, in] and decomposes it. Here the factors side by side are brought to triangles, and only a core of \
         the size of the summed ranks is decomposed, in f64: the same triplets, without ever forming the change.",
        "Signs of singular vectors are fixed here and left to LAPACK there. That changes nothing but a clamp, which is a quantile of \
         signed entries and so depends on it in PEFT too.",
    ],
};

/// The weighted sum of the changes, cut back to a rank.
pub(super) struct ByDecomposition;

impl Combination for ByDecomposition {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn combine(&self, parts: &[Part], settings: &Settings<'_>) -> Result<LowRank, CombinationError> {
        cut(&side_by_side(parts)?.factor()?, parts, settings)
    }
}

/// The leading triplets as factors, clamped where asked.
pub(super) fn cut(svd: &Svd, parts: &[Part], settings: &Settings<'_>) -> Result<LowRank, CombinationError> {
    let largest = parts.iter().map(|part| part.factors.rank()).max().unwrap_or(0);
    let rank = settings.rank.unwrap_or(largest);
    if rank == 0 {
        return Err(CombinationError::NoRank);
    }
    let Svd { mut left, values, right } = svd.head(rank);
    for (column, value) in values.iter().enumerate() {
        for entry in left.as_mut().col_mut(column).iter_mut() {
            *entry = (f64::from(*entry) * value) as f32;
        }
    }
    let mut change = LowRank { left, right };
    if let Some(quantile) = settings.clamp {
        clamp(&mut change, quantile)?;
    }
    Ok(change)
}

/// Clamps every entry to ±the quantile of the entries of both factors.
fn clamp(change: &mut LowRank, quantile: f64) -> Result<(), CombinationError> {
    let (left, right) = change.to_rows();
    let mut entries = [left, right].concat();
    entries.sort_unstable_by(f32::total_cmp);
    let value = between(&entries, quantile);
    if !(value > 0.0 && (0.0..=1.0).contains(&quantile)) {
        return Err(CombinationError::Clamp { quantile, value });
    }
    let bound = value as f32;
    for factor in [&mut change.left, &mut change.right] {
        for column in 0..factor.ncols() {
            factor.as_mut().col_mut(column).iter_mut().for_each(|x| *x = x.clamp(-bound, bound));
        }
    }
    Ok(())
}

/// The quantile of sorted numbers, between two of them by the straight line, as `torch.quantile`; 0 of none.
fn between(sorted: &[f32], quantile: f64) -> f64 {
    let place = quantile.clamp(0.0, 1.0) * sorted.len().saturating_sub(1) as f64;
    let at = |index: usize| sorted.get(index).map_or(0.0, |&x| f64::from(x));
    let (low, high) = (at(place.floor() as usize), at(place.ceil() as usize));
    low + (high - low) * place.fract()
}

#[cfg(test)]
mod tests {
    use super::between;

    #[test]
    fn quantiles_lie_on_the_line_between_two_numbers() {
        let sorted = [1.0, 2.0, 4.0];
        let found = [0.0, 0.25, 0.5, 0.75, 1.0].map(|quantile| between(&sorted, quantile));
        assert_eq!(found, [1.0, 1.5, 2.0, 3.0, 4.0]);
        assert_eq!(between(&[], 0.5), 0.0);
    }
}
