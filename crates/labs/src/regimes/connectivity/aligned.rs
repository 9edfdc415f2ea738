//! Low rank along the task: the leading singular triplets of a matrix that knows it.
//!
//! A low rank makes learning lazy instead of rich where it already points where learning would go (Liu et al., 2024, their Proposition 1; here in
//! closed form in [`crate::regimes::linear`]). For a recurrent network there is no formula for that direction, so it is taken from the change that
//! another training on the task made. That choice is ours.

use faer::{Mat, MatRef};
use lowrank_record::Seed;

use super::truncated::leading;
use super::{Connectivity, Entry};
use crate::regimes::RegimeError;

pub(super) const ENTRY: Entry =
    Entry { name: "aligned", summary: "the leading singular triplets of a change that the task itself made" };

/// Low rank along a given direction.
#[derive(Debug, Clone, PartialEq)]
pub struct Aligned {
    /// What knows the task, `[n, n]`: a learned change of the weights.
    pub direction: Mat<f64>,
    /// From 1 to the number of units.
    pub rank: usize,
}

impl Connectivity for Aligned {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn draw(&self, control: MatRef<'_, f64>, _seed: Seed) -> Result<Mat<f64>, RegimeError> {
        super::given::of_size(&self.direction, control.nrows())?;
        leading(self.direction.as_ref(), self.rank)
    }
}
