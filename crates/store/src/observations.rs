//! Observed entries of a matrix, from what people keep them in: lines of text, Matrix Market, SciPy's sparse NPZ, a dense NPY with
//! NaN where nothing was observed.

mod lines;
mod matrix_market;
mod sparse;

use std::path::Path;

use crate::npy::{self, NpyError};
use crate::{StoreError, text};

/// Observed entries.
#[derive(Debug, Clone, PartialEq)]
pub struct Observations {
    /// Rows of the matrix: what the file says, or one more than the largest index.
    pub rows: usize,
    /// Columns of the matrix.
    pub cols: usize,
    /// `(row, column, value)`, counted from 0, in the order of the file; finite, within the shape, perhaps twice at a place.
    pub triples: Vec<(usize, usize, f64)>,
}

/// What is wrong with a file of observations.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ObservationsError {
    /// No ending that is known.
    #[error(
        "its ending says nothing of what it holds; .csv, .tsv, .txt (row, column, value), .mtx, .npz and .npy are read"
    )]
    Ending,
    /// Nothing in it.
    #[error("it holds no observations")]
    Empty,
    /// A line that cannot be read.
    #[error("line {line}: {problem}")]
    Line {
        /// Which, from 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// An array that is no matrix, or entries that do not fit.
    #[error("{0}")]
    Arrays(String),
    /// A damaged NPZ or NPY.
    #[error(transparent)]
    Npy(#[from] NpyError),
}

/// Reads observations; the ending of the name says what the file is. Indices of lines of text count from 0, or from 1 if `from_one`;
/// the other formats say how they count.
///
/// # Errors
/// [`StoreError::Io`], [`StoreError::NotUtf8`], [`StoreError::Npy`], [`StoreError::Observations`].
pub fn read(path: &Path, from_one: bool) -> Result<Observations, StoreError> {
    let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase());
    let found = match ending.as_deref() {
        Some("csv" | "tsv" | "txt") => lines::parse(&text::read(path)?, from_one),
        Some("mtx") => matrix_market::parse(&text::read(path)?),
        Some("npz") => sparse::parse(&npy::read_archive(path)?),
        Some("npy") => dense(npy::read(path)?),
        _ => Err(ObservationsError::Ending),
    };
    let found = found
        .and_then(|found| if found.triples.is_empty() { Err(ObservationsError::Empty) } else { Ok(found) });
    found.map_err(|cause| StoreError::Observations { path: path.to_owned(), cause })
}

/// The places of a file of lines `row, column`, with or without more columns.
///
/// # Errors
/// As [`read`].
pub fn read_places(path: &Path, from_one: bool) -> Result<Vec<(usize, usize)>, StoreError> {
    let places = lines::places(&text::read(path)?, from_one);
    places.map_err(|cause| StoreError::Observations { path: path.to_owned(), cause })
}

/// Every entry that is not NaN.
fn dense(array: npy::Array) -> Result<Observations, ObservationsError> {
    let [rows, cols] = array.shape[..] else {
        return Err(ObservationsError::Arrays(format!(
            "an array of the axes {:?}; a matrix has two",
            array.shape
        )));
    };
    let observed = array.values.iter().enumerate().filter(|(_, value)| !value.is_nan());
    if let Some((at, value)) = observed.clone().find(|(_, value)| value.is_infinite()) {
        let (row, col) = (at / cols, at % cols);
        return Err(ObservationsError::Arrays(format!(
            "row {row}, column {col} (from 0) is {value}; NaN means not observed"
        )));
    }
    let triples = observed.map(|(at, &value)| (at / cols, at % cols, value)).collect();
    Ok(Observations { rows, cols, triples })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nan_is_missing_and_infinity_is_wrong() {
        let array = |values: Vec<f64>| npy::Array { shape: vec![2, 2], values };
        let found = dense(array(vec![1.0, f64::NAN, 3.0, f64::NAN])).unwrap();
        assert_eq!(found.triples, [(0, 0, 1.0), (1, 0, 3.0)]);
        let refused = dense(array(vec![1.0, f64::NAN, 3.0, f64::INFINITY])).unwrap_err();
        assert!(refused.to_string().contains("row 1, column 1"), "{refused}");
        assert!(dense(npy::Array { shape: vec![4], values: vec![0.0; 4] }).is_err());
    }

    #[test]
    fn files_are_told_by_their_endings() {
        let folder = tempfile::tempdir().unwrap();
        let read = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            read(&path, false)
        };
        assert_eq!(read("a.csv", b"0,1,2.5\n").unwrap().triples, [(0, 1, 2.5)]);
        assert_eq!(
            read("a.mtx", b"%%MatrixMarket matrix coordinate real general\n2 2 1\n1 2 2.5\n")
                .unwrap()
                .triples,
            [(0, 1, 2.5)]
        );
        assert!(read("a.parquet", b"").unwrap_err().to_string().contains(".csv"));
        assert!(read("a.csv", b"").unwrap_err().to_string().contains("no observations"));
        assert!(read("a.csv", b"\xff").is_err());
    }
}
