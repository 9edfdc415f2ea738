//! `A = U · diag(σ) · Vᵀ`, A `[m, n]`, U `[m, k]`, V `[n, k]`, k = min(m, n), σ descending.
//!
//! faer does the work, wrapped: its iteration is known to fail on odd inputs and to round differently with the number of
//! threads. So the input is checked and scaled by a power of two (squares of tiny gradients would underflow), the work is
//! sequential, the answer is checked against the matrix, and there are two ways out, both in f64: the iteration on
//! the transposed triangular factor, then the eigenvalues of the Gram matrix. Signs: the entry of largest magnitude of each
//! right vector is positive, the lowest index among equals, so that the same matrix gives the same factors everywhere.

use faer::diag::Diag;
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::evd::{ComputeEigenvectors, self_adjoint_evd, self_adjoint_evd_scratch};
use faer::linalg::svd::{ComputeSvdVectors, svd as faer_svd, svd_scratch};
use faer::{Mat, MatRef, Par, Spec};

use crate::product::{energy, finite, multiply, narrow, widen};
use crate::qr::{Qr, qr_in_f64};
use crate::{LinalgError, LowRank, Real};

/// Leading singular triplets, values descending, signs fixed.
#[derive(Debug, Clone, PartialEq)]
pub struct Svd<T = f32> {
    /// Left vectors, `[out, k]`, orthonormal columns.
    pub left: Mat<T>,
    /// Singular values, descending.
    pub values: Vec<f64>,
    /// Right vectors, `[k, in]`, orthonormal rows.
    pub right: Mat<T>,
}

/// All min(m, n) triplets, computed in f32; the laws in `tests` bound what that loses.
///
/// # Errors
/// [`LinalgError::NonFinite`], [`LinalgError::NoConvergence`].
pub fn svd(a: MatRef<'_, f32>) -> Result<Svd, LinalgError> {
    factor(a)
}

/// All min(m, n) triplets, computed in f64 and returned in the precision of the input:
/// small singular values keep their digits, and vectors are orthonormal to the rounding of the input's precision.
///
/// # Errors
/// [`LinalgError::NonFinite`], [`LinalgError::NoConvergence`].
pub fn svd_in_f64<T: Real>(a: MatRef<'_, T>) -> Result<Svd<T>, LinalgError> {
    Ok(factor(widen(a).as_ref())?.narrowed())
}

impl<T: Real> Svd<T> {
    /// Number of triplets.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.values.len()
    }

    /// The leading `rank` triplets (all of them when there are fewer).
    #[must_use]
    pub fn head(&self, rank: usize) -> Svd<T> {
        let rank = rank.min(self.rank());
        Svd {
            left: self.left.as_ref().subcols(0, rank).to_owned(),
            values: self.values[..rank].to_vec(),
            right: self.right.as_ref().subrows(0, rank).to_owned(),
        }
    }

    /// The `count` triplets of smallest value (all of them when there are fewer), still descending: of a decomposition with
    /// all min(m, n) triplets, the minor components.
    #[must_use]
    pub fn minor(&self, count: usize) -> Svd<T> {
        let first = self.rank() - count.min(self.rank());
        Svd {
            left: self.left.as_ref().subcols(first, self.rank() - first).to_owned(),
            values: self.values[first..].to_vec(),
            right: self.right.as_ref().subrows(first, self.rank() - first).to_owned(),
        }
    }

    /// `√(Σ_{i ≥ rank} σᵢ²)` over the triplets held: the Frobenius error of [`Svd::head`] (Eckart and Young, 1936).
    #[must_use]
    pub fn tail(&self, rank: usize) -> f64 {
        // Smallest first, so that small squares are not lost beside large ones.
        self.values[rank.min(self.rank())..].iter().rev().map(|s| s * s).sum::<f64>().sqrt()
    }

    /// `Σσ²` over the triplets held.
    #[must_use]
    pub fn energy(&self) -> f64 {
        self.values.iter().rev().map(|s| s * s).sum()
    }

    /// `U · diag(σ) · Vᵀ`, `[out, in]`.
    #[must_use]
    pub fn reconstruct(&self) -> Mat<T> {
        let scaled = Mat::from_fn(self.left.nrows(), self.rank(), |i, j| {
            T::from_f64(self.left[(i, j)].to_f64() * self.values[j])
        });
        multiply(scaled.as_ref(), self.right.as_ref())
    }

    /// `left = U·diag(√(σ/share))`, `right = diag(√(σ/share))·Vᵀ`: factors of equal size whose product times `share` is
    /// this matrix. `share` is positive; 1 gives the matrix itself.
    #[must_use]
    pub fn balanced(&self, share: f64) -> LowRank {
        let root: Vec<f64> = self.values.iter().map(|s| (s / share).sqrt()).collect();
        LowRank {
            left: Mat::from_fn(self.left.nrows(), self.rank(), |i, j| {
                (self.left[(i, j)].to_f64() * root[j]) as f32
            }),
            right: Mat::from_fn(self.rank(), self.right.ncols(), |i, j| {
                (self.right[(i, j)].to_f64() * root[i]) as f32
            }),
        }
    }

    /// Makes the entry of largest magnitude of each right vector positive (lowest index among equals).
    pub(crate) fn fix_signs(&mut self) {
        for triplet in 0..self.rank() {
            let mut largest = 0.0_f64;
            for x in self.right.row(triplet).iter().map(|x| x.to_f64()) {
                if x.abs() > largest.abs() {
                    largest = x;
                }
            }
            if largest < 0.0 {
                self.right.as_mut().row_mut(triplet).iter_mut().for_each(|x| *x = -*x);
                self.left.as_mut().col_mut(triplet).iter_mut().for_each(|x| *x = -*x);
            }
        }
    }
}

