//! `left = c·U`, `right = c·V`, U `[out, r]` and V `[r, in]` orthonormal and *random*, c as in `lora-ga`: the same magnitudes and the
//! same offset without the gradient.
//!
//! A control for studies: what LoRA-GA gains over this is due to the gradient's directions, what both gain over LoRA is
//! due to size and to having two factors that are not zero. Needs nothing (the weight for `scale = weight-svd`); leaves
//! the function unchanged.
//!
//! Source: ours. Other studies (arXiv 2507.06558) attribute most of what spectral starts gain to the size of the update,
//! which only a control of the same size can tell.

use faer::Mat;
use lowrank_linalg::{LowRank, narrow, orthonormal_basis};
use lowrank_record::{Card, Choice, Kind, Need, Promise, Report, Seed, Source};

use crate::{Base, Evidence, InitError, Initialiser, Magnitude, Named, Options, Start};

/// LoRA-GA without the gradient.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LoraGaControl {
    /// The rule for c.
    pub scale: Magnitude,
    /// γ of the stable rule; larger is smaller.
    pub gamma: f64,
}

static CARD: Card = Card {
    name: "lora-ga-control",
    kind: Kind::Initialiser,
    summary: "the magnitudes and the offset of lora-ga with random orthonormal directions: a control for studies",
    source: Source { authors: "this project", title: "control for LoRA-GA", year: 2026, link: "" },
    needs: &[],
    promise: Promise::Exact,
    choices: &[
        Choice {
            name: "scale",
            default: "stable",
            values: "stable | gd | unit | weight-svd",
            meaning: "size of both factors, as in lora-ga; weight-svd also needs the weight",
        },
        Choice {
            name: "gamma",
            default: "16",
            values: "a positive number",
            meaning: "of the stable scale, as in lora-ga; larger is smaller",
        },
    ],
    notes: &["not a method to train with: it says how much of lora-ga is direction and how much is size"],
};

impl LoraGaControl {
    /// The defaults of `lora-ga`.
    pub const DEFAULT: LoraGaControl = LoraGaControl { scale: Magnitude::Stable, gamma: 16.0 };
}

impl Initialiser for LoraGaControl {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn needs(&self) -> Vec<Need> {
        self.scale.needs().to_vec()
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        vec![("scale", self.scale.name().to_owned()), ("gamma", self.gamma.to_string())]
    }

    fn configure(&self, options: &Options) -> Result<Box<dyn Initialiser>, InitError> {
        Ok(Box::new(LoraGaControl { scale: options.named("scale")?, gamma: options.positive("gamma")? }))
    }

    fn start(&self, seen: &Evidence<'_>, rank: usize, seed: Seed) -> Result<Start, InitError> {
        let site = seen.site();
        self.admits(site, rank)?;
        let size = self.scale.factor(CARD.name, seen, rank, self.gamma, seed)?;
        // The basis of a Gaussian matrix is uniformly distributed (QR with a positive diagonal).
        let basis = |name: &str, d: usize| {
            let draws = seed.at("start", name).normal(d * rank);
            let gaussian = Mat::from_fn(d, rank, |i, j| f64::from(draws[i * rank + j]));
            let basis = orthonormal_basis(gaussian.as_ref()).map_err(InitError::linalg(CARD.name))?;
            Ok::<_, InitError>(Mat::from_fn(d, rank, |i, j| basis[(i, j)] * size))
        };
        let left = narrow(basis("left", site.out)?.as_ref());
        let right = narrow(basis("right", site.inp)?.transpose());
        let report = Report::default().with("scale", self.scale.name()).with("size of both factors", size);
        Start::checked(CARD.name, LowRank { left, right }, Base::Subtract, report)
    }
}
