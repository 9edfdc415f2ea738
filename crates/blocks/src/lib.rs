//! Number formats of stored weights: f64, f32, f16, bf16 and the GGUF block formats, widened row by row.
//!
//! A [`Format`] says how many values share a block and how many bytes a block takes; [`widen`] turns stored bytes
//! into `f32`, [`narrow`] goes back with the rounding of the GGUF reference. Nothing here opens a file.

mod error;
mod format;
mod k_blocks;
mod narrow;
mod widen;

pub use error::BlockError;
pub use format::Format;
pub use narrow::narrow;
pub use widen::widen;
