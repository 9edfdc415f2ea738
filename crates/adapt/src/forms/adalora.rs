//! `y = x Wᵀ + s·((x rightᵀ) ⊙ E) leftᵀ` with left, right and the values E `[r, 1]` trained: a change written as a singular
//! value decomposition, whose least important values are set to zero while it trains.
//!
//! Which values stay is decided over all layers together by [`RankSchedule`](crate::RankSchedule). The factors are held
//! near orthogonal by a penalty beside the loss, `‖left'left − I‖ + ‖right right' − I‖` ([`Adapter::penalty`]).
//!
//! Source: Zhang et al., "Adaptive Budget Allocation for Parameter-Efficient Fine-Tuning", 2023; PEFT's `tuners/adalora`.

use lowrank_record::{Card, Kind, Options, Promise, Source};
use lowrank_tensor::{Matrix, Tensor, Var, from_rows};

use crate::form::{Adapter, Effect, Form, Layer, LowRankPath, Offset, Site, Start, Takes};
use crate::part::Stored;
use crate::{AdaptError, Footprint, Part};

/// A change written as a singular value decomposition, with a rank that is allotted while it trains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Adalora;

static CARD: Card = Card {
    name: "adalora",
    kind: Kind::Form,
    summary: "W + s·left·diag(E)·right, all trained, where the least important of all layers' values E are set to zero",
    source: Source {
        authors: "Zhang et al.",
        title: "Adaptive Budget Allocation for Parameter-Efficient Fine-Tuning",
        year: 2023,
        link: "https://arxiv.org/abs/2303.10512",
    },
    needs: &[],
    promise: Promise::Zero,
    choices: &[],
    notes: &[
        "the scale is alpha/r of the rank that it begins with; PEFT divides by r + 0.00001",
        "E begins with zeros, left and right with N(0, 0.02²), as in PEFT",
        "the rank of a site is the one it begins with (PEFT's init_r); the rank schedule says where it ends",
        "the penalty is a half of the mean over all factors in PEFT (orth_reg_weight = 0.5)",
    ],
};

/// The deviation of the factors at the start, as in PEFT.
const DEVIATION: f32 = 0.02;

impl Form for Adalora {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn configure(&self, _options: &Options) -> Result<Box<dyn Form>, AdaptError> {
        Ok(Box::new(Adalora))
    }

    fn takes(&self) -> Takes {
        Takes::Nothing
    }

    fn footprint(&self, shape: [usize; 2], rank: usize, _offset: Offset) -> Footprint {
        let ([out, inp], path) = (shape, Footprint::path(shape, rank));
        Footprint { trained: rank * (out + inp + 1), keeps_inputs: true, once: rank * out, ..path }
    }

    fn build(&self, site: &Site<'_>, start: Option<Start>) -> Result<Box<dyn Adapter>, AdaptError> {
        Start::none(&CARD, start.as_ref())?;
        let ([out, inp], rank, device) = (site.base.shape(), site.rank, site.device);
        if rank == 0 {
            return Err(AdaptError::Rank);
        }
        let draw = |part: &str, [rows, cols]: [usize; 2]| {
            let values = site.draws(part).normal(rows * cols).into_iter().map(|value| DEVIATION * value);
            Var::new(values.collect(), [rows, cols], device)
        };
        Ok(Box::new(AdaloraAdapter {
            right: draw("right", [rank, inp]),
            values: Var::new(vec![0.0; rank], [rank, 1], device),
            left: draw("left", [out, rank]),
            scale: site.scale,
        }))
    }

    fn restore(
        &self,
        site: &Site<'_>,
        parts: Vec<Part>,
        _offset: Offset,
    ) -> Result<Box<dyn Adapter>, AdaptError> {
        let [out, inp] = site.base.shape();
        let mut stored = Stored::new(&CARD, parts);
        let rank = stored.rank("right", 0)?;
        let mut take = |name, shape: [usize; 2]| {
            stored.take(name, &shape).map(|values| Var::new(values, shape, site.device))
        };
        let adapter = AdaloraAdapter {
            right: take("right", [rank, inp])?,
            values: take("values", [rank, 1])?,
            left: take("left", [out, rank])?,
            scale: site.scale,
        };
        stored.finish()?;
        Ok(Box::new(adapter))
    }
}

struct AdaloraAdapter {
    right: Var,
    /// `[r, 1]`.
    values: Var,
    left: Var,
    scale: f64,
}

impl AdaloraAdapter {
    fn path(&self) -> LowRankPath {
        let left = self.left.tensor() * self.values.tensor().transpose() * self.scale;
        LowRankPath { left, right: self.right.tensor() }
    }
}

/// `‖F F' − I‖` of the rows of a factor, with a gradient of zero where it is zero.
fn from_orthogonal(rows: Tensor<2>) -> Tensor<1> {
    let [rank, _] = rows.dims();
    let values = (0..rank * rank).map(|at| if at % (rank + 1) == 0 { 1.0 } else { 0.0 }).collect();
    let one = from_rows(values, [rank, rank], &rows.device().without_autodiff());
    let gap = rows.clone().matmul(rows.transpose()) - one;
    // A square below what f32 can tell from the rounding of the product.
    (gap.powf_scalar(2.0).sum() + 1e-24).sqrt()
}

impl Adapter for AdaloraAdapter {
    fn effect<'a>(&'a self, _layer: Layer<'a>, _x: &'a Tensor<2>) -> Effect<'a> {
        Effect::LowRank(self.path())
    }

    fn low_rank(&self) -> Option<LowRankPath> {
        Some(self.path())
    }

    fn delta(&self, _base: &Matrix) -> Vec<f32> {
        self.path().product()
    }

    fn penalty(&self) -> Option<Tensor<1>> {
        Some(from_orthogonal(self.right.tensor()) + from_orthogonal(self.left.tensor().transpose()))
    }

    fn trainable(&self) -> Vec<(&'static str, Var)> {
        vec![("right", self.right.clone()), ("values", self.values.clone()), ("left", self.left.clone())]
    }

    fn parts(&self) -> Vec<Part> {
        let part = |(name, var): (&str, Var)| Part::new(name, &var.shape(), var.values());
        self.trainable().into_iter().map(part).collect()
    }
}
