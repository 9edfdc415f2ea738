//! `y = x Wᵀ + s·(x rightᵀ) leftᵀ`, left `[out, r]`, right `[r, in]`; both are trained, or one of them.
//!
//! With a shadow offset the frozen start is taken back inside the same product:
//! `s·[(x rightᵀ) leftᵀ − (x right₀ᵀ) left₀ᵀ]`, a low-rank path of rank 2r of which half is trained. Where one factor is
//! frozen the difference is that of the other, and the rank stays r.
//!
//! Source: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021, equation 3. The shadow offset is ours:
//! the papers of offset starts write `W − s·left₀·right₀` into the base, which costs rounding in low precision, rules
//! out quantised bases and makes "adapter off" a different model. `trains = right` with a start of minor components is MiCA;
//! `trains = left` is LoRA-FA (Zhang et al., 2023, arXiv 2308.03303): with `right` frozen the backward keeps `x rightᵀ` `[n, r]` and
//! not x.

use lowrank_record::{Card, Choice, Kind, Named, Options, Promise, Source};
use lowrank_tensor::{Tensor, Var};

use crate::form::{Adapter, Effect, Form, Layer, LowRankPath, Offset, Site, Start, Takes};
use crate::part::{Held, Stored};
use crate::{AdaptError, Footprint, Part, Reach};

/// Low-rank adaptation with two factors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lora {
    /// What is trained.
    pub trains: Trains,
}

/// The factors that are trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trains {
    /// Both.
    Both,
    /// `left` alone.
    Left,
    /// `right` alone.
    Right,
}

impl Named for Trains {
    const NAMES: &'static [(&'static str, Self)] =
        &[("both", Trains::Both), ("left", Trains::Left), ("right", Trains::Right)];
}

static CARD: Card = Card {
    name: "lora",
    kind: Kind::Form,
    summary: "W + s·left·right with left [out, r] and right [r, in] trained",
    source: Source {
        authors: "Hu et al.",
        title: "LoRA: Low-Rank Adaptation of Large Language Models",
        year: 2021,
        link: "https://arxiv.org/abs/2106.09685",
    },
    needs: &[],
    promise: Promise::Exact,
    choices: &[Choice {
        name: "trains",
        default: "both",
        values: "both | left | right",
        meaning: "the factors that are trained: left alone is LoRA-FA, which keeps no inputs for the backward pass",
    }],
    notes: &["with offset = shadow the start is taken back beside the weight, not inside it"],
};

impl Lora {
    /// Both factors trained.
    pub const DEFAULT: Lora = Lora { trains: Trains::Both };

    pub(super) fn adapter(&self, site: &Site<'_>, parts: Factors) -> LoraAdapter {
        let ([out, inp], rank, device) = (site.base.shape(), parts.rank, site.device);
        LoraAdapter {
            left: Held::new(parts.left, [out, rank], device, self.trains != Trains::Right),
            right: Held::new(parts.right, [rank, inp], device, self.trains != Trains::Left),
            left0: parts.left0.map(|values| Held::new(values, [out, rank], device, false)),
            right0: parts.right0.map(|values| Held::new(values, [rank, inp], device, false)),
            scale: site.scale,
        }
    }
}

/// What an adapter is made of. A factor that is frozen is its own start.
pub(super) struct Factors {
    pub(super) left: Vec<f32>,
    pub(super) right: Vec<f32>,
    pub(super) rank: usize,
    pub(super) left0: Option<Vec<f32>>,
    pub(super) right0: Option<Vec<f32>>,
}

