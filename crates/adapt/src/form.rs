//! The two traits of this crate, and the factors that a form is built from.

use lowrank_record::Card;
use lowrank_tensor::{Device, Matrix, Tensor, Var};

/// A way to parametrise a change of a weight `[out, in]`.
pub trait Form: Sync {
    /// What the form is.
    fn card(&self) -> &'static Card;

    /// The adapter of one site. `scale` is `record::scale(α, r, …)`, applied by the form and nowhere else.
    ///
    /// # Errors
    /// [`AdaptError`] when the factors do not fit the weight.
    fn build(
        &self,
        base: &Matrix,
        start: Start,
        scale: f64,
        device: &Device,
    ) -> Result<Box<dyn Adapter>, AdaptError>;
}

/// A change of one weight, ready to be applied and trained.
pub trait Adapter: Send + Sync {
    /// The added part: `x: [n, in] -> [n, out]`, scale included; never forms `[out, in]` where the form allows.
    fn apply(&self, base: &Matrix, x: &Tensor<2>) -> Tensor<2>;

    /// The change as `left · right` with the scale folded into `left`, where the form is one: a layer then runs it
    /// inside its own product.
    fn low_rank(&self) -> Option<LowRankPath>;

    /// The change `[out, in]`, row-major, scale included: to merge, unmerge and analyse.
    fn delta(&self, base: &Matrix) -> Vec<f32>;

    /// The trainable tensors in a fixed order, by the name that files use.
    fn trainable(&self) -> Vec<(&'static str, Var)>;
}

/// `Δ = left · right` as tensors: left `[out, r]` holds the scale, right `[r, in]`.
#[derive(Debug, Clone)]
pub struct LowRankPath {
    /// `[out, r]`, scale folded in.
    pub left: Tensor<2>,
    /// `[r, in]`.
    pub right: Tensor<2>,
}

/// Where a change starts.
#[derive(Debug, Clone, PartialEq)]
pub struct Start {
    /// `[out, r]`, row-major.
    pub left: Vec<f32>,
    /// `[r, in]`, row-major.
    pub right: Vec<f32>,
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

/// Why a change cannot be put on a layer.
#[derive(Debug, thiserror::Error)]
pub enum AdaptError {
    /// The factors do not multiply to the shape of the weight.
    #[error(
        "factors with {left} and {right} values at rank {rank} do not make a change of a weight [{out}, {inp}]: \
         expected {out}×{rank} and {rank}×{inp}"
    )]
    Shape {
        /// Values in the left factor.
        left: usize,
        /// Values in the right factor.
        right: usize,
        /// The rank that was asked for.
        rank: usize,
        /// Rows of the weight.
        out: usize,
        /// Columns of the weight.
        inp: usize,
    },
    /// A change of rank 0.
    #[error("a change of rank 0 is no change; give a rank of at least 1, or exclude this site")]
    Rank,
    /// The weight is being trained itself.
    #[error("the weight of this layer is trained itself; a change on top of it is not supported")]
    Trained,
    /// The layer holds adapters.
    #[error("this layer holds adapters; take them off before its weight is trained")]
    Adapted,
    /// A layer holds no adapter of this name.
    #[error("no adapter named {0} here")]
    Unknown(String),
    /// A layer holds an adapter of this name already.
    #[error("an adapter named {0} is mounted here already; give the new one another name")]
    Taken(String),
    /// The layer is merged.
    #[error("adapter {0} is merged into the weight; unmerge it first")]
    Merged(String),
}
