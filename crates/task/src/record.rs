//! One line of a data file: which kind of record it is, and its checked texts.

use serde_json::{Map, Value};

use crate::error::{TaskError, json_type};

/// What a data file holds, one kind per file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// `{"text"}`.
    Text,
    /// `{"prompt", "completion"}`.
    PromptCompletion,
    /// `{"question", "answer"}`, the layout of GSM8K and TOFU.
    QuestionAnswer,
    /// `{"messages": [{"role", "content"}]}`.
    Messages,
    /// A plain text file, cut into rows; never detected from keys.
    PlainText,
}

impl Kind {
    /// Kinds that are detected by their keys, with those keys.
    const BY_KEYS: [(Kind, &'static [&'static str]); 4] = [
        (Kind::Text, &["text"]),
        (Kind::PromptCompletion, &["prompt", "completion"]),
        (Kind::QuestionAnswer, &["question", "answer"]),
        (Kind::Messages, &["messages"]),
    ];

    /// The name used in messages and summaries.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::Text => "text",
            Kind::PromptCompletion => "prompt/completion",
            Kind::QuestionAnswer => "question/answer",
            Kind::Messages => "messages",
            Kind::PlainText => "plain text",
        }
    }

    /// The kind whose keys the object has. Other keys are ignored.
    ///
    /// # Errors
    /// [`TaskError::UnknownKeys`] when no kind fits (naming the nearest key), [`TaskError::Ambiguous`] when two do.
    pub fn detect(object: &Map<String, Value>) -> Result<Kind, TaskError> {
        let mut fitting =
            Self::BY_KEYS.iter().filter(|(_, keys)| keys.iter().all(|&key| object.contains_key(key)));
        match (fitting.next(), fitting.next()) {
            (Some(&(kind, _)), None) => Ok(kind),
            (Some((first, _)), Some((second, _))) => {
                Err(TaskError::Ambiguous { first: first.name(), second: second.name() })
            }
            (None, _) => {
                let expected: Vec<String> =
                    Self::BY_KEYS.iter().map(|(_, keys)| quoted(keys.iter().copied(), " and ")).collect();
                Err(TaskError::UnknownKeys {
                    found: quoted(object.keys().map(String::as_str), ", "),
                    expected: expected.join(", or "),
                    hint: hint(object),
                })
            }
        }
    }
}

/// Keys in backticks, or a word when there are none.
fn quoted<'a>(keys: impl Iterator<Item = &'a str>, between: &str) -> String {
    let keys: Vec<String> = keys.map(|key| format!("`{key}`")).collect();
    if keys.is_empty() { "(none)".to_owned() } else { keys.join(between) }
}

/// The known key nearest to one that was written, when it is near.
fn hint(object: &Map<String, Value>) -> String {
    let known = Kind::BY_KEYS.iter().flat_map(|(_, keys)| keys.iter().copied());
    let mut best: Option<(f64, &str, &str)> = None;
    for key in known.filter(|&key| !object.contains_key(key)) {
        for found in object.keys() {
            let near = strsim::jaro_winkler(&found.to_lowercase(), key);
            // 0.85 lets pass one or two wrong letters, and no other word.
            if near > best.map_or(0.85, |(nearest, ..)| nearest) {
                best = Some((near, found, key));
            }
        }
    }
    best.map_or_else(String::new, |(_, found, key)| format!("; did you mean `{key}` for `{found}`?"))
}

/// The checked texts of one line.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// Learn all of it.
    Text(String),
    /// Learn `completion` after `prompt`; in plain layout the two are joined as they are.
    PromptCompletion {
        /// What is given.
        prompt: String,
        /// What is learned.
        completion: String,
    },
    /// Learn `answer` after `question`; see [`crate::Layout`] for the plain layout.
    QuestionAnswer {
        /// What is given.
        question: String,
        /// What is learned.
        answer: String,
    },
    /// Learn the `assistant` turns. Each is an object with text `role` and `content`, handed on to the template whole.
    Messages(Vec<Value>),
}

impl Record {
    /// The kind of this record.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Record::Text(_) => Kind::Text,
            Record::PromptCompletion { .. } => Kind::PromptCompletion,
            Record::QuestionAnswer { .. } => Kind::QuestionAnswer,
            Record::Messages(_) => Kind::Messages,
        }
    }

    /// Reads one JSON object.
    ///
    /// # Errors
    /// When the value is no object, its keys fit no kind or two, or a text is missing, empty or not a string.
    pub fn from_json(value: &Value) -> Result<Record, TaskError> {
        let object = value.as_object().ok_or(TaskError::NotObject { found: json_type(value) })?;
        Ok(match Kind::detect(object)? {
            Kind::PromptCompletion => Record::PromptCompletion {
                prompt: text(object, "prompt")?,
                completion: text(object, "completion")?,
            },
            Kind::QuestionAnswer => Record::QuestionAnswer {
                question: text(object, "question")?,
                answer: text(object, "answer")?,
            },
            Kind::Messages => Record::Messages(messages(object)?),
            Kind::Text | Kind::PlainText => Record::Text(text(object, "text")?),
        })
    }
}

/// A data file, read and checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Records {
    /// The one kind of all records.
    pub kind: Kind,
    /// Line (from 1) and record, in file order.
    pub records: Vec<(usize, Record)>,
}

