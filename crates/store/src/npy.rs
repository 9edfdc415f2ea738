//! NPY and NPZ files: arrays as NumPy writes them.
//!
//! Source: the NumPy enhancement proposal 1 and `numpy.lib.format`, versions 1 to 3; an NPZ is a zip archive of NPY files. Read are
//! little-endian real numbers, integers and booleans of one or more axes, as f64; integers beyond 2⁵³ are refused, because they
//! would be rounded.

mod archive;
mod header;

use std::io::{self, Write};
use std::path::Path;

use crate::StoreError;
use header::Header;

/// Numbers on a grid.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    /// Length of each axis; empty for a single number.
    pub shape: Vec<usize>,
    /// The values, the last axis running fastest.
    pub values: Vec<f64>,
}

/// What is wrong with the content of an NPY or NPZ file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NpyError {
    /// The first bytes are others.
    #[error("not an NPY file: it should begin with \\x93NUMPY")]
    Magic,
    /// A version that is not known.
    #[error("NPY version {0}; versions 1 to 3 are read")]
    Version(u8),
    /// A header that cannot be read.
    #[error("the NPY header: {0}")]
    Header(String),
    /// A type that is not read.
    #[error(
        "values of type {0:?}; little-endian real numbers, integers and booleans are read, e.g. '<f8': convert it with astype"
    )]
    Type(String),
    /// More or fewer bytes than the header says.
    #[error("{found} bytes of values where the header says {expected}; the file may be incomplete")]
    Length {
        /// Bytes there.
        found: usize,
        /// Bytes by the header.
        expected: usize,
    },
    /// An integer that f64 cannot hold.
    #[error("value {index} is an integer beyond 2^53, which would be rounded")]
    Large {
        /// Which value, from 0.
        index: usize,
    },
    /// A damaged archive.
    #[error("the NPZ archive: {0}")]
    Archive(String),
    /// An array that is not in the archive.
    #[error("the NPZ archive holds no array {wanted:?}; it holds {found}")]
    Missing {
        /// Its name.
        wanted: String,
        /// The names there.
        found: String,
    },
}

/// Reads an NPY file.
///
/// # Errors
/// [`StoreError::Io`], [`StoreError::Npy`].
pub fn read(path: &Path) -> Result<Array, StoreError> {
    let bytes = std::fs::read(path).map_err(StoreError::io(path, "read"))?;
    parse(&bytes).map_err(|cause| StoreError::Npy { path: path.to_owned(), cause })
}

/// The bytes of an NPY file as an array.
///
/// # Errors
/// [`NpyError`].
pub fn parse(bytes: &[u8]) -> Result<Array, NpyError> {
    let Header { descr, fortran, shape, data } = Header::parse(bytes)?;
    let kind = match descr.as_bytes() {
        [b'<' | b'|' | b'=', kind @ ..] => kind,
        _ => return Err(NpyError::Type(descr)),
    };
    let values = match kind {
        b"f8" => numbers(data, &shape, f64::from_le_bytes)?,
        b"f4" => numbers(data, &shape, |bytes| f64::from(f32::from_le_bytes(bytes)))?,
        b"i8" => integers(data, &shape, |bytes| i128::from(i64::from_le_bytes(bytes)))?,
        b"u8" => integers(data, &shape, |bytes| i128::from(u64::from_le_bytes(bytes)))?,
        b"i4" => numbers(data, &shape, |bytes| f64::from(i32::from_le_bytes(bytes)))?,
        b"u4" => numbers(data, &shape, |bytes| f64::from(u32::from_le_bytes(bytes)))?,
        b"i2" => numbers(data, &shape, |bytes| f64::from(i16::from_le_bytes(bytes)))?,
        b"u2" => numbers(data, &shape, |bytes| f64::from(u16::from_le_bytes(bytes)))?,
        b"i1" => numbers(data, &shape, |bytes| f64::from(i8::from_le_bytes(bytes)))?,
        b"u1" => numbers(data, &shape, |bytes| f64::from(u8::from_le_bytes(bytes)))?,
        b"b1" => numbers(data, &shape, |[byte]: [u8; 1]| f64::from(u8::from(byte != 0)))?,
        _ => return Err(NpyError::Type(descr)),
    };
    let values = if fortran { from_columns(&values, &shape)? } else { values };
    Ok(Array { shape, values })
}

