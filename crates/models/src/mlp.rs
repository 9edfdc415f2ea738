//! A multilayer perceptron on layers that hold slots: `h ← gelu(h Wᵀ + b)`, the last layer without the GELU.
//!
//! The network of the scaled-down studies: small enough that a grid of starts, rates and seeds takes minutes, and started,
//! trained and merged by the same code as the pretrained ones.

use std::sync::Arc;

use lowrank_adapt::{Linear, Weight};
use lowrank_record::Seed;
use lowrank_tensor::ops::{self, Gelu, Targets};
use lowrank_tensor::{Device, Gradients, Matrix, Tensor, Var, from_rows, to_rows};

use crate::{ModelError, Passed};

/// A multilayer perceptron with softmax classes.
pub struct Mlp {
    layers: Vec<Linear>,
    device: Device,
}

/// Rows of a classification problem.
#[derive(Debug, Clone, PartialEq)]
pub struct Rows {
    /// `[n, in]`, row-major.
    pub inputs: Vec<f32>,
    /// The class of each row.
    pub classes: Arc<[i32]>,
}

impl Rows {
    /// How many rows there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.classes.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.classes.is_empty()
    }

    /// These rows, in this order; a row may come more than once.
    ///
    /// # Panics
    /// Panics when an index is outside.
    #[must_use]
    pub fn pick(&self, rows: &[usize]) -> Rows {
        let width = self.inputs.len() / self.len().max(1);
        Rows {
            inputs: rows.iter().flat_map(|&row| &self.inputs[row * width..][..width]).copied().collect(),
            classes: rows.iter().map(|&row| self.classes[row]).collect(),
        }
    }
}

impl Mlp {
    /// A network of these weights `[out, in]`, first to last, with biases of zero.
    ///
    /// # Errors
    /// [`ModelError::Mlp`] where there is no layer, or a layer does not take what the one before it gives.
    pub fn new(weights: Vec<Matrix>, device: &Device) -> Result<Mlp, ModelError> {
        let shapes: Vec<[usize; 2]> = weights.iter().map(Matrix::shape).collect();
        if shapes.is_empty() || shapes.windows(2).any(|pair| pair[0][0] != pair[1][1]) {
            return Err(ModelError::Mlp { shapes });
        }
        let layer = |weight: Matrix| {
            let out = weight.shape()[0];
            Linear::new(Weight::Frozen(weight), Some(matrix(vec![0.0; out], [1, out])))
        };
        Ok(Mlp { layers: weights.into_iter().map(layer).collect(), device: device.clone() })
    }

    /// A network of these widths, inputs first, with weights drawn from N(0, gain²/in) and biases of zero.
    ///
    /// # Errors
    /// As [`Mlp::new`], for fewer than two widths.
    pub fn random(widths: &[usize], gain: f32, seed: Seed, device: &Device) -> Result<Mlp, ModelError> {
        let draw = |(index, sides): (usize, &[usize])| {
            let (inp, out) = (sides[0], sides[1]);
            let spread = gain / (inp as f32).sqrt();
            let draws = seed.at("mlp", &name(index)).normal(out * inp);
            matrix(draws.into_iter().map(|value| spread * value).collect(), [out, inp])
        };
        Mlp::new(widths.windows(2).enumerate().map(draw).collect(), device)
    }

    /// Every layer with its name (`layers.0`), first to last.
    #[must_use]
    pub fn sites(&self) -> Vec<(String, &Linear)> {
        self.layers.iter().enumerate().map(|(index, layer)| (name(index), layer)).collect()
    }

    /// The same list, to mount adapters on.
    pub fn sites_mut(&mut self) -> Vec<(String, &mut Linear)> {
        self.layers.iter_mut().enumerate().map(|(index, layer)| (name(index), layer)).collect()
    }

