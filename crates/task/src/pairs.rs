//! Prompts and answers for an encoder–decoder: the one reads, the other writes.

use rayon::prelude::*;

use crate::batch::NO_TARGET;
use crate::error::TaskError;
use crate::example::{Dataset, Example};
use crate::record::{Record, Records};
use crate::summary::Summary;
use crate::tokenizer::Tokenizer;

/// Lays out and tokenises records for an encoder–decoder: an [`Example`] is the source, which is given, and behind it the
/// answer, which is learned. [`PairBatch`] takes the two apart again.
///
/// Prompts and questions are taken as they are, without words of ours around them; each side stands between the tokens that the
/// model expects around a text and ends with its end token. A source longer than `max_length` loses its end but not its end
/// token, as in `transformers`; an answer loses its end with the end token, since it does not end there. Both count as truncated.
///
/// # Errors
/// [`TaskError::AtLine`] with what is wrong in a line, [`TaskError::NoPair`] for records that are no pairs,
/// [`TaskError::Setting`] for a `max_length` below 2, [`TaskError::NoRecords`].
pub fn tokenize_pairs(
    records: &Records,
    tokenizer: &Tokenizer,
    max_length: usize,
) -> Result<Dataset, TaskError> {
    if max_length < 2 {
        let value = max_length.to_string();
        return Err(TaskError::Setting { setting: "max_length", value, expected: "at least 2" });
    }
    // In parallel, then in file order: the first wrong line is the one reported.
    let laid: Vec<_> = records
        .records
        .par_iter()
        .map(|(line, record)| (*line, pair(record, tokenizer, max_length)))
        .collect();
    let (mut examples, mut truncated, mut tokens_cut) = (Vec::with_capacity(laid.len()), 0, 0);
    for (line, laid) in laid {
        let (mut example, cut) = laid.map_err(|cause| cause.at(line))?;
        example.line = line;
        truncated += usize::from(cut > 0);
        tokens_cut += cut;
        examples.push(example);
    }
    if examples.is_empty() {
        return Err(TaskError::NoRecords);
    }
    let mut summary = Summary::of(&examples, tokenizer)?;
    (summary.kind, summary.read) = (records.kind, records.records.len());
    (summary.truncated, summary.tokens_cut) = (truncated, tokens_cut);
    Ok(Dataset { examples, summary })
}

/// One pair, and the tokens that it lost.
fn pair(record: &Record, tokenizer: &Tokenizer, max_length: usize) -> Result<(Example, usize), TaskError> {
    let (prompt, answer) = match record {
        Record::PromptCompletion { prompt, completion } => (prompt, completion),
        Record::QuestionAnswer { question, answer } => (question, answer),
        Record::Text(_) | Record::Messages(_) => {
            return Err(TaskError::NoPair { kind: record.kind().name() });
        }
    };
    let (mut source, mut learned) = (side(tokenizer, prompt)?, side(tokenizer, answer)?);
    let cut = source.len().saturating_sub(max_length) + learned.len().saturating_sub(max_length);
    if source.len() > max_length {
        let end = source.pop();
        source.truncate(max_length - 1);
        source.extend(end);
    }
    learned.truncate(max_length);
    let mut loss = vec![false; source.len()];
    loss.extend(vec![true; learned.len()]);
    source.extend(learned);
    Ok((Example { tokens: source, loss, next: None, line: 0 }, cut))
}

/// A text between the tokens that the model expects around it, with one end token behind it.
fn side(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>, TaskError> {
    let (before, after) = tokenizer.around();
    let mut tokens = before.to_vec();
    tokens.extend(tokenizer.encode_cut(text, &[])?.tokens);
    match after {
        [] => tokens.push(*tokenizer.eos().first().ok_or(TaskError::NoEos)?),
        after => tokens.extend(after),
    }
    Ok(tokens)
}

/// Pairs of one batch; every field row-major, rows filled up with padding behind their end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairBatch {
    /// What the encoder reads, `[batch, source_time]`.
    pub source: Vec<u32>,
    /// Whether a token of the source is none of the padding, `[batch, source_time]`.
    pub visible: Vec<bool>,
    /// Places of a source.
    pub source_time: usize,
    /// What the decoder reads, `[batch, time]`: the answer one place late, behind the start token.
    pub tokens: Vec<u32>,
    /// What it should write from each place, `[batch, time]`: the answer, and [`NO_TARGET`] behind its end.
    pub targets: Vec<i32>,
    /// Places of an answer.
    pub time: usize,
    /// Rows.
    pub batch: usize,
    /// Tokens of sources and answers, without the padding.
    pub filled: usize,
}

