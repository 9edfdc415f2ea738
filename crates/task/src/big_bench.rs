//! BIG-bench `task.json` files.

use serde_json::Value;

use crate::error::{TaskError, json_type};
use crate::question::Question;
use crate::record::{Kind, Record, Records};

/// The examples of a BIG-bench task (Srivastava et al., "Beyond the Imitation Game", 2022).
///
/// Inputs are taken as they are, with the task's `task_prefix` before them. The task's other affixes (`example_input_prefix` and the like)
/// are not applied: the layout of this crate writes questions and answers for every task alike.
#[derive(Debug, Clone, PartialEq)]
pub struct BigBench {
    /// The task's name.
    pub name: String,
    /// Every example with an answer as `question/answer`, line = number of the example from 1. The answer is the right choice, or
    /// the first of several targets.
    pub records: Records,
    /// The examples with choices of which exactly one is best.
    pub questions: Vec<Question>,
    /// Examples whose choices have no single best one (equal scores): in neither list.
    pub undecided: usize,
}

fn wrong(problem: String) -> TaskError {
    TaskError::BigBench { problem }
}

impl BigBench {
    /// Reads a parsed `task.json`: `examples` with `input` and `target` (a text or several) or `target_scores` (a score a choice).
    ///
    /// # Errors
    /// [`TaskError::BigBench`] for another structure, with the number of the example as line; [`TaskError::NoRecords`]
    /// when no example has an answer.
    pub fn from_json(task: &Value) -> Result<BigBench, TaskError> {
        let examples = task.get("examples").and_then(Value::as_array).ok_or_else(|| {
            wrong("has no list `examples`: give the task's own task.json (tasks made of subtasks have one each)".to_owned())
        })?;
        let text = |key: &str| task.get(key).and_then(Value::as_str).unwrap_or_default();
        let records = Records { kind: Kind::QuestionAnswer, records: Vec::with_capacity(examples.len()) };
        let mut read =
            BigBench { name: text("name").to_owned(), records, questions: Vec::new(), undecided: 0 };
        for (index, example) in examples.iter().enumerate() {
            read.add(index + 1, text("task_prefix"), example).map_err(|cause| cause.at(index + 1))?;
        }
        if read.records.records.is_empty() { Err(TaskError::NoRecords) } else { Ok(read) }
    }

    fn add(&mut self, number: usize, prefix: &str, example: &Value) -> Result<(), TaskError> {
        let input = example.get("input").and_then(Value::as_str).filter(|input| !input.trim().is_empty());
        let input = input.ok_or_else(|| wrong("has an example without text `input`".to_owned()))?;
        let question = format!("{prefix}{input}");
        let answer = if let Some(scores) = example.get("target_scores") {
            let Some(choice) = self.choices(&question, scores)? else { return Ok(()) };
            choice
        } else {
            let target = example.get("target").unwrap_or(&Value::Null);
            let first = target.as_array().and_then(|list| list.first()).unwrap_or(target);
            let found = json_type(target);
            let answer = first.as_str().filter(|answer| !answer.trim().is_empty());
            answer
                .ok_or_else(|| wrong(format!("has an example whose `target` is {found}, not text")))?
                .to_owned()
        };
        self.records.records.push((number, Record::QuestionAnswer { question, answer }));
        Ok(())
    }

    /// Adds a question; the best choice, or none when several are.
    fn choices(&mut self, question: &str, scores: &Value) -> Result<Option<String>, TaskError> {
        let scores =
            scores.as_object().ok_or_else(|| wrong("has `target_scores` that are no object".to_owned()))?;
        let mut best: Option<(f64, usize)> = None;
        let mut ties = 0;
        for (index, (choice, score)) in scores.iter().enumerate() {
            let score =
                score.as_f64().ok_or_else(|| wrong(format!("scores the choice {choice:?} with {score}")))?;
            match best {
                Some((highest, _)) if score < highest => {}
                Some((highest, _)) if score == highest => ties += 1,
                _ => (best, ties) = (Some((score, index)), 0),
            }
        }
        let choices: Vec<String> = scores.keys().cloned().collect();
        let Some((_, answer)) = best.filter(|_| ties == 0) else {
            self.undecided += 1;
            return Ok(None);
        };
        let chosen = choices.get(answer).cloned();
        self.questions.push(Question { prompt: question.to_owned(), choices, answer }.checked()?);
        Ok(chosen)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn targets_and_scores_are_read() {
        let task = json!({"name": "t", "task_prefix": "P: ", "examples": [
            {"input": "1+1", "target": "2"},
            {"input": "1+2", "target": ["3", "three"]},
            {"input": "big?", "target_scores": {"whale": 1, "ant": 0, "cat": 0.5}},
            {"input": "small?", "target_scores": {"whale": 0, "ant": 1, "bee": 1}},
        ]});
        let read = BigBench::from_json(&task).unwrap();
        let answers: Vec<_> =
            read.records.records.iter().map(|(line, record)| (*line, record.clone())).collect();
        let pair = |question: &str, answer: &str| Record::QuestionAnswer {
            question: question.into(),
            answer: answer.into(),
        };
        assert_eq!(
            answers,
            [(1, pair("P: 1+1", "2")), (2, pair("P: 1+2", "3")), (3, pair("P: big?", "whale"))]
        );
        assert_eq!(read.questions.len(), 1);
        assert_eq!(
            (read.questions[0].choices.as_slice(), read.questions[0].answer),
            (&["whale", "ant", "cat"].map(str::to_owned)[..], 0)
        );
        assert_eq!((read.undecided, read.name.as_str()), (1, "t"));
    }

    #[test]
    fn another_structure_is_named() {
        let rows = [
            (json!({"name": "t"}), "no list `examples`"),
            (json!({"examples": []}), "no record"),
            (json!({"examples": [{"input": "a", "target": "b"}, {"input": 3, "target": "b"}]}), "line 2"),
            (json!({"examples": [{"input": "a", "target": 3}]}), "a number"),
            (json!({"examples": [{"input": "a", "target": []}]}), "a list"),
            (json!({"examples": [{"input": "a", "target_scores": {"b": "x"}}]}), "\"b\""),
            (json!({"examples": [{"input": "a", "target_scores": {"b": 1}}]}), "1 choices"),
        ];
        for (task, part) in rows {
            let said = BigBench::from_json(&task).unwrap_err().to_string();
            assert!(said.contains(part), "{part}: {said}");
        }
    }
}
