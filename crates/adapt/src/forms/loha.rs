//! `W + s·(w1_a w1_b) ⊙ (w2_a w2_b)`: the elementwise product of two low-rank matrices, of rank up to r².
//!
//! It is exactly a low-rank change of rank r², whose factors are the products of all pairs of columns and of rows. That
//! path is run where it is cheaper than the `[out, in]` change, `r²·(out + in) ≤ out·in`; above that the change is formed,
//! as PEFT does always.
//!
//! Sources: Hyeon-Woo et al., "FedPara: Low-Rank Hadamard Product for Communication-Efficient Federated Learning", 2021;
//! PEFT's `tuners/loha`.

use lowrank_record::{Card, Kind, Options, Promise, Source};
use lowrank_tensor::{Matrix, Tensor, Var};

use crate::form::{Adapter, Effect, Form, Layer, LowRankPath, Offset, Site, Start, Takes};
use crate::part::Stored;
use crate::{AdaptError, Footprint, Part};

/// An elementwise product of two low-rank matrices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loha;

static CARD: Card = Card {
    name: "loha",
    kind: Kind::Form,
    summary: "W + s·(w1_a·w1_b)*(w2_a·w2_b), elementwise, with all four factors trained",
    source: Source {
        authors: "Hyeon-Woo et al.",
        title: "FedPara: Low-Rank Hadamard Product for Communication-Efficient Federated Learning",
        year: 2021,
        link: "https://arxiv.org/abs/2108.06098",
    },
    needs: &[],
    promise: Promise::Zero,
    choices: &[],
    notes: &[
        "the scale is alpha/r, as in PEFT, or alpha/sqrt(r) if rank-stabilised, which PEFT does not offer here",
        "w2_b begins with zeros and the others with U(-1/sqrt(fan), 1/sqrt(fan)), as in PEFT; LyCORIS draws from normal \
         distributions",
        "run as a low-rank path of rank r² where that is cheaper than the [out, in] change; it exports as plain LoRA of rank \
         r²",
    ],
};

/// Names, in PEFT's order; `_a` is `[out, r]`, `_b` is `[r, in]`.
const NAMES: [&str; 4] = ["w1_a", "w1_b", "w2_a", "w2_b"];

fn shapes([out, inp]: [usize; 2], rank: usize) -> [[usize; 2]; 4] {
    [[out, rank], [rank, inp], [out, rank], [rank, inp]]
}

/// Whether the low-rank path of rank r² is cheaper than the change itself.
fn runs_as_path([out, inp]: [usize; 2], rank: usize) -> bool {
    rank * rank * (out + inp) <= out * inp
}

impl Form for Loha {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn configure(&self, _options: &Options) -> Result<Box<dyn Form>, AdaptError> {
        Ok(Box::new(Loha))
    }

    fn takes(&self) -> Takes {
        Takes::Nothing
    }

    fn footprint(&self, shape: [usize; 2], rank: usize, _offset: Offset) -> Footprint {
        let [out, inp] = shape;
        let (trained, squared) = (2 * rank * (out + inp), rank * rank);
        if runs_as_path(shape, rank) {
            let formed = 2 * squared * (out + inp);
            return Footprint {
                trained,
                keeps_inputs: true,
                formed,
                once: formed,
                ..Footprint::path(shape, squared)
            };
        }
        Footprint { trained, once: 2 * rank * out * inp, ..Footprint::dense(shape, 7) }
    }

    fn build(&self, site: &Site<'_>, start: Option<Start>) -> Result<Box<dyn Adapter>, AdaptError> {
        Start::none(&CARD, start.as_ref())?;
        if site.rank == 0 {
            return Err(AdaptError::Rank);
        }
        let mut index = 0;
        let factors = shapes(site.base.shape(), site.rank).map(|shape @ [rows, cols]| {
            let name = NAMES[index];
            index += 1;
            let bound = if name == "w2_b" { 0.0 } else { 1.0 / (cols as f32).sqrt() };
            Var::new(site.draws(name).uniform(rows * cols, bound), shape, site.device)
        });
        Ok(Box::new(LohaAdapter { factors, scale: site.scale }))
    }

    fn restore(
        &self,
        site: &Site<'_>,
        parts: Vec<Part>,
        _offset: Offset,
    ) -> Result<Box<dyn Adapter>, AdaptError> {
        let mut stored = Stored::new(&CARD, parts);
        let rank = stored.rank("w1_a", 1)?;
        let [a, b, c, d] = shapes(site.base.shape(), rank);
        let mut take = |name, shape: [usize; 2]| {
            stored.take(name, &shape).map(|values| Var::new(values, shape, site.device))
        };
        let factors = [take("w1_a", a)?, take("w1_b", b)?, take("w2_a", c)?, take("w2_b", d)?];
        stored.finish()?;
        Ok(Box::new(LohaAdapter { factors, scale: site.scale }))
    }
}

struct LohaAdapter {
    /// As [`NAMES`] orders them.
    factors: [Var; 4],
    scale: f64,
}

impl LohaAdapter {
    fn path(&self) -> LowRankPath {
        let [left1, right1, left2, right2] = self.factors.each_ref().map(Var::tensor);
        let ([out, rank], [_, inp]) = (left1.dims(), right1.dims());
        // Column (p, q) of the left factor is column p of the first times column q of the second; rows likewise.
        let left = left1.reshape([out, rank, 1]) * left2.reshape([out, 1, rank]);
        let right = right1.reshape([rank, 1, inp]) * right2.reshape([1, rank, inp]);
        LowRankPath {
            left: left.reshape([out, rank * rank]) * self.scale,
            right: right.reshape([rank * rank, inp]),
        }
    }

    fn change(&self) -> Tensor<2> {
        let [left1, right1, left2, right2] = self.factors.each_ref().map(Var::tensor);
        left1.matmul(right1) * left2.matmul(right2) * self.scale
    }
}

impl Adapter for LohaAdapter {
    fn effect<'a>(&'a self, layer: Layer<'a>, _x: &'a Tensor<2>) -> Effect<'a> {
        let [_, rank] = self.factors[0].shape();
        if runs_as_path(layer.base.shape(), rank) {
            Effect::LowRank(self.path())
        } else {
            Effect::Dense(self.change())
        }
    }

    fn low_rank(&self) -> Option<LowRankPath> {
        Some(self.path())
    }

    fn delta(&self, _base: &Matrix) -> Vec<f32> {
        lowrank_tensor::to_rows(self.change())
    }

    fn trainable(&self) -> Vec<(&'static str, Var)> {
        NAMES.into_iter().zip(self.factors.iter().cloned()).collect()
    }

    fn parts(&self) -> Vec<Part> {
        let part = |(name, var): (&str, &Var)| Part::new(name, &var.shape(), var.values());
        NAMES.into_iter().zip(&self.factors).map(part).collect()
    }
}
