//! Keys of a `config.json`, read with errors that name them: for the networks beside the decoders.

use serde_json::Value;

use crate::ModelError;

const PLACE: &str = "config.json";
/// The largest size of any kind: products of two are far from overflowing.
const LARGEST: u64 = 1 << 24;

/// A configuration to read keys from. A key that is `null` counts as absent, as `transformers` takes it.
#[derive(Clone, Copy)]
pub(crate) struct Keys<'a>(pub(crate) &'a Value);

impl<'a> Keys<'a> {
    fn get(self, key: &str) -> Option<&'a Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    /// A text, where there is one.
    pub(crate) fn text(self, key: &'static str) -> Result<Option<&'a str>, ModelError> {
        self.get(key)
            .map(|value| value.as_str().ok_or_else(|| bad(key, value, "it should be a text")))
            .transpose()
    }

    /// A positive whole number, where there is one.
    pub(crate) fn optional_count(self, key: &'static str) -> Result<Option<usize>, ModelError> {
        let read = |value: &Value| match value.as_u64() {
            Some(count) if (1..=LARGEST).contains(&count) => Ok(count as usize),
            _ => Err(bad(key, value, &format!("it should be a whole number from 1 to {LARGEST}"))),
        };
        self.get(key).map(read).transpose()
    }

    /// A positive whole number that must be there.
    pub(crate) fn count(self, key: &'static str) -> Result<usize, ModelError> {
        let expected = "a positive whole number";
        self.optional_count(key)?.ok_or(ModelError::MissingKey { place: PLACE, key, expected })
    }

    /// A token id, which may be 0.
    pub(crate) fn id(self, key: &'static str, default: u32) -> Result<u32, ModelError> {
        let read = |value: &Value| {
            let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
            id.ok_or_else(|| bad(key, value, "it should be a token id"))
        };
        self.get(key).map_or(Ok(default), read)
    }

    /// A small positive number.
    pub(crate) fn epsilon(self, key: &'static str, default: f64) -> Result<f64, ModelError> {
        let value = self.number(key, default)?;
        if !(value >= 0.0 && value.is_finite()) {
            return Err(bad(key, value, "it must be a small positive number"));
        }
        Ok(value)
    }

    /// A number.
    pub(crate) fn number(self, key: &'static str, default: f64) -> Result<f64, ModelError> {
        let read = |value: &Value| value.as_f64().ok_or_else(|| bad(key, value, "it should be a number"));
        self.get(key).map_or(Ok(default), read)
    }

    /// True or false, where it says.
    pub(crate) fn optional_flag(self, key: &'static str) -> Result<Option<bool>, ModelError> {
        let read =
            |value: &Value| value.as_bool().ok_or_else(|| bad(key, value, "it should be true or false"));
        self.get(key).map(read).transpose()
    }

    /// True or false.
    pub(crate) fn flag(self, key: &'static str, default: bool) -> Result<bool, ModelError> {
        Ok(self.optional_flag(key)?.unwrap_or(default))
    }

    /// One size for both sides, or a list `[height, width]`.
    pub(crate) fn sides(self, key: &'static str) -> Result<[usize; 2], ModelError> {
        let side = |value: &Value| value.as_u64().filter(|side| (1..=LARGEST).contains(side));
        let sides = match self.get(key) {
            None => {
                let expected = "a size, or [height, width]";
                return Err(ModelError::MissingKey { place: PLACE, key, expected });
            }
            Some(Value::Array(list)) => match list.as_slice() {
                [height, width] => side(height).zip(side(width)),
                _ => None,
            },
            Some(value) => side(value).map(|side| (side, side)),
        };
        let (height, width) =
            sides.ok_or_else(|| bad(key, &self.0[key], "it should be a size, or [height, width]"))?;
        Ok([height as usize, width as usize])
    }

    /// The type of the model, if it is one of these.
    pub(crate) fn model_type(self, known: &[&str]) -> Result<&'a str, ModelError> {
        let expected = "a text";
        let found = self.text("model_type")?.ok_or(ModelError::MissingKey {
            place: PLACE,
            key: "model_type",
            expected,
        })?;
        if !known.contains(&found) {
            return Err(ModelError::Architecture { found: found.to_owned(), known: known.join(", ") });
        }
        Ok(found)
    }

    /// The class that wrote the model: the first of `architectures`.
    pub(crate) fn architecture(self) -> Option<&'a str> {
        self.get("architectures")?.get(0)?.as_str()
    }

    /// Classes of a classification head. `transformers` writes them as `id2label`, and leaves them out where they are two.
    pub(crate) fn labels(self) -> Result<usize, ModelError> {
        if let Some(count) = self.optional_count("num_labels")? {
            return Ok(count);
        }
        match self.get("id2label") {
            None => Ok(2),
            Some(Value::Object(labels)) if !labels.is_empty() => Ok(labels.len()),
            Some(other) => Err(bad("id2label", other, "it should name each class by its number")),
        }
    }

    /// Width of one head: what the heads share is divided evenly.
    pub(crate) fn head_dim(self, hidden: usize, heads: usize) -> Result<usize, ModelError> {
        if !hidden.is_multiple_of(heads) {
            return Err(bad("hidden_size", hidden, "it must be a multiple of num_attention_heads"));
        }
        Ok(hidden / heads)
    }
}

/// A key that holds what cannot be used.
pub(crate) fn bad(key: &'static str, found: impl std::fmt::Display, hint: &str) -> ModelError {
    ModelError::BadKey { place: PLACE, key, found: found.to_string(), hint: hint.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_absent_key_is_a_default_and_a_wrong_one_an_error() {
        let json =
            json!({"a": null, "b": 0, "c": [8, 12], "d": "x", "id2label": {"0": "no", "1": "yes", "2": "?"}});
        let keys = Keys(&json);
        assert_eq!(keys.optional_count("a").unwrap(), None);
        assert_eq!(keys.id("b", 7).unwrap(), 0);
        assert_eq!(keys.sides("c").unwrap(), [8, 12]);
        assert_eq!(keys.labels().unwrap(), 3);
        assert_eq!(Keys(&json!({})).labels().unwrap(), 2);
        for message in [
            keys.count("b").unwrap_err().to_string(),
            keys.count("d").unwrap_err().to_string(),
            keys.flag("d", true).unwrap_err().to_string(),
            keys.number("d", 1.0).unwrap_err().to_string(),
            keys.sides("d").unwrap_err().to_string(),
        ] {
            assert!(message.contains("it should be"), "{message}");
        }
        assert!(keys.count("e").unwrap_err().to_string().contains("\"e\" is missing"));
    }
}
