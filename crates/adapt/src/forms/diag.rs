//! `y = x Wᵀ + s·((x rightᵀ) ⊙ d) leftᵀ` with frozen factors and a trained diagonal d `[1, r]`.
//!
//! SVFit (singular vectors, d their values), LoLDU (the factors of LDU, d the pivots) and SVFT's plain variant are this
//! form with another start. With a shadow offset the change is `s·left·diag(d − d₀)·right`: with s frozen the run is that
//! of the papers, which write `W − s·left·diag(d₀)·right` into the base, whatever d₀ is. `right` is frozen, so the fused
//! product keeps `x rightᵀ` `[n, r]` for the backward and not x.
//!
//! * `train-scale`: a factor m of the scale is trained too, from 1: `s·left·diag(m·d − d₀)·right`. LoLDU's paper trains it,
//!   the recipe of its code does not.
//! * `relative`: what is trained is the relative change q of each value, `d = d₀·(1 + q)` from q = 0: one step moves a
//!   large value by more than a small one.
//!
//! Sources: Sun et al., "SVFit: Parameter-Efficient Fine-Tuning of Large Pre-Trained Models Using Singular Values", 2024;
//! Shi et al., "LoLDU: Low-Rank Adaptation via Lower-Diag-Upper Decomposition for Parameter-Efficient Fine-Tuning", 2024.

use lowrank_record::{Card, Choice, Kind, Named, Options, Promise, Source};
use lowrank_tensor::{Matrix, Tensor, Var};

use crate::form::{Adapter, Effect, Form, Layer, LowRankPath, Offset, Site, Start, Takes};
use crate::part::{Held, Stored};
use crate::{AdaptError, Footprint, Part};

/// Two frozen factors with a trained diagonal between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Diag {
    /// Whether a factor of the scale is trained too.
    pub train_scale: bool,
    /// Whether the relative change of each value is trained.
    pub relative: bool,
}

static CARD: Card = Card {
    name: "diag",
    kind: Kind::Form,
    summary: "W + s·left·diag(d)·right with only the r values d trained",
    source: Source {
        authors: "Sun et al.",
        title: "SVFit: Parameter-Efficient Fine-Tuning of Large Pre-Trained Models Using Singular Values",
        year: 2024,
        link: "https://arxiv.org/abs/2409.05926",
    },
    needs: &[],
    promise: Promise::Exact,
    choices: &[
        Choice {
            name: "train-scale",
            default: "false",
            values: "true | false",
            meaning: "trains a factor of the scale too, from 1, as LoLDU's paper does and its released recipe does not",
        },
        Choice {
            name: "relative",
            default: "false",
            values: "true | false",
            meaning: "trains q in d = d₀·(1 + q) from q = 0, so that a step moves large values more",
        },
    ],
    notes: &[
        "a start without a core begins with d = 1, which is the function of its two factors",
        "with offset = shadow the change is left·diag(d − d₀)·right and the base is not touched; with a frozen scale the run \
         is that of the papers",
        "a start whose left or right factor is zero is refused: d would have no gradient",
    ],
};

impl Diag {
    /// The diagonal alone.
    pub const DEFAULT: Diag = Diag { train_scale: false, relative: false };

    fn adapter(&self, site: &Site<'_>, parts: Parts) -> DiagAdapter {
        let ([out, inp], rank, device) = (site.base.shape(), parts.rank, site.device);
        DiagAdapter {
            left: Held::new(parts.left, [out, rank], device, false),
            right: Held::new(parts.right, [rank, inp], device, false),
            values: Var::new(parts.values, [1, rank], device),
            values0: parts.values0.map(|values| Held::new(values, [1, rank], device, false)),
            multiplier: parts.multiplier.map(|value| Var::new(value, [1, 1], device)),
            relative: self.relative,
            shadow: parts.shadow,
            scale: site.scale,
        }
    }
}

struct Parts {
    left: Vec<f32>,
    right: Vec<f32>,
    rank: usize,
    values: Vec<f32>,
    values0: Option<Vec<f32>>,
    multiplier: Option<Vec<f32>>,
    shadow: bool,
}

