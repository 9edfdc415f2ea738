//! Rich and lazy regimes of learning, and what the effective rank of the initial weights does to them.
//!
//! A network learns lazily where its tangent kernel and its representation hardly move, and richly where they move a lot. At one norm of the initial
//! recurrent weights a high effective rank makes learning lazier and a low one richer, on average over tasks; a low rank that is already
//! aligned with the task can be lazy too (Liu, Baratin, Cornford, Mihalas, Shea-Brown and Lajoie, "How connectivity structure shapes rich and lazy
//! learning in neural circuits", ICLR 2024, <https://arxiv.org/abs/2310.08513>).
//!
//! * [`connectivity`] draws recurrent weights of one norm, [`task`] trials, and [`train()`] trains a [`Network`] on them.
//! * [`course()`] is one training with all its measures: [`kernel()`], [`alignment`] and [`Spectrum`]; [`linear`] is the case that can be worked out.
//! * [`study`] asks whether the paper's claim holds.

pub mod alignment;
pub mod connectivity;
mod course;
mod error;
pub mod kernel;
pub mod linear;
mod network;
mod spectrum;
pub mod study;
pub mod task;
mod train;

pub use course::{Moved, Probes, Trained, course};
pub use error::RegimeError;
pub use kernel::kernel;
pub use network::{Gradient, Network, Trace};
pub use spectrum::{Spectrum, spectral_radius};
pub use task::{Batch, Scored, Task};
pub use train::{Training, train};
