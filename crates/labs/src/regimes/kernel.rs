//! The tangent kernel of the recurrent weights, `K = J·Jᵀ`, without the Jacobian J.
//!
//! A row of J is the derivative of one logit of one step of one trial with respect to W, `a·Σ_s δ_s·h_{s−1}ᵀ`, a sum of outer products. The inner
//! product of two such sums needs no H²: `K_ab = a²·Σ_{s,s'} (δ_s^a·δ_{s'}^b)·(h_{s−1}^a·h_{s'−1}^b)`. For n rows of T steps that is O(n²·T²·H)
//! operations and O(n·T·H) memory instead of O(n²·H²) and O(n·H²); the paper's code forms J, 276 MB at H = 300.
//!
//! Rows are in the order step, trial, logit; of a batch that is scored at its last step only those of that step.

mod jacobian;

pub use jacobian::jacobian;

use faer::{Accum, Mat, MatMut, MatRef};

use super::network::{columns, mask, product};
use super::{Batch, Network};

/// The kernel `[n, n]` of a network on a batch, n = scored steps · trials · logits: symmetric, positive semidefinite.
///
/// # Panics
/// Panics when the batch has another width than the network.
#[must_use]
pub fn kernel(network: &Network, batch: &Batch) -> Mat<f64> {
    let trace = network.run(batch);
    let signals = signals(network, batch, &trace.states);
    let (units, trials, answers) = (network.units(), batch.trials, network.answers());
    let rows = (batch.targets.len() - batch.first_scored()) * answers;
    let before = columns(&trace.states[..units * trials * batch.steps], units);
    let mut states = Mat::<f64>::zeros(before.ncols(), before.ncols());
    product(states.as_mut(), Accum::Replace, before.transpose(), before, network.leak * network.leak);
    let block = |matrix: &Mat<f64>, at: (usize, usize)| {
        matrix.as_ref().submatrix(at.0 * trials, at.1 * trials, trials, trials).to_owned()
    };
    // Each pair of steps s < s' once: what it adds to K is added transposed as well.
    let mut half = Mat::<f64>::zeros(rows, rows);
    // The state before the first step is zero, and so is what that step adds.
    for s in 1..batch.steps {
        for t in s..batch.steps {
            let (early, late) = (columns(&signals[s], units), columns(&signals[t], units));
            let mut both = Mat::<f64>::zeros(early.ncols(), late.ncols());
            let weight = if s == t { 0.5 } else { 1.0 };
            product(both.as_mut(), Accum::Replace, early.transpose(), late, weight);
            let at = (rows - early.ncols(), rows - late.ncols());
            let to = half.as_mut().submatrix_mut(at.0, at.1, early.ncols(), late.ncols());
            add_weighted(to, both.as_ref(), block(&states, (s, t)).as_ref(), answers);
        }
    }
    let transposed = half.transpose().to_owned();
    half + transposed
}

/// The back-propagated signals of every step s: of each row whose logit is of step s or later, its δ_s, a column `[H]` each; rows of earlier
/// steps, whose signals are zero, are left out, so that the columns are the last of all rows.
fn signals(network: &Network, batch: &Batch, states: &[f64]) -> Vec<Vec<f64>> {
    let (units, trials, answers) = (network.units(), batch.trials, network.answers());
    let first = batch.first_scored() / trials.max(1);
    let block = units * trials;
    let mut signals = vec![Vec::new(); batch.steps];
    for step in (0..batch.steps).rev() {
        let own = if step >= first { block * answers } else { 0 };
        let after = signals.get(step + 1).map_or(&[][..], Vec::as_slice);
        let mut signal = vec![0.0; own + after.len()];
        let (start, carried) = signal.split_at_mut(own);
        for (at, column) in start.chunks_mut(units).enumerate() {
            column
                .iter_mut()
                .zip(network.readout.row(at % answers).iter())
                .for_each(|(to, &from)| *to = from);
        }
        if !carried.is_empty() {
            network.push_back(carried, after);
        }
        let state = &states[(step + 1) * block..(step + 2) * block];
        for (at, column) in signal.chunks_mut(units).enumerate() {
            let trial = at / answers % trials;
            mask(column, &state[trial * units..(trial + 1) * units]);
        }
        signals[step] = signal;
    }
    signals
}

/// `to += both ∘ states`, where an entry of `states`, `[trials, trials]`, belongs to all logits of all steps of its trials.
fn add_weighted(mut to: MatMut<'_, f64>, both: MatRef<'_, f64>, states: MatRef<'_, f64>, answers: usize) {
    let trials = states.nrows();
    for j in 0..both.ncols() {
        let weights: Vec<f64> = states.col(j / answers % trials).iter().copied().collect();
        let expanded = weights.iter().flat_map(|weight| std::iter::repeat_n(*weight, answers)).cycle();
        let entries = to.as_mut().col_mut(j).iter_mut().zip(both.col(j).iter());
        entries.zip(expanded).for_each(|((to, both), weight)| *to += both * weight);
    }
}

/// `⟨A, B⟩_F / (‖A‖_F·‖B‖_F)` of two kernels of one size: 1 where one is a positive multiple of the other, never below 0; 0 where one is zero.
/// Not centred, as in the paper.
///
/// # Panics
/// Panics when the kernels differ in size.
#[must_use]
pub fn kernel_alignment(a: MatRef<'_, f64>, b: MatRef<'_, f64>) -> f64 {
    assert_eq!(a.shape(), b.shape(), "kernels of one size");
    ratio(inner(a, b), inner(a, a), inner(b, b))
}

/// `yᵀKy / (|y|²·‖K‖_F)`, y the right answers as ones among zeros: how much of a kernel points at the task.
///
/// # Panics
/// Panics when the kernel is not of this batch.
#[must_use]
pub fn task_alignment(kernel: MatRef<'_, f64>, batch: &Batch, answers: usize) -> f64 {
    let targets = &batch.targets[batch.first_scored()..];
    assert_eq!(kernel.nrows(), targets.len() * answers, "rows of a kernel of this batch");
    let right: Vec<usize> = targets.iter().enumerate().map(|(at, target)| at * answers + target).collect();
    let pairs = |&j: &usize| right.iter().map(|&i| kernel[(i, j)]).sum::<f64>();
    let along: f64 = right.iter().map(pairs).sum();
    let norm = inner(kernel, kernel).sqrt() * right.len() as f64;
    if norm > 0.0 { along / norm } else { 0.0 }
}

fn inner(a: MatRef<'_, f64>, b: MatRef<'_, f64>) -> f64 {
    let column = |j: usize| a.col(j).iter().zip(b.col(j).iter()).map(|(x, y)| x * y).sum::<f64>();
    (0..a.ncols()).map(column).sum()
}

/// `between/√(first·second)`, 0 where one of them vanishes, and at most 1 whatever was rounded.
pub(super) fn ratio(between: f64, first: f64, second: f64) -> f64 {
    let norm = first.sqrt() * second.sqrt();
    if norm > 0.0 { (between / norm).clamp(-1.0, 1.0) } else { 0.0 }
}
