//! Where in a written conversation the answers stand.

use std::ops::Range;

use serde_json::Value;

use super::ChatTemplate;
use crate::error::TaskError;

/// Which parts of an example are learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossOn {
    /// The answers: all `assistant` turns, the completion, the answer. Text without a prompt is learned whole.
    #[default]
    Answers,
    /// The last `assistant` turn only; the same as `Answers` where there is one answer.
    Last,
    /// Everything.
    All,
}

/// A text with the parts that are learned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marked {
    /// The whole text.
    pub text: String,
    /// Byte ranges that are learned, ascending, not empty, not overlapping.
    pub loss: Vec<Range<usize>>,
}

impl ChatTemplate {
    /// Writes a conversation and finds the answers in it.
    ///
    /// An answer goes from where the model begins to write (the conversation so far, with the generation prompt) to the
    /// end of its message, so it includes what the template puts after it (the end token, often a line end). Both places are
    /// found by writing parts of the conversation, each of which must be a beginning of the whole.
    ///
    /// # Errors
    /// [`TaskError::PrefixBroken`] when a part is written otherwise alone than in the whole (some templates treat the last turn
    /// apart), [`TaskError::NoAnswer`] without an assistant turn, [`TaskError::TemplateRender`].
    pub fn mark(&self, messages: &[Value], loss_on: LossOn) -> Result<Marked, TaskError> {
        let text = self.render(messages, false)?;
        if loss_on == LossOn::All {
            let whole = 0..text.len();
            return Ok(Marked { text, loss: vec![whole] });
        }
        let answer = |(at, message): (usize, &Value)| (message["role"] == "assistant").then_some(at);
        let mut answers: Vec<usize> = messages.iter().enumerate().filter_map(answer).collect();
        if loss_on == LossOn::Last {
            answers = answers.split_off(answers.len().saturating_sub(1));
        }
        let mut loss: Vec<Range<usize>> = Vec::with_capacity(answers.len());
        for at in answers {
            let start = self.length_of(messages, at, true, &text)?;
            let end = if at + 1 == messages.len() {
                text.len()
            } else {
                self.length_of(messages, at + 1, false, &text)?
            };
            if end > start {
                loss.push(start..end);
            }
        }
        if loss.is_empty() {
            return Err(TaskError::NoAnswer);
        }
        Ok(Marked { text, loss })
    }

    /// How much of the whole the first messages are.
    fn length_of(
        &self,
        messages: &[Value],
        count: usize,
        ask: bool,
        whole: &str,
    ) -> Result<usize, TaskError> {
        let part = self.render(&messages[..count], ask)?;
        if whole.starts_with(&part) {
            return Ok(part.len());
        }
        let same = part.chars().zip(whole.chars()).take_while(|(a, b)| a == b);
        let at: usize = same.map(|(letter, _)| letter.len_utf8()).sum();
        let excerpt = |text: &str| text[at..].chars().take(24).collect::<String>();
        Err(TaskError::PrefixBroken { message: count, at, alone: excerpt(&part), whole: excerpt(whole) })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{LLAMA3, turns};
    use super::*;
    use crate::test_tokenizers::CHATML;

    fn learned(template: &str, messages: &[Value], loss_on: LossOn) -> Result<Vec<String>, TaskError> {
        let marked = ChatTemplate::new(template, Some("<s>"), None, None).unwrap().mark(messages, loss_on)?;
        Ok(marked.loss.into_iter().map(|range| marked.text[range].to_owned()).collect())
    }

    #[test]
    fn answers_are_found_in_every_turn() {
        let messages =
            turns(&[("system", "S"), ("user", "a"), ("assistant", "bé"), ("user", "c"), ("assistant", "d")]);
        let rows = [(CHATML, "<|im_end|>\n"), (LLAMA3, "<|eot|>")];
        for (template, end) in rows {
            let expected = [format!("bé{end}"), format!("d{end}")];
            assert_eq!(learned(template, &messages, LossOn::Answers).unwrap(), expected);
            assert_eq!(learned(template, &messages, LossOn::Last).unwrap(), expected[1..]);
            assert_eq!(learned(template, &messages, LossOn::All).unwrap().len(), 1);
            assert_eq!(learned(template, &messages[..4], LossOn::Answers).unwrap(), expected[..1]);
        }
    }

    #[test]
    fn a_template_that_rewrites_earlier_turns_is_refused_by_name() {
        // Drops what was thought in every turn but the last, as some reasoning models do.
        let template = "{% for m in messages %}<{{ m.role }}>{% if loop.last %}{{ m.content }}{% else %}{{ m.content.split('|')[-1] }}{% endif %}</>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}";
        let messages =
            turns(&[("user", "a"), ("assistant", "think|b"), ("user", "c"), ("assistant", "think|d")]);
        let said = learned(template, &messages, LossOn::Answers).unwrap_err();
        // Up to message 2, alone: "<user>a</><assistant>think|b</>"; in the whole "b</>" follows "<assistant>".
        assert!(
            matches!(&said, TaskError::PrefixBroken { message: 2, at: 21, alone, whole } if alone.starts_with("think|b") && whole.starts_with("b</>")),
            "{said:?}"
        );
        assert!(said.to_string().contains("--loss-on all"));
        assert_eq!(learned(template, &messages, LossOn::Last).unwrap(), ["think|d</>"]);
        assert_eq!(learned(template, &messages, LossOn::All).unwrap().len(), 1);
    }

    #[test]
    fn a_conversation_needs_an_answer() {
        let messages = turns(&[("user", "a")]);
        assert_eq!(learned(CHATML, &messages, LossOn::Answers).unwrap_err(), TaskError::NoAnswer);
        assert!(learned(CHATML, &messages, LossOn::All).is_ok());
    }
}
