//! Plain data that every floor shares: what a method is ([`Card`]) and which choices it was given ([`Options`]), where
//! randomness comes from ([`Seed`]), and what a method has to say about its own result ([`Report`]).
//!
//! This crate knows no matrices, tensors or files.

mod card;
mod options;
mod report;
mod scale;
mod seed;

pub use card::{Card, Choice, Kind, Need, Promise, Source};
pub use options::{Named, OptionError, Options, nearest, plain};
pub use report::{Report, Value};
pub use scale::scale;
pub use seed::Seed;
