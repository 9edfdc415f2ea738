//! `lowrank recover`: a matrix of low rank from some of its entries, and `lowrank recover predict`: its other entries.

mod errors;
mod fit;
mod observed;
mod predict;
mod report;

use std::fmt;
use std::path::PathBuf;

use lowrank_command::{AppError, Because, Progress};
use lowrank_store::StoreError;
use lowrank_store::atomic::{self, Existing};
use serde::{Deserialize, Serialize};

use super::Loss;
pub use errors::{Errors, Part};
use fit::Fitted;
use observed::Observed;
pub use predict::{Predict, Predicted, predict};
pub use report::page;

/// What to recover, from what, and where to.
#[derive(Debug, Clone, PartialEq, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Recover {
    /// Observed entries: lines of row, column, value (.csv, .tsv, .txt), Matrix Market (.mtx), a sparse matrix of SciPy (.npz), or a
    /// dense matrix with NaN where nothing was observed (.npy)
    #[arg(long, value_name = "FILE")]
    pub observations: PathBuf,
    /// Columns of the factors: at least the rank; too many do little harm, they take time
    #[arg(long, default_value_t = 10, value_name = "N")]
    pub rank_at_most: usize,
    /// How residuals count: l1 by their size, which gross errors do not move, or l2 by their squares, best for Gaussian noise
    #[arg(long, value_enum, default_value_t = Loss::Absolute, value_name = "LOSS")]
    pub loss: Loss,
    /// Part of the observations that is held out to report errors, and again to choose when to stop
    #[arg(long, default_value_t = 0.1, value_name = "PART")]
    pub holdout: f64,
    /// The matrix is symmetric and positive: one factor instead of two
    #[arg(long)]
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub symmetric: bool,
    /// Rows and columns of lines of text count from 1; without it from 0
    #[arg(long)]
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub from_one: bool,
    /// Steps at most with each schedule; it stops before when the errors on what was held out for that do not fall any more
    #[arg(long, default_value_t = 5000, value_name = "N")]
    pub steps: usize,
    /// What is held out, and the start
    #[arg(long, default_value_t = 0, value_name = "SEED")]
    pub seed: u64,
    /// Folder for factors, result and report
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Replace the folder if it exists
    #[arg(long)]
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub overwrite: bool,
}

/// What was recovered.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// Where it was written.
    pub out: PathBuf,
    /// Rows and columns of the matrix.
    pub shape: (usize, usize),
    /// Columns of the factors.
    pub rank_at_most: usize,
    /// Singular values above a hundredth of the largest.
    pub rank: usize,
    /// How residuals counted.
    pub loss: Loss,
    /// Observations that were fitted.
    pub fitted: usize,
    /// Observations that chose when to stop.
    pub validation: usize,
    /// Rows and columns without a fitted observation: nothing is known of them.
    pub unseen: (usize, usize),
    /// Steps taken.
    pub steps: usize,
    /// Which schedule of steps was best there.
    pub schedule: String,
    /// Steps behind which the factors were kept: the best on what chose when to stop.
    pub kept: usize,
    /// Why the descent ended.
    pub stop: String,
    /// How often it was begun anew with a quarter of the step, because that was too long.
    pub restarts: usize,
    /// Errors on the observations held out for this report.
    pub held_out: Errors,
    /// Errors there of one number for all entries: the median of the fitted ones (l1) or their mean (l2).
    pub constant: Errors,
    /// Errors on the fitted observations.
    pub on_fitted: Errors,
    /// Singular values of the matrix, descending.
    pub spectrum: Vec<f64>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rows, cols) = self.shape;
        writeln!(
            f,
            "a matrix [{rows}, {cols}] of rank {} (at most {}) from {} entries, {} others chose step {} of {}; {}",
            self.rank, self.rank_at_most, self.fitted, self.validation, self.kept, self.steps, self.stop
        )?;
        if self.unseen != (0, 0) {
            let (rows, cols) = self.unseen;
            writeln!(
                f,
                "{rows} rows and {cols} columns have no fitted entry: what is predicted there says nothing"
            )?;
        }
        writeln!(
            f,
            "{:<26} {:>9} {:>11} {:>11} {:>9} {:>11} {:>11}",
            "", "entries", "RMSE", "MAE", "outliers", "RMSE w/o", "MAE w/o"
        )?;
        for (name, errors) in [
            ("held out", &self.held_out),
            ("held out, one number", &self.constant),
            ("fitted", &self.on_fitted),
        ] {
            let Errors { all, outliers, without, .. } = errors;
            writeln!(
                f,
                "{name:<26} {:>9} {:>11.5} {:>11.5} {outliers:>9} {:>11.5} {:>11.5}",
                all.count, all.rmse, all.mae, without.rmse, without.mae
            )?;
        }
        writeln!(f, "outliers: residuals beyond {} robust deviations of the median", errors::BEYOND)?;
        write!(f, "written: {}", self.out.display())
    }
}

