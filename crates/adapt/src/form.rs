//! The two traits of this crate, and what passes between them and a layer.

use lowrank_record::{Card, Options, Seed};
use lowrank_tensor::{Device, Matrix, Tensor, Var};

use crate::{AdaptError, Allocator, Footprint, Part, Reach};

/// A way to parametrise a change of a weight `[out, in]`, with its choices made.
pub trait Form: Send + Sync {
    /// What the form is.
    fn card(&self) -> &'static Card;

    /// The choices in force, as `(name, value)` that [`crate::by_name`] reads back: for recipes and adapter files.
    fn settings(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// This form with these choices.
    ///
    /// # Errors
    /// [`AdaptError::Choice`] for a value that a choice does not take.
    fn configure(&self, options: &Options) -> Result<Box<dyn Form>, AdaptError>;

    /// What it begins with.
    fn takes(&self) -> Takes;

    /// What it takes on a weight `[out, in]` at this rank, with a start that is taken back in this way.
    fn footprint(&self, shape: [usize; 2], rank: usize, offset: Offset) -> Footprint;

    /// Which changes of the weight its trained values reach at the start.
    fn reach(&self) -> Reach {
        Reach::Other
    }

    /// What decides over all sites together while they are trained for `steps` optimiser steps: of sites of these `[out, r, in]`,
    /// in a fixed order. `None` for a form whose sites know nothing of each other.
    ///
    /// # Errors
    /// [`AdaptError::Budget`] for choices that do not go with these sites or steps.
    fn allocator(
        &self,
        sites: &[[usize; 3]],
        steps: usize,
    ) -> Result<Option<Box<dyn Allocator>>, AdaptError> {
        let _ = (sites, steps);
        Ok(None)
    }

    /// The adapter of one site, at the start of a training.
    ///
    /// # Errors
    /// [`AdaptError`] when the start is not one that this form takes, does not fit the weight, or would never learn.
    fn build(&self, site: &Site<'_>, start: Option<Start>) -> Result<Box<dyn Adapter>, AdaptError>;

    /// The adapter of one site from what [`Adapter::parts`] gave, and how its start is taken back. Nothing is initialised: a
    /// part that is missing is an error. The seed of the site is not looked at.
    ///
    /// # Errors
    /// [`AdaptError`] naming the part that is missing, strange or of another shape.
    fn restore(
        &self,
        site: &Site<'_>,
        parts: Vec<Part>,
        offset: Offset,
    ) -> Result<Box<dyn Adapter>, AdaptError>;
}

/// What a form begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// Two factors of an initialiser, and no core.
    Factors,
    /// Two factors, and a core `[r, r]` between them; none is the identity.
    Core,
    /// Two factors, and a core that is diagonal; none is the identity.
    Diagonal,
    /// Nothing: it draws what it needs from the seed of the site, so that no initialiser takes part.
    Nothing,
}

/// The layer that a change is made for.
#[derive(Debug, Clone, Copy)]
pub struct Site<'a> {
    /// Its name in the model: what a form draws is drawn at this name.
    pub name: &'a str,
    /// Its frozen weight `[out, in]`.
    pub base: &'a Matrix,
    /// The rank, for a form that makes its own start; a start brings its own.
    pub rank: usize,
    /// `record::scale(α, r, …)`, applied by the form and nowhere else.
    pub scale: f64,
    /// The seed of the adapter, the same at every site.
    pub seed: Seed,
    /// The largest `[out, in, rank]`, each by itself, over all sites of the adapter: what sites share is drawn at this size.
    pub largest: [usize; 3],
    /// Where the tensors live.
    pub device: &'a Device,
}

