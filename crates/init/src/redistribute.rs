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

#[cfg(test)]
mod tests {
    use super::*;
    use lowrank_record::{Seed, scale};

    /// Ratios as of so many groups, descending, of the kind that layers have.
    fn ratios(groups: usize, count: usize) -> Vec<Vec<f64>> {
        let of = |group: usize| {
            let draws = Seed(4).at("group", &group.to_string()).uniform(count, 1.0);
            let mut values: Vec<f64> =
                draws.iter().enumerate().map(|(i, x)| f64::from(x.abs()) / (i + 1) as f64).collect();
            values.sort_by(|a, b| b.total_cmp(a));
            values
        };
        (0..groups).map(of).collect()
    }

    fn places(rho: f64, planned: &[(usize, usize)], shorter: usize) -> Vec<Place> {
        let place = |&(group, planned): &(usize, usize)| Place {
            group,
            planned,
            most: most_rank(rho, planned, shorter),
        };
        planned.iter().map(place).collect()
    }

    /// Groups of three, of one and of two sites, of ranks that differ.
    const PLANNED: [(usize, usize); 8] = [(0, 4), (0, 4), (0, 6), (1, 4), (2, 4), (2, 5), (3, 4), (3, 4)];

    #[test]
    fn the_budget_is_spent_and_spent_best() {
        let ratios = ratios(4, 40);
        for rho in [1.0, 1.25, 1.5, 2.0, 3.0, 1e9] {
            let places = places(rho, &PLANNED, 40);
            let ranks = redistribute(&ratios, &places).unwrap();
            assert_eq!(ranks.iter().sum::<usize>(), 35, "rho = {rho}");
            for (place, rank) in places.iter().zip(&ranks) {
                assert!(*rank <= place.most && place.most <= 40, "rho = {rho}");
            }
            // The worst that was taken is no worse than the best that was left.
            let of = |place: &Place, i: usize| ratios[place.group].get(i).copied();
            let taken = places.iter().zip(&ranks).filter(|(_, rank)| **rank > 0);
            let worst = taken.filter_map(|(place, &rank)| of(place, rank - 1)).fold(1.0, f64::min);
            let left = places.iter().zip(&ranks).filter(|(place, rank)| **rank < place.most);
            let best = left.filter_map(|(place, &rank)| of(place, rank)).fold(0.0, f64::max);
            assert!(worst >= best, "rho = {rho}: {worst} taken, {best} left");
        }
    }

    #[test]
    fn rho_of_one_leaves_every_rank() {
        let ranks = redistribute(&ratios(4, 40), &places(1.0, &PLANNED, 40)).unwrap();
        assert_eq!(ranks, PLANNED.map(|(_, planned)| planned));
    }

    #[test]
    fn equal_ratios_go_by_component_and_then_by_order() {
        let ratios = vec![vec![0.5, 0.25, 0.125], vec![0.25, 0.125, 0.0625]];
        let ranks = |planned: &[(usize, usize)]| redistribute(&ratios, &places(2.0, planned, 3)).unwrap();
        // 0.5 three times, then one of the three 0.25 of group 1's first and group 0's second components.
        assert_eq!(ranks(&[(0, 1), (0, 1), (0, 1), (1, 1)]), [1, 1, 1, 1]);
        assert_eq!(ranks(&[(0, 1), (1, 1), (0, 1), (0, 1)]), [1, 1, 1, 1]);
        assert_eq!(ranks(&[(0, 2), (0, 2), (1, 1)]), [2, 2, 1]);
        assert_eq!(ranks(&[(0, 2), (0, 1), (1, 1)]), [2, 1, 1]);
        // In a group the first in order never has less than the next, where both may have as much.
        assert_eq!(ranks(&[(0, 1), (0, 1)]), [1, 1]);
        assert_eq!(redistribute(&ratios, &places(3.0, &[(0, 1), (0, 2)], 3)).unwrap(), [2, 1]);
    }

    #[test]
    fn a_site_that_explains_nothing_gets_nothing() {
        let ratios = vec![vec![0.5, 0.4, 0.1], vec![1e-3, 1e-4]];
        assert_eq!(redistribute(&ratios, &places(2.0, &[(0, 2), (1, 1)], 8)).unwrap(), [3, 0]);
        // Four of six ranks find a direction; the rest is not spent.
        let short = vec![vec![0.5, 0.4], vec![0.1, 0.1]];
        assert_eq!(redistribute(&short, &places(9.0, &[(0, 3), (1, 3)], 8)).unwrap(), [2, 2]);
        assert_eq!(redistribute(&[Vec::new()], &places(2.0, &[(0, 2)], 8)).unwrap(), [0]);
    }

    #[test]
    fn the_most_is_rounded_half_to_even_and_capped_by_the_width() {
        let rounded = [(1.5, 5), (2.5, 5), (1.1, 8), (1.0, 7)].map(|(rho, r)| most_rank(rho, r, 99));
        assert_eq!(rounded, [8, 12, 9, 7]);
        assert_eq!((most_rank(2.0, 8, 10), most_rank(1e300, 8, 10), most_rank(f64::MAX, 0, 10)), (10, 10, 0));
    }

    #[test]
    fn what_cannot_be_sorted_is_refused() {
        let place = [Place { group: 1, planned: 2, most: 4 }];
        for bad in [vec![0.1, 0.2], vec![f64::NAN], vec![-0.1], vec![f64::INFINITY]] {
            let refused = redistribute(&[vec![1.0], bad], &place).unwrap_err();
            assert!(matches!(refused, InitError::Ratios { group: 1, .. }), "{refused}");
        }
        let refused = redistribute(&[vec![1.0]], &place).unwrap_err().to_string();
        assert_eq!(refused, "redistribution of ranks: the explained-variance ratios of group 1 are missing");
    }

    #[test]
    fn the_scale_stays_what_it_was() {
        for stabilised in [false, true] {
            let before = scale(16.0, 8, stabilised);
            for rank in 1..20 {
                let after = scale(alpha_after(16.0, 8, rank, stabilised), rank, stabilised);
                assert!((after / before - 1.0).abs() < 1e-14, "{rank}, {stabilised}: {after} {before}");
            }
            assert_eq!(alpha_after(16.0, 8, 8, stabilised), 16.0);
            assert_eq!(alpha_after(16.0, 8, 0, stabilised), 16.0);
        }
    }
}
