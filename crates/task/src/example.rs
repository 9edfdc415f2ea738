//! Records laid out as text, tokenised, and cut to length.

use std::ops::Range;

use rayon::prelude::*;
use serde_json::json;

use crate::chat::{ChatTemplate, LossOn, Marked};
use crate::error::TaskError;
use crate::record::{Record, Records};
use crate::summary::Summary;
use crate::tokenizer::Tokenizer;

/// Tokens of one document and which of them are learned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// The tokens, at least two.
    pub tokens: Vec<u32>,
    /// Whether token i is predicted with loss, from those before it. Never true for the first, which nothing predicts.
    pub loss: Vec<bool>,
    /// The token that follows, learned from the last one: only where a longer text was cut into rows.
    pub next: Option<u32>,
    /// Line of the data file, from 1.
    pub line: usize,
}

impl Example {
    /// How many tokens are predicted with loss.
    #[must_use]
    pub fn loss_tokens(&self) -> usize {
        self.loss.iter().filter(|&&learned| learned).count() + usize::from(self.next.is_some())
    }

    /// The tokens before the first one that is learned: what to hand to the model to have it write the rest.
    #[must_use]
    pub fn prompt(&self) -> &[u32] {
        let first = self.loss.iter().position(|&learned| learned).unwrap_or(self.tokens.len());
        &self.tokens[..first]
    }
}

/// How prompts and answers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// As chat when the model has a chat template, else plain.
    #[default]
    Auto,
    /// The prompt as a `user` turn, the answer as an `assistant` turn, written by the chat template.
    Chat,
    /// One after the other, ended by the end token.
    Plain,
}

/// How records become examples.
///
/// | record | chat | plain |
/// | --- | --- | --- |
/// | text | always plain | the text |
/// | prompt/completion | user, assistant | `prompt` then `completion`, joined as they are |
/// | question/answer | user, assistant | `Question: ` question, line end, `Answer:`, a space and the answer |
/// | messages | as they are | an error |
///
/// Plain texts stand between the tokens that the model expects around a text, and end with its end token, which is learned.
/// Chat texts get no token but those the template writes. Prompts are tokenised as they will be at generation time
/// ([`Tokenizer::encode_cut`]), so no token is half prompt and half answer.
///
/// An example longer than `max_length` loses its end and is counted as truncated; if nothing of it remains to be learned (the
/// prompt fills the length) it is dropped and counted, and it is an error if none is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Chat, plain, or whichever the model has.
    pub format: Format,
    /// What is learned.
    pub loss_on: LossOn,
    /// Longest example, in tokens, at least 2.
    pub max_length: usize,
}

/// What was made of a data file.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    /// The examples, in file order.
    pub examples: Vec<Example>,
    /// What to show of it.
    pub summary: Summary,
}

/// Lays out and tokenises records.
///
/// # Errors
/// [`TaskError::AtLine`] with what is wrong in a line, [`TaskError::Setting`] for a `max_length` below 2,
/// [`TaskError::NothingLeft`] when every example was dropped.
pub fn tokenize(
    records: &Records,
    tokenizer: &Tokenizer,
    template: Option<&ChatTemplate>,
    layout: &Layout,
) -> Result<Dataset, TaskError> {
    let max_length = layout.max_length;
    if max_length < 2 {
        return Err(TaskError::Setting {
            setting: "max_length",
            value: max_length.to_string(),
            expected: "at least 2",
        });
    }
    let mut examples = Vec::with_capacity(records.records.len());
    let (mut truncated, mut cut_tokens, mut dropped) = (0, 0, 0);
    let mut shortest_prompt = usize::MAX;
    // In parallel, then in file order: the first wrong line is the one reported.
    let laid: Vec<_> = records
        .records
        .par_iter()
        .map(|(line, record)| (*line, one(record, tokenizer, template, layout)))
        .collect();
    for (line, example) in laid {
        let mut example = example.map_err(|cause| cause.at(line))?;
        example.line = line;
        shortest_prompt = shortest_prompt.min(example.prompt().len());
        let over = example.tokens.len().saturating_sub(max_length);
        example.tokens.truncate(max_length);
        example.loss.truncate(max_length);
        if example.loss_tokens() == 0 {
            dropped += 1;
        } else {
            truncated += usize::from(over > 0);
            cut_tokens += over;
            examples.push(example);
        }
    }
    if examples.is_empty() {
        let read = records.records.len();
        return Err(if read == 0 {
            TaskError::NoRecords
        } else {
            TaskError::NothingLeft { read, max_length, shortest_prompt }
        });
    }
    let mut summary = Summary::of(&examples, tokenizer)?;
    summary.kind = records.kind;
    summary.chat = writes_chat(&records.records[0].1, template, layout.format);
    summary.read = records.records.len();
    (summary.truncated, summary.tokens_cut, summary.dropped) = (truncated, cut_tokens, dropped);
    Ok(Dataset { examples, summary })
}

