//! `left` and `right` = *random* orthonormal bases, the core of `lora-sb` between them: its sizes without its directions.
//!
//! A control for studies: what LoRA-SB gains over this is due to the directions of the update. Needs the gradient for the singular
//! values of the core, and nothing with `core = zero`.
//!
//! Source: ours.

use lowrank_linalg::{LowRank, narrow};
use lowrank_record::{Card, Kind, Need, Promise, Report, Seed, Source};

use super::eva_control::random_basis;
use super::lora_sb::{CHOICES, CoreStart, LoraSb, diagonal_core};
use crate::{Base, Evidence, InitError, Initialiser, Leading, Options, Start};

/// LoRA-SB in random bases.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LoraSbControl {
    /// The choices of the method.
    pub of: LoraSb,
}

static CARD: Card = Card {
    name: "lora-sb-control",
    kind: Kind::Initialiser,
    summary: "the core of lora-sb between random orthonormal bases: a control for studies",
    source: Source { authors: "this project", title: "control for LoRA-SB", year: 2026, link: "" },
    needs: &[Need::Gradient],
    promise: Promise::None,
    choices: &CHOICES,
    notes: &[
        "not a method to train with: it says how much of lora-sb is direction",
        "core = zero needs no gradient and leaves the function unchanged",
    ],
};

impl LoraSbControl {
    /// The defaults of `lora-sb`.
    pub const DEFAULT: LoraSbControl = LoraSbControl { of: LoraSb::DEFAULT };
}

impl Initialiser for LoraSbControl {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn needs(&self) -> Vec<Need> {
        if self.of.core == CoreStart::Zero { Vec::new() } else { vec![Need::Gradient] }
    }

    fn leading(&self, rank: usize) -> Leading {
        self.of.triplets_wanted(rank)
    }

    fn promise(&self) -> Promise {
        self.of.kept()
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        self.of.named_settings()
    }

    fn configure(&self, options: &Options) -> Result<Box<dyn Initialiser>, InitError> {
        Ok(Box::new(LoraSbControl { of: LoraSb::from_options(options)? }))
    }

    fn start(&self, seen: &Evidence<'_>, rank: usize, seed: Seed) -> Result<Start, InitError> {
        let site = seen.site();
        self.admits(site, rank)?;
        let values = match self.of.core {
            CoreStart::Zero => vec![0.0; rank],
            CoreStart::Update => self.of.triplets(CARD.name, seen, rank, seed)?.0.values,
        };
        let diagonal = self.of.diagonal(CARD.name, seen, &values)?;
        let left = narrow(random_basis(CARD.name, seed.at("start", "left"), site.out, rank)?.as_ref());
        let right = random_basis(CARD.name, seed.at("start", "right"), site.inp, rank)?;
        let size = diagonal.iter().map(|value| value * value).sum::<f64>().sqrt();
        let report = Report::default().with("size of the start", site.scale * size);
        let delta = LowRank { left, right: narrow(right.transpose()) };
        Start::checked_with_core(CARD.name, delta, diagonal_core(&diagonal), Base::Keep, report)
    }
}
