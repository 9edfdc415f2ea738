//! What the trainer sees of the thing it trains: trainable tensors in a fixed order and a loss.

use std::error::Error;

/// Whatever went wrong inside an objective; the trainer adds the step and hands it on.
pub type Failure = Box<dyn Error + Send + Sync>;

/// One trainable matrix, as it is when training starts.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameter {
    /// Its name in checkpoints and errors; unique within an objective.
    pub name: String,
    /// Rows and columns; a vector is `[1, n]`.
    pub shape: [usize; 2],
    /// What part of a change it is, which decides its learning rate.
    pub group: Group,
    /// Whether weight decay applies to it.
    pub decay: bool,
    /// Its value, row after row, `shape[0] · shape[1]` numbers.
    pub value: Vec<f32>,
}

/// The part a trainable matrix plays in a change `left · right`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// The left factor, `[out, r]`; LoRA+ multiplies its rate.
    Left,
    /// The right factor, `[r, in]`.
    Right,
    /// Anything else: cores, diagonals, biases, heads.
    Dense,
}

/// Loss and gradients of one micro-batch, as **sums** over its loss tokens.
///
/// Sums, not means: micro-batches hold different numbers of loss tokens, and a mean of means would weigh the tokens
/// of short ones more. The trainer adds the sums of a step and divides by the step's whole weight once.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluated {
    /// Sum of the loss over the loss tokens (nats, or whatever the objective measures).
    pub loss_sum: f64,
    /// How many tokens (or examples) the sum runs over; may be 0 for one micro-batch, not for a whole step.
    pub weight: f64,
    /// Tokens read, loss tokens or not; only counted, for reports of speed.
    pub tokens: u64,
    /// Gradient of `loss_sum`, one for each parameter, in the order and shape of [`Objective::parameters`].
    pub gradients: Vec<Vec<f32>>,
}

/// The held-out loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evaluation {
    /// Sum of the loss over the held-out loss tokens.
    pub loss_sum: f64,
    /// How many tokens (or examples) the sum runs over.
    pub weight: f64,
}

/// A step that the optimiser has made.
#[derive(Debug)]
pub struct Stepped<'a> {
    /// The step, from 1.
    pub step: u64,
    /// The new values, one row of numbers for each parameter, in the order of [`Objective::parameters`]; they may be changed.
    pub values: Vec<&'a mut [f32]>,
    /// The summed gradients of the step, in the same order.
    pub gradients: &'a [Vec<f32>],
    /// What made of them the gradient that the optimiser was given: the mean, clipped.
    pub scale: f64,
}

/// Numbers of an objective by name.
pub type Row = (String, Vec<f32>);

/// Something that can be trained.
///
/// The trainer keeps the values; an objective holds whatever was last assigned. Nothing here is random: data order, dropout and
/// the like are functions of `(step, micro)`. What is remembered from step to step is shown as [`Objective::rows`], which
/// checkpoints keep. Both make a resumed run equal to one that was never interrupted.
pub trait Objective {
    /// The trainable tensors in a fixed order, with the values they start from; read once, at the start.
    fn parameters(&self) -> Vec<Parameter>;

    /// Puts a new value into parameter `index`: after each optimiser step, on resume, and when the best values are
    /// restored.
    ///
    /// # Errors
    /// Whatever keeps the objective from taking the value.
    fn assign(&mut self, index: usize, value: &[f32]) -> Result<(), Failure>;

    /// Loss and gradients of micro-batch `micro` (from 0) of step `step` (from 0) at the present values.
    ///
    /// # Errors
    /// Whatever keeps the objective from computing them. A loss that is not finite is not an error here: the trainer
    /// sees it and names the step.
    fn gradients(&mut self, step: u64, micro: u32) -> Result<Evaluated, Failure>;

    /// Sees a step of the optimiser before its values are checked and assigned, and may change them.
    ///
    /// # Errors
    /// Whatever keeps the objective from it.
    fn after_step(&mut self, step: Stepped<'_>) -> Result<(), Failure> {
        let _ = step;
        Ok(())
    }

    /// What it remembers from step to step, by names of its own, in a fixed order.
    fn rows(&self) -> Vec<Row> {
        Vec::new()
    }

    /// Takes up what [`Objective::rows`] gave, in any order.
    ///
    /// # Errors
    /// For rows that are not its own.
    fn put_back(&mut self, rows: Vec<Row>) -> Result<(), Failure> {
        match rows.into_iter().next() {
            Some((name, _)) => {
                Err(format!("the checkpoint holds {name}, which this run does not keep").into())
            }
            None => Ok(()),
        }
    }

    /// The held-out loss at the present values; called only where `eval_every` is set.
    ///
    /// # Errors
    /// Whatever keeps the objective from computing it.
    fn evaluate(&mut self) -> Result<Evaluation, Failure>;
}
