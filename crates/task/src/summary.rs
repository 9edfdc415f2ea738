//! What was read, to be shown before training on it.

use std::fmt;

use crate::error::TaskError;
use crate::example::Example;
use crate::record::Kind;
use crate::tokenizer::Tokenizer;

/// Counts of a data set and one example with its mask.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Summary {
    /// Kind of the records.
    pub kind: Kind,
    /// Whether the chat template wrote them.
    pub chat: bool,
    /// Records read.
    pub read: usize,
    /// Examples kept.
    pub kept: usize,
    /// Tokens of the examples kept.
    pub tokens: usize,
    /// Tokens that are learned.
    pub loss_tokens: usize,
    /// Examples kept that lost their end.
    pub truncated: usize,
    /// Tokens lost by them.
    pub tokens_cut: usize,
    /// Examples left out because nothing of them remained to be learned.
    pub dropped: usize,
    /// Examples left out because several of their choices are best.
    pub undecided: usize,
    /// Tokens of the longest example kept.
    pub longest: usize,
    /// Tokens of an example kept, on average.
    pub mean: f64,
    /// The first example as text, what is learned between ⟦ and ⟧.
    pub example: String,
}

/// Letters of an example that are shown; of a longer one the middle is left out.
const SHOWN: usize = 1200;

impl Summary {
    /// Counts examples; kind, reading and losses are the caller's to fill in.
    pub(crate) fn of(examples: &[Example], tokenizer: &Tokenizer) -> Result<Summary, TaskError> {
        let tokens: usize = examples.iter().map(|example| example.tokens.len()).sum();
        let kept = examples.len();
        Ok(Summary {
            kind: Kind::PlainText,
            chat: false,
            read: kept,
            kept,
            tokens,
            loss_tokens: examples.iter().map(Example::loss_tokens).sum(),
            truncated: 0,
            tokens_cut: 0,
            dropped: 0,
            undecided: 0,
            longest: examples.iter().map(|example| example.tokens.len()).max().unwrap_or(0),
            mean: tokens as f64 / kept.max(1) as f64,
            example: examples.first().map_or(Ok(String::new()), |first| shortened(first, tokenizer))?,
        })
    }
}

/// An example as text, what is learned between ⟦ and ⟧; special tokens are written out.
///
/// # Errors
/// [`TaskError::Tokenize`] when the library cannot decode.
pub fn marked_text(example: &Example, tokenizer: &Tokenizer) -> Result<String, TaskError> {
    // One stream over all parts: a decoder that strips the first space of a text must do so once.
    let mut stream = tokenizer.stream(true);
    let mut out = String::new();
    let mut inside = false;
    for (&token, &learned) in example.tokens.iter().zip(&example.loss) {
        if learned != inside {
            out.push(if learned { '⟦' } else { '⟧' });
            inside = learned;
        }
        out.push_str(&stream.push(token)?);
    }
    out.push_str(&stream.finish()?);
    if inside {
        out.push('⟧');
    }
    Ok(out)
}

fn shortened(example: &Example, tokenizer: &Tokenizer) -> Result<String, TaskError> {
    let text = marked_text(example, tokenizer)?;
    let letters: Vec<char> = text.chars().collect();
    if letters.len() <= SHOWN {
        return Ok(text);
    }
    let part = |letters: &[char]| letters.iter().collect::<String>();
    Ok(format!("{} … {}", part(&letters[..SHOWN / 2]), part(&letters[letters.len() - SHOWN / 2..])))
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let layout = if self.chat { "chat" } else { "plain" };
        writeln!(f, "{} records of kind {}, written as {layout}", self.read, self.kind.name())?;
        writeln!(f, "{} examples, {} tokens, {} of them learned", self.kept, self.tokens, self.loss_tokens)?;
        writeln!(f, "longest {} tokens, mean {:.1}", self.longest, self.mean)?;
        if self.truncated + self.dropped > 0 {
            let (truncated, cut, dropped) = (self.truncated, self.tokens_cut, self.dropped);
            writeln!(
                f,
                "{truncated} truncated (by {cut} tokens in all), {dropped} dropped with nothing left to learn"
            )?;
        }
        if self.undecided > 0 {
            writeln!(f, "{} left out because several of their choices are best", self.undecided)?;
        }
        write!(f, "first example, learned part in ⟦ ⟧:\n{}", self.example)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_tokenizers::{bytes, pieces};

    fn example(tokenizer: &Tokenizer, text: &str, from: usize) -> Example {
        let cut = tokenizer.encode_cut(text, &[from]).unwrap();
        let loss = (0..cut.tokens.len()).map(|at| at >= cut.borders[0]).collect();
        Example { tokens: cut.tokens, loss, next: None, line: 1 }
    }

    #[test]
    fn the_learned_part_is_marked() {
        let tokenizer = bytes();
        assert_eq!(
            marked_text(&example(&tokenizer, "ab é<|im_end|>", 3), &tokenizer).unwrap(),
            "ab ⟦é<|im_end|>⟧"
        );
        let tokenizer = pieces();
        assert_eq!(marked_text(&example(&tokenizer, "ab ab", 2), &tokenizer).unwrap(), "ab⟦ ab⟧");
    }

    #[test]
    fn a_summary_counts_and_shows() {
        let tokenizer = bytes();
        let long = "x".repeat(5000);
        let examples = [example(&tokenizer, &long, 4990), example(&tokenizer, "abc", 1)];
        let summary = Summary::of(&examples, &tokenizer).unwrap();
        assert_eq!((summary.kept, summary.tokens, summary.loss_tokens, summary.longest), (2, 5003, 12, 5000));
        assert!((summary.mean - 2501.5).abs() < 1e-9);
        assert!(summary.example.chars().count() < SHOWN + 10 && summary.example.ends_with("⟦xxxxxxxxxx⟧"));
        assert!(!summary.to_string().contains("truncated"));
        let shown = Summary { truncated: 3, tokens_cut: 40, ..summary.clone() }.to_string();
        assert!(shown.contains("3 truncated (by 40 tokens in all), 0 dropped"), "{shown}");
        assert!(!shown.contains("left out"));
        assert!(Summary { undecided: 2, ..summary }.to_string().contains("2 left out"));
    }
}