/// The tokens to hand to the model to have it write the answer of a record; `None` for text without a prompt.
///
/// # Errors
/// As [`tokenize`], without lines.
pub fn prompt(
    record: &Record,
    tokenizer: &Tokenizer,
    template: Option<&ChatTemplate>,
    layout: &Layout,
) -> Result<Option<Vec<u32>>, TaskError> {
    if matches!(record, Record::Text(_)) {
        return Ok(None);
    }
    let last = Layout { loss_on: LossOn::Last, ..*layout };
    Ok(Some(one(record, tokenizer, template, &last)?.prompt().to_vec()))
}

/// The special token with which a chat template ends an answer: what the model learns to write there, and not always one of the
/// tokens that end a text. `None` where the answer ends with no special token.
///
/// # Errors
/// As [`tokenize`], without lines.
pub fn end_of_turn(tokenizer: &Tokenizer, template: &ChatTemplate) -> Result<Option<u32>, TaskError> {
    let record = Record::QuestionAnswer { question: "-".to_owned(), answer: "-".to_owned() };
    let layout = Layout { format: Format::Chat, loss_on: LossOn::Last, max_length: usize::MAX };
    let example = one(&record, tokenizer, Some(template), &layout)?;
    for (&token, _) in example.tokens.iter().zip(&example.loss).filter(|(_, learned)| **learned) {
        if tokenizer.decode(&[token], false)?.is_empty() && !tokenizer.decode(&[token], true)?.is_empty() {
            return Ok(Some(token));
        }
    }
    Ok(None)
}

/// Whether a record is written by the chat template.
pub(crate) fn writes_chat(record: &Record, template: Option<&ChatTemplate>, format: Format) -> bool {
    match record {
        Record::Text(_) => false,
        Record::Messages(_) => true,
        _ => format == Format::Chat || format == Format::Auto && template.is_some(),
    }
}

fn one(
    record: &Record,
    tokenizer: &Tokenizer,
    template: Option<&ChatTemplate>,
    layout: &Layout,
) -> Result<Example, TaskError> {
    let chat = writes_chat(record, template, layout.format);
    let marked = if chat { written(record, template, layout)? } else { plain(record, layout.loss_on) };
    let borders: Vec<usize> = marked.loss.iter().flat_map(|range| [range.start, range.end]).collect();
    let cut = tokenizer.encode_cut(&marked.text, &borders)?;
    let mut loss = vec![false; cut.tokens.len()];
    for place in cut.borders.chunks_exact(2) {
        loss[place[0]..place[1]].fill(true);
    }
    let mut tokens = cut.tokens;
    if !chat {
        let ends = marked.loss.last().is_some_and(|range| range.end == marked.text.len());
        (tokens, loss) = surround(tokenizer, tokens, loss, ends)?;
    }
    if let Some(first) = loss.first_mut() {
        *first = false;
    }
    Ok(Example { tokens, loss, next: None, line: 0 })
}

/// Puts the expected tokens around a plain text and the end token behind it.
fn surround(
    tokenizer: &Tokenizer,
    tokens: Vec<u32>,
    loss: Vec<bool>,
    learn_end: bool,
) -> Result<(Vec<u32>, Vec<bool>), TaskError> {
    let &end = tokenizer.eos().first().ok_or(TaskError::NoEos)?;
    let (before, after) = tokenizer.around();
    let mut all = before.to_vec();
    let mut learned = vec![false; before.len()];
    all.extend(tokens);
    learned.extend(loss);
    // Some tokenizers put the end token themselves; it must not stand twice.
    let after = if after.is_empty() { &[end] } else { after };
    all.extend(after);
    learned.extend(vec![learn_end; after.len()]);
    Ok((all, learned))
}

fn written(record: &Record, template: Option<&ChatTemplate>, layout: &Layout) -> Result<Marked, TaskError> {
    let template = template.ok_or(TaskError::NoTemplate { kind: record.kind().name() })?;
    let pair = |prompt: &str, answer: &str| {
        template.mark(
            &[json!({"role": "user", "content": prompt}), json!({"role": "assistant", "content": answer})],
            layout.loss_on,
        )
    };
    match record {
        Record::Messages(_) if layout.format == Format::Plain => Err(TaskError::MessagesPlain),
        Record::Messages(messages) => template.mark(messages, layout.loss_on),
        Record::PromptCompletion { prompt, completion } => pair(prompt, completion),
        Record::QuestionAnswer { question, answer } => pair(question, answer),
        Record::Text(_) => Ok(plain(record, layout.loss_on)),
    }
}

fn plain(record: &Record, loss_on: LossOn) -> Marked {
    let (prompt, answer) = match record {
        Record::Text(text) => (String::new(), text.clone()),
        Record::PromptCompletion { prompt, completion } => (prompt.clone(), completion.clone()),
        Record::QuestionAnswer { question, answer } => (plain_question(question), format!(" {answer}")),
        // `one` writes messages by the template or refuses them.
        Record::Messages(_) => (String::new(), String::new()),
    };
    let text = prompt.clone() + &answer;
    let start = if loss_on == LossOn::All { 0 } else { prompt.len() };
    let loss: Range<usize> = start..text.len();
    Marked { text, loss: vec![loss] }
}

/// A question in plain layout, as evaluation harnesses write GSM8K; the answer follows with a space.
pub(crate) fn plain_question(question: &str) -> String {
    format!("Question: {question}\nAnswer:")
}

#[cfg(test)]
mod tests;
