//! The rate of one method: a geometric grid in short runs, then the best again in longer ones.

use crate::AppError;

/// Rates by which the grid may grow where its end is the best.
const BEYOND: usize = 2;

/// The rate that was chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Chosen {
    /// The rate.
    pub(super) rate: f64,
    /// Whether it is the smallest or the largest that was tried: a better one may lie beyond.
    pub(super) at_the_end: bool,
}

/// Searches between `rates`. `loss(rate, second)` runs a rate, in the second, longer round or the first; `None` is a run that
/// diverged. In the first round an end of the grid that is the best grows the grid; in the second the best two are run
/// again, with the rate between them where they are neighbours, and grow in the same way by half steps. Of equal losses the smaller rate wins.
///
/// # Errors
/// Those of the runs, and [`AppError::Failed`] where every rate diverged.
pub(super) fn search(
    name: &str,
    [least, most]: [f64; 2],
    count: usize,
    loss: &mut dyn FnMut(f64, bool) -> Result<Option<f64>, AppError>,
) -> Result<Chosen, AppError> {
    let factor = if count > 1 { (most / least).powf(1.0 / (count - 1) as f64) } else { 1.0 };
    let mut grid: Vec<(f64, f64)> = Vec::new();
    for index in 0..count {
        let rate = two_digits(least * factor.powi(index as i32));
        grid.push((rate, ranked(loss(rate, false)?)));
    }
    for _ in 0..BEYOND {
        let best = best(&grid);
        let (rate, at) = if best == 0 {
            (two_digits(grid[0].0 / factor), 0)
        } else if best + 1 == grid.len() {
            (two_digits(grid[best].0 * factor), grid.len())
        } else {
            break;
        };
        if grid.iter().any(|(tried, _)| (tried - rate).abs() < 1e-3 * rate) {
            break;
        }
        grid.insert(at, (rate, ranked(loss(rate, false)?)));
    }
    let first = best(&grid);
    if grid[first].1 == f64::INFINITY {
        return Err(AppError::failed(format!(
            "{name}: the loss was no number at any rate tried, the smallest {:.1e}; give a smaller one as {name}@RATE",
            grid[0].0
        )));
    }
    let rest: Vec<(f64, f64)> =
        grid.iter().enumerate().filter(|(index, _)| *index != first).map(|(_, each)| *each).collect();
    let mut again = vec![grid[first].0];
    if let Some(second) = rest.get(best(&rest)).filter(|second| second.1.is_finite()) {
        let at = grid.iter().position(|(rate, _)| *rate == second.0).unwrap_or(first);
        if at.abs_diff(first) == 1 {
            again.push(two_digits((grid[first].0 * second.0).sqrt()));
        }
        again.push(second.0);
    }
    again.sort_by(f64::total_cmp);
    let mut longer = Vec::with_capacity(again.len());
    for rate in again {
        longer.push((rate, ranked(loss(rate, true)?)));
    }
    // Longer runs may like another rate than short ones: here too an end that is the best is not the end.
    let step = factor.sqrt();
    for _ in 0..BEYOND {
        let at = best(&longer);
        let (rate, place) = match at {
            0 => (two_digits(longer[0].0 / step), 0),
            _ if at + 1 == longer.len() => (two_digits(longer[at].0 * step), longer.len()),
            _ => break,
        };
        if longer.iter().any(|(tried, _)| (tried - rate).abs() < 1e-3 * rate) {
            break;
        }
        longer.insert(place, (rate, ranked(loss(rate, true)?)));
    }
    let (rate, found) = longer[best(&longer)];
    // Where a rate that is fine in short runs diverges in longer ones, the short ones decide.
    let rate = if found.is_finite() { rate } else { grid[first].0 };
    let ends = [longer.first(), longer.last()];
    Ok(Chosen { rate, at_the_end: ends.into_iter().flatten().any(|end| end.0 == rate) })
}

/// A loss for comparison: a run that diverged is worse than any.
fn ranked(loss: Option<f64>) -> f64 {
    loss.filter(|loss| loss.is_finite()).unwrap_or(f64::INFINITY)
}

/// The index of the smallest loss, the first of equal ones; 0 of nothing.
fn best(rates: &[(f64, f64)]) -> usize {
    let losses = rates.iter().map(|(_, loss)| loss).enumerate();
    losses.min_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(index, _)| index)
}

/// A rate that can be typed: rounded to two digits.
fn two_digits(rate: f64) -> f64 {
    format!("{rate:.1e}").parse().unwrap_or(rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs whose best rate is `at`, and which diverge above `limit`; also says what was run.
    fn run(
        at: f64,
        limit: f64,
        rates: [f64; 2],
        count: usize,
    ) -> (Result<Chosen, AppError>, Vec<(f64, bool)>) {
        let mut seen = Vec::new();
        let chosen = search("lora", rates, count, &mut |rate, second| {
            seen.push((rate, second));
            Ok((rate <= limit).then(|| (rate / at).ln().powi(2)))
        });
        (chosen, seen)
    }

    #[test]
    fn the_best_and_the_rate_between_it_and_its_neighbour_are_run_longer() {
        let (chosen, seen) = run(6e-4, 1.0, [1e-4, 1e-2], 5);
        assert_eq!(chosen.unwrap(), Chosen { rate: 5.7e-4, at_the_end: false });
        let first: Vec<f64> = seen.iter().filter(|(_, second)| !second).map(|(rate, _)| *rate).collect();
        assert_eq!(first, [1e-4, 3.2e-4, 1e-3, 3.2e-3, 1e-2]);
        assert_eq!(seen[5..], [(3.2e-4, true), (5.7e-4, true), (1e-3, true)]);
    }

    #[test]
    fn the_grid_grows_where_its_end_is_the_best() {
        let (chosen, seen) = run(3e-2, 1.0, [1e-4, 1e-2], 5);
        assert_eq!(chosen.unwrap(), Chosen { rate: 3.2e-2, at_the_end: false });
        assert!(seen.contains(&(0.1, false)));
        let (chosen, _) = run(1.0, 10.0, [1e-4, 1e-2], 5);
        assert!(chosen.unwrap().at_the_end, "two more, and then it is told");
        let (chosen, _) = run(1e-5, 10.0, [1e-4, 1e-2], 5);
        assert!(chosen.unwrap().rate < 3e-5);
    }

    #[test]
    fn rates_that_diverge_are_passed_over_and_all_of_them_an_error() {
        let (chosen, _) = run(1e-2, 2e-3, [1e-4, 1e-2], 5);
        assert_eq!(chosen.unwrap().rate, 1.8e-3);
        let message = run(1.0, 1e-9, [1e-4, 1e-2], 3).0.unwrap_err().to_string();
        assert!(message.contains("lora@RATE"), "{message}");
    }

    #[test]
    fn two_rates_are_enough() {
        let (chosen, _) = run(2e-4, 1.0, [1e-4, 1e-3], 2);
        assert!((1e-4..=1e-3).contains(&chosen.unwrap().rate));
    }
}
