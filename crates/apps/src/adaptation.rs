//! What the commands that adapt a model share: model, data and plan are opened once, then one method after another is
//! started, trained, and handed over as a PEFT folder.
//!
//! A command turns its own options into an [`Adaptation`], which no two methods differ in, and a [`Method`] for each.

mod alignment;
mod change;
mod evidence;
mod evidence_cost;
mod handed;
mod handover;
mod memory;
mod method;
mod options;
mod outcome;
mod predict;
mod prepare;
mod ranks;
mod session;
mod settings;
mod stored_start;
mod survey;
mod trial;
mod work;

pub use outcome::{RunSummary, SiteChange};
pub use predict::{DryRun, Predicted};

pub(crate) use alignment::energies;
pub(crate) use handover::{Written, refuse_another, write};
pub(crate) use method::{Method, OWN_START};
pub(crate) use options::Adaptation;
pub(crate) use outcome::{loss, mebibytes};
pub(crate) use predict::{Planned, predict, table};
pub(crate) use prepare::{Prepared, chooses_rank, parameters, replaces_base};
pub(crate) use ranks::{equal_parameters, total};
pub(crate) use session::{Folder, train};
pub(crate) use settings::identity;
pub(crate) use stored_start::{Kept, check as check_start, path as start_path};
pub(crate) use trial::{Cost, Ended, captured, measure, trial};
