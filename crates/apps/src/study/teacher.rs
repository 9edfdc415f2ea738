//! The problem of the scaled-down studies: a network that knows one task, and another task a little off it.
//!
//! Inputs are Gaussian with covariance eigenvalues 1/i in a random basis, and a mean; teacher 1 and teacher 2 are random
//! networks of one hidden layer. The network learns the classes of teacher 1, then has to learn those of `teacher 1 + 1.5 · teacher 2`
//! from a fixed set of rows.

use faer::Mat;
use lowrank_linalg::{from_rows, multiply, orthonormal_basis, to_rows};
use lowrank_models::{Mlp, Rows};
use lowrank_record::Seed;
use lowrank_tensor::{Matrix, cpu};
use lowrank_train::{Group, Run, Schedule, Settings, Stop, train};

use super::learning::Learning;
use crate::AppError;
use crate::error::Because;
use crate::objective::Trainable;

/// Width of the inputs.
const INPUTS: usize = 64;
/// Classes.
const CLASSES: usize = 16;
/// Hidden width of the teachers.
const TEACHER: usize = 48;
/// How much of the second teacher the new task holds.
const SHIFT: f32 = 1.5;
/// Rows to learn the new task from.
const ROWS: usize = 4096;

/// How large the problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    /// Width of the two hidden layers.
    pub(super) hidden: usize,
    /// Steps on the first task, of 256 fresh rows.
    pub(super) pretraining: u64,
    /// Steps on the new task.
    pub(super) steps: u64,
    /// Rows to test on.
    pub(super) test: usize,
}

/// A pretrained network, and the task that it does not know.
pub(super) struct Problem {
    weights: Vec<Matrix>,
    /// What the new task is learnt from.
    pub(super) train: Rows,
    /// What it is tested on.
    pub(super) test: Rows,
    /// Accuracy on the first task after learning it.
    pub(super) first_task: f64,
    /// Accuracy on the new task before learning it.
    pub(super) before: f64,
}

impl Problem {
    /// Draws teachers and rows, and pretrains.
    pub(super) fn make(size: &Size, seed: Seed) -> Result<Problem, AppError> {
        let inputs = Inputs::draw(seed)?;
        let teacher = |name: &str| {
            Mlp::random(&[INPUTS, TEACHER, CLASSES], 1.5, seed.at("teacher", name), &cpu())
                .while_doing("drawing a teacher")
        };
        let teachers = [teacher("first")?, teacher("second")?];
        let first = |inputs: Vec<f32>| label(inputs, &teachers, [1.0, 0.0]);
        let second = |inputs: Vec<f32>| label(inputs, &teachers, [1.0, SHIFT]);
        let mut network = Mlp::random(
            &[INPUTS, size.hidden, size.hidden, CLASSES],
            1.0,
            seed.at("network", ""),
            &cpu(),
        )
        .while_doing("drawing the network")?;
        let variables = network.train_all().while_doing("pretraining")?;
        let trainables = variables.iter().map(|(name, variable)| Trainable {
            name: name.clone(),
            group: Group::Dense,
            decay: false,
            variable: variable.clone(),
        });
        let batch = |step: u64| first(inputs.rows(seed.at("pretraining", &step.to_string()), 256));
        let settings = Settings {
            steps: size.pretraining,
            rate: 1e-3,
            clip_norm: 0.0,
            schedule: Schedule::constant(),
            checkpoint_every: 0,
            ..Settings::default()
        };
        let mut learning = Learning::new(&network, trainables.collect(), &batch);
        train(&mut learning, &settings, &Run::default(), &mut (), &Stop::default())
            .while_doing("pretraining")?;
        let weights = variables.iter().map(|(_, variable)| {
            Matrix::from_f32(variable.values(), variable.shape()).while_doing("pretraining")
        });
        let weights = weights.collect::<Result<Vec<_>, _>>()?;
        let train = second(inputs.rows(seed.at("rows", "train"), ROWS))?;
        let test_inputs = inputs.rows(seed.at("rows", "test"), size.test);
        let (known, test) = (first(test_inputs.clone())?, second(test_inputs)?);
        let problem = Problem { weights, train, test, first_task: 0.0, before: 0.0 };
        let network = problem.network()?;
        let first_task = network.accuracy(&known).while_doing("testing")?;
        let before = network.accuracy(&problem.test).while_doing("testing")?;
        Ok(Problem { first_task, before, ..problem })
    }

    /// The pretrained network, anew.
    pub(super) fn network(&self) -> Result<Mlp, AppError> {
        Mlp::new(self.weights.clone(), &cpu()).while_doing("building the network")
    }
}

/// The distribution of inputs.
struct Inputs {
    /// `√eigenvalue · basis`, `[64, 64]`: a row of standard normal draws times this has the covariance.
    root: Mat<f32>,
    mean: Vec<f32>,
}

impl Inputs {
    fn draw(seed: Seed) -> Result<Inputs, AppError> {
        let draws = seed.at("inputs", "basis").normal(INPUTS * INPUTS);
        let basis = from_rows(&draws, INPUTS, INPUTS)
            .and_then(|square| orthonormal_basis(square.as_ref()))
            .while_doing("drawing the inputs")?;
        let harmonic = (1..=INPUTS).map(|i| 1.0 / i as f32).sum::<f32>() / INPUTS as f32;
        // Eigenvalues 1/i, of mean 1.
        let root = |i: usize| (1.0 / ((i + 1) as f32 * harmonic)).sqrt();
        let mean = seed.at("inputs", "mean").normal(INPUTS).into_iter().map(|value| 0.5 * value).collect();
        Ok(Inputs { root: Mat::from_fn(INPUTS, INPUTS, |i, j| root(i) * basis[(j, i)]), mean })
    }

    /// `[count, 64]`, row-major.
    fn rows(&self, seed: Seed, count: usize) -> Vec<f32> {
        let draws = seed.normal(count * INPUTS);
        let draws = Mat::from_fn(count, INPUTS, |i, j| draws[i * INPUTS + j]);
        let mut rows = to_rows(multiply(draws.as_ref(), self.root.as_ref()).as_ref());
        for row in rows.chunks_mut(INPUTS) {
            row.iter_mut().zip(&self.mean).for_each(|(value, mean)| *value += mean);
        }
        rows
    }
}

/// Rows with the class that the weighted sum of the teachers' logits gives them.
fn label(inputs: Vec<f32>, teachers: &[Mlp; 2], weights: [f32; 2]) -> Result<Rows, AppError> {
    let logits = |teacher: &Mlp| teacher.logits(&inputs).map(lowrank_tensor::to_rows);
    let first = logits(&teachers[0]).while_doing("asking a teacher")?;
    let second = logits(&teachers[1]).while_doing("asking a teacher")?;
    let sum: Vec<f32> =
        first.iter().zip(&second).map(|(a, b)| weights[0] * a + weights[1] * b).collect();
    let classes = sum.chunks(CLASSES).map(|row| {
        let better = |best: usize, index: usize| if row[index] > row[best] { index } else { best };
        (1..row.len()).fold(0, better) as i32
    });
    Ok(Rows { classes: classes.collect(), inputs })
}
