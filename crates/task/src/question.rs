//! Multiple-choice questions, as data and as tokens to score.

use serde_json::{Map, Value, json};

use crate::chat::ChatTemplate;
use crate::error::{TaskError, json_type};
use crate::example::{Format, plain_question};
use crate::record::text;
use crate::tokenizer::Tokenizer;

/// A question with its choices, one of them right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// What is asked.
    pub prompt: String,
    /// What may be answered, at least two.
    pub choices: Vec<String>,
    /// Index of the right choice.
    pub answer: usize,
}

/// A question as tokens. A model chooses the continuation with the highest probability after the context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenizedQuestion {
    /// The tokens before the choice, the same for every one.
    pub context: Vec<u32>,
    /// One a choice, none empty.
    pub continuations: Vec<Vec<u32>>,
    /// Bytes of each choice's text, to compare choices of unequal length per byte.
    pub bytes: Vec<usize>,
    /// Index of the right choice.
    pub answer: usize,
}

fn wrong(problem: String) -> TaskError {
    TaskError::Question { problem }
}

impl Question {
    /// Reads `{"question", "choices", "answer"}` or TOFU's `{"question", "answer", "perturbed_answer"}`.
    ///
    /// `answer` is the index of the right choice from 0, its letter (A is the first; only where no choice is that letter), or its
    /// very text. In TOFU's layout it is the text of the right choice, which becomes choice 0, before the wrong ones.
    ///
    /// # Errors
    /// [`TaskError::Question`] and those of [`crate::Record::from_json`].
    pub fn from_json(value: &Value) -> Result<Question, TaskError> {
        let object = value.as_object().ok_or(TaskError::NotObject { found: json_type(value) })?;
        let prompt = text(object, "question")?;
        if object.contains_key("choices") {
            let choices = list(object, "choices")?;
            let answer = answer(object.get("answer").unwrap_or(&Value::Null), &choices)?;
            return Question { prompt, choices, answer }.checked();
        }
        if object.contains_key("perturbed_answer") {
            let mut choices = vec![text(object, "answer")?];
            choices.extend(list(object, "perturbed_answer")?);
            return Question { prompt, choices, answer: 0 }.checked();
        }
        Err(wrong(
            "has no `choices`: give a list of texts, or `perturbed_answer` with the wrong ones".to_owned(),
        ))
    }

    pub(crate) fn checked(self) -> Result<Question, TaskError> {
        if self.choices.len() < 2 {
            return Err(wrong(format!("has {} choices: give at least 2", self.choices.len())));
        }
        for (index, choice) in self.choices.iter().enumerate() {
            if self.choices[..index].contains(choice) {
                return Err(wrong(format!("has the choice {choice:?} twice: choices must differ")));
            }
        }
        Ok(self)
    }

    /// The question as tokens to score.
    ///
    /// Chat: the question as a `user` turn, up to where the model begins to write. Plain: `Question: ` question, line end,
    /// `Answer:`, and each choice with a space before it. `Auto` is chat when there is a template.
    ///
    /// # Errors
    /// [`TaskError::NoTemplate`] for chat without a template, [`TaskError::TemplateRender`], [`TaskError::Tokenize`],
    /// [`TaskError::Question`] where a tokenizer leaves nothing of the context or of a choice.
    pub fn tokenize(
        &self,
        tokenizer: &Tokenizer,
        template: Option<&ChatTemplate>,
        format: Format,
    ) -> Result<TokenizedQuestion, TaskError> {
        let chat = format == Format::Chat || format == Format::Auto && template.is_some();
        let (context, space) = if chat {
            let template = template.ok_or(TaskError::NoTemplate { kind: "a question" })?;
            (template.render(&[json!({"role": "user", "content": self.prompt})], true)?, "")
        } else {
            (plain_question(&self.prompt), " ")
        };
        let before = if chat { &[] } else { tokenizer.around().0 };
        let mut tokens = before.to_vec();
        tokens.extend(tokenizer.encode_cut(&context, &[])?.tokens);
        if tokens.is_empty() {
            return Err(wrong(
                "has no token before its choices: the tokenizer or template drops its text".into(),
            ));
        }
        let mut continuations = Vec::with_capacity(self.choices.len());
        for choice in &self.choices {
            let cut = tokenizer.encode_cut(&format!("{context}{space}{choice}"), &[context.len()])?;
            let continuation: Vec<u32> = cut.tokens.into_iter().skip(cut.borders[0]).collect();
            if continuation.is_empty() {
                return Err(wrong(format!("has the choice {choice:?}, which the tokenizer drops")));
            }
            continuations.push(continuation);
        }
        let bytes = self.choices.iter().map(String::len).collect();
        Ok(TokenizedQuestion { context: tokens, continuations, bytes, answer: self.answer })
    }
}

/// Reads a JSONL file of questions, given as (line number from 1, value).
///
/// # Errors
/// [`TaskError::AtLine`] with the first line that is wrong; [`TaskError::NoRecords`] for an empty file.
pub fn read_questions(lines: impl IntoIterator<Item = (usize, Value)>) -> Result<Vec<Question>, TaskError> {
    let mut questions = Vec::new();
    for (line, value) in lines {
        questions.push(Question::from_json(&value).map_err(|cause| cause.at(line))?);
    }
    if questions.is_empty() { Err(TaskError::NoRecords) } else { Ok(questions) }
}

