//! The two-layer linear network, where rich and lazy can be worked out.
//!
//! `f(x) = w₂·W₁·x`, `W₁: [h, d]`, whitened inputs, target `β·x`, gradient flow on `½‖W₁ᵀw₂ − β‖²`. The tangent kernel of both layers is, on whitened
//! inputs, the d×d matrix `M = W₁ᵀW₁ + ‖w₂‖²·I`. From a vanishing start, `w₂ = 0`, the flow ends at `‖β‖·(b·bᵀ + I)`, b = β/‖β‖, so with `S₀ = W₁ᵀW₁`
//! of the start the kernel alignment is `(bᵀS₀b + tr S₀)/(‖S₀‖_F·√(d + 3))`, and on average over all directions of the target
//! `(1 + 1/d)·√PR/√(d + 3)`, PR the participation ratio of W₁: it grows with the effective rank of the start. Matches the claim of
//! Theorem 1 of Liu et al. (2024); the derivation is ours.

use faer::{Mat, MatRef};
use lowrank_linalg::{energy, multiply, orthonormal_basis, participation_ratio};
use lowrank_record::Seed;

use super::RegimeError;
use super::kernel::kernel_alignment;

/// Steps after which a flow is given up.
const MOST_STEPS: usize = 2_000_000;

/// What part of the target may be left when a flow counts as at rest.
const AT_REST: f64 = 1e-7;

/// A two-layer linear network.
#[derive(Debug, Clone, PartialEq)]
pub struct LinearNetwork {
    /// W₁, `[h, d]`.
    pub hidden: Mat<f64>,
    /// w₂, `[h]`.
    pub readout: Vec<f64>,
}

/// What a flow came to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Flow {
    /// Alignment of the kernel at the start with that at the end.
    pub kernel_alignment: f64,
    /// `√(‖ΔW₁‖² + ‖Δw₂‖²)`.
    pub weight_change: f64,
    /// Steps of the integration.
    pub steps: usize,
}

impl LinearNetwork {
    /// `M = W₁ᵀW₁ + ‖w₂‖²·I`, `[d, d]`.
    #[must_use]
    pub fn kernel(&self) -> Mat<f64> {
        let mut kernel = multiply(self.hidden.transpose(), self.hidden.as_ref());
        let readout: f64 = self.readout.iter().map(|w| w * w).sum();
        (0..kernel.nrows()).for_each(|i| kernel[(i, i)] += readout);
        kernel
    }

    /// Follows the gradient flow to rest (residual below 1e-7 of the target), by Runge and Kutta's fourth order with steps of half the fastest
    /// time there is.
    ///
    /// # Errors
    /// [`RegimeError::Size`] where the target is not `[d]`; [`RegimeError::NotAtRest`].
    pub fn learn(&mut self, target: &[f64]) -> Result<Flow, RegimeError> {
        if target.len() != self.hidden.ncols() || self.readout.len() != self.hidden.nrows() {
            let (wanted, found) = (self.hidden.ncols(), target.len());
            return Err(RegimeError::Size { what: "entries of the target", wanted, found });
        }
        let before = self.clone();
        let size = norm(target);
        for steps in 0..MOST_STEPS {
            let left = norm(&self.residual(target));
            if left <= AT_REST * size {
                return Ok(self.since(&before, steps));
            }
            let fastest =
                energy(self.hidden.as_ref()) + self.readout.iter().map(|w| w * w).sum::<f64>() + left;
            self.step(target, 0.5 / fastest);
        }
        let residual = norm(&self.residual(target)) / size;
        Err(RegimeError::NotAtRest { steps: MOST_STEPS, residual })
    }

    /// `β − W₁ᵀw₂`, `[d]`.
    fn residual(&self, target: &[f64]) -> Vec<f64> {
        let along =
            |j: usize| -> f64 { self.hidden.col(j).iter().zip(&self.readout).map(|(a, b)| a * b).sum() };
        target.iter().enumerate().map(|(j, target)| target - along(j)).collect()
    }

    /// `∂W₁ = w₂·eᵀ` and `∂w₂ = W₁·e`, e the residual.
    fn slope(&self, target: &[f64]) -> LinearNetwork {
        let residual = self.residual(target);
        let hidden =
            Mat::from_fn(self.hidden.nrows(), self.hidden.ncols(), |i, j| self.readout[i] * residual[j]);
        let mut readout = vec![0.0; self.readout.len()];
        for (j, residual) in residual.iter().enumerate() {
            let column = self.hidden.col(j);
            readout.iter_mut().zip(column.iter()).for_each(|(to, from)| *to += from * residual);
        }
        LinearNetwork { hidden, readout }
    }

