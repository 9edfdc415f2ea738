//! `left = L_r`, `core = diag(z/scale)`, `right = U_r`: the first r steps of elimination of W `[out, in]`, `W ≈ L·diag(d)·U`, rows in W's
//! order; the base keeps what is left, `W − scale·left·core·right`.
//!
//! Needs the weight; leaves the function unchanged, whatever z starts at: the base is computed from the z that starts.
//!
//! Source: Shi and others, "LoLDU: Low-Rank Adaptation via Lower-Diag-Upper Decomposition for Parameter-Efficient Fine-Tuning",
//! 2024, and the authors' code. With r steps `L·diag(d)·U = W[:, J]·W[I, J]⁻¹·W[I, :]`, J the pivot columns (the first r) and I the
//! pivot rows: exact there, and not a best approximation. Where we differ: r steps instead of the full factorisation; a
//! column without a pivot is passed over; `z/scale` instead of z beside a scale that is part of the parameters; the
//! modes of the code whose base is computed from another z than the one that starts are left out (they change the
//! function at step 0, and fail in the authors' own table).

use faer::Mat;
use lowrank_linalg::{Ldu, LowRank, Pivoting, energy, ldu, narrow};
use lowrank_record::{Card, Choice, Kind, Need, Promise, Report, Seed, Source};

use crate::diagonal::diagonal;
use crate::{Base, Evidence, InitError, Initialiser, Named, Options, Start};

/// Pivots of the weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loldu {
    /// Where the diagonal starts.
    pub init: Diagonal,
    /// Whether every direction has length 1, its size in z.
    pub normalise: bool,
    /// How pivots are chosen.
    pub pivot: Pivoting,
}

/// Where z starts; d are the pivots (times the lengths of their directions, if normalised).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Diagonal {
    /// d.
    Lu,
    /// `U(−|mean d|/2, |mean d|/2)`.
    Uniform,
    /// `N(mean d, deviation of d)`.
    Normal,
    /// mean d.
    Constant,
}

impl Named for Diagonal {
    const NAMES: &'static [(&'static str, Self)] = &[
        ("lu", Diagonal::Lu),
        ("uniform", Diagonal::Uniform),
        ("normal", Diagonal::Normal),
        ("constant", Diagonal::Constant),
    ];
}

static CARD: Card = Card {
    name: "loldu",
    kind: Kind::Initialiser,
    summary: "left = L, core = the pivots over the scale, right = U of r steps of elimination, W = L * diag(d) * U; the base keeps \
              the rest",
    source: Source {
        authors: "Shi, Wei, Wu, Ran, Sun, He, Yang",
        title: "LoLDU: Low-Rank Adaptation via Lower-Diag-Upper Decomposition for Parameter-Efficient Fine-Tuning",
        year: 2024,
        link: "https://arxiv.org/abs/2410.13618",
    },
    needs: &[Need::Weight],
    promise: Promise::Exact,
    choices: &[
        Choice {
            name: "init",
            default: "lu",
            values: "lu | uniform | normal | constant",
            meaning: "where the diagonal starts: the pivots, or draws around their mean; all of them train alike with a frozen \
                      scale, no weight decay and the base given here",
        },
        Choice {
            name: "normalise",
            default: "false",
            values: "true | false",
            meaning: "directions of length 1, their sizes in the diagonal: one step then moves the weight alike along each",
        },
        Choice {
            name: "pivot",
            default: "partial",
            values: "partial | rook",
            meaning: "the largest of the next column as the authors, or the largest of both a row and a column, which bounds U too",
        },
    ],
    notes: &[
        "made for a form that trains the diagonal of the core alone, r values for each layer, at ranks up to min(out, in)",
        "the first r input features, not the largest components: on weights of a flat spectrum the rest is larger than W",
        "directions are not orthogonal, though the paper says so",
        "a weight with fewer usable pivots than the rank: the directions beyond are unit vectors, start at 0 whatever init says, and \
         have no part in the mean",
        "the authors' modes s_uniform, s_normal, ones and zeros are left out: in their code they change the function at step 0",
        "normalise and pivot = rook are ours",
    ],
};

impl Loldu {
    /// As in the paper.
    pub const DEFAULT: Loldu = Loldu { init: Diagonal::Lu, normalise: false, pivot: Pivoting::Partial };

    /// Where z starts. Directions without a pivot, which come last, start at zero and have no part in the mean.
    fn z(&self, pivots: &[f64], steps: usize, seed: Seed) -> Vec<f64> {
        let (all, pivots) = (pivots.len(), &pivots[..steps]);
        let count = pivots.len();
        let mean = pivots.iter().sum::<f64>() / count as f64;
        // The unbiased one; of a single pivot there is none.
        let squares: f64 = pivots.iter().map(|d| (d - mean).powi(2)).sum();
        let deviation = if count > 1 { (squares / (count - 1) as f64).sqrt() } else { 0.0 };
        let seed = seed.at("start", "diagonal");
        let mut z = match self.init {
            Diagonal::Lu => pivots.to_vec(),
            Diagonal::Uniform => {
                seed.uniform(count, 1.0).iter().map(|&x| f64::from(x) * mean.abs() / 2.0).collect()
            }
            Diagonal::Normal => seed.normal(count).iter().map(|&x| mean + f64::from(x) * deviation).collect(),
            Diagonal::Constant => vec![mean; count],
        };
        z.resize(all, 0.0);
        z
    }
}

impl Initialiser for Loldu {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        vec![
            ("init", self.init.name().to_owned()),
            ("normalise", self.normalise.name().to_owned()),
            ("pivot", self.pivot.name().to_owned()),
        ]
    }

    fn configure(&self, options: &Options) -> Result<Box<dyn Initialiser>, InitError> {
        Ok(Box::new(Loldu {
            init: options.named("init")?,
            normalise: options.named("normalise")?,
            pivot: options.named("pivot")?,
        }))
    }

    fn start(&self, seen: &Evidence<'_>, rank: usize, seed: Seed) -> Result<Start, InitError> {
        let site = seen.site();
        self.admits(site, rank)?;
        let weight = seen.weight(CARD.name)?;
        let found = ldu(weight, rank, self.pivot).map_err(InitError::linalg(CARD.name))?;
        if found.steps == 0 {
            return Err(InitError::ZeroWeight { method: CARD.name });
        }
        let rest = energy((narrow::<f32>(found.reconstruct().as_ref()) - weight).as_ref());
        let mut report = Report::default()
            .with("pivots", found.steps)
            .with("error of the part, relative to the weight", (rest / energy(weight)).sqrt());
        if found.steps < rank {
            report = report.with(
                "warning",
                format!(
                    "the weight has {} usable pivots, {rank} directions are trained: the rest are unit vectors that start at zero; \
                     lower the rank",
                    found.steps
                ),
            );
        }
        let Ldu { mut left, diagonal: mut pivots, mut right, steps, .. } = found;
        if self.normalise {
            for (k, pivot) in pivots.iter_mut().enumerate() {
                let (l, u) = (left.col(k).norm_l2(), right.row(k).norm_l2());
                left.as_mut().col_mut(k).iter_mut().for_each(|x| *x /= l);
                right.as_mut().row_mut(k).iter_mut().for_each(|x| *x /= u);
                *pivot *= l * u;
            }
        }
        let z: Vec<f64> = self.z(&pivots, steps, seed).into_iter().map(|z| site.unscaled(z)).collect();
        let core: Mat<f32> = diagonal(&z);
        let delta = LowRank { left: narrow(left.as_ref()), right: narrow(right.as_ref()) };
        Start::checked_with_core(CARD.name, delta, core, Base::Subtract, report)
    }
}
