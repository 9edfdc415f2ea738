//! `y = x Wᵀ + s·((x rightᵀ) Rᵀ) leftᵀ` with a core R `[r, r]` between the factors.
//!
//! * `trains = core`: the factors are frozen, r² values are trained. LoRA-XS, LoRA-SB and IntTune differ in where the
//!   factors and R start. With a shadow offset the change is `s·left·(R − R₀)·right`, of rank r. The low-rank path is
//!   `(s·left·R, right)`: `right` is frozen, so the fused product keeps `x rightᵀ` `[n, r]` for the backward and not x.
//! * `trains = all`: left, R and right are trained: SLoRA and NLoRA. A shadow offset doubles the rank.
//!
//! Sources: Bałazy et al., "LoRA-XS: Low-Rank Adaptation with Extremely Small Number of Parameters", 2024; Ponkshe et al.,
//! "Initialization using Update Approximation is a Silver Bullet for Extremely Efficient Low-Rank Fine-Tuning", 2024
//! (LoRA-SB); Guo et al., "NLoRA: Nyström-Initiated Low-Rank Adaptation for Large Language Models", 2025 (SLoRA, NLoRA,
//! IntTune).

use lowrank_record::{Card, Choice, Kind, Named, Options, Promise, Source};
use lowrank_tensor::{Matrix, Tensor, Var};

use crate::form::{Adapter, Effect, Form, Layer, LowRankPath, Offset, Site, Start, Takes};
use crate::part::{Held, Stored};
use crate::{AdaptError, Footprint, Part, Reach};

/// Two factors with a core between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Core {
    /// What is trained.
    pub trains: CoreTrains,
}

/// The matrices that are trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CoreTrains {
    /// The core alone.
    Core,
    /// The core and both factors.
    All,
}

impl Named for CoreTrains {
    const NAMES: &'static [(&'static str, Self)] = &[("core", CoreTrains::Core), ("all", CoreTrains::All)];
}

static CARD: Card = Card {
    name: "core",
    kind: Kind::Form,
    summary: "W + s·left·R·right with R [r, r] trained between frozen factors, or all three trained",
    source: Source {
        authors: "Bałazy et al.",
        title: "LoRA-XS: Low-Rank Adaptation with Extremely Small Number of Parameters",
        year: 2024,
        link: "https://arxiv.org/abs/2405.17604",
    },
    needs: &[],
    promise: Promise::Exact,
    choices: &[Choice {
        name: "trains",
        default: "core",
        values: "core | all",
        meaning: "core: r² values between frozen factors (LoRA-XS, LoRA-SB, IntTune); all: both factors too (SLoRA, NLoRA)",
    }],
    notes: &[
        "a start without a core begins with the identity, which is the function of its two factors",
        "the authors of LoRA-SB fix the scale at 1; here it is that of the site: alpha = rank gives theirs",
        "with trains = core, a start whose left or right factor is zero is refused: the core would have no gradient",
        "with offset = shadow and trains = core the change is left·(R − R₀)·right, of rank r",
    ],
};

impl Core {
    /// The core alone.
    pub const DEFAULT: Core = Core { trains: CoreTrains::Core };

    fn adapter(&self, site: &Site<'_>, parts: Factors) -> CoreAdapter {
        let ([out, inp], rank, device) = (site.base.shape(), parts.rank, site.device);
        let all = self.trains == CoreTrains::All;
        CoreAdapter {
            left: Held::new(parts.left, [out, rank], device, all),
            right: Held::new(parts.right, [rank, inp], device, all),
            core: Var::new(parts.core, [rank, rank], device),
            core0: parts.core0.map(|values| Held::new(values, [rank, rank], device, false)),
            taken_back: parts.factors0.map(|(left, right)| TakenBack {
                left: Held::new(left, [out, rank], device, false),
                right: Held::new(right, [rank, inp], device, false),
            }),
            scale: site.scale,
        }
    }
}

/// What an adapter is made of: a shadow keeps the core's start, and with trained factors theirs too.
struct Factors {
    left: Vec<f32>,
    right: Vec<f32>,
    core: Vec<f32>,
    rank: usize,
    core0: Option<Vec<f32>>,
    factors0: Option<(Vec<f32>, Vec<f32>)>,
}

