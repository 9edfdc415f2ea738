//! The page of a comparison.

use super::options::{Compare, Equal};
use super::outcome::{Compared, Entry, with_interval};
use super::store::Finished;
use crate::adaptation::{Prepared, mebibytes};
use crate::subject::Subject;
use lowrank_command::page::{Bar, Line, Page, Plot, Table, dashed, head};

/// Steps over which the training loss is averaged for the eye.
const SMOOTHING: usize = 8;

pub(super) fn page<N: Subject>(
    prepared: &Prepared<N>,
    options: &Compare,
    compared: &Compared,
    recipe: &str,
) -> Page {
    let methods = &compared.methods;
    let names: Vec<&str> = methods.iter().map(|entry| entry.name.as_str()).collect();
    let mut verdict = compared.verdict.clone();
    verdict.push(format!("To train it: {}", compared.command));
    Page {
        title: format!("lowrank compare: {}", names.join(", ")),
        verdict,
        facts: facts(prepared, options, compared),
        plots: plots(methods, compared.unit),
        tables: vec![result(compared), starts(methods)],
        heat_maps: Vec::new(),
        details: vec![seeds(methods), rates(methods)],
        recipe: recipe.to_owned(),
    }
}

/// The differences with their intervals, where there is more than one seed to have an interval of.
fn differences(methods: &[Entry], unit: &str) -> Plot {
    let first = methods.first().map_or("", |first| &first.name);
    let bar = |entry: &Entry| {
        let difference = entry.difference?;
        let interval = difference.low.zip(difference.high);
        Some(Bar { name: entry.name.clone(), value: difference.mean, interval })
    };
    Plot {
        caption: format!("Difference of the held-out loss to {first}, with 95 % intervals"),
        x: format!("{unit}; left of zero is ahead of {first}"),
        bars: methods.iter().filter_map(bar).collect(),
        ..Plot::default()
    }
}

fn facts<N: Subject>(
    prepared: &Prepared<N>,
    options: &Compare,
    compared: &Compared,
) -> Vec<(String, String)> {
    let data = options.data.as_ref();
    let equal = match options.equal {
        Equal::Parameters => "trained parameters, by the rank of each layer",
        Equal::Rank => "rank",
    };
    let facts = [
        ("Model", compared.model.clone()),
        ("Model hash", compared.model_hash.clone()),
        ("Data", data.map_or("the text inside lowrank".to_owned(), |data| data.display().to_string())),
        ("Examples to train on", prepared.data.train.len().to_string()),
        ("Made equal", equal.to_owned()),
        ("Steps of each run", compared.steps.to_string()),
        ("Seeds", format!("{}, from {}; batches and their order are the same for all methods", compared.seeds, options.seed)),
        (
            "Learning rates",
            "searched for each method alike, on one half of the held-out examples and with a seed of their own; losses are \
             of the other half"
                .to_owned(),
        ),
        ("Intervals", "95 %, Student's t over the paired differences of the seeds".to_owned()),
    ];
    facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn seconds(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), |seconds| format!("{seconds:.1} s"))
}

fn ranks([least, most]: [usize; 2]) -> String {
    if least == most { most.to_string() } else { format!("{least} to {most}") }
}

fn result(compared: &Compared) -> Table {
    let (methods, measure) = (&compared.methods, compared.measure);
    let first = methods.first().map_or("", |first| &first.name);
    let asked = methods.iter().any(|entry| entry.accuracy.is_some());
    let to_first = format!("difference to {first}");
    let mut columns = vec!["method", "rate", "held-out loss", &to_first];
    if asked {
        columns.extend([measure, "its difference"]);
    }
    columns.extend(["trained", "rank", "start", "step"]);
    let row = |entry: &Entry| {
        let mut row = vec![
            entry.name.clone(),
            format!("{:.1e}", entry.rate),
            dashed(entry.held_out.map(|loss| loss.mean), 4),
            with_interval(entry.difference),
        ];
        if asked {
            row.push(dashed(entry.accuracy.map(|right| right.mean), 3));
            row.push(with_interval(entry.accuracy_difference));
        }
        row.push(entry.parameters.to_string());
        row.push(ranks(entry.ranks));
        row.push(seconds(entry.start_seconds));
        row.push(
            entry.step_seconds.map_or_else(|| "–".to_owned(), |seconds| format!("{:.0} ms", 1e3 * seconds)),
        );
        row
    };
    Table {
        caption: "Result".to_owned(),
        note: format!(
            "Held-out loss in nats per token, mean of {} seeds. Differences are paired by seed, with 95 % intervals of Student's t; below zero \
             is ahead of {first}. Start: from nothing to the mounted adapter, evidence included. The recommended method is marked.",
            compared.seeds
        ),
        head: head(&columns),
        rows: methods.iter().map(row).collect(),
        marked: methods.iter().position(|entry| entry.name == compared.recommended),
    }
}

