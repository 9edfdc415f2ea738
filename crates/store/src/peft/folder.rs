use std::collections::BTreeMap;
use std::path::Path;

use super::names::{self, Part};
use super::{AdapterConfig, CONFIG_NAME, Init, Matcher, PREFIX, PeftError, TENSORS_NAME, check};
use crate::safetensors::SafetensorsFile;
use crate::tensors::{Dtype, TensorSource};
use crate::{Format, StoreError, export, json};

/// What kind of module the factors change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A linear layer: the change of its weight `[out, in]` is scale · left · right. (When the file's weight is stored
    /// `[in, out]`, `fan_in_fan_out` says so, and the change is transposed.)
    Linear,
    /// An embedding of `in` tokens in `out` dimensions: the change of its table `[in, out]` is the transpose of
    /// scale · left · right.
    Embedding,
}

/// The low-rank change of one module.
#[derive(Debug, Clone, PartialEq)]
pub struct Factor {
    /// Path of the module in the model, without `base_model.model.`.
    pub module: String,
    /// What kind of module.
    pub place: Place,
    /// Rows of `left`.
    pub output: usize,
    /// Columns of `right`.
    pub input: usize,
    /// Columns of `left`, rows of `right`.
    pub rank: usize,
    /// `[out, r]`, row-major: PEFT's B.
    pub left: Vec<f32>,
    /// `[r, in]`, row-major: PEFT's A.
    pub right: Vec<f32>,
    /// DoRA's magnitudes, `[out]`.
    pub magnitude: Option<Vec<f32>>,
    /// The bias of the left factor, `[out]`; the scale applies to it too.
    pub bias: Option<Vec<f32>>,
}

impl Factor {
    /// A linear module's factors; `left` is `[output, rank]`, `right` is `[rank, input]`, row-major.
    #[must_use]
    pub fn linear(
        module: &str,
        (output, input, rank): (usize, usize, usize),
        left: Vec<f32>,
        right: Vec<f32>,
    ) -> Factor {
        let module = module.to_owned();
        Factor { module, place: Place::Linear, output, input, rank, left, right, magnitude: None, bias: None }
    }
}

/// A weight stored whole, for `modules_to_save`.
#[derive(Debug, Clone, PartialEq)]
pub struct Whole {
    /// Its name in the model, such as `lm_head.weight`.
    pub name: String,
    /// Its sides.
    pub shape: Vec<usize>,
    /// Its values, row-major.
    pub values: Vec<f32>,
}

/// An adapter, as read or as it will be written.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterFolder {
    /// The configuration.
    pub config: AdapterConfig,
    /// One a module, sorted by module when read.
    pub factors: Vec<Factor>,
    /// Weights stored whole.
    pub whole: Vec<Whole>,
    /// What made it: method, seed, base hash, version. Kept in the metadata of the tensor file, where PEFT does not
    /// complain about keys it does not know.
    pub provenance: BTreeMap<String, String>,
    /// How the numbers are stored; F64 is read, rounded to f32.
    pub format: Format,
    /// Names that were passed over when reading: frozen weights of adapted embeddings, which the base has too.
    pub passed_over: Vec<String>,
}

impl AdapterFolder {
    /// An adapter to be written: F32, no provenance.
    #[must_use]
    pub fn new(config: AdapterConfig, factors: Vec<Factor>) -> AdapterFolder {
        AdapterFolder {
            config,
            factors,
            whole: Vec::new(),
            provenance: BTreeMap::new(),
            format: Format::F32,
            passed_over: Vec::new(),
        }
    }

    /// Reads a folder, strictly. An adapter whose start changed the base is refused: see
    /// [`AdapterFolder::read_with_initial`].
    ///
    /// # Errors
    /// [`StoreError::Peft`] with what is wrong; [`StoreError::Io`], [`StoreError::Json`], [`StoreError::Safetensors`]
    /// for the files themselves.
    pub fn read(path: &Path) -> Result<AdapterFolder, StoreError> {
        AdapterFolder::look(path)?.accepted(path)
    }

