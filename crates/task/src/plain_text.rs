//! A plain text, cut into rows that are learned whole.

use crate::error::TaskError;
use crate::example::{Dataset, Example};
use crate::record::Kind;
use crate::summary::Summary;
use crate::tokenizer::Tokenizer;

/// Bytes that are tokenised at once.
const PART: usize = 1 << 20;

/// Cuts a text into rows of `time` tokens, one after the other, each token learned from those before it in its row; the last
/// token of a row learns the first of the next. A last row of a single token is left out, as it has been learned.
///
/// Rows behind the first `limit` are left out; 0 keeps all. The whole text stands between the tokens that the model expects around a text, and ends with its end token.
///
/// # Errors
/// [`TaskError::EmptyText`], [`TaskError::NoEos`], [`TaskError::Setting`] for a `time` below 2, [`TaskError::Tokenize`].
pub fn tokenize_plain_text(
    text: &str,
    tokenizer: &Tokenizer,
    time: usize,
    limit: usize,
) -> Result<Dataset, TaskError> {
    if time < 2 {
        return Err(TaskError::Setting { setting: "time", value: time.to_string(), expected: "at least 2" });
    }
    if text.trim().is_empty() {
        return Err(TaskError::EmptyText { key: "the text file".to_owned() });
    }
    let &end = tokenizer.eos().first().ok_or(TaskError::NoEos)?;
    let (before, after) = tokenizer.around();
    let mut tokens = before.to_vec();
    tokens.extend(tokenizer.encode_long(text, PART)?);
    if after.is_empty() {
        tokens.push(end)
    } else {
        tokens.extend(after)
    }
    let mut examples = Vec::with_capacity(tokens.len().div_ceil(time));
    for (index, row) in tokens.chunks(time).enumerate() {
        let next = tokens.get((index + 1) * time).copied();
        if row.len() > 1 || next.is_some() {
            let mut loss = vec![true; row.len()];
            loss[0] = false;
            // Rows have no line of their own; they are counted from 1.
            examples.push(Example { tokens: row.to_vec(), loss, next, line: index + 1 });
        }
    }
    if limit > 0 {
        examples.truncate(limit);
    }
    let mut summary = Summary::of(&examples, tokenizer)?;
    summary.kind = Kind::PlainText;
    summary.read = 1;
    Ok(Dataset { examples, summary })
}

#[cfg(test)]
mod tests {
    use lowrank_record::Seed;

    use super::*;
    use crate::batch::{BatchPlan, Batching};
    use crate::test_tokenizers::bytes;

    #[test]
    fn every_token_but_the_first_is_learned_once() {
        let tokenizer = bytes();
        let text = "abcdefghijklmnopqrst"; // 21 tokens with the end
        for time in [2, 4, 5, 7, 20, 21, 22] {
            let dataset = tokenize_plain_text(text, &tokenizer, time, 0).unwrap();
            assert_eq!(dataset.summary.loss_tokens, 20, "{time}");
            for packing in [false, true] {
                let batching = Batching { batch: 1, time, packing, pad: 0 };
                let plan = BatchPlan::in_order(&dataset.examples, batching).unwrap();
                let mut targets: Vec<i32> = Vec::new();
                for index in 0..plan.batches() {
                    targets.extend(plan.batch(index).unwrap().targets.iter().filter(|&&target| target >= 0));
                }
                let mut expected: Vec<i32> = text.bytes().skip(1).map(i32::from).collect();
                expected.push(258);
                assert_eq!(targets, expected, "{time}");
            }
        }
    }

    #[test]
    fn rows_are_full_and_shuffled_by_epoch() {
        let tokenizer = bytes();
        let dataset = tokenize_plain_text(&"hello ".repeat(50), &tokenizer, 16, 0).unwrap();
        assert_eq!(dataset.examples.len(), 19);
        assert_eq!((dataset.summary.longest, dataset.summary.tokens), (16, 301));
        let batching = Batching { batch: 4, time: 16, packing: true, pad: 0 };
        let plan = BatchPlan::new(&dataset.examples, batching, Seed(3), 0).unwrap();
        assert_eq!(plan.batches(), 5);
        let limited = tokenize_plain_text(&"hello ".repeat(50), &tokenizer, 16, 7).unwrap();
        assert_eq!((limited.examples.len(), limited.summary.kept, limited.summary.tokens), (7, 7, 112));
    }

    #[test]
    fn nothing_to_learn_is_refused() {
        let refused = |text, time| tokenize_plain_text(text, &bytes(), time, 0).unwrap_err();
        assert!(matches!(refused(" \n", 4), TaskError::EmptyText { .. }));
        assert!(matches!(refused("a", 1), TaskError::Setting { .. }));
    }
}
