//! Pretrained decoders on layers that hold slots.
//!
//! A model knows no adapters and no initialisers by name: each of its linear layers is a [`lowrank_adapt::Linear`], and
//! [`Decoder::sites`] lists them by their checkpoint names.

pub mod decoder;
mod error;
mod mlp;

pub use decoder::config::{Config, RopeScaling};
pub use decoder::{Block, Cache, Decoder, Named, Passed, Recompute, Sampling, Widen};
pub use error::ModelError;
pub use mlp::{Mlp, Rows};
