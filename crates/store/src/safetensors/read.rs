use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::SafetensorsError;
use super::header::RawHeader;
use crate::mapped::Mapped;
use crate::tensors::{Dtype, Placed, Table, TensorInfo};
use crate::{StoreError, TensorSource};

/// The format's own limit on the header.
const HEADER_LIMIT: u64 = 100_000_000;

/// What a header says, checked against the length of the file.
#[derive(Debug)]
pub(crate) struct Parsed {
    /// In the order in which they lie in the file; offsets from the beginning of the file.
    pub(crate) tensors: Vec<Placed>,
    pub(crate) metadata: BTreeMap<String, String>,
}

/// Checks a whole file. Everything that is allocated is a small multiple of the header that is really there.
pub(crate) fn parse(bytes: &[u8]) -> Result<Parsed, SafetensorsError> {
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
        return Err(SafetensorsError::TooShort { len: bytes.len() });
    };
    let declared = u64::from_le_bytes(*length);
    if declared > HEADER_LIMIT {
        return Err(SafetensorsError::HeaderTooLong { declared, limit: HEADER_LIMIT });
    }
    let header_len = declared as usize;
    let Some((header, data)) = rest.split_at_checked(header_len) else {
        return Err(SafetensorsError::HeaderPastEnd { declared, left: rest.len() });
    };
    let text = std::str::from_utf8(header)
        .map_err(|error| SafetensorsError::HeaderNotUtf8 { at: error.valid_up_to() })?;
    let raw: RawHeader = serde_json::from_str(text).map_err(|error| SafetensorsError::HeaderJson {
        column: error.column(),
        message: crate::json::without_position(&error),
    })?;
    if raw.metadata.len() > 1 {
        return Err(SafetensorsError::DuplicateMetadata);
    }
    let mut tensors = Vec::with_capacity(raw.tensors.len());
    for (name, entry) in raw.tensors {
        let (begin, end) = entry.data_offsets;
        let Some(dtype) = Dtype::in_safetensors(&entry.dtype) else {
            return Err(SafetensorsError::UnknownDtype { name, dtype: entry.dtype });
        };
        let shape = entry.shape;
        let Some(expected) = dtype.bytes_of(&shape) else {
            return Err(SafetensorsError::ShapeOverflow { name, shape });
        };
        let Some(found) = end.checked_sub(begin) else {
            return Err(SafetensorsError::OffsetsReversed { name, begin, end });
        };
        if found != expected {
            return Err(SafetensorsError::SizeMismatch { name, shape, expected, found });
        }
        let (_, size) = dtype.block();
        if !begin.is_multiple_of(size) {
            return Err(SafetensorsError::Misaligned { name, begin, size });
        }
        tensors.push(Placed { info: TensorInfo { name, dtype, shape }, begin, end });
    }
    cover(&mut tensors, data.len())?;
    unique(&tensors)?;
    // Our checks name the damage; the library's parser has the last word on what a safetensors file is.
    ::safetensors::SafeTensors::read_metadata(bytes)
        .map_err(|error| SafetensorsError::Library { message: error.to_string() })?;
    for tensor in &mut tensors {
        tensor.begin += 8 + header_len;
        tensor.end += 8 + header_len;
    }
    Ok(Parsed { tensors, metadata: raw.metadata.into_iter().next().unwrap_or_default() })
}

/// The tensors, one after the other, are the whole data.
fn cover(tensors: &mut [Placed], len: usize) -> Result<(), SafetensorsError> {
    tensors.sort_by_key(|tensor| (tensor.begin, tensor.end));
    let mut reached = 0;
    for tensor in &*tensors {
        let (name, begin, end) = (tensor.info.name.clone(), tensor.begin, reached);
        if begin < end {
            return Err(SafetensorsError::Overlap { name, begin, end });
        }
        if begin > end {
            return Err(SafetensorsError::Gap { name, begin, end });
        }
        reached = tensor.end;
    }
    if reached > len {
        return Err(SafetensorsError::DataCutOff { needed: reached, found: len });
    }
    if reached < len {
        return Err(SafetensorsError::TrailingBytes { extra: len - reached });
    }
    Ok(())
}

fn unique(tensors: &[Placed]) -> Result<(), SafetensorsError> {
    let mut names: Vec<&str> = tensors.iter().map(|tensor| tensor.info.name.as_str()).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(SafetensorsError::DuplicateName { name: pair[0].to_owned() }),
        None => Ok(()),
    }
}

/// A safetensors file, mapped and checked.
#[derive(Debug)]
pub struct SafetensorsFile {
    path: PathBuf,
    bytes: Mapped,
    table: Table,
    metadata: BTreeMap<String, String>,
}

impl SafetensorsFile {
    /// Maps a file and checks all of its header.
    ///
    /// # Errors
    /// [`StoreError::Io`], or [`StoreError::Safetensors`] with the kind of damage.
    pub fn open(path: &Path) -> Result<SafetensorsFile, StoreError> {
        SafetensorsFile::new(path, Mapped::open(path)?)
    }

    /// A file that is in memory: read before, or built into the program.
    ///
    /// # Errors
    /// [`StoreError::Safetensors`].
    pub fn from_bytes(bytes: impl Into<Cow<'static, [u8]>>) -> Result<SafetensorsFile, StoreError> {
        SafetensorsFile::new(Path::new("(in memory)"), Mapped::Memory(bytes.into()))
    }

