//! What must hold of evidence and of every pair of start and form on a whole model; pairs join by their lines in the two
//! catalogues.
#![allow(clippy::unwrap_used, clippy::panic)] // A failure here is a failure of the test.

mod edges;
mod evidence;
mod inputs;
mod mounting;
mod networks;
mod small;
mod survey;
mod switching;
