//! Adapter folders of PEFT that are no LoRA: IA3, LoHa, LoKr, OFT, BOFT, VeRA, AdaLoRA.
//!
//! A typed folder is a configuration and, for each module, tensors by the names of their parts; [`Kind::parts`] is the
//! table of parts and of their names in the file. PEFT loads a folder with missing, superfluous or transposed tensors with a warning
//! or none; this refuses them. Shapes are those of the file, `[out, in]` for what multiplies as a weight does. Formats as of PEFT 0.21.2.
//! What the tensors mean for a layer is the business of the forms, not of this crate.

mod check;
mod config;
mod kind;
mod read;
mod save;
mod settings;
mod shapes;

use std::collections::BTreeMap;

use crate::Format;

use super::PeftError;

pub use config::TypedConfig;
pub use kind::{Kind, kind_of};
pub use settings::{Blocks, Settings};
pub use shapes::kronecker_sides;

/// A tensor by the name of its part.
#[derive(Debug, Clone, PartialEq)]
pub struct TypedTensor {
    /// Its part, one of [`Kind::parts`] or [`Kind::shared`].
    pub part: String,
    /// Its sides, as in the file.
    pub shape: Vec<usize>,
    /// Its values, row-major.
    pub values: Vec<f32>,
}

/// The tensors of one module.
#[derive(Debug, Clone, PartialEq)]
pub struct TypedModule {
    /// Path of the module in the model, without `base_model.model.`.
    pub module: String,
    /// One a part, in the order of [`Kind::parts`] when read.
    pub tensors: Vec<TypedTensor>,
}

/// An adapter that is no LoRA, as read or as it will be written.
#[derive(Debug, Clone, PartialEq)]
pub struct TypedFolder {
    /// The configuration, which knows the kind.
    pub config: TypedConfig,
    /// One a module, sorted by module when read.
    pub modules: Vec<TypedModule>,
    /// Tensors that all modules share: VeRA's projections, else none.
    pub shared: Vec<TypedTensor>,
    /// What made it: method, seed, base hash, version, in the metadata of the tensor file.
    pub provenance: BTreeMap<String, String>,
    /// How the numbers are stored; F64 is read, rounded to f32.
    pub format: Format,
}

impl TypedTensor {
    /// A tensor from its values.
    #[must_use]
    pub fn new(part: &str, shape: &[usize], values: Vec<f32>) -> TypedTensor {
        TypedTensor { part: part.to_owned(), shape: shape.to_vec(), values }
    }
}

impl TypedModule {
    /// The tensor of a part.
    #[must_use]
    pub fn tensor(&self, part: &str) -> Option<&TypedTensor> {
        self.tensors.iter().find(|tensor| tensor.part == part)
    }
}

impl TypedFolder {
    /// An adapter to be written: F32, nothing shared, no provenance.
    #[must_use]
    pub fn new(config: TypedConfig, modules: Vec<TypedModule>) -> TypedFolder {
        TypedFolder { config, modules, shared: Vec::new(), provenance: BTreeMap::new(), format: Format::F32 }
    }

    /// What kind of adapter it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.config.settings.kind()
    }

    /// The tensors of a module.
    #[must_use]
    pub fn module(&self, module: &str) -> Option<&TypedModule> {
        self.modules.iter().find(|one| one.module == module)
    }

    /// A tensor that all modules share.
    #[must_use]
    pub fn shared(&self, part: &str) -> Option<&TypedTensor> {
        self.shared.iter().find(|tensor| tensor.part == part)
    }

    /// Whether configuration and tensors agree and all numbers are finite: what reading and writing insist on.
    ///
    /// # Errors
    /// The first thing wrong.
    pub fn check(&self) -> Result<(), PeftError> {
        check::all(self)
    }
}
