//! Names of classes, and whether a model's head has them.

use crate::error::TaskError;

/// Names of classes in the order of their numbers.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Classes(Vec<String>);

impl Classes {
    /// The classes of a data set in a fixed order: by value where all of them are whole numbers, else by name.
    ///
    /// # Errors
    /// [`TaskError::NoRecords`] without any, [`TaskError::OneClass`] with one.
    pub fn of<'a>(found: impl Iterator<Item = &'a str>) -> Result<Classes, TaskError> {
        let (mut names, mut records) = (Vec::new(), 0);
        for name in found {
            records += 1;
            if !names.iter().any(|known| known == name) {
                names.push(name.to_owned());
            }
        }
        names.sort();
        let numbers: Option<Vec<i64>> = names.iter().map(|name| name.parse().ok()).collect();
        if numbers.is_some() {
            names.sort_by_key(|name| name.parse::<i64>().ok());
        }
        match names.as_slice() {
            [] => Err(TaskError::NoRecords),
            [class] => Err(TaskError::OneClass { records, class: class.clone() }),
            _ => Ok(Classes(names)),
        }
    }

    /// The names of a model's classes, in the order of its answers.
    #[must_use]
    pub fn of_model(names: Vec<String>) -> Classes {
        Classes(names)
    }

    /// The names, in the order of the numbers.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.0
    }

    /// The number of a class.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<usize> {
        self.0.iter().position(|known| known == name)
    }

    /// Whether the names say nothing: `LABEL_0`, `LABEL_1` …, as `transformers` calls classes that nobody named.
    #[must_use]
    pub fn are_nameless(&self) -> bool {
        self.0.iter().enumerate().all(|(index, name)| *name == format!("LABEL_{index}"))
    }

    /// The number that each of our classes has in a model: its own name there, or its place where the model's classes are
    /// nameless and as many.
    ///
    /// # Errors
    /// [`TaskError::NotOfModel`] naming a class that the model does not have.
    pub fn in_model(&self, model: &Classes) -> Result<Vec<usize>, TaskError> {
        if model.are_nameless() && model.0.len() == self.0.len() {
            return Ok((0..self.0.len()).collect());
        }
        let number = |class: &String| {
            model.number(class).ok_or_else(|| {
                let mut known = model.0.iter().take(8).cloned().collect::<Vec<_>>().join(", ");
                if model.0.len() > 8 {
                    known += &format!(" … {} in all", model.0.len());
                }
                TaskError::NotOfModel { class: class.clone(), known }
            })
        };
        self.0.iter().map(number).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classes(names: &[&str]) -> Classes {
        Classes::of(names.iter().copied()).unwrap()
    }

    #[test]
    fn classes_are_sorted_and_more_than_one() {
        assert_eq!(classes(&["dog", "cat", "dog"]).names(), ["cat", "dog"]);
        assert_eq!(classes(&["10", "9", "0", "9"]).names(), ["0", "9", "10"]);
        assert_eq!(classes(&["10", "-9", "0"]).names(), ["-9", "0", "10"]);
        assert_eq!(classes(&["10", "9", "many"]).names(), ["10", "9", "many"]);
        assert!(matches!(Classes::of(std::iter::empty()), Err(TaskError::NoRecords)));
        let one = Classes::of(["cat", "cat"].into_iter()).unwrap_err().to_string();
        assert!(one.contains("all 2 records") && one.contains("cat"), "{one}");
    }

    #[test]
    fn a_model_has_them_by_name_or_nameless_by_number() {
        let model = |names: &[&str]| Classes::of_model(names.iter().map(|&name| name.to_owned()).collect());
        let data = classes(&["cat", "dog"]);
        assert_eq!(data.in_model(&model(&["dog", "bird", "cat"])).unwrap(), [2, 0]);
        assert_eq!(data.in_model(&model(&["LABEL_0", "LABEL_1"])).unwrap(), [0, 1]);
        for other in [model(&["LABEL_0", "LABEL_1", "LABEL_2"]), model(&["bird", "cat"])] {
            let said = data.in_model(&other).unwrap_err().to_string();
            assert!(said.contains("none of the model's"), "{said}");
        }
    }
}