impl Form for Core {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        vec![("trains", self.trains.name().to_owned())]
    }

    fn configure(&self, options: &Options) -> Result<Box<dyn Form>, AdaptError> {
        Ok(Box::new(Core { trains: options.named("trains")? }))
    }

    fn takes(&self) -> Takes {
        Takes::Core
    }

    fn footprint(&self, shape: [usize; 2], rank: usize, offset: Offset) -> Footprint {
        let [out, inp] = shape;
        let (core, factors, shadow) = (rank * rank, rank * (out + inp), offset == Offset::Shadow);
        let all = self.trains == CoreTrains::All;
        let (trained, frozen) = if all { (core + factors, 0) } else { (core, factors) };
        // Of a frozen factor there is no start to keep.
        let frozen = frozen + if shadow { trained } else { 0 };
        let path = if shadow && all { 2 * rank } else { rank };
        Footprint { trained, frozen, keeps_inputs: all, once: core * out, ..Footprint::path(shape, path) }
    }

    fn reach(&self) -> Reach {
        if self.trains == CoreTrains::All { Reach::All } else { Reach::Core }
    }

    fn build(&self, site: &Site<'_>, start: Option<Start>) -> Result<Box<dyn Adapter>, AdaptError> {
        let mut start = Start::given(&CARD, site, start)?;
        let core = start.core_or_identity();
        let zero = |values: &[f32]| values.iter().all(|&value| value == 0.0);
        let [left, middle, right] = [zero(&start.left), zero(&core), zero(&start.right)];
        let never = |why| Err(AdaptError::NeverLearns { form: CARD.name, why });
        if self.trains == CoreTrains::Core && (left || right) {
            return never(
                "one of its factors is zero and only the core is trained, which then has no gradient; choose trains = all, \
                 or a start whose factors are both not zero",
            );
        }
        // A product of three has a gradient only where at most one is zero.
        if u8::from(left) + u8::from(middle) + u8::from(right) > 1 {
            return never(
                "two of left, core and right are zero, so none has a gradient; choose another start",
            );
        }
        let Start { left, right, rank, offset, .. } = start;
        let shadow = offset == Offset::Shadow;
        let core0 = shadow.then(|| core.clone());
        let factors0 = (shadow && self.trains == CoreTrains::All).then(|| (left.clone(), right.clone()));
        Ok(Box::new(self.adapter(site, Factors { left, right, core, rank, core0, factors0 })))
    }

    fn restore(
        &self,
        site: &Site<'_>,
        parts: Vec<Part>,
        offset: Offset,
    ) -> Result<Box<dyn Adapter>, AdaptError> {
        let [out, inp] = site.base.shape();
        let mut stored = Stored::new(&CARD, parts);
        let rank = stored.rank("right", 0)?;
        let right = stored.take("right", &[rank, inp])?;
        let core = stored.take("core", &[rank, rank])?;
        let left = stored.take("left", &[out, rank])?;
        let (mut core0, mut factors0) = (None, None);
        if offset == Offset::Shadow {
            core0 = Some(stored.take("core0", &[rank, rank])?);
        }
        if offset == Offset::Shadow && self.trains == CoreTrains::All {
            let right0 = stored.take("right0", &[rank, inp])?;
            factors0 = Some((stored.take("left0", &[out, rank])?, right0));
        }
        stored.finish()?;
        Ok(Box::new(self.adapter(site, Factors { left, right, core, rank, core0, factors0 })))
    }
}

struct CoreAdapter {
    left: Held,
    right: Held,
    core: Var,
    core0: Option<Held>,
    /// The factors' start, where they are trained and the start is taken back.
    taken_back: Option<TakenBack>,
    scale: f64,
}

struct TakenBack {
    left: Held,
    right: Held,
}

impl CoreAdapter {
    fn path(&self) -> LowRankPath {
        let (left, right) = (self.left.tensor() * self.scale, self.right.tensor());
        match (&self.core0, &self.taken_back) {
            (None, _) => LowRankPath { left: left.matmul(self.core.tensor()), right },
            (Some(core0), None) => {
                LowRankPath { left: left.matmul(self.core.tensor() - core0.tensor()), right }
            }
            (Some(core0), Some(start)) => {
                let back = (start.left.tensor() * -self.scale).matmul(core0.tensor());
                LowRankPath {
                    left: Tensor::cat(vec![left.matmul(self.core.tensor()), back], 1),
                    right: Tensor::cat(vec![right, start.right.tensor()], 0),
                }
            }
        }
    }
}

impl Adapter for CoreAdapter {
    fn effect<'a>(&'a self, _layer: Layer<'a>, _x: &'a Tensor<2>) -> Effect<'a> {
        Effect::LowRank(self.path())
    }

    fn low_rank(&self) -> Option<LowRankPath> {
        Some(self.path())
    }

    fn delta(&self, _base: &Matrix) -> Vec<f32> {
        self.path().product()
    }

    fn trainable(&self) -> Vec<(&'static str, Var)> {
        let core = Some(("core", self.core.clone()));
        [self.right.trained("right"), core, self.left.trained("left")].into_iter().flatten().collect()
    }

    fn parts(&self) -> Vec<Part> {
        let core = Part::new("core", &self.core.shape(), self.core.values());
        let mut parts = vec![self.right.part("right"), core, self.left.part("left")];
        parts.extend(self.core0.as_ref().map(|core| core.part("core0")));
        if let Some(TakenBack { left, right }) = &self.taken_back {
            parts.extend([right.part("right0"), left.part("left0")]);
        }
        parts
    }
}
