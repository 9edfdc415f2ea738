//! Labelled texts as token sequences with their answers.

use rayon::prelude::*;

use crate::error::TaskError;
use crate::labelled::{Answer, Labelled};
use crate::split::Sample;
use crate::tokenizer::{SequenceEncoder, Tokenizer};

/// The tokens of one or two texts, and what should be answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Sequence {
    /// Its tokens, those that the model expects around texts included.
    pub tokens: Vec<u32>,
    /// The text that each token is of, 0 or 1: the model's token types.
    pub segments: Vec<u32>,
    /// Whether each token was put there by the tokenizer and not by a text: it is never hidden.
    pub special: Vec<bool>,
    /// What should be answered.
    pub answer: Wanted,
    /// Line of the data file, from 1.
    pub line: usize,
}

impl Sample for Sequence {
    type Content = [u32];

    fn content(&self) -> &[u32] {
        &self.tokens
    }
}

/// What should be answered, as numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Wanted {
    /// The class of this index.
    Class(u32),
    /// A number.
    Number(f32),
    /// The tokens that will be hidden.
    Hidden,
}

/// What was made of a data file.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct SequenceSummary {
    /// Records read.
    pub read: usize,
    /// Tokens of all sequences.
    pub tokens: usize,
    /// Tokens of the longest.
    pub longest: usize,
    /// Sequences that lost their end.
    pub truncated: usize,
    /// Examples of a BIG-bench task left out because several of their choices are best.
    pub undecided: usize,
    /// Examples of such a task left out because their text is empty.
    pub without_text: usize,
    /// How many there are of each class, in the order of the classes; empty where there are none.
    pub classes: Vec<(String, usize)>,
    /// The first sequence as text.
    pub example: String,
}

impl std::fmt::Display for SequenceSummary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mean = self.tokens as f64 / self.read.max(1) as f64;
        write!(
            f,
            "data: {} records, {} tokens, {mean:.1} a record, {} the longest",
            self.read, self.tokens, self.longest
        )?;
        if self.truncated > 0 {
            write!(f, "; {} truncated", self.truncated)?;
        }
        if self.undecided > 0 {
            write!(f, "; {} left out, whose choices have no single best", self.undecided)?;
        }
        if self.without_text > 0 {
            write!(f, "; {} left out, whose text is empty", self.without_text)?;
        }
        if !self.classes.is_empty() {
            let named = self.classes.iter().map(|(name, count)| format!("{name} ({count})"));
            write!(f, "\nclasses: {}", named.collect::<Vec<_>>().join(", "))?;
        }
        write!(f, "\nfirst example: {}", self.example)
    }
}

/// Tokenises labelled texts, the longer of a pair cut first where they are longer than `max_length` together. `classes` are
/// those of the model, in order.
///
/// # Errors
/// [`TaskError::AtLine`] with [`TaskError::UnknownLabel`] for a class that is none of `classes`,
/// [`TaskError::Setting`] for a length that leaves no room for text.
pub fn sequences(
    records: &[Labelled],
    classes: &[String],
    tokenizer: &Tokenizer,
    max_length: usize,
) -> Result<(Vec<Sequence>, SequenceSummary), TaskError> {
    let around = tokenizer.around();
    // A pair has a special token more than a text alone (BERT) or two (RoBERTa).
    if max_length < around.0.len() + around.1.len() + 3 {
        return Err(TaskError::Setting {
            setting: "max_length",
            value: max_length.to_string(),
            expected: "enough for the tokens that the model wants around a text, and some of the text",
        });
    }
    let encoder = tokenizer.sequence_encoder(max_length)?;
    let made: Vec<(Sequence, bool)> = records
        .par_iter()
        .map(|record| one(record, classes, &encoder).map_err(|cause| cause.at(record.line)))
        .collect::<Result<_, _>>()?;
    let truncated = made.iter().filter(|(_, cut)| *cut).count();
    let made: Vec<Sequence> = made.into_iter().map(|(sequence, _)| sequence).collect();
    let of_class =
        |index: usize| made.iter().filter(|made| made.answer == Wanted::Class(index as u32)).count();
    let summary = SequenceSummary {
        read: made.len(),
        tokens: made.iter().map(|made| made.tokens.len()).sum(),
        longest: made.iter().map(|made| made.tokens.len()).max().unwrap_or(0),
        truncated,
        undecided: 0,
        without_text: 0,
        classes: classes.iter().cloned().enumerate().map(|(index, name)| (name, of_class(index))).collect(),
        example: match (made.first(), records.first()) {
            (Some(made), Some(record)) => {
                let answer = match &record.answer {
                    Answer::Class(name) => format!(" -> {name}"),
                    Answer::Number(value) => format!(" -> {value}"),
                    Answer::Hidden => String::new(),
                };
                tokenizer.decode(&made.tokens, true)? + &answer
            }
            _ => String::new(),
        },
    };
    Ok((made, summary))
}

