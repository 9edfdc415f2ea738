//! How many steps fit into a time: the same number for every method and seed.

use crate::AppError;
use crate::adaptation::Cost;

/// Fewest steps that a budget may come to: below this the search for a rate sees one step.
const FEWEST: u64 = 8;
/// Part of the time that is planned with; the rest is for what was not measured.
const PLANNED: f64 = 0.9;
/// Rates by which a search may grow beyond its grid, and the most runs of its second round.
const BEYOND: f64 = 2.0;
const SECOND: f64 = 5.0;
/// Evaluations of a compared run: before, after each quarter.
const EVALUATIONS: f64 = 5.0;

/// Steps of a run in the first round of the search for a rate.
pub(super) fn first_round(steps: u64) -> u64 {
    (steps / 4).max(1)
}

/// Steps of a run in the second round.
pub(super) fn second_round(steps: u64) -> u64 {
    (steps / 2).max(1)
}

/// What is still to be run of one method, with what it costs.
#[derive(Debug, Clone)]
pub(super) struct Work<'a> {
    pub(super) cost: &'a Cost,
    /// Rates of the grid; 0 where none is searched.
    pub(super) rates: usize,
    pub(super) tuning_seeds: u32,
    pub(super) seeds: u32,
}

impl Work<'_> {
    /// Seconds of everything at this many steps.
    fn seconds(&self, steps: u64) -> f64 {
        let Cost { start_seconds, step_seconds, eval_seconds, .. } = *self.cost;
        let (tuning, seeds) = (f64::from(self.tuning_seeds), f64::from(self.seeds));
        let mut all = seeds * (start_seconds + steps as f64 * step_seconds + EVALUATIONS * eval_seconds);
        if self.rates > 0 {
            let first = self.rates as f64 + BEYOND;
            let in_steps = first * first_round(steps) as f64 + SECOND * second_round(steps) as f64;
            // The first tuning seed's start was made to measure it.
            let starts = (tuning - 1.0) * start_seconds;
            all += starts + tuning * (in_steps * step_seconds + (first + SECOND) * eval_seconds);
        }
        all
    }
}

/// Seconds of all work at this many steps.
pub(super) fn seconds(work: &[Work<'_>], steps: u64) -> f64 {
    work.iter().map(|work| work.seconds(steps)).sum()
}

/// The most steps that fit into what is left of a budget.
///
/// # Errors
/// [`AppError::Usage`] naming a budget that would do, where this one allows too few.
pub(super) fn steps(work: &[Work<'_>], budget: f64, spent: f64, told: &str) -> Result<u64, AppError> {
    let fits = |steps: u64| seconds(work, steps) <= PLANNED * (budget - spent);
    if !fits(FEWEST) {
        let needed = spent + seconds(work, FEWEST) / PLANNED;
        return Err(AppError::usage(format!(
            "--budget {told} is too small for these methods and seeds: {FEWEST} steps a run, the least from which a rate can \
             be chosen, take about {}; give --budget {}, fewer methods, seeds or rates, or a smaller --batch",
            duration(needed),
            round_up(needed)
        )));
    }
    let mut most = FEWEST;
    while fits(2 * most) && most < 1 << 40 {
        most *= 2;
    }
    let (mut least, mut beyond) = (most, 2 * most);
    while beyond - least > 1 {
        let middle = least + (beyond - least) / 2;
        if fits(middle) { least = middle } else { beyond = middle }
    }
    Ok(least)
}

/// A time for the eye.
pub(super) fn duration(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 99.5 => format!("{seconds:.0} s"),
        seconds if seconds < 99.5 * 60.0 => format!("{:.0} min", seconds / 60.0),
        seconds => format!("{:.1} h", seconds / 3600.0),
    }
}

/// A time with some room, as it is typed.
fn round_up(seconds: f64) -> String {
    match 1.15 * seconds {
        seconds if seconds < 60.0 => format!("{:.0}s", (seconds / 5.0).ceil() * 5.0),
        seconds => format!("{:.0}m", (seconds / 60.0).ceil()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(start: f64, step: f64, eval: f64) -> Cost {
        Cost {
            start_seconds: start,
            evidence_peak_bytes: None,
            step_seconds: step,
            eval_seconds: eval,
            parameters: 1,
            alignment: None,
            captured: None,
            start_difference: 0.0,
        }
    }

    #[test]
    fn the_most_steps_that_fit_are_chosen() {
        let (cheap, dear) = (cost(0.1, 0.5, 0.2), cost(3.0, 0.6, 0.2));
        let work: Vec<Work> =
            [&cheap, &dear].map(|cost| Work { cost, rates: 5, tuning_seeds: 1, seeds: 3 }).into();
        let chosen = steps(&work, 600.0, 20.0, "10m").unwrap();
        assert!(
            seconds(&work, chosen) <= 0.9 * 580.0 && seconds(&work, chosen + 1) > 0.9 * 580.0,
            "{chosen}"
        );
        // By hand: 7 runs of a quarter, 5 of a half, 3 whole.
        let by_hand = |cost: &Cost, steps: f64| {
            3.0 * (cost.start_seconds + steps * cost.step_seconds + 5.0 * 0.2)
                + cost.step_seconds * (7.0 * steps / 4.0 + 5.0 * steps / 2.0)
                + 12.0 * 0.2
        };
        let at = 16.0;
        assert!((seconds(&work, 16) - by_hand(&cheap, at) - by_hand(&dear, at)).abs() < 1e-9);
    }

    #[test]
    fn a_budget_that_is_too_small_names_one_that_would_do() {
        let cost = cost(1.0, 2.0, 1.0);
        let work = [Work { cost: &cost, rates: 5, tuning_seeds: 1, seeds: 3 }];
        let message = steps(&work, 30.0, 5.0, "30s").unwrap_err().to_string();
        let typed = message.split("give --budget ").nth(1).and_then(|rest| rest.split('m').next()).unwrap();
        let seconds = 60.0 * typed.parse::<f64>().unwrap();
        assert!(steps(&work, seconds, 5.0, "").is_ok(), "{message}");
        // A method whose rate is given needs no search.
        let fixed = [Work { rates: 0, ..work[0].clone() }];
        assert!(super::seconds(&fixed, 8) < super::seconds(&work, 8));
    }
}
