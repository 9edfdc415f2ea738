//! The page of the study: verdict, tables, trajectories.

use lowrank_command::Interval;
use lowrank_command::page::{Line, Page, Plot, Table, dashed, head};

use super::arm::Arm;
use super::criteria::find;
use super::{Series, Studied, TASKS};
use crate::regimes::{Moved, Trained};

impl Series {
    /// The mean over the runs that were finished.
    fn mean(&self, of: impl Fn(&Trained) -> f64) -> Option<Interval> {
        let values: Vec<f64> = self.runs.iter().flatten().map(of).collect();
        Interval::of(&values)
    }

    fn last(&self, of: impl Fn(&Moved) -> f64) -> String {
        self.cell(|run| run.last().map_or(f64::NAN, &of), 3)
    }

    fn cell(&self, of: impl Fn(&Trained) -> f64, digits: usize) -> String {
        match self.mean(of) {
            None => "–".to_owned(),
            // Of runs that exploded; an interval means nothing there.
            Some(mean) if mean.mean.abs() >= 1e4 => format!("{:.0e}", mean.mean),
            Some(mean) => mean.with_half(digits),
        }
    }
}

/// The page.
#[must_use]
pub fn page(studied: &Studied) -> Page {
    let size = &studied.size;
    let mut facts = vec![
        ("The paper".to_owned(), format!("{} ({})", studied.claim, studied.paper.replace(['<', '>'], ""))),
        ("Rule, fixed before the numbers".to_owned(), studied.rule.to_owned()),
        (
            "Networks".to_owned(),
            format!(
                "{} units, rectified, no leak, no biases; {} batches of {} trials, momentum 0.9 at the rate {}; control Gaussian of gain {}",
                size.units, size.iterations, size.trials, size.rate, size.gain
            ),
        ),
        ("Seeds".to_owned(), format!("{} from {}", size.seeds, size.first_seed)),
    ];
    facts.extend(studied.not_shown.iter().map(|text| ("Not shown".to_owned(), text.clone())));
    Page {
        title: studied.title.clone(),
        verdict: studied.sentences.clone(),
        facts,
        plots: plots(studied),
        tables: vec![statements(studied), outcomes(studied), theory(studied)],
        details: vec![spectra(studied), further(studied)],
        ..Page::default()
    }
}

/// What became of each statement.
pub(super) fn statements(studied: &Studied) -> Table {
    let rows = studied.statements.iter().map(|each| {
        vec![
            each.role.word().to_owned(),
            each.says.clone(),
            each.bound.words(),
            each.numbers(),
            each.count.to_string(),
            each.found.word().to_owned(),
            each.remark.clone(),
        ]
    });
    Table {
        caption: "Statements".to_owned(),
        note: "The mean over the seeds with its 95 % interval; on the linear network the largest deviation of its cases.".to_owned(),
        head: head(&["", "statement", "wanted", "measured", "seeds", "found", "remark"]),
        rows: rows.collect(),
        ..Table::default()
    }
}

/// Every start on every task.
pub(super) fn outcomes(studied: &Studied) -> Table {
    let rows = studied.series.iter().map(|series| {
        vec![
            series.task.to_owned(),
            series.name.clone(),
            series.last(|last| last.weight_change),
            series.last(|last| last.representation_alignment),
            series.last(|last| last.centred_alignment),
            series.last(|last| last.kernel_alignment),
            series.cell(|run| run.loss, 4),
            series.cell(|run| run.accuracy, 3),
            series.runs.iter().flatten().count().to_string(),
        ]
    });
    Table {
        caption: "Behind training".to_owned(),
        note: "Means over the seeds ± half of their 95 % interval. Alignments with the start: the smaller, the richer. Loss in nats, the mean of the second half of the batches.".to_owned(),
        head: head(&["task", "start", "weight change", "RA", "RA, centred", "KA", "loss", "right", "runs"]),
        rows: rows.collect(),
        ..Table::default()
    }
}

/// The linear network.
pub(super) fn theory(studied: &Studied) -> Table {
    let rows = studied.theory.iter().map(|case| {
        vec![
            case.start.clone(),
            format!("{:.4}", case.measured),
            dashed(case.formula, 4),
            case.deviation().map_or_else(|| "–".to_owned(), |off| format!("{:.2} %", 100.0 * off)),
        ]
    });
    let (d, h) = (super::theory::INPUTS, super::theory::HIDDEN);
    Table {
        caption: "Kernel alignment of the two-layer linear network".to_owned(),
        note: format!(
            "{d} inputs, {h} hidden units, gradient flow to rest; the mean over {d} orthonormal targets where the start does not name one."
        ),
        head: head(&["start", "measured", "closed form", "apart"]),
        rows: rows.collect(),
        ..Table::default()
    }
}

