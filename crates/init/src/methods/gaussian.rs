//! `left = 0`, `right ~ N(0, d²)`: the change is zero.
//!
//! Needs nothing; leaves the function unchanged to the bit.
//!
//! Source: PEFT's `init_lora_weights="gaussian"`, d = 1/r, as the diffusion trainers use it. Note that 1/r does not depend
//! on the width of the layer: for wide layers the activations `right·x` are √in/r large. `deviation = width` takes
//! d = 1/√in instead, for which they are of order one.

use lowrank_linalg::LowRank;
use lowrank_record::{Card, Choice, Kind, Promise, Report, Seed, Source};

use crate::{Base, Evidence, InitError, Initialiser, Named, Options, Site, Start};

/// A Gaussian right factor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gaussian {
    /// The standard deviation of the entries of `right`.
    pub deviation: Deviation,
}

/// The standard deviation d.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deviation {
    /// 1/r.
    Rank,
    /// 1/√in.
    Width,
}

impl Named for Deviation {
    const NAMES: &'static [(&'static str, Self)] = &[("rank", Deviation::Rank), ("width", Deviation::Width)];
}

static CARD: Card = Card {
    name: "gaussian",
    kind: Kind::Initialiser,
    summary: "left = 0, right ~ N(0, 1/r^2)",
    source: Source {
        authors: "Hu et al.",
        title: "LoRA: Low-Rank Adaptation of Large Language Models",
        year: 2021,
        link: "https://arxiv.org/abs/2106.09685",
    },
    needs: &[],
    promise: Promise::Zero,
    choices: &[Choice {
        name: "deviation",
        default: "rank",
        values: "rank | width",
        meaning: "standard deviation of right: 1/r as in PEFT, or 1/sqrt(in), which keeps right * x of order one",
    }],
    notes: &["1/r does not depend on the layer's width; deviation = width is ours"],
};

impl Gaussian {
    /// As in PEFT.
    pub const DEFAULT: Gaussian = Gaussian { deviation: Deviation::Rank };
}

impl Initialiser for Gaussian {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        vec![("deviation", self.deviation.name().to_owned())]
    }

    fn configure(&self, options: &Options) -> Result<Box<dyn Initialiser>, InitError> {
        Ok(Box::new(Gaussian { deviation: options.named("deviation")? }))
    }

    fn start(&self, seen: &Evidence<'_>, rank: usize, seed: Seed) -> Result<Start, InitError> {
        let site @ Site { out, inp, .. } = seen.site();
        self.admits(site, rank)?;
        let deviation = match self.deviation {
            Deviation::Rank => 1.0 / rank as f64,
            Deviation::Width => 1.0 / (inp as f64).sqrt(),
        };
        let mut right = seed.at("start", "right").normal(rank * inp);
        right.iter_mut().for_each(|x| *x *= deviation as f32);
        let zero = vec![0.0; out * rank];
        let delta =
            LowRank::from_rows(&zero, &right, out, inp, rank).map_err(InitError::linalg(CARD.name))?;
        Start::checked(CARD.name, delta, Base::Keep, Report::default().with("deviation", deviation))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lowrank_linalg::energy;

    #[test]
    fn the_deviation_is_the_one_asked_for() {
        let seen = Evidence::of(Site { out: 9, inp: 600, scale: 3.0 });
        for (deviation, wanted) in [(Deviation::Rank, 1.0 / 8.0), (Deviation::Width, 600.0_f64.powf(-0.5))] {
            let start = Gaussian { deviation }.start(&seen, 8, Seed(4)).unwrap();
            let found = (energy(start.delta.right.as_ref()) / 4800.0).sqrt();
            assert!((found / wanted - 1.0).abs() < 0.04, "{found} {wanted}");
            assert_eq!(energy(start.delta.left.as_ref()), 0.0);
        }
    }
}
