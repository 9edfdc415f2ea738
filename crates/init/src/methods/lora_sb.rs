//! `left = U_r`, `right = V_rᵀ`, `core = diag(S_r)/scale` between them, of `D = −rate·map(G) = U·S·Vᵀ`, G `[out, in]` the loss gradient of
//! the calibration text: the change `scale·left·core·right` starts as the best approximation of rank r of the first step
//! of full fine-tuning, and only the core `[r, r]` trains.
//!
//! The bases are orthonormal, so the plain gradient of the core, `scale·leftᵀ·G·rightᵀ`, moves the weight along the projection of
//! G on them, `scale²` times: the best step that the core has.
//!
//! Needs the gradient, and the learning rate of the first step where the core starts as the update. **The function at step 0 is
//! not the base's**: it has made that step (`core = zero` leaves it unchanged).
//!
//! Source: Ponkshe et al., "Initialization using Update Approximation is a Silver Bullet for Extremely Efficient Low-Rank Fine-Tuning",
//! 2024, and the authors' code, read at `37b33d4`. Where we differ: the rate is that of the first optimiser step (theirs counts the steps of
//! the estimation's loader); the core is divided by the scale (theirs is 1); bases stay f32 (theirs are rounded to bf16, which loses
//! orthonormality); the decomposition is exact up to 128 and oversampled above (theirs takes r columns, poor where the
//! spectrum is as flat as that of signs).

mod card;

use faer::{Mat, MatRef};
use lowrank_linalg::{LowRank, Sketch, Sketched, directions, energy, multiply};
use lowrank_record::{Card, Promise, Report, Seed};

pub(super) use card::CHOICES;
pub use card::{CoreStart, Rate, Target};

use self::card::CARD;
use crate::{
    Base, Evidence, Exactness, Gradient, GradientMap, InitError, Initialiser, Leading, Named, Options, Start,
};

/// The first update in two fixed bases and a core.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LoraSb {
    /// What of the gradient the update is made of.
    pub target: Target,
    /// What the core starts as.
    pub core: CoreStart,
    /// The rate of the update.
    pub rate: Rate,
    /// ε of the first Adam step.
    pub epsilon: f64,
    /// How the map of the gradient is decomposed.
    pub svd: Exactness,
}

impl LoraSb {
    /// The paper's.
    pub const DEFAULT: LoraSb = LoraSb {
        target: Target::SignUpdate,
        core: CoreStart::Update,
        rate: Rate::FirstStep,
        epsilon: 1e-8,
        svd: Exactness::Auto,
    };

    /// What is decomposed.
    #[must_use]
    pub fn map(&self) -> GradientMap {
        match self.target {
            Target::SignUpdate => GradientMap::Sign,
            Target::Gradient => GradientMap::Itself,
            Target::AdamFirstStep => GradientMap::AdamFirstStep { epsilon: self.epsilon },
        }
    }

    /// These choices, of a card that has them all.
    pub(super) fn from_options(options: &Options) -> Result<LoraSb, InitError> {
        let first = options.text("rate").eq_ignore_ascii_case("first-step");
        Ok(LoraSb {
            target: options.named("target")?,
            core: options.named("core")?,
            rate: if first { Rate::FirstStep } else { Rate::Fixed(options.positive("rate")?) },
            epsilon: options.positive("epsilon")?,
            svd: options.named("svd")?,
        })
    }

    /// As `(name, value)`.
    pub(super) fn named_settings(&self) -> Vec<(&'static str, String)> {
        let rate = match self.rate {
            Rate::FirstStep => "first-step".to_owned(),
            Rate::Fixed(number) => number.to_string(),
        };
        vec![
            ("target", self.target.name().to_owned()),
            ("core", self.core.name().to_owned()),
            ("rate", rate),
            ("epsilon", self.epsilon.to_string()),
            ("svd", self.svd.name().to_owned()),
        ]
    }

    /// How the map is decomposed: signs have a flat spectrum, so twice the rank and 16 more columns, four power iterations.
    pub(super) fn triplets_wanted(&self, rank: usize) -> Leading {
        let sketch = Sketch { oversampling: rank.saturating_add(16), power: 4 };
        Leading { count: rank, exactness: self.svd, sketch, of: self.map() }
    }

