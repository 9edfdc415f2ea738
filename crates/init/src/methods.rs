//! The initialisers, one a file.

mod corda;
mod eva;
mod eva_control;
mod gaussian;
mod kaiming;
mod lora_ga;
mod lora_ga_control;
mod lora_sb;
mod lora_sb_control;
mod orthogonal;
mod pissa;

pub use corda::{Corda, Mode};
pub use eva::{Eva, Normalise};
pub use eva_control::EvaControl;
pub use gaussian::{Deviation, Gaussian};
pub use kaiming::Kaiming;
pub use lora_ga::{Direction, LoraGa, Variant};
pub use lora_ga_control::LoraGaControl;
pub use lora_sb::{CoreStart, LoraSb, Rate, Target};
pub use lora_sb_control::LoraSbControl;
pub use orthogonal::{Orthogonal, Width};
pub use pissa::Pissa;
