//! How the runs of a study are spread over the machine: any order gives the same numbers, because each run's randomness is its own.

use lowrank_command::{AppError, Progress};
use rayon::prelude::*;

use super::Size;
use super::problem::failed;
use super::statement::spread;
use super::studied::Grid;
use crate::recovery::RecoveryError;

/// Runs every setting on every problem; the results by setting, in both orders as given.
pub(super) fn over_seeds<S: Sync, T: Send>(
    label: &str,
    size: Size,
    settings: &[S],
    progress: &mut dyn Progress,
    run: impl Fn(&S, u64) -> Result<T, RecoveryError> + Sync,
) -> Result<Vec<Vec<T>>, AppError> {
    if size.seeds == 0 {
        return Err(AppError::usage("--seeds: give at least 1"));
    }
    progress.begin(label, settings.len() as u64);
    let mut all = Vec::with_capacity(settings.len());
    let seeds: Vec<u64> = (0..size.seeds).map(|index| size.first.wrapping_add(index)).collect();
    // Two settings at once keep the cores busy where there is one seed; between them the user may stop.
    for (done, pair) in settings.chunks(2).enumerate() {
        if progress.stopping() {
            return Err(AppError::failed("stopped; nothing was written"));
        }
        let jobs: Vec<(&S, u64)> =
            pair.iter().flat_map(|setting| seeds.iter().map(move |&seed| (setting, seed))).collect();
        let results: Result<Vec<T>, RecoveryError> =
            jobs.into_par_iter().map(|(setting, seed)| run(setting, seed)).collect();
        let mut results = results.map_err(failed)?.into_iter();
        for _ in pair {
            all.push(results.by_ref().take(seeds.len()).collect());
        }
        progress.step((2 * done + pair.len()) as u64, "");
    }
    progress.end();
    Ok(all)
}

/// One number of each problem from the same run of several settings: `runs[setting][problem]`.
pub(super) fn across<T>(runs: &[&Vec<T>], of: impl Fn(&[&T]) -> f64) -> Vec<f64> {
    let problems = runs.first().map_or(0, |runs| runs.len());
    (0..problems).map(|problem| of(&runs.iter().map(|runs| &runs[problem]).collect::<Vec<_>>())).collect()
}

/// A number of a run.
pub(super) type Cell<'a, S, T> = &'a dyn Fn(&S, &T) -> f64;

/// A table with a row a setting, the cells spreads over the problems.
pub(super) fn grid<S, T>(
    caption: &str,
    note: &str,
    head: &[&str],
    settings: &[S],
    runs: &[Vec<T>],
    name: impl Fn(&S) -> Vec<String>,
    cells: &[Cell<'_, S, T>],
) -> Grid {
    let rows = settings.iter().zip(runs).map(|(setting, runs)| {
        let mut row = name(setting);
        row.extend(
            cells.iter().map(|cell| spread(&runs.iter().map(|run| cell(setting, run)).collect::<Vec<_>>())),
        );
        row
    });
    Grid {
        caption: caption.to_owned(),
        note: note.to_owned(),
        head: lowrank_command::page::head(head),
        rows: rows.collect(),
    }
}
