//! A decoder with its data as something to be trained: what `lowrank-train` sees.

use lowrank_adapt::{Allocator, Part, Trained};
use lowrank_eval::{layout, total_loss};
use lowrank_models::{Decoder, Recompute};
use lowrank_record::Seed;
use lowrank_task::{Batch, BatchPlan, Batching, Example};
use lowrank_tensor::ops::Targets;
use lowrank_tensor::{Var, to_rows};
use lowrank_train::{Evaluated, Evaluation, Failure, Group, Objective, Parameter, Row, Stepped};

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

impl Trainable {
    /// As the trainer sees it, with the value that it has now.
    #[must_use]
    pub fn parameter(&self) -> Parameter {
        Parameter {
            name: self.name.clone(),
            shape: self.variable.shape(),
            group: self.group,
            decay: self.decay,
            value: self.variable.values(),
        }
    }
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
    /// The epoch last met: only a cache, never an input.
    epoch: Option<Epoch<'a>>,
    allotted: Option<Allotted>,
}

/// What a form decides over all layers together while they train.
pub(crate) struct Allotted {
    pub(crate) allocator: Box<dyn Allocator>,
    /// How many of the variables, in their order, are of each layer.
    pub(crate) counts: Vec<usize>,
}

struct Epoch<'a> {
    number: u64,
    /// Micro-batches before it.
    begins: u64,
    plan: BatchPlan<'a>,
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
            allotted: None,
        })
    }

    /// With what the form decides over all layers together, if it does.
    pub(crate) fn with(mut self, allotted: Option<Allotted>) -> Training<'a> {
        self.allotted = allotted;
        self
    }

    /// Whether every change can be computed at the present values.
    fn check(&self) -> Result<(), Failure> {
        for (site, linear) in self.model.sites() {
            linear.check().map_err(|error| format!("{site}: {error}"))?;
        }
        Ok(())
    }

    /// Adds the gradient of `weight` times the sum of the adapters' penalties, if they have any.
    fn add_penalty(&self, weight: f64, gradients: &mut [Vec<f32>]) {
        let sites = self.model.sites();
        let mounted = sites.iter().flat_map(|(_, linear)| linear.adapters());
        let penalties = mounted.filter(|held| held.enabled).filter_map(|held| held.adapter.penalty());
        let Some(sum) = penalties.reduce(|sum, more| sum + more) else { return };
        let mut found = (sum * weight).backward();
        for (each, gradient) in self.variables.iter().zip(gradients) {
            if let Some(more) = each.variable.take_gradient(&mut found) {
                gradient.iter_mut().zip(to_rows(more)).for_each(|(sum, more)| *sum += more);
            }
        }
    }

    /// Micro-batch number `index` of the whole run: epochs have different numbers of batches when packing, so they are
    /// walked through, from the last one met or, for an earlier one, from the first.
    fn micro_batch(&mut self, index: u64) -> Result<Batch, lowrank_task::TaskError> {
        let (mut number, mut begins, mut plan) = match self.epoch.take() {
            Some(Epoch { number, begins, plan }) if begins <= index => (number, begins, plan),
            _ => (0, 0, self.plan(0)?),
        };
        while index - begins >= plan.batches() as u64 {
            begins += plan.batches() as u64;
            number += 1;
            plan = self.plan(number)?;
        }
        let batch = plan.batch((index - begins) as usize);
        self.epoch = Some(Epoch { number, begins, plan });
        batch
    }

    fn plan(&self, epoch: u64) -> Result<BatchPlan<'a>, lowrank_task::TaskError> {
        BatchPlan::new(self.train, self.batching, self.seed, epoch)
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

impl Objective for Training<'_> {
    fn parameters(&self) -> Vec<Parameter> {
        self.variables.iter().map(Trainable::parameter).collect()
    }

    fn assign(&mut self, index: usize, value: &[f32]) -> Result<(), Failure> {
        self.variables[index].variable.assign(value.to_vec());
        Ok(())
    }

    fn gradients(&mut self, step: u64, micro: u32) -> Result<Evaluated, Failure> {
        self.check()?;
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
        let mut gradients: Vec<Vec<f32>> = gradients.collect();
        if let Some(allotted) = &self.allotted {
            // The trainer divides by the weight of the whole step, so that the penalty counts once, as beside the mean loss.
            let factor = allotted.allocator.penalty_weight() * passed.weight;
            if factor > 0.0 {
                self.add_penalty(factor, &mut gradients);
            }
        }
        Ok(Evaluated {
            loss_sum: passed.loss_sum,
            weight: passed.weight,
            tokens: batch.filled as u64,
            gradients,
        })
    }

    fn after_step(&mut self, step: Stepped<'_>) -> Result<(), Failure> {
        let Some(Allotted { allocator, counts }) = &mut self.allotted else { return Ok(()) };
        let Stepped { step, values, gradients, scale } = step;
        let scaled = |gradient: &Vec<f32>| -> Vec<f32> {
            gradient.iter().map(|&entry| (f64::from(entry) * scale) as f32).collect()
        };
        let (mut values, mut gradients) = (values.into_iter(), gradients.iter().map(scaled));
        let site = |&count: &usize| Trained {
            values: values.by_ref().take(count).collect(),
            gradients: gradients.by_ref().take(count).collect(),
        };
        let mut sites: Vec<Trained<'_>> = counts.iter().map(site).collect();
        Ok(allocator.step(usize::try_from(step)?, &mut sites)?)
    }

    fn rows(&self) -> Vec<Row> {
        let parts = self.allotted.iter().flat_map(|allotted| allotted.allocator.parts());
        parts.map(|part| (part.name, part.values)).collect()
    }

    fn put_back(&mut self, rows: Vec<Row>) -> Result<(), Failure> {
        match (&mut self.allotted, rows) {
            (Some(allotted), rows) => {
                let part = |(name, values): Row| Part::new(&name, &[values.len()], values);
                Ok(allotted.allocator.resume(rows.into_iter().map(part).collect())?)
            }
            (None, rows) if rows.is_empty() => Ok(()),
            (None, _) => Err("the checkpoint is of a form that allots ranks, and this one does not".into()),
        }
    }

    fn evaluate(&mut self) -> Result<Evaluation, Failure> {
        self.check()?;
        let (loss_sum, tokens) = total_loss(self.model, &self.held_out, &mut |_| true)?;
        Ok(Evaluation { loss_sum, weight: tokens as f64 })
    }
}
