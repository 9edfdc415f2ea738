//! Dale's law: a unit excites or inhibits, so a column has one sign, `W_ij = s_j·|ε_ij|`.
//!
//! Balanced, the columns of the few inhibitory units are larger by `n_E/n_I`, so that a row sums to zero on average; unbalanced, one singular value of the
//! order of √n stands out. Whether the paper's were balanced is not known. The signs hold at the start; training keeps them only where
//! [`crate::regimes::Training::column_signs`] is given.

use faer::{Mat, MatRef};
use lowrank_record::Seed;

use super::{Connectivity, Entry, normal, shares};
use crate::regimes::RegimeError;

pub(super) const ENTRY: Entry = Entry {
    name: "dale",
    summary: "columns of one sign, excitatory ones first; balanced or with excitation ahead",
};

/// Columns of one sign.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dale {
    /// The share of excitatory units, above 0 and below 1; 0.8 in cortex.
    pub excitatory: f64,
    /// Whether inhibition is as strong as excitation.
    pub balanced: bool,
}

impl Dale {
    /// The sign of each unit, excitatory ones first.
    ///
    /// # Errors
    /// [`RegimeError::Value`] where one of the two kinds would have no unit.
    pub fn signs(&self, size: usize) -> Result<Vec<f64>, RegimeError> {
        let valid = self.excitatory > 0.0 && self.excitatory < 1.0;
        let counts = if valid { shares(&[self.excitatory, 1.0 - self.excitatory], size) } else { vec![0, 0] };
        if counts.contains(&0) {
            return Err(RegimeError::Value {
                what: "share of excitatory units",
                found: self.excitatory,
                wanted: "a number between 0 and 1 that leaves units of both kinds",
            });
        }
        Ok((0..size).map(|j| if j < counts[0] { 1.0 } else { -1.0 }).collect())
    }
}

impl Connectivity for Dale {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn draw(&self, control: MatRef<'_, f64>, seed: Seed) -> Result<Mat<f64>, RegimeError> {
        let size = control.nrows();
        let signs = self.signs(size)?;
        let excite = signs.iter().filter(|sign| **sign > 0.0).count();
        let ratio = if self.balanced { excite as f64 / (size - excite) as f64 } else { 1.0 };
        let draws = normal(size, size, seed);
        let factor = |j: usize| if signs[j] > 0.0 { 1.0 } else { -ratio };
        Ok(Mat::from_fn(size, size, |i, j| factor(j) * draws[(i, j)].abs()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lowrank_linalg::svd_in_f64;

    #[test]
    fn columns_have_one_sign_and_balance_takes_the_outlier_away() {
        let size = 100;
        let control = Mat::<f64>::zeros(size, size);
        let draw =
            |balanced: bool| Dale { excitatory: 0.8, balanced }.draw(control.as_ref(), Seed(4)).unwrap();
        let (balanced, ahead) = (draw(true), draw(false));
        for (i, j) in (0..size * size).map(|at| (at / size, at % size)) {
            assert!(balanced[(i, j)] * if j < 80 { 1.0 } else { -1.0 } >= 0.0);
        }
        let mean =
            |weights: &Mat<f64>| (0..size).map(|i| weights.row(i).iter().sum::<f64>()).sum::<f64>() / 1e4;
        // 8000 draws of mean 0.798 against 2000 of four times that: 0 ± 0.014; ahead, 0.6·0.798.
        assert!(mean(&balanced).abs() < 0.06 && (mean(&ahead) - 0.479).abs() < 0.04);
        let top = |weights: &Mat<f64>| {
            let values = svd_in_f64(weights.as_ref()).unwrap().values;
            values[0] / values[1]
        };
        // E|ε| = 0.8 in each of 100·100 places: a singular value of 80 against the bulk's 2·0.6·10.
        assert!(top(&ahead) > 4.0, "{}", top(&ahead));
        assert!(Dale { excitatory: 1.0, balanced: true }.signs(10).is_err());
        assert!(Dale { excitatory: 0.99, balanced: true }.signs(3).is_err());
    }
}
