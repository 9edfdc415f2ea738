//! Laboratories of low-rank matrices and dynamics, each a library first, a command second, a study third.
//!
//! * [`recovery`]: find a low-rank matrix from few, noisy or grossly corrupted measurements of it.
//! * [`regimes`]: does a network learn richly or lazily, and what did the rank of its initial weights do to that?

pub mod recovery;
pub mod regimes;
pub mod studies;
mod study;
