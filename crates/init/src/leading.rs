//! The leading singular triplets of a matrix that is at hand: exactly, or by subspace iteration.

use faer::MatRef;
use lowrank_linalg::{Sketch, Sketched, energy, randomised_svd, svd_in_f64};
use lowrank_record::Seed;

use crate::{InitError, Named};

/// Whether to pay for the full decomposition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exactness {
    /// Exact up to 512 on the shorter side, fast above.
    Auto,
    /// All singular values in f64, whatever it costs: of the order of out·in·min(out, in) operations.
    Exact,
    /// Randomised subspace iteration: of the order of out·in·rank operations.
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
    /// Whether a matrix with this many values on its shorter side is decomposed exactly.
    #[must_use]
    pub fn is_exact(&self, shorter: usize) -> bool {
        self.exactness == Exactness::Exact || (self.exactness == Exactness::Auto && shorter <= AUTO)
    }

    /// The randomised decomposition, where it is not exact.
    #[must_use]
    pub fn sketch(&self) -> Sketch {
        Sketch { oversampling: self.oversampling, power: self.power }
    }

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
        if self.is_exact(matrix.nrows().min(matrix.ncols())) {
            let svd = svd_in_f64(matrix).map_err(InitError::linalg(method))?.head(count);
            return Ok((Sketched { svd, energy: energy(matrix), exact: true }, Exactness::Exact));
        }
        let found = randomised_svd(&matrix, count, self.sketch(), seed).map_err(InitError::linalg(method))?;
        Ok((found, Exactness::Fast))
    }
}
