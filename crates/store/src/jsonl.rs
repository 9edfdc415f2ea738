//! Files with one JSON value a line, read line by line.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::StoreError;
use crate::json::{self, Unambiguous};

/// The values of a file with their line numbers, from 1. Blank lines are passed over. After an error it ends.
#[derive(Debug)]
pub struct Lines {
    path: PathBuf,
    reader: BufReader<File>,
    line: usize,
    /// Bytes read before the present line.
    offset: usize,
    ended: bool,
}

/// Opens a file of JSON lines.
///
/// # Errors
/// [`StoreError::Io`] when it cannot be opened. Each item may be [`StoreError::NotUtf8`] (position in the file) or
/// [`StoreError::Json`] (line and column).
pub fn read(path: &Path) -> Result<Lines, StoreError> {
    let file = File::open(path).map_err(StoreError::io(path, "open"))?;
    Ok(Lines { path: path.to_owned(), reader: BufReader::new(file), line: 0, offset: 0, ended: false })
}

impl Lines {
    fn value(&mut self) -> Result<Option<(usize, Value)>, StoreError> {
        loop {
            let mut bytes = Vec::new();
            let read =
                self.reader.read_until(b'\n', &mut bytes).map_err(StoreError::io(&self.path, "read"))?;
            if read == 0 {
                return Ok(None);
            }
            self.line += 1;
            let before = self.offset;
            self.offset += read;
            let text = std::str::from_utf8(&bytes).map_err(|error| StoreError::NotUtf8 {
                path: self.path.clone(),
                at: before + error.valid_up_to(),
            })?;
            if text.trim().is_empty() {
                continue;
            }
            let Unambiguous(value) = serde_json::from_str(text).map_err(|error| StoreError::Json {
                path: self.path.clone(),
                line: self.line,
                column: error.column(),
                message: json::without_position(&error),
            })?;
            return Ok(Some((self.line, value)));
        }
    }
}

impl Iterator for Lines {
    type Item = Result<(usize, Value), StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let item = self.value().transpose();
        self.ended = !matches!(item, Some(Ok(_)));
        item
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::StoreError;

    #[test]
    fn gives_values_with_their_lines_and_names_the_bad_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data.jsonl");
        std::fs::write(&path, "{\"a\": 1}\n\n[2]\r\n{\"a\" 3}\n4\n").unwrap();
        let items: Vec<_> = super::read(&path).unwrap().collect();
        assert_eq!(items.len(), 3);
        assert_eq!(*items[0].as_ref().unwrap(), (1, json!({"a": 1})));
        assert_eq!(*items[1].as_ref().unwrap(), (3, json!([2])));
        assert!(matches!(items[2], Err(StoreError::Json { line: 4, column: 6, .. })), "{:?}", items[2]);
        std::fs::write(&path, "1\n{\"a\": 1, \"a\": 2}\n").unwrap();
        let last = super::read(&path).unwrap().last().unwrap();
        assert!(matches!(&last, Err(StoreError::Json { line: 2, .. })), "{last:?}");
        std::fs::write(&path, b"1\n\"\xfe\"\n").unwrap();
        let last = super::read(&path).unwrap().last().unwrap();
        assert!(matches!(last, Err(StoreError::NotUtf8 { at: 3, .. })), "{last:?}");
    }
}
