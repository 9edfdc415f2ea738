//! The report of a recovery: errors, their course, and the singular values.

use lowrank_command::page::{Line, Page, Plot, Table, head};

use super::{Errors, Outcome, errors};
use crate::recovery::{Loss, Recorded};

/// The page of a recovery, with its losses and errors every few steps, in the units of the observations.
#[must_use]
pub fn page(outcome: &Outcome, trace: &[Recorded], recipe: &str) -> Page {
    let (rows, cols) = outcome.shape;
    let Errors { all, without, outliers, .. } = outcome.held_out;
    let mut verdict = vec![format!(
        "On {} entries that were neither fitted nor used to choose when to stop: RMSE {:.5}, MAE {:.5}; without {outliers} outliers RMSE \
         {:.5}, MAE {:.5}. One number for all entries has RMSE {:.5}, MAE {:.5}.",
        all.count,
        all.rmse,
        all.mae,
        without.rmse,
        without.mae,
        outcome.constant.all.rmse,
        outcome.constant.all.mae
    )];
    if outcome.unseen != (0, 0) {
        let (rows, cols) = outcome.unseen;
        verdict.push(format!(
            "{rows} rows and {cols} columns have no fitted entry: what is predicted there says nothing."
        ));
    }
    let facts = [
        ("matrix", format!("[{rows}, {cols}]")),
        (
            "fitted",
            format!(
                "{} entries, {:.3} % of all",
                outcome.fitted,
                100.0 * outcome.fitted as f64 / (rows * cols) as f64
            ),
        ),
        (
            "rank",
            format!(
                "{} singular values above a hundredth of the largest; at most {}",
                outcome.rank, outcome.rank_at_most
            ),
        ),
        (
            "loss",
            if outcome.loss == Loss::Absolute {
                "l1: sizes of residuals"
            } else {
                "l2: squares of residuals"
            }
            .to_owned(),
        ),
        (
            "steps",
            format!("{}, those behind step {} were kept; {}", outcome.steps, outcome.kept, outcome.stop),
        ),
        ("schedule of steps", outcome.schedule.clone()),
        ("begun anew", format!("{} times", outcome.restarts)),
        (
            "outliers",
            format!("residuals beyond {} robust deviations (1.4826 MAD) of the median", errors::BEYOND),
        ),
    ];
    Page {
        title: format!("A matrix [{rows}, {cols}] of low rank from {} of its entries", outcome.fitted),
        verdict,
        facts: facts.map(|(name, value)| (name.to_owned(), value)).into(),
        plots: vec![course(outcome.loss, trace), spectrum(&outcome.spectrum)],
        tables: vec![table(outcome)],
        heat_maps: Vec::new(),
        details: Vec::new(),
        recipe: recipe.to_owned(),
    }
}

fn table(outcome: &Outcome) -> Table {
    let row = |(name, errors): (&str, &Errors)| {
        let Errors { all, outliers, without, deviation } = errors;
        let mut row = vec![name.to_owned(), all.count.to_string(), outliers.to_string()];
        row.extend(
            [all.rmse, all.mae, without.rmse, without.mae, *deviation].map(|number| format!("{number:.5}")),
        );
        row
    };
    let rows = [
        ("held out", &outcome.held_out),
        ("held out, one number for all", &outcome.constant),
        ("fitted", &outcome.on_fitted),
    ];
    Table {
        caption: "Errors".to_owned(),
        note: "In the units of the observations.".to_owned(),
        head: head(&[
            "",
            "entries",
            "outliers",
            "RMSE",
            "MAE",
            "RMSE without",
            "MAE without",
            "robust deviation",
        ]),
        rows: rows.map(row).into(),
        marked: Some(0),
    }
}

fn course(loss: Loss, trace: &[Recorded]) -> Plot {
    let line = |name: &str, of: &dyn Fn(&Recorded) -> Option<f64>| Line {
        name: name.to_owned(),
        points: trace
            .iter()
            .filter_map(|line| Some((line.iteration as f64, of(line).filter(|size| *size > 0.0)?.log10())))
            .collect(),
        ..Line::default()
    };
    let size = if loss == Loss::Absolute { "mean size" } else { "root mean square" };
    Plot {
        caption: "Errors over the steps".to_owned(),
        x: "step".to_owned(),
        y: format!("log₁₀ of the {size} of the residuals"),
        lines: vec![
            line("fitted entries", &|line| Some(line.loss)),
            line("entries that choose when to stop", &|line| line.seen),
        ],
        bars: Vec::new(),
    }
}

fn spectrum(values: &[f64]) -> Plot {
    let points = values.iter().enumerate().filter(|(_, value)| **value > 0.0);
    let points = points.map(|(index, value)| (index as f64 + 1.0, value.log10())).collect();
    Plot {
        caption: "Singular values".to_owned(),
        x: "number".to_owned(),
        y: "log₁₀ of the singular value".to_owned(),
        lines: vec![Line { name: "singular values".to_owned(), points, marked: true, band: Vec::new() }],
        bars: Vec::new(),
    }
}
