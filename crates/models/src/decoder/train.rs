//! Making the weights of a decoder trainable.

use lowrank_adapt::Weight;
use lowrank_tensor::{Device, Var};

use super::Decoder;
use crate::ModelError;

impl Decoder {
    /// Makes every weight and norm of the model trainable, for pretraining: `(name, variable)` in a fixed order. Biases of
    /// linear layers stay as they are.
    ///
    /// # Errors
    /// [`ModelError::Adapt`] while a layer holds adapters.
    pub fn train_all(&mut self) -> Result<Vec<(String, Var)>, ModelError> {
        let (device, table) = (self.device.clone(), self.config.family.table());
        let mut variables =
            vec![(format!("{}.weight", table.embedding), train(&mut self.embedding, &device))];
        if let (Some(name), Some(positions)) = (table.positions, &mut self.positions) {
            variables.push((format!("{name}.weight"), train(positions, &device)));
        }
        for (name, linear) in self.sites_mut() {
            variables.push((format!("{name}.weight"), linear.train_weight(&device)?));
        }
        for (layer, block) in self.blocks.iter_mut().enumerate() {
            let names = std::iter::once(table.input_norm).chain(table.mlp_norm);
            for (part, norm) in names.zip(block.norms_mut()) {
                let name = table.inside(layer, part);
                let trained = norm.train(&device).into_iter();
                variables.extend(trained.map(|(end, var)| (format!("{name}.{end}"), var)));
            }
        }
        let last = self.norm.train(&device).into_iter();
        variables.extend(last.map(|(end, var)| (format!("{}.{end}", table.norm), var)));
        Ok(variables)
    }
}

fn train(weight: &mut Weight, device: &Device) -> Var {
    let var = match weight {
        Weight::Trained(var) => var.clone(),
        Weight::Frozen(matrix) => Var::new(matrix.to_f32(), matrix.shape(), device),
    };
    *weight = Weight::Trained(var.clone());
    var
}
