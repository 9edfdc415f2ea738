//! The leading singular triplets of a matrix that is at hand: exactly, or by subspace iteration.

use faer::MatRef;
use lowrank_linalg::{Sketch, Sketched, energy, randomised_svd, svd_in_f64};
use lowrank_record::Seed;

use crate::{InitError, Named};

/// Whether to pay for the full decomposition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exactness {
    /// Exact up to 512 on the shorter side (a tenth of a second), fast above.
    Auto,
    /// All singular values in f64, whatever it costs: about a minute at 4096².
    Exact,
    /// Randomised subspace iteration: ten to a hundred times cheaper at small ranks.
    Fast,
}

impl Named for Exactness {
    const NAMES: &'static [(&'static str, Self)] =
        &[("auto", Exactness::Auto), ("exact", Exactness::Exact), ("fast", Exactness::Fast)];
}

/// Where "auto" stops being exact.
const AUTO: usize = 512;

/// How to find leading triplets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leading {
    /// Exact or fast.
    pub exactness: Exactness,
    /// Columns beyond those asked for, when fast.
    pub oversampling: usize,
    /// Power iterations, when fast.
    pub power: usize,
}

impl Leading {
    /// The leading `count` triplets of `matrix: [out, in]`, its energy, and which way was taken.
    ///
    /// # Errors
    /// [`InitError::Linalg`].
    pub fn of(
        &self,
        method: &'static str,
        matrix: MatRef<'_, f32>,
        count: usize,
        seed: Seed,
    ) -> Result<(Sketched, Exactness), InitError> {
        let shorter = matrix.nrows().min(matrix.ncols());
        if self.exactness == Exactness::Exact || (self.exactness == Exactness::Auto && shorter <= AUTO) {
            let svd = svd_in_f64(matrix).map_err(InitError::linalg(method))?.head(count);
            return Ok((Sketched { svd, energy: energy(matrix), exact: true }, Exactness::Exact));
        }
        let sketch = Sketch { oversampling: self.oversampling, power: self.power };
        let found = randomised_svd(&matrix, count, sketch, seed).map_err(InitError::linalg(method))?;
        Ok((found, Exactness::Fast))
    }
}
