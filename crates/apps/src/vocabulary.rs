//! A GGUF file's vocabulary: read from one, written into one, or made from a `tokenizer.json`.

use lowrank_store::gguf::{Array, Value};
use lowrank_store::{GgufFile, StoreError};
use lowrank_task::GgufVocabulary;
use serde_json::Value as Json;

use crate::AppError;
use lowrank_command::Because;

const TEMPLATE: &str = "tokenizer.chat_template";

fn key(name: &str) -> String {
    format!("tokenizer.ggml.{name}")
}

/// The tokenizer part of a GGUF file's metadata.
///
/// # Errors
/// [`AppError::Usage`] when a value is missing or of the wrong kind.
pub(crate) fn of_gguf(file: &GgufFile) -> Result<GgufVocabulary, AppError> {
    let has = |name: &str| file.value(&key(name)).is_some();
    let id = |name: &str| has(name).then(|| file.u32(&key(name))).transpose();
    let flag = |name: &str| has(name).then(|| file.bool(&key(name))).transpose();
    let read = || -> Result<GgufVocabulary, StoreError> {
        Ok(GgufVocabulary {
            model: file.str(&key("model"))?.to_owned(),
            pre: if has("pre") { file.str(&key("pre"))?.to_owned() } else { "default".to_owned() },
            tokens: file.strings(&key("tokens"))?.to_vec(),
            merges: if has("merges") { file.strings(&key("merges"))?.to_vec() } else { Vec::new() },
            scores: if has("scores") { file.f32s(&key("scores"))?.to_vec() } else { Vec::new() },
            types: if has("token_type") { file.i32s(&key("token_type"))?.to_vec() } else { Vec::new() },
            bos: id("bos_token_id")?,
            eos: [id("eos_token_id")?, id("eot_token_id")?].into_iter().flatten().collect(),
            unknown: id("unknown_token_id")?,
            pad: id("padding_token_id")?,
            add_bos: flag("add_bos_token")?,
            add_space_prefix: flag("add_space_prefix")?,
            chat_template: match file.value(TEMPLATE) {
                Some(_) => Some(file.str(TEMPLATE)?.to_owned()),
                None => None,
            },
        })
    };
    read().input("the tokenizer of the GGUF file")
}

/// The metadata that [`of_gguf`] reads back.
pub(crate) fn to_gguf(vocabulary: GgufVocabulary) -> Vec<(String, Value)> {
    let mut values = vec![
        (key("model"), Value::String(vocabulary.model)),
        (key("pre"), Value::String(vocabulary.pre)),
        (key("tokens"), Value::Array(Array::String(vocabulary.tokens))),
        (key("token_type"), Value::Array(Array::I32(vocabulary.types))),
        (key("merges"), Value::Array(Array::String(vocabulary.merges))),
    ];
    if !vocabulary.scores.is_empty() {
        values.push((key("scores"), Value::Array(Array::F32(vocabulary.scores))));
    }
    let mut eos = vocabulary.eos.into_iter();
    let ids = [
        ("bos_token_id", vocabulary.bos),
        ("eos_token_id", eos.next()),
        ("eot_token_id", eos.next()),
        ("unknown_token_id", vocabulary.unknown),
        ("padding_token_id", vocabulary.pad),
    ];
    values.extend(ids.into_iter().filter_map(|(name, id)| Some((key(name), Value::U32(id?)))));
    let flags = [("add_bos_token", vocabulary.add_bos), ("add_space_prefix", vocabulary.add_space_prefix)];
    values.extend(flags.into_iter().filter_map(|(name, flag)| Some((key(name), Value::Bool(flag?)))));
    values.extend(vocabulary.chat_template.map(|template| (TEMPLATE.to_owned(), Value::String(template))));
    values
}

/// How GGUF names a split into single digits and byte-level words.
const PRE: &str = "smollm";
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;

