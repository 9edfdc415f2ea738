//! safetensors: a JSON header, then the bytes of the tensors without gaps.

mod error;
mod header;
mod read;
mod sharded;
mod write;

pub use error::{IndexError, SafetensorsError};
pub use read::SafetensorsFile;
pub use sharded::ShardedModel;
pub use write::{Entry, encode, write, write_to};

pub(crate) use read::parse;

/// File name of a model in one file.
pub const SINGLE_NAME: &str = "model.safetensors";
/// File name of the index of a model in several files.
pub const INDEX_NAME: &str = "model.safetensors.index.json";
