//! A heat map: a table whose cells are shaded by their values, in HTML alone, so that numbers stay numbers in both colour schemes.

use std::fmt::Write as _;

use super::escape;

/// Values over two lists of names.
#[derive(Debug, Clone, Default)]
pub struct HeatMap {
    /// What is shown.
    pub caption: String,
    /// How to read it.
    pub note: String,
    /// Names of the rows.
    pub rows: Vec<String>,
    /// Names of the columns.
    pub columns: Vec<String>,
    /// A value for each row and column; nothing where there is none.
    pub values: Vec<Vec<Option<f64>>>,
    /// Digits behind the point.
    pub digits: usize,
}

/// The shade of the largest value, per cent of the colour: light enough that the text stays readable on it.
const DARKEST: f64 = 60.0;

impl HeatMap {
    pub(super) fn is_empty(&self) -> bool {
        !self.values.iter().flatten().any(Option::is_some)
    }

    /// The table; shades run from the smallest value, which has none, to the largest.
    pub(super) fn html(&self) -> String {
        let present = || self.values.iter().flatten().flatten().copied().filter(|value| value.is_finite());
        let (low, high) =
            present().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
        let mut html = String::from("<div class=\"wide\"><table class=\"data heat\"><tr><th></th>");
        self.columns.iter().for_each(|name| {
            let _ = write!(html, "<th>{}</th>", escape(name));
        });
        html.push_str("</tr>");
        for (name, values) in self.rows.iter().zip(&self.values) {
            let _ = write!(html, "<tr><td>{}</td>", escape(name));
            for value in values {
                let _ = match value {
                    None => write!(html, "<td></td>"),
                    Some(value) => {
                        let share = if high > low { (value - low) / (high - low) } else { 0.0 };
                        let shade = if value.is_finite() { (DARKEST * share).round() } else { 0.0 };
                        let digits = self.digits;
                        write!(
                            html,
                            "<td style=\"background:color-mix(in srgb,var(--mark) {shade}%,transparent)\">{value:.digits$}</td>"
                        )
                    }
                };
            }
            html.push_str("</tr>");
        }
        html.push_str("</table></div>\n");
        html
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shades_run_from_the_smallest_to_the_largest_value() {
        let map = HeatMap {
            rows: vec!["0".to_owned(), "<1>".to_owned()],
            columns: vec!["q".to_owned(), "v".to_owned()],
            values: vec![vec![Some(1.0), Some(3.0)], vec![None, Some(2.0)]],
            digits: 1,
            ..HeatMap::default()
        };
        let html = map.html();
        for wanted in [
            "0%,transparent)\">1.0",
            "60%,transparent)\">3.0",
            "30%,transparent)\">2.0",
            "<td></td>",
            "&lt;1&gt;",
        ] {
            assert!(html.contains(wanted), "{wanted}: {html}");
        }
        assert!(!map.is_empty() && HeatMap::default().is_empty());
        let same = HeatMap { values: vec![vec![Some(2.0)]], rows: vec![String::new()], ..HeatMap::default() };
        assert!(same.html().contains(" 0%,transparent)\">2<"));
    }
}
