//! A tokenizer from the vocabulary inside a GGUF file: rebuilt as the `tokenizer.json` the library reads.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Tokenizer, pre};
use crate::error::TaskError;

/// The `tokenizer.*` fields of a GGUF file, as they stand there. `None` is a field that the file does not have.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GgufVocabulary {
    /// `tokenizer.ggml.model`: "gpt2" (byte-level BPE) or "llama" (SentencePiece BPE with byte fallback).
    pub model: String,
    /// `tokenizer.ggml.pre`: how text is split before merging; only read for "gpt2".
    pub pre: String,
    /// `tokenizer.ggml.tokens`, in id order.
    pub tokens: Vec<String>,
    /// `tokenizer.ggml.merges`, "left right" in rank order; only read for "gpt2".
    pub merges: Vec<String>,
    /// `tokenizer.ggml.scores`, one a token; only read for "llama".
    pub scores: Vec<f32>,
    /// `tokenizer.ggml.token_type`, one a token, or empty for all normal: 1 normal, 2 unknown, 3 control, 4 user-defined,
    /// 5 unused, 6 byte.
    pub types: Vec<i32>,
    /// `tokenizer.ggml.bos_token_id`.
    pub bos: Option<u32>,
    /// `tokenizer.ggml.eos_token_id`, and `eot_token_id` where there is one.
    pub eos: Vec<u32>,
    /// `tokenizer.ggml.unknown_token_id`.
    pub unknown: Option<u32>,
    /// `tokenizer.ggml.padding_token_id`.
    pub pad: Option<u32>,
    /// `tokenizer.ggml.add_bos_token`; without it, true for "llama" and for the `pre` families of Llama 3 and Tekken.
    pub add_bos: Option<bool>,
    /// `tokenizer.ggml.add_space_prefix`; without it, true. Only read for "llama".
    pub add_space_prefix: Option<bool>,
    /// `tokenizer.chat_template`.
    pub chat_template: Option<String>,
}

const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const BYTE: i32 = 6;

impl Tokenizer {
    /// Builds the tokenizer of a GGUF file.
    ///
    /// Text is not normalised (no NFC), so decoding gives back the very bytes; models whose tokenizer.json normalises
    /// differ here on texts that are not in that form, as they do in llama.cpp.
    ///
    /// # Errors
    /// [`TaskError::UnknownPre`] for a pre-tokenizer name that is not known, [`TaskError::Field`] for lists of unequal
    /// length, ids out of range or a token that stands twice, [`TaskError::TokenizerFile`] when the library refuses it.
    pub fn from_gguf(vocabulary: &GgufVocabulary) -> Result<Tokenizer, TaskError> {
        check(vocabulary)?;
        let (document, default_bos) = match vocabulary.model.as_str() {
            "gpt2" => byte_level(vocabulary)?,
            "llama" => (sentence_piece(vocabulary), true),
            other => {
                let problem =
                    format!("is `{other}`, known are `gpt2` and `llama`: use the model's tokenizer.json");
                return Err(field("model", problem));
            }
        };
        let mut document = document;
        if let Some(bos) = vocabulary.bos
            && vocabulary.add_bos.unwrap_or(default_bos)
        {
            document["post_processor"] = begin_with(token(vocabulary, bos), bos);
        }
        let mut tokenizer = Tokenizer::from_value(&document)?;
        tokenizer.bos = vocabulary.bos;
        tokenizer.eos.clone_from(&vocabulary.eos);
        tokenizer.pad = vocabulary.pad;
        tokenizer.chat_template.clone_from(&vocabulary.chat_template);
        Ok(tokenizer)
    }
}

fn field(name: &str, problem: String) -> TaskError {
    TaskError::Field { field: name.to_owned(), problem }
}

fn check(vocabulary: &GgufVocabulary) -> Result<(), TaskError> {
    let count = vocabulary.tokens.len();
    if count == 0 {
        return Err(field("tokens", "is empty".to_owned()));
    }
    let types = vocabulary.types.len();
    if types != 0 && types != count {
        return Err(field("token_type", format!("has {types} entries for {count} tokens")));
    }
    let scores = vocabulary.scores.len();
    if vocabulary.model == "llama" && scores != count {
        return Err(field("scores", format!("has {scores} entries for {count} tokens")));
    }
    let single = [("bos_token_id", vocabulary.bos), ("padding_token_id", vocabulary.pad)];
    let ids = single.into_iter().chain([("unknown_token_id", vocabulary.unknown)]);
    let ids = ids.filter_map(|(name, id)| id.map(|id| (name, id)));
    for (name, id) in ids.chain(vocabulary.eos.iter().map(|&id| ("eos_token_id", id))) {
        if id as usize >= count {
            return Err(field(name, format!("is {id}, but there are {count} tokens")));
        }
    }
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for (id, token) in vocabulary.tokens.iter().enumerate() {
        if let Some(first) = seen.insert(token, id) {
            return Err(field("tokens", format!("has {token:?} twice, as {first} and {id}")));
        }
    }
    Ok(())
}

