//! The initialisers, one a file.

mod gaussian;
mod kaiming;
mod lora_ga;
mod lora_ga_control;
mod orthogonal;
mod pissa;

pub use gaussian::{Deviation, Gaussian};
pub use kaiming::Kaiming;
pub use lora_ga::{Direction, LoraGa, Variant};
pub use lora_ga_control::LoraGaControl;
pub use orthogonal::{Orthogonal, Width};
pub use pissa::Pissa;
