//! A self-contained page of a run: facts, curves as inline SVG, and a table of sites. No script, no network.

use std::fmt::Write as _;

use plotters::coord::Shift;
use plotters::prelude::*;

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
    /// Tables with a caption, a head and rows.
    pub tables: Vec<Table>,
    /// A text shown as it is: the recipe.
    pub recipe: String,
}

/// A line plot.
#[derive(Debug, Clone, Default)]
pub struct Plot {
    /// What is shown.
    pub caption: String,
    /// Label of the horizontal axis, with its unit.
    pub x: String,
    /// Label of the vertical axis, with its unit.
    pub y: String,
    /// The lines.
    pub lines: Vec<Line>,
}

/// One line of a plot.
#[derive(Debug, Clone, Default)]
pub struct Line {
    /// Name in the legend.
    pub name: String,
    /// Points in the order of x.
    pub points: Vec<(f64, f64)>,
    /// Whether single points are marked: sparse measurements such as evaluations.
    pub marked: bool,
    /// Lowest and highest value at an x, drawn as a band behind the line; in the order of x.
    pub band: Vec<(f64, f64, f64)>,
}

/// A table.
#[derive(Debug, Clone, Default)]
pub struct Table {
    /// What is shown.
    pub caption: String,
    /// Names of the columns.
    pub head: Vec<String>,
    /// Cells, a row at a time.
    pub rows: Vec<Vec<String>>,
}

/// Colours that stay apart for most kinds of colour blindness (Okabe and Ito).
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
];

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a}\
h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:2rem}table{border-collapse:collapse;font-variant-numeric:tabular-nums}\
td,th{padding:.2rem .8rem .2rem 0;text-align:left;border-bottom:1px solid #ddd}th{font-weight:600}\
td+td{text-align:right}.facts td+td{text-align:left}pre{background:#f6f6f6;padding:1rem;overflow:auto}svg{max-width:100%;height:auto}";

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
        for sentence in &self.verdict {
            let _ = writeln!(html, "<p>{}</p>", escape(sentence));
        }
        let facts = Table {
            rows: self.facts.iter().map(|(name, value)| vec![name.clone(), value.clone()]).collect(),
            ..Table::default()
        };
        table(&mut html, &facts, "facts");
        for plot in self.plots.iter().filter(|plot| plot.lines.iter().any(|line| !line.points.is_empty())) {
            let _ = write!(html, "<h2>{}</h2>\n{}\n", escape(&plot.caption), plot.svg()?);
        }
        for each in self.tables.iter().filter(|table| !table.rows.is_empty()) {
            let _ = writeln!(html, "<h2>{}</h2>", escape(&each.caption));
            table(&mut html, each, "data");
        }
        if !self.recipe.is_empty() {
            let _ = write!(html, "<h2>Recipe</h2>\n<pre>{}</pre>\n", escape(&self.recipe));
        }
        html.push_str("</body></html>\n");
        Ok(html)
    }
}

fn table(html: &mut String, table: &Table, class: &str) {
    if table.rows.is_empty() {
        return;
    }
    let _ = write!(html, "<table class=\"{class}\">");
    if !table.head.is_empty() {
        let head: String = table.head.iter().map(|cell| format!("<th>{}</th>", escape(cell))).collect();
        let _ = write!(html, "<tr>{head}</tr>");
    }
    for row in &table.rows {
        let row: String = row.iter().map(|cell| format!("<td>{}</td>", escape(cell))).collect();
        let _ = write!(html, "<tr>{row}</tr>");
    }
    html.push_str("</table>\n");
}

impl Plot {
    /// The plot as an SVG element.
    ///
    /// # Errors
    /// [`AppError::Failed`] when it cannot be drawn.
    pub fn svg(&self) -> Result<String, AppError> {
        let mut svg = String::new();
        {
            let area = SVGBackend::with_string(&mut svg, (860, 380)).into_drawing_area();
            self.draw(&area)
                .map_err(|error| AppError::failed(format!("the plot \"{}\": {error}", self.caption)))?;
        }
        Ok(svg)
    }

