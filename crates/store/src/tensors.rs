//! Named tensors in a file, whatever the file: [`TensorSource`].

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use lowrank_blocks::{Format, widen};

use crate::StoreError;
use crate::gguf::GgufFile;
use crate::safetensors::{INDEX_NAME, SINGLE_NAME, SafetensorsFile, ShardedModel};

/// What the elements of a stored tensor are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dtype {
    /// Real numbers, plain or in blocks.
    Real(Format),
    /// Unsigned, 8 bits.
    U8,
    /// Unsigned, 16 bits.
    U16,
    /// Unsigned, 32 bits.
    U32,
    /// Unsigned, 64 bits.
    U64,
    /// Signed, 8 bits.
    I8,
    /// Signed, 16 bits.
    I16,
    /// Signed, 32 bits.
    I32,
    /// Signed, 64 bits.
    I64,
    /// One byte, 0 or 1.
    Bool,
}

impl Dtype {
    /// The name as safetensors and GGUF spell it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Dtype::Real(format) => format.name(),
            Dtype::U8 => "U8",
            Dtype::U16 => "U16",
            Dtype::U32 => "U32",
            Dtype::U64 => "U64",
            Dtype::I8 => "I8",
            Dtype::I16 => "I16",
            Dtype::I32 => "I32",
            Dtype::I64 => "I64",
            Dtype::Bool => "BOOL",
        }
    }

    /// The dtype of this name in a safetensors header; block formats do not occur there.
    pub(crate) fn in_safetensors(name: &str) -> Option<Dtype> {
        let plain = [Format::F64, Format::F32, Format::F16, Format::BF16].map(Dtype::Real);
        let integers = [
            Dtype::U8,
            Dtype::U16,
            Dtype::U32,
            Dtype::U64,
            Dtype::I8,
            Dtype::I16,
            Dtype::I32,
            Dtype::I64,
            Dtype::Bool,
        ];
        plain.into_iter().chain(integers).find(|dtype| dtype.name() == name)
    }

    /// Values in a block and bytes of a block; 1 value for everything but block formats.
    #[must_use]
    pub const fn block(self) -> (usize, usize) {
        match self {
            Dtype::Real(format) => (format.block_len(), format.block_bytes()),
            Dtype::U8 | Dtype::I8 | Dtype::Bool => (1, 1),
            Dtype::U16 | Dtype::I16 => (1, 2),
            Dtype::U32 | Dtype::I32 => (1, 4),
            Dtype::U64 | Dtype::I64 => (1, 8),
        }
    }

    /// Bytes of a tensor of this shape; `None` when the product overflows or rows do not fill whole blocks.
    #[must_use]
    pub fn bytes_of(self, shape: &[usize]) -> Option<usize> {
        let (len, bytes) = self.block();
        if !shape.last().copied().unwrap_or(1).is_multiple_of(len) {
            return None;
        }
        // Zero sides are multiplied last, so that an overflow of the others is not hidden by their order.
        let count = shape
            .iter()
            .filter(|&&side| side > 0)
            .try_fold(1_usize, |count, &side| count.checked_mul(side))?;
        let total = (count / len).checked_mul(bytes)?;
        Some(if shape.contains(&0) { 0 } else { total })
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a file says of one tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Name as in the file.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Sides, slowest first: `[out, in]` for a weight, in every kind of file.
    pub shape: Vec<usize>,
}

impl TensorInfo {
    /// Elements in the tensor.
    #[must_use]
    pub fn count(&self) -> usize {
        self.shape.iter().product()
    }
}

/// Named tensors in a fixed order, whose bytes can be had without copying.
pub trait TensorSource: Send + Sync {
    /// Names in bytewise order, whatever the order in the file.
    fn names(&self) -> &[String];

    /// What the file says of one tensor.
    ///
    /// # Errors
    /// [`StoreError::NoTensor`].
    fn info(&self, name: &str) -> Result<&TensorInfo, StoreError>;

    /// The stored bytes of one tensor.
    ///
    /// # Errors
    /// [`StoreError::NoTensor`].
    fn bytes(&self, name: &str) -> Result<&[u8], StoreError>;

    /// The file's free text entries: `__metadata__` of safetensors, the string values of GGUF.
    fn metadata(&self) -> &BTreeMap<String, String>;

    /// The file or folder, for messages.
    fn path(&self) -> &Path;

    /// Whether there is a tensor of this name.
    fn contains(&self, name: &str) -> bool {
        self.names().binary_search_by(|known| known.as_str().cmp(name)).is_ok()
    }

    /// One tensor widened to `f32`, row-major. F64 is rounded.
    ///
    /// # Errors
    /// [`StoreError::NoTensor`], or [`StoreError::NotReal`] for integers.
    fn widened(&self, name: &str) -> Result<Vec<f32>, StoreError> {
        let info = self.info(name)?;
        let Dtype::Real(format) = info.dtype else {
            let dtype = info.dtype.name();
            return Err(StoreError::NotReal { path: self.path().to_owned(), name: name.to_owned(), dtype });
        };
        let mut out = vec![0.0; info.count()];
        let done = widen(format, self.bytes(name)?, &mut out);
        assert!(done.is_ok(), "sizes were checked when the file was opened: {done:?}");
        Ok(out)
    }
}

