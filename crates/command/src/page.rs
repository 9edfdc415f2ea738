//! A self-contained page of a run: facts, curves as inline SVG, and a table of sites. No script, no network.

mod heat_map;
mod plot;

use std::fmt::Write as _;

pub use heat_map::HeatMap;
pub use plot::{Bar, Line, Plot};

use crate::AppError;

/// What a page shows.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// The heading.
    pub title: String,
    /// What the page comes to, in sentences below the heading.
    pub verdict: Vec<String>,
    /// Named facts below that.
    pub facts: Vec<(String, String)>,
    /// One entry for each plot.
    pub plots: Vec<Plot>,
    /// Tables with a caption, a head and rows, above the plots.
    pub tables: Vec<Table>,
    /// Shaded tables, below those.
    pub heat_maps: Vec<HeatMap>,
    /// Tables below the plots, folded up.
    pub details: Vec<Table>,
    /// A text shown as it is: the recipe.
    pub recipe: String,
}

/// A table.
#[derive(Debug, Clone, Default)]
pub struct Table {
    /// What is shown.
    pub caption: String,
    /// How to read it.
    pub note: String,
    /// Names of the columns.
    pub head: Vec<String>,
    /// Cells, a row at a time.
    pub rows: Vec<Vec<String>>,
    /// A row that stands out.
    pub marked: Option<usize>,
}

impl Table {
    /// As Markdown, an empty line behind it. Cells that were broken for a page are one line.
    #[must_use]
    pub fn markdown(&self) -> String {
        let row = |cells: &[String]| format!("| {} |\n", cells.join(" | ").replace('\n', " "));
        let rule = vec!["---".to_owned(); self.head.len()];
        let rows: String = self.rows.iter().map(|cells| row(cells)).collect();
        format!("{}{}{rows}\n", row(&self.head), row(&rule))
    }
}

/// Colours follow the reader's choice of light or dark; those of the plots are rules over what the SVG says of itself.
const STYLE: &str = ":root{color-scheme:light dark;--paper:#fff;--ink:#1a1a1a;--quiet:#5a5a5a;--rule:#dcdcdc;--box:#f5f6f8;--mark:#0072b2}\
@media(prefers-color-scheme:dark){:root{--paper:#16181c;--ink:#e8e8e8;--quiet:#a5a8ae;--rule:#383c44;--box:#20242b;--mark:#56b4e9}}\
body{font:15px/1.55 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;background:var(--paper);color:var(--ink)}\
h1{font-size:1.45rem;margin-bottom:1rem}h2{font-size:1.08rem;margin:2.2rem 0 .4rem}.note{color:var(--quiet);font-size:.9rem;margin:.2rem 0 .6rem}\
.verdict{background:var(--box);border-left:4px solid var(--mark);padding:.6rem 1.1rem;border-radius:3px}.verdict p{margin:.45rem 0}\
.legend{margin:.2rem 0;font-size:.9rem}.legend span{margin-right:1.4rem;white-space:nowrap}.wide{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.92rem}\
td,th{padding:.28rem 1rem .28rem 0;text-align:left;border-bottom:1px solid var(--rule);vertical-align:top}\
th{font-weight:600;color:var(--quiet)}.data td+td,.data th+th{text-align:right}.data td{white-space:nowrap}.heat td+td{padding:.28rem .6rem}\
tr.best td{font-weight:600}tr.best td:first-child{box-shadow:inset 3px 0 var(--mark);padding-left:.5rem}\
.facts td:first-child{color:var(--quiet)}.facts{margin-top:1.2rem}summary{cursor:pointer;font-weight:600;margin:1.4rem 0 .4rem}\
pre{background:var(--box);padding:1rem;overflow:auto;border-radius:3px}svg{max-width:100%;height:auto}\
svg text{fill:var(--ink)}svg [fill=\"#FFFFFF\"]{fill:var(--paper)}svg [stroke=\"#000000\"]{stroke:var(--quiet)}\
svg [stroke=\"#E1E1E1\"],svg [stroke=\"#C8C8C8\"]{stroke:var(--rule)}svg [stroke=\"#FFFFFF\"]{stroke:var(--paper)}\
@media(prefers-color-scheme:dark){svg [fill=\"#0072B2\"]{fill:#3d9bd6}svg [stroke=\"#0072B2\"]{stroke:#3d9bd6}}\
@media print{details{display:block}}";

