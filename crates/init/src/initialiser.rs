//! The trait, and what it gives.

use faer::{Mat, MatRef};
use lowrank_linalg::{LowRank, multiply};
use lowrank_record::{Card, Need, Report, Seed};

use crate::{Evidence, Exactness, InitError, Leading, Options, Site};

/// Chooses where an adapter starts: a pure function of evidence, rank and seed.
pub trait Initialiser: Send + Sync {
    /// What the method is.
    fn card(&self) -> &'static Card;

    /// Other names it answers to.
    fn aliases(&self) -> &'static [&'static str] {
        &[]
    }

    /// What it must be shown, with the choices made: a choice may need more than the card says.
    fn needs(&self) -> Vec<Need> {
        self.card().needs.to_vec()
    }

    /// Whether it can start this layer at this rank, which needs no evidence to know: [`Initialiser::start`] refuses the
    /// same.
    ///
    /// # Errors
    /// [`InitError`] naming method, rank and shape.
    fn admits(&self, site: Site, rank: usize) -> Result<(), InitError> {
        site.check(self.card().name, rank)
    }

    /// How the leading `2·rank` triplets of its gradient are found: twice as many columns (q = 4r, as the authors of
    /// LoRA-GA and PEFT) and two power iterations where it takes a subspace, more where single directions matter.
    fn leading(&self, rank: usize) -> Leading {
        Leading { exactness: Exactness::Fast, oversampling: 2 * rank, power: 2 }
    }

    /// The choices in force, as `(name, value)` that [`crate::by_name`] reads back: for recipes and adapter files.
    fn settings(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// This method with these choices.
    ///
    /// # Errors
    /// [`InitError::BadValue`].
    fn configure(&self, options: &Options) -> Result<Box<dyn Initialiser>, InitError>;

    /// The start of one site.
    ///
    /// # Errors
    /// [`InitError`]: what is missing, does not fit, or cannot be decomposed.
    fn start(&self, seen: &Evidence<'_>, rank: usize, seed: Seed) -> Result<Start, InitError>;
}

/// Where an adapter starts: the change is `scale · left · right`, or `scale · left · core · right`.
#[derive(Debug, Clone)]
pub struct Start {
    /// The trainable factors, left `[out, r]` and right `[r, in]`, at scale 1.
    pub delta: LowRank,
    /// The small matrix `[r, r]` between the factors, for methods that train it; `None` means the identity.
    pub core: Option<Mat<f32>>,
    /// What happens to the base weight.
    pub base: Base,
    /// What the method has to say about its result.
    pub report: Report,
}

/// What a start does to the base weight W.
#[derive(Debug, Clone, PartialEq)]
pub enum Base {
    /// Nothing: the change is added to W.
    Keep,
    /// The base gives up the start, `W − scale·left·right`, so that the function is unchanged.
    Subtract,
    /// Another matrix `[out, in]` takes its place (a quantised copy, say).
    Replace(Mat<f32>),
}

impl Start {
    /// The base weight beside which this start is added: W, or `W − scale·change` computed in f32 from the factors as
    /// they are, or the replacement. For a shadow offset (the base untouched, the start taken back beside it) this is
    /// not needed.
    ///
    /// `weight: [out, in] -> [out, in]`.
    #[must_use]
    pub fn base_weight(&self, weight: MatRef<'_, f32>, scale: f64) -> Mat<f32> {
        match &self.base {
            Base::Keep => weight.to_owned(),
            Base::Replace(matrix) => matrix.clone(),
            Base::Subtract => {
                let mut left = self.delta.times(scale).left;
                if let Some(core) = &self.core {
                    left = multiply(left.as_ref(), core.as_ref());
                }
                weight - multiply(left.as_ref(), self.delta.right.as_ref())
            }
        }
    }
}