/// Opens a model: a `.gguf` or safetensors file (told apart by their first bytes), or a folder with
/// `model.safetensors` or its sharded form.
///
/// # Errors
/// [`StoreError::NoModel`], [`StoreError::TwoModels`], or what the file's own reader says.
pub fn open(path: &Path) -> Result<Box<dyn TensorSource>, StoreError> {
    if !path.is_dir() {
        return if crate::gguf::is_gguf(path)? {
            Ok(Box::new(GgufFile::open(path)?))
        } else {
            Ok(Box::new(SafetensorsFile::open(path)?))
        };
    }
    let (single, index) = (path.join(SINGLE_NAME), path.join(INDEX_NAME));
    match (single.is_file(), index.is_file()) {
        (true, false) => Ok(Box::new(SafetensorsFile::open(&single)?)),
        (false, true) => Ok(Box::new(ShardedModel::open(path)?)),
        (true, true) => Err(two_models(path, SINGLE_NAME, INDEX_NAME)),
        (false, false) => {
            // A folder with one GGUF file is a model too.
            let mut found = Vec::new();
            for entry in std::fs::read_dir(path).map_err(StoreError::io(path, "list"))? {
                let file = entry.map_err(StoreError::io(path, "list"))?.path();
                if file.extension().is_some_and(|extension| extension == "gguf") {
                    found.push(file);
                }
            }
            // The system lists them in no fixed order.
            found.sort();
            let name = |file: &Path| file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            match found.as_slice() {
                [one] => Ok(Box::new(GgufFile::open(one)?)),
                [] => Err(StoreError::NoModel { path: path.to_owned() }),
                [first, second, ..] => Err(two_models(path, &name(first), &name(second))),
            }
        }
    }
}

fn two_models(path: &Path, first: &str, second: &str) -> StoreError {
    StoreError::TwoModels { path: path.to_owned(), first: first.to_owned(), second: second.to_owned() }
}

/// Where a tensor lies in the bytes of its file.
#[derive(Debug, Clone)]
pub(crate) struct Placed {
    pub(crate) info: TensorInfo,
    pub(crate) begin: usize,
    pub(crate) end: usize,
}

/// The tensors of one file, found by name.
#[derive(Debug, Default)]
pub(crate) struct Table {
    /// In bytewise order.
    pub(crate) names: Vec<String>,
    /// In the order of `names`.
    placed: Vec<Placed>,
}

impl Table {
    /// Sorts the tensors of a file; the name of one that occurs twice is the error.
    pub(crate) fn new(mut placed: Vec<Placed>) -> Result<Table, String> {
        placed.sort_by(|a, b| a.info.name.cmp(&b.info.name));
        if let Some(pair) = placed.windows(2).find(|pair| pair[0].info.name == pair[1].info.name) {
            return Err(pair[0].info.name.clone());
        }
        Ok(Table { names: placed.iter().map(|tensor| tensor.info.name.clone()).collect(), placed })
    }

    /// The tensor of this name.
    pub(crate) fn get(&self, path: &Path, name: &str) -> Result<&Placed, StoreError> {
        match self.names.binary_search_by(|known| known.as_str().cmp(name)) {
            Ok(at) => Ok(&self.placed[at]),
            Err(_) => Err(StoreError::NoTensor { path: path.to_owned(), name: name.to_owned() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Dtype, open};
    use crate::{Format, StoreError};

    #[test]
    fn sizes_are_checked() {
        let q4 = Dtype::Real(Format::Q4_1);
        assert_eq!(q4.bytes_of(&[3, 64]), Some(3 * 40));
        assert_eq!(q4.bytes_of(&[64, 3]), None, "rows fill whole blocks, not only the tensor");
        assert_eq!(Dtype::I64.bytes_of(&[]), Some(8), "a scalar");
        assert_eq!(Dtype::U8.bytes_of(&[0, 7]), Some(0));
        assert_eq!(Dtype::U8.bytes_of(&[usize::MAX, 2, 0]), None);
        assert_eq!(Dtype::U64.bytes_of(&[usize::MAX / 4]), None);
    }

    #[test]
    fn a_folder_holds_one_model() {
        let folder = tempfile::tempdir().unwrap();
        let refused = || match open(folder.path()) {
            Ok(_) => panic!("opened"),
            Err(error) => error,
        };
        let error = refused();
        assert!(matches!(error, StoreError::NoModel { .. }), "{error}");
        assert!(error.to_string().contains("model.safetensors"), "{error}");
        for name in ["b.gguf", "a.gguf", "notes.txt"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let error = refused();
        assert!(matches!(error, StoreError::TwoModels { .. }), "{error}");
        assert!(
            error.to_string().ends_with("holds both a.gguf and b.gguf; remove one, or name the file"),
            "{error}"
        );
    }
}
