//! Is the final error independent of the number of columns?

use lowrank_command::{AppError, Progress};

use super::{FIRST, GROSS, R, Sensed, gaussian, named, tied};
use crate::recovery::study::Size;
use crate::recovery::study::course::{across, grid, over_seeds};
use crate::recovery::study::fit;
use crate::recovery::study::problem::Followed;
use crate::recovery::study::statement::{Bound, Role, Statement};
use crate::recovery::study::studied::{Curve, Measured, Picture};
use crate::recovery::{Loss, RecoveryError, Start, Steps};

const ALPHA: f64 = 1e-6;

/// One setting.
#[derive(Debug, Clone, Copy)]
struct Setting {
    start: Start,
    outliers: f64,
    k: usize,
}

fn is_spectral(start: Start) -> bool {
    matches!(start, Start::Spectral { .. })
}

/// Spectral starts on the specification's fixed schedule, Gaussian ones on that tied to α.
fn run(setting: &Setting, seed: u64) -> Result<Followed, RecoveryError> {
    let Setting { start, outliers, k } = *setting;
    let (steps, most) = if is_spectral(start) {
        (Steps::Geometric { first: FIRST, ratio: 0.9975 }, 8000)
    } else {
        tied(ALPHA, outliers)?
    };
    Sensed::new(600, outliers, GROSS, seed)?.run(Loss::Absolute, start, k, steps, most, seed)
}

pub(super) fn measured(size: Size, progress: &mut dyn Progress) -> Result<Measured, AppError> {
    let (spectral, random) = (Start::Spectral { alpha: ALPHA }, gaussian(ALPHA));
    let (outliers, columns): (&[f64], &[usize]) =
        if size.quick { (&[0.1], &[3, 5, 20]) } else { (&[0.0, 0.1, 0.3, 0.5], &[3, 5, 10, 20]) };
    let setting = |start| move |outliers: f64| columns.iter().map(move |&k| Setting { start, outliers, k });
    let mut settings: Vec<Setting> = outliers.iter().copied().flat_map(setting(spectral)).collect();
    settings.extend(outliers.iter().copied().filter(|p| [0.1, 0.3].contains(p)).flat_map(setting(random)));
    let runs = over_seeds("columns", size, &settings, progress, run)?;
    let of = |start: Start, p: f64| -> Vec<&Vec<Followed>> {
        let keep = |s: &Setting| is_spectral(s.start) == is_spectral(start) && s.outliers == p && s.k > R;
        settings.iter().zip(&runs).filter(|(s, _)| keep(s)).map(|(_, runs)| runs).collect()
    };
    let last = |runs: &[&Followed]| -> Vec<f64> { runs.iter().map(|run| run.last()).collect() };
    let mut statements = Vec::new();
    for &p in outliers {
        statements.push(Statement::new(
            Role::Claim,
            format!("spectral start, outliers {p}: final error, largest by smallest over r' > r"),
            "below 1.05 (specification)",
            Bound::AtMost(1.1),
            across(&of(spectral, p), |runs| fit::ratio(&last(runs))),
        ));
        if [0.1, 0.3].contains(&p) {
            statements.push(Statement::new(
                Role::Claim,
                format!("Gaussian start, outliers {p}: final error, largest by smallest over r' > r"),
                "grows with r', below 60 from 5 to 40 (specification)",
                Bound::AtMost(60.0),
                across(&of(random, p), |runs| fit::ratio(&last(runs))),
            ));
            statements.push(Statement::new(
                Role::Claim,
                format!("Gaussian start, outliers {p}: the largest final error over r' > r"),
                "below 1e−3 (specification)",
                Bound::AtMost(1e-3),
                across(&of(random, p), |runs| last(runs).into_iter().fold(0.0, f64::max)),
            ));
        }
    }
    for (setting, runs) in settings.iter().zip(&runs).filter(|(s, _)| s.k == R && is_spectral(s.start)) {
        statements.push(Statement::new(
            Role::Aside,
            format!("spectral start, outliers {}, r' = r: final error", setting.outliers),
            "4e−10, the floor of the steps (specification)",
            Bound::AtMost(1e-6),
            across(&[runs], |runs| runs[0].last()),
        ));
    }
    let grids = vec![grid(
        "Final error by columns and outliers",
        "Spectral starts: ρ = 0.9975 and 8000 steps for all. Gaussian starts: the schedule tied to α. Columns of a spectral start beyond the \
         positive eigenvalues of C (about half of d) are zero and stay so: r' = 10 and 20 may be the same run.",
        &["start", "outliers", "r'", "final error", "best error", "loss"],
        &settings,
        &runs,
        |s| vec![named(s.start).to_owned(), s.outliers.to_string(), s.k.to_string()],
        &[&|_, run| run.last(), &|_, run| run.best(), &|_, run| run.solution.quality.loss],
    )];
    let drawn = |start: Start| {
        let keep = move |s: &Setting| is_spectral(s.start) == is_spectral(start) && s.outliers == 0.1;
        let chosen = settings.iter().zip(&runs).filter(move |(s, _)| keep(s));
        let curves = chosen.filter_map(|(s, runs)| {
            let points = runs.first()?.drawn(|step, error| (step, error.log10()));
            Some(Curve { name: format!("r' = {}", s.k), points })
        });
        Picture {
            caption: format!("A tenth of the observations grossly wrong, {} start", named(start)),
            x: "step".to_owned(),
            y: "log₁₀ of the error".to_owned(),
            curves: curves.collect(),
        }
    };
    let pictures = vec![drawn(spectral), drawn(random)];
    Ok(Measured { statements, grids, pictures })
}