    /// Reads a folder as far as it can be read, with everything that [`AdapterFolder::read`] would refuse it for: for
    /// looking at, not for applying.
    ///
    /// # Errors
    /// [`StoreError::Peft`] for a configuration that says no LoRA, and for patterns and tensors that cannot be read at
    /// all; otherwise as [`AdapterFolder::read`].
    pub fn look(path: &Path) -> Result<Seen, StoreError> {
        let mut seen = load(path)?;
        match &seen.folder.config.init {
            init if !init.changes_base() => {}
            Init::Named(name) if name == "loftq" => seen.objections.push(PeftError::RawLoftq),
            init => {
                let init = init.text();
                seen.objections.push(PeftError::RawOffset { init });
            }
        }
        Ok(seen)
    }

    /// Whether configuration and tensors agree and all numbers are finite: what reading and writing insist on.
    ///
    /// # Errors
    /// The first thing wrong.
    pub fn check(&self) -> Result<(), PeftError> {
        check::all(self)
    }

    /// Reads an adapter whose start changed the base, together with the factors it began with, and gives the plain
    /// adapter of twice the rank that does the same on the untouched base ([`export::stack`]).
    ///
    /// # Errors
    /// As [`AdapterFolder::read`]; [`PeftError::NeedlessInitial`], [`PeftError::InitialDiffers`],
    /// [`PeftError::InitialScale`], [`PeftError::RawLoftq`].
    pub fn read_with_initial(path: &Path, initial: &Path) -> Result<AdapterFolder, StoreError> {
        let wrong = |cause| StoreError::Peft { path: path.to_owned(), cause };
        let trained = load(path)?.accepted(path)?;
        match &trained.config.init {
            init if !init.changes_base() => {
                return Err(wrong(PeftError::NeedlessInitial { init: init.text() }));
            }
            Init::Named(name) if name == "loftq" => return Err(wrong(PeftError::RawLoftq)),
            _ => {}
        }
        let initial = load(initial)?.accepted(initial)?;
        export::stack(&trained, &initial).map_err(wrong)
    }

    /// The factors of one module.
    #[must_use]
    pub fn factor(&self, module: &str) -> Option<&Factor> {
        self.factors.iter().find(|factor| factor.module == module)
    }
}

/// An adapter as it is stored, with what speaks against applying it.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// What could be read of it.
    pub folder: AdapterFolder,
    /// Why [`AdapterFolder::read`] refuses it, the first reason first; empty for a sound adapter.
    pub objections: Vec<PeftError>,
}

/// The parts of one module, as they are found.
#[derive(Default)]
struct Parts(BTreeMap<Part, (Vec<usize>, Vec<f32>)>);

/// Reads the factors as they are, whatever base they belong to, with what is wrong with them.
fn load(path: &Path) -> Result<Seen, StoreError> {
    let wrong = |cause| StoreError::Peft { path: path.to_owned(), cause };
    let config = AdapterConfig::parse(&json::read(&path.join(CONFIG_NAME))?).map_err(wrong)?;
    let tensors = path.join(TENSORS_NAME);
    if !tensors.exists() && path.join("adapter_model.bin").exists() {
        return Err(wrong(PeftError::Pickle));
    }
    let file = SafetensorsFile::open(&tensors)?;
    let matcher = Matcher::new(&config).map_err(wrong)?;
    let mut objections = Vec::new();
    objections.extend(config.unsupported().map(|key| PeftError::Unsupported { key }));
    let mut modules: BTreeMap<&str, Parts> = BTreeMap::new();
    let mut bases: Vec<(&str, &String)> = Vec::new();
    let mut whole = Vec::new();
    let mut format = None;
    for name in file.names() {
        let (module, part) = match names::split(name) {
            Ok(split) => split,
            Err(cause) => {
                objections.push(cause);
                continue;
            }
        };
        if part == Some(Part::Base) {
            bases.push((module, name));
            continue;
        }
        let info = file.info(name)?;
        let Dtype::Real(stored) = info.dtype else {
            objections.push(PeftError::Dtype { name: name.clone(), dtype: info.dtype.name() });
            continue;
        };
        let shape = info.shape.clone();
        match part {
            Some(part) => {
                modules.entry(module).or_default().0.insert(part, (shape, file.widened(name)?));
            }
            None if matcher.is_saved_whole(module) => {
                whole.push(Whole { name: module.to_owned(), shape, values: file.widened(name)? });
            }
            None => {
                objections.push(PeftError::ExtraTensor { name: name.clone() });
                continue;
            }
        }
        format = Some(holding(format, stored));
    }
    let mut factors = Vec::new();
    for (module, parts) in modules {
        match parts.join(module, &config) {
            Ok(factor) => factors.push(factor),
            Err(cause) => objections.push(cause),
        }
    }
    let mut passed_over = Vec::new();
    for (module, name) in bases {
        if factors.iter().any(|factor| factor.module == module) {
            passed_over.push(name.clone());
        } else {
            objections.push(PeftError::ExtraTensor { name: name.clone() });
        }
    }
    let mut provenance = file.metadata().clone();
    provenance.remove("format");
    let format = format.unwrap_or(Format::F32);
    let folder = AdapterFolder { config, factors, whole, provenance, format, passed_over };
    objections.extend(folder.check().err());
    Ok(Seen { folder, objections })
}

