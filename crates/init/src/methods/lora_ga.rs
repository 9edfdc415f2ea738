//! `left = c·U_J`, `right = c·V_Iᵀ`, G = U·S·Vᵀ the loss gradient `[out, in]`, I and J disjoint halves of the leading 2r singular
//! directions; the base gives up `scale·left·right`.
//!
//! To first order an SGD step of the factors moves the weight along `scale²·(G·rightᵀ·right + left·leftᵀ·G)`, of rank 2r at
//! most. With disjoint I and J (any) and `c = √ζ/scale` that is the best approximation of ζ·G of that rank; with the same
//! directions on both sides half of the rank is wasted.
//!
//! Needs the gradient (and the weight for `scale = weight-svd` and for `norm-clip`); leaves the function unchanged.
//!
//! Source: Wang, Yu, Li, "LoRA-GA: Low-Rank Adaptation with Gradient Approximation", 2024 (the optimality of the first
//! step), and the authors' code (`Outsider565/LoRA-GA`). Where we differ: `random` is seeded; too small matrices, zero gradients and
//! ranks that the gradient does not have are refused or reported, where the code goes on.
//!
//! `variant = peft-compat` follows PEFT (compared with 0.21.2 in `tests/interop`), whose `lora_ga` is another method: it multiplies `left` by the singular values
//! of its directions (so the offset nearly vanishes and the second half of the rank is lost), scales `left` alone for
//! `stable` and `weight-svd`, and takes the same directions on both sides for `random`.

mod card;

use faer::Mat;
use lowrank_linalg::{LowRank, Sketched, Svd, finite, multiply};
use lowrank_record::{Card, Need, Report, Seed};

pub use card::{Direction, Variant};

use self::card::CARD;
use crate::magnitude::weight_values;
use crate::{
    Base, Evidence, Exactness, Gradient, InitError, Initialiser, Leading, Magnitude, Named, Options, Site,
    Start,
};

/// Directions of the gradient.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LoraGa {
    /// Whose formulas.
    pub variant: Variant,
    /// Which directions go where.
    pub direction: Direction,
    /// The size of the factors.
    pub scale: Magnitude,
    /// γ of the stable rule; larger is smaller.
    pub gamma: f64,
    /// Whether the start is shrunk so that no entry exceeds the largest entry of the weight.
    pub norm_clip: bool,
    /// How the gradient is decomposed.
    pub svd: Exactness,
}

/// Below this part of the largest singular value a direction is rounding, not gradient.
const NO_DIRECTION: f64 = 1e-6;

impl LoraGa {
    /// The authors' defaults.
    pub const DEFAULT: LoraGa = LoraGa {
        variant: Variant::Paper,
        direction: Direction::ArB2r,
        scale: Magnitude::Stable,
        gamma: 16.0,
        norm_clip: false,
        svd: Exactness::Fast,
    };

    /// The leading 2r triplets, and the gradient's energy where it is known.
    fn triplets(
        &self,
        seen: &Evidence<'_>,
        rank: usize,
        seed: Seed,
    ) -> Result<(Svd, Option<f64>), InitError> {
        let want = 2 * rank;
        match seen.gradient(CARD.name)? {
            Gradient::Exact(matrix) => {
                let (Sketched { svd, energy, .. }, _) = Initialiser::leading(self, rank).of(
                    CARD.name,
                    *matrix,
                    want,
                    seed.at("start", "gradient"),
                )?;
                Ok((svd, Some(energy)))
            }
            Gradient::Factors { leading, energy } => {
                let have = leading.rank();
                if have < want {
                    return Err(InitError::TooFewTriplets { method: CARD.name, rank, have, want });
                }
                Ok((leading.head(want), *energy))
            }
        }
    }

