//! Where starts meet layers: which layers are adapted ([`Plan`]), what a start must be shown ([`collect`],
//! [`collect_inputs`]), and
//! mounting the result ([`attach`](attach()), [`attach_stored`], [`restore`]).
//!
//! This is the only crate that knows both initialisers and forms.

mod collect;
mod error;
mod fed;
mod followed;
mod inputs;
mod mount;
mod plan;
mod ranks;
mod spectrum;
mod start;
mod survey;
mod switch;
mod targets;

pub use collect::{Calibration, Gradients, WHOLE, admits_passes, collect};
pub use error::AttachError;
pub use fed::fed;
pub use followed::Followed;
pub use inputs::{InputStatistics, collect_inputs};
pub use mount::{Attached, StoredParts, StoredStart, Way, attach, attach_stored, restore, restore_parts};
pub use plan::{Plan, Site};
pub use spectrum::Spectrum;
pub use start::Collected;
pub use survey::{Candidate, Looked, Survey, Tried, Wanted, survey};
pub use switch::{activate, mounted};
pub use targets::Targets;
