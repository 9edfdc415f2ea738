//! Encoders, vision transformers and T5: their outputs are those of transformers, and their gradients are gradients.
#![allow(clippy::unwrap_used)] // A failure here is a failure of the test.

mod laws;
mod names;
mod reference;
mod refusals;
mod transformers;
