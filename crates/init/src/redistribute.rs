//! One budget of ranks, spent where the evidence says that it explains most.
//!
//! Source: Paischer et al., "Parameter Efficient Fine-tuning via Explained Variance Adaptation", 2025, as PEFT's `eva` does it:
//! all pairs (site, component) are sorted by explained-variance ratio and the best `Σ planned` are kept. Where we
//! differ: equal ratios, which are the rule among sites that share their input, go by component and then by the model's
//! order, where PEFT's sort leaves them to chance (and then swaps ranks within a group).

use crate::InitError;

/// A site that takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Which ratios are its own: sites that share their input share them.
    pub group: usize,
    /// The rank that it was planned with: its part of the budget.
    pub planned: usize,
    /// The largest rank that it can have: see [`most_rank`].
    pub most: usize,
}

/// The largest rank of a site: ρ times the planned one, half to even, and no more than the shorter side of its weight.
#[must_use]
pub fn most_rank(rho: f64, planned: usize, shorter: usize) -> usize {
    // A product that is no count (ρ may be any size) saturates.
    ((rho * planned as f64).round_ties_even() as usize).min(shorter)
}

/// The rank of each place, in their order, which is the model's: the largest ratios among all places, as many as were planned
/// together, no place past its most. `ratios` are those of the groups, each descending, without directions that were not
/// seen. A rank of 0 means that the site gets no adapter. Where the places cannot take the whole budget, it is not spent.
///
/// Because ratios descend, what a place gets is always a leading part of its components.
///
/// # Errors
/// [`InitError::Ratios`] for a group that is not there, and for ratios that do not descend or are no numbers.
pub fn redistribute(ratios: &[Vec<f64>], places: &[Place]) -> Result<Vec<usize>, InitError> {
    for (group, values) in ratios.iter().enumerate() {
        let numbers = values.iter().all(|ratio| ratio.is_finite() && *ratio >= 0.0);
        if !numbers || !values.is_sorted_by(|a, b| a >= b) {
            return Err(InitError::Ratios { group, problem: "are not descending numbers from 0 on" });
        }
    }
    let mut pairs: Vec<(f64, usize, usize)> = Vec::new();
    for (index, place) in places.iter().enumerate() {
        let Some(values) = ratios.get(place.group) else {
            return Err(InitError::Ratios { group: place.group, problem: "are missing" });
        };
        let taken = values.iter().take(place.most).enumerate();
        pairs.extend(taken.map(|(component, &ratio)| (ratio, component, index)));
    }
    pairs.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)).then(a.2.cmp(&b.2)));
    let budget = places.iter().map(|place| place.planned).sum();
    let mut ranks = vec![0; places.len()];
    for &(_, _, index) in pairs.iter().take(budget) {
        ranks[index] += 1;
    }
    Ok(ranks)
}

/// The alpha with which a site whose rank changed keeps its scale: `alpha·to/from`, or `alpha·√(to/from)` if rank-stabilised
/// (PEFT takes `to/from` for both, which changes the scale of the latter). Unchanged for a rank of 0, which has no scale.
#[must_use]
pub fn alpha_after(alpha: f64, from_rank: usize, to_rank: usize, rank_stabilised: bool) -> f64 {
    if from_rank == 0 || to_rank == 0 {
        return alpha;
    }
    let times = to_rank as f64 / from_rank as f64;
    alpha * if rank_stabilised { times.sqrt() } else { times }
}
