//! What a study leaves in its folder: recipe, numbers, note, and a page with plots.

use std::fmt::Write as _;
use std::path::Path;

use super::claim::Measure;
use super::outcome::{ArmRuns, Series, Studied, margin, with_half};
use crate::AppError;
use lowrank_command::Because;
use lowrank_command::page::{Line, Page, Plot, Table, dashed, head};

/// The files of a study's folder.
pub(super) const FILES: [&str; 4] = ["recipe.toml", "result.json", "NOTE.md", "study.html"];

/// Steps over which the training loss is averaged for the eye.
const SMOOTHING: usize = 16;

/// Writes the folder; `command` runs the study again.
///
/// # Errors
/// [`AppError::Failed`] naming the file.
pub(super) fn write(folder: &Path, studied: &Studied, recipe: &str, command: &str) -> Result<(), AppError> {
    std::fs::create_dir_all(folder).while_doing(format!("creating {}", folder.display()))?;
    let json = serde_json::to_string_pretty(studied).while_doing("writing the result")? + "\n";
    let page = page(studied, recipe).html()?;
    let note = note(studied, command);
    for (name, text) in FILES.iter().zip([recipe, &json, &note, &page]) {
        lowrank_store::text::write(&folder.join(name), text).while_doing(format!("writing {name}"))?;
    }
    Ok(())
}

/// The note: question, command, seeds and spread, answer, what was not shown.
pub(super) fn note(studied: &Studied, command: &str) -> String {
    let mut note = format!("# {}\n\n", studied.title);
    let line = |note: &mut String, text: &str| {
        let _ = writeln!(note, "{text}\n");
    };
    if studied.quick {
        line(&mut note, "**A run of seconds, to see that everything works: these numbers decide nothing.**");
    }
    let source = studied.paper.map_or_else(String::new, |paper| {
        format!(" ({}, \"{}\", {}, <{}>)", paper.authors, paper.title, paper.year, paper.link)
    });
    line(&mut note, &format!("**The paper{source}.** {}", studied.claim));
    line(&mut note, &format!("**Question.** {}", studied.question));
    line(&mut note, &format!("**Command.** `{command}`"));
    let ground: Vec<String> = studied.ground.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    line(&mut note, &format!("**Ground.** {}.", ground.join("; ")));
    line(&mut note, &format!("**Equal.** {}", studied.equal));
    line(&mut note, &format!("**Rule, fixed before the numbers.** {}", studied.rule));
    line(&mut note, "## Numbers");
    line(&mut note, "Means over the seeds ± half of their 95 % interval. Losses in nats.");
    note.push_str(&table(&studied.arms).markdown());
    if studied.arms.iter().any(|arm| arm.rate_at_the_end) {
        line(&mut note, "\\* the smallest or largest rate that was tried: a better one may lie beyond.");
    }
    let shared = shared(&studied.arms);
    if !shared.rows.is_empty() {
        line(&mut note, "At rates that all arms share:");
        note.push_str(&shared.markdown());
    }
    line(&mut note, "## Statements");
    note.push_str(&statements(studied).markdown());
    line(&mut note, &format!("**Answer.** {}", studied.sentences.join(" ")));
    line(&mut note, "## What was not shown");
    for sentence in &studied.not_shown {
        let _ = writeln!(note, "* {sentence}");
    }
    let _ = write!(
        note,
        "\n[`result.json`](result.json) holds every run and every rate that was tried, [`study.html`](study.html) the curves.\n"
    );
    note
}

fn cells(series: &Series) -> [String; 3] {
    [Measure::Early, Measure::Last, Measure::Accuracy].map(|measure| with_half(series.mean(measure), 3))
}

/// Every arm at its own rate.
fn table(arms: &[ArmRuns]) -> Table {
    let row = |arm: &ArmRuns| {
        let rate = if arm.tuned.rate > 0.0 { format!("{:.1e}", arm.tuned.rate) } else { "–".to_owned() };
        let end = if arm.rate_at_the_end { " \\*" } else { "" };
        let [early, last, accuracy] = cells(&arm.tuned);
        vec![
            arm.name.clone(),
            arm.method.clone(),
            arm.parameters.to_string(),
            format!("{rate}{end}"),
            early,
            last,
            accuracy,
            dashed(arm.tuned.mean(Measure::FirstNorm).map(|norm| norm.mean), 2),
        ]
    };
    Table {
        caption: "Each arm at its own rate".to_owned(),
        head: head(&[
            "arm",
            "method",
            "trained",
            "rate",
            "early loss",
            "last loss",
            "accuracy",
            "first gradient",
        ]),
        rows: arms.iter().map(row).collect(),
        ..Table::default()
    }
}

