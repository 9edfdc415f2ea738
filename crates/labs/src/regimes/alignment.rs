//! How far a representation or a matrix of weights moved.

use faer::MatRef;
use lowrank_linalg::{LinalgError, energy, overlap, svd_in_f64};
pub use lowrank_linalg::{centred_alignment, representation_alignment};
use serde::Serialize;

use super::RegimeError;

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