fn numbers<const N: usize>(
    data: &[u8],
    shape: &[usize],
    value: impl Fn([u8; N]) -> f64,
) -> Result<Vec<f64>, NpyError> {
    Ok(chunks(data, shape)?.iter().map(|&bytes| value(bytes)).collect())
}

fn integers<const N: usize>(
    data: &[u8],
    shape: &[usize],
    value: impl Fn([u8; N]) -> i128,
) -> Result<Vec<f64>, NpyError> {
    let exact = |(index, &bytes): (usize, &[u8; N])| {
        let integer = value(bytes);
        if integer.unsigned_abs() <= 1 << 53 { Ok(integer as f64) } else { Err(NpyError::Large { index }) }
    };
    chunks(data, shape)?.iter().enumerate().map(exact).collect()
}

/// The bytes of each value, as many as the shape says.
fn chunks<'a, const N: usize>(data: &'a [u8], shape: &[usize]) -> Result<&'a [[u8; N]], NpyError> {
    let count = shape.iter().try_fold(N, |product, &side| product.checked_mul(side));
    match count {
        Some(expected) if expected == data.len() => Ok(data.as_chunks::<N>().0),
        _ => Err(NpyError::Length { found: data.len(), expected: count.unwrap_or(usize::MAX) }),
    }
}

/// Values with the first axis running fastest, in the usual order.
fn from_columns(values: &[f64], shape: &[usize]) -> Result<Vec<f64>, NpyError> {
    match *shape {
        [] | [_] => Ok(values.to_vec()),
        [rows, cols] => Ok((0..rows * cols).map(|at| values[at % cols * rows + at / cols]).collect()),
        _ => Err(NpyError::Header(
            "Fortran order is read for up to two axes; save it with order='C'".to_owned(),
        )),
    }
}

/// The arrays of an NPZ archive.
#[derive(Debug, Clone)]
pub struct Npz {
    files: Vec<(String, Vec<u8>)>,
}

/// Reads an NPZ archive; everything in it is unpacked, up to a gibibyte in all.
///
/// # Errors
/// [`StoreError::Io`], [`StoreError::Npy`].
pub fn read_archive(path: &Path) -> Result<Npz, StoreError> {
    let bytes = std::fs::read(path).map_err(StoreError::io(path, "read"))?;
    let files = archive::unpacked(&bytes);
    files.map(|files| Npz { files }).map_err(|cause| StoreError::Npy { path: path.to_owned(), cause })
}

impl Npz {
    /// The names of the arrays, in the order in which the archive lists them.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.files.iter().map(|(name, _)| name.strip_suffix(".npy").unwrap_or(name))
    }

    /// An array of numbers.
    ///
    /// # Errors
    /// [`NpyError`].
    pub fn array(&self, name: &str) -> Result<Array, NpyError> {
        parse(self.file(name)?)
    }

    /// The bytes of an array of text of one byte a letter, as SciPy names its formats; zeros at its end removed.
    ///
    /// # Errors
    /// [`NpyError`].
    pub fn text(&self, name: &str) -> Result<String, NpyError> {
        let header = Header::parse(self.file(name)?)?;
        // '|S3' has one byte a letter, '<U3' four.
        let letters: Vec<u8> = header.data.iter().copied().filter(|&byte| byte != 0).collect();
        Ok(String::from_utf8_lossy(&letters).into_owned())
    }

    fn file(&self, name: &str) -> Result<&[u8], NpyError> {
        let mut names = self.names();
        let found = names.position(|found| found == name).and_then(|index| self.files.get(index));
        found.map(|(_, bytes)| bytes.as_slice()).ok_or_else(|| NpyError::Missing {
            wanted: name.to_owned(),
            found: self.names().collect::<Vec<_>>().join(", "),
        })
    }
}

