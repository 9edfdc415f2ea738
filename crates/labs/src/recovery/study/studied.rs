//! What a study comes to: statements, tables and curves, as text and as JSON.

use std::fmt;

use serde::Serialize;

use super::statement::{Found, Role, Statement, Verdict};

/// The publication whose claim is studied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Paper {
    /// Authors, as a reader would cite them.
    pub authors: &'static str,
    /// Title.
    pub title: &'static str,
    /// Year.
    pub year: u16,
    /// Link.
    pub link: &'static str,
}

/// A table of what was measured; every cell a text.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Grid {
    /// What is shown.
    pub caption: String,
    /// How to read it.
    pub note: String,
    /// Names of the columns.
    pub head: Vec<String>,
    /// Rows.
    pub rows: Vec<Vec<String>>,
}

/// A line of a picture.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Curve {
    /// Name in the legend.
    pub name: String,
    /// Points in the order of x.
    pub points: Vec<(f64, f64)>,
}

/// Lines over an axis.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Picture {
    /// What is shown.
    pub caption: String,
    /// Label of the horizontal axis.
    pub x: String,
    /// Label of the vertical axis.
    pub y: String,
    /// The lines.
    pub curves: Vec<Curve>,
}

/// A finished study.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Studied {
    /// Its name.
    pub study: &'static str,
    /// What it comes to.
    pub title: String,
    /// What the paper says.
    pub claim: &'static str,
    /// Where it says so.
    pub paper: Paper,
    /// What was asked.
    pub question: &'static str,
    /// Problems, sizes and settings by name.
    pub ground: Vec<(String, String)>,
    /// The rule of the verdict, fixed before the numbers.
    pub rule: &'static str,
    /// Whether the runs were too short and too few to decide anything.
    pub quick: bool,
    /// What became of each statement.
    pub statements: Vec<Statement>,
    /// What became of the claim.
    pub verdict: Verdict,
    /// The verdict in sentences.
    pub sentences: Vec<String>,
    /// The numbers behind the statements.
    pub grids: Vec<Grid>,
    /// The curves.
    pub pictures: Vec<Picture>,
    /// What was not shown.
    pub not_shown: Vec<String>,
}

/// What stands on a study before it is run.
#[derive(Debug, Clone, Copy)]
pub(super) struct About {
    pub(super) study: &'static str,
    pub(super) name: &'static str,
    pub(super) claim: &'static str,
    pub(super) paper: Paper,
    pub(super) question: &'static str,
    pub(super) not_shown: &'static [&'static str],
}

/// What was measured.
#[derive(Debug, Default)]
pub(super) struct Measured {
    pub(super) statements: Vec<Statement>,
    pub(super) grids: Vec<Grid>,
    pub(super) pictures: Vec<Picture>,
}

impl Measured {
    pub(super) fn extend(&mut self, other: Measured) {
        self.statements.extend(other.statements);
        self.grids.extend(other.grids);
        self.pictures.extend(other.pictures);
    }
}

impl Studied {
    /// Judges what was measured.
    pub(super) fn new(
        about: About,
        ground: Vec<(String, String)>,
        quick: bool,
        measured: Measured,
    ) -> Studied {
        let Measured { statements, grids, pictures } = measured;
        let verdict = Verdict::of(&statements);
        let count = |found: Found| {
            statements.iter().filter(|each| each.role == Role::Claim && each.found == found).count()
        };
        let [holds, mixed, fails] = [Found::Holds, Found::Mixed, Found::Fails].map(count);
        let all = holds + mixed + fails;
        let mut sentences = vec![format!(
            "Of the claim's {all} statements {holds} hold, {mixed} are mixed and {fails} fail: {}.",
            verdict.words()
        )];
        let odd = statements.iter().filter(|each| each.role == Role::Claim && each.found != Found::Holds);
        sentences.extend(odd.map(|each| {
            format!(
                "{}: {} (measured {}, bound {}).",
                each.found.word(),
                each.says,
                each.measured(),
                each.bound.words()
            )
        }));
        let title = format!("{}: {}", about.name, verdict.words());
        Studied {
            study: about.study,
            title: if quick { format!("{title} (quick: decides nothing)") } else { title },
            claim: about.claim,
            paper: about.paper,
            question: about.question,
            ground,
            rule: super::statement::RULE,
            quick,
            statements,
            verdict,
            sentences,
            grids,
            pictures,
            not_shown: about.not_shown.iter().map(|&text| text.to_owned()).collect(),
        }
    }
}

impl Role {
    /// As a table says it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Role::Claim => "claim",
            Role::Aside => "aside",
        }
    }
}

impl fmt::Display for Studied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", self.title)?;
        writeln!(f, "the paper: {}", self.claim)?;
        for (name, value) in &self.ground {
            writeln!(f, "{name}: {value}")?;
        }
        writeln!(f, "rule: {}\n", self.rule)?;
        for statement in &self.statements {
            writeln!(f, "{:<6} {:<6} {}", statement.found.word(), statement.role.word(), statement.says)?;
            writeln!(
                f,
                "{:<13} measured {}, bound {}; expected: {}",
                "",
                statement.measured(),
                statement.bound.words(),
                statement.expected
            )?;
        }
        writeln!(f)?;
        self.sentences.iter().try_for_each(|sentence| writeln!(f, "{sentence}"))
    }
}