/// Reads all lines of a JSONL file, given as (line number from 1, value).
///
/// # Errors
/// [`TaskError::AtLine`] with the first line that is wrong; [`TaskError::NoRecords`] for an empty file.
pub fn read_records(lines: impl IntoIterator<Item = (usize, Value)>) -> Result<Records, TaskError> {
    let mut records: Vec<(usize, Record)> = Vec::new();
    for (line, value) in lines {
        let record = Record::from_json(&value).map_err(|cause| cause.at(line))?;
        if let Some((first_line, first)) = records.first()
            && first.kind() != record.kind()
        {
            let (kind, first) = (record.kind().name(), first.kind().name());
            return Err(TaskError::MixedKinds { kind, first, first_line: *first_line }.at(line));
        }
        records.push((line, record));
    }
    let kind = records.first().ok_or(TaskError::NoRecords)?.1.kind();
    Ok(Records { kind, records })
}

/// The text under `key`, neither missing nor empty.
pub(crate) fn text(object: &Map<String, Value>, key: &str) -> Result<String, TaskError> {
    let value = object.get(key).unwrap_or(&Value::Null);
    let text = value.as_str().ok_or(TaskError::NotText { key: key.to_owned(), found: json_type(value) })?;
    if text.trim().is_empty() {
        return Err(TaskError::EmptyText { key: key.to_owned() });
    }
    Ok(text.to_owned())
}

/// The messages, each with a role and a content. An empty `system` content is allowed, as templates use it to switch
/// their own off.
fn messages(object: &Map<String, Value>) -> Result<Vec<Value>, TaskError> {
    let value = object.get("messages").unwrap_or(&Value::Null);
    let list = value.as_array().ok_or(TaskError::NotMessages { found: json_type(value) })?;
    if list.is_empty() {
        return Err(TaskError::NotMessages { found: "an empty list" });
    }
    for (index, message) in list.iter().enumerate() {
        let fields =
            message.as_object().ok_or(TaskError::NotMessages { found: "a list with something else" })?;
        for key in ["role", "content"] {
            let found = text(fields, key);
            let system = fields.get("role").and_then(Value::as_str) == Some("system");
            match found {
                Err(TaskError::EmptyText { .. }) if system && key == "content" => {}
                Err(TaskError::EmptyText { .. }) => {
                    return Err(TaskError::EmptyText { key: format!("messages[{index}].{key}") });
                }
                Err(TaskError::NotText { found, .. }) => {
                    return Err(TaskError::NotText { key: format!("messages[{index}].{key}"), found });
                }
                Err(other) => return Err(other),
                Ok(_) => {}
            }
        }
    }
    Ok(list.clone())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(value: Value) -> String {
        read_records([(7, value)]).unwrap_err().to_string()
    }

    #[test]
    fn kinds_are_detected_by_their_keys() {
        let rows = [
            (json!({"text": "a"}), Kind::Text),
            (json!({"prompt": "a", "completion": "b", "id": 3}), Kind::PromptCompletion),
            (json!({"index": 0, "question": "a", "answer": "b"}), Kind::QuestionAnswer),
            (json!({"messages": [{"role": "user", "content": "a"}]}), Kind::Messages),
        ];
        for (value, kind) in rows {
            assert_eq!(read_records([(1, value)]).unwrap().kind, kind);
        }
    }

    #[test]
    fn a_wrong_line_is_named_with_keys_and_the_nearest_key() {
        let said = refused(json!({"prompt": "a", "completions": "b"}));
        for part in
            ["line 7", "`prompt`, `completions`", "`question` and `answer`", "did you mean `completion`"]
        {
            assert!(said.contains(part), "{part}: {said}");
        }
        assert!(refused(json!({"zzz": 1})).contains("fit no kind"));
        assert!(!refused(json!({"zzz": 1})).contains("did you mean"));
        assert!(refused(json!({})).contains("(none)"));
        assert!(refused(json!([1])).contains("a list"));
        assert!(refused(json!({"text": "a", "messages": []})).contains("both text and messages"));
    }

    #[test]
    fn texts_must_be_text_and_not_empty() {
        assert!(refused(json!({"text": null})).contains("`text` is null"));
        assert!(refused(json!({"text": 3.5})).contains("a number"));
        assert!(refused(json!({"prompt": "a", "completion": " \n"})).contains("`completion` is empty"));
        assert!(refused(json!({"messages": "hi"})).contains("a string"));
        assert!(refused(json!({"messages": []})).contains("an empty list"));
        assert!(refused(json!({"messages": [{"role": "user"}]})).contains("messages[0].content"));
        assert!(
            refused(json!({"messages": [{"role": "user", "content": ""}]})).contains("messages[0].content")
        );
        let system =
            json!({"messages": [{"role": "system", "content": ""}, {"role": "user", "content": "a"}]});
        assert!(read_records([(1, system)]).is_ok());
    }

    #[test]
    fn a_file_holds_one_kind_and_at_least_one_record() {
        assert_eq!(read_records([]).unwrap_err(), TaskError::NoRecords);
        let lines = [(1, json!({"text": "a"})), (2, json!({"question": "a", "answer": "b"}))];
        let said = read_records(lines).unwrap_err().to_string();
        assert!(said.starts_with("line 2") && said.contains("line 1 is of kind text"), "{said}");
    }
}
