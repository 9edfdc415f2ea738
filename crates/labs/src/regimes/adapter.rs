//! What a run of `tune` did to each layer, in the terms of rich and lazy learning: how far the weight went, in how many directions, whether along its
//! start, and what became of the representation.
//!
//! The base weight `W: [out, in]` stays, an adapter adds `ΔW = left · right`. The learned change is `ΔW_T − ΔW₀`: an adapter that starts at zero has
//! learned all of it, one that starts elsewhere only what it moved. Nothing of the size `[out, in]` is formed but the base that is handed in:
//! spectra come from the QR factors of the two factors and the decomposition of their small core.

mod report;

pub use report::{page, table};

use faer::MatRef;
use lowrank_linalg::{
    LinalgError, LowRank, directions, effective_rank, energy, multiply, orthonormal_basis, overlap,
    participation_ratio, stable_rank,
};
use serde::Serialize;

use super::RegimeError;
use super::alignment::{centred_alignment, representation_alignment};

/// A layer of a finished run.
#[derive(Debug, Clone)]
pub struct Site<'a> {
    /// Its name, such as `layers.0.self_attn.q_proj`.
    pub name: &'a str,
    /// The base weight, `[out, in]`.
    pub base: MatRef<'a, f32>,
    /// The adapter at the start, with its scale in `left`.
    pub start: &'a LowRank,
    /// The adapter at the end, with its scale in `left`; its rank may differ.
    pub end: &'a LowRank,
    /// What the layer gives for the same calibration data before and after, `[tokens, width]` each, where that was recorded.
    pub representations: Option<(MatRef<'a, f32>, MatRef<'a, f32>)>,
}

/// Three effective ranks.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Ranks {
    /// `exp(H(σ/Σσ))` (Roy and Vetterli, 2007).
    pub effective: f64,
    /// `‖A‖²_F/σ₁²`.
    pub stable: f64,
    /// `(Σσ²)²/Σσ⁴`.
    pub participation: f64,
}

/// What one layer shows.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SiteRegime {
    /// Its name.
    pub name: String,
    /// Rank of the adapter at the end: an upper bound of the ranks below it.
    pub rank: usize,
    /// Of ΔW₀; zeros where the adapter starts at zero.
    pub start: Ranks,
    /// Of the learned change.
    pub change: Ranks,
    /// `‖ΔW_T − ΔW₀‖_F/‖W‖_F`.
    pub relative_change: f64,
    /// Overlap of the column space of the change with that of `left` at the start, 0 to 1; nothing where one of them is zero.
    pub left_overlap: Option<f64>,
    /// Overlap of the row space of the change with that of `right` at the start.
    pub right_overlap: Option<f64>,
    /// What random spaces of these sizes overlap by, on the left and on the right.
    pub chance: (f64, f64),
    /// `‖ΔW‖_F/‖UᵀWV‖_F`, U and V the singular vectors of the change: how much it amplifies what the base has along its directions (Hu et al., "LoRA",
    /// 2021, section 7.3). Nothing where there is no change or the base has nothing there.
    pub amplification: Option<f64>,
    /// Representation alignment before and after, not centred.
    pub representation_alignment: Option<f64>,
    /// The same about the mean over the tokens.
    pub centred_alignment: Option<f64>,
}

/// All layers of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AdapterRegime {
    /// In the model's order.
    pub sites: Vec<SiteRegime>,
}

/// Analyses the layers of a run.
///
/// # Errors
/// [`RegimeError::Site`] naming the layer whose shapes do not fit or whose values are no numbers; [`RegimeError::Size`] where representations are of
/// different tokens.
pub fn analyse(sites: &[Site<'_>]) -> Result<AdapterRegime, RegimeError> {
    Ok(AdapterRegime { sites: sites.iter().map(Site::analyse).collect::<Result<_, _>>()? })
}

impl Ranks {
    fn of(values: &[f64]) -> Ranks {
        Ranks {
            effective: effective_rank(values),
            stable: stable_rank(values),
            participation: participation_ratio(values),
        }
    }
}

impl Site<'_> {
    /// Analyses this layer.
    ///
    /// # Errors
    /// As [`analyse`].
    pub fn analyse(&self) -> Result<SiteRegime, RegimeError> {
        let named = |cause: LinalgError| RegimeError::Site { site: self.name.to_owned(), cause };
        let mut found = self.weights().map_err(named)?;
        if let Some((before, after)) = self.representations {
            lowrank_linalg::finite(before).and_then(|()| lowrank_linalg::finite(after)).map_err(named)?;
            found.representation_alignment = Some(representation_alignment(before, after)?);
            found.centred_alignment = Some(centred_alignment(before, after)?);
        }
        Ok(found)
    }

    fn weights(&self) -> Result<SiteRegime, LinalgError> {
        let (out, inp) = self.base.shape();
        for (what, found) in [("the adapter at the start", self.start), ("the adapter at the end", self.end)]
        {
            let (rows, cols) = found.shape();
            if (rows, cols) != (out, inp) {
                return Err(LinalgError::Shape { what, want_rows: out, want_cols: inp, rows, cols });
            }
        }
        lowrank_linalg::finite(self.base)?;
        let moved = if self.start.rank() == self.end.rank() {
            self.end.moved_from(self.start)?
        } else {
            self.end.add(&self.start.times(-1.0))?
        };
        let change = moved.factor()?;
        // The rest is rounding of factors in f32.
        let change = change.head(directions(&change.values));
        let norm = change.energy().sqrt();
        let base = energy(self.base).sqrt();
        let left = shared(self.start.left.as_ref(), change.left.as_ref())?;
        let right = shared(self.start.right.transpose(), change.right.transpose())?;
        let along = multiply(multiply(change.left.transpose(), self.base).as_ref(), change.right.transpose());
        let along = energy(along.as_ref()).sqrt();
        let widest = self.start.rank().max(change.rank()) as f64;
        let chance = |side: usize| (widest / side.max(1) as f64).min(1.0);
        Ok(SiteRegime {
            name: self.name.to_owned(),
            rank: self.end.rank(),
            start: Ranks::of(&self.start.factor()?.values),
            change: Ranks::of(&change.values),
            relative_change: if base > 0.0 { norm / base } else { f64::NAN },
            left_overlap: left,
            right_overlap: right,
            chance: (chance(out), chance(inp)),
            amplification: (norm > 0.0 && along > 0.0).then(|| norm / along),
            representation_alignment: None,
            centred_alignment: None,
        })
    }
}

/// The overlap of the span of a factor with that of orthonormal columns; nothing where one of them is empty or zero.
fn shared(factor: MatRef<'_, f32>, columns: MatRef<'_, f32>) -> Result<Option<f64>, LinalgError> {
    if columns.ncols() == 0 || energy(factor) == 0.0 {
        return Ok(None);
    }
    let basis = orthonormal_basis(factor)?;
    Ok(Some(overlap(basis.as_ref(), columns)?))
}
