//! `y = (x R) Wᵀ + b` with R block-diagonal and orthogonal: the inputs are turned block by block, and nothing is added.
//!
//! Each block `[b, b]` is the Cayley transform of a skew-symmetric matrix whose entries above the diagonal are trained, a
//! row `[b(b−1)/2]` for each block, as PEFT stores them. `cayley = neumann` takes PEFT's series, which is orthogonal only
//! for small angles and needs no inverse; `exact` solves for it. With zeros R is the identity. `x R` takes `in·b`
//! multiplications a token.
//!
//! Sources: Qiu et al., "Controlling Text-to-Image Diffusion by Orthogonal Finetuning", 2023; Qiu et al., "Orthogonal
//! Finetuning Made Scalable", 2025 (inputs turned in place of the weight, the series); PEFT's `tuners/oft`.

use lowrank_record::{Card, Choice, Kind, Named, Options, Promise, Source};
use lowrank_tensor::{Matrix, Tensor, Var, ops, to_rows};

use super::rotation::{cayley, neumann, rotate, skew};
use crate::form::{Adapter, Effect, Form, Layer, Offset, Site, Start, Takes, as_used};
use crate::part::Stored;
use crate::{AdaptError, Footprint, Part};

/// An orthogonal turn of the inputs, block by block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Oft {
    /// The size b of a block.
    pub block_size: usize,
    /// Whether one block serves all.
    pub share: bool,
    /// How the rotation is made of what is trained.
    pub cayley: Cayley,
    /// The terms of the series.
    pub terms: usize,
}

/// How a rotation is made of a skew-symmetric matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cayley {
    /// By a few terms of Neumann's series.
    Neumann,
    /// By an inverse.
    Exact,
}

impl Named for Cayley {
    const NAMES: &'static [(&'static str, Self)] = &[("neumann", Cayley::Neumann), ("exact", Cayley::Exact)];
}

static CARD: Card = Card {
    name: "oft",
    kind: Kind::Form,
    summary: "W·R' with R block-diagonal and orthogonal, the Cayley transform of trained skew-symmetric blocks",
    source: Source {
        authors: "Qiu et al.",
        title: "Controlling Text-to-Image Diffusion by Orthogonal Finetuning",
        year: 2023,
        link: "https://arxiv.org/abs/2306.07280",
    },
    needs: &[],
    promise: Promise::Zero,
    choices: &[
        Choice {
            name: "block-size",
            default: "32",
            values: "a whole number from 2 to 1024",
            meaning: "inputs that are turned together; has to divide the layer's inputs; larger trains more",
        },
        Choice {
            name: "share",
            default: "false",
            values: "true | false",
            meaning: "one block serves all of a layer",
        },
        Choice {
            name: "cayley",
            default: "neumann",
            values: "neumann | exact",
            meaning: "PEFT's default series, orthogonal for small angles only, or the transform itself",
        },
        Choice {
            name: "terms",
            default: "5",
            values: "a whole number from 3 to 64",
            meaning: "terms of the series; more is nearer to orthogonal",
        },
    ],
    notes: &[
        "rank and scale play no part: alpha is not applied, as in PEFT",
        "a block size that does not divide the layer's inputs is refused; PEFT takes another one with a warning",
        "PEFT's series turns by the opposite angle of its exact transform: the same parameters are other rotations",
        "PEFT's constrained variant (coft) is not offered; three terms are four, as in PEFT",
    ],
};

impl Oft {
    /// As in PEFT.
    pub const DEFAULT: Oft = Oft { block_size: 32, share: false, cayley: Cayley::Neumann, terms: 5 };

    fn adapter(&self, entries: Var, size: usize) -> OftAdapter {
        OftAdapter { entries, size, cayley: self.cayley, terms: self.terms }
    }
}

/// The sizes near `wanted` that divide `inp`, for an error.
pub(super) fn fitting(inp: usize, wanted: usize) -> String {
    let below = (1..=wanted.min(inp)).rev().find(|size| inp.is_multiple_of(*size));
    let above = (wanted..=inp).find(|size| inp.is_multiple_of(*size));
    let sizes: Vec<String> = below.into_iter().chain(above).map(|size| size.to_string()).collect();
    format!("it has to divide the {inp} inputs; {} would", sizes.join(" or "))
}

