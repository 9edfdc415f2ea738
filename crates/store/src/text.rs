//! Text files.

use std::path::Path;

use crate::StoreError;

/// Reads a whole UTF-8 file.
///
/// # Errors
/// [`StoreError::Io`], or [`StoreError::NotUtf8`] with the position of the first bad byte.
pub fn read(path: &Path) -> Result<String, StoreError> {
    let bytes = std::fs::read(path).map_err(StoreError::io(path, "read"))?;
    String::from_utf8(bytes)
        .map_err(|error| StoreError::NotUtf8 { path: path.to_owned(), at: error.utf8_error().valid_up_to() })
}

/// Writes a whole text file, atomically.
///
/// # Errors
/// [`StoreError::Io`].
pub fn write(path: &Path, text: &str) -> Result<(), StoreError> {
    crate::atomic::write_file(path, |sink| sink.write_all(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use crate::StoreError;

    #[test]
    fn names_the_bad_byte() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes.txt");
        super::write(&path, "größe\n").unwrap();
        assert_eq!(super::read(&path).unwrap(), "größe\n");
        std::fs::write(&path, b"good \xff bad").unwrap();
        assert!(matches!(super::read(&path), Err(StoreError::NotUtf8 { at: 5, .. })));
    }
}