impl PairBatch {
    /// The batch of these examples of [`tokenize_pairs`], a row for each; `start` is what a decoder begins with.
    ///
    /// # Errors
    /// [`TaskError::NoRecords`] without examples, [`TaskError::TokenTooLarge`].
    pub fn of(examples: &[&Example], start: u32, pad: u32) -> Result<PairBatch, TaskError> {
        let parts: Vec<(&[u32], &[u32])> =
            examples.iter().map(|example| example.tokens.split_at(example.prompt().len())).collect();
        let source_time = parts.iter().map(|(source, _)| source.len()).max().ok_or(TaskError::NoRecords)?;
        let time = parts.iter().map(|(_, answer)| answer.len()).max().unwrap_or(0);
        let mut batch = PairBatch {
            source: Vec::with_capacity(parts.len() * source_time),
            visible: Vec::with_capacity(parts.len() * source_time),
            source_time,
            tokens: Vec::with_capacity(parts.len() * time),
            targets: Vec::with_capacity(parts.len() * time),
            time,
            batch: parts.len(),
            filled: examples.iter().map(|example| example.tokens.len()).sum(),
        };
        for (source, answer) in parts {
            let padding = |filled: usize, places: usize| places - filled;
            batch.source.extend(source);
            batch.source.extend(vec![pad; padding(source.len(), source_time)]);
            batch.visible.extend(vec![true; source.len()]);
            batch.visible.extend(vec![false; padding(source.len(), source_time)]);
            batch.tokens.extend([start].iter().chain(answer).take(answer.len()));
            batch.tokens.extend(vec![pad; padding(answer.len(), time)]);
            for &token in answer {
                batch.targets.push(i32::try_from(token).map_err(|_| TaskError::TokenTooLarge { token })?);
            }
            batch.targets.extend(vec![NO_TARGET; padding(answer.len(), time)]);
        }
        Ok(batch)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::read_records;
    use crate::test_tokenizers::bytes;

    fn records(lines: &[serde_json::Value]) -> Records {
        read_records(lines.iter().cloned().enumerate().map(|(index, line)| (index + 1, line))).unwrap()
    }

    #[test]
    fn a_source_is_given_and_its_answer_learned() {
        let tokenizer = bytes();
        let end = tokenizer.eos()[0];
        let read = records(&[
            json!({"question": "ab", "answer": "xyz"}),
            json!({"question": "abcd", "answer": "z"}),
        ]);
        let data = tokenize_pairs(&read, &tokenizer, 16).unwrap();
        let ids = |text: &str| tokenizer.encode_cut(text, &[]).unwrap().tokens;
        let first = &data.examples[0];
        assert_eq!(first.tokens, [ids("ab"), vec![end], ids("xyz"), vec![end]].concat());
        assert_eq!(first.prompt(), [ids("ab"), vec![end]].concat());
        let batch = PairBatch::of(&data.examples.iter().collect::<Vec<_>>(), 90, 91).unwrap();
        let (answer, other) = ([ids("xyz"), vec![end]].concat(), [ids("z"), vec![end]].concat());
        // Rows of one length, padding behind the end; the decoder reads one token late.
        let source = data.examples[1].prompt().len();
        assert_eq!((batch.batch, batch.source_time, batch.time), (2, source, answer.len()));
        assert_eq!(
            batch.source[..source],
            [first.prompt(), &vec![91; source - first.prompt().len()]].concat()
        );
        assert_eq!(batch.visible.iter().filter(|&&seen| seen).count(), first.prompt().len() + source);
        assert_eq!(batch.tokens[..answer.len()], [&[90], &answer[..answer.len() - 1]].concat());
        let padded = answer.len() - other.len();
        assert_eq!(batch.tokens[answer.len()..], [vec![90], ids("z"), vec![91; padded]].concat());
        let expected: Vec<i32> = other.iter().map(|&id| id as i32).chain(vec![NO_TARGET; padded]).collect();
        assert_eq!(batch.targets[answer.len()..], expected);
        assert_eq!(batch.filled, data.examples.iter().map(|example| example.tokens.len()).sum::<usize>());
    }

    #[test]
    fn what_is_too_long_loses_its_end() {
        let tokenizer = bytes();
        let end = tokenizer.eos()[0];
        let read = records(&[json!({"prompt": "a b c d e f g h", "completion": "s t u v w x y z"})]);
        let data = tokenize_pairs(&read, &tokenizer, 4).unwrap();
        let example = &data.examples[0];
        assert_eq!((example.tokens.len(), example.prompt().len()), (8, 4));
        assert_eq!(example.prompt().last(), Some(&end), "the source ends");
        assert_ne!(example.tokens.last(), Some(&end), "the answer goes on");
        assert_eq!((data.summary.truncated, data.summary.read), (1, 1));
        assert!(data.summary.tokens_cut > 0);
    }

    #[test]
    fn what_is_no_pair_is_refused_by_name() {
        let refused = |line: serde_json::Value, max_length| {
            tokenize_pairs(&records(&[line]), &bytes(), max_length).unwrap_err().to_string()
        };
        let text = refused(json!({"text": "all of it"}), 8);
        assert!(text.contains("line 1") && text.contains("prompt/completion"), "{text}");
        assert!(refused(json!({"prompt": "a", "completion": "b"}), 1).contains("max_length"));
        assert!(matches!(PairBatch::of(&[], 0, 0), Err(TaskError::NoRecords)));
    }
}