    fn new(path: &Path, bytes: Mapped) -> Result<SafetensorsFile, StoreError> {
        let damaged = |cause| StoreError::Safetensors { path: path.to_owned(), cause };
        let parsed = parse(&bytes).map_err(damaged)?;
        let table =
            Table::new(parsed.tensors).map_err(|name| damaged(SafetensorsError::DuplicateName { name }))?;
        Ok(SafetensorsFile { path: path.to_owned(), bytes, table, metadata: parsed.metadata })
    }
}

impl TensorSource for SafetensorsFile {
    fn names(&self) -> &[String] {
        &self.table.names
    }

    fn info(&self, name: &str) -> Result<&TensorInfo, StoreError> {
        Ok(&self.table.get(&self.path, name)?.info)
    }

    fn bytes(&self, name: &str) -> Result<&[u8], StoreError> {
        let placed = self.table.get(&self.path, name)?;
        Ok(&self.bytes[placed.begin..placed.end])
    }

    fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::super::SafetensorsError as E;
    use super::{SafetensorsFile, parse};
    use crate::TensorSource;

    fn file(header: &str, data: usize) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend((0..data).map(|i| i as u8));
        bytes
    }

    fn check(header: &str, data: usize, expected: &E) {
        let found = parse(&file(header, data)).unwrap_err();
        assert_eq!(found, *expected, "{header}");
        assert!(!found.to_string().is_empty());
    }

    #[test]
    fn each_damage_has_its_own_error() {
        let name = "a".to_owned();
        assert_eq!(parse(&[1, 2]).unwrap_err(), E::TooShort { len: 2 });
        assert_eq!(
            parse(&[255; 20]).unwrap_err(),
            E::HeaderTooLong { declared: u64::MAX, limit: 100_000_000 }
        );
        assert_eq!(parse(&file("{}", 0)[..9]).unwrap_err(), E::HeaderPastEnd { declared: 2, left: 1 });
        let mut bytes = file("{ }", 0);
        bytes[9] = 0xff;
        assert_eq!(parse(&bytes).unwrap_err(), E::HeaderNotUtf8 { at: 1 });
        check(
            "[]",
            0,
            &E::HeaderJson {
                column: 0,
                message: "invalid type: sequence, expected an object of tensors".into(),
            },
        );
        let message = "unknown field `x`, expected one of `dtype`, `shape`, `data_offsets`".to_owned();
        check(r#"{"a":{"x":1}}"#, 0, &E::HeaderJson { column: 9, message });
        check(r#"{"__metadata__":{},"__metadata__":{}}"#, 0, &E::DuplicateMetadata);
        let one = r#""a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}"#;
        check(&format!("{{{one},{one}}}"), 0, &E::DuplicateName { name: name.clone() });
        let a = |dtype: &str, shape: &str, offsets: &str| {
            format!(r#"{{"a":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#)
        };
        check(
            &a("Q4_0", "[32]", "[0,18]"),
            18,
            &E::UnknownDtype { name: name.clone(), dtype: "Q4_0".into() },
        );
        let shape = vec![1 << 40, 1 << 40];
        check(
            &a("F32", "[1099511627776,1099511627776]", "[0,4]"),
            4,
            &E::ShapeOverflow { name: name.clone(), shape },
        );
        check(&a("F32", "[1]", "[4,0]"), 4, &E::OffsetsReversed { name: name.clone(), begin: 4, end: 0 });
        let error = E::SizeMismatch { name: name.clone(), shape: vec![3], expected: 12, found: 8 };
        check(&a("F32", "[3]", "[0,8]"), 8, &error);
        check(&a("F32", "[1]", "[2,6]"), 6, &E::Misaligned { name: name.clone(), begin: 2, size: 4 });
        check(&a("F32", "[1]", "[4,8]"), 8, &E::Gap { name, begin: 4, end: 0 });
        check(&a("F32", "[2]", "[0,8]"), 7, &E::DataCutOff { needed: 8, found: 7 });
        check(&a("F32", "[2]", "[0,8]"), 9, &E::TrailingBytes { extra: 1 });
        let two = r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[3],"data_offsets":[2,5]}}"#;
        check(two, 5, &E::Overlap { name: "b".into(), begin: 2, end: 4 });
    }

    #[test]
    fn gives_what_is_there() {
        let header = r#"{"__metadata__":{"format":"pt"},"b":{"dtype":"BF16","shape":[2,1],"data_offsets":[0,4]},"a":{"dtype":"I16","shape":[],"data_offsets":[4,6]}}"#;
        let file = SafetensorsFile::from_bytes(file(header, 6)).unwrap();
        assert_eq!(file.names(), ["a", "b"]);
        assert_eq!(file.info("b").unwrap().shape, [2, 1]);
        assert_eq!(file.bytes("a").unwrap(), [4, 5]);
        assert_eq!(file.widened("b").unwrap(), [f32::from_bits(0x0100_0000), f32::from_bits(0x0302_0000)]);
        assert_eq!(file.metadata()["format"], "pt");
        assert!(matches!(file.widened("a"), Err(crate::StoreError::NotReal { dtype: "I16", .. })));
        assert!(matches!(file.info("c"), Err(crate::StoreError::NoTensor { .. })));
    }
}
