//! Images inside a BIG-bench task: base64 text as the input, a score for each class.

use serde_json::Value;

use crate::error::TaskError;

/// How base64 of a PNG and of a JPEG file begins.
const BEGINNINGS: [&str; 2] = ["iVBORw0KGgo", "/9j/"];

/// An image of a task, not yet decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scored<'a> {
    /// Number of the example, from 1.
    pub number: usize,
    /// Base64 of a PNG or JPEG file.
    pub base64: &'a str,
    /// The class of the highest score.
    pub class: &'a str,
}

/// The images of a parsed `task.json` (Srivastava et al., "Beyond the Imitation Game", 2022; `cifar10_classification/base64`).
///
/// # Errors
/// [`TaskError::BigBench`] with the number of the example that has no image, or no single best class;
/// [`TaskError::NoRecords`].
pub fn image_scores(task: &Value) -> Result<Vec<Scored<'_>>, TaskError> {
    let wrong = |problem: &str| TaskError::BigBench { problem: problem.to_owned() };
    let examples = task.get("examples").and_then(Value::as_array);
    let examples = examples.ok_or_else(|| wrong("has no list `examples`"))?;
    let mut found = Vec::with_capacity(examples.len());
    for (number, example) in (1..).zip(examples) {
        let input = example.get("input").and_then(Value::as_str).and_then(image);
        let base64 = input.ok_or_else(|| {
            wrong("has an example whose `input` holds no PNG or JPEG image as base64").at(number)
        })?;
        let class = example.get("target_scores").and_then(best).ok_or_else(|| {
            let problem = "has an image whose `target_scores` are no numbers, or have no single best class";
            wrong(problem).at(number)
        })?;
        found.push(Scored { number, base64, class });
    }
    if found.is_empty() { Err(TaskError::NoRecords) } else { Ok(found) }
}

/// The base64 in a text, which may have words around it.
fn image(text: &str) -> Option<&str> {
    let start = BEGINNINGS.iter().filter_map(|beginning| text.find(beginning)).min()?;
    let text = &text[start..];
    let of_base64 = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '+' | '/' | '=');
    Some(text.split_once(|letter| !of_base64(letter)).map_or(text, |(base64, _)| base64))
}

/// The class of the highest score, if it is one.
fn best(scores: &Value) -> Option<&str> {
    let scores = scores.as_object()?;
    let mut numbers = Vec::with_capacity(scores.len());
    for (class, score) in scores {
        numbers.push((class.as_str(), score.as_f64()?));
    }
    let highest = numbers.iter().map(|(_, score)| *score).fold(f64::NEG_INFINITY, f64::max);
    let mut classes = numbers.into_iter().filter(|(_, score)| *score >= highest).map(|(class, _)| class);
    classes.next().filter(|_| classes.next().is_none())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn images_are_found_between_words() {
        let task = json!({"examples": [
            {"input": "iVBORw0KGgoAAAA=", "target_scores": {"cat": 0, "dog": 1}},
            {"input": "Image: /9j/4AAQ\nClass:", "target_scores": {"cat": 1, "dog": 0}},
        ]});
        let found = image_scores(&task).unwrap();
        let shown: Vec<_> = found.iter().map(|each| (each.number, each.base64, each.class)).collect();
        assert_eq!(shown, [(1, "iVBORw0KGgoAAAA=", "dog"), (2, "/9j/4AAQ", "cat")]);
    }

    #[test]
    fn what_is_no_image_with_a_class_is_named() {
        let good = json!({"input": "/9j/4AAQ", "target_scores": {"cat": 1, "dog": 0}});
        for (example, part) in [
            (json!({"input": "a cat", "target_scores": {"cat": 1}}), "no PNG or JPEG"),
            (json!({"input": "/9j/4", "target": "cat"}), "`target_scores`"),
            (json!({"input": "/9j/4", "target_scores": {"cat": 1, "dog": 1}}), "single best"),
            (json!({"input": "/9j/4", "target_scores": {"cat": "x"}}), "no numbers"),
            (json!({"input": "/9j/4", "target_scores": {}}), "single best"),
        ] {
            let said = image_scores(&json!({"examples": [good, example]})).unwrap_err().to_string();
            assert!(said.contains(part) && said.contains("line 2"), "{part}: {said}");
        }
        assert!(matches!(image_scores(&json!({"examples": []})), Err(TaskError::NoRecords)));
        assert!(image_scores(&json!({})).unwrap_err().to_string().contains("examples"));
    }
}
