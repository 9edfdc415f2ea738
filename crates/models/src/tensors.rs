//! Tensors of a model file by name and shape, as matrices over the mapped bytes: what every network is loaded from.

use std::collections::BTreeSet;
use std::sync::Arc;

use lowrank_blocks::Format;
use lowrank_store::{Dtype, TensorSource};
use lowrank_tensor::Matrix;

use crate::ModelError;

/// The bytes of one tensor of an open source; they stay mapped as long as the matrix lives.
struct TensorBytes {
    source: Arc<dyn TensorSource>,
    name: String,
}

impl AsRef<[u8]> for TensorBytes {
    fn as_ref(&self) -> &[u8] {
        // The name was found when this was made, and an open source does not lose tensors.
        self.source.bytes(&self.name).unwrap_or_default()
    }
}

/// A tensor as a matrix over the mapped bytes; `shape` is what the file must say.
pub(crate) fn mapped(
    source: &Arc<dyn TensorSource>,
    name: &str,
    shape: &[usize],
    as_matrix: [usize; 2],
) -> Result<Matrix, ModelError> {
    let format = stored_format(&**source, name, shape)?;
    let bytes = Arc::new(TensorBytes { source: Arc::clone(source), name: name.to_owned() });
    Matrix::from_bytes(bytes, format, as_matrix)
        .map_err(|source| ModelError::Matrix { name: name.to_owned(), source })
}

/// The number format of a stored tensor, if it has the shape that the configuration says.
pub(crate) fn stored_format(
    source: &dyn TensorSource,
    name: &str,
    shape: &[usize],
) -> Result<Format, ModelError> {
    if !source.contains(name) {
        return Err(ModelError::MissingTensor(name.to_owned()));
    }
    let info = source.info(name)?;
    if info.shape != shape {
        let (name, found, expected) = (name.to_owned(), info.shape.clone(), shape.to_vec());
        return Err(ModelError::Shape { name, found, expected });
    }
    match info.dtype {
        Dtype::Real(format) => Ok(format),
        other => Err(ModelError::Dtype { name: name.to_owned(), dtype: other.name() }),
    }
}

/// Refuses tensors that were never asked for; `known` names those that may be ignored.
pub(crate) fn refuse_extra(
    source: &dyn TensorSource,
    asked: &BTreeSet<String>,
    known: impl Fn(&str) -> bool,
) -> Result<(), ModelError> {
    let mut extra = source.names().iter().filter(|name| !asked.contains(*name) && !known(name));
    match extra.next() {
        None => Ok(()),
        Some(first) => Err(ModelError::ExtraTensors { first: first.clone(), count: 1 + extra.count() }),
    }
}
