//! The page of a run.

use super::Tune;
use crate::adaptation::{Prepared, RunSummary, loss, mebibytes};
use crate::subject::{Score, Subject};
use lowrank_command::page::{Line, Page, Plot, Table};

/// Steps over which the training loss is averaged for the eye.
const SMOOTHING: usize = 8;

pub(super) fn page<N: Subject>(
    prepared: &Prepared<N>,
    options: &Tune,
    runs: &[RunSummary],
    recipe: &str,
) -> Page {
    let mut facts = vec![
        ("Model".to_owned(), prepared.model.name.clone()),
        ("Model hash".to_owned(), prepared.model.hash.clone()),
        (
            "Data".to_owned(),
            options.data.as_ref().map_or("the text inside lowrank".to_owned(), |d| d.display().to_string()),
        ),
        (
            "Examples".to_owned(),
            format!("{} to train on, {} held out", prepared.data.train.len(), prepared.data.held_out.len()),
        ),
        ("Layers adapted".to_owned(), format!("{} at rank {}", prepared.plan.sites.len(), options.rank)),
        ("Seed".to_owned(), options.seed.to_string()),
    ];
    if let Some(run) = runs.first() {
        facts.push(("Trainable parameters".to_owned(), run.parameters.to_string()));
        facts.push(("Peak memory in training".to_owned(), mebibytes(run.training_peak_bytes)));
        facts.push(("Peak memory of the start".to_owned(), mebibytes(run.evidence_peak_bytes)));
        facts.push((
            "The start itself".to_owned(),
            format!("moves logits by at most {:.1e}", run.start_difference),
        ));
        if let Some(ranks) = run.ranks() {
            facts.push(("Ranks at the end".to_owned(), ranks));
        }
        if let Some(verified) = run.verified {
            facts.push((
                "Adapter re-read from disk".to_owned(),
                format!("logits differ by at most {verified:.1e}"),
            ));
        }
    }
    for run in runs {
        if let Some(score) = &run.score {
            let before =
                run.score_before.map_or_else(String::new, |before| format!(", {:.3} before", before.value));
            let Score { name, value } = score;
            facts.push((format!("Held-out {name}, {}", run.init), format!("{value:.3}{before}")));
        }
    }
    let summary = Table {
        caption: "Runs on the same budget".to_owned(),
        head: [
            "start",
            "rate",
            "steps",
            "tokens",
            "first loss",
            "last loss",
            "held out before",
            "held out after",
            "tokens/s",
        ]
        .map(str::to_owned)
        .to_vec(),
        rows: runs
            .iter()
            .map(|run| {
                vec![
                    run.init.clone(),
                    format!("{:.1e}", run.rate),
                    if run.values_of == run.steps {
                        run.steps.to_string()
                    } else {
                        format!("{} (values of step {})", run.steps, run.values_of)
                    },
                    run.tokens.to_string(),
                    loss(run.first_loss),
                    loss(run.last_loss),
                    loss(run.held_out_before),
                    loss(run.held_out_after),
                    run.tokens_per_second.map_or_else(|| "–".to_owned(), |speed| format!("{speed:.0}")),
                ]
            })
            .collect(),
        ..Table::default()
    };
    let changes = |run: &RunSummary| Table {
        caption: format!("What training changed: {}", run.init),
        head: ["layer", "rank", "norm of the change", "largest singular value", "effective rank"]
            .map(str::to_owned)
            .to_vec(),
        rows: run
            .changes
            .iter()
            .map(|change| {
                vec![
                    change.site.clone(),
                    change.rank.to_string(),
                    format!("{:.4}", change.norm),
                    format!("{:.4}", change.largest),
                    format!("{:.2}", change.effective_rank),
                ]
            })
            .collect(),
        ..Table::default()
    };
    Page {
        title: format!(
            "lowrank tune: {}",
            runs.iter().map(|run| run.init.as_str()).collect::<Vec<_>>().join(" and ")
        ),
        facts,
        plots: plots(runs, prepared.model.decoder.unit()),
        tables: vec![summary],
        details: runs.iter().map(changes).collect(),
        recipe: recipe.to_owned(),
        ..Page::default()
    }
}

fn plots(runs: &[RunSummary], unit: &str) -> Vec<Plot> {
    let plot = |caption: &str, x: &str, y: &str, lines: Vec<Line>| Plot {
        caption: caption.to_owned(),
        x: x.to_owned(),
        y: y.to_owned(),
        lines,
        ..Plot::default()
    };
    let held_out = |run: &RunSummary, x: &dyn Fn(&lowrank_train::metrics::Line) -> Option<f64>| Line {
        name: run.init.clone(),
        points: run.curve.iter().filter_map(|line| Some((x(line)?, line.eval?))).collect(),
        marked: true,
        ..Line::default()
    };
    let training = |run: &RunSummary, x: &dyn Fn(&lowrank_train::metrics::Line) -> Option<f64>| {
        let raw: Vec<(f64, f64)> = run.curve.iter().filter_map(|line| Some((x(line)?, line.loss?))).collect();
        let mean = |at: usize| {
            let window = &raw[at.saturating_sub(SMOOTHING - 1)..=at];
            window.iter().map(|point| point.1).sum::<f64>() / window.len() as f64
        };
        Line {
            name: run.init.clone(),
            points: (0..raw.len()).map(|at| (raw[at].0, mean(at))).collect(),
            marked: false,
            ..Line::default()
        }
    };
    let rate = |run: &RunSummary| Line {
        name: run.init.clone(),
        points: run.curve.iter().filter_map(|line| Some((line.step as f64, line.rate?))).collect(),
        marked: false,
        ..Line::default()
    };
    let step = |line: &lowrank_train::metrics::Line| Some(line.step as f64);
    let tokens = |line: &lowrank_train::metrics::Line| Some(line.tokens? as f64);
    let seconds = |run: &RunSummary| -> std::collections::BTreeMap<u64, f64> {
        // Before the first step no time has passed, unless the run was begun by another process.
        let first = run.times.first().filter(|(step, _)| *step == 1).map(|_| (0, 0.0));
        first.into_iter().chain(run.times.iter().copied()).collect()
    };
    let whole = runs.iter().all(|run| run.times.first().is_none_or(|(step, _)| *step == 1));
    let time = if whole {
        "seconds in training steps"
    } else {
        "seconds in training steps since the run was resumed"
    };
    vec![
        plot("Held-out loss", "step", unit, runs.iter().map(|run| held_out(run, &step)).collect()),
        plot(
            "Training loss, mean of 8 steps",
            "step",
            unit,
            runs.iter().map(|run| training(run, &step)).collect(),
        ),
        plot(
            "Training loss against tokens",
            "tokens read",
            unit,
            runs.iter().map(|run| training(run, &tokens)).collect(),
        ),
        plot(
            "Training loss against time",
            time,
            unit,
            runs.iter()
                .map(|run| {
                    let times = seconds(run);
                    training(run, &|line| times.get(&line.step).copied())
                })
                .collect(),
        ),
        plot(
            "Held-out loss against time",
            time,
            unit,
            runs.iter()
                .map(|run| {
                    let times = seconds(run);
                    held_out(run, &|line| times.get(&line.step).copied())
                })
                .collect(),
        ),
        plot("Learning rate", "step", "rate", runs.iter().map(rate).collect()),
    ]
}
