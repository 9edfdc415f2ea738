//! `W + s·(w1 ⊗ w2)`, a Kronecker product of `w1 [a, c]` and `w2 [b, d]` with out = a·b and in = c·d; either may be a
//! product of two factors of rank r.
//!
//! It is never formed to be applied: `(w1 ⊗ w2) x` is `w1 · X · w2ᵀ` with x written as X `[c, d]`, which takes
//! `c·d·b + c·a·b` multiplications a token in place of `out·in`.
//!
//! Sources: Yeh et al., "Navigating Text-To-Image Customization: From LyCORIS Fine-Tuning to Model Evaluation", 2023,
//! section 3.2; PEFT's `tuners/lokr`, whose rules of splitting and of where it begins these are.

use lowrank_record::{Card, Choice, Kind, Named, Options, Promise, Seed, Source};
use lowrank_tensor::{Matrix, Tensor, Var, to_rows};

use crate::form::{Adapter, Effect, Form, Layer, Offset, Site, Start, Takes, as_used};
use crate::part::Stored;
use crate::{AdaptError, Footprint, Part};

/// A Kronecker product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lokr {
    /// The size that the first factor's axes should have; none is near the square root.
    pub factor: Option<usize>,
    /// Whether the first factor, too, may be of low rank.
    pub decompose_both: bool,
    /// Which factor begins with zeros.
    pub zero: Zero,
}

/// The factor that begins with zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Zero {
    /// `w1`: PEFT's default.
    First,
    /// `w2`: as LyCORIS, and PEFT with `init_weights = "lycoris"`.
    Second,
}

impl Named for Zero {
    const NAMES: &'static [(&'static str, Self)] = &[("first", Zero::First), ("second", Zero::Second)];
}

static CARD: Card = Card {
    name: "lokr",
    kind: Kind::Form,
    summary: "W + s·kron(w1, w2) with both factors, or their own low-rank factors, trained",
    source: Source {
        authors: "Yeh et al.",
        title: "Navigating Text-To-Image Customization: From LyCORIS Fine-Tuning to Model Evaluation",
        year: 2023,
        link: "https://arxiv.org/abs/2309.14859",
    },
    needs: &[],
    promise: Promise::Zero,
    choices: &[
        Choice {
            name: "decompose-factor",
            default: "auto",
            values: "auto | a whole number from 1 to 65536",
            meaning: "the size of w1's axes where it divides the layer's; auto splits near the square root",
        },
        Choice {
            name: "decompose-both",
            default: "false",
            values: "true | false",
            meaning: "lets w1 be of low rank too, where the rank is below half its larger axis",
        },
        Choice {
            name: "zero",
            default: "first",
            values: "first | second",
            meaning: "the factor that begins with zeros: w1 as PEFT's default, w2 as LyCORIS",
        },
    ],
    notes: &[
        "the scale is alpha/r, as in PEFT, or alpha/sqrt(r) if rank-stabilised, which PEFT does not offer here",
        "w2 is of low rank where the rank is below half its larger axis, as in PEFT; otherwise the rank sets only the scale",
        "applied as w1·X·w2ᵀ; PEFT forms the [out, in] product in each forward",
    ],
};

impl Lokr {
    /// As in PEFT.
    pub const DEFAULT: Lokr = Lokr { factor: None, decompose_both: false, zero: Zero::First };
}

/// `dimension` as a product of two; PEFT's `factorization`, quirks included: a factor that divides comes first, whatever
/// its size, and the bound on the sum is that of the first try.
fn split(dimension: usize, factor: Option<usize>) -> (usize, usize) {
    if let Some(factor) = factor
        && dimension.is_multiple_of(factor)
    {
        return (factor, dimension / factor);
    }
    let limit = factor.unwrap_or(dimension);
    let (mut m, mut n) = (1, dimension);
    while m < n {
        let next = (m + 1..=dimension).find(|next| dimension.is_multiple_of(*next)).unwrap_or(dimension);
        if next + dimension / next > dimension + 1 || next > limit {
            break;
        }
        (m, n) = (next, dimension / next);
    }
    (m.min(n), m.max(n))
}

/// How the factors of one layer are made.
struct Layout {
    /// `[a, c]` and `[b, d]`.
    shapes: [[usize; 2]; 2],
    /// Which of them are products of two factors of rank r.
    low: [bool; 2],
}

impl Lokr {
    fn layout(&self, [out, inp]: [usize; 2], rank: usize) -> Layout {
        let ((a, b), (c, d)) = (split(out, self.factor), split(inp, self.factor));
        let low = |rows: usize, cols: usize| 2 * rank < rows.max(cols);
        Layout { shapes: [[a, c], [b, d]], low: [self.decompose_both && low(a, c), low(b, d)] }
    }
}

