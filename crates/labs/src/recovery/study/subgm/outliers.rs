//! Does the size of the outliers matter, and what does descent on squares make of them?

use lowrank_command::{AppError, Progress};

use super::{D, R, Sensed, tied};
use crate::recovery::study::Size;
use crate::recovery::study::course::{across, grid, over_seeds};
use crate::recovery::study::fit;
use crate::recovery::study::problem::Followed;
use crate::recovery::study::statement::{Bound, Role, Statement, number};
use crate::recovery::study::studied::{Curve, Measured, Picture};
use crate::recovery::{Loss, RecoveryError, Start, Steps};

/// One setting.
#[derive(Debug, Clone, Copy)]
struct Setting {
    loss: Loss,
    k: usize,
    gross: f64,
}

fn run(setting: &Setting, seed: u64) -> Result<Followed, RecoveryError> {
    let Setting { loss, k, gross } = *setting;
    let alpha = 1e-6;
    let (steps, most) = match loss {
        Loss::Absolute => tied(alpha, 0.1)?,
        Loss::Squared => (Steps::Constant(0.1), 4000),
    };
    Sensed::new(600, 0.1, gross, seed)?.run(loss, Start::Spectral { alpha }, k, steps, most, seed)
}

pub(super) fn measured(size: Size, progress: &mut dyn Progress) -> Result<Measured, AppError> {
    let sizes: &[f64] = if size.quick { &[10.0, 1000.0] } else { &[3.0, 10.0, 100.0, 1000.0, 1e6] };
    let mut settings: Vec<Setting> =
        sizes.iter().map(|&gross| Setting { loss: Loss::Absolute, k: D, gross }).collect();
    settings.extend([R, D].map(|k| Setting { loss: Loss::Squared, k, gross: 10.0 }));
    let runs = over_seeds("sizes of the outliers", size, &settings, progress, run)?;
    let large: Vec<&Vec<Followed>> = settings
        .iter()
        .zip(&runs)
        .filter(|(s, _)| s.loss == Loss::Absolute && s.gross >= 10.0)
        .map(|(_, runs)| runs)
        .collect();
    let mut statements = vec![Statement::new(
        Role::Claim,
        format!(
            "outliers 0.1 of size 10 to {}, r' = d: final error, largest by smallest",
            number(*sizes.last().unwrap_or(&0.0))
        ),
        "independent of their size",
        Bound::AtMost(3.0),
        across(&large, |runs| fit::ratio(&runs.iter().map(|run| run.last()).collect::<Vec<_>>())),
    )];
    for (setting, runs) in settings.iter().zip(&runs).filter(|(s, _)| s.loss == Loss::Squared) {
        statements.push(Statement::new(
            Role::Claim,
            format!("descent on squares, outliers 0.1 of size 10, r' = {}: final error by ‖X*‖_F", setting.k),
            "above 0.5; 0.71 at r' = 3, 1.15 at r' = 20 (specification)",
            Bound::AtLeast(0.5),
            across(&[runs], |runs| runs[0].last() / (R as f64).sqrt()),
        ));
    }
    let name = |s: &Setting| {
        let loss = if s.loss == Loss::Absolute { "sizes (SubGM)" } else { "squares" };
        vec![loss.to_owned(), s.k.to_string(), number(s.gross)]
    };
    let grids = vec![grid(
        "Final error by the size of the outliers, a tenth of the observations",
        "Spectral start, α = 1e−6; squares with a constant step of 0.1, 4000 steps.",
        &["loss", "r'", "size", "final error", "best error"],
        &settings,
        &runs,
        name,
        &[&|_, run| run.last(), &|_, run| run.best()],
    )];
    let chosen = settings.iter().zip(&runs).filter(|(s, _)| s.gross == 10.0 && s.k == D);
    let curves = chosen.filter_map(|(s, runs)| {
        let points = runs.first()?.drawn(|step, error| (step, error.log10()));
        Some(Curve { name: name(s)[0].clone(), points })
    });
    let pictures = vec![Picture {
        caption: "Sizes against squares of residuals: outliers 0.1, r' = d".to_owned(),
        x: "step".to_owned(),
        y: "log₁₀ of the error".to_owned(),
        curves: curves.collect(),
    }];
    Ok(Measured { statements, grids, pictures })
}
