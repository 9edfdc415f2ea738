use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::record::read_records;
use crate::test_tokenizers::{bytes, gguf_bytes, merged, pieces};

const LONG: Layout = Layout { format: Format::Auto, loss_on: LossOn::Answers, max_length: 10_000 };

fn records(values: &[Value]) -> Records {
    read_records(values.iter().cloned().enumerate().map(|(at, value)| (at + 1, value))).unwrap()
}

fn made(values: &[Value], tokenizer: &Tokenizer, layout: &Layout) -> Result<Dataset, TaskError> {
    let template = ChatTemplate::of(tokenizer, None)?;
    tokenize(&records(values), tokenizer, template.as_ref(), layout)
}

/// The text of the tokens that are learned.
fn learned(example: &Example, tokenizer: &Tokenizer) -> String {
    let tokens: Vec<u32> = example
        .tokens
        .iter()
        .zip(&example.loss)
        .filter(|(_, learned)| **learned)
        .map(|(token, _)| *token)
        .collect();
    tokenizer.decode(&tokens, true).unwrap()
}

#[test]
fn every_kind_is_laid_out_and_masked() {
    let messages =
        json!({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]});
    let asked = "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n";
    let rows = [
        (json!({"text": "ab"}), Format::Auto, "", "ab<|im_end|>"),
        (json!({"prompt": "a", "completion": "b"}), Format::Auto, asked, "b<|im_end|>\n"),
        (json!({"prompt": "a", "completion": "b"}), Format::Plain, "a", "b<|im_end|>"),
        (json!({"question": "a", "answer": "b"}), Format::Chat, asked, "b<|im_end|>\n"),
        (json!({"question": "a", "answer": "b"}), Format::Plain, "Question: a\nAnswer:", " b<|im_end|>"),
        (messages, Format::Auto, asked, "b<|im_end|>\n"),
    ];
    let tokenizer = bytes();
    for (value, format, prompt, answer) in rows {
        let example =
            &made(std::slice::from_ref(&value), &tokenizer, &Layout { format, ..LONG }).unwrap().examples[0];
        assert_eq!(tokenizer.decode(&example.tokens, true).unwrap(), format!("{prompt}{answer}"), "{value}");
        // The first token of a text is never learned, as nothing stands before it.
        let expected = if prompt.is_empty() { &answer[1..] } else { answer };
        assert_eq!(learned(example, &tokenizer), expected, "{value}");
        assert_eq!(example.line, 1);
        let all = Layout { format, loss_on: LossOn::All, ..LONG };
        let all = &made(std::slice::from_ref(&value), &tokenizer, &all).unwrap().examples[0];
        assert_eq!(
            (all.loss_tokens(), all.tokens.len()),
            (example.tokens.len() - 1, example.tokens.len()),
            "{value}"
        );
    }
}

#[test]
fn plain_text_begins_as_the_model_expects() {
    let mut vocabulary = gguf_bytes();
    vocabulary.add_bos = Some(true);
    let tokenizer = Tokenizer::from_gguf(&vocabulary).unwrap();
    let example = &made(&[json!({"text": "ab"})], &tokenizer, &LONG).unwrap().examples[0];
    assert_eq!(example.tokens, [256, u32::from(b'a'), u32::from(b'b'), 258]);
    assert_eq!(example.loss, [false, true, true, true]);
    // A chat template writes its own begin token or none.
    let chat = &made(&[json!({"prompt": "a", "completion": "b"})], &tokenizer, &LONG).unwrap().examples[0];
    assert_eq!(chat.tokens[0], 257);
}

