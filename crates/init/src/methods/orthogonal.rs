//! `right = d·(X·Qₒ)ᵀ`, `left = d·Yᵀ·Qₑ`, X `[in, r/2]` and Y `[r/2, out]` standard normal, Q `[r, r]` orthogonal, Qₒ and Qₑ its
//! rows 0, 2, … and 1, 3, …: since `Qₑ·Qₒᵀ = 0`, `left·right = 0` although neither factor is zero, so both learn
//! from the first step and the base is untouched.
//!
//! Needs nothing; changes the function by the rounding of its factors only. Rank even. Each factor has rank r/2, and `right` does not have
//! orthonormal rows, whatever the name says.
//!
//! Source: PEFT's `init_lora_weights="orthogonal"` (which cites Datta's note), with d = 1/10.
//! Where we differ: d is a choice, since 1/10 does not depend on the width of the layer; Q and the products are computed in
//! f64, so that the zero is zero to the rounding of the factors; QR signs are fixed.

use faer::{Mat, MatRef};
use lowrank_linalg::{LowRank, multiply, narrow, orthonormal_basis};
use lowrank_record::{Card, Choice, Kind, Promise, Report, Seed, Source};

use crate::{Base, Evidence, InitError, Initialiser, Options, Site, Start};

/// Two factors that are not zero and multiply to zero.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Orthogonal {
    /// The size of the entries.
    pub width: Width,
}

/// The factor d on the entries of both factors.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Width {
    /// This number for both.
    Fixed(f64),
    /// 1/√in for `right`, 1/√out for `left`: products with unit vectors are of order one at any width.
    Fan,
}

static CARD: Card = Card {
    name: "orthogonal",
    kind: Kind::Initialiser,
    summary: "left * right = 0 with neither factor zero, from the even and the odd rows of one orthogonal matrix",
    source: Source {
        authors: "Datta; Hugging Face PEFT",
        title: "Orthogonal initialisation of LoRA",
        year: 2025,
        link: "https://datta0.github.io/posts/rethink-lora-init/",
    },
    needs: &[],
    promise: Promise::Within(1e-6),
    choices: &[Choice {
        name: "width",
        default: "0.1",
        values: "a positive number, or fan",
        meaning: "factor on the Gaussian entries of both factors; fan takes 1/sqrt(in) and 1/sqrt(out). Larger moves faster",
    }],
    notes: &["even rank only", "the 1/10 of PEFT does not depend on the layer's width; width = fan is ours"],
};

impl Orthogonal {
    /// As in PEFT.
    pub const DEFAULT: Orthogonal = Orthogonal { width: Width::Fixed(0.1) };
}

impl Initialiser for Orthogonal {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn admits(&self, site: Site, rank: usize) -> Result<(), InitError> {
        site.check(CARD.name, rank)?;
        if !rank.is_multiple_of(2) {
            return Err(InitError::OddRank { method: CARD.name, rank });
        }
        Ok(())
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        let width = match self.width {
            Width::Fixed(number) => number.to_string(),
            Width::Fan => "fan".to_owned(),
        };
        vec![("width", width)]
    }

    fn configure(&self, options: &Options) -> Result<Box<dyn Initialiser>, InitError> {
        let fan = options.text("width").eq_ignore_ascii_case("fan");
        let width = if fan { Width::Fan } else { Width::Fixed(options.positive("width")?) };
        Ok(Box::new(Orthogonal { width }))
    }

    fn start(&self, seen: &Evidence<'_>, rank: usize, seed: Seed) -> Result<Start, InitError> {
        let site @ Site { out, inp, .. } = seen.site();
        self.admits(site, rank)?;
        let half = rank / 2;
        let square = gaussian(seed.at("start", "rotation"), rank, rank);
        let q = orthonormal_basis(square.as_ref()).map_err(InitError::linalg(CARD.name))?;
        // One in two rows, from the first or the second on.
        let rows = |first: usize| Mat::from_fn(half, rank, |i, j| q[(2 * i + first, j)]);
        let (odd, even) = (rows(0), rows(1));
        let (d_right, d_left) = match self.width {
            Width::Fixed(number) => (number, number),
            Width::Fan => ((inp as f64).sqrt().recip(), (out as f64).sqrt().recip()),
        };
        let x = gaussian(seed.at("start", "right"), half, inp);
        let y = gaussian(seed.at("start", "left"), half, out);
        let right = sized(multiply(odd.transpose(), x.as_ref()).as_ref(), d_right);
        let left = sized(multiply(y.transpose(), even.as_ref()).as_ref(), d_left);
        let report = Report::default().with("width of right", d_right).with("width of left", d_left);
        Start::checked(CARD.name, LowRank { left, right }, Base::Keep, report)
    }
}

fn gaussian(seed: Seed, rows: usize, cols: usize) -> Mat<f64> {
    let draws = seed.normal(rows * cols);
    Mat::from_fn(rows, cols, |i, j| f64::from(draws[i * cols + j]))
}

fn sized(matrix: MatRef<'_, f64>, factor: f64) -> Mat<f32> {
    narrow(Mat::from_fn(matrix.nrows(), matrix.ncols(), |i, j| matrix[(i, j)] * factor).as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;
    use lowrank_linalg::{energy, svd_in_f64};

    #[test]
    fn the_product_vanishes_and_the_factors_do_not() {
        let seen = Evidence::of(Site { out: 40, inp: 70, scale: 2.5 });
        for (width, right, left) in
            [(Width::Fixed(0.1), 0.1, 0.1), (Width::Fan, 70.0_f64.powf(-0.5), 40.0_f64.powf(-0.5))]
        {
            let delta = Orthogonal { width }.start(&seen, 6, Seed(9)).unwrap().delta;
            let size = (energy(delta.left.as_ref()) * energy(delta.right.as_ref())).sqrt();
            assert!(delta.norm().unwrap() < 1e-7 * size);
            for (factor, d) in [(delta.left.as_ref(), left), (delta.right.as_ref(), right)] {
                // Half of the r directions carry unit variance each.
                let rms = (energy(factor) / (factor.nrows() * factor.ncols()) as f64).sqrt();
                assert!((rms / (d * 0.5_f64.sqrt()) - 1.0).abs() < 0.2, "{rms} {d}");
                let values = svd_in_f64(factor).unwrap().values;
                assert!(
                    values[2] > 0.3 * values[0] && values[3] < 1e-6 * values[0],
                    "rank is not r/2: {values:?}"
                );
            }
        }
    }

    #[test]
    fn both_factors_get_a_gradient() {
        // ∂L/∂left = G·rightᵀ and ∂L/∂right = leftᵀ·G for L with gradient G in W.
        let seen = Evidence::of(Site { out: 20, inp: 30, scale: 2.0 });
        let delta = Orthogonal::DEFAULT.start(&seen, 4, Seed(1)).unwrap().delta;
        let draws = Seed(2).normal(600);
        let g = Mat::from_fn(20, 30, |i, j| draws[i * 30 + j]);
        assert!(energy(multiply(g.as_ref(), delta.right.transpose()).as_ref()) > 1.0);
        assert!(energy(multiply(delta.left.transpose(), g.as_ref()).as_ref()) > 1.0);
    }

    #[test]
    fn an_odd_rank_is_refused() {
        let seen = Evidence::of(Site { out: 20, inp: 30, scale: 2.0 });
        let refused = Orthogonal::DEFAULT.start(&seen, 3, Seed(1)).unwrap_err();
        assert_eq!(refused, InitError::OddRank { method: "orthogonal", rank: 3 });
    }
}
