//! Pretrained networks on layers that hold slots: decoders, encoders, vision transformers and T5.
//!
//! A model knows no adapters and no initialisers by name: each of its linear layers is a [`lowrank_adapt::Linear`], and
//! [`Network::sites`] lists them by their checkpoint names.

mod activation;
mod checkpoint;
pub mod decoder;
pub mod encoder;
mod error;
mod keys;
pub mod mlp;
pub mod network;
mod norm;
pub mod t5;
mod tensors;
pub mod vision;

pub use activation::Activation;
pub use decoder::config::{Config, FeedForward, Residual, RopeScaling};
pub use decoder::family::{Family, is_head, model_types};
pub use decoder::{Block, Cache, Decoder, Named, Passed, Projection, Recompute, Sampling, Widen};
pub use encoder::Encoder;
pub use error::ModelError;
pub use mlp::{Mlp, Rows};
pub use network::Network;
pub use t5::T5;
pub use vision::Vision;
