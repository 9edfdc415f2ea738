//! `y = x Wᵀ + s·(x rightᵀ) leftᵀ`, left `[out, r]`, right `[r, in]`, both trained.
//!
//! With a shadow offset the frozen start is taken back inside the same product:
//! `s·[(x rightᵀ) leftᵀ − (x right₀ᵀ) left₀ᵀ]`, a low-rank path of rank 2r of which half is trained.
//!
//! Source: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021, equation 3. The shadow offset is ours:
//! the papers of offset starts write `W − s·left₀·right₀` into the base, which costs rounding in low precision, rules
//! out quantised bases and makes "adapter off" a different model.

use lowrank_record::{Card, Kind, Promise, Source};
use lowrank_tensor::{Device, Matrix, Tensor, Var, from_rows, to_rows};

use crate::form::{AdaptError, Adapter, Form, LowRankPath, Offset, Start};

/// Low-rank adaptation with two trained factors.
#[derive(Debug, Clone, Copy)]
pub struct Lora;

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
    choices: &[],
    notes: &["with offset = shadow the start is taken back beside the weight, not inside it"],
};

impl Form for Lora {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn build(
        &self,
        base: &Matrix,
        start: Start,
        scale: f64,
        device: &Device,
    ) -> Result<Box<dyn Adapter>, AdaptError> {
        let [out, inp] = base.shape();
        let Start { left, right, rank, offset } = start;
        // A rank above the weight's is wasteful, not wrong: an exported offset has twice the rank of its start.
        if rank == 0 {
            return Err(AdaptError::Rank);
        }
        if left.len() != out * rank || right.len() != rank * inp {
            return Err(AdaptError::Shape { left: left.len(), right: right.len(), rank, out, inp });
        }
        let origin = (offset == Offset::Shadow).then(|| Origin {
            // The subtraction of the start is folded in once, here: it never changes.
            taken_back: from_rows(
                left.iter().map(|&value| -(scale as f32) * value).collect(),
                [out, rank],
                device,
            ),
            right: from_rows(right.clone(), [rank, inp], device),
        });
        let left = Var::new(left, [out, rank], device);
        let right = Var::new(right, [rank, inp], device);
        Ok(Box::new(LoraAdapter { left, right, scale, origin }))
    }
}

struct LoraAdapter {
    left: Var,
    right: Var,
    scale: f64,
    origin: Option<Origin>,
}

struct Origin {
    /// `−s·left₀`.
    taken_back: Tensor<2>,
    /// `right₀`.
    right: Tensor<2>,
}

impl LoraAdapter {
    fn path(&self) -> LowRankPath {
        let (left, right) = (self.left.tensor() * self.scale, self.right.tensor());
        match &self.origin {
            None => LowRankPath { left, right },
            Some(origin) => LowRankPath {
                left: Tensor::cat(vec![left, origin.taken_back.clone().autodiff()], 1),
                right: Tensor::cat(vec![right, origin.right.clone().autodiff()], 0),
            },
        }
    }
}

impl Adapter for LoraAdapter {
    fn apply(&self, _base: &Matrix, x: &Tensor<2>) -> Tensor<2> {
        let LowRankPath { left, right } = self.path();
        // (x rightᵀ) leftᵀ: 2·n·r·(in + out) flops instead of 2·n·in·out.
        x.clone().matmul(right.transpose()).matmul(left.transpose())
    }

    fn low_rank(&self) -> Option<LowRankPath> {
        Some(self.path())
    }

    fn delta(&self, _base: &Matrix) -> Vec<f32> {
        let LowRankPath { left, right } = self.path();
        to_rows(left.inner().matmul(right.inner()))
    }

    fn trainable(&self) -> Vec<(&'static str, Var)> {
        vec![("right", self.right.clone()), ("left", self.left.clone())]
    }
}
