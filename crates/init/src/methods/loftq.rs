//! The base becomes a quantised weight Q and `scale·left·right` the best rank-r approximation of what it lost, in turns: `Q ←
//! quantised(W − scale·left·right)`, `left, right ← best rank-r part of W − Q`, W `[out, in]`; both carry `√(σ/scale)`.
//!
//! Needs the weight; the function changes by what is lost in the end, which is reported and less than plain quantisation
//! loses.
//!
//! Source: Li, Yu, Liang, He, Karampatziakis, Chen, Zhao, "LoftQ: LoRA-Fine-Tuning-Aware Quantization for Large Language Models", 2023.
//! Where we differ from PEFT: it leaves out the scale, so that its start is right for alpha = r alone; the turn that lost least
//! is kept, where the paper keeps the last (quantising is no projection, so a turn may lose more than the one before).

use faer::Mat;
use lowrank_linalg::{LowRank, Sketch, energy, finite};
use lowrank_record::{Card, Choice, Kind, Need, Promise, Report, Seed, Source};

use crate::{
    Base, Evidence, Exactness, GradientMap, InitError, Initialiser, Leading, Named, Options, Quantiser, Site,
    Start,
};

/// What a quantised weight lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loftq {
    /// How the base is stored.
    pub quantiser: Quantiser,
    /// How many turns.
    pub iterations: usize,
    /// Exact or randomised.
    pub svd: Exactness,
}

static CARD: Card = Card {
    name: "loftq",
    kind: Kind::Initialiser,
    summary: "the base becomes a quantised weight, scale * left * right the best rank-r approximation of what it lost, in turns",
    source: Source {
        authors: "Li, Yu, Liang, He, Karampatziakis, Chen, Zhao",
        title: "LoftQ: LoRA-Fine-Tuning-Aware Quantization for Large Language Models",
        year: 2023,
        link: "https://arxiv.org/abs/2310.08659",
    },
    needs: &[Need::Weight],
    promise: Promise::Within(0.34),
    choices: &[
        Choice {
            name: "format",
            default: "nf4",
            values: "nf4 | q4-0 | q8-0",
            meaning: "how the base is stored: NF4, or GGUF's Q4_0 or Q8_0 (which need rows of whole blocks of 32)",
        },
        Choice {
            name: "block",
            default: "64",
            values: "a whole number from 2 to 4096",
            meaning: "of nf4: values that share a scale; fewer lose less and take more room",
        },
        Choice {
            name: "iterations",
            default: "5",
            values: "a whole number from 1 to 64",
            meaning: "turns of quantising and decomposing; the turn that lost least is kept",
        },
        Choice {
            name: "svd",
            default: "auto",
            values: "auto | exact | fast",
            meaning: "exact SVD, randomised SVD, or exact up to 128 on the shorter side and randomised above",
        },
    ],
    notes: &[
        "the new base is the dequantised weight in f32: whoever stores it quantised later must use the same format and block",
        "divided by the scale, which PEFT leaves out: its start is right for alpha = r without rank-stabilised scaling alone",
        "nf4 without a second quantisation of the scales; PEFT's default is one turn, the paper's five; PEFT needs bitsandbytes on an \
         accelerator, and its loop on the same table gives the same codes and subspaces (`tests/interop/starts.py`)",
        "the promise is what any weight keeps; the report says what this one lost",
    ],
};

/// Oversampled by as much again, and iterated: what quantisation loses has a flat spectrum.
fn leading(svd: Exactness, rank: usize) -> Leading {
    Leading {
        count: rank,
        exactness: svd,
        sketch: Sketch { oversampling: rank.max(8), power: 4 },
        of: GradientMap::Itself,
    }
}

/// One turn: the base, the factors, and the part of the weight that both together lose.
struct Turn {
    quantised: Mat<f32>,
    delta: LowRank,
    lost: f64,
}

impl Loftq {
    /// The paper's.
    pub const DEFAULT: Loftq = Loftq { quantiser: Quantiser::DEFAULT, iterations: 5, svd: Exactness::Auto };
}

impl Initialiser for Loftq {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn replaces_base(&self) -> bool {
        true
    }

    fn promise(&self) -> Promise {
        Promise::Within(self.quantiser.bound())
    }

    fn admits(&self, site: Site, rank: usize) -> Result<(), InitError> {
        site.check(CARD.name, rank)?;
        self.quantiser.admits(CARD.name, site)
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        vec![
            ("format", self.quantiser.format.name().to_owned()),
            ("block", self.quantiser.block.to_string()),
            ("iterations", self.iterations.to_string()),
            ("svd", self.svd.name().to_owned()),
        ]
    }

    fn configure(&self, options: &Options) -> Result<Box<dyn Initialiser>, InitError> {
        let iterations = options.count("iterations", 64)?;
        if iterations == 0 {
            return Err(options.bad("iterations").into());
        }
        let quantiser = Quantiser::from_options(options)?;
        Ok(Box::new(Loftq { quantiser, iterations, svd: options.named("svd")? }))
    }

    fn start(&self, seen: &Evidence<'_>, rank: usize, seed: Seed) -> Result<Start, InitError> {
        let site = seen.site();
        self.admits(site, rank)?;
        let weight = seen.weight(CARD.name)?;
        finite(weight).map_err(InitError::linalg(CARD.name))?;
        let size = energy(weight).sqrt();
        if size <= 0.0 {
            return Err(InitError::ZeroWeight { method: CARD.name });
        }
        let format = self.quantiser.format.name();
        let mut report = Report::default().with("format", format);
        let mut rest = weight.to_owned();
        let mut best: Option<Turn> = None;
        for turn in 1..=self.iterations {
            let quantised = self.quantiser.round(CARD.name, rest.as_ref())?;
            let error = weight - &quantised;
            if turn == 1 {
                let plain = energy(error.as_ref()).sqrt() / size;
                if plain <= 0.0 {
                    return Err(InitError::NothingLost { method: CARD.name, format });
                }
                report = report.with("error of quantising alone, relative to the weight", plain);
            }
            let found = leading(self.svd, rank).of(error.as_ref(), seed.at("start", "error"));
            let delta = site.balanced(&found.map_err(InitError::linalg(CARD.name))?.svd);
            rest = weight - delta.times(site.scale).reconstruct();
            let lost = Quantiser::error(rest.as_ref(), quantised.as_ref(), size);
            report = report.with(&format!("error after turn {turn}"), lost);
            if best.as_ref().is_none_or(|best| lost < best.lost) {
                best = Some(Turn { quantised, delta, lost });
            }
        }
        let Some(Turn { quantised, delta, lost }) = best else {
            return Err(InitError::Overflow { method: CARD.name });
        };
        let report = report.with("error kept, relative to the weight", lost);
        Start::checked(CARD.name, delta, Base::Replace(quantised), report)
    }
}