    fn draw(&self, area: &DrawingArea<SVGBackend<'_>, Shift>) -> Result<(), Box<dyn std::error::Error>> {
        area.fill(&WHITE)?;
        let finite = |point: &&(f64, f64)| point.0.is_finite() && point.1.is_finite();
        let points = || self.lines.iter().flat_map(|line| line.points.iter().filter(finite));
        let edges = self.lines.iter().flat_map(|line| line.band.iter().flat_map(|edge| [edge.1, edge.2]));
        let y_range = range(points().map(|p| p.1).chain(edges.filter(|edge| edge.is_finite())));
        let x_range = range(points().map(|p| p.0));
        let mut chart = ChartBuilder::on(area)
            .margin(12)
            .x_label_area_size(42)
            .y_label_area_size(64)
            .build_cartesian_2d(x_range.0..x_range.1, y_range.0..y_range.1)?;
        chart
            .configure_mesh()
            .x_desc(&self.x)
            .y_desc(&self.y)
            .light_line_style(WHITE)
            .bold_line_style(RGBColor(225, 225, 225))
            .label_style(("sans-serif", 13))
            .x_label_formatter(&|value| number(*value))
            .y_label_formatter(&|value| number(*value))
            .draw()?;
        for (index, line) in self.lines.iter().enumerate() {
            let colour = COLOURS[index % COLOURS.len()];
            let points: Vec<(f64, f64)> = line.points.iter().filter(finite).copied().collect();
            let width = if line.marked { 2 } else { 1 };
            if line.band.len() > 1 {
                let low = line.band.iter().map(|&(x, low, _)| (x, low));
                let outline: Vec<(f64, f64)> =
                    low.chain(line.band.iter().rev().map(|&(x, _, high)| (x, high))).collect();
                chart.draw_series(std::iter::once(Polygon::new(outline, colour.mix(0.15))))?;
            }
            chart
                .draw_series(LineSeries::new(points.clone(), colour.stroke_width(width)))?
                .label(line.name.clone())
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(3)));
            if line.marked {
                chart.draw_series(points.iter().map(|&point| Circle::new(point, 3, colour.filled())))?;
            }
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .background_style(WHITE.mix(0.85))
            .border_style(RGBColor(200, 200, 200))
            .label_font(("sans-serif", 13))
            .draw()?;
        area.present()?;
        Ok(())
    }
}

/// The range of the values with a margin of a twentieth; never empty.
fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
    match high - low {
        span if span > 0.0 => (low - 0.05 * span, high + 0.05 * span),
        _ if low.is_finite() => (low - 0.5, high + 0.5),
        _ => (0.0, 1.0),
    }
}

fn number(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 {
        "0".to_owned()
    } else if size >= 1e6 {
        format!("{:.1}M", value / 1e6)
    } else if size >= 1e4 {
        format!("{:.0}k", value / 1e3)
    } else if size >= 100.0 || value.fract() == 0.0 {
        format!("{value:.0}")
    } else if size >= 0.01 {
        format!("{value:.2}")
    } else {
        format!("{value:.0e}")
    }
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
        assert!(html.contains("<svg") && html.contains("x &amp; y") && !html.contains("a<b"));
        // The name of a namespace is no address: nothing is loaded from anywhere.
        let addresses = html.replace("http://www.w3.org/2000/svg", "");
        assert!(!addresses.contains("http") && !addresses.contains("src="), "{addresses}");
    }

    #[test]
    fn ranges_are_never_empty() {
        assert_eq!(range([2.0, 2.0].into_iter()), (1.5, 2.5));
        assert_eq!(range(std::iter::empty()), (0.0, 1.0));
        assert_eq!(range([f64::NAN].into_iter()), (0.0, 1.0));
    }
}
