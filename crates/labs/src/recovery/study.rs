//! Do the claims of the two papers hold? Scaled-down experiments on matrices that we make, judged by a rule that is fixed before
//! the numbers: [`subgm`] (Ma and Fattahi, 2023) and [`sensing_gd`] (Xiong, Ding and Du, 2024).
//!
//! The numbers in the statements come from the specifications, where they were measured by other code; they are bounds here, not
//! results.

mod course;
mod fit;
mod note;
mod page;
mod problem;
mod sensing_gd;
mod statement;
mod studied;
mod subgm;

pub use note::note;
pub use page::page;
pub use sensing_gd::sensing_gd;
pub use statement::{Bound, Found, Role, Statement, Verdict};
pub use studied::{Curve, Grid, Paper, Picture, Studied};
pub use subgm::subgm;

use lowrank_command::{AppError, Because, Progress};

use crate::study::Finished;

/// How much is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Size {
    /// Problems, each with its own matrix, measurements and start.
    pub seeds: u64,
    /// The first seed; the others follow it.
    pub first: u64,
    /// Short runs of few settings, in seconds: to see that everything works, they decide nothing.
    pub quick: bool,
}

impl Size {
    /// All settings, four problems.
    #[must_use]
    pub fn full() -> Size {
        Size { seeds: 4, first: 0, quick: false }
    }

    /// A few settings, one problem.
    #[must_use]
    pub fn quick() -> Size {
        Size { seeds: 1, first: 0, quick: true }
    }
}

/// A study as the laboratories' list runs it.
fn listed(
    study: fn(Size, &mut dyn Progress) -> Result<Studied, AppError>,
    asked: crate::study::Size,
    progress: &mut dyn Progress,
) -> Result<Finished, AppError> {
    let size = Size { seeds: asked.seeds, first: asked.first, quick: asked.quick };
    let studied = study(size, progress)?;
    let line = |each: &Statement| {
        format!("{:<6} {:<6} {}: {}", each.found.word(), each.role.word(), each.says, each.measured())
    };
    Ok(Finished {
        json: serde_json::to_string_pretty(&studied).while_doing("writing the result")? + "\n",
        title: studied.title.clone(),
        statements: studied.statements.iter().map(line).collect(),
        sentences: studied.sentences.clone(),
        page: page(&studied),
        note: Box::new(move |command| note(&studied, command)),
    })
}

/// [`subgm`] for the list.
pub(crate) fn listed_subgm(
    asked: crate::study::Size,
    progress: &mut dyn Progress,
) -> Result<Finished, AppError> {
    listed(subgm, asked, progress)
}

/// [`sensing_gd`] for the list.
pub(crate) fn listed_sensing_gd(
    asked: crate::study::Size,
    progress: &mut dyn Progress,
) -> Result<Finished, AppError> {
    listed(sensing_gd, asked, progress)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lowrank_command::Silent;

    /// Everything runs, is judged, drawn, and comes out the same again.
    fn laws(study: impl Fn(Size) -> Result<Studied, AppError>) {
        let studied = study(Size::quick()).unwrap();
        assert!(studied.quick && studied.title.contains("decides nothing"));
        assert!(studied.statements.iter().any(|statement| statement.role == Role::Claim));
        for statement in &studied.statements {
            assert_eq!(statement.values.len(), 1, "{}", statement.says);
            assert!(statement.values[0].is_finite(), "{}: {:?}", statement.says, statement.values);
        }
        assert!(
            studied
                .pictures
                .iter()
                .all(|picture| picture.curves.iter().any(|curve| !curve.points.is_empty()))
        );
        assert!(studied.grids.iter().all(|grid| grid.rows.iter().all(|row| row.len() == grid.head.len())));
        let html = page(&studied).html().unwrap();
        assert!(html.contains("<svg") && html.contains("Statements"));
        let again = study(Size::quick()).unwrap();
        assert_eq!(serde_json::to_string(&studied).unwrap(), serde_json::to_string(&again).unwrap());
        assert!(studied.to_string().contains("rule"));
    }

    #[test]
    fn the_quick_study_of_the_sub_gradient_method_is_whole() {
        laws(|size| subgm(size, &mut Silent));
    }

    #[test]
    fn the_quick_study_of_over_parameterised_descent_is_whole() {
        laws(|size| sensing_gd(size, &mut Silent));
    }

    #[test]
    fn a_study_needs_a_seed() {
        let none = Size { seeds: 0, ..Size::quick() };
        assert!(matches!(subgm(none, &mut Silent), Err(AppError::Usage(_))));
        assert!(matches!(sensing_gd(none, &mut Silent), Err(AppError::Usage(_))));
    }
}
