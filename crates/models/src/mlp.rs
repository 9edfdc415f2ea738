//! A multilayer perceptron on layers that hold slots: `h ← gelu(h Wᵀ + b)`, the last layer without the GELU.
//!
//! The network of the scaled-down studies: small enough that a grid of starts, rates and seeds takes minutes, and started,
//! trained and merged by the same code as the pretrained ones.

use std::sync::Arc;

use lowrank_adapt::{Linear, Weight};
use lowrank_record::Seed;
use lowrank_tensor::ops::{self, Gelu, Targets};
use lowrank_tensor::{Device, Gradients, Matrix, Tensor, Var, from_rows, to_rows};

use crate::network::{self, Network};
use crate::{ModelError, Passed, Recompute};

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
    /// [`ModelError::Layers`] where there is no layer, or a layer does not take what the one before it gives.
    pub fn new(weights: Vec<Matrix>, device: &Device) -> Result<Mlp, ModelError> {
        let shapes: Vec<[usize; 2]> = weights.iter().map(Matrix::shape).collect();
        if shapes.is_empty() || shapes.windows(2).any(|pair| pair[0][0] != pair[1][1]) {
            return Err(ModelError::Layers { shapes });
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

    /// `x: [n, in] -> [n, classes]`; inference, nothing is recorded.
    ///
    /// # Errors
    /// [`ModelError::Batch`] for rows of another width than the first layer's.
    pub fn logits(&self, inputs: &[f32]) -> Result<Tensor<2>, ModelError> {
        Ok(self.forward(self.tensor(inputs)?))
    }

    /// Share of the rows whose largest logit is that of their class.
    ///
    /// # Errors
    /// As [`Mlp::logits`]; [`ModelError::Label`] for a class that does not exist.
    pub fn accuracy(&self, rows: &Rows) -> Result<f64, ModelError> {
        let logits = self.logits(&rows.inputs)?;
        let [n, classes] = logits.dims();
        network::classes_fit(&targets(rows), n, classes)?;
        let right = |(row, class): &(&[f32], &i32)| i32::try_from(largest(row)).is_ok_and(|at| at == **class);
        let count = to_rows(logits).chunks(classes).zip(rows.classes.iter()).filter(right).count();
        Ok(count as f64 / rows.len().max(1) as f64)
    }

    /// Mean cross-entropy of rows, in nats.
    ///
    /// # Errors
    /// As [`Mlp::accuracy`].
    pub fn loss(&self, rows: &Rows) -> Result<f64, ModelError> {
        let logits = self.logits(&rows.inputs)?;
        let [n, classes] = logits.dims();
        network::classes_fit(&targets(rows), n, classes)?;
        let losses = ops::log_likelihoods_of_logits(logits, &rows.classes)?;
        Ok(losses.into_iter().map(f64::from).sum::<f64>() / n.max(1) as f64)
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
        self.layers[last].forward(self.below(last, x))
    }

    /// What a layer is fed.
    fn below(&self, layer: usize, x: Tensor<2>) -> Tensor<2> {
        self.layers[..layer].iter().fold(x, |h, layer| ops::gelu(layer.forward(h), Gelu::Tanh))
    }

    fn tensor(&self, inputs: &[f32]) -> Result<Tensor<2>, ModelError> {
        let width = self.layers[0].shape()[1];
        let n = inputs.len() / width;
        network::fits("input values", inputs.len(), n * width)?;
        Ok(from_rows(inputs.to_vec(), [n, width], &self.device))
    }
}

impl Network for Mlp {
    type Batch = Rows;

    fn sites(&self) -> Vec<(String, &Linear)> {
        self.layers.iter().enumerate().map(|(index, layer)| (name(index), layer)).collect()
    }

    fn sites_mut(&mut self) -> Vec<(String, &mut Linear)> {
        self.layers.iter_mut().enumerate().map(|(index, layer)| (name(index), layer)).collect()
    }

    fn device(&self) -> &Device {
        &self.device
    }

    fn weight(&self, batch: &Rows) -> f64 {
        network::weight_of(&targets(batch))
    }

    fn show_inputs(&self, batch: &Rows) -> Result<(), ModelError> {
        let x = self.tensor(&batch.inputs)?;
        if let Some(last) = self.layers.iter().rposition(Linear::shows_inputs) {
            self.layers[last].show_inputs(&self.below(last, x));
        }
        Ok(())
    }

    fn bytes(&self) -> usize {
        self.layers.iter().map(|layer| layer.weight().bytes()).sum()
    }

    fn gradients(
        &self,
        batch: &Rows,
        recompute: Recompute,
        track_all: bool,
        collect: &mut dyn FnMut(&mut Gradients),
    ) -> Result<Passed, ModelError> {
        let x = network::begin(self.tensor(&batch.inputs)?, recompute, track_all, "a perceptron")?;
        let logits = self.forward(x);
        let [n, classes] = logits.dims();
        let targets = targets(batch);
        network::classes_fit(&targets, n, classes)?;
        let loss = ops::cross_entropy_of_logits(logits, &targets)?;
        Ok(network::end(&loss, network::weight_of(&targets), collect))
    }
}

fn targets(rows: &Rows) -> Targets {
    Targets { ids: Arc::clone(&rows.classes), weights: None }
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

#[cfg(test)]
mod tests {
    use super::*;
    use lowrank_tensor::cpu;

    fn small() -> (Mlp, Rows) {
        let network = Mlp::random(&[3, 5, 4], 1.3, Seed(2), &cpu()).unwrap();
        (network, Rows { inputs: Seed(3).normal(6 * 3), classes: vec![0, 3, 1, 2, 3, 0].into() })
    }

    #[test]
    fn logits_are_those_of_the_formula() {
        let (network, rows) = small();
        let logits = to_rows(network.logits(&rows.inputs).unwrap());
        let weights: Vec<Vec<f32>> =
            network.sites().iter().map(|(_, layer)| layer.frozen().unwrap().to_f32()).collect();
        let product = |w: &[f32], x: &[f32], inp: usize| -> Vec<f32> {
            w.chunks(inp).map(|row| row.iter().zip(x).map(|(w, x)| w * x).sum()).collect()
        };
        let gelu = |x: f32| {
            let inner = (2.0 / std::f32::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
            0.5 * x * (1.0 + inner.tanh())
        };
        for (row, found) in rows.inputs.chunks(3).zip(logits.chunks(4)) {
            let hidden: Vec<f32> = product(&weights[0], row, 3).into_iter().map(gelu).collect();
            for (expected, found) in product(&weights[1], &hidden, 5).into_iter().zip(found) {
                assert!((expected - found).abs() < 1e-5, "{expected} {found}");
            }
        }
    }

    #[test]
    fn gradients_are_those_of_finite_differences() {
        let (mut network, rows) = small();
        let variables = network.train_all().unwrap();
        let mut found = Vec::new();
        let passed = network
            .gradients(&rows, Recompute::Nothing, false, &mut |gradients| {
                for (_, variable) in &variables {
                    found.push(to_rows(variable.take_gradient(gradients).unwrap()));
                }
            })
            .unwrap();
        assert!((passed.loss_sum / passed.weight - network.loss(&rows).unwrap()).abs() < 1e-6);
        for ((_, variable), gradient) in variables.iter().zip(&found) {
            let values = variable.values();
            for index in [0, 4, values.len() - 1] {
                // Of a loss in f32: the step is large and the tolerance wide.
                let at = |step: f32| {
                    let mut moved = values.clone();
                    moved[index] += step;
                    variable.assign(moved);
                    network.loss(&rows).unwrap() * passed.weight
                };
                let slope = (at(5e-3) - at(-5e-3)) / 1e-2;
                variable.assign(values.clone());
                assert!((slope - f64::from(gradient[index])).abs() < 2e-3, "{slope} {}", gradient[index]);
            }
        }
    }

    #[test]
    fn accuracy_counts_the_largest_logit() {
        let (network, mut rows) = small();
        let logits = to_rows(network.logits(&rows.inputs).unwrap());
        let mut classes: Vec<i32> = logits.chunks(4).map(|row| largest(row) as i32).collect();
        classes[1] = (classes[1] + 1) % 4;
        rows.classes = classes.into();
        assert!((network.accuracy(&rows).unwrap() - 5.0 / 6.0).abs() < 1e-12);
        assert_eq!(rows.pick(&[5, 0]).inputs[..3], rows.inputs[15..]);
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        let (network, mut rows) = small();
        assert!(network.logits(&[1.0; 4]).unwrap_err().to_string().contains("4 input values"));
        rows.classes = vec![0, 4, 1, 2, 3, 0].into();
        for refused in [network.loss(&rows).map(|_| ()), network.accuracy(&rows).map(|_| ())] {
            assert!(refused.unwrap_err().to_string().contains("label 4 of row 1"));
        }
        let refused = network.gradients(&rows, Recompute::Blocks, false, &mut |_| {});
        assert!(refused.unwrap_err().to_string().contains("perceptron"));
        assert!(Mlp::random(&[3], 1.0, Seed(1), &cpu()).is_err());
        let weights = [[5, 3], [4, 6]].map(|[out, inp]| matrix(vec![0.0; out * inp], [out, inp]));
        let refused = Mlp::new(weights.to_vec(), &cpu()).err().unwrap().to_string();
        assert!(refused.contains("[5, 3], [4, 6]"), "{refused}");
    }
}
