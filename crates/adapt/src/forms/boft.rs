//! `y = ((x M) Wᵀ) ⊙ l + b` with M a product of butterflies and a trained scale l of each output.
//!
//! Factor i of M is `Pᵢ Bᵢ Pᵢᵀ`: Bᵢ block-diagonal and orthogonal, the exact Cayley transforms of `½(D − Dᵀ)` for trained
//! blocks D `[b, b]`, and Pᵢ a permutation that brings inputs 2ⁱ half-blocks apart together. With one factor the
//! permutation is the identity. Nothing `[in, in]` is formed: each factor is two gathers and a product of blocks, `in·b`
//! multiplications a token. With zeros for D and ones for l the layer is unchanged.
//!
//! Source: Liu et al., "Parameter-Efficient Orthogonal Finetuning via Butterfly Factorization", 2023; PEFT's `tuners/boft`.

use lowrank_record::{Card, Choice, Kind, Options, Promise, Source};
use lowrank_tensor::{Device, Int, Matrix, Tensor, TensorData, Var, ops, to_rows};

use super::oft::fitting;
use super::rotation::{cayley, rotate};
use crate::form::{Adapter, Effect, Form, Layer, Offset, Site, Start, Takes, as_used};
use crate::part::Stored;
use crate::{AdaptError, Footprint, Part};

/// Orthogonal butterflies on the inputs, and a scale of each output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Boft {
    /// The size b of a block.
    pub block_size: usize,
    /// The number of butterflies.
    pub factors: usize,
}

static CARD: Card = Card {
    name: "boft",
    kind: Kind::Form,
    summary: "diag(l)·W·M' with M a product of orthogonal butterflies and a trained scale l of each output",
    source: Source {
        authors: "Liu et al.",
        title: "Parameter-Efficient Orthogonal Finetuning via Butterfly Factorization",
        year: 2023,
        link: "https://arxiv.org/abs/2311.06243",
    },
    needs: &[],
    promise: Promise::Zero,
    choices: &[
        Choice {
            name: "block-size",
            default: "4",
            values: "a whole number from 2 to 1024",
            meaning: "inputs that are turned together by one butterfly; has to divide the layer's inputs; larger trains more",
        },
        Choice {
            name: "factors",
            default: "1",
            values: "a whole number from 1 to 16",
            meaning: "butterflies: with m of them each input meets 2^(m-1) blocks",
        },
    ],
    notes: &[
        "rank and scale play no part: alpha is not applied, as in PEFT",
        "the bias is not scaled, as in PEFT",
        "PEFT makes several butterflies only where its CUDA kernel can be compiled, and one otherwise; here they are made \
         everywhere",
        "PEFT forms the [in, in] product of all butterflies in each forward",
    ],
};

impl Boft {
    /// As in PEFT.
    pub const DEFAULT: Boft = Boft { block_size: 4, factors: 1 };

    /// Whether blocks of this size, so many times, make up the inputs.
    fn fits([out, inp]: [usize; 2], size: usize, factors: usize) -> Result<(), AdaptError> {
        let refused =
            |choice, value, hint| Err(AdaptError::Fit { form: CARD.name, choice, value, out, inp, hint });
        if size == 0 || !inp.is_multiple_of(size) {
            return refused("block-size", size, fitting(inp, size.max(1)));
        }
        if factors > 1 && !size.is_multiple_of(2) {
            return refused(
                "block-size",
                size,
                "several butterflies exchange half blocks; take an even one".to_owned(),
            );
        }
        let span = 1_usize.checked_shl((factors - 1) as u32).and_then(|times| size.checked_mul(times));
        if !span.is_some_and(|span| inp.is_multiple_of(span)) {
            let hint = format!("block-size·2^(factors-1) has to divide the {inp} inputs; take fewer factors");
            return refused("factors", factors, hint);
        }
        Ok(())
    }

    fn adapter(
        blocks: Vec<f32>,
        scale: Vec<f32>,
        site: &Site<'_>,
        size: usize,
        factors: usize,
    ) -> BoftAdapter {
        let [out, inp] = site.base.shape();
        BoftAdapter {
            blocks: Var::new(blocks, [factors * inp, size], site.device),
            scale: Var::new(scale, [out, 1], site.device),
            size,
            orders: (0..factors).map(|index| Order::of(inp, size, factors, index, site.device)).collect(),
        }
    }
}

