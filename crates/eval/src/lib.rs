//! Metrics of a model on data: perplexity, multiple choice. Reads, never writes.
//!
//! Both metrics come from `−log p` of tokens; logits of the whole vocabulary are never kept.

mod choice;
mod perplexity;

pub use choice::{Chosen, MultipleChoice, choose, multiple_choice};
pub use perplexity::{Perplexity, layout, perplexity, total_loss};
