use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use serde_json::{Map, Value, json};

use super::SafetensorsError;
use crate::atomic::{Disk, write_file_on};
use crate::{Dtype, StoreError};

/// A tensor to be written.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its element type; no block format.
    pub dtype: Dtype,
    /// Its sides.
    pub shape: &'a [usize],
    /// Its values, little-endian, row-major.
    pub bytes: &'a [u8],
}

/// Writes tensors to any sink: first those with the largest elements, so that all are aligned, otherwise in the order
/// given. Metadata are sorted and the header is padded with spaces to a multiple of 8, as the reference does. The same
/// input gives the same bytes.
///
/// # Errors
/// [`io::ErrorKind::InvalidInput`] around a [`SafetensorsError`] when the entries are not writable, or the sink's own
/// error.
pub fn write_to(
    sink: &mut dyn Write,
    entries: &[Entry<'_>],
    metadata: &BTreeMap<String, String>,
) -> io::Result<()> {
    let (header, order) =
        header(entries, metadata).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    sink.write_all(&(header.len() as u64).to_le_bytes())?;
    sink.write_all(&header)?;
    order.into_iter().try_for_each(|entry| sink.write_all(entry.bytes))
}

/// The bytes of a whole file.
///
/// # Errors
/// [`SafetensorsError`] when the entries are not writable.
pub fn encode(
    entries: &[Entry<'_>],
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>, SafetensorsError> {
    let (header, order) = header(entries, metadata)?;
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend(header);
    order.into_iter().for_each(|entry| out.extend(entry.bytes));
    Ok(out)
}

/// Writes a file, atomically.
///
/// # Errors
/// [`StoreError::Safetensors`] when the entries are not writable, [`StoreError::Io`].
pub fn write(
    disk: &Disk,
    path: &Path,
    entries: &[Entry<'_>],
    metadata: &BTreeMap<String, String>,
) -> Result<(), StoreError> {
    header(entries, metadata).map_err(|cause| StoreError::Safetensors { path: path.to_owned(), cause })?;
    write_file_on(disk, path, |sink| write_to(sink, entries, metadata))
}

fn header<'a>(
    entries: &'a [Entry<'a>],
    metadata: &BTreeMap<String, String>,
) -> Result<(Vec<u8>, Vec<&'a Entry<'a>>), SafetensorsError> {
    let mut order: Vec<&Entry<'_>> = entries.iter().collect();
    order.sort_by_key(|entry| std::cmp::Reverse(entry.dtype.block().1));
    let mut map = Map::new();
    if !metadata.is_empty() {
        map.insert("__metadata__".into(), json!(metadata));
    }
    let mut begin = 0;
    for entry in &order {
        let name = entry.name.to_owned();
        let (dtype, found) = (entry.dtype.name(), entry.bytes.len());
        if matches!(entry.dtype, Dtype::Real(format) if format.is_block()) {
            return Err(SafetensorsError::BlockFormat { name, dtype });
        }
        if entry.dtype.bytes_of(entry.shape) != Some(found) {
            return Err(SafetensorsError::WrongBytes { name, dtype, shape: entry.shape.to_vec(), found });
        }
        if name == "__metadata__" {
            return Err(SafetensorsError::ReservedName);
        }
        let end = begin + found;
        let value = json!({"dtype": dtype, "shape": entry.shape, "data_offsets": [begin, end]});
        if map.insert(name.clone(), value).is_some() {
            return Err(SafetensorsError::DuplicateName { name });
        }
        begin = end;
    }
    let mut header = Value::Object(map).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    Ok((header, order))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::{SafetensorsError as E, SafetensorsFile};
    use super::{Entry, encode, write};
    use crate::atomic::Disk;
    use crate::{Dtype, Format, TensorSource};

    const F32: Dtype = Dtype::Real(Format::F32);

    fn entry<'a>(name: &'a str, dtype: Dtype, shape: &'a [usize], bytes: &'a [u8]) -> Entry<'a> {
        Entry { name, dtype, shape, bytes }
    }

    #[test]
    fn what_is_written_is_read() {
        let metadata =
            BTreeMap::from([("seed".to_owned(), "7".to_owned()), ("format".to_owned(), "pt".to_owned())]);
        let entries = [
            entry("odd", Dtype::Bool, &[3], &[1, 0, 1]),
            entry("half", Dtype::Real(Format::F16), &[1], &[0, 0x3c]),
            entry("wide", Dtype::U64, &[1], &[9, 0, 0, 0, 0, 0, 0, 0]),
            entry("full", F32, &[1, 2], &[0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0]),
        ];
        let bytes = encode(&entries, &metadata).unwrap();
        assert_eq!(bytes, encode(&entries, &metadata).unwrap());
        assert!(
            bytes[8..].starts_with(br#"{"__metadata__":{"format":"pt","seed":"7"},"wide":{"#),
            "sorted metadata"
        );
        assert_eq!(u64::from_le_bytes(*bytes.first_chunk().unwrap()) % 8, 0);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        write(&Disk::real(), &path, &entries, &metadata).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
        let file = SafetensorsFile::open(&path).unwrap();
        assert_eq!(file.names(), ["full", "half", "odd", "wide"]);
        assert_eq!(file.widened("full").unwrap(), [1.0, -2.0]);
        assert_eq!(file.bytes("odd").unwrap(), [1, 0, 1]);
        assert_eq!(file.metadata(), &metadata);
    }

    #[test]
    fn refuses_what_it_could_not_read_back() {
        let none = BTreeMap::new();
        let a = entry("a", F32, &[1], &[0; 4]);
        assert_eq!(encode(&[a, a], &none), Err(E::DuplicateName { name: "a".into() }));
        assert_eq!(encode(&[entry("__metadata__", F32, &[1], &[0; 4])], &none), Err(E::ReservedName));
        let error = E::WrongBytes { name: "a".into(), dtype: "F32", shape: vec![2], found: 4 };
        assert_eq!(encode(&[entry("a", F32, &[2], &[0; 4])], &none), Err(error));
        let q8 = entry("a", Dtype::Real(Format::Q8_0), &[32], &[0; 34]);
        assert_eq!(encode(&[q8], &none), Err(E::BlockFormat { name: "a".into(), dtype: "Q8_0" }));
    }
}
