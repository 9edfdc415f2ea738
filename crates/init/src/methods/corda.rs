//! `scale·left·right` = the part of W along r singular directions of `W·C`, C the second moment of the layer's inputs: with
//! `W·C = U·S·Vᵀ`, `left = U_r·√(S_r/scale)`, `right = √(S_r/scale)·V_rᵀ·C⁻¹`; the base gives up the start.
//!
//! The largest r (`mode = ipm`) are what the layer does most on such inputs: a task to be learned. The smallest r (`mode = kpm`) are
//! what it hardly uses there: knowledge that is to be kept, while the rest is trained.
//!
//! No inverse and no solve: `U_rᵀ·W = U_rᵀ·(U·S·Vᵀ)·C⁻¹ = S_r·V_rᵀ·C⁻¹`, so `right` is `(S_r·scale)^-½·U_rᵀ·W`, whatever the condition
//! of C. With all min(out, in) directions the start is W.
//!
//! Needs the weight and the moments of the inputs (the uncentred one is taken); leaves the function unchanged.
//!
//! Source: Yang et al., "CorDA: Context-Oriented Decomposition Adaptation of Large Language Models for Task-Aware
//! Parameter-Efficient Fine-tuning", 2024, and PEFT's `corda` (compared with 0.21.2 in `tests/corda.rs`). Where we differ: PEFT inverts C, and so
//! doubles the damping until the inverse is good; here C is damped once, since nothing is divided by it. PEFT divides each call's inputs
//! by their largest *signed* entry and takes one text at a time; here every token weighs the same, and C is divided by its mean diagonal.

use faer::{Mat, MatRef};
use lowrank_linalg::{LowRank, Sketch, energy, finite, multiply, narrow, svd_in_f64, widen};
use lowrank_record::{Card, Choice, Kind, Need, Promise, Report, Seed, Source};

use crate::{
    Base, Evidence, Exactness, GradientMap, InitError, Initialiser, Inputs, InputsWanted, Leading, Named,
    Options, Start,
};

/// The part of the weight that the inputs see most, or least.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Corda {
    /// Which directions train.
    pub mode: Mode,
    /// What is added to the diagonal of C, in units of its mean.
    pub damp: f64,
    /// Exact or randomised.
    pub svd: Exactness,
}

/// Which directions train.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The largest: instruction-previewed mode, inputs of the task to be learned.
    Ipm,
    /// The smallest: knowledge-preserved mode, inputs of what is to be kept.
    Kpm,
}

impl Named for Mode {
    const NAMES: &'static [(&'static str, Self)] = &[("ipm", Mode::Ipm), ("kpm", Mode::Kpm)];
}

static CARD: Card = Card {
    name: "corda",
    kind: Kind::Initialiser,
    summary: "scale * left * right = the part of W along the leading (or last) singular directions of W times the second moment of \
              its inputs; the base keeps the rest",
    source: Source {
        authors: "Yang et al.",
        title: "CorDA: Context-Oriented Decomposition Adaptation of Large Language Models for Task-Aware \
                Parameter-Efficient Fine-tuning",
        year: 2024,
        link: "https://arxiv.org/abs/2406.05223",
    },
    needs: &[Need::Weight, Need::Inputs],
    promise: Promise::Exact,
    choices: &[
        Choice {
            name: "mode",
            default: "ipm",
            values: "ipm | kpm",
            meaning: "train the directions that the inputs use most (show it the task), or least (show it what is to be kept)",
        },
        Choice {
            name: "damp",
            default: "0.01",
            values: "a positive number",
            meaning: "added to the diagonal of the second moment, in units of its mean; larger is closer to pissa",
        },
        Choice {
            name: "svd",
            default: "auto",
            values: "auto | exact | fast",
            meaning: "exact SVD, randomised SVD (not for kpm, which takes the last directions), or exact up to 128 on the shorter \
                      side and randomised above; auto is always exact for kpm",
        },
    ],
    notes: &[
        "kpm passes over directions that the weight does not have: a start along them is zero and hardly learns",
        "moments of the inputs take 8 bytes times the square of the layer's width, once for layers that share their inputs",
        "the damping is never doubled, as PEFT does until its inverse is good",
        "PEFT divides each call's inputs by their largest signed entry, so texts weigh differently and only one can be shown at a time; \
         here every token weighs the same, in batches of any size: with one text the subspaces agree, with several they do not \
         (`tests/interop/starts.py`)",
        "neither an inverse nor a Cholesky solve: U^T * W is S * V^T times the inverse of the moment, whatever its condition",
        "in EVA's comparison it varied much between seeds and needed many samples; compare with pissa",
    ],
};

impl Corda {
    /// PEFT's.
    pub const DEFAULT: Corda = Corda { mode: Mode::Ipm, damp: 0.01, svd: Exactness::Auto };

    /// `C/mean(diag C) + damp·I`, `[in, in]`.
    fn moment(&self, seen: &Evidence<'_>) -> Result<(Mat<f64>, u64), InitError> {
        let method = CARD.name;
        let moments = match seen.inputs(method)? {
            Inputs::Moments(moments) => moments,
            Inputs::Components(_) => {
                let (want, have) = ("all of the second moment", "leading components");
                return Err(InitError::Statistic { method, want, have });
            }
        };
        let mut moment = moments.second_moment();
        let width = moments.width();
        let mean = (0..width).map(|i| moment[(i, i)]).sum::<f64>() / width as f64;
        if mean <= 0.0 {
            return Err(InitError::ZeroInputs { method });
        }
        for j in 0..width {
            moment.as_mut().col_mut(j).iter_mut().for_each(|x| *x /= mean);
            moment[(j, j)] += self.damp;
        }
        Ok((moment, moments.rows()))
    }

