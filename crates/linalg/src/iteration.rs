//! Subspace iteration one pass at a time, for a matrix G `[out, in]` that exists only as a stream of batches:
//! `Y = GΩ`, `Q = orth(Y)`, `Z = GᵀQ`, `P = orth(Z)`, `Y = GP`, ...; the last product is the core whose SVD is the answer.
//!
//! Each product is a sum over batches, `G·P = Σ δᵀ(X·P)` and `Gᵀ·Q = Σ Xᵀ(δ·Q)`, so a pass runs the same batches again
//! and adds up `[out, q]` or `[in, q]` values: memory `O((out + in)·q)` instead of `O(out·in)`.
//!
//! Source: Halko, Martinsson, Tropp, "Finding Structure with Randomness", 2011, algorithms 4.4 and 5.1. Where we differ:
//! any number of passes from two on is allowed (theirs are even; a half step on either side is as good), and each
//! half step is orthonormalised in f64.

use faer::{Mat, MatRef, unzip, zip};
use lowrank_record::Seed;

use crate::basis::{basis_in_f64, tall_qr};
use crate::operator::outer_shapes;
use crate::product::{add_over_tokens, energy, finite, multiply, narrow, widen};
use crate::qr::Qr;
use crate::{LinalgError, Sketched, Svd, svd_in_f64};

/// Which product a pass needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// `G · multiplier`, the multiplier `[in, q]`, the product `[out, q]`.
    Forward,
    /// `Gᵀ · multiplier`, the multiplier `[out, q]`, the product `[in, q]`.
    Transpose,
}

/// A subspace iteration in progress.
///
/// ```
/// # use faer::Mat;
/// # use lowrank_linalg::SubspaceIteration;
/// # use lowrank_record::Seed;
/// # let batches = vec![(Mat::<f32>::from_fn(3, 6, |i, j| (i + j) as f32), Mat::<f32>::from_fn(3, 5, |i, j| (i * j) as f32))];
/// let mut iteration = SubspaceIteration::start(Seed(1), 6, 5, 4, 6)?;
/// while iteration.passes_left() > 0 {
///     for (delta, x) in &batches {
///         iteration.absorb_outer(delta.as_ref(), x.as_ref())?;
///     }
///     iteration.end_pass()?;
/// }
/// let gradient = iteration.finish(2, None)?.svd;
/// # assert_eq!(gradient.rank(), 2);
/// # Ok::<(), lowrank_linalg::LinalgError>(())
/// ```
#[derive(Debug, Clone)]
pub struct SubspaceIteration {
    out: usize,
    inp: usize,
    planned: usize,
    done: usize,
    /// What this pass multiplies with: random numbers first, an orthonormal basis afterwards.
    multiplier: Mat<f32>,
    /// The product so far, in f64 so that many small batches are not lost beside their sum.
    sum: Mat<f64>,
    estimate: f64,
}

impl SubspaceIteration {
    /// Plans `passes` products (two at least; `2·p + 2` is p full power iterations) of `width` columns with a matrix
    /// `[out, inp]`.
    ///
    /// # Errors
    /// [`LinalgError::Rank`] for a width of 0 or above min(out, inp), [`LinalgError::Passes`] for fewer than two passes.
    pub fn start(
        seed: Seed,
        out: usize,
        inp: usize,
        width: usize,
        passes: usize,
    ) -> Result<Self, LinalgError> {
        if width == 0 || width > out.min(inp) {
            return Err(LinalgError::Rank { rank: width, rows: out, cols: inp });
        }
        if passes < 2 {
            let problem =
                "it takes one pass to find a subspace and one to see the matrix in it; plan two at least";
            return Err(LinalgError::Passes { planned: passes, done: 0, problem });
        }
        let draws = seed.at("sketch", "test matrix").normal(inp * width);
        let multiplier = Mat::from_fn(inp, width, |i, j| draws[j * inp + i]);
        Ok(SubspaceIteration {
            out,
            inp,
            planned: passes,
            done: 0,
            multiplier,
            sum: Mat::zeros(out, width),
            estimate: 0.0,
        })
    }

    /// The product that the current pass needs.
    #[must_use]
    pub fn side(&self) -> Side {
        if self.done.is_multiple_of(2) { Side::Forward } else { Side::Transpose }
    }

