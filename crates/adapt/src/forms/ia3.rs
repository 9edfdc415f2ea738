//! `y = (x Wᵀ + b) ⊙ l` with a trained scale l of each output, or `y = (x ⊙ l) Wᵀ + b` with one of each input.
//!
//! The weight becomes `diag(l) W`, and the bias `l ⊙ b`, or `W diag(l)`. As PEFT writes it: the scale is `[out, 1]` on
//! outputs and `[1, in]` on the inputs of feed-forward layers, and begins with ones.
//!
//! Source: Liu et al., "Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context Learning", 2022,
//! section 3.3; PEFT's `tuners/ia3`.

use lowrank_record::{Card, Choice, Kind, Named, Options, Promise, Source};
use lowrank_tensor::{Matrix, Tensor, Var};

use crate::form::{Adapter, Effect, Form, Layer, Offset, Site, Start, Takes};
use crate::part::Stored;
use crate::{AdaptError, Footprint, Part};

/// A trained scale of each output, or of each input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ia3 {
    /// What is scaled.
    pub on: On,
}

/// The side of the layer that is scaled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    /// The outputs, bias included.
    Output,
    /// The inputs: PEFT's feed-forward layers.
    Input,
}

impl Named for On {
    const NAMES: &'static [(&'static str, Self)] = &[("output", On::Output), ("input", On::Input)];
}

static CARD: Card = Card {
    name: "ia3",
    kind: Kind::Form,
    summary: "diag(l)·W, or W·diag(l), with one trained scale of each output or input",
    source: Source {
        authors: "Liu et al.",
        title: "Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context Learning",
        year: 2022,
        link: "https://arxiv.org/abs/2205.05638",
    },
    needs: &[],
    promise: Promise::Zero,
    choices: &[Choice {
        name: "on",
        default: "output",
        values: "output | input",
        meaning: "scales the layer's outputs (keys and values) or its inputs (the second layer of a feed-forward block)",
    }],
    notes: &[
        "rank and scale play no part: alpha is not applied, as in PEFT",
        "on outputs the bias is scaled too, as in PEFT",
        "unmerging returns the weight bit for bit; PEFT divides by the scale",
    ],
};

impl Ia3 {
    /// On outputs.
    pub const DEFAULT: Ia3 = Ia3 { on: On::Output };

    fn shape(&self, [out, inp]: [usize; 2]) -> [usize; 2] {
        match self.on {
            On::Output => [out, 1],
            On::Input => [1, inp],
        }
    }
}

impl Form for Ia3 {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        vec![("on", self.on.name().to_owned())]
    }

    fn configure(&self, options: &Options) -> Result<Box<dyn Form>, AdaptError> {
        Ok(Box::new(Ia3 { on: options.named("on")? }))
    }

    fn takes(&self) -> Takes {
        Takes::Nothing
    }

    fn footprint(&self, shape: [usize; 2], _rank: usize, _offset: Offset) -> Footprint {
        let [rows, cols] = self.shape(shape);
        let trained = rows * cols;
        let keeps_inputs = self.on == On::Input;
        Footprint { trained, keeps_inputs, kept: trained, products: trained, ..Footprint::default() }
    }

    fn build(&self, site: &Site<'_>, start: Option<Start>) -> Result<Box<dyn Adapter>, AdaptError> {
        Start::none(&CARD, start.as_ref())?;
        let shape = self.shape(site.base.shape());
        let scale = Var::new(vec![1.0; shape[0] * shape[1]], shape, site.device);
        Ok(Box::new(Ia3Adapter { on: self.on, scale }))
    }

    fn restore(
        &self,
        site: &Site<'_>,
        parts: Vec<Part>,
        _offset: Offset,
    ) -> Result<Box<dyn Adapter>, AdaptError> {
        let shape = self.shape(site.base.shape());
        let mut stored = Stored::new(&CARD, parts);
        let scale = Var::new(stored.take("scale", &shape)?, shape, site.device);
        stored.finish()?;
        Ok(Box::new(Ia3Adapter { on: self.on, scale }))
    }
}

struct Ia3Adapter {
    on: On,
    /// `[out, 1]` or `[1, in]`.
    scale: Var,
}

impl Adapter for Ia3Adapter {
    fn effect<'a>(&'a self, _layer: Layer<'a>, x: &'a Tensor<2>) -> Effect<'a> {
        let scale = self.scale.tensor();
        match self.on {
            On::Input => Effect::Input { input: x.clone() * scale, scale: None },
            On::Output => {
                Effect::Output(Box::new(move |product| product.clone() * (scale.transpose() - 1.0)))
            }
        }
    }

    fn delta(&self, base: &Matrix) -> Vec<f32> {
        let (mut values, scale, [_, inp]) = (base.to_f32(), self.scale.values(), base.shape());
        for (at, value) in values.iter_mut().enumerate() {
            *value *= scale[if self.on == On::Output { at / inp } else { at % inp }] - 1.0;
        }
        values
    }

    fn bias_delta(&self, bias: &Matrix) -> Option<Vec<f32>> {
        let scaled = |(bias, scale): (f32, f32)| bias * (scale - 1.0);
        (self.on == On::Output)
            .then(|| bias.to_f32().into_iter().zip(self.scale.values()).map(scaled).collect())
    }

    fn trainable(&self) -> Vec<(&'static str, Var)> {
        vec![("scale", self.scale.clone())]
    }

    fn parts(&self) -> Vec<Part> {
        vec![Part::new("scale", &self.scale.shape(), self.scale.values())]
    }
}
