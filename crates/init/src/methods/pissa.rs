//! `scale·left·right` = the best rank-r approximation of W: `left = U_r·√(S_r/scale)`, `right = √(S_r/scale)·V_rᵀ`, W = U·S·Vᵀ
//! `[out, in]`; the base keeps the rest, `W − scale·left·right`.
//!
//! Needs the weight; leaves the function unchanged (the base is computed from the factors as they are, so an inexact SVD
//! changes which part is trained, not the sum).
//!
//! Source: Meng, Wang, Zhang, "PiSSA: Principal Singular Values and Singular Vectors Adaptation of Large Language
//! Models", 2024; the division by the scale is PEFT's. Where we differ from PEFT's `pissa_niter_k`: it uses
//! exactly r columns and no fixed seed, so two runs differ; here r + max(8, r/2) columns, seeded, signs fixed.

use lowrank_linalg::{LowRank, Sketch, directions};
use lowrank_record::{Card, Choice, Kind, Need, Promise, Report, Seed, Source};

use crate::{Base, Evidence, Exactness, GradientMap, InitError, Initialiser, Leading, Named, Options, Start};

/// The principal part of the weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pissa {
    /// Exact or randomised.
    pub svd: Exactness,
    /// Power iterations of the randomised decomposition.
    pub power: usize,
}

static CARD: Card = Card {
    name: "pissa",
    kind: Kind::Initialiser,
    summary: "scale * left * right = the best rank-r approximation of W; the base keeps the rest",
    source: Source {
        authors: "Meng, Wang, Zhang",
        title: "PiSSA: Principal Singular Values and Singular Vectors Adaptation of Large Language Models",
        year: 2024,
        link: "https://arxiv.org/abs/2404.02948",
    },
    needs: &[Need::Weight],
    promise: Promise::Exact,
    choices: &[
        Choice {
            name: "svd",
            default: "auto",
            values: "auto | exact | fast",
            meaning: "exact SVD, randomised SVD, or exact up to 128 on the shorter side and randomised above",
        },
        Choice {
            name: "power",
            default: "4",
            values: "a whole number from 0 to 64",
            meaning: "power iterations of the randomised SVD; more is closer to exact and dearer",
        },
    ],
    notes: &[
        "the authors recommend alpha = r, dropout 0, a rate of about 2e-5",
        "unlike PEFT's pissa_niter_k the randomised SVD is oversampled, r + max(8, r/2) columns, and seeded",
    ],
};

impl Pissa {
    /// Exact where that takes a moment, four power iterations otherwise.
    pub const DEFAULT: Pissa = Pissa { svd: Exactness::Auto, power: 4 };

    /// The factors of the principal part, for a method of this name, and what there is to say about them.
    pub(super) fn principal(
        &self,
        method: &'static str,
        seen: &Evidence<'_>,
        rank: usize,
        seed: Seed,
    ) -> Result<(LowRank, Report), InitError> {
        let site = seen.site();
        let weight = seen.weight(method)?;
        let sketch = Sketch { oversampling: (rank / 2).max(8), power: self.power };
        let leading = Leading { count: rank, exactness: self.svd, sketch, of: GradientMap::Itself };
        let found = leading.of(weight, seed.at("start", "weight")).map_err(InitError::linalg(method))?;
        if found.svd.values[0] <= 0.0 {
            return Err(InitError::ZeroWeight { method });
        }
        let exact = leading.is_exact(site.out.min(site.inp));
        let mut report = Report::default()
            .with("svd", if exact { Exactness::Exact } else { Exactness::Fast }.name())
            .with("largest singular value", found.svd.values[0])
            .with("smallest singular value trained", found.svd.values[rank - 1])
            .with("part of the weight's energy trained", found.captured());
        let directions = directions(&found.svd.values);
        if directions < rank {
            report = report.with(
                "warning",
                format!(
                    "the weight has rank {directions}, {rank} directions are trained: the rest start at zero in both factors \
                     and hardly learn; lower the rank"
                ),
            );
        }
        Ok((site.balanced(&found.svd), report))
    }
}

impl Initialiser for Pissa {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        vec![("svd", self.svd.name().to_owned()), ("power", self.power.to_string())]
    }

    fn configure(&self, options: &Options) -> Result<Box<dyn Initialiser>, InitError> {
        Ok(Box::new(Pissa { svd: options.named("svd")?, power: options.count("power", 64)? }))
    }

    fn start(&self, seen: &Evidence<'_>, rank: usize, seed: Seed) -> Result<Start, InitError> {
        self.admits(seen.site(), rank)?;
        let (delta, report) = self.principal(CARD.name, seen, rank, seed)?;
        Start::checked(CARD.name, delta, Base::Subtract, report)
    }
}