    /// Where the network computes.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// `x: [n, in] -> [n, classes]`.
    ///
    /// # Errors
    /// [`ModelError::Width`] for rows of another width than the first layer's.
    pub fn logits(&self, inputs: &[f32]) -> Result<Tensor<2>, ModelError> {
        Ok(self.forward(self.rows(inputs)?))
    }

    /// Share of the rows whose largest logit is that of their class.
    ///
    /// # Errors
    /// As [`Mlp::logits`].
    pub fn accuracy(&self, rows: &Rows) -> Result<f64, ModelError> {
        let logits = self.logits(&rows.inputs)?;
        let classes = logits.dims()[1];
        let right = to_rows(logits)
            .chunks(classes)
            .zip(rows.classes.iter())
            .filter(|(row, class)| largest(row) == **class as usize)
            .count();
        Ok(right as f64 / rows.len().max(1) as f64)
    }

    /// Summed cross-entropy of rows, in nats.
    ///
    /// # Errors
    /// As [`Mlp::logits`]; [`ModelError::Target`] for a class that does not exist.
    pub fn loss(&self, rows: &Rows) -> Result<f64, ModelError> {
        let targets: Vec<i32> = rows.classes.to_vec();
        let losses = ops::log_likelihoods_of_logits(self.logits(&rows.inputs)?, &targets)?;
        Ok(losses.into_iter().map(f64::from).sum())
    }

    /// Runs forward and backward; `collect` is handed the gradients of the summed loss. `track_all` lets gradients flow to
    /// the inputs even where nothing is trained: evidence is collected from layers that have no adapter yet.
    ///
    /// # Errors
    /// As [`Mlp::loss`].
    pub fn gradients(
        &self,
        rows: &Rows,
        track_all: bool,
        collect: &mut dyn FnMut(&mut Gradients),
    ) -> Result<Passed, ModelError> {
        let x = self.rows(&rows.inputs)?.autodiff();
        let x = if track_all { x.require_grad() } else { x };
        let targets = Targets { ids: Arc::clone(&rows.classes), weights: None };
        let loss = ops::cross_entropy_of_logits(self.forward(x), &targets)?;
        let loss_sum = to_rows(loss.clone()).first().map_or(f64::NAN, |&value| f64::from(value));
        if loss.is_tracked() {
            collect(&mut loss.backward());
        }
        Ok(Passed { loss_sum, weight: rows.len() as f64 })
    }

    /// Makes every weight trainable, for pretraining: `(name, variable)` in a fixed order. Biases stay as they are.
    ///
    /// # Errors
    /// [`ModelError::Adapt`] while a layer holds adapters.
    pub fn train_all(&mut self) -> Result<Vec<(String, Var)>, ModelError> {
        let device = self.device.clone();
        let train = |(name, layer): (String, &mut Linear)| Ok((name, layer.train_weight(&device)?));
        self.sites_mut().into_iter().map(train).collect()
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let last = self.layers.len() - 1;
        self.layers.iter().enumerate().fold(x, |h, (index, layer)| {
            let h = layer.forward(h);
            if index < last { ops::gelu(h, Gelu::Tanh) } else { h }
        })
    }

    fn rows(&self, inputs: &[f32]) -> Result<Tensor<2>, ModelError> {
        let width = self.layers[0].shape()[1];
        if !inputs.len().is_multiple_of(width) {
            return Err(ModelError::Width { values: inputs.len(), width });
        }
        Ok(from_rows(inputs.to_vec(), [inputs.len() / width, width], &self.device))
    }
}

fn matrix(values: Vec<f32>, shape: [usize; 2]) -> Matrix {
    match Matrix::from_f32(values, shape) {
        Ok(matrix) => matrix,
        Err(error) => unreachable!("as many values as the shape says: {error}"),
    }
}

/// The index of the largest value; the first of equals.
fn largest(row: &[f32]) -> usize {
    let better = |best: usize, index: usize| if row[index] > row[best] { index } else { best };
    (1..row.len()).fold(0, better)
}

fn name(index: usize) -> String {
    format!("layers.{index}")
}
