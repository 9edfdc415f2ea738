//! `left = Q[:, :r]`, `right = R[:r, :]`, W = Q·R `[out, in]`, diag(R) ≥ 0; the base keeps the rest, `W − scale·left·right`.
//!
//! Needs the weight; leaves the function unchanged. The factors are not divided by the scale, so the base keeps `1 − scale`
//! times the first r columns.
//!
//! Source: Büyükakyüz, "OLoRA: Orthonormal Low-Rank Adaptation of Large Language Models", 2024. Where we differ from PEFT:
//! the signs are fixed. Without pivoting `left·right` is exact on the first r *columns*, that is for the first r input
//! features, whatever they mean; `pivot = columns` takes those of which most is left and is ours.

use lowrank_linalg::{
    LowRank, directions, energy, finite, multiply, narrow, orthonormal_basis, pivoted_qr, widen,
};
use lowrank_record::{Card, Choice, Kind, Need, Promise, Report, Seed, Source};

use crate::{Base, Evidence, InitError, Initialiser, Named, Options, Start};

/// An orthonormal left factor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Olora {
    /// Which columns are orthonormalised.
    pub pivot: Pivot,
}

/// Which columns of the weight are orthonormalised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pivot {
    /// The first r.
    None,
    /// At each step that of which most is left.
    Columns,
}

impl Named for Pivot {
    const NAMES: &'static [(&'static str, Self)] = &[("none", Pivot::None), ("columns", Pivot::Columns)];
}

static CARD: Card = Card {
    name: "olora",
    kind: Kind::Initialiser,
    summary: "left * right = the first r columns of Q and rows of R, W = Q * R; the base gives up scale * left * right",
    source: Source {
        authors: "Buyukakyuz",
        title: "OLoRA: Orthonormal Low-Rank Adaptation of Large Language Models",
        year: 2024,
        link: "https://arxiv.org/abs/2406.01775",
    },
    needs: &[Need::Weight],
    promise: Promise::Exact,
    choices: &[Choice {
        name: "pivot",
        default: "none",
        values: "none | columns",
        meaning: "QR of the first r columns as in the paper and PEFT, or of those that hold most of the weight",
    }],
    notes: &[
        "at a scale above 1 the start is larger than the part of the weight that it stands for, and taking it back cancels in f32 while \
         it trains: take alpha = r. What is exported holds differences of factors, which do not cancel",
        "not divided by the scale, as in PEFT: the base keeps (1 - scale) times the first r columns",
        "without pivoting the directions are the first r input features, whatever they mean; pivot = columns is ours",
        "diag(R) is made non-negative; PEFT leaves the signs to LAPACK",
    ],
};

impl Olora {
    /// As in the paper.
    pub const DEFAULT: Olora = Olora { pivot: Pivot::None };
}

impl Initialiser for Olora {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        vec![("pivot", self.pivot.name().to_owned())]
    }

    fn configure(&self, options: &Options) -> Result<Box<dyn Initialiser>, InitError> {
        Ok(Box::new(Olora { pivot: options.named("pivot")? }))
    }

    fn start(&self, seen: &Evidence<'_>, rank: usize, _: Seed) -> Result<Start, InitError> {
        self.admits(seen.site(), rank)?;
        let weight = seen.weight(CARD.name)?;
        let failed = InitError::linalg(CARD.name);
        let delta = match self.pivot {
            Pivot::None => {
                finite(weight).map_err(&failed)?;
                // The first r columns alone decide Q; R = Qᵀ·W, and its first r columns are those of their own QR. In f64: the
                // base is what is left of W, and must not lose digits.
                let wide = widen(weight);
                let first = wide.as_ref().subcols(0, rank);
                let q = orthonormal_basis(first).map_err(&failed)?;
                let mut right = multiply(q.transpose(), wide.as_ref());
                for i in 0..rank {
                    // Zeros up to rounding; the diagonal is not negative.
                    (0..i).for_each(|j| right[(i, j)] = 0.0);
                    right[(i, i)] = right[(i, i)].max(0.0);
                }
                LowRank { left: narrow(q.as_ref()), right: narrow(right.as_ref()) }
            }
            Pivot::Columns => {
                let found = pivoted_qr(weight, rank).map_err(&failed)?;
                LowRank { left: narrow(found.q.as_ref()), right: narrow(found.r.as_ref()) }
            }
        };
        let whole = energy(weight);
        if whole <= 0.0 {
            return Err(InitError::ZeroWeight { method: CARD.name });
        }
        // Q has orthonormal columns, so the part's energy is that of R.
        let part = energy(delta.right.as_ref()) / whole;
        let mut report = Report::default()
            .with("pivot", self.pivot.name())
            .with("part of the weight's energy trained", part.min(1.0));
        let mut sizes: Vec<f64> = delta.right.row_iter().map(|row| f64::from(row.norm_l2())).collect();
        sizes.sort_by(|x, y| y.total_cmp(x));
        let held = directions(&sizes);
        if held < rank {
            report = report.with(
                "warning",
                format!(
                    "the weight has {held} of the {rank} directions: the rest are arbitrary, with a right factor of zero; lower \
                     the rank"
                ),
            );
        }
        Start::checked(CARD.name, delta, Base::Subtract, report)
    }
}
