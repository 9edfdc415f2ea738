//! The descent of `lowrank recover`: values in units, plain steps from a small spectral start, and the factors kept that are best on
//! entries which were not fitted.
//!
//! Small and plain on purpose: larger starts and preconditioners give the spare columns what only the signal should have.

use lowrank_command::{AppError, Progress};
use lowrank_record::Seed;

use super::Recover;
use super::errors::median;
use super::observed::{Observed, Triple};
use crate::recovery::{
    Descent, Factors, Limits, Loss, Measurement, Moment, Problem, Recorded, RecoveryError, Solver, Start,
    Steps, Stop,
};

/// The first step, where ‖X‖_F is about 1.
const FIRST: f64 = 0.3;
/// Size of the start.
const ALPHA: f64 = 1e-4;
/// ‖X‖_F by the least singular value that is to be found, of the schedules for sizes of residuals.
const SPREADS: [f64; 4] = [2.0, 4.0, 8.0, 16.0];
/// Steps between looks at what chooses when to stop.
const EVERY: usize = 5;
/// Looks without progress until it stops.
const LOOKS: usize = 60;
/// How often a descent whose steps were too long is begun anew with a quarter of them.
const RESTARTS: usize = 6;

/// What was found, in the units of the observations.
pub(super) struct Fitted {
    pub(super) factors: Factors,
    /// On what was fitted.
    pub(super) residual: Vec<f64>,
    pub(super) spectrum: Vec<f64>,
    pub(super) steps: usize,
    /// Which schedule of steps was best.
    pub(super) schedule: String,
    /// The error on what chose it.
    seen: f64,
    pub(super) kept: usize,
    pub(super) stop: String,
    pub(super) restarts: usize,
    trace: Vec<Recorded>,
}

impl Fitted {
    /// Loss and error every few steps, in the units of the observations.
    pub(super) fn trace(&self) -> &[Recorded] {
        &self.trace
    }
}

/// The size of an entry: robust, so that gross errors do not stretch the units of a robust fit.
fn unit(values: &[f64], loss: Loss) -> f64 {
    let sizes: Vec<f64> = values.iter().map(|value| value.abs()).collect();
    let middle = 1.4826 * median(&sizes);
    let mean_square = sizes.iter().map(|size| size * size).sum::<f64>() / sizes.len() as f64;
    // Where most observations are zero, the median says nothing.
    if loss == Loss::Absolute && middle > 0.0 { middle } else { mean_square.sqrt() }
}

/// Mean size or root mean square of the errors on some entries.
fn error(factors: &Factors, triples: &[Triple], loss: Loss) -> f64 {
    let residuals = triples.iter().map(|&(row, col, value)| factors.entry(row, col) - value);
    let count = triples.len() as f64;
    match loss {
        Loss::Absolute => residuals.map(f64::abs).sum::<f64>() / count,
        Loss::Squared => (residuals.map(|r| r * r).sum::<f64>() / count).sqrt(),
    }
}

fn failed(error: RecoveryError) -> AppError {
    AppError::failed(format!("the descent: {error}"))
}

/// The schedules that are tried, shortest first: sizes of residuals need steps that vanish, over a way whose length depends on how
/// small the least singular value is (`spread` of [`Steps::geometric_from`]), which is not known; squares need no schedule.
fn schedules(loss: Loss, first: f64) -> Result<Vec<(String, Steps)>, RecoveryError> {
    match loss {
        Loss::Squared => Ok(vec![("constant".to_owned(), Steps::Constant(first))]),
        Loss::Absolute => SPREADS
            .into_iter()
            .map(|spread| {
                let steps = Steps::geometric_from(ALPHA, spread, 0.0, first, 1.3)?;
                Ok((format!("geometric, for singular values down to ‖X‖_F/{spread}"), steps))
            })
            .collect(),
    }
}

