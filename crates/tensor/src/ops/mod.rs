//! Fused operations with hand-written backward, one a file. On the CPU they run the kernels; elsewhere the composed
//! form of [`composed`].
//!
//! What is never computed: a gradient for a frozen weight; a score matrix `[time, time]`; logits for all tokens at
//! once. What is saved for the backward is listed in each file.

mod attention;
pub mod composed;
mod cross_entropy;
mod dense;
mod embedding;
mod linear;
mod rms_norm;
mod rotary;
mod swiglu;
mod tap;

pub use attention::{Heads, Layout, attend, attention};
pub use cross_entropy::{
    TargetError, Targets, cross_entropy, cross_entropy_dense, cross_entropy_of_logits, log_likelihoods,
    log_likelihoods_dense, log_likelihoods_of_logits,
};
pub use dense::dense;
pub use embedding::{embedding, embedding_dense};
pub use linear::linear;
pub use rms_norm::rms_norm;
pub use rotary::{Rotary, rotary};
pub use swiglu::swiglu;
pub use tap::{Observer, tap};
