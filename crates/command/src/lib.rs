//! What a command of `apps` or `labs` has around its work: options that are flags and the keys of a recipe at once
//! ([`mod@options`]), an outside to speak to ([`Progress`]), the two kinds of errors with their exit codes ([`AppError`]), and a
//! report that is one file ([`page`]), with means over seeds and their [`Interval`]s.

mod error;
mod interval;
pub mod options;
pub mod page;
mod progress;

pub use error::{AppError, Because};
pub use interval::Interval;
pub use progress::{Progress, Silent};