#[test]
fn long_examples_lose_their_end_and_are_counted() {
    let values = [
        json!({"prompt": "aa", "completion": "bbbb"}), // 7 tokens with the end: 2 cut
        json!({"prompt": "aaaaa", "completion": "b"}), // prompt fills the length: dropped
        json!({"prompt": "a", "completion": "b"}),
    ];
    let layout = Layout { format: Format::Plain, max_length: 5, ..LONG };
    let dataset = made(&values, &bytes(), &layout).unwrap();
    let summary = &dataset.summary;
    assert_eq!(
        (summary.read, summary.kept, summary.truncated, summary.tokens_cut, summary.dropped),
        (3, 2, 1, 2, 1)
    );
    assert_eq!((summary.tokens, summary.loss_tokens, summary.longest), (8, 5, 5));
    assert_eq!(dataset.examples.iter().map(|example| example.line).collect::<Vec<_>>(), [1, 3]);
    assert_eq!(learned(&dataset.examples[0], &bytes()), "bbb");
    let all = made(&values[1..2], &bytes(), &layout).unwrap_err();
    assert_eq!(all, TaskError::NothingLeft { read: 1, max_length: 5, shortest_prompt: 5 });
}

#[test]
fn what_is_missing_is_said() {
    let messages =
        json!({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]});
    let said = made(std::slice::from_ref(&messages), &pieces(), &LONG).unwrap_err().to_string();
    assert!(said.contains("line 1") && said.contains("--format plain"), "{said}");
    let plain = Layout { format: Format::Plain, ..LONG };
    assert_eq!(made(&[messages], &bytes(), &plain).unwrap_err(), TaskError::MessagesPlain.at(1));
    let mut endless = gguf_bytes();
    endless.eos.clear();
    let endless = Tokenizer::from_gguf(&endless).unwrap();
    assert_eq!(made(&[json!({"text": "a"})], &endless, &LONG).unwrap_err(), TaskError::NoEos.at(1));
    let short = Layout { max_length: 1, ..LONG };
    assert!(matches!(made(&[json!({"text": "a"})], &bytes(), &short), Err(TaskError::Setting { .. })));
}

#[test]
fn the_end_of_a_turn_is_the_templates_own() {
    let tokenizer = bytes();
    let template = ChatTemplate::of(&tokenizer, None).unwrap().unwrap();
    let end = end_of_turn(&tokenizer, &template).unwrap();
    assert_eq!(end, tokenizer.token_id("<|im_end|>"));
    let bare = ChatTemplate::new(
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}",
        None,
        None,
        None,
    );
    assert_eq!(end_of_turn(&tokenizer, &bare.unwrap()).unwrap(), None);
}

#[test]
fn prompts_for_generation_are_those_of_training() {
    let tokenizer = merged();
    let template = ChatTemplate::of(&tokenizer, None).unwrap();
    // "\n\nworld": the line ends would merge with the template's own.
    let records = records(&[json!({"prompt": "hell", "completion": "\n\nworld"})]);
    for format in [Format::Chat, Format::Plain] {
        let layout = Layout { format, ..LONG };
        let dataset = tokenize(&records, &tokenizer, template.as_ref(), &layout).unwrap();
        let asked = prompt(&records.records[0].1, &tokenizer, template.as_ref(), &layout).unwrap().unwrap();
        assert_eq!(dataset.examples[0].prompt(), asked);
        let text = tokenizer.decode(&asked, true).unwrap();
        assert_eq!(tokenizer.encode(&text, false).unwrap(), asked);
    }
}

static TOKENIZERS: LazyLock<[Tokenizer; 2]> = LazyLock::new(|| [bytes(), merged()]);

proptest! {
    #[test]
    fn the_mask_covers_the_completion_and_nothing_else(
        question in "[ \\nhelowrd.é€]{0,9}[a-z]",
        answer in "[ \\nhelowrd.é€]{0,9}[a-z][ \\n]{0,3}",
        chat in any::<bool>(),
    ) {
        for tokenizer in TOKENIZERS.iter() {
            let format = if chat { Format::Chat } else { Format::Plain };
            let value = json!({"prompt": question, "completion": answer});
            let dataset = made(&[value], tokenizer, &Layout { format, ..LONG }).unwrap();
            let end = if chat { "<|im_end|>\n" } else { "<|im_end|>" };
            prop_assert_eq!(learned(&dataset.examples[0], tokenizer), format!("{answer}{end}"));
        }
    }
}
