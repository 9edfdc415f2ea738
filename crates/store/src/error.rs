use std::path::{Path, PathBuf};

use crate::checkpoint::CheckpointError;
use crate::export::Refusal;
use crate::gguf::GgufError;
use crate::image::ImageError;
use crate::image::idx::IdxError;
use crate::npy::NpyError;
use crate::observations::ObservationsError;
use crate::peft::PeftError;
use crate::safetensors::{IndexError, SafetensorsError};

/// What can go wrong with a file. The variants of one format say what is wrong with its content; this adds the path.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system refused.
    #[error("{}: cannot {action}: {cause}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The system's answer.
        cause: std::io::Error,
    },
    /// The output is there already.
    #[error("{} exists already; choose another output, or ask to overwrite it", path.display())]
    Exists {
        /// The output folder.
        path: PathBuf,
    },
    /// Overwriting a folder would lose something that the new one does not hold.
    #[error("{} holds {entry:?}, which overwriting would lose; move it away or choose another output", path.display())]
    WouldLose {
        /// The output folder.
        path: PathBuf,
        /// The first such entry, from the folder on.
        entry: String,
    },
    /// A folder was to be written where something else stands.
    #[error("{} is not a folder", path.display())]
    NotAFolder {
        /// The path.
        path: PathBuf,
    },
    /// A file was to be written where a folder stands.
    #[error("{} is a folder; choose another name for the file", path.display())]
    IsAFolder {
        /// The path.
        path: PathBuf,
    },
    /// A path without a last name, or a file name with a folder in it.
    #[error("{}: not a usable name for an output", path.display())]
    BadName {
        /// The path.
        path: PathBuf,
    },
    /// Not UTF-8.
    #[error("{}: not UTF-8 at byte {at}", path.display())]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// Position of the first bad byte.
        at: usize,
    },
    /// Not JSON, or not the JSON that was expected.
    #[error("{}: line {line}, column {column}: {message}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column, from 1; 0 when the whole line is meant.
        column: usize,
        /// What the parser says.
        message: String,
    },
    /// A folder holds no model, or a file is of no known kind.
    #[error("{}: no model here; expected model.safetensors, model.safetensors.index.json, or a .gguf file", path.display())]
    NoModel {
        /// The path.
        path: PathBuf,
    },
    /// Two files claim to be the model.
    #[error("{}: holds both {first} and {second}; remove one, or name the file", path.display())]
    TwoModels {
        /// The folder.
        path: PathBuf,
        /// One file.
        first: String,
        /// The other.
        second: String,
    },
    /// A tensor that is not in the file was asked for.
    #[error("{}: no tensor {name:?}", path.display())]
    NoTensor {
        /// The file.
        path: PathBuf,
        /// The name asked for.
        name: String,
    },
    /// Numbers were asked for, the tensor holds integers.
    #[error("{}: tensor {name:?} holds {dtype}, not real numbers", path.display())]
    NotReal {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// What it holds.
        dtype: &'static str,
    },
    /// A damaged safetensors file, or tensors that cannot be written as one.
    #[error("{}: {cause}", path.display())]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: SafetensorsError,
    },
    /// A damaged index of a sharded model.
    #[error("{}: {cause}", path.display())]
    Index {
        /// The index file.
        path: PathBuf,
        /// What is wrong.
        cause: IndexError,
    },
    /// A damaged GGUF file, or content that cannot be written as one.
    #[error("{}: {cause}", path.display())]
    Gguf {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: GgufError,
    },
    /// A file that is no image that we read.
    #[error("{}: {cause}", path.display())]
    Image {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: ImageError,
    },
    /// A damaged IDX file.
    #[error("{}: {cause}", path.display())]
    Idx {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: IdxError,
    },
    /// A damaged NPY or NPZ file.
    #[error("{}: {cause}", path.display())]
    Npy {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: NpyError,
    },
    /// A file of observations that cannot be used.
    #[error("{}: {cause}", path.display())]
    Observations {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: ObservationsError,
    },
    /// A damaged or unsuitable adapter.
    #[error("{}: {cause}", path.display())]
    Peft {
        /// The folder.
        path: PathBuf,
        /// What is wrong.
        cause: PeftError,
    },
    /// A damaged checkpoint.
    #[error("{}: {cause}", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: CheckpointError,
    },
    /// The reader that the export is for would misread it.
    #[error("{cause}")]
    Export {
        /// Why.
        cause: Refusal,
    },
}

impl StoreError {
    /// Wraps a system error.
    pub(crate) fn io(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> StoreError {
        move |cause| StoreError::Io { path: path.to_owned(), action, cause }
    }
}
