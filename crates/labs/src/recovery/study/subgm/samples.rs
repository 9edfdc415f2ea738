//! How many samples does it need, and does that depend on the number of columns?

use lowrank_command::{AppError, Progress};

use super::{D, FIRST, GROSS, R, Sensed};
use crate::recovery::study::Size;
use crate::recovery::study::course::{across, grid, over_seeds};
use crate::recovery::study::problem::Followed;
use crate::recovery::study::statement::{Bound, Role, Statement};
use crate::recovery::study::studied::Measured;
use crate::recovery::{Loss, RecoveryError, Start, Steps};

fn run(&(m, k): &(usize, usize), seed: u64) -> Result<Followed, RecoveryError> {
    let steps = Steps::Geometric { first: FIRST, ratio: 0.9975 };
    Sensed::new(m, 0.1, GROSS, seed)?.run(
        Loss::Absolute,
        Start::Spectral { alpha: 1e-6 },
        k,
        steps,
        8000,
        seed,
    )
}

pub(super) fn measured(size: Size, progress: &mut dyn Progress) -> Result<Measured, AppError> {
    let counts: &[usize] = if size.quick { &[600] } else { &[100, 150, 200, 250, 300, 400, 600, 1000] };
    let settings: Vec<(usize, usize)> = counts.iter().flat_map(|&m| [R, D].map(|k| (m, k))).collect();
    let runs = over_seeds("numbers of samples", size, &settings, progress, run)?;
    let error = |m: usize, k: usize| {
        let found = settings.iter().zip(&runs).find(|(setting, _)| **setting == (m, k));
        found.map_or_else(Vec::new, |(_, runs)| across(&[runs], |runs| runs[0].last()))
    };
    let mut statements = vec![
        Statement::new(
            Role::Claim,
            "600 = 10·d·r measurements, outliers 0.1, r' = d: final error",
            "below 1e−3; 2e−4 to 4e−4 (specification)",
            Bound::AtMost(1e-3),
            error(600, D),
        ),
        Statement::new(
            Role::Claim,
            "600 = 10·d·r measurements, outliers 0.1, r' = r: final error",
            "at most 1e−9 (specification)",
            Bound::AtMost(1e-6),
            error(600, R),
        ),
    ];
    if !size.quick {
        statements.push(Statement::new(
            Role::Claim,
            "200 measurements, fewer than the 210 parameters of r' = d, outliers 0.1: final error (‖X*‖_F is 1.73)",
            "1e−2 (specification)",
            Bound::AtMost(0.1),
            error(200, D),
        ));
    }
    let grids = vec![grid(
        "Final error by the number of measurements, outliers 0.1",
        "Spectral start, α = 1e−6, ρ = 0.9975, 8000 steps.",
        &["m", "m/(d·r)", "r'", "final error", "best error"],
        &settings,
        &runs,
        |&(m, k)| vec![m.to_string(), format!("{:.1}", m as f64 / (D * R) as f64), k.to_string()],
        &[&|_, run| run.last(), &|_, run| run.best()],
    )];
    Ok(Measured { statements, grids, pictures: Vec::new() })
}