fn one(
    record: &Labelled,
    classes: &[String],
    encoder: &SequenceEncoder,
) -> Result<(Sequence, bool), TaskError> {
    let answer = match &record.answer {
        Answer::Class(name) => match classes.iter().position(|class| class == name) {
            Some(index) => Wanted::Class(index as u32),
            None => return Err(TaskError::UnknownLabel { label: name.clone(), known: classes.join(", ") }),
        },
        Answer::Number(value) => Wanted::Number(*value),
        Answer::Hidden => Wanted::Hidden,
    };
    let (tokens, segments, special, cut) = encoder.encode(&record.text, record.pair.as_deref())?;
    if special.iter().all(|&special| special) {
        return Err(TaskError::EmptyText { key: "text".to_owned() });
    }
    Ok((Sequence { tokens, segments, special, answer, line: record.line }, cut))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_tokenizers::words;

    fn record(text: &str, pair: Option<&str>, class: &str) -> Labelled {
        let answer = Answer::Class(class.to_owned());
        Labelled { text: text.to_owned(), pair: pair.map(str::to_owned), answer, line: 3 }
    }

    #[test]
    fn texts_stand_between_the_special_tokens_and_are_cut_inside_them() {
        let tokenizer = words();
        let classes = ["x".to_owned(), "y".to_owned()];
        let records = [record("a b c", None, "y"), record("a b", Some("c d e f g h"), "x")];
        let (made, summary) = sequences(&records, &classes, &tokenizer, 9).unwrap();
        let id = |word: &str| tokenizer.token_id(word).unwrap();
        let [a, b, c, d] = ["a", "b", "c", "d"].map(id);
        assert_eq!(made[0].tokens, [2, a, b, c, 3]);
        assert_eq!(made[0].special, [true, false, false, false, true]);
        // The longer text loses its end, and every special token stays.
        assert_eq!(made[1].tokens, [2, a, b, 3, c, d, id("e"), id("f"), 3]);
        assert_eq!(made[1].segments, [0, 0, 0, 0, 1, 1, 1, 1, 1]);
        assert_eq!((made[0].answer, made[1].answer), (Wanted::Class(1), Wanted::Class(0)));
        assert_eq!((summary.truncated, summary.longest, summary.tokens), (1, 9, 14));
        assert_eq!(summary.classes, [("x".to_owned(), 1), ("y".to_owned(), 1)]);
    }

    #[test]
    fn a_class_that_was_not_trained_on_and_a_length_without_room_are_refused() {
        let tokenizer = words();
        let classes = ["x".to_owned(), "y".to_owned()];
        let refused = sequences(&[record("a", None, "z")], &classes, &tokenizer, 9).unwrap_err().to_string();
        for part in ["line 3", "\"z\"", "x, y"] {
            assert!(refused.contains(part), "{part}: {refused}");
        }
        let short = sequences(&[record("a", None, "x")], &classes, &tokenizer, 4).unwrap_err();
        assert!(matches!(short, TaskError::Setting { setting: "max_length", .. }), "{short}");
    }
}
