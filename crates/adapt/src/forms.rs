//! The forms, one a file.

mod core;
mod diag;
mod full;
mod ia3;
mod lora;

pub use self::core::{Core, CoreTrains};
pub use diag::Diag;
pub use full::Full;
pub use ia3::{Ia3, On};
pub use lora::{Lora, Trains};
