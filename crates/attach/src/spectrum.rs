//! What is known of a matrix's singular values: all of them, or the leading ones and what all hold together.

use faer::MatRef;
use lowrank_linalg::{
    LinalgError, Operator as _, Sketch, effective_rank, participation_ratio, randomised_svd, singular_values,
};
use lowrank_record::Seed;

/// Singular values of a matrix, descending.
#[derive(Debug, Clone, PartialEq)]
pub struct Spectrum {
    /// All of them, or the leading ones.
    pub values: Vec<f64>,
    /// `Σσ²` over all, also those that are not listed.
    pub energy: f64,
    /// Whether all are listed.
    pub is_whole: bool,
}

impl Spectrum {
    /// All values where the shorter side has no more than `whole`, the leading `count` otherwise.
    ///
    /// # Errors
    /// As [`singular_values`] and [`randomised_svd`].
    pub fn of(
        matrix: MatRef<'_, f32>,
        count: usize,
        whole: usize,
        seed: Seed,
    ) -> Result<Spectrum, LinalgError> {
        let (rows, cols) = matrix.shape();
        let shorter = rows.min(cols);
        if shorter <= whole {
            let values = singular_values(matrix)?;
            let energy = values.iter().rev().map(|value| value * value).sum();
            return Ok(Spectrum { values, energy, is_whole: true });
        }
        let count = count.clamp(1, shorter);
        let found = randomised_svd(&matrix, count, Sketch::for_rank(count), seed)?;
        let energy = matrix.energy().unwrap_or(found.energy);
        Ok(Spectrum { values: found.svd.values, energy, is_whole: count == shorter })
    }

    /// The exponential of the spectrum's entropy, where all values are known.
    #[must_use]
    pub fn effective_rank(&self) -> Option<f64> {
        self.is_whole.then(|| effective_rank(&self.values))
    }

    /// `(Σσ²)²/Σσ⁴`, where all values are known.
    #[must_use]
    pub fn participation(&self) -> Option<f64> {
        self.is_whole.then(|| participation_ratio(&self.values))
    }

    /// `Σσ²/σ₁²`.
    #[must_use]
    pub fn stable_rank(&self) -> f64 {
        let largest = self.values.first().copied().unwrap_or(0.0);
        if largest > 0.0 { self.energy / (largest * largest) } else { 0.0 }
    }

    /// The part of `Σσ²` that the leading `rank` values hold, 0 to 1; 1 for a zero matrix.
    #[must_use]
    pub fn share(&self, rank: usize) -> f64 {
        if self.energy <= 0.0 {
            return 1.0;
        }
        let held: f64 = self.values.iter().take(rank).map(|value| value * value).sum();
        (held / self.energy).min(1.0)
    }

    /// The smallest rank whose leading values hold this part of `Σσ²`; `None` where it is more than are known.
    #[must_use]
    pub fn rank_for(&self, share: f64) -> Option<usize> {
        let mut held = 0.0;
        for (index, value) in self.values.iter().enumerate() {
            if held >= share * self.energy {
                return Some(index);
            }
            held += value * value;
        }
        (self.is_whole || held >= share * self.energy).then_some(self.values.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lowrank_linalg::from_rows;

    #[test]
    fn the_leading_part_tells_what_the_whole_does() {
        // Fast decay, so that the sketch has it exactly.
        let (a, b) = (Seed(1).normal(20 * 16), Seed(2).normal(16 * 18));
        let (a, b) = (from_rows(&a, 20, 16).unwrap(), from_rows(&b, 16, 18).unwrap());
        let decay =
            faer::Mat::<f32>::from_fn(16, 16, |i, j| if i == j { 0.3_f32.powi(i as i32) } else { 0.0 });
        let matrix = a * decay * b;
        let whole = Spectrum::of(matrix.as_ref(), 6, 100, Seed(3)).unwrap();
        let part = Spectrum::of(matrix.as_ref(), 6, 10, Seed(3)).unwrap();
        assert!(whole.is_whole && !part.is_whole && part.values.len() == 6);
        assert!(part.effective_rank().is_none() && whole.effective_rank().unwrap() > 1.0);
        for rank in [1, 3, 6] {
            assert!((whole.share(rank) - part.share(rank)).abs() < 1e-5);
        }
        assert!((whole.stable_rank() / part.stable_rank() - 1.0).abs() < 1e-5);
        assert_eq!(whole.rank_for(0.99), part.rank_for(0.99));
        assert_eq!((part.rank_for(1.0), whole.rank_for(1.0).is_some()), (None, true));
        let zero = Spectrum { values: vec![0.0], energy: 0.0, is_whole: true };
        assert_eq!((zero.share(1), zero.rank_for(0.9), zero.stable_rank()), (1.0, Some(0), 0.0));
    }
}
