use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::cursor::Cursor;
use super::{ALIGNMENT_KEY, Array, DEFAULT_ALIGNMENT, GgufError, MAGIC, MAX_SIDES, Value, tables};
use crate::mapped::Mapped;
use crate::tensors::{Placed, Table, TensorInfo};
use crate::{StoreError, TensorSource};

/// Whether a file begins like a GGUF file.
///
/// # Errors
/// [`StoreError::Io`].
pub fn is_gguf(path: &Path) -> Result<bool, StoreError> {
    let mut head = Vec::new();
    let file = File::open(path).map_err(StoreError::io(path, "open"))?;
    file.take(4).read_to_end(&mut head).map_err(StoreError::io(path, "read"))?;
    Ok(head == MAGIC)
}

/// A GGUF file, mapped and checked.
#[derive(Debug)]
pub struct GgufFile {
    path: PathBuf,
    bytes: Mapped,
    version: u32,
    /// In the order of the file.
    values: Vec<(String, Value)>,
    /// Tensor names in the order of the file.
    order: Vec<String>,
    table: Table,
    metadata: BTreeMap<String, String>,
}

impl GgufFile {
    /// Maps a file and checks everything but the numbers in the tensors.
    ///
    /// # Errors
    /// [`StoreError::Io`], or [`StoreError::Gguf`] with the kind of damage.
    pub fn open(path: &Path) -> Result<GgufFile, StoreError> {
        GgufFile::new(path, Mapped::open(path)?)
    }

    /// A file that is in memory: read before, or built into the program.
    ///
    /// # Errors
    /// [`StoreError::Gguf`].
    pub fn from_bytes(bytes: impl Into<Cow<'static, [u8]>>) -> Result<GgufFile, StoreError> {
        GgufFile::new(Path::new("(in memory)"), Mapped::Memory(bytes.into()))
    }

    fn new(path: &Path, bytes: Mapped) -> Result<GgufFile, StoreError> {
        let damaged = |cause| StoreError::Gguf { path: path.to_owned(), cause };
        let (version, values, tensors) = parse(&bytes).map_err(damaged)?;
        let order = tensors.iter().map(|tensor| tensor.info.name.clone()).collect();
        let table = Table::new(tensors).map_err(|name| damaged(GgufError::DuplicateName { name }))?;
        let metadata = values
            .iter()
            .filter_map(|(key, value)| match value {
                Value::String(text) => Some((key.clone(), text.clone())),
                _ => None,
            })
            .collect();
        Ok(GgufFile { path: path.to_owned(), bytes, version, values, order, table, metadata })
    }

    /// The format's version, 2 or 3.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Every key with its value, in the order of the file.
    #[must_use]
    pub fn values(&self) -> &[(String, Value)] {
        &self.values
    }

    /// Tensor names in the order of the file; [`TensorSource::names`] is sorted.
    #[must_use]
    pub fn file_order(&self) -> &[String] {
        &self.order
    }

