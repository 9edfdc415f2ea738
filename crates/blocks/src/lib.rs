//! Number formats of stored weights: f64, f32, f16, bf16 and the GGUF block formats, widened row by row.
//!
//! A [`Format`] says how many values share a block and how many bytes a block takes; [`widen`] turns stored bytes
//! into `f32`, [`narrow`] goes back with the rounding of the GGUF reference. [`narrow_nf4`] and [`widen_nf4`] do the same for
//! NF4, which no file here holds. Nothing here opens a file.

mod error;
mod format;
mod k_blocks;
mod narrow;
mod nf4;
mod widen;

pub use error::BlockError;
pub use format::Format;
pub use narrow::narrow;
pub use nf4::{NF4_CODES, Nf4, narrow_nf4, widen_nf4};
pub use widen::widen;
