//! From a data file to token sequences with a loss mask.
//!
//! The way of the data, each step a pure function:
//!
//! 1. [`read_records`]: lines of a JSONL file, already parsed, become checked [`Record`]s of one [`Kind`].
//!    ([`BigBench`] and [`read_questions`] read other layouts; [`tokenize_plain_text`] takes a text whole.)
//! 2. [`tokenize`]: records become [`Example`]s, by the model's [`Tokenizer`] and [`ChatTemplate`], with a [`Summary`] to show.
//! 3. [`split`]: some are held out.
//! 4. [`BatchPlan`]: the batches of each epoch, fixed by a seed.
//!
//! For encoders: [`read_labelled`], [`sequences`], [`split`] and [`SequencePlan`].
//! [`tokenize_pairs`] is step 2 for models that read one text and write another. Images ([`LabelledPicture`]) are split like texts,
//! walked through by an [`EpochOrder`], and made inputs of by the model's [`Processor`].
//!
//! This crate opens no file and knows no tensor; it takes what the file crate has read and gives vectors of numbers.

mod batch;
mod big_bench;
mod chat;
mod error;
mod example;
mod labelled;
mod order;
mod pairs;
mod picture;
mod plain_text;
mod question;
mod record;
mod sequence;
mod sequence_batch;
mod split;
mod summary;
#[cfg(test)]
mod test_tokenizers;
mod tokenizer;

pub use batch::{Batch, BatchPlan, Batching, Held, NO_TARGET};
pub use big_bench::BigBench;
pub use chat::{ChatTemplate, Date, LossOn, Marked};
pub use error::TaskError;
pub use example::{Dataset, Example, Format, Layout, end_of_turn, prompt, tokenize};
pub use labelled::{Answer, Goal, Labelled, classes, label_by_answer, read_labelled};
pub use order::EpochOrder;
pub use pairs::{PairBatch, tokenize_pairs};
pub use picture::{Classes, LabelledPicture, Picture, PictureBatch, Processor, Scored, image_scores};
pub use plain_text::tokenize_plain_text;
pub use question::{Question, TokenizedQuestion, read_questions};
pub use record::{Kind, Record, Records, read_records};
pub use sequence::{Sequence, SequenceSummary, Wanted, sequences};
pub use sequence_batch::{Answers, Hiding, SequenceBatch, SequencePlan};
pub use split::{HeldOut, Pick, Sample, Split, split};
pub use summary::{Summary, marked_text};
pub use tokenizer::{Cut, GgufVocabulary, SequenceEncoder, SpecialTokens, Stream, Tokenizer, generation_eos};