/// A file of several formats is kept in the one that holds them all, and F64 is rounded to it.
pub(super) fn holding(format: Option<Format>, stored: Format) -> Format {
    match format {
        None if stored != Format::F64 => stored,
        Some(one) if one == stored => one,
        _ => Format::F32,
    }
}

impl Seen {
    /// The adapter, if nothing speaks against it.
    fn accepted(self, path: &Path) -> Result<AdapterFolder, StoreError> {
        match self.objections.into_iter().next() {
            Some(cause) => Err(StoreError::Peft { path: path.to_owned(), cause }),
            None => Ok(self.folder),
        }
    }
}

impl Parts {
    /// Puts the parts of one module together; every part that is there has a use.
    fn join(mut self, module: &str, config: &AdapterConfig) -> Result<Factor, PeftError> {
        let embedding =
            self.0.contains_key(&Part::EmbeddingLeft) || self.0.contains_key(&Part::EmbeddingRight);
        let (place, left, right) = if embedding {
            (Place::Embedding, Part::EmbeddingLeft, Part::EmbeddingRight)
        } else {
            (Place::Linear, Part::Left, Part::Right)
        };
        let missing = |present, missing| PeftError::MissingPartner {
            module: module.to_owned(),
            present: names::label(present),
            missing: names::label(missing),
        };
        let (left, right) = match (self.0.remove(&left), self.0.remove(&right)) {
            (Some(l), Some(r)) => ((left, l), (right, r)),
            (Some(_), None) => return Err(missing(left, right)),
            (None, Some(_)) => return Err(missing(right, left)),
            (None, None) => {
                let present = self.0.keys().next().copied().unwrap_or(Part::Magnitude);
                return Err(missing(present, left));
            }
        };
        let [output, left_rank] = sides(module, &left, "[out, r]")?;
        let [right_rank, input] = sides(module, &right, "[r, in]")?;
        if left_rank != right_rank {
            let module = module.to_owned();
            return Err(PeftError::RanksDisagree { module, left: left_rank, right: right_rank });
        }
        let mut vector = |part, wanted: bool| match self.0.remove(&part) {
            Some((shape, values)) if wanted => {
                if shape == [output] {
                    return Ok(Some(values));
                }
                let wanted = format!("[{output}]");
                Err(PeftError::Misshaped { name: names::join(module, part), shape, wanted })
            }
            Some(_) => Err(PeftError::ExtraTensor { name: names::join(module, part) }),
            None => Ok(None),
        };
        let magnitude = vector(Part::Magnitude, config.dora)?;
        let bias = vector(Part::Bias, config.left_bias)?;
        if let Some(part) = self.0.keys().next() {
            return Err(PeftError::ExtraTensor { name: names::join(module, *part) });
        }
        let module = module.to_owned();
        let (left, right) = (left.1.1, right.1.1);
        Ok(Factor { module, place, output, input, rank: left_rank, left, right, magnitude, bias })
    }
}

fn sides(
    module: &str,
    (part, (shape, _)): &(Part, (Vec<usize>, Vec<f32>)),
    wanted: &str,
) -> Result<[usize; 2], PeftError> {
    match shape.as_slice() {
        &[rows, columns] if rows > 0 && columns > 0 => Ok([rows, columns]),
        _ => {
            let (name, wanted) = (names::join(module, *part), format!("{wanted}, a matrix,"));
            Err(PeftError::Misshaped { name, shape: shape.clone(), wanted })
        }
    }
}

/// The name in the file of a weight stored whole.
pub(super) fn whole_name(whole: &Whole) -> String {
    format!("{PREFIX}{}", whole.name)
}