    /// The directions that train, of the weight and the weight times the moment.
    fn directions(
        &self,
        weight: MatRef<'_, f64>,
        weighted: MatRef<'_, f64>,
        rank: usize,
        seed: Seed,
    ) -> Result<Directions, InitError> {
        let (out, inp) = weighted.shape();
        let sketch = Sketch { oversampling: rank.max(8), power: 4 };
        let leading = Leading { count: rank, exactness: self.svd, sketch, of: GradientMap::Itself };
        let (basis, values) = if self.mode == Mode::Ipm && !leading.is_exact(out.min(inp)) {
            let narrow: Mat<f32> = narrow(weighted);
            let found = leading.of(narrow.as_ref(), seed.at("start", "weight"));
            let svd = found.map_err(InitError::linalg(CARD.name))?.svd;
            (widen(svd.left.as_ref()), svd.values)
        } else {
            let svd = svd_in_f64(weighted).map_err(InitError::linalg(CARD.name))?;
            (svd.left, svd.values)
        };
        // S·Vᵀ·C⁻¹.
        let along = multiply(basis.transpose(), weight);
        let least = NO_DIRECTION * energy(weight).sqrt();
        let has: Vec<bool> = (0..values.len())
            .map(|i| along.row(i).iter().map(|x| x * x).sum::<f64>().sqrt() > least)
            .collect();
        let mut taken: Vec<usize> = (0..values.len()).collect();
        if self.mode == Mode::Kpm {
            // The last first, and those that the weight does not have after all others.
            taken.sort_by_key(|&i| (!has[i], std::cmp::Reverse(i)));
        }
        taken.truncate(rank);
        taken.sort_unstable();
        Ok(Directions {
            basis: Mat::from_fn(out, rank, |i, j| basis[(i, taken[j])]),
            along: Mat::from_fn(rank, inp, |i, j| along[(taken[i], j)]),
            values: taken.iter().map(|&i| values[i]).collect(),
            have: taken.iter().filter(|&&i| has[i]).count(),
        })
    }
}

/// Below this part of the weight's norm, what lies along a direction is rounding of f32.
const NO_DIRECTION: f64 = 1e-6;

/// The directions that train, by descending singular value of `W·C`.
struct Directions {
    /// U_r, `[out, r]`.
    basis: Mat<f64>,
    /// `U_rᵀ·W = S_r·V_rᵀ·C⁻¹`, `[r, in]`.
    along: Mat<f64>,
    /// S_r.
    values: Vec<f64>,
    /// How many of them the weight has.
    have: usize,
}

impl Initialiser for Corda {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn inputs(&self, _rank: usize) -> InputsWanted {
        InputsWanted::moments()
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        vec![
            ("mode", self.mode.name().to_owned()),
            ("damp", self.damp.to_string()),
            ("svd", self.svd.name().to_owned()),
        ]
    }

    fn configure(&self, options: &Options) -> Result<Box<dyn Initialiser>, InitError> {
        let (mode, svd) = (options.named("mode")?, options.named("svd")?);
        if mode == Mode::Kpm && svd == Exactness::Fast {
            return Err(options.bad("svd").into());
        }
        Ok(Box::new(Corda { mode, damp: options.positive("damp")?, svd }))
    }

    fn start(&self, seen: &Evidence<'_>, rank: usize, seed: Seed) -> Result<Start, InitError> {
        let site = seen.site();
        self.admits(site, rank)?;
        let weight = seen.weight(CARD.name)?;
        let (moment, rows) = self.moment(seen)?;
        finite(weight).map_err(InitError::linalg(CARD.name))?;
        let weight = widen(weight);
        let weighted = multiply(weight.as_ref(), moment.as_ref());
        let all = energy(weighted.as_ref());
        if all <= 0.0 {
            return Err(InitError::ZeroWeight { method: CARD.name });
        }
        let found = self.directions(weight.as_ref(), weighted.as_ref(), rank, seed)?;
        let Directions { basis, along, values, have } = found;
        let root: Vec<f64> = values.iter().map(|&value| site.unscaled(value).sqrt()).collect();
        // No division by zero; a direction that the weight does not have is zero up to rounding on both sides.
        let share = |i: usize| if root[i] > 0.0 { (root[i] * site.scale).recip() } else { 0.0 };
        let delta = LowRank {
            left: Mat::from_fn(site.out, rank, |i, j| (basis[(i, j)] * root[j]) as f32),
            right: Mat::from_fn(rank, site.inp, |i, j| (along[(i, j)] * share(i)) as f32),
        };
        let held: f64 = values.iter().map(|value| value * value).sum();
        let mut report = Report::default()
            .with("mode", self.mode.name())
            .with("tokens seen", usize::try_from(rows).unwrap_or(usize::MAX))
            .with("largest singular value trained, of the weight times the second moment", values[0])
            .with("smallest singular value trained", values[rank - 1])
            .with("part of the weight's energy trained, as the inputs weigh it", (held / all).min(1.0))
            .with("part of the weight's energy trained", energy(along.as_ref()) / energy(weight.as_ref()));
        if have < rank {
            report = report.with(
                "warning",
                format!(
                    "{} of the {rank} directions that train are zero up to rounding, in both factors, and hardly learn; lower the \
                     rank",
                    rank - have
                ),
            );
        }
        Start::checked(CARD.name, delta, Base::Subtract, report)
    }
}