impl Form for Boft {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        vec![("block-size", self.block_size.to_string()), ("factors", self.factors.to_string())]
    }

    fn configure(&self, options: &Options) -> Result<Box<dyn Form>, AdaptError> {
        let at_least = |name, least: usize, most| {
            let count = options.count(name, most)?;
            if count < least { Err(AdaptError::from(options.bad(name))) } else { Ok(count) }
        };
        Ok(Box::new(Boft {
            block_size: at_least("block-size", 2, 1024)?,
            factors: at_least("factors", 1, 16)?,
        }))
    }

    fn takes(&self) -> Takes {
        Takes::Nothing
    }

    fn footprint(&self, shape: [usize; 2], _rank: usize, _offset: Offset) -> Footprint {
        let ([out, inp], size, factors) = (shape, self.block_size, self.factors);
        let values = factors * inp * size;
        let (formed, once) = (10 * values, 4 * values * size);
        // The product for its scale; what each butterfly but the first turns, gathered before and after where there are several.
        let kept = out + 2 * (factors - 1) * inp;
        let (trained, products) = (values + out, values + out);
        Footprint { trained, keeps_inputs: true, kept, formed, products, once, ..Footprint::default() }
    }

    fn build(&self, site: &Site<'_>, start: Option<Start>) -> Result<Box<dyn Adapter>, AdaptError> {
        Start::none(&CARD, start.as_ref())?;
        let (shape @ [out, inp], size, factors) = (site.base.shape(), self.block_size, self.factors);
        Boft::fits(shape, size, factors)?;
        let blocks = vec![0.0; factors * inp * size];
        Ok(Box::new(Boft::adapter(blocks, vec![1.0; out], site, size, factors)))
    }

    /// Block size and number of butterflies are those of the stored part, which may have been made with others.
    fn restore(
        &self,
        site: &Site<'_>,
        parts: Vec<Part>,
        _offset: Offset,
    ) -> Result<Box<dyn Adapter>, AdaptError> {
        let [out, inp] = site.base.shape();
        let mut stored = Stored::new(&CARD, parts);
        let found = stored.shape("rotation")?.to_vec();
        let (factors, size) = match *found {
            [factors, blocks, size, again]
                if size == again
                    && factors > 0
                    && blocks.checked_mul(size) == Some(inp)
                    && Boft::fits([out, inp], size, factors).is_ok() =>
            {
                (factors, size)
            }
            _ => {
                return Err(AdaptError::PartShape {
                    form: CARD.name,
                    part: "rotation",
                    values: found.iter().product(),
                    found,
                    wanted: format!(
                        "[butterflies, blocks, b, b] with blocks of b that make up the {inp} inputs"
                    ),
                });
            }
        };
        let blocks = stored.take("rotation", &found)?;
        let scale = stored.take("scale", &[out, 1])?;
        stored.finish()?;
        Ok(Box::new(Boft::adapter(blocks, scale, site, size, factors)))
    }
}

/// The permutation P of one butterfly, as gathers of columns; none for the identity.
struct Order(Option<[Tensor<1, Int>; 2]>);

impl Order {
    fn of(inp: usize, size: usize, factors: usize, index: usize, device: &Device) -> Order {
        if factors == 1 {
            return Order(None);
        }
        // Within each span of 2ⁱ blocks: the half blocks at even places first, then those at odd places.
        let (span, half) = (size << index, size / 2);
        let places = span / half;
        let order: Vec<usize> = (0..inp)
            .map(|at| {
                let (place, within) = (at % span / half, at % half);
                let first = places.div_ceil(2);
                let place = if place < first { 2 * place } else { 2 * (place - first) + 1 };
                at / span * span + place * half + within
            })
            .collect();
        let mut back = vec![0; inp];
        order.iter().enumerate().for_each(|(at, &from)| back[from] = at);
        let tensor = |order: Vec<usize>| {
            let order: Vec<i64> = order.into_iter().map(|at| at as i64).collect();
            Tensor::<1, Int>::from_data(TensorData::new(order, [inp]), device)
        };
        Order(Some([tensor(order), tensor(back)]))
    }

    /// `x · P B Pᵀ`.
    fn turn(&self, x: Tensor<2>, blocks: Tensor<3>) -> Tensor<2> {
        match &self.0 {
            None => rotate(x, blocks),
            Some([order, back]) => rotate(x.select(1, back.clone()), blocks).select(1, order.clone()),
        }
    }
}

struct BoftAdapter {
    /// `[butterflies · blocks · b, b]`.
    blocks: Var,
    /// `[out, 1]`.
    scale: Var,
    size: usize,
    orders: Vec<Order>,
}

impl BoftAdapter {
    /// The rotations of each butterfly, `[blocks, b, b]`.
    fn rotations(&self, blocks: Tensor<2>) -> Vec<Tensor<3>> {
        let [rows, size] = blocks.dims();
        let blocks = blocks.reshape([rows / size, size, size]);
        let rotations = cayley((blocks.clone() - blocks.swap_dims(1, 2)) * 0.5);
        rotations.chunk(self.orders.len(), 0)
    }
}

impl Adapter for BoftAdapter {
    fn effect<'a>(&'a self, _layer: Layer<'a>, x: &'a Tensor<2>) -> Effect<'a> {
        let rotations = self.rotations(as_used(self.blocks.tensor(), x));
        // M is the last butterfly times … times the first, so the last turns x first.
        let turns = self.orders.iter().zip(rotations).rev();
        let input = turns.fold(x.clone(), |x, (order, rotation)| order.turn(x, rotation));
        Effect::Input { input, scale: Some(self.scale.tensor().transpose()) }
    }

    fn delta(&self, base: &Matrix) -> Vec<f32> {
        let blocks = self.blocks.tensor().inner();
        let weight = ops::composed::widen(base, &blocks.device());
        // x M Wᵀ = x (W Mᵀ)ᵀ, and Mᵀ is the first butterfly's transpose times … times the last's.
        let turns = self.orders.iter().zip(self.rotations(blocks));
        let turned =
            turns.fold(weight.clone(), |w, (order, rotation)| order.turn(w, rotation.swap_dims(1, 2)));
        to_rows(turned * self.scale.tensor().inner() - weight)
    }

    fn trainable(&self) -> Vec<(&'static str, Var)> {
        vec![("rotation", self.blocks.clone()), ("scale", self.scale.clone())]
    }

    fn parts(&self) -> Vec<Part> {
        let ([rows, size], count) = (self.blocks.shape(), self.orders.len());
        let shape = [count, rows / self.size / count, size, size];
        vec![
            Part::new("rotation", &shape, self.blocks.values()),
            Part::new("scale", &self.scale.shape(), self.scale.values()),
        ]
    }
}
