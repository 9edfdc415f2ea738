//! The recurrent network and its gradient, by hand.
//!
//! `h₀ = 0`, `h_t = relu((1 − a)·h_{t−1} + a·(W_in·x_t + W·h_{t−1}))`, `o_t = W_out·h_t`, without biases, a = dt/τ (Liu et al., 2024, and their
//! `main.py`). Their tasks have dt = τ, so a = 1 and the network does not leak.
//!
//! All in f64: at the sizes of the paper a step is a product of a few megaflops, and differences of kernels keep their digits. Matrices over
//! steps and trials have a column for each, step by step ([`Batch`]), so a step is one contiguous block and the whole gradient of a
//! weight is one product.

use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatMut, MatRef, Par};
use lowrank_record::Seed;

use super::{Batch, RegimeError, Task};

/// Weights of a recurrent network with H units, I inputs and K answers.
#[derive(Debug, Clone, PartialEq)]
pub struct Network {
    /// `[H, I]`.
    pub input: Mat<f64>,
    /// `[H, H]`.
    pub recurrent: Mat<f64>,
    /// `[K, H]`.
    pub readout: Mat<f64>,
    /// a = dt/τ, above 0 and at most 1.
    pub leak: f64,
}

/// What a network computed of a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    /// `[H, (steps + 1) · trials]`: the zeros before the first step, then the state behind each step.
    pub states: Vec<f64>,
    /// `[K, steps · trials]`.
    pub logits: Vec<f64>,
}

/// A gradient with respect to each weight.
#[derive(Debug, Clone, PartialEq)]
pub struct Gradient {
    /// `[H, I]`.
    pub input: Mat<f64>,
    /// `[H, H]`.
    pub recurrent: Mat<f64>,
    /// `[K, H]`.
    pub readout: Mat<f64>,
}

impl Network {
    /// A network for a task, with these recurrent weights; the other two are uniform on `±1/√fan_in`, as `torch.nn.Linear` starts them.
    ///
    /// # Errors
    /// [`RegimeError::NotSquare`]; [`RegimeError::Value`] for a leak outside of (0, 1].
    pub fn new(task: &dyn Task, recurrent: Mat<f64>, leak: f64, seed: Seed) -> Result<Network, RegimeError> {
        let (rows, cols) = recurrent.shape();
        if rows != cols || rows == 0 {
            return Err(RegimeError::NotSquare { rows, cols });
        }
        if !(leak > 0.0 && leak <= 1.0) {
            return Err(RegimeError::Value {
                what: "leak dt/tau",
                found: leak,
                wanted: "a number above 0 and at most 1",
            });
        }
        let uniform = |name: &str, rows: usize, cols: usize| {
            let draws = seed.at("weights", name).uniform(rows * cols, 1.0 / (cols as f32).sqrt());
            Mat::from_fn(rows, cols, |i, j| f64::from(draws[i * cols + j]))
        };
        let input = uniform("input", rows, task.width());
        let readout = uniform("readout", task.answers(), rows);
        Ok(Network { input, recurrent, readout, leak })
    }

    /// Units H.
    #[must_use]
    pub fn units(&self) -> usize {
        self.recurrent.nrows()
    }

    /// Answers K.
    #[must_use]
    pub fn answers(&self) -> usize {
        self.readout.nrows()
    }

    /// Runs a batch.
    ///
    /// # Panics
    /// Panics when the batch has another width than the network.
    #[must_use]
    pub fn run(&self, batch: &Batch) -> Trace {
        let (units, block) = (self.units(), self.units() * batch.trials);
        assert_eq!(batch.width, self.input.ncols(), "width of the inputs of a batch");
        let mut states = vec![0.0; block * (batch.steps + 1)];
        // The drive of all steps at once, into the places of the states that it drives.
        let inputs = columns(&batch.inputs, batch.width);
        product(
            columns_mut(&mut states[block..], units),
            Accum::Replace,
            self.input.as_ref(),
            inputs,
            self.leak,
        );
        for step in 0..batch.steps {
            let (before, rest) = states.split_at_mut((step + 1) * block);
            let (before, state) = (&before[step * block..], &mut rest[..block]);
            product(
                columns_mut(state, units),
                Accum::Add,
                self.recurrent.as_ref(),
                columns(before, units),
                self.leak,
            );
            let kept = 1.0 - self.leak;
            state.iter_mut().zip(before).for_each(|(h, before)| *h = (kept * before + *h).max(0.0));
        }
        let mut logits = vec![0.0; self.answers() * batch.steps * batch.trials];
        product(
            columns_mut(&mut logits, self.answers()),
            Accum::Replace,
            self.readout.as_ref(),
            columns(&states[block..], units),
            1.0,
        );
        Trace { states, logits }
    }

