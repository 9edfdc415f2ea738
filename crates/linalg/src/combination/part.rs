//! What goes into a combination, and what must hold of it.

use super::CombinationError;
use crate::LowRank;
use crate::product::finite;

/// The change that one adapter makes to a weight: `scale · left · right`, and how much it counts.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// The factors as stored, without the scale.
    pub factors: LowRank,
    /// The adapter's scale of this weight, α/r or α/√r.
    pub scale: f64,
    /// How much the adapter counts; may be negative, which takes its change away.
    pub weight: f64,
}

/// One tensor of one adapter, `[rows, cols]` in row-major order, with what it is multiplied by.
pub(super) struct Task {
    pub values: Vec<f32>,
    pub weight: f64,
}

/// Refuses parts that do not fit each other, or that are not finite.
pub(super) fn check(parts: &[Part]) -> Result<(usize, usize), CombinationError> {
    let Some(first) = parts.first() else { return Err(CombinationError::Empty) };
    let (want_out, want_in) = first.factors.shape();
    for (index, Part { factors, scale, weight }) in parts.iter().enumerate() {
        let (part, (out, inp)) = (index + 1, factors.shape());
        if (out, inp) != (want_out, want_in) {
            return Err(CombinationError::Shape { part, out, inp, want_out, want_in });
        }
        if !(scale * weight).is_finite() {
            return Err(CombinationError::Weight { part, weight: *weight, scale: *scale });
        }
        finite(factors.left.as_ref())?;
        finite(factors.right.as_ref())?;
    }
    Ok((want_out, want_in))
}

/// Refuses parts of different ranks; gives their rank.
pub(super) fn one_rank(method: &'static str, parts: &[Part]) -> Result<usize, CombinationError> {
    let first = parts.first().map_or(0, |part| part.factors.rank());
    match parts.iter().position(|part| part.factors.rank() != first) {
        Some(index) => {
            let rank = parts[index].factors.rank();
            Err(CombinationError::Ranks { method, part: index + 1, rank, first })
        }
        None => Ok(first),
    }
}