fn starts(methods: &[Entry]) -> Table {
    let row = |entry: &Entry| {
        let training = entry.runs.iter().filter_map(|run| run.training_peak_bytes).max();
        vec![
            entry.name.clone(),
            format!("{} × {}", entry.init, entry.form),
            dashed(entry.first_step_cosine, 4),
            entry
                .captured
                .as_ref()
                .map_or_else(|| "–".to_owned(), |(what, value)| format!("{value:.3} ({what})")),
            dashed(entry.effective_rank, 2),
            mebibytes(entry.evidence_peak_bytes),
            mebibytes(training),
        ]
    };
    Table {
        caption: "Where each starts, and what it learned".to_owned(),
        note: "Cosine: of the first change with the negative full gradient, to first order of plain gradient descent; 1 is full \
               fine-tuning. It says where training sets out, not where it ends. Effective rank: of the learned change, averaged over layers \
               and seeds. Peaks are of the whole process, the model included."
            .to_owned(),
        head: head(&[
            "method",
            "start × form",
            "cosine of the first step",
            "its start holds",
            "effective rank learned",
            "peak of the evidence",
            "peak in training",
        ]),
        rows: methods.iter().map(row).collect(),
        ..Table::default()
    }
}

fn seeds(methods: &[Entry]) -> Table {
    let seeds: Vec<String> = methods
        .first()
        .map(|first| first.runs.iter().map(|run| format!("seed {}", run.seed)).collect())
        .unwrap_or_default();
    let columns: Vec<String> = std::iter::once("method".to_owned()).chain(seeds).collect();
    let row = |entry: &Entry| {
        let losses = entry.runs.iter().map(|run| format!("{:.4}", run.held_out));
        std::iter::once(entry.name.clone()).chain(losses).collect()
    };
    Table {
        caption: "Held-out loss of each run".to_owned(),
        head: columns,
        rows: methods.iter().map(row).collect(),
        ..Table::default()
    }
}

fn rates(methods: &[Entry]) -> Table {
    let rows = methods.iter().flat_map(|entry| {
        entry.tried.iter().map(|tried| {
            let loss = tried.loss.map_or_else(|| "diverged".to_owned(), |loss| format!("{loss:.4}"));
            vec![entry.name.clone(), format!("{:.1e}", tried.rate), tried.steps.to_string(), loss]
        })
    });
    Table {
        caption: "Rates that were tried".to_owned(),
        head: head(&["method", "rate", "steps", "loss on the half that chooses"]),
        rows: rows.collect(),
        ..Table::default()
    }
}

fn plots(methods: &[Entry], unit: &str) -> Vec<Plot> {
    let plot = |caption: &str, x: &str, lines: Vec<Line>| Plot {
        caption: caption.to_owned(),
        x: x.to_owned(),
        y: unit.to_owned(),
        lines,
        ..Plot::default()
    };
    let curves = |of: &dyn Fn(&Finished) -> Vec<(u64, f64)>, marked: bool| {
        methods.iter().map(|entry| over_seeds(entry, of, marked)).collect()
    };
    let first_round = |entry: &Entry| {
        let least = entry.tried.iter().map(|tried| tried.steps).min();
        let mut points: Vec<(f64, f64)> = entry
            .tried
            .iter()
            .filter(|tried| Some(tried.steps) == least)
            .filter_map(|tried| Some((tried.rate.log10(), tried.loss?)))
            .collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        Line { name: entry.name.clone(), points, marked: true, ..Line::default() }
    };
    vec![
        differences(methods, unit),
        plot(
            "Held-out loss: mean of the seeds, and from the lowest to the highest",
            "step",
            curves(&|run| run.held_out_curve.clone(), true),
        ),
        plot(
            "Training loss, mean of 8 steps: mean of the seeds, and from the lowest to the highest",
            "step",
            curves(&|run| smooth(&run.training_curve), false),
        ),
        plot(
            "The search for a rate, first round",
            "logarithm (base 10) of the rate",
            methods.iter().map(first_round).collect(),
        ),
    ]
}

/// The mean of a method's curves, with a band from the lowest to the highest where there are several.
fn over_seeds(entry: &Entry, of: &dyn Fn(&Finished) -> Vec<(u64, f64)>, marked: bool) -> Line {
    let curves: Vec<Vec<(u64, f64)>> = entry.runs.iter().map(of).collect();
    let (mut points, mut band) = (Vec::new(), Vec::new());
    for &(step, _) in curves.first().map_or(&[][..], |curve| curve) {
        // Seeds evaluate at the same steps.
        let values: Vec<f64> = curves
            .iter()
            .filter_map(|curve| curve.iter().find(|point| point.0 == step).map(|point| point.1))
            .collect();
        let at = step as f64;
        points.push((at, values.iter().sum::<f64>() / values.len() as f64));
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        band.push((at, low, high));
    }
    if curves.len() < 2 {
        band.clear();
    }
    Line { name: entry.name.clone(), points, marked, band }
}

fn smooth(curve: &[(u64, f64)]) -> Vec<(u64, f64)> {
    let mean = |at: usize| {
        let window = &curve[at.saturating_sub(SMOOTHING - 1)..=at];
        window.iter().map(|point| point.1).sum::<f64>() / window.len() as f64
    };
    (0..curve.len()).map(|at| (curve[at].0, mean(at))).collect()
}