impl<'a> Site<'a> {
    /// A site by itself: nothing is shared with others.
    #[must_use]
    pub fn alone(
        name: &'a str,
        base: &'a Matrix,
        rank: usize,
        scale: f64,
        seed: Seed,
        device: &'a Device,
    ) -> Site<'a> {
        let [out, inp] = base.shape();
        Site { name, base, rank, scale, seed, largest: [out, inp, rank], device }
    }

    /// The seed of one tensor of this site.
    #[must_use]
    pub fn draws(&self, part: &str) -> Seed {
        self.seed.at("form", self.name).at("part", part)
    }
}

/// A change of one weight, ready to be applied and trained.
///
/// Tensors that it hands out have autodiff enabled, tracked where they are trained; the layer takes it off them outside
/// training.
pub trait Adapter: Send + Sync {
    /// How the change takes part in the layer's product for these inputs `[n, in]`.
    fn effect<'a>(&'a self, layer: Layer<'a>, x: &'a Tensor<2>) -> Effect<'a>;

    /// The change as `left · right` with the scale folded into `left`, where it is exactly one: to export it as plain LoRA,
    /// and to run it inside another product.
    fn low_rank(&self) -> Option<LowRankPath> {
        None
    }

    /// The change `[out, in]`, row-major, scale included: to merge, unmerge and analyse.
    fn delta(&self, base: &Matrix) -> Vec<f32>;

    /// The change of the bias `[out]`, where the form makes one.
    fn bias_delta(&self, bias: &Matrix) -> Option<Vec<f32>> {
        let _ = bias;
        None
    }

    /// A value to keep small beside the loss, where the form asks for one: `[1]`.
    fn penalty(&self) -> Option<Tensor<1>> {
        None
    }

    /// Whether the change can be computed at the present values: a form that divides by something says where it vanishes.
    ///
    /// # Errors
    /// [`AdaptError::NoDirection`].
    fn check(&self, base: &Matrix) -> Result<(), AdaptError> {
        let _ = base;
        Ok(())
    }

    /// How many directions the change has at the present values, for a form that takes some away while it trains.
    fn rank(&self) -> Option<usize> {
        None
    }

    /// The trainable tensors in a fixed order, by the name that files use.
    fn trainable(&self) -> Vec<(&'static str, Var)>;

    /// Everything that [`Form::restore`] needs, trained or frozen, in a fixed order.
    fn parts(&self) -> Vec<Part>;
}

/// The layer as an adapter sees it: what the model holds, whatever else is merged into it.
#[derive(Debug, Clone, Copy)]
pub struct Layer<'a> {
    /// The weight `[out, in]`.
    pub base: &'a Matrix,
    /// The bias `[1, out]`.
    pub bias: Option<&'a Matrix>,
}

/// How a change takes part in `y = x Wᵀ + b`. Several at one layer add up.
#[allow(clippy::large_enum_variant)] // Made and taken apart in one forward; never kept.
pub enum Effect<'a> {
    /// `y = x Wᵀ + b + (x rightᵀ) leftᵀ`, inside the layer's own product.
    LowRank(LowRankPath),
    /// `y = (x' Wᵀ) ⊙ scale + b` with other inputs x' `[n, in]` and, if given, a scale of each output `[1, out]`.
    Input {
        /// x'.
        input: Tensor<2>,
        /// The scale, before the bias is added.
        scale: Option<Tensor<2>>,
    },
    /// `y = x (W + Δ)ᵀ + b` with this Δ `[out, in]`.
    Dense(Tensor<2>),
    /// `y = x Wᵀ + b + this`, `[n, out]`.
    Added(Tensor<2>),
    /// `y = p + f(p)` with `p = x Wᵀ + b`, the layer's own product `[n, out]`.
    Output(OfProduct<'a>),
}

/// What is added to a layer's own product `[n, out]`, given that product.
pub type OfProduct<'a> = Box<dyn FnOnce(&Tensor<2>) -> Tensor<2> + 'a>;

/// `Δ = left · right` as tensors: left `[out, r]` holds the scale, right `[r, in]`.
#[derive(Debug, Clone)]
pub struct LowRankPath {
    /// `[out, r]`, scale folded in.
    pub left: Tensor<2>,
    /// `[r, in]`.
    pub right: Tensor<2>,
}

