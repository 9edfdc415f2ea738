//! Dropping entries: all but the largest, or at random.

use lowrank_record::Seed;

use super::part::Task;
use super::{CombinationError, Settings};

/// Where the random masks of DARE come from: a [`Seed`], or masks from outside that reproduce another program's draws.
pub trait Masks {
    /// Which entries of a tensor stay, in row-major order: `entries` answers, each true with probability `density`. `part` is the
    /// index of the adapter among those combined, `tensor` is `left`, `right` or `change`.
    fn keep(&self, part: usize, tensor: &'static str, entries: usize, density: f64) -> Vec<bool>;
}

impl Masks for Seed {
    fn keep(&self, part: usize, tensor: &'static str, entries: usize, density: f64) -> Vec<bool> {
        // Uniform on [-½, ½).
        let draws = self.at("adapter", &part.to_string()).at("tensor", tensor).uniform(entries, 0.5);
        draws.into_iter().map(|draw| f64::from(draw) + 0.5 < density).collect()
    }
}

/// The density, which must be there and above 0 and at most 1.
pub(super) fn density(method: &'static str, settings: &Settings<'_>) -> Result<f64, CombinationError> {
    match settings.density {
        None => Err(CombinationError::NoDensity { method }),
        Some(density) if density > 0.0 && density <= 1.0 => Ok(density),
        Some(density) => Err(CombinationError::Density { density }),
    }
}

/// Keeps the `⌊density · entries⌋` entries of largest magnitude of each tensor; among equals the earlier ones.
pub(super) fn keep_largest(tasks: &mut [Task], density: f64) -> Result<(), CombinationError> {
    if density >= 1.0 {
        return Ok(());
    }
    for Task { values, .. } in tasks {
        let entries = values.len();
        let kept = (density * entries as f64) as usize;
        if kept == 0 {
            return Err(CombinationError::NothingKept { density, entries });
        }
        let mut order: Vec<usize> = (0..entries).collect();
        let larger_first =
            |&a: &usize, &b: &usize| values[b].abs().total_cmp(&values[a].abs()).then(a.cmp(&b));
        order.select_nth_unstable_by(kept - 1, larger_first);
        for &dropped in &order[kept..] {
            values[dropped] = 0.0;
        }
    }
    Ok(())
}

/// Keeps each entry with probability `density` and divides what stays by it, so that the mean is that of the whole tensor.
pub(super) fn keep_at_random(
    tasks: &mut [Task],
    tensor: &'static str,
    density: f64,
    masks: &dyn Masks,
) -> Result<(), CombinationError> {
    if density >= 1.0 {
        return Ok(());
    }
    for (part, Task { values, .. }) in tasks.iter_mut().enumerate() {
        let entries = values.len();
        let mask = masks.keep(part, tensor, entries, density);
        if mask.len() != entries {
            return Err(CombinationError::Mask { found: mask.len(), entries });
        }
        for (value, kept) in values.iter_mut().zip(mask) {
            *value = if kept { (f64::from(*value) / density) as f32 } else { 0.0 };
        }
    }
    Ok(())
}
