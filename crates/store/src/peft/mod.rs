//! The adapter folders of Hugging Face PEFT: `adapter_config.json` and `adapter_model.safetensors`.
//!
//! [`kind_of`] tells which reader a folder is for: [`AdapterFolder`] for a LoRA, [`TypedFolder`] for the others.
//!
//! Here is the file boundary where our `left [out, r]` and `right [r, in]` meet PEFT's B and A. PEFT loads many wrong
//! files with a warning or none; this refuses them. Formats as of PEFT 0.21.

mod check;
mod config;
mod error;
mod folder;
mod matching;
mod names;
mod save;
mod typed;

pub use config::{AdapterConfig, Init, Targets};
pub(crate) use config::{RANK, rank, short};
pub use error::PeftError;
pub use folder::{AdapterFolder, Factor, Place, Seen, Whole};
pub use matching::{Matcher, full_match, is_end, pattern_key};
pub use typed::{
    Blocks, Kind, Settings, TypedConfig, TypedFolder, TypedModule, TypedTensor, kind_of, kronecker_sides,
};

/// File name of the configuration.
pub const CONFIG_NAME: &str = "adapter_config.json";
/// File name of the tensors.
pub const TENSORS_NAME: &str = "adapter_model.safetensors";
/// The folder inside an adapter folder that holds the factors that the training began with.
pub const INITIAL_NAME: &str = "initial";
/// No rank is larger: 2^24, far beyond any matrix, so that sums and doubles of ranks stay numbers.
pub(crate) const MAX_RANK: usize = 1 << 24;
/// What PEFT puts before the path of a module.
pub(crate) const PREFIX: &str = "base_model.model.";
