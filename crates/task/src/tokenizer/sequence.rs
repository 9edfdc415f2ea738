//! One or two texts as one sequence, the way encoders read them.

use tokenizers::{EncodeInput, TruncationParams};

use super::Tokenizer;
use crate::error::TaskError;

/// A tokenizer that cuts sequences to a length, the longer text of a pair first, and keeps every special token.
#[derive(Debug, Clone)]
pub struct SequenceEncoder {
    cutting: tokenizers::Tokenizer,
}

/// Tokens, their segments, whether each is special, and whether the sequence was cut.
pub(crate) type Encoded = (Vec<u32>, Vec<u32>, Vec<bool>, bool);

impl Tokenizer {
    /// For sequences of at most `max_length` tokens, special ones included.
    ///
    /// # Errors
    /// [`TaskError::Tokenize`] when the library refuses the length.
    pub fn sequence_encoder(&self, max_length: usize) -> Result<SequenceEncoder, TaskError> {
        let failed = |detail: String| TaskError::Tokenize { detail };
        let mut cutting = self.whole.clone();
        let to = TruncationParams { max_length, ..TruncationParams::default() };
        cutting.with_truncation(Some(to)).map_err(|error| failed(error.to_string()))?;
        Ok(SequenceEncoder { cutting })
    }
}

impl SequenceEncoder {
    /// One text, or two.
    ///
    /// # Errors
    /// [`TaskError::Tokenize`] when the library fails.
    pub(crate) fn encode(&self, text: &str, pair: Option<&str>) -> Result<Encoded, TaskError> {
        let input = match pair {
            Some(pair) => EncodeInput::Dual(text.into(), pair.into()),
            None => EncodeInput::Single(text.into()),
        };
        let encoding = self.cutting.encode_fast(input, true);
        let encoding = encoding.map_err(|error| TaskError::Tokenize { detail: error.to_string() })?;
        let special = encoding.get_special_tokens_mask().iter().map(|&special| special != 0).collect();
        let cut = !encoding.get_overflowing().is_empty();
        Ok((encoding.get_ids().to_vec(), encoding.get_type_ids().to_vec(), special, cut))
    }
}
