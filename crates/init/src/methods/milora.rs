//! `scale·left·right` = the part of W of its r smallest singular values: `left = U_m·√(S_m/scale)`, `right = √(S_m/scale)·V_mᵀ`, the
//! last r of the min(out, in) triplets of W `[out, in]`; the base keeps the principal part, `W − scale·left·right`.
//!
//! Needs the weight; leaves the function unchanged.
//!
//! Source: Wang, Li, Wang, Chen, Chen, "MiLoRA: Harnessing Minor Singular Components for Parameter-Efficient LLM Finetuning", 2024. The
//! division by the scale is as in PiSSA. The null space of a wide or tall weight is not used: r of min(out, in).

use lowrank_linalg::{directions, svd_in_f64};
use lowrank_record::{Card, Kind, Need, Promise, Report, Seed, Source};

use crate::{Base, Evidence, InitError, Initialiser, Options, Start};

/// The minor part of the weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Milora;

static CARD: Card = Card {
    name: "milora",
    kind: Kind::Initialiser,
    summary: "scale * left * right = the part of W of its r smallest singular values; the base keeps the principal part",
    source: Source {
        authors: "Wang, Li, Wang, Chen, Chen",
        title: "MiLoRA: Harnessing Minor Singular Components for Parameter-Efficient LLM Finetuning",
        year: 2024,
        link: "https://arxiv.org/abs/2406.09044",
    },
    needs: &[Need::Weight],
    promise: Promise::Exact,
    choices: &[],
    notes: &[
        "exact SVD in f64, of the order of out * in * min(out, in) operations for each layer: slow for wide layers",
        "the r smallest of min(out, in): the null space of a wide or tall weight is not used",
        "a weight whose r smallest values are all rounding is refused: the start would be noise",
    ],
};

impl Initialiser for Milora {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn configure(&self, _: &Options) -> Result<Box<dyn Initialiser>, InitError> {
        Ok(Box::new(Milora))
    }

    fn start(&self, seen: &Evidence<'_>, rank: usize, _: Seed) -> Result<Start, InitError> {
        let site = seen.site();
        self.admits(site, rank)?;
        let all = svd_in_f64(seen.weight(CARD.name)?).map_err(InitError::linalg(CARD.name))?;
        if all.values[0] <= 0.0 {
            return Err(InitError::ZeroWeight { method: CARD.name });
        }
        let minor = all.minor(rank);
        let beyond = directions(&all.values);
        // Values that are more than rounding come first.
        let held = beyond.saturating_sub(all.rank() - rank);
        if held == 0 {
            return Err(InitError::NoMinor { method: CARD.name, rank });
        }
        let mut report = Report::default()
            .with("largest singular value of the weight", all.values[0])
            .with("largest singular value trained", minor.values[0])
            .with("smallest singular value trained", minor.values[rank - 1])
            .with("part of the weight's energy trained", minor.energy() / all.energy());
        if held < rank {
            report = report.with(
                "warning",
                format!(
                    "the weight has rank {beyond}: {} of the {rank} directions start near zero in both factors and hardly \
                     learn; lower the rank",
                    rank - held
                ),
            );
        }
        Start::checked(CARD.name, site.balanced(&minor), Base::Subtract, report)
    }
}
