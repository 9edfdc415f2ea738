//! Motifs of two connections that are more frequent than chance: chains `k → j → i` and reciprocal pairs.
//!
//! `W_ij = a·G_ij + b·G_ji + s·(in_i + out_j)`, G, in and out standard normal, `a² + b² = 1` and `2ab = reciprocal`, so that `cov(W_ij, W_ji) = reciprocal`
//! before the rank-two part; that part, with `s² = strength` and `corr(in_i, out_i) = chain`, makes what a unit receives and what it sends go
//! together: `cov(W_ij, W_jk) = chain·strength`. The statistics are those of Zhao, Beverlin, Netoff and Nykamp ("Synchronization from second
//! order network connectivity statistics", 2011); this Gaussian construction of them is ours. Chains are of low rank: they add two directions.

use faer::{Mat, MatRef};
use lowrank_record::Seed;

use super::{Connectivity, Entry, normal};
use crate::regimes::RegimeError;

pub(super) const ENTRY: Entry = Entry {
    name: "motif",
    summary: "Gaussian weights with more chains and reciprocal pairs than chance has",
};

/// Gaussian weights with motifs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Motif {
    /// Correlation of a unit's in- and out-strength, from −1 to 1.
    pub chain: f64,
    /// Variance of the strengths, relative to that of the single weights; 0 has no chains.
    pub strength: f64,
    /// Covariance of the two weights of a pair, from −1 to 1.
    pub reciprocal: f64,
}

impl Connectivity for Motif {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn draw(&self, control: MatRef<'_, f64>, seed: Seed) -> Result<Mat<f64>, RegimeError> {
        for (what, found) in [("chain", self.chain), ("reciprocal", self.reciprocal)] {
            if !(-1.0..=1.0).contains(&found) {
                return Err(RegimeError::Value { what, found, wanted: "a number from -1 to 1" });
            }
        }
        if !(self.strength >= 0.0 && self.strength.is_finite()) {
            let wanted = "a finite number of at least 0";
            return Err(RegimeError::Value { what: "strength", found: self.strength, wanted });
        }
        let size = control.nrows();
        let pairs = normal(size, size, seed.at("motif", "pairs"));
        let strengths = normal(size, 2, seed.at("motif", "strengths"));
        // 2ab = sin 2φ for a = cos φ and b = sin φ.
        let angle = self.reciprocal.asin() / 2.0;
        let (b, a) = angle.sin_cos();
        let s = self.strength.sqrt();
        let out = |j: usize| {
            self.chain * strengths[(j, 0)] + (1.0 - self.chain * self.chain).sqrt() * strengths[(j, 1)]
        };
        Ok(Mat::from_fn(size, size, |i, j| {
            a * pairs[(i, j)] + b * pairs[(j, i)] + s * (strengths[(i, 0)] + out(j))
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn covariances_are_those_asked_for() {
        let size = 400;
        let control = Mat::<f64>::zeros(size, size);
        let mean = |weights: &Mat<f64>| {
            let pairs = (0..size).flat_map(|i| (0..size).map(move |j| (i, j))).filter(|(i, j)| i != j);
            let (mut both, mut count) = (0.0, 0.0);
            for (i, j) in pairs {
                both += weights[(i, j)] * weights[(j, i)];
                count += 1.0;
            }
            both / count
        };
        let pairs = Motif { chain: 0.0, strength: 0.0, reciprocal: 0.6 };
        // Off by 1/400 of a deviation near 1.
        assert!((mean(&pairs.draw(control.as_ref(), Seed(1)).unwrap()) - 0.6).abs() < 0.015);
        let chains = Motif { chain: 0.8, strength: 0.5, reciprocal: 0.0 };
        let weights = chains.draw(control.as_ref(), Seed(2)).unwrap();
        let chain = (0..size).map(|j| {
            let sum = |values: &mut dyn Iterator<Item = f64>| values.sum::<f64>() / size as f64;
            sum(&mut weights.row(j).iter().copied()) * sum(&mut weights.col(j).iter().copied())
        });
        // chain·strength = 0.4, plus the mean of the strengths squared; off by 1/√400 of about 0.65.
        assert!((chain.sum::<f64>() / size as f64 - 0.4).abs() < 0.13);
        assert!(Motif { chain: 2.0, ..chains }.draw(control.as_ref(), Seed(2)).is_err());
        assert!(Motif { strength: -1.0, ..chains }.draw(control.as_ref(), Seed(2)).is_err());
    }
}
