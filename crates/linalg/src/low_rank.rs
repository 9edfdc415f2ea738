//! `X = left · right`, `[out, in] = [out, r] · [r, in]`: the currency of the whole workspace. Nothing here forms
//! `[out, in]` except [`LowRank::reconstruct`].

use faer::{Mat, MatRef};

use crate::product::{finite, from_rows, multiply, narrow, to_rows, widen};
use crate::qr::{Qr, qr_in_f64};
use crate::{LinalgError, Operator, Svd, svd_in_f64};

/// A matrix `[out, in]` held as two factors.
#[derive(Debug, Clone, PartialEq)]
pub struct LowRank {
    /// `[out, r]`.
    pub left: Mat<f32>,
    /// `[r, in]`.
    pub right: Mat<f32>,
}

impl LowRank {
    /// Factors that fit each other.
    ///
    /// # Errors
    /// [`LinalgError::Shape`] when the inner dimensions differ.
    pub fn new(left: Mat<f32>, right: Mat<f32>) -> Result<LowRank, LinalgError> {
        if left.ncols() != right.nrows() {
            return Err(LinalgError::Shape {
                what: "the right factor",
                want_rows: left.ncols(),
                want_cols: right.ncols(),
                rows: right.nrows(),
                cols: right.ncols(),
            });
        }
        Ok(LowRank { left, right })
    }

    /// Factors from row-major values: `left` of `[out, rank]`, `right` of `[rank, inp]`.
    ///
    /// # Errors
    /// [`LinalgError::Shape`] when a length is wrong.
    pub fn from_rows(
        left: &[f32],
        right: &[f32],
        out: usize,
        inp: usize,
        rank: usize,
    ) -> Result<LowRank, LinalgError> {
        LowRank::new(from_rows(left, out, rank)?, from_rows(right, rank, inp)?)
    }

    /// The factors as row-major values, `(left [out, r], right [r, in])`, as tensors and files hold them.
    #[must_use]
    pub fn to_rows(&self) -> (Vec<f32>, Vec<f32>) {
        (to_rows(self.left.as_ref()), to_rows(self.right.as_ref()))
    }

    /// The zero matrix `[out, inp]` at this rank.
    #[must_use]
    pub fn zeros(out: usize, inp: usize, rank: usize) -> LowRank {
        LowRank { left: Mat::zeros(out, rank), right: Mat::zeros(rank, inp) }
    }