impl Form for Lora {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        vec![("trains", self.trains.name().to_owned())]
    }

    fn configure(&self, options: &Options) -> Result<Box<dyn Form>, AdaptError> {
        Ok(Box::new(Lora { trains: options.named("trains")? }))
    }

    fn takes(&self) -> Takes {
        Takes::Factors
    }

    fn footprint(&self, shape: [usize; 2], rank: usize, offset: Offset) -> Footprint {
        let [left, right] = shape.map(|side| rank * side);
        let trained = match self.trains {
            Trains::Both => left + right,
            Trains::Left => left,
            Trains::Right => right,
        };
        // What is trained is held once more to be taken back; both together are a path of twice the rank.
        let shadow = offset == Offset::Shadow;
        let path = if shadow && self.trains == Trains::Both { 2 * rank } else { rank };
        let frozen = left + right - trained + if shadow { trained } else { 0 };
        let keeps_inputs = self.trains != Trains::Left;
        Footprint { trained, frozen, keeps_inputs, ..Footprint::path(shape, path) }
    }

    fn reach(&self) -> Reach {
        Reach::Factors { left: self.trains != Trains::Right, right: self.trains != Trains::Left }
    }

    fn build(&self, site: &Site<'_>, start: Option<Start>) -> Result<Box<dyn Adapter>, AdaptError> {
        let Start { left, right, rank, offset, .. } = Start::factors(&CARD, site, start)?;
        let never = |why| AdaptError::NeverLearns { form: CARD.name, why };
        let zero = |values: &[f32]| values.iter().all(|&value| value == 0.0);
        if self.trains == Trains::Left && zero(&right) {
            return Err(never("right is zero and frozen, so left has no gradient; choose trains = both"));
        }
        if self.trains == Trains::Right && zero(&left) {
            return Err(never(
                "left is zero and frozen, so right has no gradient; choose trains = left or both, or a start whose left is \
                 not zero",
            ));
        }
        let kept = |values: &[f32], trained| (offset == Offset::Shadow && trained).then(|| values.to_vec());
        let left0 = kept(&left, self.trains != Trains::Right);
        let right0 = kept(&right, self.trains != Trains::Left);
        Ok(Box::new(self.adapter(site, Factors { left, right, rank, left0, right0 })))
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
        let left = stored.take("left", &[out, rank])?;
        let shadow = offset == Offset::Shadow;
        let (mut left0, mut right0) = (None, None);
        if shadow && self.trains != Trains::Left {
            right0 = Some(stored.take("right0", &[rank, inp])?);
        }
        if shadow && self.trains != Trains::Right {
            left0 = Some(stored.take("left0", &[out, rank])?);
        }
        stored.finish()?;
        Ok(Box::new(self.adapter(site, Factors { left, right, rank, left0, right0 })))
    }
}

pub(super) struct LoraAdapter {
    left: Held,
    right: Held,
    /// The start that is taken back, of each factor that is trained.
    left0: Option<Held>,
    right0: Option<Held>,
    scale: f64,
}

impl LoraAdapter {
    pub(super) fn path(&self) -> LowRankPath {
        let (left, right) = (self.left.tensor(), self.right.tensor());
        match (&self.left0, &self.right0) {
            (None, None) => LowRankPath { left: left * self.scale, right },
            (Some(left0), None) => LowRankPath { left: (left - left0.tensor()) * self.scale, right },
            (None, Some(right0)) => LowRankPath { left: left * self.scale, right: right - right0.tensor() },
            (Some(left0), Some(right0)) => LowRankPath {
                left: Tensor::cat(vec![left * self.scale, left0.tensor() * -self.scale], 1),
                right: Tensor::cat(vec![right, right0.tensor()], 0),
            },
        }
    }
}

impl Adapter for LoraAdapter {
    fn effect<'a>(&'a self, _layer: Layer<'a>, _x: &'a Tensor<2>) -> Effect<'a> {
        Effect::LowRank(self.path())
    }

    fn low_rank(&self) -> Option<LowRankPath> {
        Some(self.path())
    }

    fn delta(&self, _base: &lowrank_tensor::Matrix) -> Vec<f32> {
        self.path().product()
    }

    fn trainable(&self) -> Vec<(&'static str, Var)> {
        [self.right.trained("right"), self.left.trained("left")].into_iter().flatten().collect()
    }

    fn parts(&self) -> Vec<Part> {
        let mut parts = vec![self.right.part("right"), self.left.part("left")];
        parts.extend(self.right0.as_ref().map(|held| held.part("right0")));
        parts.extend(self.left0.as_ref().map(|held| held.part("left0")));
        parts
    }
}
