//! Leading singular triplets of a matrix that can only be multiplied with: randomised subspace iteration.
//!
//! Source and arithmetic: see [`crate::SubspaceIteration`], which this drives over an [`Operator`].

use lowrank_record::Seed;

use crate::{LinalgError, Operator, Side, SubspaceIteration, Svd};

/// How much work a randomised SVD does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sketch {
    /// Columns beyond the rank asked for; the width is cut to min(rows, cols). More is more accurate and dearer.
    pub oversampling: usize,
    /// Power iterations, each two more products with the matrix. Zero is poor on flat spectra.
    pub power: usize,
}

impl Sketch {
    /// Twice the rank (eight columns more at least) and two power iterations: on a flat spectrum, as gradients have, one
    /// or none loses directions (`init/tests/lora_ga.rs` holds what two keep of the best first step).
    #[must_use]
    pub fn for_rank(rank: usize) -> Sketch {
        Sketch { oversampling: rank.max(8), power: 2 }
    }

    /// Columns for the leading `rank` triplets of a matrix with `shorter` rows or columns, whichever are fewer.
    #[must_use]
    pub fn width(&self, rank: usize, shorter: usize) -> usize {
        rank.saturating_add(self.oversampling).min(shorter)
    }

    /// Products with the matrix: one to find a subspace, one to see the matrix in it, two for each power iteration.
    #[must_use]
    pub fn passes(&self) -> usize {
        2 * self.power + 2
    }
}

/// What a randomised SVD found, and how much of the matrix it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Sketched {
    /// The leading triplets. Each value is at most the true one, up to rounding.
    pub svd: Svd,
    /// `‖M‖²_F` of the whole matrix.
    pub energy: f64,
    /// Whether `energy` is exact; otherwise it is the estimate `‖MΩ‖²_F / q` of the first product (unbiased, of
    /// relative standard deviation `√(2/q)` at most), or the energy of the triplets where that is larger.
    pub exact: bool,
}

impl Sketched {
    /// The part of the energy that the triplets hold, 0 to 1; 1 for a zero matrix.
    #[must_use]
    pub fn captured(&self) -> f64 {
        if self.energy > 0.0 { (self.svd.energy() / self.energy).min(1.0) } else { 1.0 }
    }
}

/// The leading `rank` triplets of `matrix`, from [`Sketch::passes`] products with [`Sketch::width`] columns.
///
/// # Errors
/// [`LinalgError::Rank`] for a rank of 0 or above min(rows, cols), [`LinalgError::NonFinite`],
/// [`LinalgError::NoConvergence`].
pub fn randomised_svd(
    matrix: &dyn Operator,
    rank: usize,
    sketch: Sketch,
    seed: Seed,
) -> Result<Sketched, LinalgError> {
    let (rows, cols) = (matrix.rows(), matrix.cols());
    if rank == 0 || rank > rows.min(cols) {
        return Err(LinalgError::Rank { rank, rows, cols });
    }
    let width = sketch.width(rank, rows.min(cols));
    let mut iteration = SubspaceIteration::start(seed, rows, cols, width, sketch.passes())?;
    while iteration.passes_left() > 0 {
        let product = match iteration.side() {
            Side::Forward => matrix.apply(iteration.multiplier()),
            Side::Transpose => matrix.apply_transpose(iteration.multiplier()),
        };
        iteration.absorb(product.as_ref())?;
        iteration.end_pass()?;
    }
    iteration.finish(rank, matrix.energy())
}
