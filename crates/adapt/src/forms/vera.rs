//! `y = x Wᵀ + λ_b ⊙ ((λ_d ⊙ (x rightᵀ)) leftᵀ)` with random frozen factors that all sites share, and two trained vectors.
//!
//! The factors are drawn once, at the largest shape and rank over all sites, and sliced: `right [r, in]` takes the first rows and
//! columns of `[max r, max in]`, `left [out, r]` those of `[max out, max r]`, both Kaiming-uniform with a bound of √(6/fan) as in
//! PEFT. A site of a smaller rank is then one of the largest rank whose last λ_d are zero.
//! λ_b `[1, out]` begins with zeros, λ_d `[1, r]` with a constant. `right` is frozen, so the fused product keeps `x rightᵀ`
//! `[n, r]` for the backward and not x.
//!
//! Source: Kopiczko et al., "VeRA: Vector-based Random Matrix Adaptation", 2023; PEFT's `tuners/vera`.

use lowrank_record::{Card, Choice, Kind, Options, Promise, Source};
use lowrank_tensor::{Matrix, Tensor, Var};

use crate::form::{Adapter, Effect, Form, Layer, LowRankPath, Offset, Site, Start, Takes};
use crate::part::{Held, Stored};
use crate::{AdaptError, Footprint, Part};

/// Two trained vectors on random factors that all sites share.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Vera {
    /// What λ_d begins with.
    pub d_initial: f64,
}

static CARD: Card = Card {
    name: "vera",
    kind: Kind::Form,
    summary: "W + diag(b)·left·diag(d)·right with vectors b and d trained on random factors that all sites share",
    source: Source {
        authors: "Kopiczko et al.",
        title: "VeRA: Vector-based Random Matrix Adaptation",
        year: 2023,
        link: "https://arxiv.org/abs/2310.11454",
    },
    needs: &[],
    promise: Promise::Zero,
    choices: &[Choice {
        name: "d-initial",
        default: "0.1",
        values: "a number above 0",
        meaning: "what the vector d begins with; b begins with zeros",
    }],
    notes: &[
        "the scale plays no part: alpha is not applied, as in PEFT",
        "the factors are drawn from the run's seed, not by torch's generator: files hold them (save_projection = true in PEFT)",
        "sites of all shapes and ranks share one pair of factors; PEFT has one rank for all, so that a file has the largest, with \
         zeros in the d of a site of a smaller one",
        "a site holds its slice of the shared factors in memory, as an adapter of LoRA would",
    ],
};

impl Vera {
    /// As in PEFT.
    pub const DEFAULT: Vera = Vera { d_initial: 0.1 };
}

impl Form for Vera {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        vec![("d-initial", self.d_initial.to_string())]
    }

    fn configure(&self, options: &Options) -> Result<Box<dyn Form>, AdaptError> {
        Ok(Box::new(Vera { d_initial: options.positive("d-initial")? }))
    }

    fn takes(&self) -> Takes {
        Takes::Nothing
    }

    fn footprint(&self, shape: [usize; 2], rank: usize, _offset: Offset) -> Footprint {
        let [out, inp] = shape;
        let frozen = rank * (out + inp);
        Footprint { trained: out + rank, frozen, once: rank * out, ..Footprint::path(shape, rank) }
    }

    fn build(&self, site: &Site<'_>, start: Option<Start>) -> Result<Box<dyn Adapter>, AdaptError> {
        Start::none(&CARD, start.as_ref())?;
        let ([out, inp], rank, device) = (site.base.shape(), site.rank, site.device);
        if rank == 0 {
            return Err(AdaptError::Rank);
        }
        let [widest_out, widest_in, most] =
            [site.largest[0].max(out), site.largest[1].max(inp), site.largest[2].max(rank)];
        let draw = |part: &str, [rows, cols]: [usize; 2], fan: usize| {
            site.seed.at("vera", part).uniform(rows * cols, (6.0 / fan as f32).sqrt())
        };
        // The corner that fits the layer: the first rows and columns.
        let corner = |whole: Vec<f32>, width: usize, [rows, cols]: [usize; 2]| -> Vec<f32> {
            whole.chunks_exact(width).take(rows).flat_map(|row| &row[..cols]).copied().collect()
        };
        let right = corner(draw("right", [most, widest_in], widest_in), widest_in, [rank, inp]);
        let left = corner(draw("left", [widest_out, most], most), most, [out, rank]);
        Ok(Box::new(VeraAdapter {
            output: Var::new(vec![0.0; out], [1, out], device),
            hidden: Var::new(vec![self.d_initial as f32; rank], [1, rank], device),
            right: Held::new(right, [rank, inp], device, false),
            left: Held::new(left, [out, rank], device, false),
        }))
    }

    fn restore(
        &self,
        site: &Site<'_>,
        parts: Vec<Part>,
        _offset: Offset,
    ) -> Result<Box<dyn Adapter>, AdaptError> {
        let ([out, inp], device) = (site.base.shape(), site.device);
        let mut stored = Stored::new(&CARD, parts);
        let rank = stored.rank("right", 0)?;
        let adapter = VeraAdapter {
            output: Var::new(stored.take("lambda_b", &[1, out])?, [1, out], device),
            hidden: Var::new(stored.take("lambda_d", &[1, rank])?, [1, rank], device),
            right: Held::new(stored.take("right", &[rank, inp])?, [rank, inp], device, false),
            left: Held::new(stored.take("left", &[out, rank])?, [out, rank], device, false),
        };
        stored.finish()?;
        Ok(Box::new(adapter))
    }
}

struct VeraAdapter {
    /// λ_b `[1, out]`.
    output: Var,
    /// λ_d `[1, r]`.
    hidden: Var,
    right: Held,
    left: Held,
}

impl VeraAdapter {
    fn path(&self) -> LowRankPath {
        let left = self.left.tensor() * self.output.tensor().transpose() * self.hidden.tensor();
        LowRankPath { left, right: self.right.tensor() }
    }
}

impl Adapter for VeraAdapter {
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
        vec![("lambda_b", self.output.clone()), ("lambda_d", self.hidden.clone())]
    }

    fn parts(&self) -> Vec<Part> {
        let of = |name, var: &Var| Part::new(name, &var.shape(), var.values());
        let vectors = [of("lambda_b", &self.output), of("lambda_d", &self.hidden)];
        vectors.into_iter().chain([self.right.part("right"), self.left.part("left")]).collect()
    }
}
