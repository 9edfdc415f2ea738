//! GGUF, versions 2 and 3, little-endian: typed key-value pairs, then a table of tensors, then their aligned bytes.
//!
//! Source: the format's description in the ggml repository (`docs/gguf.md`) and `gguf.cpp`. Shapes are given here as
//! `[out, in]`, slowest side first; the file holds them the other way round.

mod cursor;
mod error;
mod llama;
mod read;
mod tables;
mod value;
mod write;

pub use error::GgufError;
pub use llama::{LlamaCppBase, halves_to_pairs, hugging_face_name, llama_cpp_name, pairs_to_halves};
pub use read::{GgufFile, is_gguf};
pub use value::{Array, Value};
pub use write::{Entry, encode, write, write_to};

/// The four bytes at the beginning.
const MAGIC: [u8; 4] = *b"GGUF";
/// Where tensors begin, when the file does not say: at multiples of 32.
const DEFAULT_ALIGNMENT: u32 = 32;
/// The key that says otherwise.
const ALIGNMENT_KEY: &str = "general.alignment";
/// ggml has at most four sides.
const MAX_SIDES: usize = 4;
