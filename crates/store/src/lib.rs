//! Every file format: safetensors, GGUF, PEFT adapter folders, checkpoints; strict in, atomic out.
//!
//! This is the only crate that parses or writes the bytes of a file. Reading is total: each kind of damage has its own
//! error, nothing is allocated on the word of a damaged header, and nothing is guessed. Writing goes to a sibling that
//! takes the real name only when it is complete ([`atomic`]). Nothing here knows a tensor engine.

pub mod atomic;
pub mod checkpoint;
mod error;
pub mod export;
pub mod gguf;
pub mod hash;
pub mod image;
pub mod json;
pub mod jsonl;
mod mapped;
pub mod npy;
pub mod observations;
pub mod peft;
pub mod safetensors;
pub mod tensors;
pub mod text;

pub use error::StoreError;
pub use gguf::GgufFile;
pub use lowrank_blocks::Format;
pub use tensors::{Dtype, TensorInfo, TensorSource};
