//! Gaussian noise under the same code path: how far is it from descent on squares, which is made for it?

use lowrank_command::{AppError, Progress};

use super::{D, R, Sensed, tied};
use crate::recovery::study::Size;
use crate::recovery::study::course::{across, grid, over_seeds};
use crate::recovery::study::problem::Followed;
use crate::recovery::study::statement::{Bound, Role, Statement};
use crate::recovery::study::studied::Measured;
use crate::recovery::{Loss, RecoveryError, Start, Steps};

/// One setting.
#[derive(Debug, Clone, Copy)]
struct Setting {
    loss: Loss,
    k: usize,
    deviation: f64,
}

fn run(setting: &Setting, seed: u64) -> Result<Followed, RecoveryError> {
    let Setting { loss, k, deviation } = *setting;
    let alpha = 1e-6;
    let (steps, most) = match loss {
        Loss::Absolute => tied(alpha, 0.0)?,
        Loss::Squared => (Steps::Constant(0.1), 1500),
    };
    Sensed::noisy(600, deviation, seed)?.run(loss, Start::Spectral { alpha }, k, steps, most, seed)
}

/// `ν·√(d·r/m)`.
fn scale(deviation: f64) -> f64 {
    deviation * ((D * R) as f64 / 600.0).sqrt()
}

pub(super) fn measured(size: Size, progress: &mut dyn Progress) -> Result<Measured, AppError> {
    let deviations: &[f64] = if size.quick { &[0.1] } else { &[0.01, 0.1, 0.5, 1.0] };
    let losses = [Loss::Absolute, Loss::Squared];
    let settings: Vec<Setting> = deviations
        .iter()
        .flat_map(|&deviation| losses.map(|loss| (deviation, loss)))
        .flat_map(|(deviation, loss)| [R, D].map(|k| Setting { loss, k, deviation }))
        .collect();
    let runs = over_seeds("Gaussian noise", size, &settings, progress, run)?;
    let of = |loss: Loss, deviation: f64| -> Vec<&Vec<Followed>> {
        let keep = |s: &Setting| s.loss == loss && s.k == D && s.deviation == deviation;
        settings.iter().zip(&runs).filter(|(s, _)| keep(s)).map(|(_, runs)| runs).collect()
    };
    let mut statements = Vec::new();
    for &deviation in deviations {
        let best = |loss: Loss| across(&of(loss, deviation), |runs| runs[0].best());
        let (absolute, squared) = (best(Loss::Absolute), best(Loss::Squared));
        statements.push(Statement::new(
            Role::Claim,
            format!("noise ν = {deviation}, r' = d: best error by ν·√(d·r/m)"),
            "1.33 to 1.37 (specification)",
            Bound::Between(1.1, 1.6),
            absolute.iter().map(|error| error / scale(deviation)).collect(),
        ));
        statements.push(Statement::new(
            Role::Aside,
            format!("noise ν = {deviation}, r' = d: best error by that of descent on squares"),
            "1.08 to 1.10 (specification); √(π/2) = 1.25 of the two losses for few parameters",
            Bound::Between(0.9, 1.3),
            absolute.iter().zip(&squared).map(|(absolute, squared)| absolute / squared).collect(),
        ));
    }
    let grids = vec![grid(
        "Error under Gaussian noise, by ν·√(d·r/m)",
        "Best and last: with too many columns the last steps fit the noise.",
        &["noise", "loss", "r'", "best", "last"],
        &settings,
        &runs,
        |s| {
            let loss = if s.loss == Loss::Absolute { "sizes (SubGM)" } else { "squares" };
            vec![s.deviation.to_string(), loss.to_owned(), s.k.to_string()]
        },
        &[&|s, run| run.best() / scale(s.deviation), &|s, run| run.last() / scale(s.deviation)],
    )];
    Ok(Measured { statements, grids, pictures: Vec::new() })
}
