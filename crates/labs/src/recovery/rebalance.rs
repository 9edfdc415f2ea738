//! The one-step modification: the same product with factors that are far from balanced, after which the rate of descent no longer
//! depends on how small the start was (Xiong, Ding and Du, 2024, section 5). For adapters: make A orthonormal, put the scale into B.

use faer::Mat;
use lowrank_linalg::{multiply, svd_in_f64};

use super::error::positive;
use super::{Factors, RecoveryError};

/// When the factors are changed, and how.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rebalance {
    /// β, of the size of `√‖X*‖₂`.
    pub beta: f64,
    /// When.
    pub when: When,
}

/// The moment of the change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Before this step.
    Step(usize),
    /// When the loss is below a hundredth of the data's, or falls by less than a hundredth in a step after it had begun to fall:
    /// our trigger, the paper needs the iterate near the optimum and does not say how to know.
    Settled,
}

impl Factors {
    /// `L = U·S·Wᵀ` becomes `β·U`, R becomes `R·W·S/β`: the product is unchanged, and `LᵀL − RᵀR` becomes `β²·I − RᵀR`. No inverse of
    /// S is needed, so columns that are nearly zero do no harm.
    ///
    /// # Errors
    /// [`RecoveryError::Setting`], [`RecoveryError::Linalg`] when an entry is not finite.
    pub fn rebalance(&self, beta: f64) -> Result<Factors, RecoveryError> {
        positive("beta", beta)?;
        let svd = svd_in_f64(self.left.as_ref())?;
        let turned = multiply(self.right.as_ref(), svd.right.transpose());
        let right =
            Mat::from_fn(turned.nrows(), turned.ncols(), |i, j| turned[(i, j)] * svd.values[j] / beta);
        Factors::new(faer::Scale(beta) * svd.left, right)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lowrank_record::Seed;

    #[test]
    fn the_product_stays_and_the_left_factor_becomes_orthonormal() {
        let draws = Seed(2).normal(100);
        // The last column is zero: a direction that is not used.
        let left = Mat::from_fn(9, 4, |i, j| if j == 3 { 0.0 } else { f64::from(draws[4 * i + j]) });
        let factors =
            Factors::new(left, Mat::from_fn(7, 4, |i, j| f64::from(draws[40 + 4 * i + j]))).unwrap();
        let changed = factors.rebalance(1.5).unwrap();
        assert!(changed.distance(factors.product().as_ref()) < 1e-12 * factors.product().norm_l2());
        let gram = multiply(changed.left.transpose(), changed.left.as_ref());
        assert!((gram - faer::Scale(2.25) * Mat::<f64>::identity(4, 4)).norm_l2() < 1e-12);
        assert!(factors.rebalance(0.0).is_err());
    }
}
