//! A decoder with its data as something to be trained: what `lowrank-train` sees.

use lowrank_models::{Decoder, Recompute};
use lowrank_record::Seed;
use lowrank_task::{Batch, BatchPlan, Batching, Example};
use lowrank_tensor::ops::{Layout, Targets};
use lowrank_tensor::{Var, to_rows};
use lowrank_train::{Evaluated, Evaluation, Failure, Group, Objective, Parameter};

/// A trainable tensor with what the optimiser should know of it.
#[derive(Debug, Clone)]
pub struct Trainable {
    /// Name in checkpoints: `model.layers.0.self_attn.q_proj.left`.
    pub name: String,
    /// Which factor it is.
    pub group: Group,
    /// Whether weight decay applies.
    pub decay: bool,
    /// The tensor.
    pub variable: Var,
}

/// A decoder on batches of examples.
pub struct Training<'a> {
    model: &'a Decoder,
    variables: Vec<Trainable>,
    train: &'a [Example],
    held_out: Vec<Batch>,
    batching: Batching,
    accumulation: u32,
    recompute: Recompute,
    seed: Seed,
    /// The plan of the epoch last asked for: only a cache, never an input.
    epoch: Option<(u64, BatchPlan<'a>)>,
}

impl<'a> Training<'a> {
    /// # Errors
    /// What the data cannot be batched for.
    #[allow(clippy::too_many_arguments)] // The model, its variables, the data and how to walk through it.
    pub fn new(
        model: &'a Decoder,
        variables: Vec<Trainable>,
        train: &'a [Example],
        held_out: &[Example],
        batching: Batching,
        accumulation: u32,
        recompute: Recompute,
        seed: Seed,
    ) -> Result<Training<'a>, lowrank_task::TaskError> {
        let held_out = if held_out.is_empty() { Vec::new() } else { batches(held_out, batching)? };
        Ok(Training {
            model,
            variables,
            train,
            held_out,
            batching,
            accumulation,
            recompute,
            seed,
            epoch: None,
        })
    }

    /// Micro-batches of one epoch; the same for every epoch up to packing.
    ///
    /// # Errors
    /// As [`BatchPlan::new`].
    pub fn batches_per_epoch(&mut self) -> Result<u64, lowrank_task::TaskError> {
        Ok(self.plan(0)?.batches() as u64)
    }

    fn plan(&mut self, epoch: u64) -> Result<&BatchPlan<'a>, lowrank_task::TaskError> {
        if self.epoch.as_ref().is_none_or(|(known, _)| *known != epoch) {
            let plan = BatchPlan::new(self.train, self.batching, self.seed, epoch)?;
            self.epoch = Some((epoch, plan));
        }
        match &self.epoch {
            Some((_, plan)) => Ok(plan),
            None => unreachable!("the plan was just made"),
        }
    }

    /// Micro-batch number `index` of the whole run: epochs have different numbers of batches when packing, so they are
    /// walked through from the first.
    fn micro_batch(&mut self, mut index: u64) -> Result<Batch, lowrank_task::TaskError> {
        let mut epoch = 0;
        loop {
            let plan = self.plan(epoch)?;
            let batches = plan.batches() as u64;
            if index < batches {
                return plan.batch(index as usize);
            }
            index -= batches;
            epoch += 1;
        }
    }
}

/// Examples in file order as batches, for evaluation.
///
/// # Errors
/// As [`BatchPlan::in_order`].
pub fn batches(examples: &[Example], batching: Batching) -> Result<Vec<Batch>, lowrank_task::TaskError> {
    let plan = BatchPlan::in_order(examples, batching)?;
    (0..plan.batches()).map(|index| plan.batch(index)).collect()
}

/// How a batch lies, for the model.
#[must_use]
pub fn layout(batch: &Batch) -> Layout {
    Layout {
        batch: batch.batch,
        time: batch.time,
        positions: batch.positions.clone().into(),
        starts: batch.starts.clone().into(),
    }
}

impl Objective for Training<'_> {
    fn parameters(&self) -> Vec<Parameter> {
        let parameter = |each: &Trainable| Parameter {
            name: each.name.clone(),
            shape: each.variable.shape(),
            group: each.group,
            decay: each.decay,
            value: each.variable.values(),
        };
        self.variables.iter().map(parameter).collect()
    }

    fn assign(&mut self, index: usize, value: &[f32]) -> Result<(), Failure> {
        self.variables[index].variable.assign(value.to_vec());
        Ok(())
    }

    fn gradients(&mut self, step: u64, micro: u32) -> Result<Evaluated, Failure> {
        let batch = self.micro_batch(step * u64::from(self.accumulation) + u64::from(micro))?;
        let targets = Targets { ids: batch.targets.clone().into(), weights: None };
        let mut found: Vec<Option<Vec<f32>>> = vec![None; self.variables.len()];
        let passed = self.model.gradients(
            &batch.tokens,
            &targets,
            &layout(&batch),
            self.recompute,
            false,
            &mut |gradients| {
                for (each, slot) in self.variables.iter().zip(&mut found) {
                    // A variable is reached once, unless it is both embedding and head.
                    if let Some(gradient) = each.variable.take_gradient(gradients) {
                        let gradient = to_rows(gradient);
                        match slot {
                            None => *slot = Some(gradient),
                            Some(sum) => sum.iter_mut().zip(gradient).for_each(|(sum, more)| *sum += more),
                        }
                    }
                }
            },
        )?;
        // A variable that nothing reached has gradient zero; the trainer reports those that never had another.
        let sizes = self.variables.iter().map(|each| each.variable.shape());
        let gradients = found
            .into_iter()
            .zip(sizes)
            .map(|(found, [rows, cols])| found.unwrap_or_else(|| vec![0.0; rows * cols]));
        Ok(Evaluated {
            loss_sum: passed.loss_sum,
            weight: passed.weight,
            tokens: batch.tokens.len() as u64,
            gradients: gradients.collect(),
        })
    }

    fn evaluate(&mut self) -> Result<Evaluation, Failure> {
        let (mut loss_sum, mut weight) = (0.0, 0.0);
        for batch in &self.held_out {
            let nll = self.model.log_likelihoods(&batch.tokens, &batch.targets, &layout(batch))?;
            loss_sum += nll.iter().map(|&nll| f64::from(nll)).sum::<f64>();
            weight += batch.loss_tokens() as f64;
        }
        Ok(Evaluation { loss_sum, weight })
    }
}
