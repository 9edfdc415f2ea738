//! Where starts meet layers: which layers are adapted ([`Plan`]), what a start must be shown ([`collect`]), and
//! mounting the result ([`attach`](attach()), [`attach_stored`], [`restore`]).
//!
//! This is the only crate that knows both initialisers and forms.

mod collect;
mod error;
mod mount;
mod plan;
mod targets;

pub use collect::{Calibration, Gradients, admits_passes, collect};
pub use error::AttachError;
pub use mount::{Attached, attach, attach_stored, restore};
pub use plan::{Plan, Site};
pub use targets::Targets;
