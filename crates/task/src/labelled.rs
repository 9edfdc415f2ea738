//! Records with an answer that is no text to be written: a class, or a number.

use serde_json::{Map, Value};

use crate::Classes;
use crate::error::{TaskError, json_type};
use crate::record::{Record, Records, text};

/// What an encoder learns to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// One of several classes.
    Class,
    /// A number.
    Number,
    /// The tokens that are hidden from it; labels are not looked at.
    Hidden,
}

/// One or two texts, and what should be answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Labelled {
    /// The first text.
    pub text: String,
    /// The second of a pair.
    pub pair: Option<String>,
    /// What should be answered.
    pub answer: Answer,
    /// Line of the data file, from 1.
    pub line: usize,
}

/// What should be answered.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// The name of a class.
    Class(String),
    /// A number.
    Number(f32),
    /// Nothing: the text itself is learned from.
    Hidden,
}

/// The keys of one text, or of two, in the order in which they are looked for.
const TEXTS: [(&str, Option<&str>); 8] = [
    ("sentence1", Some("sentence2")),
    ("text", Some("text_pair")),
    ("premise", Some("hypothesis")),
    ("question1", Some("question2")),
    ("question", Some("sentence")),
    ("text", None),
    ("sentence", None),
    ("question", None),
];

/// Reads records given as (line from 1, object): `text`, `sentence` or `question`, or a pair (`sentence1` and `sentence2`, `text` and
/// `text_pair`, `premise` and `hypothesis`, `question1` and `question2`, `question` and `sentence`), and `label`.
///
/// # Errors
/// [`TaskError::AtLine`] with what is wrong with a line, [`TaskError::NoRecords`] for none.
pub fn read_labelled(
    lines: impl IntoIterator<Item = (usize, Value)>,
    goal: Goal,
) -> Result<Vec<Labelled>, TaskError> {
    let one = |(line, value): (usize, Value)| labelled(line, &value, goal).map_err(|cause| cause.at(line));
    let records: Vec<Labelled> = lines.into_iter().map(one).collect::<Result<_, _>>()?;
    if records.is_empty() { Err(TaskError::NoRecords) } else { Ok(records) }
}

fn labelled(line: usize, value: &Value, goal: Goal) -> Result<Labelled, TaskError> {
    let object = value.as_object().ok_or(TaskError::NotObject { found: json_type(value) })?;
    let has = |key: &str| object.contains_key(key);
    let keys = TEXTS.iter().find(|(first, second)| has(first) && second.is_none_or(has));
    let Some((first, second)) = keys else {
        let found: Vec<&str> = object.keys().map(String::as_str).collect();
        return Err(TaskError::Label {
            problem: format!(
                "has no text: its keys are {}; expected `text`, `sentence` or `question`, or two texts as `sentence1` and \
                 `sentence2`, `text` and `text_pair`, `premise` and `hypothesis`, `question1` and `question2`, or `question` and \
                 `sentence`",
                if found.is_empty() { "(none)".to_owned() } else { found.join(", ") }
            ),
        });
    };
    let pair = second.map(|key| text(object, key)).transpose()?;
    Ok(Labelled { text: text(object, first)?, pair, answer: answer(object, goal)?, line })
}

fn answer(object: &Map<String, Value>, goal: Goal) -> Result<Answer, TaskError> {
    if goal == Goal::Hidden {
        return Ok(Answer::Hidden);
    }
    let Some(label) = object.get("label") else {
        return Err(TaskError::Label { problem: "has no `label`".to_owned() });
    };
    let wrong = |wanted: &str| {
        let problem = format!("has a `label` that is {}, not {wanted}", json_type(label));
        Err(TaskError::Label { problem })
    };
    match (goal, label) {
        (Goal::Class, Value::String(name)) if !name.trim().is_empty() => Ok(Answer::Class(name.clone())),
        (Goal::Class, Value::String(_)) => {
            Err(TaskError::Label { problem: "has an empty `label`".to_owned() })
        }
        (Goal::Class, Value::Bool(value)) => Ok(Answer::Class(value.to_string())),
        (Goal::Class, Value::Number(number)) if number.is_i64() => Ok(Answer::Class(number.to_string())),
        (Goal::Class, Value::Number(number)) => Err(TaskError::Label {
            problem: format!(
                "has the `label` {number}, which names no class; numbers are learned by a regression"
            ),
        }),
        (Goal::Class, _) => wrong("a class (text, or a whole number)"),
        (Goal::Number | Goal::Hidden, Value::Number(number)) => {
            let value = number.as_f64().map(|value| value as f32).filter(|value| value.is_finite());
            value
                .map(Answer::Number)
                .ok_or(TaskError::Label { problem: format!("has the `label` {number}, which is too large") })
        }
        (Goal::Number | Goal::Hidden, _) => wrong("a number"),
    }
}