/// Writes an array of f64, version 1, as NumPy does.
///
/// # Errors
/// [`io::ErrorKind::InvalidInput`] when the shape does not fit the values, or the sink's own error.
pub fn write_to(sink: &mut dyn Write, shape: &[usize], values: &[f64]) -> io::Result<()> {
    if shape.iter().try_fold(1, |product: usize, &side| product.checked_mul(side)) != Some(values.len()) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the shape does not fit the values"));
    }
    sink.write_all(&header::written(shape))?;
    values.iter().try_for_each(|value| sink.write_all(&value.to_le_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(shape: &[usize], values: &[f64]) -> Vec<u8> {
        let mut bytes = Vec::new();
        write_to(&mut bytes, shape, values).unwrap();
        bytes
    }

    #[test]
    fn what_is_written_is_read() {
        for (shape, values) in
            [(vec![2, 3], vec![1.0, -2.0, f64::NAN, 0.5, 1e300, 6.0]), (vec![4], vec![0.0; 4])]
        {
            let bytes = written(&shape, &values);
            assert_eq!(bytes.len() % 64, values.len() * 8 % 64, "the header is aligned");
            let read = parse(&bytes).unwrap();
            assert_eq!(read.shape, shape);
            assert!(read.values.iter().zip(&values).all(|(a, b)| a.to_bits() == b.to_bits()));
        }
        assert!(write_to(&mut Vec::new(), &[2], &[1.0]).is_err());
    }

    /// A file with this header and these bytes.
    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(data);
        bytes
    }

    #[test]
    fn other_types_and_orders_are_read() {
        let header = "{'descr': '<i2', 'fortran_order': True, 'shape': (2, 3), }";
        let data: Vec<u8> = [1_i16, 4, 2, 5, 3, -6].iter().flat_map(|x| x.to_le_bytes()).collect();
        assert_eq!(parse(&file(header, &data)).unwrap().values, [1.0, 2.0, 3.0, 4.0, 5.0, -6.0]);
        let header = "{'descr': '|b1', 'fortran_order': False, 'shape': (3,), }";
        assert_eq!(parse(&file(header, &[0, 1, 1])).unwrap().values, [0.0, 1.0, 1.0]);
    }

    #[test]
    fn each_damage_has_its_error() {
        assert_eq!(parse(b"no"), Err(NpyError::Magic));
        assert_eq!(parse(b"\x93NUMPY\x09\x00\x00\x00"), Err(NpyError::Version(9)));
        let of = |header: &str, data: &[u8]| parse(&file(header, data)).unwrap_err();
        assert!(matches!(of("{'descr': '<f8'}", &[]), NpyError::Header(_)));
        let header = |descr: &str, shape: &str| {
            format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}")
        };
        assert!(matches!(of(&header(">f8", "(1,)"), &[0; 8]), NpyError::Type(_)));
        assert!(matches!(of(&header("<c16", "(1,)"), &[0; 16]), NpyError::Type(_)));
        assert_eq!(of(&header("<f8", "(2,)"), &[0; 15]), NpyError::Length { found: 15, expected: 16 });
        let huge = of(&header("<f8", "(4294967296, 4294967296, 4294967296)"), &[0; 8]);
        assert!(matches!(huge, NpyError::Length { found: 8, .. }));
        assert_eq!(of(&header("<u8", "(1,)"), &[255; 8]), NpyError::Large { index: 0 });
        assert!(matches!(parse(&file("{'descr'", &[])[..12]), Err(NpyError::Header(_))));
    }
}
