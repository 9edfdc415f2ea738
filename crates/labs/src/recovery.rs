//! Recovery of low-rank matrices from measurements.
//!
//! `y_i = ⟨A_i, X*⟩ + noise or gross errors`, X* `[n1, n2]` of low rank, is solved by first-order steps on the factors of
//! `X = L·Rᵀ`, L `[n1, k]`, R `[n2, k]`; k may exceed the true rank. A [`Measurement`] says what is measured, a [`Loss`] whether
//! residuals count by their squares or by their size (robust), a [`Start`] where the factors begin, [`Steps`] how far each step
//! goes, and a [`Solver`] gives a [`Solution`], which says why it ended. The two papers behind it: Ma and Fattahi (2023) on
//! sub-gradients from a small start, Xiong, Ding and Du (2024) on over-parameterised symmetric and asymmetric descent.

pub mod command;
mod descent;
mod dot;
mod error;
mod factors;
mod loss;
mod measurement;
mod rebalance;
mod solver;
mod start;
mod steps;
pub mod study;

pub use descent::Descent;
pub use error::RecoveryError;
pub use factors::Factors;
pub use loss::Loss;
pub use measurement::{Adjoint, DenseSensing, Entries, Identity, Measurement, Pull, RankOne, Weigh};
pub use rebalance::{Rebalance, When};
pub use solver::{Limits, Moment, Problem, Quality, Recorded, Solution, Solver, Stop, unwatched};
pub use start::Start;
pub use steps::Steps;
