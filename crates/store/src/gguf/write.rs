use std::io::{self, Write};
use std::path::Path;

use super::value::write_string;
use super::{ALIGNMENT_KEY, DEFAULT_ALIGNMENT, GgufError, MAGIC, MAX_SIDES, Value, tables};
use crate::atomic::{Disk, write_file_on};
use crate::{Dtype, StoreError};

/// A tensor to be written.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its element type.
    pub dtype: Dtype,
    /// Its sides, slowest first (`[out, in]`).
    pub shape: &'a [usize],
    /// Its bytes, row after row.
    pub bytes: &'a [u8],
}

/// Writes a version 3 file to any sink: values and tensors in the order given.
///
/// # Errors
/// [`io::ErrorKind::InvalidInput`] around a [`GgufError`] when the content is not writable, or the sink's own error.
pub fn write_to(sink: &mut dyn Write, values: &[(String, Value)], tensors: &[Entry<'_>]) -> io::Result<()> {
    let (head, alignment) =
        head(values, tensors).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let padding = vec![0; alignment];
    let mut write = |bytes: &[u8]| {
        sink.write_all(bytes)?;
        sink.write_all(&padding[..bytes.len().next_multiple_of(alignment) - bytes.len()])
    };
    write(&head)?;
    tensors.iter().try_for_each(|tensor| write(tensor.bytes))
}

/// The bytes of a whole file.
///
/// # Errors
/// [`GgufError`] when the content is not writable.
pub fn encode(values: &[(String, Value)], tensors: &[Entry<'_>]) -> Result<Vec<u8>, GgufError> {
    let (mut out, alignment) = head(values, tensors)?;
    out.resize(out.len().next_multiple_of(alignment), 0);
    for tensor in tensors {
        out.extend(tensor.bytes);
        out.resize(out.len().next_multiple_of(alignment), 0);
    }
    Ok(out)
}

/// Writes a file, atomically.
///
/// # Errors
/// [`StoreError::Gguf`] when the content is not writable, [`StoreError::Io`].
pub fn write(
    disk: &Disk,
    path: &Path,
    values: &[(String, Value)],
    tensors: &[Entry<'_>],
) -> Result<(), StoreError> {
    head(values, tensors).map_err(|cause| StoreError::Gguf { path: path.to_owned(), cause })?;
    write_file_on(disk, path, |sink| write_to(sink, values, tensors))
}

/// Everything before the tensors' bytes, and the alignment.
fn head(values: &[(String, Value)], tensors: &[Entry<'_>]) -> Result<(Vec<u8>, usize), GgufError> {
    let mut out = MAGIC.to_vec();
    out.extend(3_u32.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((values.len() as u64).to_le_bytes());
    let mut alignment = DEFAULT_ALIGNMENT;
    for (at, (key, value)) in values.iter().enumerate() {
        if values[..at].iter().any(|(earlier, _)| earlier == key) {
            return Err(GgufError::DuplicateKey { key: key.clone() });
        }
        if key == ALIGNMENT_KEY {
            alignment = match value {
                Value::U32(found) if found.is_power_of_two() => *found,
                Value::U32(found) => return Err(GgufError::BadAlignment { found: *found }),
                other => {
                    return Err(GgufError::WrongType {
                        key: key.clone(),
                        found: other.kind(),
                        wanted: "u32",
                    });
                }
            };
        }
        write_string(key, &mut out);
        value.write(&mut out);
    }
    let alignment = alignment as usize;
    let mut names: Vec<&str> = tensors.iter().map(|tensor| tensor.name).collect();
    names.sort_unstable();
    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(GgufError::DuplicateName { name: pair[0].to_owned() });
    }
    let mut begin = 0;
    for tensor in tensors {
        let (name, dtype, found) = (tensor.name.to_owned(), tensor.dtype.name(), tensor.bytes.len());
        let Some(id) = tables::id(tensor.dtype) else { return Err(GgufError::NoSuchType { name, dtype }) };
        if !(1..=MAX_SIDES).contains(&tensor.shape.len()) {
            return Err(GgufError::BadSides { name, found: tensor.shape.len() });
        }
        let (block, _) = tensor.dtype.block();
        let row = tensor.shape.last().copied().unwrap_or(1);
        if !row.is_multiple_of(block) {
            return Err(GgufError::RowNotBlocks { name, row, block });
        }
        if tensor.dtype.bytes_of(tensor.shape) != Some(found) {
            return Err(GgufError::WrongBytes { name, dtype, shape: tensor.shape.to_vec(), found });
        }
        write_string(tensor.name, &mut out);
        out.extend((tensor.shape.len() as u32).to_le_bytes());
        out.extend(tensor.shape.iter().rev().flat_map(|&side| (side as u64).to_le_bytes()));
        out.extend(id.to_le_bytes());
        out.extend((begin as u64).to_le_bytes());
        begin += found.next_multiple_of(alignment);
    }
    Ok((out, alignment))
}
