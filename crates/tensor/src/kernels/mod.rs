//! Kernels on row-major slices: pure functions without engine types, in f32 for work and in f64 so that finite
//! differences test the very same code.
//!
//! Work is cut into fixed blocks that do not depend on the number of threads, and every sum has a fixed order inside
//! its block: the same input gives the same bits on one thread or many. Products run on faer inside each block; inner
//! loops are compiled for AVX-512, AVX2 or the baseline and chosen at run time.

pub mod attention;
pub mod cross_entropy;
mod erfc;
pub mod gelu;
pub mod layer_norm;
pub mod linear;
pub mod memory;
pub mod product;
mod real;
pub mod rms_norm;
pub mod rotary;
mod rows;
pub mod swiglu;

pub use real::Real;
pub use rows::{RowSource, SliceRows};
