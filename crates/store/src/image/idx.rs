//! IDX files: the format of MNIST and Fashion-MNIST, plain or compressed with gzip.
//!
//! Source: LeCun, Cortes and Burges, "The MNIST database of handwritten digits": two zero bytes, the type of the values, the
//! number of axes, each axis as a big-endian 32-bit number, then the values, the last axis running fastest.

use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::Path;

use flate2::read::GzDecoder;

use crate::StoreError;

/// Axes up to which a file is read: images in colour have four.
const AXES: usize = 4;
/// Values up to which a file is read: the largest of its kind have some 50 million.
const VALUES: usize = 1 << 32;

/// Bytes on a grid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idx {
    /// Length of each axis: `[images, rows, columns]`, or `[labels]`.
    pub shape: Vec<usize>,
    /// The values, the last axis running fastest.
    pub values: Vec<u8>,
}

/// What is wrong with the content of an IDX file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdxError {
    /// The first bytes are others.
    #[error("not an IDX file: it should begin with two zero bytes, not {0:02x?}")]
    Magic([u8; 2]),
    /// Values of another type than bytes.
    #[error("IDX values of type {0:#04x}; unsigned bytes (0x08) are read")]
    Type(u8),
    /// A number of axes, or lengths, that no image data has.
    #[error(
        "an IDX header of the axes {0:?}: from 1 to {AXES} axes, none of them 0, and at most {VALUES} values are read"
    )]
    Shape(Vec<usize>),
    /// Fewer bytes than the header says.
    #[error("{found} values where the header says {expected}; the download may be incomplete")]
    Short {
        /// Values there.
        found: usize,
        /// Values by the header.
        expected: usize,
    },
    /// More bytes than the header says.
    #[error("more values than the {0} of the header")]
    Long(usize),
    /// The compressed stream is damaged.
    #[error("damaged gzip data: {0}")]
    Gzip(String),
}

/// Reads an IDX file; its first bytes say whether it is compressed, not its name.
///
/// # Errors
/// [`StoreError::Io`], [`StoreError::Idx`].
pub fn read(path: &Path) -> Result<Idx, StoreError> {
    let mut file = File::open(path).map_err(StoreError::io(path, "open"))?;
    let mut magic = Vec::new();
    (&mut file).take(2).read_to_end(&mut magic).map_err(StoreError::io(path, "read"))?;
    file.rewind().map_err(StoreError::io(path, "read"))?;
    let file = BufReader::new(file);
    let found = if magic == [0x1f, 0x8b] { parse(GzDecoder::new(file)) } else { parse(file) };
    found.map_err(|cause| StoreError::Idx { path: path.to_owned(), cause })
}

fn parse(mut from: impl Read) -> Result<Idx, IdxError> {
    let broken = |error: std::io::Error| IdxError::Gzip(error.to_string());
    // Grows with what is there: nothing is allocated on the word of the header.
    let mut take = |count: usize| -> Result<Vec<u8>, IdxError> {
        let mut bytes = Vec::new();
        (&mut from).take(count as u64).read_to_end(&mut bytes).map_err(broken)?;
        Ok(bytes)
    };
    let head = take(4)?;
    let &[first, second, kind, axes] = head.as_slice() else {
        return Err(IdxError::Short { found: head.len(), expected: 4 });
    };
    if [first, second] != [0, 0] {
        return Err(IdxError::Magic([first, second]));
    }
    if kind != 8 {
        return Err(IdxError::Type(kind));
    }
    let lengths = take(4 * usize::from(axes))?;
    let length = |bytes: &[u8]| bytes.iter().fold(0_usize, |sum, &byte| sum << 8 | usize::from(byte));
    let shape: Vec<usize> = lengths.chunks_exact(4).map(length).collect();
    let values = shape.iter().try_fold(1_usize, |product, &side| product.checked_mul(side));
    let expected = match values {
        Some(values) if shape.len() == usize::from(axes) && (1..=AXES).contains(&shape.len()) => values,
        _ => return Err(IdxError::Shape(shape)),
    };
    if expected == 0 || expected > VALUES {
        return Err(IdxError::Shape(shape));
    }
    let values = take(expected)?;
    if values.len() < expected {
        return Err(IdxError::Short { found: values.len(), expected });
    }
    if take(1)?.is_empty() { Ok(Idx { shape, values }) } else { Err(IdxError::Long(expected)) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn file(shape: &[u32], values: &[u8]) -> Vec<u8> {
        let axes = shape.iter().flat_map(|side| side.to_be_bytes());
        [0, 0, 8, shape.len() as u8].into_iter().chain(axes).chain(values.iter().copied()).collect()
    }

    fn zipped(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn said(bytes: &[u8]) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("images");
        std::fs::write(&path, bytes).unwrap();
        read(&path).map_or_else(|error| error.to_string(), |idx| format!("{:?}", idx.shape))
    }

    #[test]
    fn plain_and_compressed_files_are_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let values: Vec<u8> = (0..24).collect();
        let bytes = file(&[2, 3, 4], &values);
        for bytes in [bytes.clone(), zipped(&bytes)] {
            let path = folder.path().join("images");
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(read(&path).unwrap(), Idx { shape: vec![2, 3, 4], values: values.clone() });
        }
    }

    #[test]
    fn each_kind_of_damage_has_its_error() {
        let good = file(&[3], &[1, 2, 3]);
        assert_eq!(said(&good), "[3]");
        assert!(said(&good[..2]).contains("2 values where the header says 4"));
        assert!(said(b"PK\x03\x04 and so on").contains("not an IDX file"));
        assert!(said(&[0, 0, 13, 1, 0, 0, 0, 1, 0, 0, 0, 0]).contains("0x0d"));
        assert!(said(&file(&[], &[])).contains("axes []"));
        assert!(said(&file(&[1, 1, 1, 1, 1], &[1])).contains("axes"));
        assert!(said(&file(&[0], &[])).contains("axes [0]"));
        assert!(said(&file(&[u32::MAX, u32::MAX], &[])).contains("axes"));
        assert!(said(&good[..good.len() - 1]).contains("2 values where the header says 3"));
        assert!(said(&[good.as_slice(), &[9]].concat()).contains("more values than the 3"));
        let packed = zipped(&file(&[600], &[7; 600]));
        assert!(said(&packed[..packed.len() - 9]).contains("gzip"), "{}", said(&packed[..packed.len() - 9]));
        assert!(said(&[]).contains("0 values"));
    }
}
