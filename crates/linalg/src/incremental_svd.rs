//! The leading components of rows `x [in]` that come in batches and are dropped, without their second moment: the singular
//! value decomposition of what is known so far stacked on what is new,
//!
//! `M = [diag(σ)·V ; X − μ_b ; √(n·b/(n + b))·(μ − μ_b)]`, then σ and V of M, cut to the components that are kept.
//!
//! Without a cut this is the decomposition of all rows. Memory `O((kept + block)·in)`; blocks of 1024 rows at most.
//!
//! Source: Ross, Lim, Lin, Yang, "Incremental Learning for Robust Visual Tracking", 2008 (the row for the mean), as PEFT's
//! `IncrementalPCA` has it. Where we differ: more components are kept than asked for, since what the cut throws away early is missing later; a
//! batch of fewer rows than are kept waits for the next one, where PEFT skips it; means and variances are pooled in f64.

use faer::{Mat, MatRef};
use lowrank_record::Seed;

use crate::components::Components;
use crate::moments::{check_rows, column_means};
use crate::product::{multiply, narrow, widen};
use crate::{LinalgError, Sketch, Svd, randomised_svd, svd_in_f64};

/// Rows stacked at a time, unless more components are kept.
const BLOCK: usize = 1024;

/// What is known of the rows so far.
#[derive(Debug, Clone, PartialEq)]
pub struct IncrementalSvd {
    kept: usize,
    centred: bool,
    seed: Seed,
    /// Rows in `values` and `right`; more may be waiting.
    rows: u64,
    mean: Vec<f64>,
    /// `Σ (x − μ)²` of each entry.
    spread: Vec<f64>,
    values: Vec<f64>,
    right: Mat<f64>,
    /// The components before the last update.
    before: Option<Mat<f64>>,
    updates: u64,
    waiting: Mat<f32>,
}

impl IncrementalSvd {
    /// Of rows of this width: `count` components are wanted, and `oversampling` more are kept on the way (at most `width`
    /// in all). Centred, they are about the mean of the rows, otherwise about zero. The seed is for the randomised
    /// decomposition, where that is cheaper.
    ///
    /// # Errors
    /// [`LinalgError::Rank`] for a count of 0 or above the width.
    pub fn new(
        width: usize,
        count: usize,
        oversampling: usize,
        centred: bool,
        seed: Seed,
    ) -> Result<IncrementalSvd, LinalgError> {
        if count == 0 || count > width {
            return Err(LinalgError::Rank { rank: count, rows: width, cols: width });
        }
        Ok(IncrementalSvd {
            kept: count.saturating_add(oversampling).min(width),
            centred,
            seed,
            rows: 0,
            mean: vec![0.0; width],
            spread: vec![0.0; width],
            values: Vec::new(),
            right: Mat::zeros(0, width),
            before: None,
            updates: 0,
            waiting: Mat::zeros(0, width),
        })
    }

    /// Entries of a row (`in`).
    #[must_use]
    pub fn width(&self) -> usize {
        self.mean.len()
    }

