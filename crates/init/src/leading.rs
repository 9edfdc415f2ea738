//! The leading singular triplets of a matrix: exactly, or by subspace iteration.

use faer::MatRef;
use lowrank_linalg::{
    LinalgError, Operator, OuterProducts, Sketch, Sketched, SubspaceIteration, energy, finite,
    randomised_svd, svd_in_f64,
};
use lowrank_record::Seed;

use crate::{GradientMap, Named};

/// Whether to pay for the full decomposition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exactness {
    /// Exact up to 128 on the shorter side, fast above.
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
const AUTO: usize = 128;

/// Which leading triplets of a matrix are wanted, and how they are found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Leading {
    /// How many; a matrix whose shorter side has fewer gives all it has.
    pub count: usize,
    /// Exact or fast.
    pub exactness: Exactness,
    /// The randomised decomposition, where it is fast.
    pub sketch: Sketch,
    /// Of what: the matrix itself, or a map of it. Decompositions of a gradient here apply it.
    pub of: GradientMap,
}

impl Leading {
    /// Whether a matrix with this many values on its shorter side is decomposed exactly.
    #[must_use]
    pub fn is_exact(&self, shorter: usize) -> bool {
        self.exactness == Exactness::Exact || (self.exactness == Exactness::Auto && shorter <= AUTO)
    }

    /// The leading triplets of (the map of) a matrix at hand, and its energy.
    ///
    /// # Errors
    /// As [`svd_in_f64`] and [`randomised_svd`].
    pub fn of(&self, matrix: MatRef<'_, f32>, seed: Seed) -> Result<Sketched, LinalgError> {
        if !self.of.is_linear() {
            // A map may hide what is not a number: the sign of infinity is 1.
            finite(matrix)?;
            let itself = Leading { of: GradientMap::Itself, ..*self };
            return itself.of(self.of.apply(matrix).as_ref(), seed);
        }
        let shorter = matrix.nrows().min(matrix.ncols());
        if self.is_exact(shorter) {
            let svd = svd_in_f64(matrix)?.head(self.count);
            return Ok(Sketched { svd, energy: energy(matrix), exact: true });
        }
        randomised_svd(&matrix, self.count.min(shorter), self.sketch, seed)
    }

    /// The leading triplets of a gradient that is a sum of outer products: formed (and dropped right here) where that
    /// must be or costs less, multiplied with otherwise. A map that is not linear needs all of it. Where the sum is `weight`
    /// times the gradient of the mean loss, the map is [`GradientMap::of_sum`] of that.
    ///
    /// # Errors
    /// As [`Leading::of`].
    pub fn of_outer(&self, gradient: &OuterProducts<'_>, seed: Seed) -> Result<Sketched, LinalgError> {
        let shorter = gradient.rows().min(gradient.cols());
        let width = self.sketch.width(self.count, shorter);
        if !self.of.is_linear()
            || self.is_exact(shorter)
            || gradient.is_cheaper_formed(self.sketch.passes(), width)
        {
            return self.of(gradient.form().as_ref(), seed);
        }
        randomised_svd(gradient, self.count.min(shorter), self.sketch, seed)
    }

    /// The same decomposition one pass at a time, for a gradient `[out, inp]` that comes in batches; always the fast one.
    ///
    /// # Errors
    /// As [`SubspaceIteration::start`]; [`LinalgError::Passes`] for a map of the gradient, which needs it whole.
    pub fn in_passes(&self, out: usize, inp: usize, seed: Seed) -> Result<SubspaceIteration, LinalgError> {
        if !self.of.is_linear() {
            let problem =
                "a start from a map of the gradient needs all of it at once; give one calibration batch";
            return Err(LinalgError::Passes { planned: self.sketch.passes(), done: 0, problem });
        }
        let width = self.sketch.width(self.count, out.min(inp));
        SubspaceIteration::start(seed, out, inp, width, self.sketch.passes())
    }
}