impl Form for Diag {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        vec![
            ("train-scale", self.train_scale.name().to_owned()),
            ("relative", self.relative.name().to_owned()),
        ]
    }

    fn configure(&self, options: &Options) -> Result<Box<dyn Form>, AdaptError> {
        Ok(Box::new(Diag {
            train_scale: options.named("train-scale")?,
            relative: options.named("relative")?,
        }))
    }

    fn takes(&self) -> Takes {
        Takes::Diagonal
    }

    fn footprint(&self, shape: [usize; 2], rank: usize, offset: Offset) -> Footprint {
        let [out, inp] = shape;
        let trained = rank + usize::from(self.train_scale);
        let start = if self.relative || offset == Offset::Shadow { rank } else { 0 };
        let frozen = rank * (out + inp) + start;
        Footprint { trained, frozen, once: rank * out, ..Footprint::path(shape, rank) }
    }

    fn build(&self, site: &Site<'_>, start: Option<Start>) -> Result<Box<dyn Adapter>, AdaptError> {
        let mut start = Start::given(&CARD, site, start)?;
        let (core, rank) = (start.core_or_identity(), start.rank);
        if core.iter().enumerate().any(|(at, &value)| at / rank != at % rank && value != 0.0) {
            return Err(AdaptError::NotDiagonal { form: CARD.name });
        }
        let diagonal: Vec<f32> = core.into_iter().step_by(rank + 1).collect();
        let never = |why| Err(AdaptError::NeverLearns { form: CARD.name, why });
        let zero = |values: &[f32]| values.iter().all(|&value| value == 0.0);
        if zero(&start.left) || zero(&start.right) {
            return never(
                "one of its factors is zero and only the diagonal is trained, which then has no gradient; choose a start \
                 whose factors are both not zero",
            );
        }
        if self.relative && zero(&diagonal) {
            return never(
                "its diagonal is zero and relative = true trains a part of it; choose relative = false",
            );
        }
        let shadow = start.offset == Offset::Shadow;
        let Start { left, right, .. } = start;
        let values = if self.relative { vec![0.0; rank] } else { diagonal.clone() };
        let values0 = (shadow || self.relative).then_some(diagonal);
        let multiplier = self.train_scale.then(|| vec![1.0]);
        Ok(Box::new(self.adapter(site, Parts { left, right, rank, values, values0, multiplier, shadow })))
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
        let values = stored.take("values", &[1, rank])?;
        let left = stored.take("left", &[out, rank])?;
        let multiplier = if self.train_scale { Some(stored.take("scale", &[1, 1])?) } else { None };
        let shadow = offset == Offset::Shadow;
        let values0 = if shadow || self.relative { Some(stored.take("values0", &[1, rank])?) } else { None };
        stored.finish()?;
        Ok(Box::new(self.adapter(site, Parts { left, right, rank, values, values0, multiplier, shadow })))
    }
}

struct DiagAdapter {
    left: Held,
    right: Held,
    values: Var,
    values0: Option<Held>,
    multiplier: Option<Var>,
    relative: bool,
    shadow: bool,
    scale: f64,
}

impl DiagAdapter {
    fn path(&self) -> LowRankPath {
        let trained = self.values.tensor();
        let values0 = self.values0.as_ref().map(Held::tensor);
        let diagonal = match (&self.multiplier, &values0) {
            // Without a multiplier the difference is what is trained: no start is added and taken away again.
            (None, Some(values0)) if self.relative && self.shadow => trained * values0.clone(),
            (multiplier, values0) => {
                let mut diagonal = match values0 {
                    Some(values0) if self.relative => (trained + 1.0) * values0.clone(),
                    _ => trained,
                };
                if let Some(multiplier) = multiplier {
                    diagonal = diagonal * multiplier.tensor();
                }
                match values0 {
                    Some(values0) if self.shadow => diagonal - values0.clone(),
                    _ => diagonal,
                }
            }
        };
        LowRankPath { left: self.left.tensor() * self.scale * diagonal, right: self.right.tensor() }
    }
}

impl Adapter for DiagAdapter {
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
        let mut list = vec![("values", self.values.clone())];
        list.extend(self.multiplier.as_ref().map(|multiplier| ("scale", multiplier.clone())));
        list
    }

    fn parts(&self) -> Vec<Part> {
        let values = Part::new("values", &self.values.shape(), self.values.values());
        let mut parts = vec![self.right.part("right"), values, self.left.part("left")];
        parts.extend(self.multiplier.as_ref().map(|scale| Part::new("scale", &[1, 1], scale.values())));
        parts.extend(self.values0.as_ref().map(|values| values.part("values0")));
        parts
    }
}
