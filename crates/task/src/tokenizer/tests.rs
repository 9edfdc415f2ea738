//! Tokenizers of every kind the crate builds: laws of encoding, decoding and cutting.

use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::test_tokenizers::{CHATML, bytes, gguf_bytes, gguf_merged, gguf_pieces, merged, pieces};

fn texts(tokenizer: &Tokenizer, text: &str) -> Vec<String> {
    let tokens = tokenizer.encode(text, false).unwrap();
    tokens.into_iter().map(|token| tokenizer.token_text(token).unwrap()).collect()
}

#[test]
fn merges_follow_their_rank() {
    // "he", "ll", "hell", "Ġw" are merges of this vocabulary, "lo" is not.
    assert_eq!(texts(&merged(), "hello w"), ["hell", "o", "Ġw"]);
}

#[test]
fn each_pre_splits_as_its_family_does() {
    let rows: [(&str, &str, &[&str]); 4] = [
        ("smollm", "a 12", &["a", "Ġ", "1", "2"]),
        ("gpt-2", "a 12", &["a", "Ġ12"]),
        ("llama-bpe", "a1234", &["a", "123", "4"]),
        ("qwen2", "a12", &["a", "1", "2"]),
    ];
    for (pre, text, expected) in rows {
        let mut vocabulary = gguf_bytes();
        vocabulary.pre = pre.to_owned();
        for merge in ["1 2", "12 3", "Ġ 12"] {
            vocabulary.tokens.push(merge.replace(' ', ""));
            vocabulary.types.push(1);
            vocabulary.merges.push(merge.to_owned());
        }
        assert_eq!(texts(&Tokenizer::from_gguf(&vocabulary).unwrap(), text), expected, "{pre}");
    }
}

#[test]
fn special_tokens_are_found_in_text_and_left_out_on_wish() {
    let tokenizer = bytes();
    let tokens = tokenizer.encode("<|im_start|>hi<|im_end|>", false).unwrap();
    assert_eq!(tokens.len(), 4);
    assert_eq!(tokens[3], tokenizer.eos()[0]);
    assert_eq!(tokenizer.decode(&tokens, true).unwrap(), "<|im_start|>hi<|im_end|>");
    assert_eq!(tokenizer.decode(&tokens, false).unwrap(), "hi");
    assert_eq!(tokenizer.chat_template(), Some(CHATML));
}

#[test]
fn the_begin_token_is_added_where_the_file_says_so() {
    let mut vocabulary = gguf_bytes();
    let bos = vocabulary.bos.unwrap();
    let begins = |vocabulary: &GgufVocabulary| {
        let tokenizer = Tokenizer::from_gguf(vocabulary).unwrap();
        let around = tokenizer.around().0.to_vec();
        assert_eq!(tokenizer.encode("a", true).unwrap().len(), 1 + around.len());
        around
    };
    assert_eq!(begins(&vocabulary), Vec::<u32>::new());
    vocabulary.add_bos = Some(true);
    assert_eq!(begins(&vocabulary), [bos]);
    vocabulary.add_bos = None;
    vocabulary.pre = "llama-bpe".to_owned();
    assert_eq!(begins(&vocabulary), [bos]);
    assert_eq!(begins(&gguf_pieces()), [gguf_pieces().bos.unwrap()]);
}

#[test]
fn pieces_merge_by_score_with_bytes_for_the_rest() {
    let tokenizer = pieces();
    // "ab" has a better score than "▁a", so it wins although it stands to the right.
    assert_eq!(texts(&tokenizer, "ab"), ["▁", "ab"]);
    assert_eq!(texts(&tokenizer, "a b"), ["▁a", "▁", "b"]);
    assert_eq!(texts(&tokenizer, "é"), ["▁", "<0xC3>", "<0xA9>"]);
    let mut bare = gguf_pieces();
    bare.add_space_prefix = Some(false);
    let bare = Tokenizer::from_gguf(&bare).unwrap();
    assert_eq!(texts(&bare, "a b"), ["a", "▁", "b"]);
    assert_eq!(bare.decode(&bare.encode(" a", false).unwrap(), true).unwrap(), " a");
}

#[test]
fn a_text_that_goes_on_gets_no_space() {
    let tokenizer = pieces();
    let cut = tokenizer.encode_cut("aab", &[1]).unwrap();
    // "a" alone is "▁a"; the rest "ab" must not become "▁ab".
    let parts: Vec<_> = cut.tokens.iter().map(|&token| tokenizer.token_text(token).unwrap()).collect();
    assert_eq!((parts, cut.borders), (vec!["▁a".to_owned(), "ab".to_owned()], vec![1]));
    assert_eq!(tokenizer.decode(&cut.tokens, true).unwrap(), "aab");
}

#[test]
fn a_token_that_would_cross_a_border_is_cut() {
    let tokenizer = merged();
    assert_eq!(tokenizer.encode("hello", false).unwrap().len(), 2);
    let cut = tokenizer.encode_cut("hello", &[3]).unwrap();
    assert_eq!(tokenizer.decode(&cut.tokens[..cut.borders[0]], true).unwrap(), "hel");
    assert_eq!(tokenizer.decode(&cut.tokens[cut.borders[0]..], true).unwrap(), "lo");
    assert!(tokenizer.encode_cut("é", &[1]).is_err());
    // Two borders in one run of spaces: the second cut must not undo the first.
    assert_eq!(tokenizer.encode_cut("  d", &[1, 2]).unwrap().borders, [1, 2]);
}

