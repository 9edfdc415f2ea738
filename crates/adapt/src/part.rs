//! The parts of an adapter: what files keep of it, and how a form holds them.

use lowrank_record::Card;
use lowrank_tensor::{Device, Tensor, Var, from_rows, to_rows};

use crate::AdaptError;

/// A named tensor of an adapter.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// Its name within the form, the one that files use.
    pub name: String,
    /// Its shape in a file; what a form trains as a matrix may have another number of axes there.
    pub shape: Vec<usize>,
    /// Its values, row-major.
    pub values: Vec<f32>,
}

impl Part {
    /// A part of this shape.
    #[must_use]
    pub fn new(name: &str, shape: &[usize], values: Vec<f32>) -> Part {
        Part { name: name.to_owned(), shape: shape.to_vec(), values }
    }
}

/// A matrix of an adapter, trained or frozen.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // A few for each adapter.
pub(crate) enum Held {
    Trained(Var),
    Frozen(Tensor<2>),
}

impl Held {
    pub(crate) fn new(values: Vec<f32>, shape: [usize; 2], device: &Device, trained: bool) -> Held {
        if trained {
            Held::Trained(Var::new(values, shape, device))
        } else {
            Held::Frozen(from_rows(values, shape, device))
        }
    }

    /// To compute with: autodiff enabled, tracked where it is trained.
    pub(crate) fn tensor(&self) -> Tensor<2> {
        match self {
            Held::Trained(var) => var.tensor(),
            Held::Frozen(tensor) => tensor.clone().autodiff(),
        }
    }

    pub(crate) fn values(&self) -> Vec<f32> {
        to_rows(self.tensor())
    }

    pub(crate) fn part(&self, name: &str) -> Part {
        Part::new(name, &self.tensor().dims(), self.values())
    }

    /// With its name, where it is trained.
    pub(crate) fn trained(&self, name: &'static str) -> Option<(&'static str, Var)> {
        match self {
            Held::Trained(var) => Some((name, var.clone())),
            Held::Frozen(_) => None,
        }
    }
}

/// The parts that a stored adapter has, taken out one by one.
pub(crate) struct Stored {
    form: &'static Card,
    parts: Vec<Part>,
}

impl Stored {
    pub(crate) fn new(form: &'static Card, parts: Vec<Part>) -> Stored {
        Stored { form, parts }
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.parts.iter().any(|part| part.name == name)
    }

    /// The shape of a part, which decides the rank.
    pub(crate) fn shape(&self, name: &'static str) -> Result<&[usize], AdaptError> {
        let found = self.parts.iter().find(|part| part.name == name);
        let missing = AdaptError::MissingPart { form: self.form.name, part: name };
        found.map(|part| part.shape.as_slice()).ok_or(missing)
    }

    /// The rank r of a part `[.., r, ..]` at this axis.
    pub(crate) fn rank(&self, name: &'static str, axis: usize) -> Result<usize, AdaptError> {
        match self.shape(name)?.get(axis) {
            None | Some(0) => Err(AdaptError::Rank),
            Some(&rank) => Ok(rank),
        }
    }

    /// The shape of a part that is a matrix with values.
    pub(crate) fn matrix(&self, name: &'static str) -> Result<[usize; 2], AdaptError> {
        match *self.shape(name)? {
            [rows, cols] if rows > 0 && cols > 0 => Ok([rows, cols]),
            ref other => Err(AdaptError::PartShape {
                form: self.form.name,
                part: name,
                found: other.to_vec(),
                values: other.iter().product(),
                wanted: "a matrix".to_owned(),
            }),
        }
    }

    /// The values of a part of this shape.
    pub(crate) fn take(&mut self, name: &'static str, shape: &[usize]) -> Result<Vec<f32>, AdaptError> {
        let form = self.form.name;
        let place = self.parts.iter().position(|part| part.name == name);
        let part = self.parts.remove(place.ok_or(AdaptError::MissingPart { form, part: name })?);
        let count: usize = shape.iter().product();
        if part.shape != shape || part.values.len() != count {
            let (values, wanted) = (part.values.len(), format!("{shape:?}"));
            return Err(AdaptError::PartShape { form, part: name, found: part.shape, values, wanted });
        }
        Ok(part.values)
    }

    /// Refuses what nobody took.
    pub(crate) fn finish(self) -> Result<(), AdaptError> {
        match self.parts.into_iter().next() {
            Some(part) => Err(AdaptError::UnknownPart { form: self.form.name, part: part.name }),
            None => Ok(()),
        }
    }
}
