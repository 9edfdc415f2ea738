//! `left = U_r`, `right = V_rᵀ`, `core = diag(S_r/scale)`, W = U·S·Vᵀ `[out, in]`: the best rank-r approximation of W with its singular
//! values between orthonormal frames, which are all that a diagonal form trains; the base keeps the rest.
//!
//! Needs the weight; leaves the function unchanged. The rank is the planned one, or chosen at each site: all of min(out, in), or the
//! smallest whose squared singular values hold a share of `‖W‖²_F`.
//!
//! Source: Sun, Wei, Wu, Shi, He, Ma, Xie, Yang, "SVFit: Parameter-Efficient Fine-Tuning of Large Pre-Trained Models Using Singular
//! Values", 2024; no code by the authors is known. Where we differ: the division by the scale, so that
//! `scale·left·core·right` is the approximation; the paper has no scale.

use lowrank_linalg::{LowRank, Sketch, directions, rank_for_energy, svd_in_f64};
use lowrank_record::{Card, Choice, Kind, Need, Promise, Report, Seed, Source};

use crate::diagonal::diagonal;
use crate::{Base, Evidence, Exactness, GradientMap, InitError, Initialiser, Leading, Named, Options, Start};

/// The leading singular values of the weight.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Svfit {
    /// How many of them at each site.
    pub rank: Count,
    /// The share of the squared singular values that [`Count::Energy`] holds.
    pub share: f64,
    /// Exact or randomised.
    pub svd: Exactness,
    /// Power iterations of the randomised decomposition.
    pub power: usize,
}

/// How many singular values are trained at a site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// As many as were planned.
    Fixed,
    /// The fewest whose squares hold the share.
    Energy,
    /// All min(out, in).
    Full,
}

impl Named for Count {
    const NAMES: &'static [(&'static str, Self)] =
        &[("fixed", Count::Fixed), ("energy", Count::Energy), ("full", Count::Full)];
}

static CARD: Card = Card {
    name: "svfit",
    kind: Kind::Initialiser,
    summary: "scale * left * core * right = the best rank-r approximation of W, core = its singular values over the scale; \
              the base keeps the rest",
    source: Source {
        authors: "Sun, Wei, Wu, Shi, He, Ma, Xie, Yang",
        title: "SVFit: Parameter-Efficient Fine-Tuning of Large Pre-Trained Models Using Singular Values",
        year: 2024,
        link: "https://arxiv.org/abs/2409.05926",
    },
    needs: &[Need::Weight],
    promise: Promise::Exact,
    choices: &[
        Choice {
            name: "rank",
            default: "fixed",
            values: "fixed | energy | full",
            meaning: "how many singular values of each layer are trained: as many as its rank says, the fewest whose squares hold the \
                      share, or all; alpha moves with the rank, so that the scale stays",
        },
        Choice {
            name: "share",
            default: "0.99",
            values: "a number above 0, to 1",
            meaning: "of rank = energy: the part of the sum of squared singular values that is to be held",
        },
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
        "made for a form that trains the diagonal of the core alone: r values for each layer",
        "a large rank is wanted, up to min(out, in): eight singular values are nearly useless (the published setting is most \
         likely all of them)",
        "the core is divided by the scale; the paper has none",
        "the paper says that the trained values capture over 99% of the weight; whether of squares or of plain sums was not to be \
         seen, here squares. A flat spectrum needs most of its directions for that",
        "rank = energy decomposes every weight exactly, whatever svd says, to know its ranks beforehand",
    ],
};

impl Svfit {
    /// Exact where that takes a moment, four power iterations otherwise.
    pub const DEFAULT: Svfit = Svfit { rank: Count::Fixed, share: 0.99, svd: Exactness::Auto, power: 4 };
}

impl Initialiser for Svfit {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn aliases(&self) -> &'static [&'static str] {
        &["sv-fit"]
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        vec![
            ("rank", self.rank.name().to_owned()),
            ("share", self.share.to_string()),
            ("svd", self.svd.name().to_owned()),
            ("power", self.power.to_string()),
        ]
    }

    fn configure(&self, options: &Options) -> Result<Box<dyn Initialiser>, InitError> {
        let share = options.positive("share")?;
        if share > 1.0 {
            return Err(options.bad("share").into());
        }
        let (rank, svd) = (options.named("rank")?, options.named("svd")?);
        Ok(Box::new(Svfit { rank, share, svd, power: options.count("power", 64)? }))
    }

    fn chooses_rank(&self) -> bool {
        self.rank != Count::Fixed
    }

    fn chosen_rank(&self, seen: &Evidence<'_>, planned: usize) -> Result<usize, InitError> {
        let site = seen.site();
        match self.rank {
            Count::Fixed => Ok(planned),
            Count::Full => Ok(site.out.min(site.inp)),
            Count::Energy => {
                let all = svd_in_f64(seen.weight(CARD.name)?).map_err(InitError::linalg(CARD.name))?;
                if all.values[0] <= 0.0 {
                    return Err(InitError::ZeroWeight { method: CARD.name });
                }
                Ok(rank_for_energy(&all.values, self.share).max(1))
            }
        }
    }

    fn start(&self, seen: &Evidence<'_>, rank: usize, seed: Seed) -> Result<Start, InitError> {
        let site = seen.site();
        self.admits(site, rank)?;
        let sketch = Sketch { oversampling: (rank / 2).max(8), power: self.power };
        let leading = Leading { count: rank, exactness: self.svd, sketch, of: GradientMap::Itself };
        let found = leading.of(seen.weight(CARD.name)?, seed.at("start", "weight"));
        let found = found.map_err(InitError::linalg(CARD.name))?;
        let values = &found.svd.values;
        if values[0] <= 0.0 {
            return Err(InitError::ZeroWeight { method: CARD.name });
        }
        let mut report = Report::default()
            .with("largest singular value", values[0])
            .with("smallest singular value trained", values[rank - 1])
            .with("part of the weight's energy trained", found.captured());
        let held = directions(values);
        if held < rank {
            let warning =
                format!("the weight has rank {held}: {} of the {rank} directions are arbitrary", rank - held);
            report = report.with("warning", warning);
        }
        let core: Vec<f64> = values.iter().map(|&value| site.unscaled(value)).collect();
        let delta = LowRank { left: found.svd.left, right: found.svd.right };
        Start::checked_with_core(CARD.name, delta, diagonal(&core), Base::Subtract, report)
    }
}
