//! `left = 0`, `right ~ U(−1/√in, 1/√in)`, `core ~ U(−1/√r, 1/√r)`: the start of LoRA with a square matrix between the factors.
//!
//! Needs nothing; leaves the function unchanged to the bit. At step 0 only `left` has a gradient; a core of zero beside it
//! would leave none.
//!
//! Source: Guo, Chang, Wu, "NLoRA: Nyström-Initiated Low-Rank Adaptation for Large Language Models", 2025 (StructuredLoRA), and the
//! authors' code. Its figure draws `right` from a Gaussian, its code from Kaiming-uniform with negative slope √5; we follow
//! the code.

use lowrank_linalg::{LowRank, from_rows};
use lowrank_record::{Card, Kind, Promise, Report, Seed, Source};

use crate::{Base, Evidence, InitError, Initialiser, Options, Start};

/// LoRA with a core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slora;

static CARD: Card = Card {
    name: "slora",
    kind: Kind::Initialiser,
    summary: "left = 0, right ~ U(-1/sqrt(in), 1/sqrt(in)), core ~ U(-1/sqrt(r), 1/sqrt(r)): StructuredLoRA, three matrices trained",
    source: Source {
        authors: "Guo, Chang, Wu",
        title: "NLoRA: Nystrom-Initiated Low-Rank Adaptation for Large Language Models",
        year: 2025,
        link: "https://arxiv.org/abs/2502.14482",
    },
    needs: &[],
    promise: Promise::Zero,
    choices: &[],
    notes: &[
        "as in the authors' code (Kaiming-uniform, negative slope sqrt(5)); the paper's figure draws right from a Gaussian",
        "the core adds r^2 values; with a form that trains the core alone it never learns, since left is zero",
    ],
};

impl Initialiser for Slora {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn aliases(&self) -> &'static [&'static str] {
        &["structured-lora", "s-lora"]
    }

    fn configure(&self, _: &Options) -> Result<Box<dyn Initialiser>, InitError> {
        Ok(Box::new(Slora))
    }

    fn start(&self, seen: &Evidence<'_>, rank: usize, seed: Seed) -> Result<Start, InitError> {
        let site = seen.site();
        self.admits(site, rank)?;
        let bound = |fan: usize| (fan as f64).sqrt().recip();
        let right = seed.at("start", "right").uniform(rank * site.inp, bound(site.inp) as f32);
        let core = seed.at("start", "core").uniform(rank * rank, bound(rank) as f32);
        let zero = vec![0.0; site.out * rank];
        let failed = InitError::linalg(CARD.name);
        let delta = LowRank::from_rows(&zero, &right, site.out, site.inp, rank).map_err(&failed)?;
        let core = from_rows(&core, rank, rank).map_err(&failed)?;
        let report =
            Report::default().with("bound of right", bound(site.inp)).with("bound of the core", bound(rank));
        Start::checked_with_core(CARD.name, delta, core, Base::Keep, report)
    }
}
