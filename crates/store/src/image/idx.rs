//! IDX files: the format of MNIST and Fashion-MNIST, plain or compressed with gzip.
//!
//! Source: LeCun, Cortes and Burges, "The MNIST database of handwritten digits": two zero bytes, the type of the values, the
//! number of axes, each axis as a big-endian 32-bit number, then the values, the last axis running fastest.

use std::path::Path;

use zune_inflate::{DeflateDecoder, DeflateOptions};

use crate::StoreError;

/// Axes up to which a file is read: images in colour have four.
const AXES: usize = 4;
/// Bytes up to which a file is unpacked: the largest of its kind have half of that.
const BYTES: usize = 1 << 30;

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
    #[error("an IDX header of the axes {0:?}: from 1 to {AXES} axes are read, none of them 0")]
    Shape(Vec<usize>),
    /// Fewer bytes than the header says.
    #[error("{found} bytes where the header says {expected}; the download may be incomplete")]
    Short {
        /// Bytes there.
        found: usize,
        /// Bytes by the header.
        expected: usize,
    },
    /// More bytes than the header says.
    #[error("{found} values where the header says {expected}; another file is joined to it")]
    Long {
        /// Values there.
        found: usize,
        /// Values by the header.
        expected: usize,
    },
    /// The compressed stream is damaged.
    #[error("damaged gzip data: {0}")]
    Gzip(String),
}

/// Reads an IDX file; its first bytes say whether it is compressed, not its name.
///
/// # Errors
/// [`StoreError::Io`], [`StoreError::Idx`].
pub fn read(path: &Path) -> Result<Idx, StoreError> {
    let bytes = std::fs::read(path).map_err(StoreError::io(path, "read"))?;
    let found = match bytes.as_slice() {
        [0x1f, 0x8b, ..] => unpacked(&bytes).and_then(|bytes| parse(&bytes)),
        plain => parse(plain),
    };
    found.map_err(|cause| StoreError::Idx { path: path.to_owned(), cause })
}

fn unpacked(bytes: &[u8]) -> Result<Vec<u8>, IdxError> {
    let options = DeflateOptions::default().set_limit(BYTES).set_confirm_checksum(true);
    let unpacked = DeflateDecoder::new_with_options(bytes, options).decode_gzip();
    unpacked.map_err(|error| IdxError::Gzip(format!("{:?}", error.error)))
}

fn parse(bytes: &[u8]) -> Result<Idx, IdxError> {
    let short = |expected: usize| IdxError::Short { found: bytes.len(), expected };
    let (&[first, second, kind, axes], rest) = bytes.split_first_chunk().ok_or_else(|| short(4))?;
    if [first, second] != [0, 0] {
        return Err(IdxError::Magic([first, second]));
    }
    if kind != 8 {
        return Err(IdxError::Type(kind));
    }
    let axes = usize::from(axes);
    let (lengths, values) = rest.split_at_checked(4 * axes).ok_or_else(|| short(4 + 4 * axes))?;
    let length = |bytes: &[u8]| bytes.iter().fold(0_usize, |sum, &byte| sum << 8 | usize::from(byte));
    let shape: Vec<usize> = lengths.chunks_exact(4).map(length).collect();
    let product = shape.iter().try_fold(1_usize, |product, &side| product.checked_mul(side));
    let expected = match product {
        Some(product) if product > 0 && (1..=AXES).contains(&axes) => product,
        _ => return Err(IdxError::Shape(shape)),
    };
    match values.len() {
        found if found < expected => Err(IdxError::Short { found, expected }),
        found if found > expected => Err(IdxError::Long { found, expected }),
        _ => Ok(Idx { shape, values: values.to_vec() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::packed;

    fn file(shape: &[u32], values: &[u8]) -> Vec<u8> {
        let axes = shape.iter().flat_map(|side| side.to_be_bytes());
        [0, 0, 8, shape.len() as u8].into_iter().chain(axes).chain(values.iter().copied()).collect()
    }

    /// `gzip.compress(file([4, 50], bytes(i % 7 for i in range(200))), mtime=0)` of Python 3.11; base64.
    const PACKED: &str = "H4sIAAAAAAACA2Ng4GBiYGBgAWIjBkYmZhZWtiFPAQDK/lMP1AAAAA==";

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
        for bytes in [bytes.clone(), packed::gzip(&bytes)] {
            let path = folder.path().join("images");
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(read(&path).unwrap(), Idx { shape: vec![2, 3, 4], values: values.clone() });
        }
        let path = folder.path().join("of-python");
        std::fs::write(&path, crate::image::base64::decode(PACKED).unwrap()).unwrap();
        let values = (0..200).map(|i| i % 7).collect();
        assert_eq!(read(&path).unwrap(), Idx { shape: vec![4, 50], values });
    }

    #[test]
    fn each_kind_of_damage_has_its_error() {
        let good = file(&[3], &[1, 2, 3]);
        assert_eq!(said(&good), "[3]");
        assert!(said(&good[..2]).contains("2 bytes where the header says 4"));
        assert!(said(b"PK\x03\x04 and so on").contains("not an IDX file"));
        assert!(said(&[0, 0, 13, 1, 0, 0, 0, 1, 0, 0, 0, 0]).contains("0x0d"));
        assert!(said(&file(&[], &[])).contains("axes []"));
        assert!(said(&file(&[1, 1, 1, 1, 1], &[1])).contains("axes"));
        assert!(said(&file(&[0], &[])).contains("axes [0]"));
        assert!(said(&file(&[u32::MAX; 3], &[])).contains("axes"));
        assert!(said(&good[..good.len() - 1]).contains("2 bytes where the header says 3"));
        assert!(said(&[good.as_slice(), &[9]].concat()).contains("4 values where the header says 3"));
        let packed = packed::gzip(&file(&[600], &[7; 600]));
        assert!(said(&packed[..packed.len() - 9]).contains("gzip"), "{}", said(&packed[..packed.len() - 9]));
        assert!(said(&[]).contains("0 bytes"));
    }
}
