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
use lowrank_linalg::{LowRank, Sketch, Svd, directions, finite, multiply};
use lowrank_record::{Card, Need, Report, Seed};

pub use card::{Direction, Variant};

use self::card::CARD;
use crate::magnitude::weight_values;
use crate::{
    Base, Evidence, Exactness, Gradient, GradientMap, InitError, Initialiser, Leading, Magnitude, Named,
    Options, Site, Start,
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

/// What a factor takes: directions among the leading 2r, and the size that each is given.
type Taken = Vec<(usize, f64)>;

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
                let found = self.leading(rank).of(*matrix, seed.at("start", "gradient"));
                let found = found.map_err(InitError::linalg(CARD.name))?;
                Ok((found.svd, Some(found.energy)))
            }
            Gradient::Factors { leading, energy, .. } => {
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

    /// What each factor takes: `(left, right)`. `values` are the leading 2r.
    fn taken(&self, seen: &Evidence<'_>, values: &[f64], seed: Seed) -> Result<(Taken, Taken), InitError> {
        let rank = values.len() / 2;
        let (left, right) = self.split(rank, seed);
        if self.variant == Variant::Paper {
            let size = self.scale.factor(CARD.name, seen, rank, self.gamma, seed)?;
            let all = |directions: Vec<usize>| directions.into_iter().map(|k| (k, size)).collect();
            return Ok((all(left), all(right)));
        }
        let first_of_left = values[left[0]];
        let (of_left, of_right) = match self.scale {
            Magnitude::Stable => (Magnitude::stable(seen.site().out, self.gamma), 1.0),
            Magnitude::Gd => (seen.site().unscaled(1.0), seen.site().unscaled(1.0)),
            Magnitude::Unit => (1.0, 1.0),
            Magnitude::WeightSvd => {
                let weight = weight_values(CARD.name, seen, 1, seed)?[0];
                if weight <= 0.0 {
                    return Err(InitError::ZeroWeight { method: CARD.name });
                }
                if first_of_left <= 0.0 {
                    return Err(InitError::NoDirection { method: CARD.name });
                }
                (weight / first_of_left, 1.0)
            }
        };
        let left = left.into_iter().map(|k| (k, values[k] * of_left)).collect();
        Ok((left, right.into_iter().map(|k| (k, of_right)).collect()))
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
        // One set of directions a factor, and as many columns again: q = 4r, as the authors and PEFT.
        let sketch = Sketch { oversampling: 2 * rank, power };
        Leading { count: 2 * rank, exactness: self.svd, sketch, of: GradientMap::Itself }
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
        let (mut left, mut right) = self.taken(seen, &svd.values, seed)?;
        let mut report = Report::default()
            .with("largest singular value of the gradient", svd.values[0])
            .with("smallest singular value used", svd.values[2 * rank - 1]);
        let directions = directions(&svd.values);
        if directions < 2 * rank {
            report = report.with(
                "warning",
                format!(
                    "the gradient has rank {directions}, {} directions are used: the rest are arbitrary; show it more \
                     samples or lower the rank",
                    2 * rank
                ),
            );
        }
        if self.norm_clip {
            let shrunk = shrink_to_weight(seen, &svd, &left, &right)?.min(1.0);
            left.iter_mut().chain(&mut right).for_each(|(_, size)| *size *= shrunk);
            report = report.with("clipped to", shrunk * shrunk);
        }
        if let Some(energy) = energy {
            let cosine = first_step_cosine(&svd.values, &left, &right, energy);
            report = report.with("cosine of the first step with the gradient", cosine);
        }
        // Directions are orthonormal, so the norm needs no product of the factors.
        let sizes = left.iter().zip(&right).map(|((_, left), (_, right))| left * right);
        let norm = sizes.map(|size| size * size).sum::<f64>().sqrt();
        report = report.with("size of the start", site.scale * norm);
        Start::checked(CARD.name, factors(&svd, &left, &right), Base::Subtract, report)
    }
}

/// The factors that take these directions.
fn factors(svd: &Svd, left: &[(usize, f64)], right: &[(usize, f64)]) -> LowRank {
    let sized = |entry: f32, size: f64| (f64::from(entry) * size) as f32;
    LowRank {
        left: Mat::from_fn(svd.left.nrows(), left.len(), |i, j| {
            let (direction, size) = left[j];
            sized(svd.left[(i, direction)], size)
        }),
        right: Mat::from_fn(right.len(), svd.right.ncols(), |i, j| {
            let (direction, size) = right[i];
            sized(svd.right[(direction, j)], size)
        }),
    }
}

/// The cosine of `G·rightᵀ·right + left·leftᵀ·G` with G. In the singular basis of G it is diagonal: direction k has
/// `(a_k² + b_k²)·σ_k` with a_k and b_k the sizes given to it on the right and on the left.
fn first_step_cosine(values: &[f64], left: &[(usize, f64)], right: &[(usize, f64)], energy: f64) -> f64 {
    let mut step = vec![0.0; values.len()];
    for &(k, size) in left.iter().chain(right) {
        step[k] += size * size * values[k];
    }
    let inner: f64 = step.iter().zip(values).map(|(d, value)| d * value).sum();
    let norm = step.iter().map(|d| d * d).sum::<f64>().sqrt();
    inner / (norm * energy.sqrt())
}

/// What both factors must be multiplied by so that the largest entry of the start is that of the weight.
fn shrink_to_weight(
    seen: &Evidence<'_>,
    svd: &Svd,
    left: &[(usize, f64)],
    right: &[(usize, f64)],
) -> Result<f64, InitError> {
    let weight = largest(finite_weight(seen)?);
    if weight <= 0.0 {
        return Err(InitError::ZeroWeight { method: CARD.name });
    }
    // Sizes that overflow in f32 are the case that clipping is for: the product is taken of factors of size 1.
    let top = |taken: &[(usize, f64)]| taken.iter().fold(f64::MIN_POSITIVE, |top, (_, size)| top.max(*size));
    let of_size_1 = |taken: &[(usize, f64)]| -> Taken {
        taken.iter().map(|&(direction, size)| (direction, size / top(taken))).collect()
    };
    let product = largest_product(&factors(svd, &of_size_1(left), &of_size_1(right)));
    Ok((weight / (seen.site().scale * product)).sqrt() / (top(left).sqrt() * top(right).sqrt()))
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
