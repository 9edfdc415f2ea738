//! The control cut to rank r: `U_r·S_r·V_rᵀ` of its singular value decomposition (Liu et al., 2024, and their `main.py`). At r = n nothing is cut, and
//! the control itself is given.

use faer::{Mat, MatRef};
use lowrank_linalg::svd_in_f64;
use lowrank_record::Seed;

use super::{Connectivity, Entry};
use crate::regimes::RegimeError;

pub(super) const ENTRY: Entry =
    Entry { name: "truncated", summary: "the Gaussian control cut to its leading singular triplets" };

/// The control cut to a rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Truncated {
    /// From 1 to the number of units.
    pub rank: usize,
}

impl Connectivity for Truncated {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn draw(&self, control: MatRef<'_, f64>, _seed: Seed) -> Result<Mat<f64>, RegimeError> {
        leading(control, self.rank)
    }
}

/// The leading triplets of a matrix `[n, n]`.
pub(super) fn leading(weights: MatRef<'_, f64>, rank: usize) -> Result<Mat<f64>, RegimeError> {
    let size = weights.nrows();
    match rank {
        0 => Err(RegimeError::Rank { rank, size }),
        rank if rank > size => Err(RegimeError::Rank { rank, size }),
        rank if rank == size => Ok(weights.to_owned()),
        rank => Ok(svd_in_f64(weights)?.head(rank).reconstruct()),
    }
}