/// Sizes of the starts.
pub(super) fn spectra(studied: &Studied) -> Table {
    let rows = studied.series.iter().map(|series| {
        let cell = |of: fn(&Trained) -> f64| series.cell(of, 2);
        vec![
            series.task.to_owned(),
            series.name.clone(),
            cell(|run| run.start.frobenius),
            cell(|run| run.start.effective_rank),
            cell(|run| run.start.stable_rank),
            cell(|run| run.start.participation_ratio),
            cell(|run| run.start.top_singular_value),
            cell(|run| run.start.spectral_radius),
        ]
    });
    Table {
        caption: "The starts: norm, three effective ranks, first singular value, spectral radius".to_owned(),
        head: head(&["task", "start", "Frobenius", "effective", "stable", "participation", "σ₁", "radius"]),
        rows: rows.collect(),
        ..Table::default()
    }
}

/// Measures beyond those of the paper.
fn further(studied: &Studied) -> Table {
    let rows = studied.series.iter().map(|series| {
        vec![
            series.task.to_owned(),
            series.name.clone(),
            series.cell(|run| run.task_alignment_before, 3),
            series.last(|last| last.task_alignment),
            series.cell(|run| run.sign_similarity, 3),
            series.cell(|run| run.singular.map_or(f64::NAN, |overlap| overlap.left), 3),
            series.cell(|run| run.singular.map_or(f64::NAN, |overlap| overlap.right), 3),
            series.cell(|run| run.singular.map_or(f64::NAN, |overlap| overlap.chance), 3),
            series.cell(|run| run.end.effective_rank, 2),
        ]
    });
    Table {
        caption: "Kernel and task, signs of activity, singular vectors of the change and of the start"
            .to_owned(),
        head: head(&[
            "task",
            "start",
            "kernel–task before",
            "behind",
            "equal signs",
            "left overlap",
            "right overlap",
            "by chance",
            "effective rank behind",
        ]),
        rows: rows.collect(),
        ..Table::default()
    }
}

fn plots(studied: &Studied) -> Vec<Plot> {
    let mut all = Vec::new();
    for task in TASKS.map(|task| task.name()) {
        let arms = studied.size.ranks.iter().filter_map(|&rank| find(&studied.series, Arm::rank(rank), task));
        let series: Vec<&Series> = arms.collect();
        let plot = |caption: String, y: &str, lines: Vec<Line>| Plot {
            caption,
            x: "logarithm (base 10) of the number of batches".to_owned(),
            y: y.to_owned(),
            lines,
            ..Plot::default()
        };
        let kernels = series.iter().map(|series| {
            line(series, |run| run.moved.iter().map(|at| (at.iteration, at.kernel_alignment)).collect())
        });
        all.push(plot(
            format!(
                "Kernel alignment with the start over training, {task}: mean, lowest and highest of the seeds"
            ),
            "kernel alignment",
            kernels.collect(),
        ));
        let losses = series.iter().map(|series| line(series, |run| run.curve.clone()));
        all.push(plot(format!("Training loss, {task}"), "loss, nats", losses.collect()));
    }
    all
}

/// The mean over the runs with their lowest and highest values.
fn line(series: &Series, of: impl Fn(&Trained) -> Vec<(usize, f64)>) -> Line {
    let curves: Vec<Vec<(usize, f64)>> = series.runs.iter().flatten().map(of).collect();
    let length = curves.iter().map(Vec::len).min().unwrap_or(0);
    let at = |index: usize| {
        let values: Vec<f64> = curves.iter().map(|curve| curve[index].1).collect();
        let x = (curves[0][index].0.max(1) as f64).log10();
        let (low, high) =
            values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), &v| (l.min(v), h.max(v)));
        (x, values.iter().sum::<f64>() / values.len() as f64, low, high)
    };
    let points: Vec<(f64, f64, f64, f64)> = (0..length).map(at).collect();
    Line {
        name: series.name.clone(),
        points: points.iter().map(|point| (point.0, point.1)).collect(),
        marked: length < 20,
        band: points.iter().map(|point| (point.0, point.2, point.3)).collect(),
    }
}
