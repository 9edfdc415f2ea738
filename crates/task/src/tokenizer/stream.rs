//! Decoding token by token, as a model writes.

use super::Tokenizer;
use crate::error::TaskError;

/// Text that comes out as tokens come in, whole characters only.
///
/// A character of several bytes can be spread over several tokens; it comes out with the last of them. The context that
/// some decoders need (SentencePiece strips the first space of a text) is kept, so the parts joined are the
/// decoding of the whole.
pub struct Stream<'a> {
    tokenizer: &'a Tokenizer,
    keep_special: bool,
    /// The tokens of the last text that came out, then those that wait.
    tokens: Vec<u32>,
    /// How many of `tokens` have come out.
    done: usize,
}

impl Tokenizer {
    /// Starts decoding token by token; see [`Tokenizer::decode`] for `keep_special`.
    #[must_use]
    pub fn stream(&self, keep_special: bool) -> Stream<'_> {
        Stream { tokenizer: self, keep_special, tokens: Vec::new(), done: 0 }
    }
}

impl Stream<'_> {
    /// Takes one token and gives the text that is complete with it, often a word, sometimes nothing.
    ///
    /// # Errors
    /// [`TaskError::Tokenize`] when the library cannot decode.
    pub fn push(&mut self, token: u32) -> Result<String, TaskError> {
        self.tokens.push(token);
        let whole = self.tokenizer.decode(&self.tokens, self.keep_special)?;
        // A character whose bytes are not all here decodes to the replacement character at the end.
        if whole.ends_with('\u{fffd}') {
            return Ok(String::new());
        }
        self.take(&whole)
    }

    /// The text of tokens that wait for the rest of a character which never came: replacement characters.
    ///
    /// # Errors
    /// [`TaskError::Tokenize`] when the library cannot decode.
    pub fn finish(mut self) -> Result<String, TaskError> {
        let whole = self.tokenizer.decode(&self.tokens, self.keep_special)?;
        self.take(&whole)
    }

    fn take(&mut self, whole: &str) -> Result<String, TaskError> {
        let done = self.tokenizer.decode(&self.tokens[..self.done], self.keep_special)?;
        let new = whole.strip_prefix(&done).ok_or_else(|| TaskError::Tokenize {
            detail: format!("the decoder changed text that was already out: {done:?} became {whole:?}"),
        })?;
        if !new.is_empty() {
            self.tokens.drain(..self.done);
            self.done = self.tokens.len();
        }
        Ok(new.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use crate::test_tokenizers::{bytes, pieces};

    fn streamed(tokenizer: &crate::Tokenizer, tokens: &[u32]) -> Vec<String> {
        let mut stream = tokenizer.stream(true);
        let mut parts: Vec<String> = tokens.iter().map(|&token| stream.push(token).unwrap()).collect();
        parts.push(stream.finish().unwrap());
        parts
    }

    #[test]
    fn a_character_comes_out_whole() {
        let tokenizer = bytes();
        let parts = streamed(&tokenizer, &tokenizer.encode("a€b", false).unwrap());
        assert_eq!(parts, ["a", "", "", "€", "b", ""]);
    }

    #[test]
    fn a_character_cut_off_comes_out_at_the_end() {
        let tokenizer = bytes();
        let tokens = tokenizer.encode("x€", false).unwrap();
        assert_eq!(streamed(&tokenizer, &tokens[..2]), ["x", "", "\u{fffd}"]);
    }

    #[test]
    fn spaces_of_pieces_stay() {
        let tokenizer = pieces();
        let text = "ab ab  é ab";
        let tokens = tokenizer.encode(text, false).unwrap();
        assert_eq!(streamed(&tokenizer, &tokens).concat(), text);
    }
}