    /// Indices of the directions of `(left, right)` among the leading 2r.
    fn split(&self, rank: usize, seed: Seed) -> (Vec<usize>, Vec<usize>) {
        match self.direction {
            Direction::ArB2r => ((rank..2 * rank).collect(), (0..rank).collect()),
            Direction::A2rBr => ((0..rank).collect(), (rank..2 * rank).collect()),
            Direction::ArBr => ((0..rank).map(|i| 2 * i).collect(), (0..rank).map(|i| 2 * i + 1).collect()),
            Direction::Random => {
                let order = seed.at("start", "directions").permutation(2 * rank);
                let (right, rest) = order.split_at(rank);
                let left = if self.variant == Variant::PeftCompat { right } else { rest };
                (left.to_vec(), right.to_vec())
            }
        }
    }

    /// What each direction is multiplied by: `(left, right)`.
    fn sizes(
        &self,
        seen: &Evidence<'_>,
        of_left: &[f64],
        seed: Seed,
    ) -> Result<(Vec<f64>, Vec<f64>), InitError> {
        let rank = of_left.len();
        if self.variant == Variant::Paper {
            let size = self.scale.factor(CARD.name, seen, rank, self.gamma, seed)?;
            return Ok((vec![size; rank], vec![size; rank]));
        }
        let (left, right) = match self.scale {
            Magnitude::Stable => (Magnitude::stable(seen.site().out, self.gamma), 1.0),
            Magnitude::Gd => (seen.site().unscaled(1.0), seen.site().unscaled(1.0)),
            Magnitude::Unit => (1.0, 1.0),
            Magnitude::WeightSvd => {
                let weight = weight_values(CARD.name, seen, 1, seed)?[0];
                if weight <= 0.0 {
                    return Err(InitError::ZeroWeight { method: CARD.name });
                }
                if of_left[0] <= 0.0 {
                    return Err(InitError::NoDirection { method: CARD.name });
                }
                (weight / of_left[0], 1.0)
            }
        };
        Ok((of_left.iter().map(|value| value * left).collect(), vec![right; rank]))
    }
}

impl Initialiser for LoraGa {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn needs(&self) -> Vec<Need> {
        let weight = self.norm_clip || !self.scale.needs().is_empty();
        if weight { vec![Need::Weight, Need::Gradient] } else { vec![Need::Gradient] }
    }

    fn admits(&self, site: Site, rank: usize) -> Result<(), InitError> {
        site.check(CARD.name, rank)?;
        if 2 * rank > site.out.min(site.inp) {
            return Err(InitError::DoubleRank { method: CARD.name, rank, out: site.out, inp: site.inp });
        }
        Ok(())
    }

    fn leading(&self, rank: usize) -> Leading {
        // The paper's factors are subspaces; PEFT's scale each direction by its singular value, and it iterates four times.
        let power = if self.variant == Variant::PeftCompat { 4 } else { 2 };
        Leading { exactness: self.svd, oversampling: 2 * rank, power }
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        vec![
            ("variant", self.variant.name().to_owned()),
            ("direction", self.direction.name().to_owned()),
            ("scale", self.scale.name().to_owned()),
            ("gamma", self.gamma.to_string()),
            ("norm-clip", self.norm_clip.name().to_owned()),
            ("svd", self.svd.name().to_owned()),
        ]
    }

    fn configure(&self, options: &Options) -> Result<Box<dyn Initialiser>, InitError> {
        Ok(Box::new(LoraGa {
            variant: options.named("variant")?,
            direction: options.named("direction")?,
            scale: options.named("scale")?,
            gamma: options.positive("gamma")?,
            norm_clip: options.named("norm-clip")?,
            svd: options.named("svd")?,
        }))
    }

