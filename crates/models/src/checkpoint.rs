//! Tensors of a Hugging Face directory by name and shape, and the layers made of them: for the networks beside the decoders.

use std::collections::BTreeSet;
use std::sync::Arc;

use lowrank_adapt::{Linear, Weight};
use lowrank_record::Seed;
use lowrank_store::TensorSource;
use lowrank_tensor::{Device, Matrix, Tensor, from_rows};

use crate::norm::{LayerNorm, RmsNorm};
use crate::tensors::{mapped, refuse_extra};
use crate::{ModelError, Widen};

/// Deviation of the weights of a head that no file holds: `initializer_range` of these models.
const FRESH: f32 = 0.02;

/// A source of tensors that remembers what was asked for.
pub(crate) struct Checkpoint {
    source: Arc<dyn TensorSource>,
    asked: BTreeSet<String>,
    widen: Widen,
    device: Device,
}

impl Checkpoint {
    pub(crate) fn new(source: Arc<dyn TensorSource>, widen: Widen, device: &Device) -> Checkpoint {
        Checkpoint { source, asked: BTreeSet::new(), widen, device: device.clone() }
    }

    /// Gives a layer of a head, of this name, another weight: the one that it has where no file holds it.
    ///
    /// # Errors
    /// [`ModelError::Head`] where the layer cannot be given one: an adapter is merged into it, or it is trained.
    pub(crate) fn draw_again(name: &str, linear: &mut Linear, seed: Seed) -> Result<(), ModelError> {
        let fresh = Checkpoint::fresh(name, linear.shape(), seed)?;
        let replaced = fresh.frozen().cloned().and_then(|weight| linear.replace_weight(weight));
        replaced.map_err(|error| ModelError::Head {
            asked: "a classifier drawn anew",
            problem: format!("{name}: {error}"),
        })
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.source.contains(name)
    }

    /// The prefix under which the base model lies: a model with a head keeps it apart (`bert.`), one without does not.
    pub(crate) fn prefix(&self, prefix: &str, of: &str) -> String {
        if self.contains(&format!("{prefix}{of}")) { prefix.to_owned() } else { String::new() }
    }

    /// A tensor of this shape as a matrix `[rows, columns]`, held as the caller of the network wants it.
    pub(crate) fn shaped(
        &mut self,
        name: &str,
        shape: &[usize],
        as_matrix: [usize; 2],
    ) -> Result<Matrix, ModelError> {
        self.asked.insert(name.to_owned());
        let matrix = mapped(&self.source, name, shape, as_matrix)?;
        Ok(if self.widen == Widen::Once { matrix.widened() } else { matrix })
    }

    /// A matrix `[out, in]`.
    pub(crate) fn matrix(&mut self, name: &str, shape: [usize; 2]) -> Result<Matrix, ModelError> {
        self.shaped(name, &shape, shape)
    }

    /// A vector as a matrix `[1, width]`.
    pub(crate) fn vector(&mut self, name: &str, width: usize) -> Result<Matrix, ModelError> {
        Ok(self.shaped(name, &[width], [1, width])?.widened())
    }

    /// A vector as a tensor `[1, width]`.
    pub(crate) fn row(&mut self, name: &str, width: usize) -> Result<Tensor<2>, ModelError> {
        Ok(from_rows(self.vector(name, width)?.to_f32(), [1, width], &self.device))
    }

    /// A linear layer: `NAME.weight [out, in]` and, if it has one, `NAME.bias [out]`.
    pub(crate) fn linear(
        &mut self,
        name: &str,
        [out, inp]: [usize; 2],
        bias: bool,
    ) -> Result<Linear, ModelError> {
        let weight = self.matrix(&format!("{name}.weight"), [out, inp])?;
        let bias = bias.then(|| self.vector(&format!("{name}.bias"), out)).transpose()?;
        Ok(Linear::new(Weight::Frozen(weight), bias))
    }

    /// A layer that the file does not hold: normal draws of deviation 0.02, as the models were made, and a bias of 0.
    pub(crate) fn fresh(name: &str, [out, inp]: [usize; 2], seed: Seed) -> Result<Linear, ModelError> {
        let wrong = |source| ModelError::Matrix { name: name.to_owned(), source };
        let draws = seed.at("head", name).normal(out * inp).into_iter().map(|draw| FRESH * draw);
        let weight = Matrix::from_f32(draws.collect(), [out, inp]).map_err(wrong)?;
        let bias = Matrix::from_f32(vec![0.0; out], [1, out]).map_err(wrong)?;
        Ok(Linear::new(Weight::Frozen(weight), Some(bias)))
    }

    /// Refuses a new head without classes.
    pub(crate) fn some_labels(labels: usize) -> Result<(), ModelError> {
        if labels > 0 {
            return Ok(());
        }
        let problem = "0 classes answer nothing; give their number, or 1 for a regression".to_owned();
        Err(ModelError::Head { asked: "a new classification head", problem })
    }

    /// `NAME.weight` and `NAME.bias`, both `[width]`.
    pub(crate) fn layer_norm(
        &mut self,
        name: &str,
        width: usize,
        epsilon: f64,
    ) -> Result<LayerNorm, ModelError> {
        let gain = self.row(&format!("{name}.weight"), width)?;
        Ok(LayerNorm { gain, bias: self.row(&format!("{name}.bias"), width)?, epsilon })
    }

    /// `NAME.weight [width]`.
    pub(crate) fn rms_norm(&mut self, name: &str, width: usize, epsilon: f64) -> Result<RmsNorm, ModelError> {
        Ok(RmsNorm { gain: self.row(&format!("{name}.weight"), width)?, epsilon })
    }

    /// Refuses tensors that were never asked for; `known` are those that the network can do without.
    pub(crate) fn finish(&self, known: impl Fn(&str) -> bool) -> Result<(), ModelError> {
        refuse_extra(&*self.source, &self.asked, known)
    }
}
