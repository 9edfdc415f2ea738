//! What a list of singular values says about the size and the dimension of a matrix. All functions take singular values
//! (not their squares), need them finite and non-negative, and give 0 for a zero matrix.

/// `exp(H(p))`, `p = σ/Σσ`, H the Shannon entropy: 1 for one direction, k for k equal ones (Roy and Vetterli, "The
/// Effective Rank: A Measure of Effective Dimensionality", 2007).
#[must_use]
pub fn effective_rank(values: &[f64]) -> f64 {
    let sum: f64 = values.iter().sum();
    if sum <= 0.0 {
        return 0.0;
    }
    let parts = values.iter().map(|value| value / sum).filter(|&p| p > 0.0);
    parts.map(|p| -p * p.ln()).sum::<f64>().exp()
}

/// Below this part of the largest singular value a direction is rounding, not part of the matrix.
const NO_DIRECTION: f64 = 1e-6;

/// How many of these singular values, in descending order, are more than rounding in f32: above 1e-6 of the largest.
#[must_use]
pub fn directions(values: &[f64]) -> usize {
    let largest = values.first().copied().unwrap_or(0.0);
    values.iter().filter(|&&value| value > NO_DIRECTION * largest).count()
}

/// `‖A‖²_F / σ₁²`: at most the rank, and blind to small values.
#[must_use]
pub fn stable_rank(values: &[f64]) -> f64 {
    let largest = values.iter().fold(0.0_f64, |most, &value| most.max(value));
    if largest > 0.0 { squares(values).map(|square| square / (largest * largest)).sum() } else { 0.0 }
}

/// `(Σσ²)² / Σσ⁴`: how many directions share the energy.
#[must_use]
pub fn participation_ratio(values: &[f64]) -> f64 {
    let largest = values.iter().fold(0.0_f64, |most, &value| most.max(value));
    if largest <= 0.0 {
        return 0.0;
    }
    // Fourth powers overflow early; the ratio does not change when all values are divided by the largest.
    let shares = || values.iter().map(|value| (value / largest).powi(2));
    shares().sum::<f64>().powi(2) / shares().map(|share| share * share).sum::<f64>()
}

/// The part of `Σσ²` in the first `rank` values, 0 to 1; 1 for a zero matrix, of which nothing is missing.
#[must_use]
pub fn energy_fraction(values: &[f64], rank: usize) -> f64 {
    let all: f64 = squares(values).sum();
    if all > 0.0 { squares(&values[..rank.min(values.len())]).sum::<f64>() / all } else { 1.0 }
}

/// The smallest rank whose leading values hold at least this part of `Σσ²`; `values` descending. All of them when
/// rounding keeps the sum below the part asked for.
#[must_use]
pub fn rank_for_energy(values: &[f64], fraction: f64) -> usize {
    let all: f64 = squares(values).sum();
    let mut held = 0.0;
    for (index, square) in squares(values).enumerate() {
        if held >= fraction * all {
            return index;
        }
        held += square;
    }
    values.len()
}

fn squares(values: &[f64]) -> impl Iterator<Item = f64> + '_ {
    values.iter().map(|value| value * value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_count_themselves_and_zeros_count_nothing() {
        let values = [2.0, 2.0, 2.0, 0.0];
        for found in [effective_rank(&values), stable_rank(&values), participation_ratio(&values)] {
            assert!((found - 3.0).abs() < 1e-12, "{found}");
        }
        assert_eq!(effective_rank(&[0.0]), 0.0);
        assert_eq!(participation_ratio(&[]), 0.0);
    }

    #[test]
    fn rounding_is_no_direction() {
        assert_eq!(directions(&[3.0, 1.0, 3.1e-6, 2.9e-6, 0.0]), 3);
        assert_eq!(directions(&[0.0, 0.0]), 0);
    }

    #[test]
    fn a_hand_worked_spectrum() {
        let values = [3.0, 1.0];
        // Squares 9 and 1; p = 3/4 and 1/4.
        assert!((stable_rank(&values) - 10.0 / 9.0).abs() < 1e-12);
        assert!((participation_ratio(&values) - 100.0 / 82.0).abs() < 1e-12);
        let entropy = -(0.75 * 0.75_f64.ln() + 0.25 * 0.25_f64.ln());
        assert!((effective_rank(&values) - entropy.exp()).abs() < 1e-12);
        assert!((energy_fraction(&values, 1) - 0.9).abs() < 1e-12);
        assert_eq!((rank_for_energy(&values, 0.85), rank_for_energy(&values, 0.95)), (1, 2));
        assert_eq!((rank_for_energy(&values, 0.0), rank_for_energy(&values, 1.0)), (0, 2));
    }
}