    fn step(&mut self, target: &[f64], time: f64) {
        let first = self.slope(target);
        let second = self.moved(&first, time / 2.0).slope(target);
        let third = self.moved(&second, time / 2.0).slope(target);
        let fourth = self.moved(&third, time).slope(target);
        for (slope, weight) in [(first, 1.0), (second, 2.0), (third, 2.0), (fourth, 1.0)] {
            *self = self.moved(&slope, weight * time / 6.0);
        }
    }

    fn moved(&self, along: &LinearNetwork, time: f64) -> LinearNetwork {
        let (rows, cols) = self.hidden.shape();
        LinearNetwork {
            hidden: Mat::from_fn(rows, cols, |i, j| self.hidden[(i, j)] + time * along.hidden[(i, j)]),
            readout: self.readout.iter().zip(&along.readout).map(|(w, slope)| w + time * slope).collect(),
        }
    }

    fn since(&self, before: &LinearNetwork, steps: usize) -> Flow {
        let readout: f64 = self.readout.iter().zip(&before.readout).map(|(a, b)| (a - b) * (a - b)).sum();
        let hidden = energy((&self.hidden - &before.hidden).as_ref());
        Flow {
            kernel_alignment: kernel_alignment(before.kernel().as_ref(), self.kernel().as_ref()),
            weight_change: (hidden + readout).sqrt(),
            steps,
        }
    }
}

fn norm(values: &[f64]) -> f64 {
    values.iter().map(|value| value * value).sum::<f64>().sqrt()
}

/// The kernel alignment from a vanishing start W₁ `[h, d]` with w₂ = 0, for one target: `(bᵀS₀b + tr S₀)/(‖S₀‖_F·√(d + 3))`.
///
/// # Errors
/// [`RegimeError::Size`] where the target is not `[d]`.
pub fn alignment_of_target(hidden: MatRef<'_, f64>, target: &[f64]) -> Result<f64, RegimeError> {
    if hidden.ncols() != target.len() {
        let (wanted, found) = (hidden.ncols(), target.len());
        return Err(RegimeError::Size { what: "entries of the target", wanted, found });
    }
    let start = multiply(hidden.transpose(), hidden);
    let along = |i: usize| (0..target.len()).map(|j| start[(i, j)] * target[j]).sum::<f64>() * target[i];
    let quadratic = (0..target.len()).map(along).sum::<f64>() / norm(target).powi(2);
    let trace: f64 = (0..target.len()).map(|i| start[(i, i)]).sum();
    Ok((quadratic + trace) / (energy(start.as_ref()).sqrt() * (target.len() as f64 + 3.0).sqrt()))
}

/// Its mean over all directions of the target in d dimensions: `(1 + 1/d)·√PR/√(d + 3)`, of the singular values of W₁.
#[must_use]
pub fn expected_alignment(values: &[f64], dimensions: usize) -> f64 {
    let d = dimensions as f64;
    (1.0 + 1.0 / d) * participation_ratio(values).sqrt() / (d + 3.0).sqrt()
}

/// The kernel alignment of a rank-one start along the target with w₂ = 0: `2/√(d + 3)`. With the balanced `w₂ = s·u` it is 1: the network stays on its
/// ray, and a low rank that knows the task is lazy.
#[must_use]
pub fn aligned_without_readout(dimensions: usize) -> f64 {
    2.0 / (dimensions as f64 + 3.0).sqrt()
}

/// `scale·Q_h·Q_dᵀ`, `[h, d]`, of r equal singular values `scale` in random directions.
///
/// # Errors
/// [`RegimeError::Rank`] for a rank of 0 or above d or h.
pub fn flat_start(
    hidden: usize,
    dimensions: usize,
    rank: usize,
    scale: f64,
    seed: Seed,
) -> Result<Mat<f64>, RegimeError> {
    let size = hidden.min(dimensions);
    if rank == 0 || rank > size {
        return Err(RegimeError::Rank { rank, size });
    }
    let basis = |name: &str, rows: usize| -> Result<Mat<f64>, RegimeError> {
        let draws = seed.at("flat", name).normal(rows * rank);
        let draws = Mat::from_fn(rows, rank, |i, j| f64::from(draws[i * rank + j]));
        Ok(orthonormal_basis(draws.as_ref())?)
    };
    let scaled = basis("left", hidden)? * faer::Scale(scale);
    Ok(multiply(scaled.as_ref(), basis("right", dimensions)?.transpose()))
}

/// `scale·N(0, 1)/√d`, `[h, d]`: the control whose scale alone turns learning from rich to lazy.
#[must_use]
pub fn gaussian_start(hidden: usize, dimensions: usize, scale: f64, seed: Seed) -> Mat<f64> {
    let draws = seed.at("linear", "gaussian").normal(hidden * dimensions);
    let deviation = scale / (dimensions as f64).sqrt();
    Mat::from_fn(hidden, dimensions, |i, j| deviation * f64::from(draws[i * dimensions + j]))
}