    /// The leading `rank` triplets of the map of the gradient, and its energy where it is known.
    pub(super) fn triplets(
        &self,
        method: &'static str,
        seen: &Evidence<'_>,
        rank: usize,
        seed: Seed,
    ) -> Result<(lowrank_linalg::Svd, Option<f64>), InitError> {
        let (svd, energy) = match seen.gradient_of(method, self.map())? {
            Gradient::Exact(matrix) => {
                let found = self.triplets_wanted(rank).of(*matrix, seed.at("start", "gradient"));
                let Sketched { svd, energy, .. } = found.map_err(InitError::linalg(method))?;
                (svd, Some(energy))
            }
            Gradient::Factors { leading, energy, .. } => {
                let have = leading.rank();
                if have < rank {
                    return Err(InitError::TooFewTriplets { method, rank, have, want: rank });
                }
                (leading.head(rank), *energy)
            }
        };
        if svd.values[0] <= 0.0 {
            return Err(InitError::ZeroGradient { method });
        }
        Ok((svd, energy))
    }

    /// The diagonal of the core, `rate·S/scale`, or zeros.
    pub(super) fn diagonal(
        &self,
        method: &'static str,
        seen: &Evidence<'_>,
        values: &[f64],
    ) -> Result<Vec<f64>, InitError> {
        if self.core == CoreStart::Zero {
            return Ok(vec![0.0; values.len()]);
        }
        let rate = match self.rate {
            Rate::FirstStep => seen.rate(method)?,
            Rate::Fixed(number) => number,
        };
        Ok(values.iter().map(|value| seen.site().unscaled(rate * value)).collect())
    }

    /// What the choice of the core promises.
    pub(super) fn kept(&self) -> Promise {
        if self.core == CoreStart::Zero { Promise::Zero } else { Promise::None }
    }
}

impl Initialiser for LoraSb {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn leading(&self, rank: usize) -> Leading {
        self.triplets_wanted(rank)
    }

    fn promise(&self) -> Promise {
        self.kept()
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        self.named_settings()
    }

    fn configure(&self, options: &Options) -> Result<Box<dyn Initialiser>, InitError> {
        Ok(Box::new(LoraSb::from_options(options)?))
    }

    fn start(&self, seen: &Evidence<'_>, rank: usize, seed: Seed) -> Result<Start, InitError> {
        let site = seen.site();
        self.admits(site, rank)?;
        let (svd, held) = self.triplets(CARD.name, seen, rank, seed)?;
        let diagonal = self.diagonal(CARD.name, seen, &svd.values)?;
        // D points against the gradient; its right vectors are those of the map, so the left ones turn.
        let left = Mat::from_fn(site.out, rank, |i, j| -svd.left[(i, j)]);
        let mut report = Report::default()
            .with("target", self.target.name())
            .with("largest singular value of the target", svd.values[0])
            .with("smallest singular value used", svd.values[rank - 1]);
        if let Some(all) = held {
            report = report.with("part of the target's energy in the bases", (svd.energy() / all).min(1.0));
        }
        if let Gradient::Exact(gradient) = seen.gradient_of(CARD.name, self.map())? {
            let part = projected(left.as_ref(), *gradient, svd.right.as_ref());
            report = report.with("part of the gradient's energy in the bases", part);
        }
        let have = directions(&svd.values);
        if have < rank {
            report = report.with(
                "warning",
                format!(
                    "the target has rank {have}, {rank} directions are used: the rest are arbitrary; show it more samples or \
                     lower the rank"
                ),
            );
        }
        let size = diagonal.iter().map(|value| value * value).sum::<f64>().sqrt();
        report = report.with("size of the start", site.scale * size);
        let delta = LowRank { left, right: svd.right };
        Start::checked_with_core(CARD.name, delta, diagonal_core(&diagonal), Base::Keep, report)
    }
}

/// The core with this diagonal.
pub(super) fn diagonal_core(diagonal: &[f64]) -> Mat<f32> {
    let rank = diagonal.len();
    Mat::from_fn(rank, rank, |i, j| if i == j { diagonal[i] as f32 } else { 0.0 })
}

/// `‖leftᵀ·G·rightᵀ‖²/‖G‖²` for orthonormal bases.
fn projected(left: MatRef<'_, f32>, gradient: MatRef<'_, f32>, right: MatRef<'_, f32>) -> f64 {
    let inside = multiply(left.transpose(), multiply(gradient, right.transpose()).as_ref());
    (energy(inside.as_ref()) / energy(gradient)).min(1.0)
}