/// Fits with each schedule until a longer one is no better, and begins anew with a smaller step where that was too long.
pub(super) fn fit(
    options: &Recover,
    observed: &Observed,
    progress: &mut dyn Progress,
) -> Result<Fitted, AppError> {
    let mut first = FIRST;
    for restarts in 0..=RESTARTS {
        let mut best: Option<Fitted> = None;
        for schedule in schedules(options.loss, first).map_err(failed)? {
            let Some(fitted) = attempt(options, observed, schedule, restarts, progress).map_err(failed)?
            else {
                break;
            };
            if best.as_ref().is_some_and(|best| best.seen <= fitted.seen) {
                break;
            }
            best = Some(fitted);
            if progress.stopping() {
                break;
            }
        }
        if let Some(fitted) = best {
            return Ok(fitted);
        }
        first /= 4.0;
        progress.say(&format!("the steps were too long; begun anew with steps of {first:.1e}"));
    }
    Err(AppError::failed(format!(
        "the descent diverged with every step tried, down to {first:.1e}; nothing was written"
    )))
}

/// One descent; `None` when its steps were too long.
fn attempt(
    options: &Recover,
    observed: &Observed,
    (schedule, steps): (String, Steps),
    restarts: usize,
    progress: &mut dyn Progress,
) -> Result<Option<Fitted>, RecoveryError> {
    let loss = options.loss;
    // So that ‖X‖_F is about 1: an entry is then about 1/√(n1·n2).
    let scale = unit(&observed.values, loss) * observed.entries.unit();
    let values: Vec<f64> = observed.values.iter().map(|value| value / scale).collect();
    let validation: Vec<Triple> =
        observed.validation.iter().map(|&(row, col, value)| (row, col, value / scale)).collect();
    let problem = Problem::new(&observed.entries, &values)?;
    let seed = Seed(options.seed).at("recover", "start");
    let limits = Limits { every: EVERY, ..Limits::steps(options.steps) };
    let start = Start::Spectral { alpha: ALPHA };
    let (descent, start) = if options.symmetric {
        (
            Descent::symmetric(loss, steps, limits),
            start.symmetric(&problem, loss, options.rank_at_most, seed)?,
        )
    } else {
        (Descent::asymmetric(loss, steps, limits), start.factors(&problem, loss, options.rank_at_most, seed)?)
    };
    let mut best: Option<(f64, usize, Factors)> = None;
    let mut stopped = false;
    progress.begin("recovering", options.steps as u64);
    let mut watch = |moment: &Moment<'_>| {
        let now = error(moment.factors, &validation, loss);
        if best.as_ref().is_none_or(|(least, _, _)| now < *least) {
            best = Some((now, moment.iteration, moment.factors.clone()));
        }
        progress.step(moment.iteration as u64, &format!("error {:.4e}", now * scale));
        stopped = progress.stopping();
        let waited = best.as_ref().map_or(0, |(_, since, _)| moment.iteration - since);
        (Some(now), !stopped && waited < LOOKS * EVERY)
    };
    let solution = descent.solve(&problem, &start, &mut watch)?;
    progress.end();
    let Some((seen, kept, factors)) = best.filter(|_| solution.stop != Stop::Diverged) else {
        return Ok(None);
    };
    // Each factor takes the root of the scale.
    let root = scale.sqrt();
    let factors = Factors::new(faer::Scale(root) * factors.left, faer::Scale(root) * factors.right)?;
    let stop = match solution.stop {
        Stop::Asked if stopped => "stopped by the user".to_owned(),
        Stop::Asked => format!("no better for {} steps", LOOKS * EVERY),
        other => other.words().to_owned(),
    };
    let fitted = observed.entries.apply(factors.left.as_ref(), factors.right.as_ref());
    let residual = fitted.iter().zip(&observed.values).map(|(found, value)| found - value).collect();
    let spectrum = factors.spectrum()?;
    let in_units = |line: Recorded| {
        // The mean size, or root mean square, of the residuals.
        let size = loss.size(line.loss) / observed.entries.unit();
        Recorded { loss: size * scale, seen: line.seen.map(|seen| seen * scale), ..line }
    };
    let trace = solution.trace.into_iter().map(in_units).collect();
    let steps = solution.iterations;
    Ok(Some(Fitted { factors, residual, spectrum, steps, schedule, seen, kept, stop, restarts, trace }))
}
