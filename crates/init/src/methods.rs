//! The initialisers, one a file.

mod gaussian;
mod kaiming;
mod loftq;
mod loldu;
mod lora_ga;
mod lora_ga_control;
mod lora_xs;
mod mica;
mod milora;
mod nlora;
mod olora;
mod orthogonal;
mod pissa;
mod qpissa;
mod random_control;
mod slora;
mod svfit;

pub use gaussian::{Deviation, Gaussian};
pub use kaiming::Kaiming;
pub use loftq::Loftq;
pub use loldu::{Diagonal, Loldu};
pub use lora_ga::{Direction, LoraGa, Variant};
pub use lora_ga_control::LoraGaControl;
pub use lora_xs::{Bases, LoraXs};
pub use mica::Mica;
pub use milora::Milora;
pub use nlora::{Block, Nlora, Pick, Residual};
pub use olora::{Olora, Pivot};
pub use orthogonal::{Orthogonal, Width};
pub use pissa::Pissa;
pub use qpissa::Qpissa;
pub use random_control::RandomControl;
pub use slora::Slora;
pub use svfit::Svfit;
