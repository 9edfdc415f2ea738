//! `lowrank recover predict`: entries of a matrix that was recovered; and how its factors lie in files.

use std::collections::BTreeMap;
use std::fmt;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use faer::Mat;
use lowrank_command::{AppError, Because};
use lowrank_store::atomic::{self, Folder};
use lowrank_store::safetensors::{self, Entry, SafetensorsFile};
use lowrank_store::{Dtype, Format, StoreError, TensorSource, npy, observations};
use serde::Serialize;

use super::FILES;
use crate::recovery::Factors;

/// Entries of a matrix beyond which it is not written whole: 16 GiB.
const WHOLE: usize = 1 << 31;

/// Which entries, of what, and where to.
#[derive(Debug, Clone, PartialEq, clap::Args)]
pub struct Predict {
    /// Folder that `lowrank recover` wrote
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// Lines of row, column (more columns are not looked at); without it the whole matrix is written
    #[arg(long, value_name = "FILE")]
    pub entries: Option<PathBuf>,
    /// Rows and columns count from 1, in what is read and what is written; without it from 0
    #[arg(long)]
    pub from_one: bool,
    /// Where the entries go: a .csv of row, column, value, or a .npy of the whole matrix
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Replace the file if it exists
    #[arg(long)]
    pub overwrite: bool,
}

/// What was predicted.
#[derive(Debug, Clone, Serialize)]
pub struct Predicted {
    /// Where it was written.
    pub out: PathBuf,
    /// How many entries.
    pub entries: usize,
    /// Rows and columns of the matrix.
    pub shape: (usize, usize),
}

impl fmt::Display for Predicted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rows, cols) = self.shape;
        write!(f, "{} entries of a matrix [{rows}, {cols}]: {}", self.entries, self.out.display())
    }
}

/// Predicts and writes.
///
/// # Errors
/// [`AppError::Usage`] for input that cannot be used; [`AppError::Failed`] when the file could not be written.
pub fn predict(options: &Predict) -> Result<Predicted, AppError> {
    let out = &options.out;
    let wanted = if options.entries.is_some() { "csv" } else { "npy" };
    if out.extension().is_none_or(|ending| !ending.eq_ignore_ascii_case(wanted)) {
        let what = if options.entries.is_some() { "single entries" } else { "the whole matrix" };
        return Err(AppError::usage(format!("--out {}: {what} is written as .{wanted}", out.display())));
    }
    if out.exists() && !options.overwrite {
        return Err(AppError::usage(format!(
            "{} exists already: --overwrite replaces it, or choose another --out",
            out.display()
        )));
    }
    let factors = read_factors(&options.model)?;
    let (rows, cols) = factors.shape();
    let entries = match &options.entries {
        Some(path) => {
            let places = observations::read_places(path, options.from_one).input("reading the entries")?;
            if let Some((row, col)) = places.iter().find(|(row, col)| *row >= rows || *col >= cols) {
                return Err(AppError::usage(format!(
                    "{}: row {row}, column {col} (from 0) is not in the matrix [{rows}, {cols}]",
                    path.display()
                )));
            }
            let first = usize::from(options.from_one);
            let mut text = "row,column,value\n".to_owned();
            for &(row, col) in &places {
                let _ = writeln!(text, "{},{},{}", row + first, col + first, factors.entry(row, col));
            }
            lowrank_store::text::write(out, &text).while_doing("writing the entries")?;
            places.len()
        }
        None if rows.saturating_mul(cols) > WHOLE => {
            return Err(AppError::usage(format!(
                "the matrix [{rows}, {cols}] is too large to be written whole: name --entries"
            )));
        }
        None => {
            let product = factors.product();
            let values: Vec<f64> =
                (0..rows).flat_map(|i| product.row(i).iter().copied().collect::<Vec<_>>()).collect();
            atomic::write_file(out, |sink| npy::write_to(sink, &[rows, cols], &values))
                .while_doing("writing the matrix")?;
            values.len()
        }
    };
    Ok(Predicted { out: out.clone(), entries, shape: (rows, cols) })
}

/// `left [rows, k]` and `right [cols, k]` as f64, in safetensors and in NPY.
pub(super) fn write_factors(folder: &Folder<'_>, factors: &Factors) -> Result<(), StoreError> {
    let rows = |factor: &Mat<f64>| -> Vec<f64> {
        (0..factor.nrows()).flat_map(|i| factor.row(i).iter().copied().collect::<Vec<_>>()).collect()
    };
    let sides = [("left", &factors.left), ("right", &factors.right)]
        .map(|(name, factor)| (name, [factor.nrows(), factor.ncols()], rows(factor)));
    let bytes = sides
        .each_ref()
        .map(|(_, _, values)| values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>());
    let entries: Vec<Entry<'_>> = sides
        .iter()
        .zip(&bytes)
        .map(|((name, shape, _), bytes)| Entry { name, dtype: Dtype::Real(Format::F64), shape, bytes })
        .collect();
    let metadata = BTreeMap::from([("matrix".to_owned(), "left · rightᵀ".to_owned())]);
    folder.file(FILES[0], |sink| safetensors::write_to(sink, &entries, &metadata))?;
    for (name, (_, shape, values)) in FILES[1..3].iter().zip(&sides) {
        folder.file(name, |sink| npy::write_to(sink, shape, values))?;
    }
    Ok(())
}

/// The factors of a folder.
fn read_factors(folder: &Path) -> Result<Factors, AppError> {
    let path = folder.join(FILES[0]);
    let file = SafetensorsFile::open(&path).input("reading the model")?;
    let wrong = |problem: &str| AppError::usage(format!("{}: {problem}", path.display()));
    let factor = |name: &str| -> Result<Mat<f64>, AppError> {
        let info = file.info(name).input("reading the model")?;
        let [rows, cols] = info.shape[..] else { return Err(wrong("a factor is no matrix")) };
        if info.dtype != Dtype::Real(Format::F64) {
            return Err(wrong("the factors are not F64: not written by lowrank recover"));
        }
        let bytes = file.bytes(name).input("reading the model")?;
        let values: Vec<f64> =
            bytes.as_chunks::<8>().0.iter().map(|&bytes| f64::from_le_bytes(bytes)).collect();
        if values.iter().any(|value| !value.is_finite()) {
            return Err(wrong("a factor holds what is not finite"));
        }
        Ok(Mat::from_fn(rows, cols, |i, j| values[i * cols + j]))
    };
    Factors::new(factor("left")?, factor("right")?).map_err(|error| wrong(&error.to_string()))
}
