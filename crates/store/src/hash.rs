//! The hash that names a base model.

use crate::{StoreError, TensorSource};

/// BLAKE3 over every tensor in the order of the names, as 64 hexadecimal digits.
///
/// What counts: names, dtypes, shapes and stored bytes. What does not: the order inside the file, how the model is
/// split into shards, and metadata. Every part is preceded by its length, so that no two models give the same input.
///
/// # Errors
/// As [`TensorSource::bytes`].
pub fn of_tensors(source: &dyn TensorSource) -> Result<String, StoreError> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"lowrank tensors 1");
    for name in source.names() {
        let info = source.info(name)?;
        update(&mut hasher, name, info.dtype.name(), &info.shape, source.bytes(name)?);
    }
    Ok(hasher.finalize().to_hex().to_string())
}

/// BLAKE3 of plain bytes, as 64 hexadecimal digits.
#[must_use]
pub fn of_bytes(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

/// Adds one tensor.
pub(crate) fn update(hasher: &mut blake3::Hasher, name: &str, dtype: &str, shape: &[usize], bytes: &[u8]) {
    let length = |count: usize| (count as u64).to_le_bytes();
    hasher.update(&length(name.len())).update(name.as_bytes());
    hasher.update(&length(dtype.len())).update(dtype.as_bytes());
    hasher.update(&length(shape.len()));
    for &side in shape {
        hasher.update(&length(side));
    }
    hasher.update(&length(bytes.len())).update(bytes);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::of_tensors;
    use crate::safetensors::{Entry, SafetensorsFile, encode};
    use crate::{Dtype, Format};

    fn hash(entries: &[(&str, Format, &[usize], &[u8])], note: &str) -> String {
        let entries: Vec<Entry<'_>> = entries
            .iter()
            .map(|&(name, format, shape, bytes)| Entry { name, dtype: Dtype::Real(format), shape, bytes })
            .collect();
        let metadata = BTreeMap::from([("note".to_owned(), note.to_owned())]);
        let file = SafetensorsFile::from_bytes(encode(&entries, &metadata).unwrap()).unwrap();
        of_tensors(&file).unwrap()
    }

    #[test]
    fn counts_what_the_model_is_and_nothing_else() {
        let a = ("a", Format::F16, &[2_usize, 1][..], &[1_u8, 2, 3, 4][..]);
        let b = ("b", Format::F32, &[1][..], &[5, 6, 7, 8][..]);
        let base = hash(&[a, b], "x");
        assert_eq!(base.len(), 64);
        assert_eq!(base, hash(&[b, a], "y"), "order and metadata");
        assert_ne!(base, hash(&[("c", a.1, a.2, a.3), b], "x"), "name");
        assert_ne!(base, hash(&[(a.0, Format::BF16, a.2, a.3), b], "x"), "dtype");
        assert_ne!(base, hash(&[(a.0, a.1, &[1, 2], a.3), b], "x"), "shape");
        assert_ne!(base, hash(&[(a.0, a.1, a.2, &[1, 2, 3, 5]), b], "x"), "bytes");
        assert_ne!(base, hash(&[a], "x"), "fewer tensors");
    }
}
