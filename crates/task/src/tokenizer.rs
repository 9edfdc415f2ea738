//! Text to tokens and back, on the `tokenizers` library.

mod config;
mod gguf;
mod pre;
mod sequence;
mod stream;

use rayon::prelude::*;
use serde_json::Value;

pub use self::config::{SpecialTokens, generation_eos};
pub use self::gguf::GgufVocabulary;
pub use self::sequence::SequenceEncoder;
pub use self::stream::Stream;
use crate::error::TaskError;

/// A model's tokenizer: vocabulary, special tokens, and the chat template that came with it.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    /// As the file says, without its truncation and padding.
    whole: tokenizers::Tokenizer,
    /// The same without the space it puts before a text, for text that goes on; `None` where there is no such space.
    continuing: Option<Box<tokenizers::Tokenizer>>,
    /// Tokens that the post-processor puts before and after a text.
    around: (Vec<u32>, Vec<u32>),
    vocabulary_size: usize,
    bos: Option<u32>,
    eos: Vec<u32>,
    pad: Option<u32>,
    chat_template: Option<String>,
}

/// Tokens of one text, cut at given places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// The tokens of the whole text.
    pub tokens: Vec<u32>,
    /// How many tokens stand before each border.
    pub borders: Vec<usize>,
}

impl Tokenizer {
    /// Reads the bytes of a `tokenizer.json`. Its truncation and padding are switched off: lengths are this crate's affair.
    ///
    /// # Errors
    /// [`TaskError::TokenizerFile`] when the library refuses it.
    pub fn from_json(bytes: &[u8]) -> Result<Tokenizer, TaskError> {
        let document =
            serde_json::from_slice(bytes).map_err(|e| TaskError::TokenizerFile { detail: e.to_string() })?;
        Tokenizer::from_value(&document)
    }

    fn from_value(document: &Value) -> Result<Tokenizer, TaskError> {
        let whole = build(document)?;
        let mut bare = document.clone();
        let continuing = if remove_prefix(&mut bare) { Some(Box::new(build(&bare)?)) } else { None };
        let vocabulary_size = whole.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1);
        let mut tokenizer = Tokenizer {
            whole,
            continuing,
            around: (Vec::new(), Vec::new()),
            vocabulary_size,
            bos: None,
            eos: Vec::new(),
            pad: None,
            chat_template: None,
        };
        tokenizer.around = tokenizer.probe()?;
        Ok(tokenizer)
    }

    /// What the post-processor puts around a text, found by comparing one text with and without.
    fn probe(&self) -> Result<(Vec<u32>, Vec<u32>), TaskError> {
        let with = encode(&self.whole, "a", true)?;
        let without = encode(&self.whole, "a", false)?;
        let at = with.windows(without.len().max(1)).position(|window| window == without);
        Ok(at.map_or_else(Default::default, |at| (with[..at].to_vec(), with[at + without.len()..].to_vec())))
    }

    /// The tokens of a text; with `special`, also those that the model expects around it (most often a begin token).
    ///
    /// Special tokens written out in the text become those tokens, as in other implementations.
    ///
    /// # Errors
    /// [`TaskError::Tokenize`] when the library fails.
    pub fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>, TaskError> {
        encode(&self.whole, text, special)
    }

    /// The tokens of a text such that none crosses a border (byte positions, ascending, on character borders).
    ///
    /// At each border the text before it, tokenised alone, must give the first tokens of the text: at generation time the
    /// prompt is tokenised alone, so training must see the same. Where it does not (a token would cross, or the
    /// split before merging looks ahead), the text is cut there and the rest tokenised as going on, without a space before it.
    ///
    /// # Errors
    /// [`TaskError::Tokenize`] when the library fails or a border is not on a character border.
    pub fn encode_cut(&self, text: &str, borders: &[usize]) -> Result<Cut, TaskError> {
        let mut cut = Cut { tokens: Vec::new(), borders: Vec::with_capacity(borders.len()) };
        let (mut start, mut rest) = (0, self.piece(text, 0, text.len())?);
        // The last border that the tokens of `rest` keep, and how many of them stand before it.
        let (mut kept, mut kept_tokens) = (0, 0);
        for &border in borders {
            if border == text.len() {
                // Nothing follows: all tokens stand before it.
                cut.borders.push(cut.tokens.len() + rest.len());
                continue;
            }
            let mut head = self.piece(text, start, border)?;
            if !rest.starts_with(&head) && kept > start {
                // Cutting here would replace tokens before the last border by others that may cross it: cut there first.
                cut.tokens.extend(rest.drain(..kept_tokens));
                start = kept;
                rest = self.piece(text, start, text.len())?;
                head = self.piece(text, start, border)?;
            }
            kept_tokens = head.len();
            if !rest.starts_with(&head) {
                cut.tokens.extend(head);
                (start, kept_tokens) = (border, 0);
                rest = self.piece(text, start, text.len())?;
            }
            kept = border;
            cut.borders.push(cut.tokens.len() + kept_tokens);
        }
        cut.tokens.extend(rest);
        Ok(cut)
    }

    /// The tokens of a long text, in parts of about `part` bytes, as the library holds some hundred bytes for each byte it
    /// tokenises at once. Parts end at a line end after an ASCII letter or digit, where every known way to split text
    /// before merging splits too, so the tokens are those of the whole.
    pub(crate) fn encode_long(&self, text: &str, part: usize) -> Result<Vec<u32>, TaskError> {
        let mut starts = vec![0];
        let bytes = text.as_bytes();
        let ends =
            bytes.windows(2).enumerate().filter(|(_, two)| two[0].is_ascii_alphanumeric() && two[1] == b'\n');
        for (at, _) in ends {
            if at + 1 - starts.last().copied().unwrap_or(0) >= part {
                starts.push(at + 1);
            }
        }
        let ends = starts.iter().skip(1).copied().chain([text.len()]);
        let parts: Vec<(usize, usize)> = starts.iter().copied().zip(ends).collect();
        let tokens: Result<Vec<_>, _> =
            parts.into_par_iter().map(|(start, end)| self.piece(text, start, end)).collect();
        Ok(tokens?.concat())
    }

    fn piece(&self, text: &str, start: usize, end: usize) -> Result<Vec<u32>, TaskError> {
        let piece = text.get(start..end).ok_or_else(|| TaskError::Tokenize {
            detail: format!("{start}..{end} is not a part of a text of {} bytes", text.len()),
        })?;
        match &self.continuing {
            Some(continuing) if start > 0 => encode(continuing, piece, false),
            _ => encode(&self.whole, piece, false),
        }
    }

    /// The text of tokens. Special tokens are written out with `keep_special`, otherwise left out. Bytes that are not
    /// UTF-8 become replacement characters.
    ///
    /// # Errors
    /// [`TaskError::Tokenize`] when the library fails.
    pub fn decode(&self, tokens: &[u32], keep_special: bool) -> Result<String, TaskError> {
        self.whole.decode(tokens, !keep_special).map_err(|e| TaskError::Tokenize { detail: e.to_string() })
    }

    /// The tokens that the model expects before and after a text.
    #[must_use]
    pub fn around(&self) -> (&[u32], &[u32]) {
        (&self.around.0, &self.around.1)
    }

    /// One more than the largest token id; a model's embedding has at least as many rows.
    #[must_use]
    pub fn vocabulary_size(&self) -> usize {
        self.vocabulary_size
    }

    /// The token as the vocabulary writes it (byte-level tokenizers write a space as `Ġ`).
    #[must_use]
    pub fn token_text(&self, id: u32) -> Option<String> {
        self.whole.id_to_token(id)
    }

    /// The id of a token as the vocabulary writes it.
    #[must_use]
    pub fn token_id(&self, text: &str) -> Option<u32> {
        self.whole.token_to_id(text)
    }

    /// The token that begins a text, when it is known.
    #[must_use]
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The tokens that end a text: the first is written, any of them stops generation. Empty when none is known.
    #[must_use]
    pub fn eos(&self) -> &[u32] {
        &self.eos
    }

    /// The token that fills rows: the model's own, else the first end token, else 0. Filled places never carry loss.
    #[must_use]
    pub fn pad(&self) -> u32 {
        self.pad.or(self.eos.first().copied()).unwrap_or(0)
    }

    /// The chat template that came with the tokenizer, Jinja source.
    #[must_use]
    pub fn chat_template(&self) -> Option<&str> {
        self.chat_template.as_deref()
    }
}