/// Recovers, reports and writes.
///
/// # Errors
/// [`AppError::Usage`] for input that cannot be used; [`AppError::Failed`] when the result could not be found or written.
pub fn recover(options: &Recover, progress: &mut dyn Progress) -> Result<Outcome, AppError> {
    admit(options)?;
    let observed = Observed::read(options)?;
    let Observed { rows, cols, .. } = observed;
    progress.say(&format!(
        "{} entries of a matrix [{rows}, {cols}]: {} are fitted, {} choose when to stop, {} are for the report",
        observed.count(),
        observed.values.len(),
        observed.validation.len(),
        observed.test.len()
    ));
    let fitted = fit::fit(options, &observed, progress)?;
    let outcome = outcome(options, &observed, &fitted);
    write(options, &outcome, &fitted)?;
    Ok(outcome)
}

fn outcome(options: &Recover, observed: &Observed, fitted: &Fitted) -> Outcome {
    let factors = &fitted.factors;
    let constant = match options.loss {
        Loss::Absolute => errors::median(&observed.values),
        Loss::Squared => observed.values.iter().sum::<f64>() / observed.values.len() as f64,
    };
    let residuals = |model: &dyn Fn(usize, usize) -> f64| -> Vec<f64> {
        observed.test.iter().map(|&(row, col, value)| model(row, col) - value).collect()
    };
    let largest = fitted.spectrum.first().copied().unwrap_or(0.0);
    Outcome {
        out: options.out.clone(),
        shape: (observed.rows, observed.cols),
        rank_at_most: options.rank_at_most,
        rank: fitted.spectrum.iter().filter(|&&value| value > 1e-2 * largest).count(),
        loss: options.loss,
        fitted: observed.values.len(),
        validation: observed.validation.len(),
        unseen: observed.unseen(),
        steps: fitted.steps,
        schedule: fitted.schedule.clone(),
        kept: fitted.kept,
        stop: fitted.stop.clone(),
        restarts: fitted.restarts,
        held_out: Errors::of(&residuals(&|row, col| factors.entry(row, col))),
        constant: Errors::of(&residuals(&|_, _| constant)),
        on_fitted: Errors::of(&fitted.residual),
        spectrum: fitted.spectrum.clone(),
    }
}

/// The files of the folder.
const FILES: [&str; 6] =
    ["factors.safetensors", "left.npy", "right.npy", "recipe.toml", "result.json", "report.html"];

/// Refuses what cannot be begun or written, before any work.
fn admit(options: &Recover) -> Result<(), AppError> {
    if !(options.holdout > 0.0 && options.holdout < 0.5) {
        return Err(AppError::usage(format!(
            "--holdout is {}: give a part above 0 and below 0.5",
            options.holdout
        )));
    }
    if options.steps == 0 {
        return Err(AppError::usage("--steps: give at least 1"));
    }
    let out = &options.out;
    if out.exists() {
        if !options.overwrite {
            return Err(AppError::usage(format!(
                "{} exists already: --overwrite replaces it, or choose another --out",
                out.display()
            )));
        }
        if !out.is_dir() {
            return Err(StoreError::NotAFolder { path: out.clone() }).input("the output");
        }
        atomic::nothing_but(out, &FILES).input("the output")?;
    }
    atomic::can_begin(out).input("the output")
}

fn write(options: &Recover, outcome: &Outcome, fitted: &Fitted) -> Result<(), AppError> {
    let recipe = lowrank_command::options::print(options)?;
    let result = serde_json::to_string_pretty(outcome).while_doing("writing the result")? + "\n";
    let report = page(outcome, fitted.trace(), &recipe).html()?;
    let existing = if options.overwrite { Existing::Overwrite } else { Existing::Refuse };
    let written = atomic::write_folder(&options.out, existing, |folder| {
        predict::write_factors(folder, &fitted.factors)?;
        for (name, text) in FILES[3..].iter().zip([&recipe, &result, &report]) {
            folder.file(name, |sink| sink.write_all(text.as_bytes()))?;
        }
        Ok(())
    });
    written.while_doing("writing the result")
}

#[cfg(test)]
mod tests;