#[test]
fn every_prefix_step_of_a_tokenizer_json_is_found() {
    let rows = [
        (json!({"normalizer": {"type": "Prepend", "prepend": "▁"}}), true),
        (
            json!({"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Prepend"}]}}),
            true,
        ),
        (
            json!({"pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first"}}),
            true,
        ),
        (
            json!({"pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never"}}),
            false,
        ),
        (json!({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": true}}), true),
        (json!({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false}}), false),
        (json!({"normalizer": null, "pre_tokenizer": null}), false),
    ];
    for (mut document, expected) in rows {
        let before = document.clone();
        assert_eq!(remove_prefix(&mut document), expected, "{before}");
        assert_eq!(document != before, expected);
        assert!(!remove_prefix(&mut document), "{document}");
    }
}

#[test]
fn truncation_and_padding_of_the_file_are_switched_off() {
    let document = json!({"version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": null,
        "post_processor": null, "decoder": null,
        "truncation": {"max_length": 2, "strategy": "LongestFirst", "stride": 0, "direction": "Right"},
        "padding": {"strategy": {"Fixed": 9}, "direction": "Right", "pad_id": 0, "pad_type_id": 0, "pad_token": "a", "pad_to_multiple_of": null},
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []}});
    let tokenizer = Tokenizer::from_json(document.to_string().as_bytes()).unwrap();
    assert_eq!(tokenizer.encode("abab", false).unwrap(), [0, 1, 0, 1]);
    assert_eq!(tokenizer.vocabulary_size(), 2);
}

#[test]
fn damaged_vocabularies_are_refused() {
    let refused = |change: &dyn Fn(&mut GgufVocabulary)| {
        let mut vocabulary = gguf_pieces();
        change(&mut vocabulary);
        Tokenizer::from_gguf(&vocabulary).unwrap_err().to_string()
    };
    assert!(refused(&|v| v.tokens.clear()).contains("`tokens` is empty"));
    assert!(refused(&|v| v.types.truncate(3)).contains("`token_type` has 3"));
    assert!(refused(&|v| v.scores.truncate(3)).contains("`scores` has 3"));
    assert!(refused(&|v| v.eos.push(5000)).contains("is 5000"));
    assert!(refused(&|v| v.tokens[5] = v.tokens[4].clone()).contains("twice, as 4 and 5"));
    assert!(refused(&|v| v.model = "rwkv".to_owned()).contains("`rwkv`"));
    let mut merges = gguf_bytes();
    merges.merges = vec!["nopair".to_owned()];
    assert!(Tokenizer::from_gguf(&merges).unwrap_err().to_string().contains("entry 0"));
    merges.merges = vec!["zz yy".to_owned()];
    assert!(matches!(Tokenizer::from_gguf(&merges), Err(TaskError::TokenizerFile { .. })));
    assert!(matches!(Tokenizer::from_json(b"{\"model\":"), Err(TaskError::TokenizerFile { .. })));
}

/// Built once: a property runs hundreds of times.
static BYTE_LEVEL: LazyLock<[Tokenizer; 2]> = LazyLock::new(|| [bytes(), merged()]);

/// One of each way to split, with merges across line ends and spaces.
static SPLITTERS: LazyLock<Vec<Tokenizer>> = LazyLock::new(|| {
    let mut tokenizers = vec![pieces()];
    for pre in ["gpt-2", "smollm", "llama-bpe", "qwen2", "tekken", "gpt-4o", "falcon", "default"] {
        let mut vocabulary = gguf_merged();
        vocabulary.pre = pre.to_owned();
        tokenizers.push(Tokenizer::from_gguf(&vocabulary).unwrap());
    }
    tokenizers
});

proptest! {
    #[test]
    fn a_long_text_in_parts_has_the_tokens_of_the_whole(text in "[ \\n\\r.helowrd1é]{0,60}", part in 1_usize..20) {
        for tokenizer in SPLITTERS.iter() {
            prop_assert_eq!(tokenizer.encode_long(&text, part).unwrap(), tokenizer.encode(&text, false).unwrap());
        }
    }

    #[test]
    fn byte_level_decoding_undoes_encoding(text in "\\PC*|[ \\n\\ta-z0-9'<|>_im]*") {
        for tokenizer in BYTE_LEVEL.iter() {
            let tokens = tokenizer.encode(&text, false).unwrap();
            prop_assert_eq!(tokenizer.decode(&tokens, true).unwrap(), text.clone());
            let mut stream = tokenizer.stream(true);
            let mut joined: String = tokens.iter().map(|&token| stream.push(token).unwrap()).collect();
            joined.push_str(&stream.finish().unwrap());
            prop_assert_eq!(joined, text.clone());
        }
    }

    #[test]
    fn parts_between_borders_decode_to_their_bytes(parts in prop::collection::vec("[ \\nhelowrd é€]{0,6}", 1..5)) {
        for tokenizer in BYTE_LEVEL.iter() {
            let text = parts.concat();
            let borders: Vec<usize> = parts.iter().scan(0, |at, part| { *at += part.len(); Some(*at) }).collect();
            let cut = tokenizer.encode_cut(&text, &borders).unwrap();
            let mut start = 0;
            for (part, &end) in parts.iter().zip(&cut.borders) {
                prop_assert_eq!(&tokenizer.decode(&cut.tokens[start..end], true).unwrap(), part);
                start = end;
            }
            prop_assert_eq!(start, cut.tokens.len());
            let prompt = tokenizer.encode(&parts[0], false).unwrap();
            prop_assert_eq!(&cut.tokens[..cut.borders[0]], &prompt[..]);
        }
    }
}
