//! What was found, as a page for a person and as JSON for a program.

use std::collections::BTreeMap;
use std::fmt;

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value;

/// A value as it is, and as it is shown.
#[derive(Debug, Clone)]
pub(super) struct Cell {
    value: Value,
    shown: String,
}

impl Cell {
    /// A value that is shown in other words or units.
    pub(super) fn shown(value: impl Into<Value>, shown: impl fmt::Display) -> Cell {
        Cell { value: value.into(), shown: shown.to_string() }
    }

    /// Bytes, shown as megabytes.
    pub(super) fn bytes(bytes: usize) -> Cell {
        Cell::shown(bytes, format!("{:.1} MB", bytes as f64 / 1e6))
    }

    /// A real number, shown with so many decimals.
    pub(super) fn real(value: f64, decimals: usize) -> Cell {
        Cell::shown(value, format!("{value:.decimals$}"))
    }
}

impl<T: Into<Value>> From<T> for Cell {
    fn from(value: T) -> Cell {
        let value = value.into();
        let shown = match &value {
            Value::String(text) => text.clone(),
            Value::Bool(truth) => if *truth { "yes" } else { "no" }.to_owned(),
            Value::Array(items) => items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
            other => other.to_string(),
        };
        Cell { value, shown }
    }
}

impl Serialize for Cell {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(serializer)
    }
}

/// Named facts, in the order in which they are shown. In JSON an object with these keys.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts(Vec<(&'static str, Cell)>);

impl Facts {
    pub(super) fn add(&mut self, key: &'static str, value: impl Into<Cell>) {
        self.0.push((key, value.into()));
    }

    pub(super) fn extend(&mut self, more: Facts) {
        self.0.extend(more.0);
    }
}

impl Serialize for Facts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, cell) in &self.0 {
            map.serialize_entry(key, cell)?;
        }
        map.end()
    }
}

/// A table of layers or tensors. In JSON a list of objects with the columns as keys.
#[derive(Debug, Clone, Default)]
pub(super) struct Table {
    pub(super) columns: Vec<&'static str>,
    pub(super) rows: Vec<Vec<Cell>>,
}

impl Serialize for Table {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.rows.iter().map(|row| Row { columns: &self.columns, row }))
    }
}

struct Row<'a> {
    columns: &'a [&'static str],
    row: &'a [Cell],
}

impl Serialize for Row<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.columns.iter().zip(self.row))
    }
}

/// What was found.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Inspected {
    /// `adapter`, `model`, `checkpoint` or `tensors`.
    pub kind: &'static str,
    pub(super) facts: Facts,
    /// Why lowrank would not apply it or run it; empty where it would.
    pub objections: Vec<String>,
    /// What made it, where the file says.
    pub provenance: BTreeMap<String, String>,
    pub(super) table: Table,
    #[serde(skip)]
    pub(super) all: bool,
}

/// Rows shown unless all are asked for.
const SHOWN: usize = 12;

impl fmt::Display for Inspected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let label = |key: &str| key.replace('_', " ");
        let wide = self.facts.0.iter().map(|(key, _)| key.len()).max().unwrap_or(0);
        for (key, cell) in &self.facts.0 {
            writeln!(f, "{:<wide$}  {}", label(key), cell.shown)?;
        }
        for objection in &self.objections {
            writeln!(f, "lowrank cannot use this: {objection}")?;
        }
        if !self.provenance.is_empty() {
            writeln!(f, "\nmade by")?;
            let wide = self.provenance.keys().map(String::len).max().unwrap_or(0);
            for (key, value) in &self.provenance {
                writeln!(f, "  {key:<wide$}  {value}")?;
            }
        }
        let Table { columns, rows } = &self.table;
        if rows.is_empty() {
            return Ok(());
        }
        let shown = if self.all { rows.len() } else { rows.len().min(SHOWN) };
        let head: Vec<String> = columns.iter().map(|key| label(key)).collect();
        let cells = || rows[..shown].iter().map(|row| row.iter().map(|cell| &cell.shown).collect::<Vec<_>>());
        let mut widths: Vec<usize> = head.iter().map(String::len).collect();
        for row in cells() {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        writeln!(f)?;
        for row in std::iter::once(head.iter().collect()).chain(cells()) {
            let mut line = String::new();
            for (column, (cell, &wide)) in row.iter().zip(&widths).enumerate() {
                // Names to the left, numbers to the right.
                line += &if column == 0 { format!("{cell:<wide$}") } else { format!("  {cell:>wide$}") };
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        if shown < rows.len() {
            writeln!(f, "… and {} more (--all shows them)", rows.len() - shown)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_reads_words_and_a_program_reads_numbers() {
        let mut facts = Facts::default();
        facts.add("ranks", vec![2, 4]);
        facts.add("rank_stabilised", true);
        facts.add("memory_to_apply", Cell::bytes(1_500_000));
        let row = vec!["q_proj".into(), Cell::shown(vec![3, 4], "[3, 4]"), Cell::real(0.123_456, 2)];
        let table = Table { columns: vec!["layer", "shape", "norm"], rows: vec![row] };
        let provenance = [("seed".to_owned(), "7".to_owned())].into();
        let objections = vec!["it is damaged".to_owned()];
        let found = Inspected { kind: "adapter", facts, objections, provenance, table, all: false };
        let json = serde_json::to_value(&found).unwrap();
        let wanted = serde_json::json!({
            "kind": "adapter",
            "facts": {"ranks": [2, 4], "rank_stabilised": true, "memory_to_apply": 1_500_000},
            "objections": ["it is damaged"],
            "provenance": {"seed": "7"},
            "table": [{"layer": "q_proj", "shape": [3, 4], "norm": 0.123_456}],
        });
        assert_eq!(json, wanted);
        let text = found.to_string();
        for words in ["ranks            2, 4\n", "rank stabilised  yes\n", "memory to apply  1.5 MB\n"] {
            assert!(text.contains(words), "{text}");
        }
        assert!(text.contains("\nlayer    shape  norm\nq_proj  [3, 4]  0.12\n"), "{text}");
        assert!(text.contains("cannot use this: it is damaged"), "{text}");
    }
}
