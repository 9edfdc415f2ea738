//! Sparse matrices as `scipy.sparse.save_npz` writes them: COO, CSR and CSC.

use super::{Observations, ObservationsError};
use crate::npy::{Array, Npz};

fn wrong(problem: impl Into<String>) -> ObservationsError {
    ObservationsError::Arrays(problem.into())
}

pub(super) fn parse(archive: &Npz) -> Result<Observations, ObservationsError> {
    let holds = |name: &str| archive.names().any(|found| found == name);
    if !holds("format") {
        let names: Vec<&str> = archive.names().collect();
        return Err(wrong(format!(
            "the archive holds {}; scipy.sparse.save_npz writes format, shape, data and indices",
            names.join(", ")
        )));
    }
    let shape = whole("shape", &archive.array("shape")?)?;
    let [rows, cols] = shape[..] else { return Err(wrong("the shape is not that of a matrix")) };
    let data = archive.array("data")?.values;
    let (row, col) = match archive.text("format")?.as_str() {
        "coo" => (whole("row", &archive.array("row")?)?, whole("col", &archive.array("col")?)?),
        format @ ("csr" | "csc") => {
            let inner = whole("indices", &archive.array("indices")?)?;
            let lines = if format == "csr" { rows } else { cols };
            let outer = spread(&whole("indptr", &archive.array("indptr")?)?, lines, inner.len())?;
            if format == "csr" { (outer, inner) } else { (inner, outer) }
        }
        other => {
            return Err(wrong(format!(
                "a sparse matrix of the format {other:?}; coo, csr and csc are read: use .tocsr()"
            )));
        }
    };
    if row.len() != data.len() || col.len() != data.len() {
        return Err(wrong(format!(
            "{} values, {} rows and {} columns of them",
            data.len(),
            row.len(),
            col.len()
        )));
    }
    let triples: Vec<_> =
        row.into_iter().zip(col).zip(data).map(|((row, col), value)| (row, col, value)).collect();
    if let Some((index, triple)) =
        triples.iter().enumerate().find(|(_, triple)| triple.0 >= rows || triple.1 >= cols)
    {
        return Err(wrong(format!(
            "entry {index} is of row {}, column {} of a matrix [{rows}, {cols}]",
            triple.0, triple.1
        )));
    }
    if let Some((index, triple)) = triples.iter().enumerate().find(|(_, triple)| !triple.2.is_finite()) {
        return Err(wrong(format!("entry {index} is {}; leave out what was not observed", triple.2)));
    }
    Ok(Observations { rows, cols, triples })
}

/// Whole numbers of 0 or more.
fn whole(name: &str, array: &Array) -> Result<Vec<usize>, ObservationsError> {
    let number = |&value: &f64| {
        (value >= 0.0 && value.fract() == 0.0 && value < u32::MAX as f64).then_some(value as usize)
    };
    array
        .values
        .iter()
        .map(number)
        .collect::<Option<_>>()
        .ok_or_else(|| wrong(format!("{name} holds what is no index")))
}

/// The line of each entry, from where the lines begin.
fn spread(starts: &[usize], lines: usize, entries: usize) -> Result<Vec<usize>, ObservationsError> {
    let ordered = starts.windows(2).all(|pair| pair[0] <= pair[1]);
    let ends = (starts.len(), starts.first(), starts.last());
    if !ordered || ends != (lines + 1, Some(&0), Some(&entries)) {
        return Err(wrong("indptr does not fit the shape and the indices"));
    }
    Ok(starts
        .windows(2)
        .enumerate()
        .flat_map(|(line, pair)| std::iter::repeat_n(line, pair[1] - pair[0]))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::npy::read_archive;

    /// `scipy.sparse.save_npz` of [[0, 2.5, 0], [-1, 0, 4]] as COO, CSR and CSC.
    const EACH: [&[u8]; 3] =
        [include_bytes!("coo.npz"), include_bytes!("csr.npz"), include_bytes!("csc.npz")];

    #[test]
    fn what_scipy_wrote_is_read() {
        let folder = tempfile::tempdir().unwrap();
        for bytes in EACH {
            let path = folder.path().join("x.npz");
            std::fs::write(&path, bytes).unwrap();
            let mut found = parse(&read_archive(&path).unwrap()).unwrap();
            found.triples.sort_by_key(|triple| (triple.0, triple.1));
            assert_eq!((found.rows, found.cols), (2, 3));
            assert_eq!(found.triples, [(0, 1, 2.5), (1, 0, -1.0), (1, 2, 4.0)]);
        }
    }

    #[test]
    fn starts_that_do_not_fit_are_refused() {
        assert_eq!(spread(&[0, 1, 3], 2, 3).unwrap(), [0, 1, 1]);
        assert!(
            spread(&[0, 3, 1], 2, 1).is_err() && spread(&[0, 3], 2, 3).is_err() && spread(&[], 0, 0).is_err()
        );
    }
}
