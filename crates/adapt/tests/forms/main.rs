//! What must hold of every form, and what each form promises by itself.
#![allow(clippy::unwrap_used, clippy::panic)] // A failure here is a failure of the test.

mod allocation;
mod dora;
mod gradients;
mod laws;
mod merging;
mod ranks;
mod reference;
mod refusals;
mod small;
mod starts;
