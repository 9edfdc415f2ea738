//! JSON files.

use std::path::Path;

use serde_json::Value;

use crate::{StoreError, text};

/// Reads a JSON file; keys keep their order.
///
/// # Errors
/// [`StoreError::Io`], [`StoreError::NotUtf8`], or [`StoreError::Json`] with line and column.
pub fn read(path: &Path) -> Result<Value, StoreError> {
    parse(path, &text::read(path)?)
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
    fn text_is_what_python_writes() {
        let value = json!({"b": [1, 2.5], "a": {"z": null, "y": {}}, "c": []});
        let python = "{\n  \"a\": {\n    \"y\": {},\n    \"z\": null\n  },\n  \"b\": [\n    1,\n    2.5\n  ],\n  \"c\": []\n}";
        assert_eq!(super::sorted_text(&value), python);
    }
}