    /// The inner dimension r: an upper bound of the rank of the matrix.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.right.nrows()
    }

    /// `(out, in)`.
    #[must_use]
    pub fn shape(&self) -> (usize, usize) {
        (self.left.nrows(), self.right.ncols())
    }

    /// A layer with this weight: `x: [n, in] -> x·rightᵀ·leftᵀ [n, out]`.
    #[must_use]
    pub fn apply_rows(&self, x: MatRef<'_, f32>) -> Mat<f32> {
        multiply(multiply(x, self.right.transpose()).as_ref(), self.left.transpose())
    }

    /// `left · right`, `[out, in]`: only to merge or to analyse.
    #[must_use]
    pub fn reconstruct(&self) -> Mat<f32> {
        multiply(self.left.as_ref(), self.right.as_ref())
    }

    /// The same matrix times a number, which goes into `left`.
    #[must_use]
    pub fn times(&self, factor: f64) -> LowRank {
        let left = Mat::from_fn(self.left.nrows(), self.rank(), |i, j| {
            (f64::from(self.left[(i, j)]) * factor) as f32
        });
        LowRank { left, right: self.right.clone() }
    }

    /// The sum, exactly: factors side by side, rank the sum of both ranks. See [`LowRank::truncate`] to shorten it.
    ///
    /// # Errors
    /// [`LinalgError::Shape`] when the matrices differ in shape.
    pub fn add(&self, other: &LowRank) -> Result<LowRank, LinalgError> {
        let ((out, inp), (rows, cols)) = (self.shape(), other.shape());
        if (out, inp) != (rows, cols) {
            return Err(LinalgError::Shape {
                what: "the second summand",
                want_rows: out,
                want_cols: inp,
                rows,
                cols,
            });
        }
        let (first, both) = (self.rank(), self.rank() + other.rank());
        let left = |i, j| if j < first { self.left[(i, j)] } else { other.left[(i, j - first)] };
        let right = |i, j| if i < first { self.right[(i, j)] } else { other.right[(i - first, j)] };
        Ok(LowRank { left: Mat::from_fn(out, both, left), right: Mat::from_fn(both, inp, right) })
    }

    /// `self − start` for two of the same rank r, as factors of rank 2r in which nothing large cancels: `l·r − l₀·r₀ = (l − l₀)·r +
    /// l₀·(r − r₀)`. With factors side by side ([`LowRank::add`] of the negative) two products of the size of the start are
    /// subtracted in f32 at every use; here both products are of the size of the difference, and equal factors give exactly zero.
    ///
    /// # Errors
    /// [`LinalgError::Shape`] when the factors differ in shape.
    pub fn moved_from(&self, start: &LowRank) -> Result<LowRank, LinalgError> {
        let ((out, inp), (rows, cols)) = (self.left.shape(), start.left.shape());
        if (out, inp) != (rows, cols) || self.right.shape() != start.right.shape() {
            return Err(LinalgError::Shape {
                what: "the left factor that it moved from",
                want_rows: out,
                want_cols: inp,
                rows,
                cols,
            });
        }
        let first = LowRank { left: &self.left - &start.left, right: self.right.clone() };
        first.add(&LowRank { left: start.left.clone(), right: &self.right - &start.right })
    }

    /// `‖left · right‖_F` without forming the product: the norm of the core of the two QR factorisations, in f64. (The
    /// cheaper `tr(leftᵀleft · right·rightᵀ)` loses half the digits where the factors cancel, as in a difference.)
    ///
    /// # Errors
    /// [`LinalgError::NonFinite`].
    pub fn norm(&self) -> Result<f64, LinalgError> {
        Ok(self.core()?.inner.norm_l2())
    }

    /// Singular triplets of the product, at most min(r, out, in) of them, without forming it: QR of both factors, SVD of
    /// the small core, all in f64.
    ///
    /// # Errors
    /// [`LinalgError::NonFinite`], [`LinalgError::NoConvergence`].
    pub fn factor(&self) -> Result<Svd, LinalgError> {
        let Core { left, inner, right } = self.core()?;
        let inner = svd_in_f64(inner.as_ref())?;
        let mut svd = Svd {
            left: narrow(multiply(left.as_ref(), inner.left.as_ref()).as_ref()),
            values: inner.values,
            right: narrow(multiply(inner.right.as_ref(), right.transpose()).as_ref()),
        };
        svd.fix_signs();
        Ok(svd)
    }

    /// The best approximation of at most this rank, balanced (both factors carry √σ), and its exact Frobenius error
    /// `√(Σ_{i > rank} σᵢ²)`.
    ///
    /// # Errors
    /// As [`LowRank::factor`].
    pub fn truncate(&self, rank: usize) -> Result<(LowRank, f64), LinalgError> {
        let svd = self.factor()?;
        Ok((svd.head(rank).balanced(1.0), svd.tail(rank)))
    }

    /// Whether every entry of both factors is finite.
    #[must_use]
    pub fn is_finite(&self) -> bool {
        finite(self.left.as_ref()).is_ok() && finite(self.right.as_ref()).is_ok()
    }

    fn core(&self) -> Result<Core, LinalgError> {
        finite(self.left.as_ref())?;
        finite(self.right.as_ref())?;
        let Qr { q: left, r: above } = qr_in_f64(widen(self.left.as_ref()));
        let Qr { q: right, r: below } = qr_in_f64(widen(self.right.transpose()));
        Ok(Core { left, inner: multiply(above.as_ref(), below.transpose()), right })
    }
}

