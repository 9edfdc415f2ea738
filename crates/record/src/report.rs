//! What a method says about its own result: named facts in a fixed order, readable and machine-readable.

use std::fmt;

use serde::{Serialize, Serializer};

/// Named facts in the order in which they were stated. Serialised as a map in that order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report(Vec<(String, Value)>);

/// One fact.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// A count.
    Count(u64),
    /// A measured number.
    Number(f64),
    /// A choice or a remark.
    Text(String),
}

impl Report {
    /// Adds one fact and returns the report, so that facts chain. What was said under this name before is replaced.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        let value = value.into();
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, before)) => *before = value,
            None => self.0.push((name.to_owned(), value)),
        }
        self
    }

    /// The fact of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// Every fact, in the order in which they were stated.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }
}

impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl From<usize> for Value {
    fn from(count: usize) -> Self {
        Value::Count(count as u64)
    }
}
impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Value::Number(number)
    }
}
impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::Text(text.to_owned())
    }
}
impl From<String> for Value {
    fn from(text: String) -> Self {
        Value::Text(text)
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Count(count) => write!(f, "{count}"),
            // Singular values of gradients are often far below 1e-6: as decimals they would all read 0.
            Value::Number(number) if *number != 0.0 && !(1e-3..1e6).contains(&number.abs()) => {
                write!(f, "{number:.6e}")
            }
            Value::Number(number) => write!(f, "{number:.6}"),
            Value::Text(text) => f.write_str(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Report, Value};

    #[test]
    fn facts_keep_their_order_and_have_one_value_each() {
        let report = Report::default()
            .with("svd", "fast")
            .with("rank", 3_usize)
            .with("share", 0.5)
            .with("svd", "exact");
        let names: Vec<&str> = report.iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["svd", "rank", "share"]);
        assert_eq!(report.get("svd"), Some(&Value::Text("exact".to_owned())));
        assert_eq!(serde_json::to_string(&report).unwrap(), r#"{"svd":"exact","rank":3,"share":0.5}"#);
    }

    #[test]
    fn small_numbers_do_not_read_as_zero() {
        let shown = |number: f64| Value::Number(number).to_string();
        assert_eq!([shown(0.25), shown(0.0), shown(2.5e-9)], ["0.250000", "0.000000", "2.500000e-9"]);
    }
}
