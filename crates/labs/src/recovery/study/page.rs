//! A study as a page: verdict, statements, tables and curves.

use lowrank_command::page::{Line, Page, Plot, Table, head};

use super::studied::{Grid, Picture, Studied};

/// The page of a finished study.
#[must_use]
pub fn page(studied: &Studied) -> Page {
    let paper = studied.paper;
    let mut facts = vec![
        (
            "the paper".to_owned(),
            format!("{}, \"{}\", {}, {}", paper.authors, paper.title, paper.year, paper.link),
        ),
        ("its claim".to_owned(), studied.claim.to_owned()),
        ("asked".to_owned(), studied.question.to_owned()),
    ];
    facts.extend(studied.ground.iter().cloned());
    facts.push(("rule".to_owned(), studied.rule.to_owned()));
    facts.extend(studied.not_shown.iter().map(|text| ("not shown".to_owned(), text.clone())));
    Page {
        title: studied.title.clone(),
        verdict: studied.sentences.clone(),
        facts,
        plots: studied.pictures.iter().map(plot).collect(),
        tables: vec![statements(studied)],
        heat_maps: Vec::new(),
        details: studied.grids.iter().map(grid).collect(),
        recipe: String::new(),
    }
}

pub(super) fn statements(studied: &Studied) -> Table {
    let row = |statement: &super::Statement| {
        vec![
            // Statements are sentences, and cells do not wrap.
            lowrank_command::page::wrapped(&statement.says, 64),
            statement.measured(),
            statement.bound.words(),
            lowrank_command::page::wrapped(statement.expected, 40),
            format!("{} ({})", statement.found.word(), statement.role.word()),
        ]
    };
    Table {
        caption: "Statements".to_owned(),
        note: "Measured: the median over the problems, with the least and the largest; bounds were fixed before.".to_owned(),
        head: head(&["statement", "measured", "bound", "expected", "found"]),
        rows: studied.statements.iter().map(row).collect(),
        marked: None,
    }
}

/// A table of numbers as the page and the note show it.
pub(super) fn grid(grid: &Grid) -> Table {
    let Grid { caption, note, head, rows } = grid.clone();
    Table { caption, note, head, rows, marked: None }
}

fn plot(picture: &Picture) -> Plot {
    let lines = picture.curves.iter().map(|curve| Line {
        name: curve.name.clone(),
        points: curve.points.clone(),
        ..Line::default()
    });
    Plot {
        caption: picture.caption.clone(),
        x: picture.x.clone(),
        y: picture.y.clone(),
        lines: lines.collect(),
        bars: Vec::new(),
    }
}
