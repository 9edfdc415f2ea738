//! The weights of a decoder by their checkpoint names, for writing a Hugging Face directory.

use lowrank_adapt::Weight;
use lowrank_tensor::{Matrix, Tensor, Var, to_rows};

use super::Decoder;
use super::conv1d::transposed;
use super::norm::{Gain, Norm};

/// One tensor to be written.
#[derive(Debug, Clone)]
pub struct Named {
    /// Checkpoint name: `model.layers.0.mlp.up_proj.weight`.
    pub name: String,
    /// As the checkpoint has it: `[out, in]` (`[in, out]` for `Conv1D`), or `[width]` for a gain or bias.
    pub shape: Vec<usize>,
    /// The values, as they are held.
    pub values: Matrix,
}

impl Decoder {
    /// Every weight in checkpoint order; a tied head is left out. Adapters are not included: merge them first.
    #[must_use]
    pub fn named_weights(&self) -> Vec<Named> {
        let table = self.config.family.table();
        let matrix = |module: &str, weight: &Weight| {
            let name = format!("{module}.weight");
            let values = match weight {
                Weight::Frozen(matrix) => matrix.clone(),
                Weight::Trained(var) => held(var),
            };
            let values = if table.is_transposed(&name) { turned(&values) } else { values };
            Named { name, shape: values.shape().to_vec(), values }
        };
        let mut all = vec![matrix(table.embedding, &self.embedding)];
        all.extend(table.positions.zip(self.positions.as_ref()).map(|(name, each)| matrix(name, each)));
        for (name, linear) in self.sites() {
            all.push(matrix(&name, linear.weight()));
            all.extend(linear.bias().map(|bias| vector(format!("{name}.bias"), bias.clone())));
        }
        for (layer, block) in self.blocks.iter().enumerate() {
            let names = std::iter::once(table.input_norm).chain(table.mlp_norm);
            for (part, each) in names.zip(block.norms()) {
                all.extend(norm(&table.inside(layer, part), each));
            }
        }
        all.extend(norm(table.norm, &self.norm));
        all
    }
}

fn vector(name: String, values: Matrix) -> Named {
    Named { name, shape: vec![values.shape()[1]], values }
}

fn norm(module: &str, norm: &Norm) -> Vec<Named> {
    let values = |gain: &Gain| match gain {
        Gain::Trained(var) => held(var),
        Gain::Frozen(tensor) => from_f32(to_rows(Tensor::clone(tensor)), tensor.dims()),
    };
    let mut all = vec![vector(format!("{module}.weight"), values(&norm.gain))];
    all.extend(norm.bias.as_ref().map(|bias| vector(format!("{module}.bias"), values(bias))));
    all
}

/// With rows and columns exchanged.
fn turned(matrix: &Matrix) -> Matrix {
    let [rows, cols] = matrix.shape();
    from_f32(transposed(&matrix.to_f32(), rows, cols), [cols, rows])
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
