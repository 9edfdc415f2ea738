//! The election of a sign for each entry, and the mean of those that agree with it.

use super::part::Task;

/// What decides the sign of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Election {
    /// The sign of the sum of the adapters' entries, before they are weighted.
    Total,
    /// The sign that more adapters have, however large their entries are.
    Frequency,
}

impl Election {
    /// Whether the elected sign of an entry is positive; a tie is.
    fn is_positive(self, entries: impl Iterator<Item = f32>) -> bool {
        match self {
            Election::Total => entries.map(f64::from).sum::<f64>() >= 0.0,
            Election::Frequency => entries.map(sign).sum::<i64>() >= 0,
        }
    }
}

fn sign(entry: f32) -> i64 {
    i64::from(entry > 0.0) - i64::from(entry < 0.0)
}

/// Elects a sign for each entry, and gives the weighted sum of the entries of that sign divided by their number. An entry of
/// zero has no sign: it neither counts in the sum nor in the number.
pub(super) fn disjoint_mean(tasks: &[Task], election: Election) -> Vec<f32> {
    let entries = tasks.first().map_or(0, |task| task.values.len());
    let mean = |entry: usize| {
        let elected = if election.is_positive(tasks.iter().map(|task| task.values[entry])) { 1 } else { -1 };
        let (mut sum, mut count) = (0.0, 0_u32);
        for task in tasks.iter().filter(|task| sign(task.values[entry]) == elected) {
            sum += task.weight * f64::from(task.values[entry]);
            count += 1;
        }
        (sum / f64::from(count.max(1))) as f32
    };
    (0..entries).map(mean).collect()
}