    /// The matrix to multiply with in this pass: `[in, q]` forward, `[out, q]` transposed.
    #[must_use]
    pub fn multiplier(&self) -> MatRef<'_, f32> {
        self.multiplier.as_ref()
    }

    /// Passes still to do.
    #[must_use]
    pub fn passes_left(&self) -> usize {
        self.planned - self.done
    }

    /// Adds a part of this pass's product, computed elsewhere: `[out, q]` forward, `[in, q]` transposed.
    ///
    /// # Errors
    /// [`LinalgError::Shape`]; [`LinalgError::Passes`] when all passes are done.
    pub fn absorb(&mut self, product: MatRef<'_, f32>) -> Result<(), LinalgError> {
        self.open()?;
        let ((want_rows, want_cols), (rows, cols)) = (self.sum.shape(), product.shape());
        if (want_rows, want_cols) != (rows, cols) {
            let what = "a part of the product";
            return Err(LinalgError::Shape { what, want_rows, want_cols, rows, cols });
        }
        zip!(&mut self.sum, product).for_each(|unzip!(sum, part)| *sum += f64::from(*part));
        Ok(())
    }

    /// Adds one batch of `G = Σ δᵀX`: `delta: [n, out]`, `x: [n, in]`.
    ///
    /// # Errors
    /// As [`SubspaceIteration::absorb`].
    pub fn absorb_outer(&mut self, delta: MatRef<'_, f32>, x: MatRef<'_, f32>) -> Result<(), LinalgError> {
        self.open()?;
        outer_shapes(delta, x, self.out, self.inp)?;
        let (over, seen) = match self.side() {
            Side::Forward => (delta, x),
            Side::Transpose => (x, delta),
        };
        add_over_tokens(&mut self.sum, over, multiply(seen, self.multiplier.as_ref()).as_ref());
        Ok(())
    }

    /// Every batch of this pass has been absorbed: orthonormalise and turn to the other side.
    ///
    /// # Errors
    /// [`LinalgError::NonFinite`]; [`LinalgError::Passes`] when all passes are done.
    pub fn end_pass(&mut self) -> Result<(), LinalgError> {
        self.open()?;
        // Rounded here, so that a sum that someone else added up and handed over in f32 gives the same bits.
        zip!(&mut self.sum).for_each(|unzip!(sum)| *sum = f64::from(*sum as f32));
        finite(self.sum.as_ref())?;
        if self.done == 0 {
            // Each column of Ω is standard normal, so E‖GΩ‖²_F = q·‖G‖²_F.
            self.estimate = energy(self.sum.as_ref()) / self.sum.ncols() as f64;
        }
        self.done += 1;
        if self.done < self.planned {
            let rows = if self.side() == Side::Forward { self.out } else { self.inp };
            let next = Mat::zeros(rows, self.sum.ncols());
            self.multiplier = narrow(basis_in_f64(std::mem::replace(&mut self.sum, next)).as_ref());
        }
        Ok(())
    }

    /// The leading `rank` triplets. `energy` is `‖G‖²_F` where the caller knows it; otherwise the estimate of the first pass is
    /// reported, or what the triplets hold where that is more.
    ///
    /// # Errors
    /// [`LinalgError::Passes`] when passes are left, [`LinalgError::Rank`] when `rank` is 0 or above the width.
    pub fn finish(self, rank: usize, energy: Option<f64>) -> Result<Sketched, LinalgError> {
        let SubspaceIteration { planned, done, multiplier, sum, estimate, .. } = self;
        if done < planned {
            return Err(LinalgError::Passes { planned, done, problem: "finish it after the last pass" });
        }
        if rank == 0 || rank > sum.ncols() {
            return Err(LinalgError::Rank { rank, rows: sum.ncols(), cols: sum.ncols() });
        }
        // The sum is tall and thin: what is left to decompose is square.
        let Qr { q, r } = tall_qr(sum);
        let mut core = svd_in_f64(r.as_ref())?.head(rank);
        core.left = multiply(q.as_ref(), core.left.as_ref());
        let basis = widen(multiplier.as_ref());
        let mut svd = if planned.is_multiple_of(2) {
            // sum = GᵀQ = U·S·Vᵀ, so G ≈ Q·sumᵀ = (Q·V)·S·Uᵀ.
            Svd {
                left: narrow(multiply(basis.as_ref(), core.right.transpose()).as_ref()),
                values: core.values,
                right: narrow(core.left.transpose()),
            }
        } else {
            // sum = GP = U·S·Vᵀ, so G ≈ sum·Pᵀ = U·S·(P·V)ᵀ.
            Svd {
                left: narrow(core.left.as_ref()),
                values: core.values,
                right: narrow(multiply(core.right.as_ref(), basis.transpose()).as_ref()),
            }
        };
        svd.fix_signs();
        let exact = energy.is_some();
        // An estimate below what was captured would claim more than everything.
        let energy = energy.unwrap_or(estimate).max(svd.energy());
        Ok(Sketched { svd, energy, exact })
    }

    fn open(&self) -> Result<(), LinalgError> {
        if self.done == self.planned {
            let problem = "all passes are done; nothing more can be absorbed";
            return Err(LinalgError::Passes { planned: self.planned, done: self.done, problem });
        }
        Ok(())
    }
}
