//! `y = x (W + Δ)ᵀ + b` with every entry of Δ `[out, in]` trained, from zero.
//!
//! For a few chosen layers beside adapted ones, and as the reference that low-rank changes are measured against. The
//! weight stays as it is stored and Δ is f32, so that adapter off means base.

use lowrank_record::{Card, Kind, Options, Promise, Source};
use lowrank_tensor::{Matrix, Tensor, Var};

use crate::form::{Adapter, Effect, Form, Layer, Offset, Site, Start, Takes};
use crate::part::Stored;
use crate::{AdaptError, Footprint, Part, Reach};

/// A change without a structure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

static CARD: Card = Card {
    name: "full",
    kind: Kind::Form,
    summary: "W + D with every entry of D [out, in] trained, from zero",
    source: Source {
        authors: "Hu et al.",
        title: "LoRA: Low-Rank Adaptation of Large Language Models (the full fine-tuning that it is compared with)",
        year: 2021,
        link: "https://arxiv.org/abs/2106.09685",
    },
    needs: &[],
    promise: Promise::Zero,
    choices: &[],
    notes: &[
        "rank and scale play no part: alpha is not applied",
        "takes the memory of a full copy of the weight, and of its optimiser state",
    ],
};

impl Form for Full {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn configure(&self, _options: &Options) -> Result<Box<dyn Form>, AdaptError> {
        Ok(Box::new(Full))
    }

    fn takes(&self) -> Takes {
        Takes::Nothing
    }

    fn footprint(&self, shape: [usize; 2], _rank: usize, _offset: Offset) -> Footprint {
        Footprint { trained: shape[0] * shape[1], ..Footprint::dense(shape, 1) }
    }

    fn reach(&self) -> Reach {
        Reach::Whole
    }

    fn build(&self, site: &Site<'_>, start: Option<Start>) -> Result<Box<dyn Adapter>, AdaptError> {
        Start::none(&CARD, start.as_ref())?;
        let shape = site.base.shape();
        let change = Var::new(vec![0.0; shape[0] * shape[1]], shape, site.device);
        Ok(Box::new(FullAdapter { change }))
    }

    fn restore(
        &self,
        site: &Site<'_>,
        parts: Vec<Part>,
        _offset: Offset,
    ) -> Result<Box<dyn Adapter>, AdaptError> {
        let shape = site.base.shape();
        let mut stored = Stored::new(&CARD, parts);
        let change = Var::new(stored.take("delta", &shape)?, shape, site.device);
        stored.finish()?;
        Ok(Box::new(FullAdapter { change }))
    }
}

struct FullAdapter {
    change: Var,
}

impl Adapter for FullAdapter {
    fn effect<'a>(&'a self, _layer: Layer<'a>, _x: &'a Tensor<2>) -> Effect<'a> {
        Effect::Dense(self.change.tensor())
    }

    fn delta(&self, _base: &Matrix) -> Vec<f32> {
        self.change.values()
    }

    fn trainable(&self) -> Vec<(&'static str, Var)> {
        vec![("delta", self.change.clone())]
    }

    fn parts(&self) -> Vec<Part> {
        vec![Part::new("delta", &self.change.shape(), self.change.values())]
    }
}
