use std::path::Path;

use crate::peft::{CONFIG_NAME, PREFIX, PeftError};
use crate::{StoreError, json};

/// PEFT's types of adapters that are read here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Two low-rank factors, with or without DoRA's magnitudes: [`crate::peft::AdapterFolder`].
    Lora,
    /// Factors on outputs or inputs.
    Ia3,
    /// The entrywise product of two low-rank matrices.
    Loha,
    /// A Kronecker product.
    Lokr,
    /// A block-diagonal rotation of the input.
    Oft,
    /// A product of butterfly rotations of the input.
    Boft,
    /// Shared random projections, scaled for each module.
    Vera,
    /// Low-rank factors with a diagonal between them, whose rank was pruned in training.
    Adalora,
}

/// A part of a module and the end of its name in the file.
pub type PartName = (&'static str, &'static str);

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 8] =
        [Kind::Lora, Kind::Ia3, Kind::Loha, Kind::Lokr, Kind::Oft, Kind::Boft, Kind::Vera, Kind::Adalora];

    /// As `peft_type` says it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::Lora => "LORA",
            Kind::Ia3 => "IA3",
            Kind::Loha => "LOHA",
            Kind::Lokr => "LOKR",
            Kind::Oft => "OFT",
            Kind::Boft => "BOFT",
            Kind::Vera => "VERA",
            Kind::Adalora => "ADALORA",
        }
    }

    /// The kind of a `peft_type`.
    ///
    /// # Errors
    /// [`PeftError::UnknownKind`].
    pub fn named(name: &str) -> Result<Kind, PeftError> {
        let found = Kind::ALL.into_iter().find(|kind| kind.name() == name);
        found.ok_or_else(|| PeftError::UnknownKind { found: name.to_owned() })
    }

    /// The parts of a module, with the ends of their names in the file; empty for LoRA, whose parts are fields. A module has all of them,
    /// except LoKr's, which has `w1` or `w1_a` and `w1_b`, and `w2` or `w2_a` and `w2_b`.
    #[must_use]
    pub fn parts(self) -> &'static [PartName] {
        match self {
            Kind::Lora => &[],
            Kind::Ia3 => &[("scale", ".ia3_l")],
            Kind::Loha => &[
                ("w1_a", ".hada_w1_a"),
                ("w1_b", ".hada_w1_b"),
                ("w2_a", ".hada_w2_a"),
                ("w2_b", ".hada_w2_b"),
            ],
            Kind::Lokr => &[
                ("w1", ".lokr_w1"),
                ("w1_a", ".lokr_w1_a"),
                ("w1_b", ".lokr_w1_b"),
                ("w2", ".lokr_w2"),
                ("w2_a", ".lokr_w2_a"),
                ("w2_b", ".lokr_w2_b"),
            ],
            Kind::Oft => &[("rotation", ".oft_R.weight")],
            Kind::Boft => &[("rotation", ".boft_R"), ("scale", ".boft_s")],
            Kind::Vera => &[("lambda_b", ".vera_lambda_b"), ("lambda_d", ".vera_lambda_d")],
            Kind::Adalora => &[("right", ".lora_A"), ("left", ".lora_B"), ("values", ".lora_E")],
        }
    }

    /// The parts that all modules share, with their full names in the file.
    #[must_use]
    pub fn shared(self) -> &'static [PartName] {
        match self {
            Kind::Vera => &[("vera_A", "base_model.vera_A"), ("vera_B", "base_model.vera_B")],
            _ => &[],
        }
    }
}

/// The full name in the file of a module's part.
///
/// # Errors
/// [`PeftError::UnknownPart`].
pub(super) fn join(kind: Kind, module: &str, part: &str) -> Result<String, PeftError> {
    match kind.parts().iter().find(|(known, _)| *known == part) {
        Some((_, end)) => Ok(format!("{PREFIX}{module}{end}")),
        None => Err(PeftError::UnknownPart { kind: kind.name(), part: part.to_owned() }),
    }
}

/// Which reader a folder is for: what `peft_type` in its configuration says.
///
/// # Errors
/// [`StoreError::Io`] and [`StoreError::Json`] for the file; [`StoreError::Peft`] when it names no kind that is known.
pub fn kind_of(path: &Path) -> Result<Kind, StoreError> {
    let value = json::read(&path.join(CONFIG_NAME))?;
    let name = value.get("peft_type");
    let kind = match name.and_then(|name| name.as_str()) {
        Some(name) => Kind::named(name),
        None if value.is_object() => Err(PeftError::MissingKey { key: "peft_type" }),
        None => Err(PeftError::NotAnObject),
    };
    kind.map_err(|cause| StoreError::Peft { path: path.to_owned(), cause })
}
