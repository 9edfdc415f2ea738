//! What an initialiser is shown about one site. Missing evidence is an error, never a fallback.

use faer::MatRef;
use lowrank_linalg::{LowRank, Svd};
use lowrank_record::Need;

use crate::{GradientMap, InitError, Inputs};

/// The problem: where a change is wanted, and how large `1` will be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Site {
    /// Rows of the weight.
    pub out: usize,
    /// Columns of the weight.
    pub inp: usize,
    /// The scale α/r or α/√r that the change will be multiplied with, from `lowrank_record::scale`. A start never
    /// contains it; a start may be chosen so that it cancels.
    pub scale: f64,
}

impl Site {
    /// Factors of equal size with `scale · left · right = U·diag(σ)·Vᵀ`: both carry `√(σ/scale)`.
    #[must_use]
    pub fn balanced(&self, svd: &Svd) -> LowRank {
        svd.balanced(self.scale)
    }

    /// `value / scale`: what cancels the scale.
    #[must_use]
    pub fn unscaled(&self, value: f64) -> f64 {
        value / self.scale
    }

    /// Refuses ranks from outside `1..=min(out, in)` and scales that are not positive numbers of f32.
    pub(crate) fn check(&self, method: &'static str, rank: usize) -> Result<(), InitError> {
        let Site { out, inp, scale } = *self;
        if rank == 0 || rank > out.min(inp) {
            return Err(InitError::Rank { method, rank, out, inp });
        }
        // The change is multiplied in f32.
        if !(scale > 0.0 && (scale as f32).is_normal()) {
            return Err(InitError::Scale { method, scale });
        }
        Ok(())
    }
}

/// The loss gradient `G = ∂L/∂W`, `[out, in]`.
#[derive(Debug, Clone)]
pub enum Gradient<'a> {
    /// All of it.
    Exact(MatRef<'a, f32>),
    /// Its leading singular triplets, from a subspace iteration that never formed it.
    Factors {
        /// Leading triplets, descending.
        leading: Svd,
        /// `‖G‖²_F` where it is known (or estimated), of the map: only reports depend on it.
        energy: Option<f64>,
        /// Of what they are the triplets.
        of: GradientMap,
    },
}

/// What was collected about one site. Build it from [`Evidence::of`].
#[derive(Debug, Clone)]
pub struct Evidence<'a> {
    site: Site,
    weight: Option<MatRef<'a, f32>>,
    gradient: Option<Gradient<'a>>,
    inputs: Option<Inputs<'a>>,
    rate: Option<f64>,
}

impl<'a> Evidence<'a> {
    /// The site alone: enough for starts that look at nothing.
    #[must_use]
    pub fn of(site: Site) -> Self {
        Evidence { site, weight: None, gradient: None, inputs: None, rate: None }
    }

    /// Adds the weight `[out, in]`, in any memory order.
    #[must_use]
    pub fn with_weight(mut self, weight: MatRef<'a, f32>) -> Self {
        self.weight = Some(weight);
        self
    }

    /// Adds the loss gradient of the weight.
    #[must_use]
    pub fn with_gradient(mut self, gradient: Gradient<'a>) -> Self {
        self.gradient = Some(gradient);
        self
    }

    /// Adds statistics of the layer's inputs.
    #[must_use]
    pub fn with_inputs(mut self, inputs: Inputs<'a>) -> Self {
        self.inputs = Some(inputs);
        self
    }

    /// Adds the learning rate of the first optimiser step, warm-up included.
    #[must_use]
    pub fn with_rate(mut self, rate: f64) -> Self {
        self.rate = Some(rate);
        self
    }

    /// The site.
    #[must_use]
    pub fn site(&self) -> Site {
        self.site
    }

    /// The weight `[out, in]`.
    ///
    /// # Errors
    /// [`InitError::Missing`], [`InitError::Shape`].
    pub fn weight(&self, method: &'static str) -> Result<MatRef<'a, f32>, InitError> {
        let need = Need::Weight;
        let weight = self.weight.ok_or(InitError::Missing { method, need })?;
        self.fits(method, need, weight.shape())?;
        Ok(weight)
    }

    /// The loss gradient, all of it or factors of itself.
    ///
    /// # Errors
    /// As [`Evidence::gradient_of`].
    pub fn gradient(&self, method: &'static str) -> Result<&Gradient<'a>, InitError> {
        self.gradient_of(method, GradientMap::Itself)
    }

    /// The loss gradient, of which the method decomposes this map: all of it (the method applies the map), or factors of
    /// the map.
    ///
    /// # Errors
    /// [`InitError::Missing`], [`InitError::Shape`], [`InitError::OtherMap`].
    pub fn gradient_of(&self, method: &'static str, map: GradientMap) -> Result<&Gradient<'a>, InitError> {
        let need = Need::Gradient;
        let gradient = self.gradient.as_ref().ok_or(InitError::Missing { method, need })?;
        let shape = match gradient {
            Gradient::Exact(matrix) => matrix.shape(),
            Gradient::Factors { leading, .. } => (leading.left.nrows(), leading.right.ncols()),
        };
        self.fits(method, need, shape)?;
        match gradient {
            Gradient::Factors { of, .. } if *of != map => {
                Err(InitError::OtherMap { method, want: map.describe(), have: of.describe() })
            }
            _ => Ok(gradient),
        }
    }

    /// Statistics of the layer's inputs.
    ///
    /// # Errors
    /// [`InitError::Missing`], [`InitError::Width`].
    pub fn inputs(&self, method: &'static str) -> Result<Inputs<'a>, InitError> {
        let inputs = self.inputs.ok_or(InitError::Missing { method, need: Need::Inputs })?;
        let (Site { out, inp, .. }, width) = (self.site, inputs.width());
        if width == inp { Ok(inputs) } else { Err(InitError::Width { method, width, out, inp }) }
    }

    /// The learning rate of the first optimiser step.
    ///
    /// # Errors
    /// [`InitError::NoRate`], [`InitError::Rate`].
    pub fn rate(&self, method: &'static str) -> Result<f64, InitError> {
        let rate = self.rate.ok_or(InitError::NoRate { method })?;
        if rate > 0.0 && rate.is_finite() { Ok(rate) } else { Err(InitError::Rate { method, rate }) }
    }

    fn fits(&self, method: &'static str, need: Need, (rows, cols): (usize, usize)) -> Result<(), InitError> {
        let Site { out, inp, .. } = self.site;
        if (rows, cols) == (out, inp) {
            Ok(())
        } else {
            Err(InitError::Shape { method, need, rows, cols, out, inp })
        }
    }
}
