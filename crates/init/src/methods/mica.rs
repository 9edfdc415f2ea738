//! `left = U_m`, the left vectors of the r smallest singular values of W `[out, in]`, `right = 0`: only `right` is meant to be
//! trained.
//!
//! Needs the weight; leaves the function unchanged to the bit.
//!
//! Source: Rüdiger, Raschka, "MiCA Learns More Knowledge Than LoRA and Full Fine-Tuning" (Minor Component Adaptation), 2026, as in PEFT's
//! `init_lora_weights="mica"`, which freezes `left`. That is the form's business:
//! with a form that trains both, `left` moves as soon as `right` is not zero.

use faer::Mat;
use lowrank_linalg::{LowRank, svd_in_f64};
use lowrank_record::{Card, Kind, Need, Promise, Report, Seed, Source};

use crate::{Base, Evidence, InitError, Initialiser, Options, Start};

/// The directions that the weight hardly writes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mica;

static CARD: Card = Card {
    name: "mica",
    kind: Kind::Initialiser,
    summary: "left = the left singular vectors of the r smallest singular values of W, right = 0; left is meant to stay frozen",
    source: Source {
        authors: "Rudiger, Raschka",
        title: "MiCA Learns More Knowledge Than LoRA and Full Fine-Tuning",
        year: 2026,
        link: "https://arxiv.org/abs/2604.01694",
    },
    needs: &[Need::Weight],
    promise: Promise::Zero,
    choices: &[],
    notes: &[
        "PEFT freezes left and trains right alone; freeze left in the form, otherwise both are trained",
        "exact SVD in f64, of the order of out * in * min(out, in) operations for each layer: slow for wide layers",
        "with several threads its peak memory differs between runs and can pass that of a training step: the allocator does not give out again \
         what the decompositions freed; one thread (--threads 1) keeps it low",
        "the r smallest of min(out, in): the null space of a tall weight is not used, as in PEFT",
    ],
};

impl Initialiser for Mica {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn configure(&self, _: &Options) -> Result<Box<dyn Initialiser>, InitError> {
        Ok(Box::new(Mica))
    }

    fn start(&self, seen: &Evidence<'_>, rank: usize, _: Seed) -> Result<Start, InitError> {
        let site = seen.site();
        self.admits(site, rank)?;
        let all = svd_in_f64(seen.weight(CARD.name)?).map_err(InitError::linalg(CARD.name))?;
        if all.values[0] <= 0.0 {
            return Err(InitError::ZeroWeight { method: CARD.name });
        }
        let minor = all.minor(rank);
        let report = Report::default()
            .with("largest singular value of the weight", all.values[0])
            .with("largest singular value of left's directions", minor.values[0])
            .with("smallest singular value of left's directions", minor.values[rank - 1]);
        let delta = LowRank { left: minor.left, right: Mat::zeros(rank, site.inp) };
        Start::checked(CARD.name, delta, Base::Keep, report)
    }
}