impl LowRankPath {
    /// `left · right`, row-major.
    #[must_use]
    pub fn product(self) -> Vec<f32> {
        lowrank_tensor::to_rows(self.left.inner().matmul(self.right.inner()))
    }
}

/// Where a change starts, at scale 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Start {
    /// `[out, r]`, row-major.
    pub left: Vec<f32>,
    /// `[r, in]`, row-major.
    pub right: Vec<f32>,
    /// `[r, r]`, row-major: the change is `left · core · right`. None is the identity.
    pub core: Option<Vec<f32>>,
    /// The rank r.
    pub rank: usize,
    /// Whether, and how, the start is taken back so that the function is unchanged at step 0.
    pub offset: Offset,
}

/// How a start `s · left₀ · right₀` that is not zero is taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offset {
    /// Not at all: the start is zero, or is meant to change the function.
    None,
    /// The layer adds `s·(left·right − left₀·right₀)`: the base stays as it is on disk, quantised or not, the function
    /// is unchanged at step 0 up to the rounding of f32, and adapter off means base.
    Shadow,
    /// The base was replaced by `W − s·left₀·right₀`, as the papers do; the layer adds `s·left·right`.
    Base,
}

impl Start {
    /// The start that a form of two factors was given, of the shape of the site's weight.
    ///
    /// # Errors
    /// [`AdaptError::NeedsStart`], [`AdaptError::Rank`], [`AdaptError::Shape`], [`AdaptError::CoreShape`].
    pub(crate) fn given(
        form: &'static Card,
        site: &Site<'_>,
        start: Option<Start>,
    ) -> Result<Start, AdaptError> {
        let start = start.ok_or(AdaptError::NeedsStart { form: form.name })?;
        let ([out, inp], rank) = (site.base.shape(), start.rank);
        // A rank above the weight's is wasteful, not wrong: an exported offset has twice the rank of its start.
        if rank == 0 {
            return Err(AdaptError::Rank);
        }
        let (left, right) = (start.left.len(), start.right.len());
        if left != out * rank || right != rank * inp {
            return Err(AdaptError::Shape { left, right, rank, out, inp });
        }
        if let Some(core) = &start.core
            && core.len() != rank * rank
        {
            return Err(AdaptError::CoreShape { core: core.len(), rank });
        }
        Ok(start)
    }

    /// As [`Start::given`], for a form that has no place for a core.
    ///
    /// # Errors
    /// As there, and [`AdaptError::Core`].
    pub(crate) fn factors(
        form: &'static Card,
        site: &Site<'_>,
        start: Option<Start>,
    ) -> Result<Start, AdaptError> {
        let start = Start::given(form, site, start)?;
        if start.core.is_some() { Err(AdaptError::Core { form: form.name }) } else { Ok(start) }
    }

    /// Refuses a start where the form makes its own.
    ///
    /// # Errors
    /// [`AdaptError::TakesNothing`].
    pub(crate) fn none(form: &'static Card, start: Option<&Start>) -> Result<(), AdaptError> {
        match start {
            Some(_) => Err(AdaptError::TakesNothing { form: form.name }),
            None => Ok(()),
        }
    }

    /// The core, which is the identity where none was given.
    pub(crate) fn core_or_identity(&mut self) -> Vec<f32> {
        let rank = self.rank;
        let identity = || {
            (0..rank * rank).map(|at| if at / rank == at % rank { 1.0 } else { 0.0 }).collect::<Vec<f32>>()
        };
        self.core.take().unwrap_or_else(identity)
    }
}

/// With its history where the inputs have autodiff enabled, and without it elsewhere.
pub(crate) fn as_used(tensor: Tensor<2>, x: &Tensor<2>) -> Tensor<2> {
    if x.is_autodiff() { tensor.autodiff() } else { tensor.inner() }
}
