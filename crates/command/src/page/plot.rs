//! Plots as inline SVG: lines over an axis, and values with their intervals.

use plotters::coord::Shift;
use plotters::prelude::*;

use crate::AppError;

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
    /// Named values with their intervals, a row each, instead of lines.
    pub bars: Vec<Bar>,
}

/// A value with its interval.
#[derive(Debug, Clone, Default)]
pub struct Bar {
    /// Name at the axis.
    pub name: String,
    /// The value.
    pub value: f64,
    /// Lower and upper end.
    pub interval: Option<(f64, f64)>,
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

/// Colours that stay apart for most kinds of colour blindness (Okabe and Ito).
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
];

impl Plot {
    /// The plot as an SVG element.
    ///
    /// # Errors
    /// [`AppError::Failed`] when it cannot be drawn.
    pub fn svg(&self) -> Result<String, AppError> {
        let mut svg = String::new();
        {
            let height = if self.bars.is_empty() { 380 } else { 70 + 34 * self.bars.len() as u32 };
            let area = SVGBackend::with_string(&mut svg, (860, height)).into_drawing_area();
            let drawn = if self.bars.is_empty() { self.draw(&area) } else { self.draw_bars(&area) };
            drawn.map_err(|error| AppError::failed(format!("the plot \"{}\": {error}", self.caption)))?;
        }
        Ok(svg)
    }

    /// Each line's name and colour as HTML writes it: above the plot, where it hides nothing.
    pub(super) fn legend(&self) -> impl Iterator<Item = (String, &str)> {
        self.lines.iter().enumerate().map(|(index, line)| {
            let RGBColor(red, green, blue) = COLOURS[index % COLOURS.len()];
            (format!("#{red:02X}{green:02X}{blue:02X}"), line.name.as_str())
        })
    }

    pub(super) fn has_points(&self) -> bool {
        !self.bars.is_empty() || self.lines.iter().any(|line| !line.points.is_empty())
    }

    /// A row for each value: its interval as a line, the value as a dot, and where zero is.
    fn draw_bars(&self, area: &DrawingArea<SVGBackend<'_>, Shift>) -> Result<(), Box<dyn std::error::Error>> {
        area.fill(&WHITE)?;
        let ends = self.bars.iter().flat_map(|bar| {
            let (low, high) = bar.interval.unwrap_or((bar.value, bar.value));
            [low, high, bar.value, 0.0]
        });
        let (low, high) = range(ends.filter(|end| end.is_finite()));
        let rows = self.bars.len() as f64;
        let names = self.bars.iter().map(|bar| bar.name.chars().count()).max().unwrap_or(0) as u32;
        let mut chart = ChartBuilder::on(area)
            .margin(12)
            .x_label_area_size(42)
            .y_label_area_size(24 + 8 * names.min(32))
            .build_cartesian_2d(low..high, 0.0..rows)?;
        let name = |at: &f64| {
            let row = (rows - at).floor();
            let centre = (rows - at - row - 0.5).abs() < 0.01;
            self.bars
                .get(row as usize)
                .filter(|_| centre && row >= 0.0)
                .map_or_else(String::new, |bar| bar.name.clone())
        };
        chart
            .configure_mesh()
            .x_desc(&self.x)
            .light_line_style(WHITE)
            .bold_line_style(RGBColor(225, 225, 225))
            .label_style(("sans-serif", 13))
            .disable_y_mesh()
            // A label each half row: those between are empty.
            .y_labels(2 * self.bars.len() + 1)
            .x_label_formatter(&|value| number(*value))
            .y_label_formatter(&name)
            .draw()?;
        chart.draw_series(std::iter::once(PathElement::new(
            [(0.0, 0.0), (0.0, rows)],
            BLACK.stroke_width(1),
        )))?;
        for (index, bar) in self.bars.iter().enumerate() {
            let (colour, at) = (COLOURS[index % COLOURS.len()], rows - index as f64 - 0.5);
            if let Some((low, high)) = bar.interval {
                let ends = [
                    vec![(low, at), (high, at)],
                    vec![(low, at - 0.15), (low, at + 0.15)],
                    vec![(high, at - 0.15), (high, at + 0.15)],
                ];
                chart.draw_series(
                    ends.into_iter().map(|line| PathElement::new(line, colour.stroke_width(2))),
                )?;
            }
            chart.draw_series(std::iter::once(Circle::new((bar.value, at), 5, colour.filled())))?;
        }
        area.present()?;
        Ok(())
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
            chart.draw_series(LineSeries::new(points.clone(), colour.stroke_width(width)))?;
            if line.marked {
                chart.draw_series(points.iter().map(|&point| Circle::new(point, 3, colour.filled())))?;
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_never_empty() {
        assert_eq!(range([2.0, 2.0].into_iter()), (1.5, 2.5));
        assert_eq!(range(std::iter::empty()), (0.0, 1.0));
        assert_eq!(range([f64::NAN].into_iter()), (0.0, 1.0));
    }
}
