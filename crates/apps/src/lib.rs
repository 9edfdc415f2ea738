//! Applications that compose the rooms below; each is a module with its options and one function.
//!
//! [`tune`] and `init` start and train adapters, [`advise`] looks at model and data before, [`compare`] finds out which
//! method suits them, [`combine`],
//! [`merge`] and [`export`] hand them on and verify what they wrote, [`inspect`], [`evaluate`] and [`generate`] look at models,
//! [`pretrain`] makes a small one, [`catalogue`] and [`mod@reference`] print the cards.

mod adaptation;
pub mod advise;
pub mod catalogue;
mod choices;
pub mod combine;
pub mod compare;
mod data;
mod embedded;
pub mod evaluate;
pub mod export;
pub mod generate;
mod ground;
pub mod inspect;
pub mod merge;
mod model;
mod objective;
mod output;
mod pictures;
pub mod pretrain;
mod questions;
mod recipes;
mod recompress;
pub mod reference;
pub mod regime;
pub mod study;
mod subject;
mod training;
pub mod tune;
mod typed;
mod verify;
mod vocabulary;
mod watch;

pub use adaptation::{DryRun, Predicted, RunSummary, SiteChange};
pub use lowrank_command::{AppError, Progress, Silent};
pub use lowrank_tensor::keep_memory;
pub use model::Model;
pub use subject::Score;
