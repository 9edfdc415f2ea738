//! What `tokenizer_config.json` and `generation_config.json` say about special tokens.

use serde_json::Value;

use super::Tokenizer;
use crate::error::{TaskError, json_type};

/// Special tokens and chat template of a `tokenizer_config.json`. Other fields (`add_bos_token` among them) are not read: the
/// post-processor in `tokenizer.json` says which tokens are added.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    /// Token that begins a text.
    pub bos: Option<String>,
    /// Token that ends a text.
    pub eos: Option<String>,
    /// Token that fills rows.
    pub pad: Option<String>,
    /// The chat template, Jinja source. Of a list of named ones, the one named `default`.
    pub chat_template: Option<String>,
}

impl SpecialTokens {
    /// Reads a parsed `tokenizer_config.json`.
    ///
    /// # Errors
    /// [`TaskError::Field`] when a token is neither a string nor an object with `content`, or the chat template is
    /// neither a string nor a list with one named `default`.
    pub fn from_tokenizer_config(config: &Value) -> Result<SpecialTokens, TaskError> {
        Ok(SpecialTokens {
            bos: token(config, "bos_token")?,
            eos: token(config, "eos_token")?,
            pad: token(config, "pad_token")?,
            chat_template: chat_template(config)?,
        })
    }
}

fn token(config: &Value, key: &str) -> Result<Option<String>, TaskError> {
    match config.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(value) => match value.get("content").and_then(Value::as_str) {
            Some(text) => Ok(Some(text.to_owned())),
            None => Err(field(
                key,
                format!("is {}, expected a string or an object with `content`", json_type(value)),
            )),
        },
    }
}

fn chat_template(config: &Value) -> Result<Option<String>, TaskError> {
    let key = "chat_template";
    match config.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(Value::Array(list)) => {
            let named = |entry: &&Value| entry.get("name").and_then(Value::as_str) == Some("default");
            let source =
                list.iter().find(named).and_then(|entry| entry.get("template")).and_then(Value::as_str);
            let names: Vec<&str> = list.iter().filter_map(|entry| entry.get("name")?.as_str()).collect();
            source.map(|text| Some(text.to_owned())).ok_or_else(|| {
                field(
                    key,
                    format!("is a list of {names:?} without `default`: name one of them `default` in tokenizer_config.json"),
                )
            })
        }
        Some(value) => Err(field(key, format!("is {}, expected a string or a list", json_type(value)))),
    }
}

/// The end tokens of a parsed `generation_config.json`; empty when it names none.
///
/// # Errors
/// [`TaskError::Field`] when `eos_token_id` is neither an id nor a list of ids.
pub fn generation_eos(config: &Value) -> Result<Vec<u32>, TaskError> {
    let key = "eos_token_id";
    let one = |value: &Value| {
        let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
        id.ok_or_else(|| field(key, format!("holds {value}, expected a token id")))
    };
    match config.get(key) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(list)) => list.iter().map(one).collect(),
        Some(value) => Ok(vec![one(value)?]),
    }
}

fn field(name: &str, problem: String) -> TaskError {
    TaskError::Field { field: name.to_owned(), problem }
}

impl Tokenizer {
    /// The tokenizer with the special tokens and the chat template of its `tokenizer_config.json`. What the config
    /// does not name stays as it was.
    ///
    /// # Errors
    /// [`TaskError::Field`] when a named token is not in the vocabulary.
    pub fn with_special_tokens(mut self, special: &SpecialTokens) -> Result<Tokenizer, TaskError> {
        let find = |key: &str, text: &Option<String>| match text {
            None => Ok(None),
            Some(text) => match self.token_id(text) {
                Some(id) => Ok(Some(id)),
                None => Err(field(key, format!("is {text:?}, which is not in the vocabulary"))),
            },
        };
        let (bos, eos, pad) = (
            find("bos_token", &special.bos)?,
            find("eos_token", &special.eos)?,
            find("pad_token", &special.pad)?,
        );
        self.bos = bos.or(self.bos);
        self.pad = pad.or(self.pad);
        if let Some(eos) = eos {
            self.eos = vec![eos];
        }
        if special.chat_template.is_some() {
            self.chat_template.clone_from(&special.chat_template);
        }
        Ok(self)
    }

    /// The tokenizer with more end tokens, as from [`generation_eos`]; the first one known stays the one that is written.
    ///
    /// # Errors
    /// [`TaskError::Field`] when an id is past the vocabulary.
    pub fn with_eos(mut self, ids: &[u32]) -> Result<Tokenizer, TaskError> {
        for &id in ids {
            if id as usize >= self.vocabulary_size() {
                let count = self.vocabulary_size();
                return Err(field("eos_token_id", format!("is {id}, but there are {count} tokens")));
            }
            if !self.eos.contains(&id) {
                self.eos.push(id);
            }
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::test_tokenizers::bytes;

    #[test]
    fn both_forms_of_token_and_template_are_read() {
        let config = json!({"bos_token": null, "eos_token": {"content": "<|im_end|>", "special": true}, "pad_token": "<|im_end|>",
            "chat_template": [{"name": "tool_use", "template": "no"}, {"name": "default", "template": "yes"}]});
        let special = SpecialTokens::from_tokenizer_config(&config).unwrap();
        assert_eq!(special.bos, None);
        assert_eq!(special.eos.as_deref(), Some("<|im_end|>"));
        assert_eq!(special.chat_template.as_deref(), Some("yes"));
        let tokenizer = bytes().with_special_tokens(&special).unwrap();
        assert_eq!(tokenizer.eos(), [tokenizer.token_id("<|im_end|>").unwrap()]);
        assert_eq!(tokenizer.chat_template(), Some("yes"));
        assert_eq!(tokenizer.bos(), bytes().bos());
    }

    #[test]
    fn wrong_forms_are_named() {
        let refused = |config: Value| SpecialTokens::from_tokenizer_config(&config).unwrap_err().to_string();
        assert!(refused(json!({"eos_token": 3})).contains("`eos_token` is a number"));
        assert!(refused(json!({"chat_template": [{"name": "rag", "template": "x"}]})).contains("rag"));
        let special = SpecialTokens { eos: Some("<nowhere>".to_owned()), ..SpecialTokens::default() };
        assert!(bytes().with_special_tokens(&special).unwrap_err().to_string().contains("<nowhere>"));
    }

    #[test]
    fn generation_config_may_name_one_end_or_more() {
        assert_eq!(generation_eos(&json!({})).unwrap(), Vec::<u32>::new());
        assert_eq!(generation_eos(&json!({"eos_token_id": 2})).unwrap(), [2]);
        let eos = generation_eos(&json!({"eos_token_id": [2, 7]})).unwrap();
        assert!(generation_eos(&json!({"eos_token_id": "2"})).is_err());
        let tokenizer = bytes();
        let first = tokenizer.eos()[0];
        assert_eq!(tokenizer.with_eos(&eos).unwrap().eos(), [first, 2, 7]);
        assert!(bytes().with_eos(&[9_999_999]).is_err());
    }
}
