//! The two roads: entry by entry on the factors, and entry by entry on the change.

use super::part::{Task, check, one_rank};
use super::svd::cut;
use super::{CombinationError, Part, Settings};
use crate::product::{from_rows, to_rows};
use crate::{LowRank, svd_in_f64};

/// Which of an adapter's tensors a mask is for.
pub(super) const LEFT: &str = "left";
pub(super) const RIGHT: &str = "right";
pub(super) const CHANGE: &str = "change";

/// Arithmetic on tensors of one shape, one of each adapter; the name says which they are.
pub(super) type Arithmetic = fn(Vec<Task>, &'static str, &Settings<'_>) -> Result<Vec<f32>, CombinationError>;

/// Combines left with left and right with right, each adapter multiplied by √|weight·scale|; a negative sign goes to the right
/// factor alone, so that it does not cancel in the product.
pub(super) fn on_factors(
    method: &'static str,
    parts: &[Part],
    settings: &Settings<'_>,
    arithmetic: Arithmetic,
) -> Result<LowRank, CombinationError> {
    let (out, inp) = check(parts)?;
    let rank = one_rank(method, parts)?;
    let root = |part: &Part| (part.weight * part.scale).abs().sqrt();
    let sign = |part: &Part| if part.weight * part.scale >= 0.0 { 1.0 } else { -1.0 };
    let right =
        |part: &Part| Task { values: to_rows(part.factors.right.as_ref()), weight: sign(part) * root(part) };
    let left = |part: &Part| Task { values: to_rows(part.factors.left.as_ref()), weight: root(part) };
    let right = arithmetic(parts.iter().map(right).collect(), RIGHT, settings)?;
    let left = arithmetic(parts.iter().map(left).collect(), LEFT, settings)?;
    Ok(LowRank::from_rows(&left, &right, out, inp, rank)?)
}

/// Forms the change `[out, in]` of every adapter, combines them, and cuts the result back by SVD.
pub(super) fn on_change(
    parts: &[Part],
    settings: &Settings<'_>,
    arithmetic: Arithmetic,
) -> Result<LowRank, CombinationError> {
    let (out, inp) = check(parts)?;
    let task = |part: &Part| Task {
        values: to_rows(part.factors.times(part.scale).reconstruct().as_ref()),
        weight: part.weight,
    };
    let combined = arithmetic(parts.iter().map(task).collect(), CHANGE, settings)?;
    cut(&svd_in_f64(from_rows(&combined, out, inp)?.as_ref())?, parts, settings)
}

/// `Σ weight·values`, entry by entry, in f64.
pub(super) fn sum(tasks: &[Task]) -> Vec<f32> {
    let entries = tasks.first().map_or(0, |task| task.values.len());
    let at = |entry: usize| tasks.iter().map(|task| task.weight * f64::from(task.values[entry])).sum::<f64>();
    (0..entries).map(|entry| at(entry) as f32).collect()
}

/// Task arithmetic: [`sum`] of the tensors as they are.
pub(super) fn add(tasks: Vec<Task>, _: &'static str, _: &Settings<'_>) -> Result<Vec<f32>, CombinationError> {
    Ok(sum(&tasks))
}