/// Arms at the rates that they share.
fn shared(arms: &[ArmRuns]) -> Table {
    let rows = arms.iter().flat_map(|arm| {
        arm.fixed.iter().map(|series| {
            let [early, last, accuracy] = cells(series);
            vec![arm.name.clone(), format!("{:.1e}", series.rate), early, last, accuracy]
        })
    });
    Table {
        caption: "Arms at rates that they share".to_owned(),
        head: head(&["arm", "rate", "early loss", "last loss", "accuracy"]),
        rows: rows.collect(),
        ..Table::default()
    }
}

fn statements(studied: &Studied) -> Table {
    let row = |judged: &super::claim::Judged| {
        vec![
            judged.role.word().to_owned(),
            judged.says.to_owned(),
            margin(judged),
            format!("**{}**", judged.found.word()),
        ]
    };
    Table {
        caption: "Statements".to_owned(),
        head: head(&["", "statement", "margin and its 95 % interval", ""]),
        rows: studied.statements.iter().map(row).collect(),
        ..Table::default()
    }
}

/// The page with the curves.
fn page(studied: &Studied, recipe: &str) -> Page {
    let plain = |table: Table| Table {
        rows: table
            .rows
            .into_iter()
            .map(|row| row.into_iter().map(|cell| cell.replace(['*', '\\'], "")).collect())
            .collect(),
        ..table
    };
    let mut facts = vec![
        ("The paper".to_owned(), studied.claim.to_owned()),
        ("Question".to_owned(), studied.question.to_owned()),
        ("Equal".to_owned(), studied.equal.clone()),
        ("Rule".to_owned(), studied.rule.to_owned()),
    ];
    facts.extend(studied.ground.iter().cloned());
    Page {
        title: studied.title.clone(),
        verdict: studied.sentences.clone(),
        facts,
        plots: plots(&studied.arms),
        tables: [table(&studied.arms), shared(&studied.arms), statements(studied)].map(plain).into(),
        recipe: recipe.to_owned(),
        ..Page::default()
    }
}

fn plots(arms: &[ArmRuns]) -> Vec<Plot> {
    let line = |name: &str, points: Vec<(f64, f64)>, marked: bool| Line {
        name: name.to_owned(),
        points,
        marked,
        band: Vec::new(),
    };
    let curves = |of: &dyn Fn(&ArmRuns) -> Option<Series>| -> Vec<Line> {
        let one = |arm: &ArmRuns| Some(line(&arm.name, over_seeds(&of(arm)?), false));
        arms.iter().filter_map(one).filter(|line| !line.points.is_empty()).collect()
    };
    let plot = |caption: String, x: &str, y: &str, lines: Vec<Line>| Plot {
        caption,
        x: x.to_owned(),
        y: y.to_owned(),
        lines,
        ..Plot::default()
    };
    let loss = "training loss, nats";
    let mut all = vec![plot(
        format!("Training loss at each arm's own rate: mean of the seeds and of {SMOOTHING} steps"),
        "step",
        loss,
        curves(&|arm| Some(arm.tuned.clone())),
    )];
    let mut rates: Vec<f64> =
        arms.iter().flat_map(|arm| arm.fixed.iter().map(|series| series.rate)).collect();
    rates.sort_by(f64::total_cmp);
    rates.dedup();
    for rate in rates {
        all.push(plot(
            format!("Training loss at the rate {rate:.0e}, for all arms that were run there"),
            "step",
            loss,
            curves(&|arm| arm.fixed.iter().find(|series| series.rate == rate).cloned()),
        ));
    }
    let tried = |arm: &ArmRuns| {
        let points = arm.tried.iter().map(|tried| (tried.rate.log10(), tried.accuracy)).collect();
        line(&arm.name, points, true)
    };
    all.push(plot(
        "The search for a rate: mean accuracy over the tuning problems".to_owned(),
        "logarithm (base 10) of the rate",
        "share answered rightly",
        arms.iter().filter(|arm| !arm.tried.is_empty()).map(tried).collect(),
    ));
    all
}

/// The mean of the curves, smoothed; nothing where a run diverged or left none.
fn over_seeds(series: &Series) -> Vec<(f64, f64)> {
    let length = series.curves.iter().map(Vec::len).min().unwrap_or(0);
    let mean =
        |step: usize| series.curves.iter().map(|curve| curve[step]).sum::<f64>() / series.curves.len() as f64;
    let means: Vec<f64> = (0..length).map(mean).collect();
    let smooth = |step: usize| {
        let window = &means[step.saturating_sub(SMOOTHING - 1)..=step];
        (step as f64, window.iter().sum::<f64>() / window.len() as f64)
    };
    (0..length).map(smooth).collect()
}