fn token(vocabulary: &GgufVocabulary, id: u32) -> &str {
    vocabulary.tokens.get(id as usize).map_or("", String::as_str)
}

fn kind(vocabulary: &GgufVocabulary, id: usize) -> i32 {
    vocabulary.types.get(id).copied().unwrap_or(1)
}

/// Tokens that are found in the text before anything else: control, unknown and user-defined ones.
fn added(vocabulary: &GgufVocabulary) -> Value {
    let wanted = |id: usize| matches!(kind(vocabulary, id), UNKNOWN | CONTROL | USER_DEFINED);
    let tokens = vocabulary.tokens.iter().enumerate().filter(|(id, token)| wanted(*id) && !token.is_empty());
    tokens
        .map(|(id, content)| {
            json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                   "normalized": false, "special": kind(vocabulary, id) != USER_DEFINED})
        })
        .collect()
}

fn ids(vocabulary: &GgufVocabulary) -> Value {
    Value::Object(
        vocabulary.tokens.iter().enumerate().map(|(id, token)| (token.clone(), json!(id))).collect(),
    )
}

/// Byte-level BPE; with whether the begin token is added by default.
fn byte_level(vocabulary: &GgufVocabulary) -> Result<(Value, bool), TaskError> {
    let pre = pre::find(&vocabulary.pre)?;
    let mut steps: Vec<Value> = pre
        .splits
        .iter()
        .map(|&pattern| json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false}))
        .collect();
    let bytes =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false});
    steps.push(bytes.clone());
    let mut merges = Vec::with_capacity(vocabulary.merges.len());
    for (rank, merge) in vocabulary.merges.iter().enumerate() {
        // Byte-level tokens never hold a space, so the first one parts the two.
        let pair = merge
            .split_once(' ')
            .ok_or_else(|| field("merges", format!("entry {rank} is {merge:?}, not a pair")))?;
        merges.push(json!([pair.0, pair.1]));
    }
    let document = json!({
        "version": "1.0", "added_tokens": added(vocabulary), "normalizer": null,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
        "post_processor": null, "decoder": bytes,
        "model": {"type": "BPE", "vocab": ids(vocabulary), "merges": merges, "ignore_merges": pre.whole_pieces},
    });
    Ok((document, pre.add_bos))
}

/// SentencePiece BPE. The file has scores, not merges: two neighbours merge into the piece with the best score, so every way to
/// part a piece into two others is a merge, ranked by the piece's score.
fn sentence_piece(vocabulary: &GgufVocabulary) -> Value {
    let normal = |id: usize| !matches!(kind(vocabulary, id), UNKNOWN | CONTROL | BYTE);
    let known: BTreeMap<&str, usize> = vocabulary
        .tokens
        .iter()
        .enumerate()
        .filter(|(id, _)| normal(*id))
        .map(|(id, t)| (t.as_str(), id))
        .collect();
    let mut merges: Vec<(f32, &str, &str)> = Vec::new();
    for (id, piece) in vocabulary.tokens.iter().enumerate().filter(|(id, _)| normal(*id)) {
        let score = vocabulary.scores.get(id).copied().unwrap_or(0.0);
        for (at, _) in piece.char_indices().skip(1) {
            let (left, right) = piece.split_at(at);
            if known.contains_key(left) && known.contains_key(right) {
                merges.push((score, left, right));
            }
        }
    }
    // Stable, best score first; a longer left part first among the ways to part one piece.
    merges.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.len().cmp(&a.1.len())));
    let merges: Vec<Value> = merges.into_iter().map(|(_, left, right)| json!([left, right])).collect();
    let prefix = vocabulary.add_space_prefix.unwrap_or(true);
    let mut normalizers = vec![json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"})];
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if prefix {
        normalizers.insert(0, json!({"type": "Prepend", "prepend": "▁"}));
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    let unknown = vocabulary.unknown.map(|id| token(vocabulary, id));
    json!({
        "version": "1.0", "added_tokens": added(vocabulary),
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": null, "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {"type": "BPE", "vocab": ids(vocabulary), "merges": merges, "unk_token": unknown,
                  "fuse_unk": true, "byte_fallback": true},
    })
}

/// A post-processor that puts one token before the text.
fn begin_with(content: &str, id: u32) -> Value {
    let begin = json!({"SpecialToken": {"id": content, "type_id": 0}});
    let first = json!({"Sequence": {"id": "A", "type_id": 0}});
    let second = json!({"Sequence": {"id": "B", "type_id": 0}});
    json!({"type": "TemplateProcessing", "single": [begin, first], "pair": [begin, first, second],
           "special_tokens": {content: {"id": content, "ids": [id], "tokens": [content]}}})
}