impl Form for Lokr {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        let factor = self.factor.map_or_else(|| "auto".to_owned(), |factor| factor.to_string());
        vec![
            ("decompose-factor", factor),
            ("decompose-both", self.decompose_both.name().to_owned()),
            ("zero", self.zero.name().to_owned()),
        ]
    }

    fn configure(&self, options: &Options) -> Result<Box<dyn Form>, AdaptError> {
        let name = "decompose-factor";
        let factor = match options.text(name).to_lowercase().as_str() {
            "auto" => None,
            _ => match options.count(name, 65536)? {
                0 => return Err(options.bad(name).into()),
                factor => Some(factor),
            },
        };
        let decompose_both = options.named("decompose-both")?;
        Ok(Box::new(Lokr { factor, decompose_both, zero: options.named("zero")? }))
    }

    fn takes(&self) -> Takes {
        Takes::Nothing
    }

    fn footprint(&self, shape: [usize; 2], rank: usize, _offset: Offset) -> Footprint {
        let Layout { shapes: [[a, c], [b, d]], low: [low1, low2] } = self.layout(shape, rank);
        // Values of a factor, which are its multiplications for each column that it is applied to.
        let values =
            |low: bool, rows: usize, cols: usize| if low { rank * (rows + cols) } else { rows * cols };
        let (first, second) = (values(low1, a, c), values(low2, b, d));
        let inner = rank * (usize::from(low1) * b + usize::from(low2) * c);
        let (trained, kept, products) = (first + second, c * b + inner, c * second + b * first);
        Footprint { trained, keeps_inputs: true, kept, products, ..Footprint::default() }
    }

    fn build(&self, site: &Site<'_>, start: Option<Start>) -> Result<Box<dyn Adapter>, AdaptError> {
        Start::none(&CARD, start.as_ref())?;
        let rank = site.rank;
        if rank == 0 {
            return Err(AdaptError::Rank);
        }
        let Layout { shapes: [shape1, shape2], low: [low1, low2] } = self.layout(site.base.shape(), rank);
        let make = |names: [&'static str; 3], shape: [usize; 2], low_rank: bool, zero: Option<&str>| {
            let draw = |name: &'static str, [rows, cols]: [usize; 2]| {
                let bound = if zero == Some(name) { 0.0 } else { 1.0 / (cols as f32).sqrt() };
                let seed: Seed = site.draws(name);
                (name, Var::new(seed.uniform(rows * cols, bound), [rows, cols], site.device))
            };
            let [whole, left, right] = names;
            if low_rank {
                Factor::LowRank(draw(left, [shape[0], rank]), draw(right, [rank, shape[1]]))
            } else {
                Factor::Whole(draw(whole, shape))
            }
        };
        // PEFT takes the left factor of w1, and the right factor of w2.
        let zero1 = (self.zero == Zero::First).then_some(if low1 { "w1_a" } else { "w1" });
        let zero2 = (self.zero == Zero::Second).then_some(if low2 { "w2_b" } else { "w2" });
        let first = make(FIRST, shape1, low1, zero1);
        let second = make(SECOND, shape2, low2, zero2);
        Ok(Box::new(LokrAdapter { first, second, scale: site.scale }))
    }

    fn restore(
        &self,
        site: &Site<'_>,
        parts: Vec<Part>,
        _offset: Offset,
    ) -> Result<Box<dyn Adapter>, AdaptError> {
        let [out, inp] = site.base.shape();
        let mut stored = Stored::new(&CARD, parts);
        let first = Factor::stored(&mut stored, FIRST, site)?;
        let second = Factor::stored(&mut stored, SECOND, site)?;
        stored.finish()?;
        let ([a, c], [b, d]) = (first.shape(), second.shape());
        if [a * b, c * d] != [out, inp] {
            // Which of the two is wrong is not known; the second is named, with what the first would need.
            let (part, found) = (second.trained()[0].0, vec![b, d]);
            let wanted = format!("a Kronecker product with [{a}, {c}] of shape [{out}, {inp}]");
            return Err(AdaptError::PartShape { form: CARD.name, part, found, values: b * d, wanted });
        }
        Ok(Box::new(LokrAdapter { first, second, scale: site.scale }))
    }
}

/// The names of a factor: whole, and as a product.
const FIRST: [&str; 3] = ["w1", "w1_a", "w1_b"];
const SECOND: [&str; 3] = ["w2", "w2_a", "w2_b"];

