//! `left = 0`, `right ~ U(−1/√in, 1/√in)`: the change is zero, and the first step moves `left` alone.
//!
//! Needs nothing; leaves the function unchanged to the bit.
//!
//! Source: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021. The paper draws `right` from a Gaussian;
//! its code, and PEFT's default, use Kaiming-uniform with negative slope √5, which is this bound: √(6/((1 + 5)·in)), that is
//! variance 1/(3·in). We follow the code.

use lowrank_linalg::LowRank;
use lowrank_record::{Card, Kind, Promise, Report, Seed, Source};

use crate::{Base, Evidence, InitError, Initialiser, Options, Site, Start};

/// The default start of LoRA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kaiming;

static CARD: Card = Card {
    name: "kaiming",
    kind: Kind::Initialiser,
    summary: "left = 0, right ~ U(-1/sqrt(in), 1/sqrt(in)): the default start of LoRA",
    source: Source {
        authors: "Hu et al.",
        title: "LoRA: Low-Rank Adaptation of Large Language Models",
        year: 2021,
        link: "https://arxiv.org/abs/2106.09685",
    },
    needs: &[],
    promise: Promise::Zero,
    choices: &[],
    notes: &["as in PEFT (Kaiming-uniform, negative slope sqrt(5)); the paper draws right from a Gaussian"],
};

impl Initialiser for Kaiming {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn aliases(&self) -> &'static [&'static str] {
        &["lora", "default", "zero"]
    }

    fn configure(&self, _: &Options) -> Result<Box<dyn Initialiser>, InitError> {
        Ok(Box::new(Kaiming))
    }

    fn start(&self, seen: &Evidence<'_>, rank: usize, seed: Seed) -> Result<Start, InitError> {
        let site @ Site { out, inp, .. } = seen.site();
        self.admits(site, rank)?;
        let bound = 1.0 / (inp as f64).sqrt();
        let right = seed.at("start", "right").uniform(rank * inp, bound as f32);
        let zero = vec![0.0; out * rank];
        let delta =
            LowRank::from_rows(&zero, &right, out, inp, rank).map_err(InitError::linalg(CARD.name))?;
        Start::checked(CARD.name, delta, Base::Keep, Report::default().with("bound", bound))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn right_is_uniform_in_the_bound_and_left_is_zero() {
        let seen = Evidence::of(Site { out: 30, inp: 400, scale: 3.0 });
        let start = Kaiming.start(&seen, 16, Seed(4)).unwrap();
        assert!(start.delta.left.col_iter().all(|column| column.iter().all(|&x| x == 0.0)));
        let (_, mut draws) = start.delta.to_rows();
        draws.sort_by(f32::total_cmp);
        // Kolmogorov–Smirnov distance to U(−1/20, 1/20); 1.95/√n is the 0.1 % point.
        let n = draws.len() as f64;
        let expected = |x: f32| (f64::from(x) * 20.0 + 1.0) / 2.0;
        let distance =
            draws.iter().enumerate().map(|(i, &x)| (expected(x) - i as f64 / n).abs()).fold(0.0, f64::max);
        assert!(distance < 1.95 / n.sqrt(), "{distance}");
        assert!(draws[0] >= -0.05 && draws[draws.len() - 1] < 0.05);
    }
}
