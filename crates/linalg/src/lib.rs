//! Low-rank linear algebra: factors, decompositions, sketches and spectra, on faer.
//!
//! The currency is [`LowRank`], `X = left · right`. [`svd`] is exact; [`randomised_svd`] works on any [`Operator`], that
//! is on a matrix that can only be multiplied with; [`SubspaceIteration`] is the same arithmetic one pass at a time, for
//! an operator that exists only as a stream of batches.
//!
//! Precision: operands are f32; orthogonalisation, small cores, energies and tails are computed in f64, and sums over tokens
//! are added up in f64.
//!
//! Repeatability: every result is a function of its arguments alone. Decompositions run sequentially, products are cut
//! into blocks whose size depends on the shapes only ([`multiply`]), so the number of threads changes no bit.

mod alignment;
mod basis;
pub mod combination;
mod components;
mod error;
mod gram;
mod incremental_svd;
mod iteration;
mod ldu;
mod low_rank;
mod moments;
mod operator;
mod pivoted_qr;
mod product;
mod pseudo_inverse;
mod qr;
mod real;
mod sketch;
mod spectrum;
mod subspace;
mod svd;

pub use alignment::{centred_alignment, representation_alignment};
pub use components::Components;
pub use error::LinalgError;
pub use gram::singular_values;
pub use incremental_svd::IncrementalSvd;
pub use iteration::{Side, SubspaceIteration};
pub use ldu::{Ldu, Pivoting, ldu, pivot_rows};
pub use low_rank::LowRank;
pub use moments::Moments;
pub use operator::{Operator, OuterProducts};
pub use pivoted_qr::{PivotedQr, pivoted_qr};
pub use product::{energy, finite, from_rows, multiply, narrow, to_rows, widen};
pub use pseudo_inverse::{PseudoInverse, pseudo_inverse};
pub use qr::{Qr, orthonormal_basis, qr};
pub use real::Real;
pub use sketch::{Sketch, Sketched, randomised_svd};
pub use spectrum::{
    directions, effective_rank, energy_fraction, participation_ratio, rank_for_energy, stable_rank,
};
pub use subspace::{overlap, principal_cosines};
pub use svd::{Svd, svd, svd_in_f64};