fn build(document: &Value) -> Result<tokenizers::Tokenizer, TaskError> {
    let refused = |detail: String| TaskError::TokenizerFile { detail };
    // Through text: the library's own types borrow strings, which a parsed document cannot lend.
    let text = serde_json::to_vec(document).map_err(|e| refused(e.to_string()))?;
    let mut tokenizer = tokenizers::Tokenizer::from_bytes(&text).map_err(|e| refused(e.to_string()))?;
    tokenizer.with_truncation(None).map_err(|e| refused(e.to_string()))?;
    tokenizer.with_padding(None);
    Ok(tokenizer)
}

fn encode(tokenizer: &tokenizers::Tokenizer, text: &str, special: bool) -> Result<Vec<u32>, TaskError> {
    // `encode_fast` leaves out offsets, which nothing here needs.
    let encoding = tokenizer.encode_fast(text, special);
    encoding.map(|e| e.get_ids().to_vec()).map_err(|e| TaskError::Tokenize { detail: e.to_string() })
}

/// Takes out of a `tokenizer.json` every step that puts a space before a text; true when there was one.
fn remove_prefix(document: &mut Value) -> bool {
    let mut found = false;
    for (step, list) in [("normalizer", "normalizers"), ("pre_tokenizer", "pretokenizers")] {
        let Some(value) = document.get_mut(step) else { continue };
        if let Some(steps) = value.get_mut(list).and_then(Value::as_array_mut) {
            let count = steps.len();
            steps.retain(|step| step["type"] != "Prepend");
            found |= steps.len() < count;
            steps.iter_mut().for_each(|step| found |= switch_off(step));
        } else if value["type"] == "Prepend" {
            *value = Value::Null;
            found = true;
        } else {
            found |= switch_off(value);
        }
    }
    found
}

fn switch_off(step: &mut Value) -> bool {
    let on = match step["type"].as_str() {
        Some("Metaspace") => step["prepend_scheme"] != "never" && step["add_prefix_space"] != false,
        // The library's default is true.
        Some("ByteLevel") => step["add_prefix_space"] != false,
        _ => false,
    };
    if on {
        step["add_prefix_space"] = Value::Bool(false);
        if step["type"] == "Metaspace" {
            step["prepend_scheme"] = Value::String("never".to_owned());
        }
    }
    on
}

#[cfg(test)]
mod tests;
