//! Forms of a low-rank change, the slot that holds them, and merging.
//!
//! A [`Form`] says how a change `Δ [out, in]` of a weight is parametrised; its [`Adapter`] applies it to activations
//! without forming `Δ`. A [`Linear`] layer holds an ordered list of adapters. This crate knows no decompositions and
//! no initialisers: factors come in, layers go out.

mod form;
pub mod forms;
mod linear;

pub use form::{AdaptError, Adapter, Form, LowRankPath, Offset, Start};
pub use linear::{Linear, Mounted, Weight};

/// Every form, in the order in which they are listed.
pub const ALL: &[&dyn Form] = &[&forms::Lora];

/// The form of this name.
#[must_use]
pub fn by_name(name: &str) -> Option<&'static dyn Form> {
    ALL.iter().copied().find(|form| form.card().name == name)
}