/// Questions with one right answer (a BIG-bench task) as records: the answer is the class, or the number that it spells.
///
/// # Errors
/// [`TaskError::AtLine`] for an answer that is no number where one is wanted, or another kind of record.
pub fn label_by_answer(records: Records, goal: Goal) -> Result<Vec<Labelled>, TaskError> {
    let one = |(line, record): (usize, Record)| {
        let Record::QuestionAnswer { question, answer } = record else {
            let problem = format!("is of kind {}, which has no label", record.kind().name());
            return Err(TaskError::Label { problem }.at(line));
        };
        let answer = match goal {
            Goal::Class => Answer::Class(answer),
            Goal::Hidden => Answer::Hidden,
            Goal::Number => match answer.trim().parse::<f32>() {
                Ok(value) if value.is_finite() => Answer::Number(value),
                _ => {
                    let problem = format!("has the answer {answer:?}, which is no number");
                    return Err(TaskError::Label { problem }.at(line));
                }
            },
        };
        Ok(Labelled { text: question, pair: None, answer, line })
    };
    records.records.into_iter().map(one).collect()
}

/// The classes of records in a fixed order, that of [`Classes::of`].
///
/// # Errors
/// [`TaskError::OneClass`] where there is nothing to tell apart.
pub fn classes(records: &[Labelled]) -> Result<Vec<String>, TaskError> {
    let names = records.iter().filter_map(|record| match &record.answer {
        Answer::Class(name) => Some(name.as_str()),
        Answer::Number(_) | Answer::Hidden => None,
    });
    Ok(Classes::of(names)?.names().to_vec())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: Value, goal: Goal) -> Result<Labelled, String> {
        read_labelled([(7, value)], goal).map(|mut all| all.remove(0)).map_err(|error| error.to_string())
    }

    #[test]
    fn texts_and_pairs_are_found_by_their_keys() {
        let one = read(json!({"sentence": "a", "label": "x", "idx": 3}), Goal::Class).unwrap();
        assert_eq!((one.text.as_str(), one.pair, one.line), ("a", None, 7));
        for (first, second) in TEXTS.iter().filter_map(|(first, second)| Some((first, (*second)?))) {
            let pair = read(json!({*first: "a", second: "b", "label": 1}), Goal::Class).unwrap();
            assert_eq!((pair.text.as_str(), pair.pair.as_deref()), ("a", Some("b")), "{first}");
            assert_eq!(pair.answer, Answer::Class("1".to_owned()));
        }
        let number = read(json!({"text": "a", "label": -2.5}), Goal::Number).unwrap();
        assert_eq!(number.answer, Answer::Number(-2.5));
        assert_eq!(read(json!({"text": "a"}), Goal::Hidden).unwrap().answer, Answer::Hidden);
    }

    #[test]
    fn a_wrong_line_is_named_with_what_is_wrong() {
        for (value, goal, said) in [
            (json!({"txt": "a", "label": 1}), Goal::Class, "txt, label"),
            (json!({"text": "a"}), Goal::Class, "no `label`"),
            (json!({"text": "a", "label": null}), Goal::Class, "null"),
            (json!({"text": "a", "label": 0.5}), Goal::Class, "regression"),
            (json!({"text": "a", "label": " "}), Goal::Class, "empty `label`"),
            (json!({"text": "a", "label": "good"}), Goal::Number, "not a number"),
            (json!({"text": "a", "label": 1e300}), Goal::Number, "too large"),
            (json!({"text": " ", "label": 1}), Goal::Class, "`text` is empty"),
            (json!({"sentence1": "a", "sentence2": 3, "label": 1}), Goal::Class, "`sentence2` is a number"),
            (json!([1]), Goal::Hidden, "a list"),
        ] {
            let refused = read(value.clone(), goal).unwrap_err();
            assert!(refused.contains("line 7") && refused.contains(said), "{value}: {refused}");
        }
        assert_eq!(read_labelled([], Goal::Class).unwrap_err(), TaskError::NoRecords);
    }

    #[test]
    fn classes_have_one_order_and_there_are_two_at_least() {
        let of = |labels: &[Value]| {
            let lines =
                labels.iter().enumerate().map(|(at, label)| (at, json!({"text": "a", "label": label})));
            classes(&read_labelled(lines, Goal::Class).unwrap())
        };
        assert_eq!(of(&[json!(10), json!(9), json!(10)]).unwrap(), ["9", "10"]);
        assert_eq!(of(&[json!("b"), json!("10"), json!("9")]).unwrap(), ["10", "9", "b"]);
        let said = of(&[json!("good"), json!("good")]).unwrap_err().to_string();
        assert!(said.contains("good") && said.contains("2 records"), "{said}");
    }

    #[test]
    fn questions_are_labelled_by_their_answers() {
        let task = json!({"name": "t", "examples": [
            {"input": "a", "target_scores": {"yes": 1, "no": 0}}, {"input": "b", "target": "3.5"}]});
        let records = || crate::BigBench::from_json(&task).unwrap().records;
        let read = label_by_answer(records(), Goal::Class).unwrap();
        assert_eq!(read[0].answer, Answer::Class("yes".to_owned()));
        let refused = label_by_answer(records(), Goal::Number).unwrap_err().to_string();
        assert!(refused.contains("line 1") && refused.contains("\"yes\""), "{refused}");
    }
}