    fn start(&self, seen: &Evidence<'_>, rank: usize, seed: Seed) -> Result<Start, InitError> {
        let site = seen.site();
        self.admits(site, rank)?;
        let (svd, energy) = self.triplets(seen, rank, seed)?;
        if svd.values[0] <= 0.0 {
            return Err(InitError::ZeroGradient { method: CARD.name });
        }
        let (left, right) = self.split(rank, seed);
        let of_left: Vec<f64> = left.iter().map(|&j| svd.values[j]).collect();
        let (mut left_sizes, mut right_sizes) = self.sizes(seen, &of_left, seed)?;
        let make = |left_sizes: &[f64], right_sizes: &[f64]| LowRank {
            left: Mat::from_fn(site.out, rank, |i, j| {
                (f64::from(svd.left[(i, left[j])]) * left_sizes[j]) as f32
            }),
            right: Mat::from_fn(rank, site.inp, |i, j| {
                (f64::from(svd.right[(right[i], j)]) * right_sizes[i]) as f32
            }),
        };
        let mut delta = make(&left_sizes, &right_sizes);
        let mut report = Report::default()
            .with("largest singular value of the gradient", svd.values[0])
            .with("smallest singular value used", svd.values[2 * rank - 1]);
        if svd.values[2 * rank - 1] <= NO_DIRECTION * svd.values[0] {
            let rank_found = svd.values.iter().filter(|&&value| value > NO_DIRECTION * svd.values[0]).count();
            report = report.with(
                "warning",
                format!(
                    "the gradient has rank {rank_found}, {} directions are used: the rest are arbitrary; show it more \
                     samples or lower the rank",
                    2 * rank
                ),
            );
        }
        if self.norm_clip {
            let weight = largest(finite_weight(seen)?);
            if weight <= 0.0 {
                return Err(InitError::ZeroWeight { method: CARD.name });
            }
            let ratio = weight / (site.scale * largest_product(&delta));
            if ratio < 1.0 {
                for size in left_sizes.iter_mut().chain(&mut right_sizes) {
                    *size *= ratio.sqrt();
                }
                delta = make(&left_sizes, &right_sizes);
            }
            report = report.with("clipped to", ratio.min(1.0));
        }
        if let Some(energy) = energy {
            let cosine = first_step_cosine(&svd.values, (&left, &left_sizes), (&right, &right_sizes), energy);
            report = report.with("cosine of the first step with the gradient", cosine);
        }
        let norm = delta.norm().map_err(InitError::linalg(CARD.name))?;
        report = report.with("size of the start", site.scale * norm);
        Ok(Start { delta, core: None, base: Base::Subtract, report })
    }
}

/// The cosine of `G·rightᵀ·right + left·leftᵀ·G` with G. In the singular basis of G it is diagonal: direction k has
/// `(a_k² + b_k²)·σ_k` with a_k and b_k the sizes given to it on the right and on the left.
fn first_step_cosine(
    values: &[f64],
    (left, left_sizes): (&[usize], &[f64]),
    (right, right_sizes): (&[usize], &[f64]),
    energy: f64,
) -> f64 {
    let mut step = vec![0.0; values.len()];
    for (&k, size) in left.iter().zip(left_sizes).chain(right.iter().zip(right_sizes)) {
        step[k] += size * size * values[k];
    }
    let inner: f64 = step.iter().zip(values).map(|(d, value)| d * value).sum();
    let norm = step.iter().map(|d| d * d).sum::<f64>().sqrt();
    inner / (norm * energy.sqrt())
}

/// The weight, if all of it is numbers: a maximum would pass over NaN.
fn finite_weight<'a>(seen: &Evidence<'a>) -> Result<faer::MatRef<'a, f32>, InitError> {
    let weight = seen.weight(CARD.name)?;
    finite(weight).map_err(InitError::linalg(CARD.name))?;
    Ok(weight)
}

/// The largest magnitude of the entries.
fn largest(matrix: faer::MatRef<'_, f32>) -> f64 {
    matrix.col_iter().flat_map(|column| column.iter().map(|x| f64::from(x.abs()))).fold(0.0, f64::max)
}

/// The largest magnitude of the entries of `left · right`, 256 rows at a time.
fn largest_product(delta: &LowRank) -> f64 {
    let rows = delta.left.nrows();
    let blocks = (0..rows).step_by(256).map(|row| {
        let block = delta.left.as_ref().subrows(row, (rows - row).min(256));
        largest(multiply(block, delta.right.as_ref()).as_ref())
    });
    blocks.fold(0.0, f64::max)
}
