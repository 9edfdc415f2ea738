//! The forms, one a file.

mod adalora;
mod boft;
mod core;
mod diag;
mod dora;
mod full;
mod ia3;
mod loha;
mod lokr;
mod lora;
mod oft;
mod rotation;
mod vera;

pub use self::core::{Core, CoreTrains};
pub use adalora::Adalora;
pub use boft::Boft;
pub use diag::Diag;
pub use dora::Dora;
pub use full::Full;
pub use ia3::{Ia3, On};
pub use loha::Loha;
pub use lokr::{Lokr, Zero};
pub use lora::{Lora, Trains};
pub use oft::{Cayley, Oft};
pub use vera::Vera;
