//! How far a representation or a matrix of weights moved.

use faer::{Accum, Mat, MatRef};
use lowrank_linalg::{LinalgError, Real, energy, overlap, svd_in_f64, widen};
use serde::Serialize;

use super::RegimeError;
use super::kernel::ratio;
use super::network::product;

/// Representation alignment `⟨R₀, R_T⟩_F/(‖R₀‖·‖R_T‖)`, `R = H·Hᵀ`, of the states of the same n trials, `[n, h]` each (widths may differ): from 0 to 1, 1
/// where they differ by a rotation and a factor. Not centred, as in the paper (Liu et al., 2024); R is never formed, since
/// `⟨R₀, R_T⟩ = ‖H₀ᵀ·H_T‖²`.
///
/// # Errors
/// [`RegimeError::Size`] when the numbers of trials differ.
pub fn representation_alignment<T: Real>(
    before: MatRef<'_, T>,
    after: MatRef<'_, T>,
) -> Result<f64, RegimeError> {
    aligned(widen(before).as_ref(), widen(after).as_ref())
}

/// The same about the mean of each unit over the trials: linear centred kernel alignment (Kornblith et al., "Similarity of Neural Network
/// Representations Revisited", 2019, eq. 3), blind to a constant that all trials share.
///
/// # Errors
/// As [`representation_alignment`].
pub fn centred_alignment<T: Real>(before: MatRef<'_, T>, after: MatRef<'_, T>) -> Result<f64, RegimeError> {
    aligned(centred(before).as_ref(), centred(after).as_ref())
}

fn aligned(before: MatRef<'_, f64>, after: MatRef<'_, f64>) -> Result<f64, RegimeError> {
    if before.nrows() != after.nrows() {
        let (what, wanted, found) = ("trials of the second representation", before.nrows(), after.nrows());
        return Err(RegimeError::Size { what, wanted, found });
    }
    let between = |a: MatRef<'_, f64>, b: MatRef<'_, f64>| {
        let mut gram = Mat::zeros(a.ncols(), b.ncols());
        product(gram.as_mut(), Accum::Replace, a.transpose(), b, 1.0);
        energy(gram.as_ref())
    };
    Ok(ratio(between(before, after), between(before, before), between(after, after)))
}

fn centred<T: Real>(states: MatRef<'_, T>) -> Mat<f64> {
    let mut states = widen(states);
    let count = states.nrows() as f64;
    for j in 0..states.ncols() {
        let mean = states.col(j).iter().sum::<f64>() / count;
        states.col_mut(j).iter_mut().for_each(|x| *x -= mean);
    }
    states
}

/// The share of units and trials that are on in both or off in both, of states behind a rectifier.
///
/// # Errors
/// [`RegimeError::Size`] when the shapes differ.
pub fn sign_similarity(before: MatRef<'_, f64>, after: MatRef<'_, f64>) -> Result<f64, RegimeError> {
    let (wanted, found) = (before.nrows() * before.ncols(), after.nrows() * after.ncols());
    if before.shape() != after.shape() {
        return Err(RegimeError::Size { what: "states of the second network", wanted, found });
    }
    let same = (0..before.ncols()).flat_map(|j| before.col(j).iter().zip(after.col(j).iter()));
    Ok(same.filter(|(a, b)| (**a > 0.0) == (**b > 0.0)).count() as f64 / wanted.max(1) as f64)
}

/// `‖after − before‖_F`.
///
/// # Errors
/// [`RegimeError::Size`] when the shapes differ.
pub fn weight_change(before: MatRef<'_, f64>, after: MatRef<'_, f64>) -> Result<f64, RegimeError> {
    let (wanted, found) = (before.nrows() * before.ncols(), after.nrows() * after.ncols());
    if before.shape() != after.shape() {
        return Err(RegimeError::Size { what: "weights after training", wanted, found });
    }
    Ok(energy((after - before).as_ref()).sqrt())
}

/// Overlaps of the leading singular subspaces of a change with those of the start.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct SingularAlignment {
    /// Of the left vectors, 0 to 1 ([`lowrank_linalg::overlap`]).
    pub left: f64,
    /// Of the right vectors.
    pub right: f64,
    /// What two random subspaces have: their dimension over the number of units.
    pub chance: f64,
}

/// How much the `count` leading singular vectors of `after − before` share with those of `before`; fewer where `before` has a smaller rank.
/// `None` where either has none.
///
/// # Errors
/// [`RegimeError::Size`] when the shapes differ; [`RegimeError::Linalg`].
pub fn singular_alignment(
    before: MatRef<'_, f64>,
    after: MatRef<'_, f64>,
    count: usize,
) -> Result<Option<SingularAlignment>, RegimeError> {
    let moved = weight_change(before, after)?;
    let start = svd_in_f64(before)?;
    let count = count.min(lowrank_linalg::directions(&start.values));
    if count == 0 || moved == 0.0 {
        return Ok(None);
    }
    let (start, change) = (start.head(count), svd_in_f64((after - before).as_ref())?.head(count));
    let shared = |a: MatRef<'_, f64>, b: MatRef<'_, f64>| -> Result<f64, LinalgError> {
        overlap(lowrank_linalg::narrow(a).as_ref(), lowrank_linalg::narrow(b).as_ref())
    };
    Ok(Some(SingularAlignment {
        left: shared(start.left.as_ref(), change.left.as_ref())?,
        right: shared(start.right.transpose(), change.right.transpose())?,
        chance: count as f64 / before.nrows() as f64,
    }))
}
