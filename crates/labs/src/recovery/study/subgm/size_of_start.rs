//! Does the final error fall with the size of the start, in a time that grows with its logarithm, and does the signal grow at the
//! rate that the expected sub-gradient says?

use lowrank_command::{AppError, Progress};

use super::{D, GROSS, R, Sensed, tied};
use crate::recovery::study::Size;
use crate::recovery::study::course::{across, grid, over_seeds};
use crate::recovery::study::fit;
use crate::recovery::study::problem::Followed;
use crate::recovery::study::statement::{Bound, Role, Statement};
use crate::recovery::study::studied::{Curve, Measured, Picture};
use crate::recovery::{Descent, Limits, Loss, Moment, Problem, RecoveryError, Solver, Start, Steps};
use lowrank_record::Seed;

/// One setting.
#[derive(Debug, Clone, Copy)]
struct Setting {
    outliers: f64,
    k: usize,
    alpha: f64,
}

fn run(setting: &Setting, seed: u64) -> Result<Followed, RecoveryError> {
    let Setting { outliers, k, alpha } = *setting;
    let (steps, most) = tied(alpha, outliers)?;
    Sensed::new(600, outliers, GROSS, seed)?.run(
        Loss::Absolute,
        Start::Spectral { alpha },
        k,
        steps,
        most,
        seed,
    )
}

pub(super) fn measured(size: Size, progress: &mut dyn Progress) -> Result<Measured, AppError> {
    let (outliers, alphas): (&[f64], &[f64]) =
        if size.quick { (&[0.1], &[1e-2, 1e-4]) } else { (&[0.1, 0.3], &[1e-2, 1e-3, 1e-4, 1e-6, 1e-8]) };
    let columns = if size.quick { &[D][..] } else { &[R, D] };
    let settings: Vec<Setting> = outliers
        .iter()
        .flat_map(|&outliers| columns.iter().map(move |&k| (outliers, k)))
        .flat_map(|(outliers, k)| alphas.iter().map(move |&alpha| Setting { outliers, k, alpha }))
        .collect();
    let runs = over_seeds("sizes of the start", size, &settings, progress, run)?;
    let mut statements = Vec::new();
    for &p in outliers {
        let of: Vec<&Vec<Followed>> = settings
            .iter()
            .zip(&runs)
            .filter(|(s, _)| s.outliers == p && s.k == D)
            .map(|(_, runs)| runs)
            .collect();
        let errors = |runs: &[&Followed]| {
            fit::power(alphas.iter().copied().zip(runs.iter().map(|run| run.last()))).slope
        };
        let role = if p == 0.1 { Role::Claim } else { Role::Aside };
        let (expected, bound) = if p == 0.1 {
            ("0.88 (specification)", Bound::AtLeast(0.7))
        } else {
            ("0.45 (specification)", Bound::AtLeast(0.3))
        };
        let says = format!("outliers {p}, r' = d: the power of α in the final error");
        statements.push(Statement::new(role, says, expected, bound, across(&of, errors)));
        if p == 0.1 && !size.quick {
            let steps = |runs: &[&Followed]| {
                let points =
                    alphas.iter().zip(runs).map(|(alpha, run)| ((1.0 / alpha).ln(), run.reached(0.1)));
                fit::line(&points.collect::<Vec<_>>()).explained
            };
            statements.push(Statement::new(
                Role::Claim,
                "outliers 0.1, r' = d: steps to an error of 0.1 on a line in ln(1/α), R²",
                "T = O(κ·ln(1/α)/η_0)",
                Bound::AtLeast(0.98),
                across(&of, steps),
            ));
        }
    }
    let grown = growth(size, progress)?;
    statements.extend(grown);
    let grids = vec![grid(
        "Final error by the size of the start",
        "Spectral start; schedules tied to α, c = 1.3.",
        &["outliers", "r'", "α", "final error", "best error", "steps to 0.1", "steps"],
        &settings,
        &runs,
        |s| vec![s.outliers.to_string(), s.k.to_string(), format!("{:.0e}", s.alpha)],
        &[&|_, run| run.last(), &|_, run| run.best(), &|_, run| run.reached(0.1), &|_, run| {
            run.solution.iterations as f64
        }],
    )];
    let chosen = settings.iter().zip(&runs).filter(|(s, _)| s.outliers == 0.1 && s.k == D);
    let curves = chosen.filter_map(|(s, runs)| {
        let points = runs.first()?.drawn(|step, error| (step, error.log10()));
        Some(Curve { name: format!("α = {:.0e}", s.alpha), points })
    });
    let pictures = vec![Picture {
        caption: "Smaller starts take longer and end closer: outliers 0.1, r' = d".to_owned(),
        x: "step".to_owned(),
        y: "log₁₀ of the error".to_owned(),
        curves: curves.collect(),
    }];
    Ok(Measured { statements, grids, pictures })
}

/// While U is small, `U ← U + η·φ·X*/‖X*‖_F·U` in expectation, so ln‖U‖ grows by `√(2/π)·(1 − p)·σ/‖X*‖_F` for each unit of Σ η (for
/// outliers so large that their signs say nothing of X*). Measured with a constant small step, between 100 and 10000 times the start.
fn growth(size: Size, progress: &mut dyn Progress) -> Result<Vec<Statement>, AppError> {
    let outliers: &[f64] = if size.quick { &[0.1] } else { &[0.0, 0.1, 0.3, 0.5] };
    let (alpha, step, most) = (1e-8, 0.05, 2000);
    let run = |&p: &f64, seed: u64| {
        // Gross errors of 1000: their share of the expected sign vanishes.
        let sensed = Sensed::new(4000, p, 1000.0, seed)?;
        let problem: Problem<'_> = sensed.problem()?;
        let start = Start::Spectral { alpha }.symmetric(&problem, Loss::Absolute, R, Seed(seed))?;
        let begun = start.left.norm_l2();
        let mut sizes = Vec::new();
        let mut watch = |moment: &Moment<'_>| {
            let grown = moment.factors.left.norm_l2() / begun;
            sizes.push((step * moment.iteration as f64, grown));
            (None, grown < 1e4)
        };
        let descent = Descent::symmetric(Loss::Absolute, Steps::Constant(step), Limits::steps(most));
        descent.solve(&problem, &start, &mut watch)?;
        let points = sizes.into_iter().filter(|&(_, grown)| (1e2..1e4).contains(&grown));
        let rate = -fit::rate(points).slope;
        Ok(rate / (std::f64::consts::FRAC_2_PI.sqrt() * (1.0 - p) / (R as f64).sqrt()))
    };
    let runs = over_seeds("growth of the signal", size, outliers, progress, run)?;
    let say = |(p, runs): (&f64, Vec<f64>)| {
        Statement::new(
            Role::Claim,
            format!(
                "outliers {p}, 4000 measurements: growth of ln‖U‖ for each unit of Σ η, by √(2/π)(1 − p)σ/‖X*‖_F"
            ),
            "1 in expectation",
            Bound::Between(0.8, 1.25),
            runs,
        )
    };
    Ok(outliers.iter().zip(runs).map(say).collect())
}
