//! `left = U_r`, `right = S_r·V_rᵀ`, `core ~ N(0, d²)`, W = U·S·Vᵀ `[out, in]`: the frame of the weight's principal part, and a
//! core `[r, r]` between, which is all that the form `core` trains.
//!
//! Needs the weight (nothing for `bases = random`); changes the function by the tiny core, or by nothing with `deviation = 0`.
//!
//! Source: Bałazy, Banaei, Aberer, Tabor, "LoRA-XS: Low-Rank Adaptation with Extremely Small Number of Parameters", 2024, and the
//! authors' code, whose `right` carries the singular values and whose core has d = 1e-5. Where we differ: their randomised
//! SVD has exactly r columns and ten iterations; here it is exact up to 128 on the shorter side, and r + max(8, r/2)
//! columns, seeded, above.

use faer::Mat;
use lowrank_linalg::{LowRank, Sketch, Svd, directions, from_rows};
use lowrank_record::{Card, Choice, Kind, Need, Promise, Report, Seed, Source};

use crate::{Base, Evidence, Exactness, GradientMap, InitError, Initialiser, Leading, Named, Options, Start};

/// A small core in fixed bases.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LoraXs {
    /// What the factors are.
    pub bases: Bases,
    /// The standard deviation of the core's entries.
    pub deviation: f64,
    /// Exact or randomised.
    pub svd: Exactness,
    /// Power iterations of the randomised decomposition.
    pub power: usize,
}

/// What the two factors are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bases {
    /// The leading singular triplets of the weight, the values on the right.
    Svd,
    /// Kaiming-uniform both: `left ~ U(±1/√r)`, `right ~ U(±1/√in)`.
    Random,
}

impl Named for Bases {
    const NAMES: &'static [(&'static str, Self)] = &[("svd", Bases::Svd), ("random", Bases::Random)];
}

static CARD: Card = Card {
    name: "lora-xs",
    kind: Kind::Initialiser,
    summary: "left * right = the best rank-r approximation of W, with a core ~ N(0, 1e-10) between them, which alone is trained",
    source: Source {
        authors: "Balazy, Banaei, Aberer, Tabor",
        title: "LoRA-XS: Low-Rank Adaptation with Extremely Small Number of Parameters",
        year: 2024,
        link: "https://arxiv.org/abs/2405.17604",
    },
    needs: &[Need::Weight],
    promise: Promise::Within(1e-4),
    choices: &[
        Choice {
            name: "bases",
            default: "svd",
            values: "svd | random",
            meaning: "the weight's leading singular triplets (values on the right), or random factors that look at nothing",
        },
        Choice {
            name: "deviation",
            default: "0.00001",
            values: "a number from 0",
            meaning: "standard deviation of the core; 0 leaves the function unchanged to the bit, larger changes it more",
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
        "made for a form that trains the core alone; ranks are several times those of LoRA",
        "right carries the singular values, so the effective rate depends on the weight's size and on alpha: tune the rate",
        "the function changes at step 0 by about the deviation, as in the authors' code; deviation = 0 is ours",
    ],
};

/// How far the function moves, relative to the product of the factors' norms, for each unit of deviation: the largest
/// singular value of a Gaussian core is about 2·√r·d, and beside factors of r directions that is 2·d, four times it at worst
/// for bases that are not orthonormal.
const MOVES: f64 = 10.0;

impl LoraXs {
    /// The authors' deviation.
    pub const DEFAULT: LoraXs = LoraXs { bases: Bases::Svd, deviation: 1e-5, svd: Exactness::Auto, power: 4 };

    fn principal(
        &self,
        seen: &Evidence<'_>,
        rank: usize,
        seed: Seed,
    ) -> Result<(LowRank, Report), InitError> {
        let weight = seen.weight(CARD.name)?;
        let sketch = Sketch { oversampling: (rank / 2).max(8), power: self.power };
        let leading = Leading { count: rank, exactness: self.svd, sketch, of: GradientMap::Itself };
        let found = leading.of(weight, seed.at("start", "weight")).map_err(InitError::linalg(CARD.name))?;
        if found.svd.values[0] <= 0.0 {
            return Err(InitError::ZeroWeight { method: CARD.name });
        }
        let mut report = Report::default()
            .with("part of the weight's energy in the bases", found.captured())
            .with("largest singular value", found.svd.values[0])
            .with("smallest singular value in the bases", found.svd.values[rank - 1]);
        let held = directions(&found.svd.values);
        if held < rank {
            let warning = format!(
                "the weight has rank {held}: {} of the {rank} rows of right are zero up to rounding and never move, since right is \
                 frozen; lower the rank",
                rank - held
            );
            report = report.with("warning", warning);
        }
        let Svd { left, values, right } = found.svd;
        let sized = |i: usize, j: usize| (f64::from(right[(i, j)]) * values[i]) as f32;
        Ok((LowRank { left, right: Mat::from_fn(rank, right.ncols(), sized) }, report))
    }
}

impl Initialiser for LoraXs {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn aliases(&self) -> &'static [&'static str] {
        &["loraxs"]
    }

    fn needs(&self) -> Vec<Need> {
        if self.bases == Bases::Svd { vec![Need::Weight] } else { Vec::new() }
    }

    fn promise(&self) -> Promise {
        if self.deviation > 0.0 { Promise::Within(MOVES * self.deviation) } else { Promise::Zero }
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        vec![
            ("bases", self.bases.name().to_owned()),
            ("deviation", self.deviation.to_string()),
            ("svd", self.svd.name().to_owned()),
            ("power", self.power.to_string()),
        ]
    }

    fn configure(&self, options: &Options) -> Result<Box<dyn Initialiser>, InitError> {
        let nothing = options.text("deviation").parse::<f64>() == Ok(0.0);
        Ok(Box::new(LoraXs {
            bases: options.named("bases")?,
            deviation: if nothing { 0.0 } else { options.positive("deviation")? },
            svd: options.named("svd")?,
            power: options.count("power", 64)?,
        }))
    }

    fn start(&self, seen: &Evidence<'_>, rank: usize, seed: Seed) -> Result<Start, InitError> {
        let site = seen.site();
        self.admits(site, rank)?;
        let (delta, report) = match self.bases {
            Bases::Svd => self.principal(seen, rank, seed)?,
            Bases::Random => {
                let bound = |fan: usize| (fan as f64).sqrt().recip() as f32;
                let left = seed.at("start", "left").uniform(site.out * rank, bound(rank));
                let right = seed.at("start", "right").uniform(rank * site.inp, bound(site.inp));
                let delta = LowRank::from_rows(&left, &right, site.out, site.inp, rank);
                (delta.map_err(InitError::linalg(CARD.name))?, Report::default())
            }
        };
        let mut core = seed.at("start", "core").normal(rank * rank);
        core.iter_mut().for_each(|x| *x = (f64::from(*x) * self.deviation) as f32);
        let core = from_rows(&core, rank, rank).map_err(InitError::linalg(CARD.name))?;
        let report = report.with("deviation of the core", self.deviation);
        Start::checked_with_core(CARD.name, delta, core, Base::Keep, report)
    }
}
