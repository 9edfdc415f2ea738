//! Where recurrent weights start: matrices of one size and of many effective ranks.
//!
//! Every start is compared with a control of the same seed, Gaussian weights of a gain g, and brought to a norm of it ([`Norm`]); Frobenius in the
//! paper (Liu et al., "How connectivity structure shapes rich and lazy learning in neural circuits", 2024), the other two against the
//! confound that a matrix of low rank and the same Frobenius norm has a larger first singular value.

mod aligned;
mod cell_types;
mod dale;
mod given;
mod motif;
mod soules;
mod truncated;

pub use aligned::Aligned;
pub use cell_types::CellTypes;
pub use dale::Dale;
pub use given::{Given, Shuffled};
pub use motif::Motif;
pub use soules::{Soules, Split, soules_basis, soules_matrix};
pub use truncated::Truncated;

use faer::{Mat, MatRef};
use lowrank_linalg::{energy, svd_in_f64};
use lowrank_record::Seed;
use serde::Serialize;

use super::RegimeError;
use super::spectrum::spectral_radius;

/// A way to draw recurrent weights.
pub trait Connectivity: Send + Sync {
    /// The name, as tables show it.
    fn name(&self) -> &'static str;

    /// Weights of any norm, of the size of the control; most start from the seed, the truncated ones from the control itself.
    ///
    /// # Errors
    /// [`RegimeError`] naming what does not fit.
    fn draw(&self, control: MatRef<'_, f64>, seed: Seed) -> Result<Mat<f64>, RegimeError>;
}

/// A line of the catalogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// The name.
    pub name: &'static str,
    /// What it makes.
    pub summary: &'static str,
}

/// All initialisers, one a file.
pub const CATALOGUE: [Entry; 8] = [
    truncated::ENTRY,
    soules::ENTRY,
    cell_types::ENTRY,
    dale::ENTRY,
    motif::ENTRY,
    given::GIVEN,
    given::SHUFFLED,
    aligned::ENTRY,
];

/// Which size a start shares with its control.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Norm {
    /// `‖W‖_F`, as in the paper.
    Frobenius,
    /// The largest magnitude of an eigenvalue.
    SpectralRadius,
    /// The largest singular value.
    TopSingularValue,
}

impl Norm {
    /// As texts say it.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Norm::Frobenius => "Frobenius norm",
            Norm::SpectralRadius => "spectral radius",
            Norm::TopSingularValue => "largest singular value",
        }
    }

    /// Of a square matrix.
    ///
    /// # Errors
    /// [`RegimeError::NotSquare`], [`RegimeError::Linalg`].
    pub fn of(self, weights: MatRef<'_, f64>) -> Result<f64, RegimeError> {
        Ok(match self {
            Norm::Frobenius => energy(weights).sqrt(),
            Norm::SpectralRadius => spectral_radius(weights)?,
            Norm::TopSingularValue => svd_in_f64(weights)?.values.first().copied().unwrap_or(0.0),
        })
    }
}

/// The control: `g·N(0, 1)/√n`, `[n, n]`. The paper's code takes g = 1.25.
#[must_use]
pub fn gaussian(size: usize, gain: f64, seed: Seed) -> Mat<f64> {
    let draws = seed.at("connectivity", "control").normal(size * size);
    let deviation = gain / (size as f64).sqrt();
    Mat::from_fn(size, size, |i, j| deviation * f64::from(draws[i * size + j]))
}

/// Weights of a connectivity, brought to the norm of the control.
///
/// # Errors
/// [`RegimeError::NotSquare`] of the control; [`RegimeError::NoNorm`] where the norm of what was drawn is 0; what the connectivity refuses.
pub fn start(
    connectivity: &dyn Connectivity,
    control: MatRef<'_, f64>,
    norm: Norm,
    seed: Seed,
) -> Result<Mat<f64>, RegimeError> {
    let (rows, cols) = control.shape();
    if rows != cols {
        return Err(RegimeError::NotSquare { rows, cols });
    }
    let drawn = connectivity.draw(control, seed.at("connectivity", connectivity.name()))?;
    let (wanted, found) = (norm.of(control)?, norm.of(drawn.as_ref())?);
    // A nilpotent matrix has eigenvalues of rounding, not of size.
    if found <= 1e-12 * energy(drawn.as_ref()).sqrt() {
        return Err(RegimeError::NoNorm { connectivity: connectivity.name(), norm: norm.words() });
    }
    let factor = wanted / found;
    Ok(Mat::from_fn(rows, cols, |i, j| factor * drawn[(i, j)]))
}

/// Standard normal draws `[rows, cols]` in f64.
fn normal(rows: usize, cols: usize, seed: Seed) -> Mat<f64> {
    let draws = seed.normal(rows * cols);
    Mat::from_fn(rows, cols, |i, j| f64::from(draws[i * cols + j]))
}

/// How many of `size` units each fraction gets: rounded down, then the largest remainders.
fn shares(fractions: &[f64], size: usize) -> Vec<usize> {
    let all: f64 = fractions.iter().sum();
    let exact: Vec<f64> = fractions.iter().map(|fraction| fraction / all * size as f64).collect();
    let mut counts: Vec<usize> = exact.iter().map(|share| share.floor() as usize).collect();
    let mut order: Vec<usize> = (0..counts.len()).collect();
    order.sort_by(|&a, &b| (exact[b] - exact[b].floor()).total_cmp(&(exact[a] - exact[a].floor())));
    let missing = size.saturating_sub(counts.iter().sum());
    order.iter().cycle().take(missing).for_each(|&index| counts[index] += 1);
    counts
}