impl Form for Oft {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        vec![
            ("block-size", self.block_size.to_string()),
            ("share", self.share.name().to_owned()),
            ("cayley", self.cayley.name().to_owned()),
            ("terms", self.terms.to_string()),
        ]
    }

    fn configure(&self, options: &Options) -> Result<Box<dyn Form>, AdaptError> {
        let at_least = |name, least: usize, most| {
            let count = options.count(name, most)?;
            if count < least { Err(AdaptError::from(options.bad(name))) } else { Ok(count) }
        };
        Ok(Box::new(Oft {
            block_size: at_least("block-size", 2, 1024)?,
            share: options.named("share")?,
            cayley: options.named("cayley")?,
            terms: at_least("terms", 3, 64)?,
        }))
    }

    fn takes(&self) -> Takes {
        Takes::Nothing
    }

    fn footprint(&self, shape: [usize; 2], _rank: usize, _offset: Offset) -> Footprint {
        let ([_, inp], size) = (shape, self.block_size);
        // A block size that does not divide the inputs is refused when the form is built.
        let blocks = if self.share { 1 } else { inp / size.max(1) };
        let values = blocks * size * size;
        let trained = blocks * (size * size.saturating_sub(1) / 2);
        let turns = if self.cayley == Cayley::Exact { 4 } else { self.terms };
        let (formed, once) = (2 * turns * values, turns * values * size);
        // The inputs are kept for the rotation; turned, the product with the frozen weight does not need them.
        Footprint { trained, keeps_inputs: true, formed, products: inp * size, once, ..Footprint::default() }
    }

    fn build(&self, site: &Site<'_>, start: Option<Start>) -> Result<Box<dyn Adapter>, AdaptError> {
        Start::none(&CARD, start.as_ref())?;
        let ([out, inp], size) = (site.base.shape(), self.block_size);
        if !inp.is_multiple_of(size) {
            let (form, choice, hint) = (CARD.name, "block-size", fitting(inp, size));
            return Err(AdaptError::Fit { form, choice, value: size, out, inp, hint });
        }
        let shape = [if self.share { 1 } else { inp / size }, size * (size - 1) / 2];
        Ok(Box::new(self.adapter(Var::new(vec![0.0; shape[0] * shape[1]], shape, site.device), size)))
    }

    /// The block size is that of the stored part, which may have been made with another.
    fn restore(
        &self,
        site: &Site<'_>,
        parts: Vec<Part>,
        _offset: Offset,
    ) -> Result<Box<dyn Adapter>, AdaptError> {
        let [_, inp] = site.base.shape();
        let mut stored = Stored::new(&CARD, parts);
        let shape @ [blocks, entries] = stored.matrix("rotation")?;
        let size = (2..=inp).find(|size| size * (size - 1) / 2 >= entries).unwrap_or(2);
        let wanted = [if self.share { 1 } else { inp / size }, size * (size - 1) / 2];
        if !inp.is_multiple_of(size) || [blocks, entries] != wanted {
            return Err(AdaptError::PartShape {
                form: CARD.name,
                part: "rotation",
                found: shape.to_vec(),
                values: blocks * entries,
                wanted: format!(
                    "[blocks, b(b-1)/2] with blocks of b that make up the {inp} inputs (one, if shared)"
                ),
            });
        }
        let values = stored.take("rotation", &shape)?;
        stored.finish()?;
        Ok(Box::new(self.adapter(Var::new(values, shape, site.device), size)))
    }
}

struct OftAdapter {
    /// `[blocks, b(b−1)/2]`.
    entries: Var,
    size: usize,
    cayley: Cayley,
    terms: usize,
}

impl OftAdapter {
    /// `[blocks, b, b]`.
    fn rotation(&self, entries: Tensor<2>) -> Tensor<3> {
        let skew = skew(entries, self.size);
        match self.cayley {
            Cayley::Neumann => neumann(skew, self.terms),
            Cayley::Exact => cayley(skew),
        }
    }
}

impl Adapter for OftAdapter {
    fn effect<'a>(&'a self, _layer: Layer<'a>, x: &'a Tensor<2>) -> Effect<'a> {
        let rotation = self.rotation(as_used(self.entries.tensor(), x));
        Effect::Input { input: rotate(x.clone(), rotation), scale: None }
    }

    fn delta(&self, base: &Matrix) -> Vec<f32> {
        let entries = self.entries.tensor().inner();
        let weight = ops::composed::widen(base, &entries.device());
        let rotation = self.rotation(entries).swap_dims(1, 2);
        // x R Wᵀ = x (W Rᵀ)ᵀ.
        to_rows(rotate(weight.clone(), rotation) - weight)
    }

    fn trainable(&self) -> Vec<(&'static str, Var)> {
        vec![("rotation", self.entries.clone())]
    }

    fn parts(&self) -> Vec<Part> {
        vec![Part::new("rotation", &self.entries.shape(), self.entries.values())]
    }
}
