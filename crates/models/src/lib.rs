//! Pretrained decoders on layers that hold slots.
//!
//! A model knows no adapters and no initialisers by name: each of its linear layers is a [`lowrank_adapt::Linear`], and
//! [`Decoder::sites`] lists them by their checkpoint names.

pub mod decoder;
mod error;
mod mlp;

pub use decoder::config::{Activation, Config, Residual, RopeScaling};
pub use decoder::family::{Family, is_head, model_types};
pub use decoder::{Block, Cache, Decoder, Named, Passed, Projection, Recompute, Sampling, Widen};
pub use error::ModelError;
pub use mlp::{Mlp, Rows};