/// `left = Q₁R₁` and `rightᵀ = Q₂R₂`, so the product is `Q₁·(R₁R₂ᵀ)·Q₂ᵀ`.
struct Core {
    /// Q₁, `[out, min(out, r)]`.
    left: Mat<f64>,
    /// R₁R₂ᵀ.
    inner: Mat<f64>,
    /// Q₂, `[in, min(in, r)]`.
    right: Mat<f64>,
}

impl Operator for LowRank {
    fn rows(&self) -> usize {
        self.left.nrows()
    }
    fn cols(&self) -> usize {
        self.right.ncols()
    }
    fn apply(&self, x: MatRef<'_, f32>) -> Mat<f32> {
        multiply(self.left.as_ref(), multiply(self.right.as_ref(), x).as_ref())
    }
    fn apply_transpose(&self, x: MatRef<'_, f32>) -> Mat<f32> {
        multiply(self.right.transpose(), multiply(self.left.transpose(), x).as_ref())
    }
    fn energy(&self) -> Option<f64> {
        self.norm().ok().map(|norm| norm * norm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::energy;
    use lowrank_record::Seed;

    fn factors(seed: u64, out: usize, inp: usize, rank: usize) -> LowRank {
        let (left, right) = (Seed(seed).normal(out * rank), Seed(seed + 1).normal(rank * inp));
        LowRank::from_rows(&left, &right, out, inp, rank).unwrap()
    }

    #[test]
    fn products_sums_and_norms_agree_with_the_dense_matrix() {
        let (a, b) = (factors(1, 17, 9, 3), factors(3, 17, 9, 2));
        let (dense_a, dense_b) = (a.reconstruct(), b.reconstruct());
        let sum = a.add(&b.times(-0.5)).unwrap();
        assert_eq!(sum.rank(), 5);
        let dense = &dense_a - faer::Scale(0.5_f32) * &dense_b;
        assert!(energy((sum.reconstruct() - &dense).as_ref()).sqrt() < 1e-5);
        assert!((sum.norm().unwrap() / energy(dense.as_ref()).sqrt() - 1.0).abs() < 1e-6);
        let x = factors(5, 4, 9, 9).reconstruct();
        let (found, wanted) = (sum.apply_rows(x.as_ref()), &x * dense.transpose());
        assert!(energy((found - &wanted).as_ref()).sqrt() < 1e-5 * energy(wanted.as_ref()).sqrt());
        assert!(a.add(&factors(1, 9, 17, 3)).is_err());
    }

    #[test]
    fn a_difference_with_itself_has_norm_zero_to_rounding() {
        let a = factors(1, 40, 30, 4);
        let nothing = a.add(&a.times(-1.0)).unwrap();
        assert!(nothing.norm().unwrap() < 1e-12 * a.norm().unwrap(), "{}", nothing.norm().unwrap());
    }

    #[test]
    fn truncation_has_the_error_it_states() {
        let a = factors(7, 31, 22, 6);
        let (short, error) = a.truncate(2).unwrap();
        assert_eq!(short.rank(), 2);
        let measured = energy((a.reconstruct() - short.reconstruct()).as_ref()).sqrt();
        assert!((measured / error - 1.0).abs() < 1e-5, "{measured} {error}");
        let (same, nothing) = a.truncate(10).unwrap();
        assert_eq!((same.rank(), nothing), (6, 0.0));
    }

    #[test]
    fn more_inner_than_outer_dimensions_are_fine() {
        let a = factors(9, 3, 4, 7);
        let svd = a.factor().unwrap();
        assert_eq!(svd.rank(), 3);
        assert!(energy((svd.reconstruct() - a.reconstruct()).as_ref()).sqrt() < 1e-5);
        let mut broken = a.clone();
        broken.right[(0, 0)] = f32::NAN;
        assert!(!broken.is_finite() && broken.factor().is_err());
    }
}
