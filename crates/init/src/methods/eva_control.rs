//! `left = 0`, `right` = *random* orthonormal rows: the sizes of `eva` without looking at the inputs.
//!
//! A control for studies: what EVA gains over this is due to the directions, what both gain over LoRA is due to rows of norm 1
//! where kaiming's are 0.58. Ranks stay as planned. Needs nothing; leaves the function unchanged to the bit.
//!
//! Source: ours.

use faer::Mat;
use lowrank_linalg::{LowRank, narrow, orthonormal_basis};
use lowrank_record::{Card, Kind, Promise, Report, Seed, Source};

use crate::{Base, Evidence, InitError, Initialiser, Options, Start};

/// EVA without the inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EvaControl;

static CARD: Card = Card {
    name: "eva-control",
    kind: Kind::Initialiser,
    summary: "left = 0, right = random orthonormal rows: a control for eva in studies",
    source: Source { authors: "this project", title: "control for EVA", year: 2026, link: "" },
    needs: &[],
    promise: Promise::Zero,
    choices: &[],
    notes: &[
        "not a method to train with: it says how much of eva is direction and how much is size",
        "the size of eva without whitening, and with the ranks as planned (rho = 1)",
    ],
};

impl Initialiser for EvaControl {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn configure(&self, _: &Options) -> Result<Box<dyn Initialiser>, InitError> {
        Ok(Box::new(EvaControl))
    }

    fn start(&self, seen: &Evidence<'_>, rank: usize, seed: Seed) -> Result<Start, InitError> {
        let site = seen.site();
        self.admits(site, rank)?;
        let right = random_basis(CARD.name, seed.at("start", "right"), site.inp, rank)?;
        let right = narrow(right.transpose());
        let delta = LowRank { left: Mat::zeros(site.out, rank), right };
        Start::checked(CARD.name, delta, Base::Keep, Report::default())
    }
}

/// Orthonormal columns `[d, rank]`, uniformly distributed: the basis of a Gaussian matrix (QR with a positive diagonal).
pub(super) fn random_basis(
    method: &'static str,
    seed: Seed,
    d: usize,
    rank: usize,
) -> Result<Mat<f64>, InitError> {
    let draws = seed.normal(d * rank);
    let gaussian = Mat::from_fn(d, rank, |i, j| f64::from(draws[i * rank + j]));
    orthonormal_basis(gaussian.as_ref()).map_err(InitError::linalg(method))
}
