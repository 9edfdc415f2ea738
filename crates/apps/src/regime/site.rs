//! One layer: its start, its change, and what it is fed before and after.

use faer::{Mat, MatRef};
use lowrank_linalg::{
    LinalgError, LowRank, Svd, centred_alignment, directions, effective_rank, overlap, participation_ratio,
    representation_alignment, stable_rank,
};
use serde::Serialize;

/// How many directions a matrix has.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Directions {
    /// Its rank, up to rounding.
    pub rank: usize,
    /// `exp` of the entropy of its singular values (Roy and Vetterli, 2007).
    pub effective_rank: f64,
    /// `‖A‖²_F / σ₁²`.
    pub stable_rank: f64,
    /// `(Σσ²)² / Σσ⁴`: the one that decides how lazily a linear network learns.
    pub participation_ratio: f64,
}

impl Directions {
    fn of(values: &[f64]) -> Directions {
        Directions {
            rank: directions(values),
            effective_rank: effective_rank(values),
            stable_rank: stable_rank(values),
            participation_ratio: participation_ratio(values),
        }
    }
}

/// What is found of one layer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SiteRegime {
    /// Its name.
    pub name: String,
    /// `[out, in]`.
    pub shape: [usize; 2],
    /// Of the change that the start makes by itself; `None` where that is zero (plain LoRA) or was not kept.
    pub start: Option<Directions>,
    /// Of the learned change.
    pub change: Directions,
    /// `‖ΔW‖_F / ‖W‖_F`.
    pub relative_change: f64,
    /// How much of the leading left singular vectors of the change lies in the span of the start's left factor, 0 to 1, as many vectors as
    /// the start has; `None` where that factor is zero or was not kept.
    pub left_overlap: Option<f64>,
    /// The same of the right singular vectors and the start's right factor.
    pub right_overlap: Option<f64>,
    /// What random directions would share with that: the start's rank over in.
    pub chance: Option<f64>,
    /// Alignment of what the layer is fed before and after, 0 to 1.
    pub input_alignment: f64,
    /// The same about the mean.
    pub centred_alignment: f64,
}

/// What a layer is looked at by.
pub(super) struct Seen<'a> {
    /// ΔW, its scale in it.
    pub(super) change: &'a LowRank,
    /// The start, its scale in it.
    pub(super) start: Option<&'a LowRank>,
    /// `‖W‖_F`.
    pub(super) weight: f64,
    /// What it is fed before, `[n, in]`.
    pub(super) before: &'a Mat<f32>,
    /// And after.
    pub(super) after: &'a Mat<f32>,
}

impl Seen<'_> {
    pub(super) fn measured(&self, name: &str) -> Result<SiteRegime, LinalgError> {
        let change = self.change.factor()?;
        let start = self.start.map(LowRank::factor).transpose()?;
        let (out, inp) = self.change.shape();
        let (mut left_overlap, mut right_overlap, mut chance) = (None, None, None);
        if let Some(start) = self.start {
            let (left, right) = (span(start.left.as_ref())?, span(start.right.transpose())?);
            left_overlap = shared(left, &change, true)?;
            chance = right.as_ref().map(|right| right.ncols() as f64 / inp as f64);
            right_overlap = shared(right, &change, false)?;
        }
        let norm = change.energy().sqrt();
        Ok(SiteRegime {
            name: name.to_owned(),
            shape: [out, inp],
            start: start.map(|svd| Directions::of(&svd.values)).filter(|found| found.rank > 0),
            change: Directions::of(&change.values),
            relative_change: if self.weight > 0.0 { norm / self.weight } else { 0.0 },
            left_overlap,
            right_overlap,
            chance,
            input_alignment: representation_alignment(self.before.as_ref(), self.after.as_ref())?,
            centred_alignment: centred_alignment(self.before.as_ref(), self.after.as_ref())?,
        })
    }
}

/// An orthonormal basis of the columns, as many as there are directions; `None` for a zero matrix.
fn span(columns: MatRef<'_, f32>) -> Result<Option<Mat<f32>>, LinalgError> {
    let svd = lowrank_linalg::svd(columns)?;
    let rank =
        if svd.values.first().is_some_and(|&largest| largest > 0.0) { directions(&svd.values) } else { 0 };
    Ok((rank > 0).then(|| svd.head(rank).left))
}

/// How much of the leading singular vectors of the change lies in a span, as many vectors as it has directions.
fn shared(span: Option<Mat<f32>>, change: &Svd, left: bool) -> Result<Option<f64>, LinalgError> {
    let Some(span) = span else { return Ok(None) };
    let count = span.ncols().min(directions(&change.values));
    if count == 0 || change.values.first().is_none_or(|&largest| largest <= 0.0) {
        return Ok(None);
    }
    let leading = change.head(count);
    let vectors = if left { leading.left } else { leading.right.transpose().to_owned() };
    overlap(span.as_ref(), vectors.as_ref()).map(Some)
}

#[cfg(test)]
mod tests {
    use lowrank_record::Seed;

    use super::*;

    fn random(rows: usize, cols: usize, name: &str) -> Mat<f32> {
        let values = Seed(3).at("regime", name).normal(rows * cols);
        Mat::from_fn(rows, cols, |i, j| values[i * cols + j])
    }

    fn measured(change: &LowRank, start: Option<&LowRank>) -> SiteRegime {
        let (before, after) = (random(30, 7, "before"), random(30, 7, "before"));
        Seen { change, start, weight: 4.0, before: &before, after: &after }.measured("layer").unwrap()
    }

    #[test]
    fn a_change_inside_its_start_shares_all_and_another_about_chance() {
        let start = LowRank { left: random(9, 2, "left"), right: random(2, 7, "right") };
        // The right factor stays and the left one moves: LoRA with one factor frozen.
        let inside = LowRank { left: random(9, 2, "moved"), right: start.right.clone() };
        let found = measured(&inside, Some(&start));
        assert!(found.right_overlap.unwrap() > 1.0 - 1e-5, "{found:?}");
        assert!(found.left_overlap.unwrap() < 0.9);
        assert_eq!((found.change.rank, found.start.unwrap().rank, found.shape), (2, 2, [9, 7]));
        assert!((found.relative_change - inside.norm().unwrap() / 4.0).abs() < 1e-6);
        assert!((found.chance.unwrap() - 2.0 / 7.0).abs() < 1e-12);
        // The same inputs before and after.
        assert!((found.input_alignment - 1.0).abs() < 1e-12 && (found.centred_alignment - 1.0).abs() < 1e-12);
    }

    #[test]
    fn a_start_of_zero_has_one_span_and_no_directions() {
        let start = LowRank { left: Mat::zeros(9, 2), right: random(2, 7, "right") };
        let change = LowRank { left: random(9, 2, "moved"), right: random(2, 7, "other") };
        let found = measured(&change, Some(&start));
        assert!(found.start.is_none() && found.left_overlap.is_none() && found.right_overlap.is_some());
        let found = measured(&LowRank::zeros(9, 7, 2), None);
        assert_eq!((found.relative_change, found.change.rank, found.right_overlap), (0.0, 0, None));
    }
}
