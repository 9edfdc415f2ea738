//! The header of an NPY file: a Python dictionary of three keys.

use super::NpyError;

/// A header, and the bytes behind it.
pub(super) struct Header<'a> {
    /// The type, as `'<f8'`.
    pub(super) descr: String,
    /// Whether the first axis runs fastest.
    pub(super) fortran: bool,
    pub(super) shape: Vec<usize>,
    pub(super) data: &'a [u8],
}

impl Header<'_> {
    /// Splits a file into its header and its values.
    pub(super) fn parse(bytes: &[u8]) -> Result<Header<'_>, NpyError> {
        let rest = bytes.strip_prefix(b"\x93NUMPY").ok_or(NpyError::Magic)?;
        let short = || NpyError::Header("the file ends inside it".to_owned());
        let (&[version, _], rest) = rest.split_first_chunk().ok_or_else(short)?;
        let (length, rest) = match version {
            1 => rest.split_first_chunk().map(|(&length, rest)| (u16::from_le_bytes(length) as usize, rest)),
            2 | 3 => {
                rest.split_first_chunk().map(|(&length, rest)| (u32::from_le_bytes(length) as usize, rest))
            }
            other => return Err(NpyError::Version(other)),
        }
        .ok_or_else(short)?;
        let (text, data) = rest.split_at_checked(length).ok_or_else(short)?;
        let text = std::str::from_utf8(text).map_err(|_| NpyError::Header("it is not text".to_owned()))?;
        let quoted = |key: &str| {
            value_of(text, key).and_then(|rest| {
                let rest = rest.strip_prefix(['\'', '"'])?;
                rest.split_once(['\'', '"']).map(|(value, _)| value.to_owned())
            })
        };
        let missing = |key: &str| NpyError::Header(format!("no {key} that can be read"));
        let descr = quoted("descr").ok_or_else(|| missing("descr"))?;
        let order = value_of(text, "fortran_order");
        let fortran = match order {
            Some(rest) if rest.starts_with("True") => true,
            Some(rest) if rest.starts_with("False") => false,
            _ => return Err(missing("fortran_order")),
        };
        let shape = value_of(text, "shape").and_then(tuple).ok_or_else(|| missing("shape"))?;
        Ok(Header { descr, fortran, shape, data })
    }
}

/// What follows a key and its colon.
fn value_of<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let quoted = [format!("'{key}'"), format!("\"{key}\"")];
    let rest = quoted.iter().find_map(|key| text.split_once(key.as_str()))?.1;
    Some(rest.trim_start().strip_prefix(':')?.trim_start())
}

/// `(3, 4)`, `(3,)` or `()`.
fn tuple(text: &str) -> Option<Vec<usize>> {
    let (inside, _) = text.strip_prefix('(')?.split_once(')')?;
    let parts = inside.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts.map(|part| part.trim_end_matches('L').parse().ok()).collect()
}

/// A header of f64 in row-major order, padded so that the values begin at a multiple of 64 bytes.
pub(super) fn written(shape: &[usize]) -> Vec<u8> {
    let sides: String = shape.iter().map(|side| format!("{side}, ")).collect();
    let sides = if shape.len() == 1 { sides.trim_end() } else { sides.trim_end_matches([',', ' ']) };
    let mut text = format!("{{'descr': '<f8', 'fortran_order': False, 'shape': ({sides}), }}");
    // Ten bytes before it, one line end behind it.
    let padded = (10 + text.len() + 1).next_multiple_of(64) - 11;
    text.extend(std::iter::repeat_n(' ', padded - text.len()));
    text.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((text.len() as u16).to_le_bytes());
    bytes.extend(text.as_bytes());
    bytes
}
