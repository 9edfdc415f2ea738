//! Observations, cut into what is fitted, what chooses when to stop, and what is only reported.

use lowrank_command::{AppError, Because};
use lowrank_record::Seed;
use lowrank_store::observations;

use super::Recover;
use crate::recovery::{Entries, RecoveryError};

/// An entry with its value.
pub(super) type Triple = (usize, usize, f64);

/// Observations of a matrix.
pub(super) struct Observed {
    pub(super) rows: usize,
    pub(super) cols: usize,
    /// Where what is fitted was observed, and its values in that order.
    pub(super) entries: Entries,
    pub(super) values: Vec<f64>,
    /// What chooses when to stop.
    pub(super) validation: Vec<Triple>,
    /// What is only for the report: neither fitted nor used to choose.
    pub(super) test: Vec<Triple>,
}

impl Observed {
    /// Reads, checks and cuts by the seed.
    pub(super) fn read(options: &Recover) -> Result<Observed, AppError> {
        let found =
            observations::read(&options.observations, options.from_one).input("reading the observations")?;
        let (rows, cols) = (found.rows, found.cols);
        let refused =
            |error: RecoveryError| AppError::usage(format!("{}: {error}", options.observations.display()));
        let rank = options.rank_at_most;
        if rank == 0 || rank > rows.min(cols) {
            return Err(AppError::usage(format!(
                "--rank-at-most: {}",
                RecoveryError::Rank { rank, rows, cols }
            )));
        }
        if options.symmetric && rows != cols {
            return Err(AppError::usage(format!(
                "--symmetric: the matrix is [{rows}, {cols}], not square; leave out --symmetric"
            )));
        }
        // Places that occur twice would be on both sides of the cut: refused before it.
        let (all, values) = Entries::from_triples(rows, cols, found.triples).map_err(refused)?;
        let triples: Vec<Triple> =
            all.places().zip(values).map(|((row, col), value)| (row, col, value)).collect();
        let held = (options.holdout * triples.len() as f64).round() as usize;
        if held == 0 || 2 * held >= triples.len() {
            return Err(AppError::usage(format!(
                "{}: {} observations are too few to hold out a part of {} twice",
                options.observations.display(),
                triples.len(),
                options.holdout
            )));
        }
        let order = Seed(options.seed).at("recover", "held out").permutation(triples.len());
        let pick = |part: &[usize]| -> Vec<Triple> { part.iter().map(|&index| triples[index]).collect() };
        let (test, validation) = (pick(&order[..held]), pick(&order[held..2 * held]));
        let (entries, values) =
            Entries::from_triples(rows, cols, pick(&order[2 * held..])).map_err(refused)?;
        if values.iter().all(|&value| value == 0.0) {
            return Err(AppError::usage(format!(
                "{}: every observation is 0",
                options.observations.display()
            )));
        }
        Ok(Observed { rows, cols, entries, values, validation, test })
    }

    /// All observations.
    pub(super) fn count(&self) -> usize {
        self.values.len() + self.validation.len() + self.test.len()
    }

    /// Rows and columns of which nothing is fitted.
    pub(super) fn unseen(&self) -> (usize, usize) {
        let (mut rows, mut cols) = (vec![false; self.rows], vec![false; self.cols]);
        for (row, col) in self.entries.places() {
            rows[row] = true;
            cols[col] = true;
        }
        let unseen = |seen: &[bool]| seen.iter().filter(|seen| !**seen).count();
        (unseen(&rows), unseen(&cols))
    }
}
