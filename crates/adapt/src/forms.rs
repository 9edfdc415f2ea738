//! The forms, one a file.

mod lora;

pub use lora::Lora;
