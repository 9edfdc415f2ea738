//! JSON files: keys keep their order, and none may occur twice.

use std::fmt;
use std::path::Path;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::{StoreError, text};

/// Reads a JSON file.
///
/// # Errors
/// [`StoreError::Io`], [`StoreError::NotUtf8`], or [`StoreError::Json`] with line and column; that a key occurs twice
/// in an object is such an error, since it could mean either of its values.
pub fn read(path: &Path) -> Result<Value, StoreError> {
    parse::<Unambiguous>(path, &text::read(path)?).map(|Unambiguous(value)| value)
}

/// Any JSON in which no key occurs twice in one object. `serde_json`'s own `Value` would keep the last without a word.
pub(crate) struct Unambiguous(pub(crate) Value);

impl<'de> Deserialize<'de> for Unambiguous {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }

            fn visit_unit<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }

            fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
                Ok(value.into())
            }

            fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
                Ok(value.into())
            }

            fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
                Ok(value.into())
            }

            fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
                Ok(value.into())
            }

            fn visit_str<E>(self, value: &str) -> Result<Value, E> {
                Ok(value.into())
            }

            fn visit_string<E>(self, value: String) -> Result<Value, E> {
                Ok(value.into())
            }

            fn visit_seq<S: SeqAccess<'de>>(self, mut items: S) -> Result<Value, S::Error> {
                let mut list = Vec::new();
                while let Some(Unambiguous(item)) = items.next_element()? {
                    list.push(item);
                }
                Ok(Value::Array(list))
            }

            fn visit_map<M: MapAccess<'de>>(self, mut entries: M) -> Result<Value, M::Error> {
                let mut map = Map::new();
                while let Some(key) = entries.next_key::<String>()? {
                    if map.contains_key(&key) {
                        return Err(M::Error::custom(format!("key {key:?} occurs twice")));
                    }
                    let Unambiguous(value) = entries.next_value()?;
                    map.insert(key, value);
                }
                Ok(Value::Object(map))
            }
        }
        deserializer.deserialize_any(Any).map(Unambiguous)
    }
}

/// Parses JSON text that came from `path`.
pub(crate) fn parse<T: serde::de::DeserializeOwned>(path: &Path, text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|error| StoreError::Json {
        path: path.to_owned(),
        line: error.line(),
        column: error.column(),
        message: without_position(&error),
    })
}

/// The parser's message without its own "at line 1 column 2", which the error adds again.
pub(crate) fn without_position(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

/// The text that Python's `json.dumps(value, indent=2, sort_keys=True)` gives, except that letters beyond ASCII stay
/// as they are.
#[must_use]
pub fn sorted_text(value: &Value) -> String {
    // The alternate form of Display indents by two spaces.
    format!("{:#}", sorted(value))
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().map(|(key, value)| (key.clone(), sorted(value))).collect();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(entries.into_iter().collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::StoreError;

    #[test]
    fn names_line_and_column() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        std::fs::write(&path, "{\n  \"a\": 1,\n  \"b\": ]\n}").unwrap();
        let error = super::read(&path).unwrap_err();
        assert!(matches!(error, StoreError::Json { line: 3, column: 8, .. }), "{error}");
        assert!(error.to_string().ends_with("line 3, column 8: expected value"), "{error}");
    }

    #[test]
    fn a_key_that_occurs_twice_is_refused_at_any_depth() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            super::read(&path)
        };
        for text in ["{\"r\": 8,\n \"r\": 4}", "[{\"a\": {\"r\": 1,\n \"r\": null}}]"] {
            let error = read(text).unwrap_err();
            assert!(matches!(error, StoreError::Json { line: 2, .. }), "{error}");
            assert!(error.to_string().ends_with("key \"r\" occurs twice"), "{error}");
        }
        let text =
            r#"{"a":{"r":1},"b":[{"r":-2},{"r":0.1}],"c":"größe\n","d":[null,true,18446744073709551615]}"#;
        assert_eq!(read(text).unwrap(), serde_json::from_str::<serde_json::Value>(text).unwrap());
    }

    #[test]
    fn text_is_what_python_writes() {
        let value = json!({"b": [1, 2.5], "a": {"z": null, "y": {}}, "c": []});
        let python = "{\n  \"a\": {\n    \"y\": {},\n    \"z\": null\n  },\n  \"b\": [\n    1,\n    2.5\n  ],\n  \"c\": []\n}";
        assert_eq!(super::sorted_text(&value), python);
    }
}