impl Svd<f64> {
    /// In another precision. Rounding makes magnitudes equal that were not, and among equals the lowest index decides, so
    /// the signs are fixed anew.
    fn narrowed<T: Real>(self) -> Svd<T> {
        let (left, right) = (narrow(self.left.as_ref()), narrow(self.right.as_ref()));
        let mut narrow = Svd { left, values: self.values, right };
        narrow.fix_signs();
        narrow
    }

    /// The triplets of the transposed matrix.
    fn transposed(&self) -> Svd<f64> {
        Svd {
            left: self.right.transpose().to_owned(),
            values: self.values.clone(),
            right: self.left.transpose().to_owned(),
        }
    }
}

/// One way to all triplets of a finite matrix of ordinary size; `None` where it gives up.
type Attempt<T> = fn(MatRef<'_, T>) -> Option<Svd<T>>;

/// What is tried, in this order, when the iteration on the matrix itself fails. Each sees other numbers than those before
/// it: the same iteration on the same numbers would fail again.
const WAYS_OUT: &[Attempt<f64>] = &[by_triangle, by_gram];

fn factor<T: Real>(a: MatRef<'_, T>) -> Result<Svd<T>, LinalgError> {
    factor_by(a, by_faer, WAYS_OUT)
}

/// Check, scale, decompose, check again, sign.
fn factor_by<T: Real>(
    a: MatRef<'_, T>,
    first: Attempt<T>,
    ways_out: &[Attempt<f64>],
) -> Result<Svd<T>, LinalgError> {
    finite(a)?;
    let (m, n) = a.shape();
    let k = m.min(n);
    let mut largest = 0.0_f64;
    for column in 0..n {
        largest = a.col(column).iter().fold(largest, |most, x| most.max(x.to_f64().abs()));
    }
    if largest == 0.0 {
        return Ok(Svd { left: Mat::identity(m, k), values: vec![0.0; k], right: Mat::identity(k, n) });
    }
    // A power of two changes no mantissa, so this costs no precision.
    let unit = 2.0_f64.powi(largest.log2().floor().clamp(-1022.0, 1022.0) as i32);
    let scaled = Mat::from_fn(m, n, |i, j| T::from_f64(a[(i, j)].to_f64() / unit));
    let wanted = energy(scaled.as_ref());
    let found = first(scaled.as_ref()).filter(|svd| plausible(svd, scaled.as_ref(), wanted)).or_else(|| {
        let wide = widen(scaled.as_ref());
        let tried = ways_out.iter().filter_map(|attempt| attempt(wide.as_ref()));
        let mut good = tried.filter(|svd| plausible(svd, wide.as_ref(), wanted));
        good.next().map(Svd::narrowed)
    });
    let mut svd = found.ok_or(LinalgError::NoConvergence { rows: m, cols: n })?;
    svd.values.iter_mut().for_each(|value| *value *= unit);
    svd.fix_signs();
    Ok(svd)
}

/// Finite, descending, holding the matrix's energy, and `A·V = U·diag(σ)`: what a failed iteration does not give.
fn plausible<T: Real>(svd: &Svd<T>, a: MatRef<'_, T>, wanted: f64) -> bool {
    let rounding = 3.0 * T::EPSILON.sqrt();
    let turned = multiply(a, svd.right.transpose());
    let left = |i: usize, j: usize| svd.left[(i, j)].to_f64() * svd.values[j];
    let residual: f64 = (0..svd.rank())
        .map(|j| (0..a.nrows()).map(|i| (turned[(i, j)].to_f64() - left(i, j)).powi(2)).sum::<f64>())
        .sum();
    finite(svd.left.as_ref()).is_ok()
        && finite(svd.right.as_ref()).is_ok()
        && svd.values.iter().all(|value| value.is_finite() && *value >= 0.0)
        && svd.values.is_sorted_by(|a, b| a >= b)
        && (svd.energy() - wanted).abs() <= rounding * wanted
        && residual <= rounding * rounding * wanted
}

fn by_faer<T: Real>(a: MatRef<'_, T>) -> Option<Svd<T>> {
    let (m, n) = a.shape();
    let k = m.min(n);
    let (mut left, mut right, mut values) =
        (Mat::<T>::zeros(m, k), Mat::<T>::zeros(n, k), Diag::<T>::zeros(k));
    let thin = ComputeSvdVectors::Thin;
    let mut memory = MemBuffer::new(svd_scratch::<T>(m, n, thin, thin, Par::Seq, Spec::default()));
    let stack = MemStack::new(&mut memory);
    let vectors = (Some(left.as_mut()), Some(right.as_mut()));
    faer_svd(a, values.as_mut(), vectors.0, vectors.1, Par::Seq, stack, Spec::default()).ok()?;
    // Rounding may leave a value of -0 or a few units out of order; more is a failure.
    let mut values: Vec<f64> = values.column_vector().iter().map(|x| x.to_f64().abs()).collect();
    let rounding = 8.0 * T::EPSILON * values.first().copied().unwrap_or(0.0);
    for i in 1..values.len() {
        if values[i] > values[i - 1] + rounding {
            return None;
        }
        values[i] = values[i].min(values[i - 1]);
    }
    Some(Svd { left, values, right: right.transpose().to_owned() })
}

/// `A = Q·R`, then the iteration on Rᵀ: `Rᵀ = U·diag(σ)·Vᵀ` gives `A = (Q·V)·diag(σ)·Uᵀ`. R is square, and Rᵀ has most of its
/// weight on the diagonal, so the iteration starts from other numbers than A's or R's; A itself is transposed (if wide)
/// and reduced to R (if tall) by faer already, so neither of these would be another attempt.
fn by_triangle(a: MatRef<'_, f64>) -> Option<Svd<f64>> {
    if a.nrows() < a.ncols() {
        return by_triangle(a.transpose()).map(|svd| svd.transposed());
    }
    let Qr { q, r } = qr_in_f64(a.to_owned());
    let Svd { left, values, right } = by_faer(r.transpose())?;
    Some(Svd { left: multiply(q.as_ref(), right.transpose()), values, right: left.transpose().to_owned() })
}

/// Eigenvectors V of the smaller Gram matrix, then `A·V = Q·R`: Q is orthonormal even where σ vanishes, and R is
/// diag(σ) up to √ε·σ₁, which is why this is the last way out and always in f64.
fn by_gram(a: MatRef<'_, f64>) -> Option<Svd<f64>> {
    if a.nrows() < a.ncols() {
        return by_gram(a.transpose()).map(|svd| svd.transposed());
    }
    let n = a.ncols();
    let gram = multiply(a.transpose(), a);
    let (mut vectors, mut squares) = (Mat::<f64>::zeros(n, n), Diag::<f64>::zeros(n));
    let wanted = ComputeEigenvectors::Yes;
    let mut memory = MemBuffer::new(self_adjoint_evd_scratch::<f64>(n, wanted, Par::Seq, Spec::default()));
    let stack = MemStack::new(&mut memory);
    self_adjoint_evd(
        gram.as_ref(),
        squares.as_mut(),
        Some(vectors.as_mut()),
        Par::Seq,
        stack,
        Spec::default(),
    )
    .ok()?;
    // Eigenvalues ascend; singular values descend.
    let descending = Mat::from_fn(n, n, |i, j| vectors[(i, n - 1 - j)]);
    let parts = qr_in_f64(multiply(a, descending.as_ref()));
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&i, &j| parts.r[(j, j)].total_cmp(&parts.r[(i, i)]));
    Some(Svd {
        left: Mat::from_fn(a.nrows(), n, |i, j| parts.q[(i, order[j])]),
        values: order.iter().map(|&i| parts.r[(i, i)]).collect(),
        right: Mat::from_fn(n, n, |i, j| descending[(j, order[i])]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use lowrank_record::Seed;

    fn random(m: usize, n: usize) -> Mat<f32> {
        let draws = Seed(11).normal(m * n);
        Mat::from_fn(m, n, |i, j| draws[i * n + j])
    }

    /// A matrix `[m, n]` with these singular values and random bases.
    fn with_values(m: usize, n: usize, values: &[f64]) -> Mat<f64> {
        let basis = |d| qr_in_f64(widen(random(d, values.len()).as_ref())).q;
        let (u, v) = (basis(m), basis(n));
        let scaled = Mat::from_fn(m, values.len(), |i, j| u[(i, j)] * values[j]);
        multiply(scaled.as_ref(), v.transpose())
    }

    fn spectra() -> Vec<(&'static str, Mat<f64>)> {
        let slow: Vec<f64> = (1..=20).map(|i| f64::from(i).powf(-0.5)).collect();
        // From 1 to 1e-12: the last third is below the rounding of the Gram matrix.
        let fast: Vec<f64> = (0..24).map(|i| 0.3_f64.powi(i)).collect();
        let clustered: Vec<f64> =
            (0..20).map(|i| if i < 9 { 3.0 - 1e-9 * f64::from(i) } else { 1.0 }).collect();
        vec![
            ("tall", with_values(60, 20, &slow)),
            ("wide", with_values(20, 60, &slow)),
            ("square", with_values(20, 20, &slow)),
            ("fast-decaying", with_values(40, 24, &fast)),
            ("fast-decaying and wide", with_values(24, 40, &fast)),
            ("rank-deficient", with_values(30, 21, &slow[..5])),
            ("clustered", with_values(26, 20, &clustered)),
            ("one by one", with_values(1, 1, &[2.5])),
        ]
    }

    #[test]
    fn every_way_out_puts_every_spectrum_back_together() {
        // Relative to the largest value. The Gram matrix squares the values, so it sees them to the root of the rounding.
        let rows: [(&str, Attempt<f64>, f64); 2] =
            [("triangle", by_triangle, 1e-13), ("gram", by_gram, 4.0 * f64::EPSILON.sqrt())];
        for ((way, attempt, tolerance), (spectrum, a)) in
            rows.iter().flat_map(|row| spectra().into_iter().map(move |spectrum| (row, spectrum)))
        {
            let at = format!("{way} of {spectrum}");
            let (direct, found) = (factor(a.as_ref()).unwrap(), attempt(a.as_ref()).unwrap());
            let allowed = tolerance * direct.values[0];
            let error = energy((found.reconstruct() - &a).as_ref()).sqrt();
            assert!(error <= allowed, "{at}: {error:e}, allowed {allowed:e}");
            for (x, y) in found.values.iter().zip(&direct.values) {
                assert!((x - y).abs() <= allowed, "{at}: {x:e} {y:e}");
            }
            let (u, v) = (found.left.as_ref(), found.right.as_ref());
            for gram in [multiply(u.transpose(), u), multiply(v, v.transpose())] {
                let off = gram - Mat::<f64>::identity(found.rank(), found.rank());
                assert!(energy(off.as_ref()).sqrt() < 1e-12, "{at}");
            }
            assert!(plausible(&found, a.as_ref(), energy(a.as_ref())), "{at}: refused by the check");
        }
    }

    fn gives_up<T: Real>(_: MatRef<'_, T>) -> Option<Svd<T>> {
        None
    }

    /// What a failed iteration may hand back: the right vectors in another order than the values.
    fn lies<T: Real>(a: MatRef<'_, T>) -> Option<Svd<T>> {
        let svd = by_faer(a)?;
        let right = Mat::from_fn(svd.rank(), a.ncols(), |i, j| svd.right[(svd.rank() - 1 - i, j)]);
        Some(Svd { right, ..svd })
    }

    fn each_failure_leads_to_the_next<T: Real>(tolerance: f64) {
        let a: Mat<T> = narrow(widen(random(23, 9).as_ref()).as_ref());
        let direct = factor(a.as_ref()).unwrap();
        let chains: [(Attempt<T>, &[Attempt<f64>]); 4] = [
            (gives_up, WAYS_OUT),
            (lies, WAYS_OUT),
            (gives_up, &[gives_up, by_gram]),
            (lies, &[lies, by_gram]),
        ];
        for (first, ways_out) in chains {
            let found = factor_by(a.as_ref(), first, ways_out).unwrap();
            let apart = energy((widen(found.right.as_ref()) - widen(direct.right.as_ref())).as_ref()).sqrt();
            assert!(apart < tolerance, "{apart:e}");
            let apart = energy((widen(found.left.as_ref()) - widen(direct.left.as_ref())).as_ref()).sqrt();
            assert!(apart < tolerance, "{apart:e}");
        }
        for (first, ways_out) in
            [(gives_up as Attempt<T>, &[][..]), (lies, &[gives_up, lies as Attempt<f64>])]
        {
            let refused = factor_by(a.as_ref(), first, ways_out);
            assert_eq!(refused.err(), Some(LinalgError::NoConvergence { rows: 23, cols: 9 }));
        }
    }

    #[test]
    fn failed_and_wrong_attempts_lead_to_the_next_and_to_an_error_at_the_end() {
        each_failure_leads_to_the_next::<f32>(1e-5);
        each_failure_leads_to_the_next::<f64>(1e-6);
        let refused = LinalgError::NoConvergence { rows: 23, cols: 9 }.to_string();
        assert!(refused.contains("matrix [23, 9]") && refused.contains("triangular factor"), "{refused}");
    }

    #[test]
    fn rounding_does_not_break_the_rule_of_signs() {
        let root = 0.5_f64.sqrt();
        // In f64 the second entry is the larger one and positive, in f32 both are equal and the first decides.
        let entries = [-root, root + 1e-15];
        let wide = Svd {
            left: Mat::from_fn(1, 1, |_, _| 1.0),
            values: vec![1.0],
            right: Mat::from_fn(1, 2, |_, j| entries[j]),
        };
        let narrow = wide.narrowed::<f32>();
        assert!(narrow.right[(0, 0)] > 0.0 && narrow.right[(0, 1)] < 0.0 && narrow.left[(0, 0)] < 0.0);
        let a = Mat::from_fn(2, 2, |i, j| [[1.0_f32, 1.0], [1.0, -1.0]][i][j]);
        for svd in [svd(a.as_ref()).unwrap(), svd_in_f64(a.as_ref()).unwrap()] {
            for row in svd.right.row_iter() {
                let largest =
                    row.iter().fold(0.0_f32, |most, &x| if x.abs() > most.abs() { x } else { most });
                assert!(largest > 0.0, "{svd:?}");
            }
        }
    }

    #[test]
    fn tiny_and_huge_matrices_keep_their_precision() {
        let a = random(8, 5);
        let plain = svd(a.as_ref()).unwrap();
        for unit in [2.0_f32.powi(-120), 2.0_f32.powi(120)] {
            let scaled = svd((faer::Scale(unit) * &a).as_ref()).unwrap();
            assert_eq!(scaled.right, plain.right);
            let wanted: Vec<f64> = plain.values.iter().map(|x| x * f64::from(unit)).collect();
            assert_eq!(scaled.values, wanted);
        }
    }

    #[test]
    fn an_infinite_entry_is_named() {
        let mut a = random(4, 6);
        a[(2, 5)] = f32::INFINITY;
        assert_eq!(svd(a.as_ref()), Err(LinalgError::NonFinite { rows: 4, cols: 6, row: 2, col: 5 }));
    }

    #[test]
    fn a_hand_worked_case_with_signs() {
        // -2 on (0, 1) and 3 on (1, 0): σ = 3, 2; right vectors e₀ and e₁ positive, so the second left vector is -e₀.
        let a = Mat::from_fn(2, 2, |i, j| [[0.0_f32, -2.0], [3.0, 0.0]][i][j]);
        let found = svd_in_f64(a.as_ref()).unwrap();
        assert!((found.values[0] - 3.0).abs() < 1e-12 && (found.values[1] - 2.0).abs() < 1e-12);
        assert!((found.right[(0, 0)] - 1.0).abs() < 1e-6 && (found.right[(1, 1)] - 1.0).abs() < 1e-6);
        assert!((found.left[(1, 0)] - 1.0).abs() < 1e-6 && (found.left[(0, 1)] + 1.0).abs() < 1e-6);
    }
}