    /// The value of a key, if it is there.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<&Value> {
        self.values.iter().find(|(known, _)| known == key).map(|(_, value)| value)
    }

    /// A count: any integer that fits, since writers disagree about the width.
    ///
    /// # Errors
    /// [`GgufError::MissingKey`], [`GgufError::WrongType`].
    pub fn u32(&self, key: &str) -> Result<u32, StoreError> {
        self.typed(key, "a count below 2^32", |value| match *value {
            Value::U8(value) => Some(u32::from(value)),
            Value::U16(value) => Some(u32::from(value)),
            Value::U32(value) => Some(value),
            Value::U64(value) => u32::try_from(value).ok(),
            Value::I8(value) => u32::try_from(value).ok(),
            Value::I16(value) => u32::try_from(value).ok(),
            Value::I32(value) => u32::try_from(value).ok(),
            Value::I64(value) => u32::try_from(value).ok(),
            _ => None,
        })
    }

    /// A number of single precision.
    ///
    /// # Errors
    /// [`GgufError::MissingKey`], [`GgufError::WrongType`].
    pub fn f32(&self, key: &str) -> Result<f32, StoreError> {
        self.typed(key, "f32", |value| match *value {
            Value::F32(value) => Some(value),
            _ => None,
        })
    }

    /// A truth value.
    ///
    /// # Errors
    /// [`GgufError::MissingKey`], [`GgufError::WrongType`].
    pub fn bool(&self, key: &str) -> Result<bool, StoreError> {
        self.typed(key, "a truth value", |value| match *value {
            Value::Bool(value) => Some(value),
            _ => None,
        })
    }

    /// A text.
    ///
    /// # Errors
    /// [`GgufError::MissingKey`], [`GgufError::WrongType`].
    pub fn str(&self, key: &str) -> Result<&str, StoreError> {
        self.typed(key, "text", |value| match value {
            Value::String(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// A list of texts, such as the tokens.
    ///
    /// # Errors
    /// [`GgufError::MissingKey`], [`GgufError::WrongType`].
    pub fn strings(&self, key: &str) -> Result<&[String], StoreError> {
        self.typed(key, "an array of text", |value| match value {
            Value::Array(Array::String(items)) => Some(items.as_slice()),
            _ => None,
        })
    }

    /// A list of whole numbers, such as the token types.
    ///
    /// # Errors
    /// [`GgufError::MissingKey`], [`GgufError::WrongType`].
    pub fn i32s(&self, key: &str) -> Result<&[i32], StoreError> {
        self.typed(key, "an array of i32", |value| match value {
            Value::Array(Array::I32(items)) => Some(items.as_slice()),
            _ => None,
        })
    }

    /// A list of numbers, such as the token scores.
    ///
    /// # Errors
    /// [`GgufError::MissingKey`], [`GgufError::WrongType`].
    pub fn f32s(&self, key: &str) -> Result<&[f32], StoreError> {
        self.typed(key, "an array of f32", |value| match value {
            Value::Array(Array::F32(items)) => Some(items.as_slice()),
            _ => None,
        })
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        wanted: &'static str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<T, StoreError> {
        let key_name = || key.to_owned();
        let cause = match self.value(key) {
            None => GgufError::MissingKey { key: key_name() },
            Some(value) => match read(value) {
                Some(typed) => return Ok(typed),
                None => GgufError::WrongType { key: key_name(), found: value.kind(), wanted },
            },
        };
        Err(StoreError::Gguf { path: self.path.clone(), cause })
    }
}

type Parts = (u32, Vec<(String, Value)>, Vec<Placed>);

fn parse(bytes: &[u8]) -> Result<Parts, GgufError> {
    if !bytes.starts_with(&MAGIC) {
        return Err(GgufError::BadMagic { found: bytes[..bytes.len().min(4)].to_vec() });
    }
    let mut from = Cursor::new(bytes);
    from.take(4, "the magic")?;
    let version = from.u32("the version")?;
    match version {
        2 | 3 => {}
        _ if matches!(version.swap_bytes(), 1..=3) => return Err(GgufError::BigEndian),
        _ => return Err(GgufError::BadVersion { version }),
    }
    // The least tensor: lengths and counts without a name; the least value: a name's length, a type, one byte.
    let tensor_count = from.count(8 + 4 + 4 + 8, "the number of tensors")?;
    let value_count = from.count(8 + 4 + 1, "the number of values")?;
    let mut values: Vec<(String, Value)> = Vec::with_capacity(value_count);
    for _ in 0..value_count {
        let key = from.string("a key")?;
        let value = Value::read(&mut from, &key)?;
        values.push((key, value));
    }
    let mut keys: Vec<&str> = values.iter().map(|(key, _)| key.as_str()).collect();
    keys.sort_unstable();
    if let Some(pair) = keys.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(GgufError::DuplicateKey { key: pair[0].to_owned() });
    }
    let alignment = match values.iter().find(|(key, _)| key == ALIGNMENT_KEY) {
        None => DEFAULT_ALIGNMENT,
        Some((_, Value::U32(found))) if found.is_power_of_two() => *found,
        Some((_, Value::U32(found))) => return Err(GgufError::BadAlignment { found: *found }),
        Some((key, value)) => {
            return Err(GgufError::WrongType { key: key.clone(), found: value.kind(), wanted: "u32" });
        }
    };
    let tensors = tensors(&mut from, tensor_count, u64::from(alignment), bytes.len())?;
    Ok((version, values, tensors))
}

fn tensors(
    from: &mut Cursor<'_>,
    count: usize,
    alignment: u64,
    len: usize,
) -> Result<Vec<Placed>, GgufError> {
    let mut tensors: Vec<(TensorInfo, u64, usize)> = Vec::with_capacity(count);
    for _ in 0..count {
        tensors.push(tensor(from)?);
    }
    let aligned = |at: u64| at.checked_next_multiple_of(alignment);
    // A file without tensors may end without padding.
    let start =
        aligned(from.at() as u64).and_then(|start| usize::try_from(start).ok()).unwrap_or(len).min(len);
    let data = len - start;
    let mut expected = 0_u64;
    let mut placed = Vec::with_capacity(count);
    let mut reached = 0;
    for (info, begin, size) in tensors {
        let outside = |name: String| GgufError::OutsideFile { name, begin, size, end: data };
        let end = match usize::try_from(begin).ok().and_then(|begin| begin.checked_add(size)) {
            Some(end) if end <= data => end,
            _ => return Err(outside(info.name)),
        };
        // As ggml: tensors follow each other in the order of the table.
        if begin != expected {
            return Err(GgufError::WrongOffset { name: info.name, begin, expected });
        }
        expected = aligned(end as u64).unwrap_or(u64::MAX);
        reached = end;
        placed.push(Placed { info, begin: start + begin as usize, end: start + end });
    }
    if data as u64 > expected {
        return Err(GgufError::TrailingBytes { extra: data - reached });
    }
    Ok(placed)
}

/// One row of the table: the tensor, where it begins after the header, and its bytes.
fn tensor(from: &mut Cursor<'_>) -> Result<(TensorInfo, u64, usize), GgufError> {
    let name = from.string("the name of a tensor")?;
    let sides = from.u32(&name)? as usize;
    if !(1..=MAX_SIDES).contains(&sides) {
        return Err(GgufError::BadSides { name, found: sides });
    }
    let mut stored = Vec::with_capacity(sides);
    for _ in 0..sides {
        stored.push(from.u64(&name)?);
    }
    let dtype = tables::dtype(from.u32(&name)?, &name)?;
    let begin = from.u64(&name)?;
    stored.reverse();
    let shape: Option<Vec<usize>> = stored.iter().map(|&side| usize::try_from(side).ok()).collect();
    let (block, _) = dtype.block();
    let row = stored.last().map_or(1, |&row| usize::try_from(row).unwrap_or(usize::MAX));
    if !row.is_multiple_of(block) {
        return Err(GgufError::RowNotBlocks { name, row, block });
    }
    match shape.and_then(|shape| Some((dtype.bytes_of(&shape)?, shape))) {
        Some((size, shape)) => Ok((TensorInfo { name, dtype, shape }, begin, size)),
        None => Err(GgufError::ShapeOverflow { name, shape: stored }),
    }
}

impl TensorSource for GgufFile {
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