    /// Rows seen, with those that wait for more.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows + self.waiting.nrows() as u64
    }

    /// Times that the components were computed anew.
    #[must_use]
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// Adds rows `[n, in]`. Fewer than the components kept wait until there are as many. Nothing is added where it fails on the
    /// rows.
    ///
    /// # Errors
    /// [`LinalgError::Shape`], [`LinalgError::NonFinite`], [`LinalgError::NoConvergence`].
    pub fn absorb(&mut self, rows: MatRef<'_, f32>) -> Result<(), LinalgError> {
        check_rows(rows, self.width())?;
        let waiting = self.waiting.nrows();
        let all = waiting + rows.nrows();
        let row =
            |i: usize, j: usize| if i < waiting { self.waiting[(i, j)] } else { rows[(i - waiting, j)] };
        let block = BLOCK.max(self.kept);
        let all = Mat::from_fn(all, self.width(), row);
        let mut first = 0;
        while all.nrows() - first >= self.kept {
            let count = block.min(all.nrows() - first);
            self.update(all.as_ref().subrows(first, count))?;
            first += count;
        }
        self.waiting = all.as_ref().subrows(first, all.nrows() - first).to_owned();
        Ok(())
    }

    /// The components, at most `count` of them and no more than there are rows; those that wait are in them.
    ///
    /// # Errors
    /// As [`IncrementalSvd::absorb`]; [`LinalgError::Rank`] for a count of 0 or above the width.
    pub fn components(&self, count: usize) -> Result<Components, LinalgError> {
        let width = self.width();
        if count == 0 || count > width {
            return Err(LinalgError::Rank { rank: count, rows: width, cols: width });
        }
        let mut all = self.clone();
        if all.waiting.nrows() > 0 {
            let waiting = std::mem::replace(&mut all.waiting, Mat::zeros(0, width));
            all.update(waiting.as_ref())?;
        }
        let count = count.min(all.values.len());
        let right = narrow(all.right.as_ref().subrows(0, count));
        let energy = all.energy();
        let values = all.values[..count].to_vec();
        let mut found = Components::new(all.rows, all.mean, all.centred, values, right, energy);
        found.exact = false;
        // Of the last full update: a few rows that waited would change little, and seem to agree.
        found.cosines = self.cosines();
        found.carried = self.carried();
        Ok(found)
    }

    /// `Σ ‖x − μ‖²`, or `Σ ‖x‖²` where it is not centred, of the rows that do not wait.
    fn energy(&self) -> f64 {
        let square: f64 = self.mean.iter().map(|mean| mean * mean).sum();
        let spread: f64 = self.spread.iter().sum();
        if self.centred { spread } else { spread + self.rows as f64 * square }
    }

    /// The variance of each entry, `1/n · Σ (x − μ)²`, of the rows that do not wait.
    #[must_use]
    pub fn variance(&self) -> Vec<f64> {
        self.spread.iter().map(|spread| spread / self.rows.max(1) as f64).collect()
    }

    /// The cosine of each component with the one of the same number before the last update (signs are fixed, so no absolute
    /// value): the stopping rule of EVA. `None` before the second update.
    #[must_use]
    pub fn cosines(&self) -> Option<Vec<f64>> {
        let before = self.before.as_ref()?;
        let both = before.nrows().min(self.right.nrows());
        let cosine = |i: usize| before.row(i).iter().zip(self.right.row(i).iter()).map(|(a, b)| a * b).sum();
        Some((0..both).map(cosine).collect())
    }

    /// How much of what the leading 1, 2, … components hold those of before the last update would have held: 0 to 1, whatever
    /// turns among equal values. `None` before the second update.
    #[must_use]
    pub fn carried(&self) -> Option<Vec<f64>> {
        let before = self.before.as_ref()?;
        let turned = multiply(before.as_ref(), self.right.transpose());
        let (mut held, mut best) = (0.0, 0.0);
        let of_leading = |i: usize| {
            let row = turned.row(i).iter().zip(&self.values);
            held += row.map(|(cosine, value)| (cosine * value).powi(2)).sum::<f64>();
            best += self.values[i].powi(2);
            if best > 0.0 { (held / best).min(1.0) } else { 1.0 }
        };
        Some((0..before.nrows().min(self.values.len())).map(of_leading).collect())
    }

    /// Stacks these rows below what is known, and decomposes.
    fn update(&mut self, rows: MatRef<'_, f32>) -> Result<(), LinalgError> {
        let (known, b, width) = (self.values.len(), rows.nrows(), self.width());
        let (before, more) = (self.rows as f64, b as f64);
        let mean = column_means(rows);
        let about = |j: usize| if self.centred { mean[j] } else { 0.0 };
        let weight = before * more / (before + more);
        let stacked = Mat::from_fn(known + b + usize::from(self.centred && known > 0), width, |i, j| {
            if i < known {
                self.values[i] * self.right[(i, j)]
            } else if i < known + b {
                f64::from(rows[(i - known, j)]) - about(j)
            } else {
                weight.sqrt() * (self.mean[j] - mean[j])
            }
        });
        let found = self.decompose(stacked.as_ref())?;
        for (j, mean) in mean.iter().enumerate() {
            let inside: f64 = rows.col(j).iter().map(|&x| (f64::from(x) - mean).powi(2)).sum();
            let apart = self.mean[j] - mean;
            self.spread[j] += inside + weight * apart * apart;
            self.mean[j] -= apart * (more / (before + more));
        }
        self.rows += b as u64;
        self.before = (self.updates > 0).then(|| std::mem::replace(&mut self.right, Mat::zeros(0, width)));
        self.updates += 1;
        let found = found.head(self.kept);
        (self.values, self.right) = (found.values, found.right);
        Ok(())
    }

    /// Exactly in f64, or randomised in f32 where that takes fewer operations.
    fn decompose(&self, stacked: MatRef<'_, f64>) -> Result<Svd<f64>, LinalgError> {
        let (rows, cols) = stacked.shape();
        let shorter = rows.min(cols);
        let (kept, sketch) = (self.kept.min(shorter), Sketch::for_rank(self.kept));
        if is_cheaper_exactly(rows, cols, sketch.width(kept, shorter), sketch.passes()) {
            return svd_in_f64(stacked);
        }
        let narrow: Mat<f32> = narrow(stacked);
        let name = self.updates.to_string();
        let Svd { values, right, .. } =
            randomised_svd(&narrow, kept, sketch, self.seed.at("incremental svd", &name))?.svd;
        Ok(Svd { left: Mat::zeros(0, values.len()), values, right: widen(right.as_ref()) })
    }
}

/// Whether the thin exact decomposition takes fewer operations than `passes` products with `q` columns and their
/// orthonormal bases. Exact: a QR of the longer side (4·l·s²) and an iteration on the square (about 22·s³).
fn is_cheaper_exactly(rows: usize, cols: usize, q: usize, passes: usize) -> bool {
    let (long, short) = (rows.max(cols) as f64, rows.min(cols) as f64);
    let (q, passes) = (q as f64, passes as f64);
    let exact = 4.0 * long * short * short + 22.0 * short.powi(3);
    let products = passes * (2.0 * long * short * q);
    let bases = passes / 2.0 * 4.0 * (long + short) * q * q;
    exact <= products + bases
}
