//! `y = x (W + Δ)ᵀ + b + β` with every entry of Δ `[out, in]`, and of β `[1, out]` where that is asked for, trained from zero.
//!
//! For a few chosen layers beside adapted ones, and as the reference that low-rank changes are measured against. The
//! weight stays as it is stored and Δ is f32, so that adapter off means base.

use lowrank_record::{Card, Choice, Kind, Named, Options, Promise, Source};
use lowrank_tensor::{Matrix, Tensor, Var, ops};

use crate::form::{Adapter, Effect, Form, Layer, Offset, Site, Start, Takes, as_used};
use crate::part::Stored;
use crate::{AdaptError, Footprint, Part, Reach};

/// A change without a structure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full {
    /// Whether the bias of the layer is trained too.
    pub bias: bool,
}

impl Full {
    /// The weight alone.
    pub const DEFAULT: Full = Full { bias: false };
}

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
    choices: &[Choice {
        name: "bias",
        default: "false",
        values: "true | false",
        meaning: "trains the bias of the layer too, where it has one",
    }],
    notes: &[
        "rank and scale play no part: alpha is not applied",
        "takes the memory of a full copy of the weight, and of its optimiser state",
    ],
};

impl Form for Full {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        vec![("bias", self.bias.name().to_owned())]
    }

    fn configure(&self, options: &Options) -> Result<Box<dyn Form>, AdaptError> {
        Ok(Box::new(Full { bias: options.named("bias")? }))
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
        let bias = self.bias.then(|| Var::new(vec![0.0; shape[0]], [1, shape[0]], site.device));
        Ok(Box::new(FullAdapter { change, bias }))
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
        let bias = match self.bias {
            true => Some(Var::new(stored.take("bias", &[1, shape[0]])?, [1, shape[0]], site.device)),
            false => None,
        };
        stored.finish()?;
        Ok(Box::new(FullAdapter { change, bias }))
    }
}

struct FullAdapter {
    change: Var,
    bias: Option<Var>,
}

impl Adapter for FullAdapter {
    fn effect<'a>(&'a self, layer: Layer<'a>, x: &'a Tensor<2>) -> Effect<'a> {
        // A layer without a bias has none to change.
        match self.bias.as_ref().filter(|_| layer.bias.is_some()) {
            None => Effect::Dense(self.change.tensor()),
            Some(bias) => {
                let added = ops::dense(x.clone(), as_used(self.change.tensor(), x));
                Effect::Added(added + as_used(bias.tensor(), x))
            }
        }
    }

    fn delta(&self, _base: &Matrix) -> Vec<f32> {
        self.change.values()
    }

    fn bias_delta(&self, _bias: &Matrix) -> Option<Vec<f32>> {
        self.bias.as_ref().map(Var::values)
    }

    fn trainable(&self) -> Vec<(&'static str, Var)> {
        let bias = self.bias.iter().map(|bias| ("bias", bias.clone()));
        [("delta", self.change.clone())].into_iter().chain(bias).collect()
    }

    fn parts(&self) -> Vec<Part> {
        let part =
            |(name, variable): (&'static str, Var)| Part::new(name, &variable.shape(), variable.values());
        self.trainable().into_iter().map(part).collect()
    }
}
