//! A small network with rows to learn as something to be trained: what `lowrank-train` sees.

use lowrank_models::{Mlp, Network, Recompute, Rows};
use lowrank_tensor::to_rows;
use lowrank_train::{Evaluated, Evaluation, Failure, Objective, Parameter};

use crate::AppError;
use crate::error::Because;
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

/// The gradient of the summed loss of each variable, in their order, and the summed loss.
pub(super) fn gradients(
    network: &Mlp,
    variables: &[Trainable],
    rows: &Rows,
) -> Result<(Vec<Vec<f32>>, f64), AppError> {
    let mut found: Vec<Vec<f32>> = Vec::with_capacity(variables.len());
    let passed = network.gradients(rows, Recompute::Nothing, false, &mut |gradients| {
        for each in variables {
            let zero = || vec![0.0; each.variable.shape().iter().product()];
            found.push(each.variable.take_gradient(gradients).map_or_else(zero, to_rows));
        }
    });
    let passed = passed.while_doing("differentiating the network")?;
    Ok((found, passed.loss_sum))
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
        let (gradients, loss_sum) = gradients(self.network, self.variables, &rows)?;
        Ok(Evaluated { loss_sum, weight: rows.len() as f64, tokens: rows.len() as u64, gradients })
    }

    /// Measured once, at the end, by whoever trains: there is nothing to stop early for.
    fn evaluate(&mut self) -> Result<Evaluation, Failure> {
        Ok(Evaluation { loss_sum: 0.0, weight: 1.0 })
    }
}