/// The vocabulary of a byte-level BPE `tokenizer.json`. Its first special token begins, ends and fills.
///
/// # Errors
/// [`AppError::Usage`] for another kind of tokenizer, or ids with gaps.
pub(crate) fn of_tokenizer_json(document: &Json) -> Result<GgufVocabulary, AppError> {
    let unusable =
        |what: &str| AppError::usage(format!("the tokenizer has no {what}; a byte-level BPE is needed"));
    let kinds: Vec<&str> = document["pre_tokenizer"]["pretokenizers"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|each| each["type"].as_str())
        .collect();
    if kinds != ["Digits", "ByteLevel"] {
        return Err(unusable("pre_tokenizer that splits digits and then bytes"));
    }
    let words = document["model"]["vocab"].as_object().ok_or_else(|| unusable("model.vocab"))?;
    let mut tokens: Vec<(u64, &str, i32)> = Vec::new();
    for (token, id) in words {
        tokens.push((id.as_u64().ok_or_else(|| unusable("numeric ids"))?, token, NORMAL));
    }
    for added in document["added_tokens"].as_array().into_iter().flatten() {
        let (Some(id), Some(token)) = (added["id"].as_u64(), added["content"].as_str()) else { continue };
        match tokens.iter_mut().find(|(known, ..)| *known == id) {
            Some((.., kind)) => *kind = CONTROL,
            None => tokens.push((id, token, CONTROL)),
        }
    }
    tokens.sort_unstable();
    if tokens.iter().enumerate().any(|(index, (id, ..))| index as u64 != *id) {
        return Err(unusable("ids without gaps"));
    }
    let merges = document["model"]["merges"].as_array().ok_or_else(|| unusable("model.merges"))?;
    let merge = |merge: &Json| match merge {
        Json::String(text) => Some(text.clone()),
        pair => Some(format!("{} {}", pair[0].as_str()?, pair[1].as_str()?)),
    };
    let merges: Option<Vec<String>> = merges.iter().map(merge).collect();
    let end = tokens.iter().find(|(.., kind)| *kind == CONTROL).map(|(id, ..)| *id as u32);
    Ok(GgufVocabulary {
        model: "gpt2".to_owned(),
        pre: PRE.to_owned(),
        types: tokens.iter().map(|(.., kind)| *kind).collect(),
        tokens: tokens.into_iter().map(|(_, token, _)| token.to_owned()).collect(),
        merges: merges.ok_or_else(|| unusable("merges as texts or pairs"))?,
        bos: end,
        eos: end.into_iter().collect(),
        pad: end,
        add_bos: Some(false),
        add_space_prefix: Some(false),
        ..GgufVocabulary::default()
    })
}

#[cfg(test)]
mod tests {
    use lowrank_models::{Config, Decoder};
    use lowrank_record::Seed;
    use lowrank_store::Format;

    use super::*;

    fn document() -> Json {
        serde_json::json!({
            "model": {"vocab": {"a": 0, "b": 1, "ab": 2, "<|end|>": 3}, "merges": [["a", "b"]]},
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Digits"}, {"type": "ByteLevel"}]},
            "added_tokens": [{"id": 3, "content": "<|end|>"}, {"id": 4, "content": "<|user|>"}],
        })
    }

    #[test]
    fn what_is_written_into_a_file_is_read_back() {
        let mut vocabulary = of_tokenizer_json(&document()).unwrap();
        assert_eq!(vocabulary.tokens, ["a", "b", "ab", "<|end|>", "<|user|>"]);
        assert_eq!(vocabulary.types, [NORMAL, NORMAL, NORMAL, CONTROL, CONTROL]);
        assert_eq!((vocabulary.merges.as_slice(), vocabulary.bos), (["a b".to_owned()].as_slice(), Some(3)));
        vocabulary.eos.push(4);
        vocabulary.unknown = Some(1);
        vocabulary.chat_template = Some("{{ messages }}".to_owned());
        vocabulary.scores = vec![0.5; 5];
        let config = Config::from_json(&serde_json::json!({
            "model_type": "llama", "vocab_size": 5, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
            "num_attention_heads": 2, "rms_norm_eps": 1e-5, "max_position_embeddings": 8,
        }));
        let decoder = Decoder::random(config.unwrap(), Seed(0), &lowrank_tensor::cpu()).unwrap();
        let bytes = decoder.to_gguf("tiny", Format::F32, to_gguf(vocabulary.clone())).unwrap();
        assert_eq!(of_gguf(&GgufFile::from_bytes(bytes).unwrap()).unwrap(), vocabulary);
    }

    #[test]
    fn a_tokenizer_of_another_kind_is_refused() {
        let refused = |pointer: &str, value: Json| {
            let mut document = document();
            *document.pointer_mut(pointer).unwrap() = value;
            of_tokenizer_json(&document).unwrap_err().to_string()
        };
        assert!(refused("/model/vocab/ab", 9.into()).contains("gaps"));
        assert!(refused("/model/vocab", Json::Null).contains("model.vocab"));
        assert!(refused("/model/merges/0", 1.into()).contains("merges"));
        assert!(refused("/pre_tokenizer/pretokenizers/0/type", "Split".into()).contains("pre_tokenizer"));
    }
}
