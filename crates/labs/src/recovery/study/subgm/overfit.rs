//! Fewer measurements than parameters: a global minimum that is another matrix, and what a small start finds instead. With r' = d the
//! problem is convex in U·Uᵀ, so a large start with long steps ends at the minimum. It is not zero, as U·Uᵀ is positive.

use lowrank_command::{AppError, Progress};

use super::{D, FIRST, GROSS, Sensed, gaussian};
use crate::recovery::study::Size;
use crate::recovery::study::course::{across, grid, over_seeds};
use crate::recovery::study::problem::Followed;
use crate::recovery::study::statement::{Bound, Role, Statement};
use crate::recovery::study::studied::Measured;
use crate::recovery::{Loss, RecoveryError, Start, Steps};

/// Measurements: fewer than the d(d + 1)/2 = 210 parameters.
const M: usize = 180;

/// From a small start, or from a large one with long steps.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Setting {
    Small,
    Large { ratio: f64, steps: usize },
}

fn run(setting: &Setting, seed: u64) -> Result<Followed, RecoveryError> {
    let sensed = Sensed::new(M, 0.1, GROSS, seed)?;
    match *setting {
        Setting::Small => {
            let steps = Steps::Geometric { first: FIRST, ratio: 0.9975 };
            sensed.run(Loss::Absolute, Start::Spectral { alpha: 1e-6 }, D, steps, 8000, seed)
        }
        Setting::Large { ratio, steps } => {
            sensed.run(Loss::Absolute, gaussian(10.0), D, Steps::Geometric { first: 1.0, ratio }, steps, seed)
        }
    }
}

pub(super) fn measured(size: Size, progress: &mut dyn Progress) -> Result<Measured, AppError> {
    let large = if size.quick {
        Setting::Large { ratio: 0.998, steps: 6000 }
    } else {
        Setting::Large { ratio: 0.9996, steps: 40_000 }
    };
    let settings = [Setting::Small, large];
    let runs = over_seeds("small and large starts", size, &settings, progress, run)?;
    let every: Vec<_> = runs.iter().collect();
    let loss = |run: &Followed| run.solution.quality.loss;
    let statements = vec![
        Statement::new(
            Role::Claim,
            format!(
                "{M} measurements, outliers 0.1, r' = d: the loss of a large start by that of a small one"
            ),
            "the small start ends above the minimum (specification)",
            Bound::AtMost(1.0),
            across(&every, |runs| loss(runs[1]) / loss(runs[0])),
        ),
        Statement::new(
            Role::Claim,
            format!(
                "{M} measurements, outliers 0.1, r' = d: the error of a small start by that of a large one"
            ),
            "below 0.05 (specification)",
            Bound::AtMost(0.05),
            across(&every, |runs| runs[0].last() / runs[1].last()),
        ),
    ];
    let grids = vec![grid(
        "Small and large starts with fewer measurements than parameters",
        "Small: spectral, α = 1e−6. Large: Gaussian, α = 10, η_0 = 1, ρ = 0.9996, 40000 steps.",
        &["start", "loss", "final error"],
        &settings,
        &runs,
        |&setting| vec![if setting == Setting::Small { "small" } else { "large" }.to_owned()],
        &[&|_, run| loss(run), &|_, run| run.last()],
    )];
    Ok(Measured { statements, grids, pictures: Vec::new() })
}
