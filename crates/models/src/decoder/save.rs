//! The weights of a decoder by their checkpoint names, for writing a Hugging Face directory.

use lowrank_adapt::Weight;
use lowrank_tensor::{Matrix, Tensor, Var, to_rows};

use super::{Decoder, Gain};

/// One tensor to be written.
#[derive(Debug, Clone)]
pub struct Named {
    /// Checkpoint name: `model.layers.0.mlp.up_proj.weight`.
    pub name: String,
    /// `[out, in]`, or `[width]` for a gain or bias.
    pub shape: Vec<usize>,
    /// The values, as they are held.
    pub values: Matrix,
}

impl Decoder {
    /// Every weight in checkpoint order; a tied head is left out. Adapters are not included: merge them first.
    #[must_use]
    pub fn named_weights(&self) -> Vec<Named> {
        let matrix = |name: String, weight: &Weight| {
            let values = match weight {
                Weight::Frozen(matrix) => matrix.clone(),
                Weight::Trained(var) => held(var),
            };
            Named { name, shape: values.shape().to_vec(), values }
        };
        let vector = |name: String, values: Matrix| Named { name, shape: vec![values.shape()[1]], values };
        let gain = |name: String, gain: &Gain| {
            let values = match gain {
                Gain::Trained(var) => held(var),
                Gain::Frozen(tensor) => from_f32(to_rows(Tensor::clone(tensor)), tensor.dims()),
            };
            vector(name, values)
        };
        let mut all = vec![matrix("model.embed_tokens.weight".to_owned(), &self.embedding)];
        for (name, linear) in self.sites() {
            all.push(matrix(format!("{name}.weight"), linear.weight()));
            all.extend(linear.bias().map(|bias| vector(format!("{name}.bias"), bias.clone())));
        }
        for (layer, block) in self.blocks.iter().enumerate() {
            all.push(gain(format!("model.layers.{layer}.input_layernorm.weight"), &block.input_norm));
            all.push(gain(format!("model.layers.{layer}.post_attention_layernorm.weight"), &block.mlp_norm));
        }
        all.push(gain("model.norm.weight".to_owned(), &self.norm));
        all
    }
}

fn held(var: &Var) -> Matrix {
    from_f32(var.values(), var.shape())
}

fn from_f32(values: Vec<f32>, shape: [usize; 2]) -> Matrix {
    match Matrix::from_f32(values, shape) {
        Ok(matrix) => matrix,
        Err(error) => unreachable!("a tensor has as many values as its shape says: {error}"),
    }
}
