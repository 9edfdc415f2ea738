//! A study as a note: question, command, rule, statements, answer, what was not shown.

use std::fmt::Write as _;

use super::page::{grid, statements};
use super::studied::Studied;

/// The note as Markdown; `command` runs the study again.
#[must_use]
pub fn note(studied: &Studied, command: &str) -> String {
    let paper = studied.paper;
    let mut note = format!("# {}\n\n", studied.title);
    let say = |note: &mut String, text: &str| {
        let _ = writeln!(note, "{text}\n");
    };
    if studied.quick {
        say(&mut note, "**A run of seconds, to see that everything works: these numbers decide nothing.**");
    }
    let cited = format!("{}, \"{}\", {}, <{}>", paper.authors, paper.title, paper.year, paper.link);
    say(&mut note, &format!("**The paper ({cited}).** {}", studied.claim));
    say(&mut note, &format!("**Question.** {}", studied.question));
    say(&mut note, &format!("**Command.** `{command}`"));
    let ground: Vec<String> =
        studied.ground.iter().map(|(name, value)| format!("* {name}: {value}")).collect();
    say(&mut note, &format!("**Ground.**\n\n{}", ground.join("\n")));
    say(&mut note, &format!("**Rule, fixed before the numbers.** {}", studied.rule));
    say(&mut note, "## Statements");
    note.push_str(&statements(studied).markdown());
    say(&mut note, &format!("**Answer.** {}", studied.sentences.join(" ")));
    say(&mut note, "## Numbers");
    for table in studied.grids.iter().map(grid) {
        say(&mut note, &format!("**{}.** {}", table.caption, table.note));
        note.push_str(&table.markdown());
    }
    say(&mut note, "## What was not shown");
    for sentence in &studied.not_shown {
        let _ = writeln!(note, "* {sentence}");
    }
    note.push_str(
        "\n[`result.json`](result.json) holds every number, [`report.html`](report.html) the curves.\n",
    );
    note
}
