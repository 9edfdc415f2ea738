//! Any descending spectrum in weights that excite only.
//!
//! A Soules basis: an orthonormal basis R whose first vector x is positive and whose others each tell the two halves of a block apart that an earlier
//! one held together. `R·diag(λ)·Rᵀ` is symmetric with the spectrum λ, and for `λ₁ ≥ … ≥ λ_n`, in the order of the splits, no entry off the
//! diagonal is negative; with `λ_n ≥ 0` none at all (Soules, "Constructing symmetric nonnegative matrices", 1983). The spectra `λ_i = i^−p` are ours:
//! those of the paper could not be read.

use std::collections::VecDeque;

use faer::{Mat, MatRef};
use lowrank_linalg::multiply;
use lowrank_record::Seed;
use rand::RngExt;

use super::{Connectivity, Entry};
use crate::regimes::RegimeError;

pub(super) const ENTRY: Entry = Entry {
    name: "soules",
    summary: "symmetric excitatory weights of the spectrum i^-p, from a Soules basis",
};

/// Symmetric excitatory weights of a spectrum.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Soules {
    /// p of the spectrum `i^−p`, i from 1: 0 is the identity, 2 nearly rank 1.
    pub decay: f64,
    /// How blocks are split.
    pub split: Split,
}

/// How a block of units is split in two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// In halves, the oldest block first.
    Balanced,
    /// At a random place of a random block.
    Random,
}

impl Connectivity for Soules {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn draw(&self, control: MatRef<'_, f64>, seed: Seed) -> Result<Mat<f64>, RegimeError> {
        if !(self.decay >= 0.0 && self.decay.is_finite()) {
            let wanted = "a finite number of at least 0";
            return Err(RegimeError::Value { what: "decay of the spectrum", found: self.decay, wanted });
        }
        let size = control.nrows();
        let basis = soules_basis(&vec![1.0; size], self.split, seed)?;
        let values: Vec<f64> = (1..=size).map(|i| (i as f64).powf(-self.decay)).collect();
        soules_matrix(basis.as_ref(), &values)
    }
}

/// The basis `[n, n]`, a vector a column, the first along `positive`; blocks are runs of consecutive units.
///
/// # Errors
/// [`RegimeError::Value`] where an entry of `positive` is not positive and finite.
pub fn soules_basis(positive: &[f64], split: Split, seed: Seed) -> Result<Mat<f64>, RegimeError> {
    if let Some(&found) = positive.iter().find(|x| !(**x > 0.0 && x.is_finite())) {
        let (what, wanted) = ("first vector of a Soules basis", "positive finite entries");
        return Err(RegimeError::Value { what, found, wanted });
    }
    let size = positive.len();
    let norm = |from: usize, to: usize| positive[from..to].iter().map(|x| x * x).sum::<f64>().sqrt();
    let mut basis = Mat::<f64>::zeros(size, size);
    let all = norm(0, size);
    (0..size).for_each(|i| basis[(i, 0)] = positive[i] / all);
    let mut rng = seed.rng();
    let mut blocks = VecDeque::from([(0, size)]);
    for vector in 1..size {
        blocks.retain(|(from, to)| to - from > 1);
        let chosen = if split == Split::Random { rng.random_range(0..blocks.len().max(1)) } else { 0 };
        let Some((from, to)) = blocks.remove(chosen) else { break };
        let middle = match split {
            Split::Balanced => from + (to - from) / 2,
            Split::Random => rng.random_range(from + 1..to),
        };
        let (first, second, both) = (norm(from, middle), norm(middle, to), norm(from, to));
        for i in from..to {
            let weight = if i < middle { second / first } else { -first / second };
            basis[(i, vector)] = weight * positive[i] / both;
        }
        blocks.extend([(from, middle), (middle, to)]);
    }
    Ok(basis)
}

/// `R·diag(values)·Rᵀ`, symmetric.
///
/// # Errors
/// [`RegimeError::Size`] where there is not a value for each vector.
pub fn soules_matrix(basis: MatRef<'_, f64>, values: &[f64]) -> Result<Mat<f64>, RegimeError> {
    if basis.ncols() != values.len() {
        let (what, wanted) = ("values of a spectrum", basis.ncols());
        return Err(RegimeError::Size { what, wanted, found: values.len() });
    }
    let scaled = Mat::from_fn(basis.nrows(), basis.ncols(), |i, j| basis[(i, j)] * values[j]);
    Ok(multiply(scaled.as_ref(), basis.transpose()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use lowrank_linalg::svd_in_f64;

    #[test]
    fn the_basis_is_orthonormal_and_the_matrix_has_the_spectrum_and_no_inhibition() {
        let uneven: Vec<f64> = (0..23).map(|i| 0.3 + f64::from(i % 5)).collect();
        for split in [Split::Balanced, Split::Random] {
            for (positive, seed) in [(vec![1.0; 16], 1), (uneven.clone(), 2), (uneven.clone(), 3)] {
                let basis = soules_basis(&positive, split, Seed(seed)).unwrap();
                let gram = multiply(basis.transpose(), basis.as_ref());
                let size = positive.len();
                let off = |i: usize, j: usize| (gram[(i, j)] - f64::from(u8::from(i == j))).abs();
                assert!((0..size * size).all(|at| off(at / size, at % size) < 1e-13));
                let values: Vec<f64> = (1..=size).map(|i| 2.0 / i as f64).collect();
                let weights = soules_matrix(basis.as_ref(), &values).unwrap();
                let found = svd_in_f64(weights.as_ref()).unwrap().values;
                assert!(found.iter().zip(&values).all(|(found, wanted)| (found - wanted).abs() < 1e-10));
                let below = |i: usize, j: usize| weights[(i, j)] < -1e-12;
                assert!(!(0..size * size).any(|at| below(at / size, at % size)));
            }
        }
    }

    #[test]
    fn a_spectrum_that_becomes_negative_keeps_the_entries_off_the_diagonal() {
        let basis = soules_basis(&[1.0; 12], Split::Random, Seed(9)).unwrap();
        let values: Vec<f64> = (0..12).map(|i| 3.0 - f64::from(i)).collect();
        let weights = soules_matrix(basis.as_ref(), &values).unwrap();
        for (i, j) in (0..144).map(|at| (at / 12, at % 12)) {
            assert!(i == j || weights[(i, j)] >= -1e-12, "{i} {j} {}", weights[(i, j)]);
        }
        // The eigenvectors are the basis: W·r = λ·r.
        let turned = multiply(weights.as_ref(), basis.as_ref());
        for (i, j) in (0..144).map(|at| (at / 12, at % 12)) {
            assert!((turned[(i, j)] - values[j] * basis[(i, j)]).abs() < 1e-10);
        }
    }

    #[test]
    fn what_is_no_positive_vector_is_refused() {
        assert!(soules_basis(&[1.0, 0.0], Split::Balanced, Seed(0)).is_err());
        let control = Mat::<f64>::zeros(4, 4);
        let decay = Soules { decay: -1.0, split: Split::Balanced };
        assert!(decay.draw(control.as_ref(), Seed(0)).is_err());
    }
}
