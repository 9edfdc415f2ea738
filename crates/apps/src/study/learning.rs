//! A small network with rows to learn as something to be trained: what `lowrank-train` sees.

use lowrank_models::{Mlp, Network, Recompute, Rows};
use lowrank_tensor::to_rows;
use lowrank_train::{Evaluated, Evaluation, Failure, Objective, Parameter};

use crate::AppError;
use crate::objective::Trainable;

/// A network on batches that are a function of the step.
pub(super) struct Learning<'a> {
    network: &'a Mlp,
    variables: &'a [Trainable],
    batch: &'a dyn Fn(u64) -> Result<Rows, AppError>,
}

impl<'a> Learning<'a> {
    pub(super) fn new(
        network: &'a Mlp,
        variables: &'a [Trainable],
        batch: &'a dyn Fn(u64) -> Result<Rows, AppError>,
    ) -> Learning<'a> {
        Learning { network, variables, batch }
    }
}

impl Objective for Learning<'_> {
    fn parameters(&self) -> Vec<Parameter> {
        self.variables.iter().map(Trainable::parameter).collect()
    }

    fn assign(&mut self, index: usize, value: &[f32]) -> Result<(), Failure> {
        self.variables[index].variable.assign(value.to_vec());
        Ok(())
    }

    fn gradients(&mut self, step: u64, _micro: u32) -> Result<Evaluated, Failure> {
        let rows = (self.batch)(step)?;
        let mut gradients: Vec<Vec<f32>> = Vec::with_capacity(self.variables.len());
        let passed = self.network.gradients(&rows, Recompute::Nothing, false, &mut |found| {
            for each in self.variables {
                let zero = || vec![0.0; each.variable.shape().iter().product()];
                gradients.push(each.variable.take_gradient(found).map_or_else(zero, to_rows));
            }
        })?;
        Ok(Evaluated {
            loss_sum: passed.loss_sum,
            weight: passed.weight,
            tokens: rows.len() as u64,
            gradients,
        })
    }

    /// Measured once, at the end, by whoever trains: there is nothing to stop early for.
    fn evaluate(&mut self) -> Result<Evaluation, Failure> {
        Ok(Evaluation { loss_sum: 0.0, weight: 1.0 })
    }
}
