//! The trait, and what it gives.

use faer::{Mat, MatRef};
use lowrank_linalg::{LowRank, Sketch, energy, finite, multiply};
use lowrank_record::{Card, Need, Promise, Report, Seed};

use crate::{Evidence, Exactness, GradientMap, InitError, InputsWanted, Leading, Options, Site};

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

    /// What it promises about the function at step 0, with the choices made: a choice may keep less than the card says.
    fn promise(&self) -> Promise {
        self.card().promise
    }

    /// Whether it can start this layer at this rank, which needs no evidence to know: [`Initialiser::start`] refuses the
    /// same.
    ///
    /// # Errors
    /// [`InitError`] naming method, rank and shape.
    fn admits(&self, site: Site, rank: usize) -> Result<(), InitError> {
        site.check(self.card().name, rank)
    }

    /// How many triplets of its gradient it takes at this rank, and how they are found. Only asked of a method that needs
    /// the gradient.
    fn leading(&self, rank: usize) -> Leading {
        let sketch = Sketch::for_rank(rank);
        Leading { count: rank, exactness: Exactness::Fast, sketch, of: GradientMap::Itself }
    }

    /// Whether its start puts a weight of its own in the base's place ([`Base::Replace`]): what is trained then belongs on that,
    /// and whoever writes the adapter has to write the base too.
    fn replaces_base(&self) -> bool {
        false
    }

    /// Whether it chooses the rank of each site itself, by [`Initialiser::chosen_rank`], whatever was planned.
    fn chooses_rank(&self) -> bool {
        false
    }

    /// The rank that it wants at this site, of which it is shown the weight: `planned` for a method that leaves ranks as they
    /// are.
    ///
    /// # Errors
    /// What is missing or cannot be decomposed.
    fn chosen_rank(&self, _seen: &Evidence<'_>, planned: usize) -> Result<usize, InitError> {
        Ok(planned)
    }

    /// What it asks of the layer's inputs where a site can come to have at most this rank (what
    /// [`Initialiser::redistributes`] allows is in it). Only asked of a method that needs them.
    fn inputs(&self, _most: usize) -> InputsWanted {
        InputsWanted::moments()
    }

    /// How many times its planned rank a site may get when ranks are given out anew by [`crate::redistribute`]: ρ, or `None`
    /// for a method that leaves ranks as they are.
    fn redistributes(&self) -> Option<f64> {
        None
    }

    /// The leading explained-variance ratios of this site, descending, at most so many and only of directions that were seen:
    /// what [`crate::redistribute`] goes by.
    ///
    /// # Errors
    /// [`InitError::NoRatios`] for a method that leaves ranks as they are; what is missing or cannot be decomposed.
    fn ratios(&self, _seen: &Evidence<'_>, _most: usize, _seed: Seed) -> Result<Vec<f64>, InitError> {
        Err(InitError::NoRatios { method: self.card().name })
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

    /// The start of one site, as [`Start::checked`] lets it pass.
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
    /// The base gives up the start, `W − scale·left·right` (or `W − scale·left·core·right`), so that the function is unchanged.
    Subtract,
    /// Another matrix `[out, in]` takes its place (a quantised copy, say).
    Replace(Mat<f32>),
}

impl Start {
    /// A start with two factors, the end of every method: refused where it would train to nothing or to NaN.
    ///
    /// # Errors
    /// [`InitError::Overflow`] for a factor that is not finite, [`InitError::Vanishes`] where both factors are zero: then
    /// neither has a gradient, and the start never learns.
    pub fn checked(
        method: &'static str,
        delta: LowRank,
        base: Base,
        report: Report,
    ) -> Result<Start, InitError> {
        if !delta.is_finite() {
            return Err(InitError::Overflow { method });
        }
        if energy(delta.left.as_ref()) == 0.0 && energy(delta.right.as_ref()) == 0.0 {
            return Err(InitError::Vanishes { method });
        }
        Ok(Start { delta, core: None, base, report })
    }

    /// A start with a matrix `[r, r]` between its factors, the end of every method that has one: refused where it would
    /// train to nothing or to NaN, whichever of the three are trained.
    ///
    /// # Errors
    /// [`InitError::Overflow`] for a matrix that is not finite, [`InitError::Vanishes`] where two of the three are zero: the
    /// gradient of each is a product with the other two, so then none has one, and the start never learns.
    pub fn checked_with_core(
        method: &'static str,
        delta: LowRank,
        core: Mat<f32>,
        base: Base,
        report: Report,
    ) -> Result<Start, InitError> {
        assert_eq!(core.shape(), (delta.rank(), delta.rank()), "{method}: shape of the core");
        if !delta.is_finite() || finite(core.as_ref()).is_err() {
            return Err(InitError::Overflow { method });
        }
        let parts = [delta.left.as_ref(), core.as_ref(), delta.right.as_ref()];
        if parts.iter().filter(|part| energy(**part) == 0.0).count() > 1 {
            return Err(InitError::Vanishes { method });
        }
        Ok(Start { delta, core: Some(core), base, report })
    }

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