impl Page {
    /// The page as HTML.
    ///
    /// # Errors
    /// [`AppError::Failed`] when a plot cannot be drawn.
    pub fn html(&self) -> Result<String, AppError> {
        let mut html = format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
             content=\"width=device-width\"><title>{title}</title><style>{STYLE}</style></head><body>\n<h1>{title}</h1>\n",
            title = escape(&self.title)
        );
        if !self.verdict.is_empty() {
            let sentences: String =
                self.verdict.iter().map(|sentence| format!("<p>{}</p>", escape(sentence))).collect();
            let _ = writeln!(html, "<div class=\"verdict\">{sentences}</div>");
        }
        for each in self.tables.iter().filter(|table| !table.rows.is_empty()) {
            let _ = writeln!(html, "<h2>{}</h2>", escape(&each.caption));
            table(&mut html, each, "data");
        }
        for map in self.heat_maps.iter().filter(|map| !map.is_empty()) {
            let _ = writeln!(html, "<h2>{}</h2>", escape(&map.caption));
            if !map.note.is_empty() {
                let _ = writeln!(html, "<p class=\"note\">{}</p>", escape(&map.note));
            }
            html.push_str(&map.html());
        }
        let facts = Table {
            rows: self.facts.iter().map(|(name, value)| vec![name.clone(), value.clone()]).collect(),
            ..Table::default()
        };
        for plot in self.plots.iter().filter(|plot| plot.has_points()) {
            let _ = writeln!(html, "<h2>{}</h2>", escape(&plot.caption));
            let name = |(colour, name): (String, &str)| {
                let mark = format!(
                    "<svg width=\"18\" height=\"10\"><rect width=\"18\" height=\"4\" y=\"4\" fill=\"{colour}\"/></svg>"
                );
                format!("<span>{mark} {}</span>", escape(name))
            };
            let legend: String = plot.legend().map(name).collect();
            if !legend.is_empty() {
                let _ = writeln!(html, "<p class=\"legend\">{legend}</p>");
            }
            let _ = writeln!(html, "{}", plot.svg()?);
        }
        html.push_str("<h2>What was run</h2>\n");
        table(&mut html, &facts, "facts");
        for each in self.details.iter().filter(|table| !table.rows.is_empty()) {
            let _ = writeln!(html, "<details><summary>{}</summary>", escape(&each.caption));
            table(&mut html, each, "data");
            html.push_str("</details>\n");
        }
        if !self.recipe.is_empty() {
            let recipe = escape(&self.recipe);
            let _ = writeln!(html, "<details><summary>Recipe</summary>\n<pre>{recipe}</pre></details>");
        }
        html.push_str("</body></html>\n");
        Ok(html)
    }
}

fn table(html: &mut String, table: &Table, class: &str) {
    if table.rows.is_empty() {
        return;
    }
    if !table.note.is_empty() {
        let _ = write!(html, "<p class=\"note\">{}</p>", escape(&table.note));
    }
    let _ = write!(html, "<div class=\"wide\"><table class=\"{class}\">");
    if !table.head.is_empty() {
        let head: String = table.head.iter().map(|cell| format!("<th>{}</th>", escape(cell))).collect();
        let _ = write!(html, "<tr>{head}</tr>");
    }
    for (index, row) in table.rows.iter().enumerate() {
        let row: String = row.iter().map(|cell| format!("<td>{}</td>", escape(cell))).collect();
        let best = if table.marked == Some(index) { " class=\"best\"" } else { "" };
        let _ = write!(html, "<tr{best}>{row}</tr>");
    }
    html.push_str("</table></div>\n");
}

/// A sentence broken into lines of at most so many characters.
pub fn wrapped(text: &str, width: usize) -> String {
    let (mut lines, mut column) = (String::new(), 0);
    for word in text.split_whitespace() {
        let letters = word.chars().count();
        if column > 0 && column + 1 + letters > width {
            lines.push('\n');
            column = 0;
        }
        if column > 0 {
            lines.push(' ');
            column += 1;
        }
        lines.push_str(word);
        column += letters;
    }
    lines
}

/// A number, or a dash where there is none.
pub fn dashed(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.digits$}"))
}

/// A number with its sign, a true minus: `+0.031`.
pub fn signed(value: f64, digits: usize) -> String {
    format!("{value:+.digits$}").replace('-', "−")
}

/// The names above the columns of a table.
pub fn head(columns: &[&str]) -> Vec<String> {
    columns.iter().map(|&column| column.to_owned()).collect()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_holds_its_plots_and_escapes_its_texts() {
        let points = vec![(0.0, 1.0), (1.0, 0.5)];
        let band = vec![(0.0, 0.9, 1.1), (1.0, 0.4, 2.0)];
        let line = Line { name: "a<b".to_owned(), points, marked: true, band };
        let plot = Plot { caption: "loss".to_owned(), lines: vec![line], ..Plot::default() };
        let page = Page { title: "x & y".to_owned(), plots: vec![plot], ..Page::default() };
        let html = page.html().unwrap();
        assert!(html.contains("<polygon"), "the band");
        assert!(!html.contains("class=\"data heat\""), "no heat map where there is none");
        assert!(html.contains("<svg") && html.contains("x &amp; y") && !html.contains("a<b"));
        // The name of a namespace is no address: nothing is loaded from anywhere.
        let addresses = html.replace("http://www.w3.org/2000/svg", "");
        assert!(!addresses.contains("http") && !addresses.contains("src="), "{addresses}");
    }

    #[test]
    fn values_with_intervals_are_drawn_and_named() {
        let bar = |name: &str, value, interval| Bar { name: name.to_owned(), value, interval };
        let bars = vec![bar("eva", -0.1, Some((-0.3, 0.1))), bar("pissa", 0.2, None)];
        let svg = Plot { bars, ..Plot::default() }.svg().unwrap();
        assert!(svg.contains("eva") && svg.contains("pissa"), "{svg}");
        assert_eq!(svg.matches("<circle").count(), 2);
        let html = Page { verdict: vec!["a < b".to_owned()], ..Page::default() }.html().unwrap();
        assert!(html.contains("prefers-color-scheme:dark") && html.contains("a &lt; b"));
    }

    #[test]
    fn a_table_is_markdown_with_a_line_for_each_row() {
        let rows = vec![vec!["one\ntwo".to_owned(), "3".to_owned()]];
        let table = Table { head: head(&["said", "n"]), rows, ..Table::default() };
        assert_eq!(table.markdown(), "| said | n |\n| --- | --- |\n| one two | 3 |\n\n");
    }

    #[test]
    fn sentences_are_broken_between_words() {
        assert_eq!(wrapped("one two  three", 7), "one two\nthree");
        assert_eq!(wrapped("longer-than-that x", 5), "longer-than-that\nx");
    }
}