fn list(object: &Map<String, Value>, key: &str) -> Result<Vec<String>, TaskError> {
    let value = object.get(key).unwrap_or(&Value::Null);
    let values =
        value.as_array().ok_or_else(|| wrong(format!("has `{key}` as {}, not a list", json_type(value))))?;
    let one = |(index, value): (usize, &Value)| match value.as_str() {
        Some(text) if !text.trim().is_empty() => Ok(text.to_owned()),
        Some(_) => Err(TaskError::EmptyText { key: format!("{key}[{index}]") }),
        None => Err(TaskError::NotText { key: format!("{key}[{index}]"), found: json_type(value) }),
    };
    values.iter().enumerate().map(one).collect()
}

fn answer(value: &Value, choices: &[String]) -> Result<usize, TaskError> {
    let index = match value {
        Value::Number(number) => number.as_u64().and_then(|index| usize::try_from(index).ok()),
        Value::String(text) => choices.iter().position(|choice| choice == text).or_else(|| letter(text)),
        _ => None,
    };
    index.filter(|&index| index < choices.len()).ok_or_else(|| {
        wrong(format!(
            "has the answer {value}, which is no index, letter or text of its {} choices (indices begin at 0)",
            choices.len()
        ))
    })
}

/// The index of a single capital letter.
fn letter(text: &str) -> Option<usize> {
    match text.as_bytes() {
        [byte @ b'A'..=b'Z'] => Some(usize::from(byte - b'A')),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_tokenizers::{bytes, merged, pieces};

    fn read(value: Value) -> Result<Question, TaskError> {
        read_questions([(4, value)]).map(|mut questions| questions.remove(0))
    }

    #[test]
    fn answers_may_be_index_letter_or_text() {
        for answer in [json!(1), json!("B"), json!("two")] {
            let value = json!({"question": "q", "choices": ["one", "two", "three"], "answer": answer});
            assert_eq!(read(value).unwrap().answer, 1);
        }
        // A choice that is a letter itself comes before the letter's place.
        let value = json!({"question": "q", "choices": ["B", "A"], "answer": "A"});
        assert_eq!(read(value).unwrap().answer, 1);
        let tofu = read(json!({"question": "q", "answer": "r", "perturbed_answer": ["w", "v"]})).unwrap();
        assert_eq!((tofu.choices, tofu.answer), (vec!["r".to_owned(), "w".to_owned(), "v".to_owned()], 0));
    }

    #[test]
    fn what_cannot_be_scored_is_refused() {
        let rows = [
            (json!({"question": "q", "choices": ["a", "b"], "answer": 2}), "answer 2"),
            (json!({"question": "q", "choices": ["a", "b"]}), "answer null"),
            (json!({"question": "q", "choices": ["a", "b"], "answer": "Z"}), "\"Z\""),
            (json!({"question": "q", "choices": ["a"], "answer": 0}), "1 choices"),
            (json!({"question": "q", "choices": ["a", "a"], "answer": 0}), "twice"),
            (json!({"question": "q", "choices": ["a", ""], "answer": 0}), "choices[1]"),
            (json!({"question": "q", "choices": "ab", "answer": 0}), "not a list"),
            (json!({"question": "q", "answer": "a"}), "no `choices`"),
        ];
        for (value, part) in rows {
            let said = read(value).unwrap_err().to_string();
            assert!(said.starts_with("line 4") && said.contains(part), "{said}");
        }
        assert_eq!(read_questions([]).unwrap_err(), TaskError::NoRecords);
    }

    #[test]
    fn context_and_continuations_join_to_the_text() {
        let question = Question {
            prompt: "hel".to_owned(),
            choices: vec!["lo".to_owned(), "world".to_owned()],
            answer: 1,
        };
        let check = |tokenizer: &Tokenizer, format, before: &str, context: &str, space: &str| {
            let template = ChatTemplate::of(tokenizer, None).unwrap();
            let tokens = question.tokenize(tokenizer, template.as_ref(), format).unwrap();
            assert_eq!(tokenizer.decode(&tokens.context, true).unwrap(), format!("{before}{context}"));
            for (choice, continuation) in question.choices.iter().zip(&tokens.continuations) {
                let whole = [tokens.context.clone(), continuation.clone()].concat();
                let text = tokenizer.decode(&whole, true).unwrap();
                assert_eq!(text, format!("{before}{context}{space}{choice}"));
            }
            assert_eq!((tokens.answer, tokens.bytes), (1, vec![2, 5]));
        };
        let asked = "<|im_start|>user\nhel<|im_end|>\n<|im_start|>assistant\n";
        for tokenizer in [bytes(), merged()] {
            check(&tokenizer, Format::Auto, "", asked, "");
            check(&tokenizer, Format::Plain, "", "Question: hel\nAnswer:", " ");
        }
        // SentencePiece: the begin token, and a space before the text that decoding keeps after it.
        check(&pieces(), Format::Auto, "<s> ", "Question: hel\nAnswer:", " ");
        assert!(question.tokenize(&pieces(), None, Format::Chat).is_err());
    }
}
