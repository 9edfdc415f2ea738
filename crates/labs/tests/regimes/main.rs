//! The invariants of the analysis of regimes, against definitions and finite differences.

#![allow(clippy::unwrap_used, reason = "clippy sees only the #[test] functions here as tests")]

mod connectivity;
mod derivatives;
mod linear;
mod measures;

use faer::Mat;
use lowrank_labs::regimes::connectivity::gaussian;
use lowrank_labs::regimes::{Batch, Network, Scored, Task};
use lowrank_record::Seed;

/// A network of 9 units for a task, and 4 trials.
fn small(task: &dyn Task, leak: f64, scored: Scored) -> (Network, Batch) {
    let network = Network::new(task, gaussian(9, 1.25, Seed(3)), leak, Seed(4)).unwrap();
    (network, Batch { scored, ..task.batch(4, Seed(5)) })
}

fn random(rows: usize, cols: usize, seed: u64) -> Mat<f64> {
    let draws = Seed(seed).normal(rows * cols);
    Mat::from_fn(rows, cols, |i, j| f64::from(draws[i * cols + j]))
}

fn norm(a: &Mat<f64>) -> f64 {
    lowrank_linalg::energy(a.as_ref()).sqrt()
}