/// One of the two factors.
enum Factor {
    Whole((&'static str, Var)),
    LowRank((&'static str, Var), (&'static str, Var)),
}

impl Factor {
    /// Whole where the whole is there, a product where it is not; the shapes are checked against the weight afterwards.
    fn stored(
        stored: &mut Stored,
        [whole, left, right]: [&'static str; 3],
        site: &Site<'_>,
    ) -> Result<Factor, AdaptError> {
        let mut take = |name: &'static str| {
            let shape = stored.matrix(name)?;
            Ok::<_, AdaptError>((name, Var::new(stored.take(name, &shape)?, shape, site.device)))
        };
        let is_whole = take(whole);
        match is_whole {
            Err(AdaptError::MissingPart { .. }) if stored.has(left) || stored.has(right) => {}
            whole => return Ok(Factor::Whole(whole?)),
        }
        let rank = stored.rank(left, 1)?;
        let [rows, cols] = [stored.matrix(left)?[0], stored.matrix(right)?[1]];
        let mut take = |name: &'static str, shape: [usize; 2]| {
            Ok::<_, AdaptError>((name, Var::new(stored.take(name, &shape)?, shape, site.device)))
        };
        Ok(Factor::LowRank(take(left, [rows, rank])?, take(right, [rank, cols])?))
    }

    /// The tensor `[rows, cols]`.
    fn tensor(&self) -> Tensor<2> {
        match self {
            Factor::Whole((_, whole)) => whole.tensor(),
            Factor::LowRank((_, left), (_, right)) => left.tensor().matmul(right.tensor()),
        }
    }

    fn shape(&self) -> [usize; 2] {
        match self {
            Factor::Whole((_, whole)) => whole.shape(),
            Factor::LowRank((_, left), (_, right)) => [left.shape()[0], right.shape()[1]],
        }
    }

    fn trained(&self) -> Vec<(&'static str, Var)> {
        match self {
            Factor::Whole(whole) => vec![whole.clone()],
            Factor::LowRank(left, right) => vec![left.clone(), right.clone()],
        }
    }

    /// `h · factorᵀ`, in the cheap order: `[n, cols] -> [n, rows]`.
    fn apply(&self, h: Tensor<2>, x: &Tensor<2>) -> Tensor<2> {
        let turned = |var: &Var| as_used(var.tensor(), x).transpose();
        match self {
            Factor::Whole((_, whole)) => h.matmul(turned(whole)),
            Factor::LowRank((_, left), (_, right)) => h.matmul(turned(right)).matmul(turned(left)),
        }
    }
}

struct LokrAdapter {
    first: Factor,
    second: Factor,
    scale: f64,
}

impl Adapter for LokrAdapter {
    fn effect<'a>(&'a self, _layer: Layer<'a>, x: &'a Tensor<2>) -> Effect<'a> {
        let ([n, _], [a, c], [b, d]) = (x.dims(), self.first.shape(), self.second.shape());
        // Row i·b + j of the change times x is Σ w1[i, k] (X w2ᵀ)[k, j] with x written as X [c, d].
        let hidden = self.second.apply(x.clone().reshape([n * c, d]), x);
        let hidden = hidden.reshape([n, c, b]).swap_dims(1, 2).reshape([n * b, c]);
        let added = self.first.apply(hidden, x).reshape([n, b, a]).swap_dims(1, 2);
        Effect::Added(added.reshape([n, a * b]) * self.scale)
    }

    fn delta(&self, base: &Matrix) -> Vec<f32> {
        let ([out, inp], [_, c], [b, d]) = (base.shape(), self.first.shape(), self.second.shape());
        let (first, second) = (to_rows(self.first.tensor()), to_rows(self.second.tensor()));
        let entry = |row: usize, col: usize| {
            let first = first[row / b * c + col / d];
            (self.scale * f64::from(first) * f64::from(second[row % b * d + col % d])) as f32
        };
        (0..out * inp).map(|at| entry(at / inp, at % inp)).collect()
    }

    fn trainable(&self) -> Vec<(&'static str, Var)> {
        [self.first.trained(), self.second.trained()].concat()
    }

    fn parts(&self) -> Vec<Part> {
        let part = |(name, var): (&str, Var)| Part::new(name, &var.shape(), var.values());
        self.trainable().into_iter().map(part).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn axes_are_split_as_peft_splits_them() {
        // The examples of PEFT's factorization and others from running it (0.21.2).
        for (dimension, factor, wanted) in [
            (256, None, (16, 16)),
            (128, None, (8, 16)),
            (127, None, (1, 127)),
            (128, Some(4), (4, 32)),
            (6, Some(4), (2, 3)),
            (8, Some(4), (4, 2)),
            (576, None, (24, 24)),
            (576, Some(7), (6, 96)),
            (1, None, (1, 1)),
        ] {
            assert_eq!(split(dimension, factor), wanted, "{dimension} {factor:?}");
        }
    }
}