    /// The mean cross-entropy over the columns that count, in nats, and its gradient with respect to the logits, `[K, steps · trials]`.
    #[must_use]
    pub fn loss(&self, batch: &Batch, trace: &Trace) -> (f64, Vec<f64>) {
        let (answers, first) = (self.answers(), batch.first_scored());
        let share = 1.0 / (batch.targets.len() - first) as f64;
        let mut gradient = vec![0.0; trace.logits.len()];
        let mut sum = 0.0;
        let scored =
            gradient.chunks_mut(answers).zip(trace.logits.chunks(answers)).zip(&batch.targets).skip(first);
        for ((gradient, logits), &target) in scored {
            let most = logits.iter().fold(f64::NEG_INFINITY, |most, &logit| most.max(logit));
            gradient.iter_mut().zip(logits).for_each(|(to, logit)| *to = (logit - most).exp());
            let all: f64 = gradient.iter().sum();
            sum += all.ln() - (logits[target] - most);
            gradient.iter_mut().for_each(|value| *value *= share / all);
            gradient[target] -= share;
        }
        (sum * share, gradient)
    }

    /// The gradient of a loss with respect to the weights, by back-propagation through time, of its gradient with respect to the logits.
    ///
    /// With `e_t` the gradient with respect to the argument of the rectifier, whose derivative at 0 is 0:
    /// `e_t = 1[h_t > 0] ∘ (W_outᵀ·∂o_t + (1 − a)·e_{t+1} + a·Wᵀ·e_{t+1})`; then `∂W = a·Σ e_t·h_{t−1}ᵀ`.
    ///
    /// # Panics
    /// Panics when the parts are of different batches.
    #[must_use]
    pub fn gradient(&self, batch: &Batch, trace: &Trace, logits: &[f64]) -> Gradient {
        let (units, block) = (self.units(), self.units() * batch.trials);
        assert_eq!(logits.len(), trace.logits.len(), "gradient of the logits");
        let mut errors = vec![0.0; block * batch.steps];
        let logits = columns(logits, self.answers());
        product(columns_mut(&mut errors, units), Accum::Replace, self.readout.transpose(), logits, 1.0);
        for step in (0..batch.steps).rev() {
            let (rest, after) = errors.split_at_mut((step + 1) * block);
            let error = &mut rest[step * block..];
            if let Some(after) = after.get(..block) {
                self.push_back(error, after);
            }
            mask(error, &trace.states[(step + 1) * block..(step + 2) * block]);
        }
        let errors = columns(&errors, units);
        let before = columns(&trace.states[..block * batch.steps], units);
        let behind = columns(&trace.states[block..], units);
        let inputs = columns(&batch.inputs, batch.width);
        let sum = |left: MatRef<'_, f64>, right: MatRef<'_, f64>, factor: f64| {
            let mut sum = Mat::zeros(left.nrows(), right.nrows());
            product(sum.as_mut(), Accum::Replace, left, right.transpose(), factor);
            sum
        };
        Gradient {
            input: sum(errors, inputs, self.leak),
            recurrent: sum(errors, before, self.leak),
            readout: sum(logits, behind, 1.0),
        }
    }

    /// `error += (1 − a)·after + a·Wᵀ·after`: one step back, before the rectifier.
    pub(super) fn push_back(&self, error: &mut [f64], after: &[f64]) {
        let units = self.units();
        product(
            columns_mut(error, units),
            Accum::Add,
            self.recurrent.transpose(),
            columns(after, units),
            self.leak,
        );
        if self.leak < 1.0 {
            let kept = 1.0 - self.leak;
            error.iter_mut().zip(after).for_each(|(to, from)| *to += kept * from);
        }
    }

    /// The share of trials whose largest logit at the last step is the right answer; the lowest index among equals.
    #[must_use]
    pub fn accuracy(&self, batch: &Batch) -> f64 {
        let trace = self.run(batch);
        let last = (batch.steps - 1) * batch.trials;
        let right =
            trace.logits.chunks(self.answers()).zip(&batch.targets).skip(last).filter(|(logits, target)| {
                let best = (0..logits.len()).rev().max_by(|&a, &b| logits[a].total_cmp(&logits[b]));
                best == Some(**target)
            });
        right.count() as f64 / batch.trials.max(1) as f64
    }
}

impl Trace {
    /// The states behind the last step, a row for each trial: `[trials, H]`.
    #[must_use]
    pub fn last_states(&self, units: usize, trials: usize) -> Mat<f64> {
        let last = &self.states[self.states.len() - units * trials..];
        Mat::from_fn(trials, units, |trial, unit| last[trial * units + unit])
    }
}

/// Zero where the state is.
pub(super) fn mask(error: &mut [f64], state: &[f64]) {
    error.iter_mut().zip(state).filter(|(_, state)| **state <= 0.0).for_each(|(error, _)| *error = 0.0);
}

/// Columns of this many values.
pub(super) fn columns(values: &[f64], rows: usize) -> MatRef<'_, f64> {
    MatRef::from_column_major_slice(values, rows, values.len() / rows)
}

pub(super) fn columns_mut(values: &mut [f64], rows: usize) -> MatMut<'_, f64> {
    let count = values.len() / rows;
    MatMut::from_column_major_slice_mut(values, rows, count)
}

/// One sequential product: runs are parallel, and the sum does not depend on the number of threads.
pub(super) fn product(
    to: MatMut<'_, f64>,
    how: Accum,
    left: MatRef<'_, f64>,
    right: MatRef<'_, f64>,
    factor: f64,
) {
    matmul(to, how, left, right, factor, Par::Seq);
}
