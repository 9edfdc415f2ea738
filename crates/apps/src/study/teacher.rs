//! The problem of the scaled-down studies: a network that knows one task, and another task a little off it.
//!
//! Inputs are Gaussian with covariance eigenvalues 1/i in a random basis, and a mean; teacher 1 and teacher 2 are random
//! networks of one hidden layer. The network learns the classes of teacher 1, then has to learn those of
//! `teacher 1 + 1.5 · teacher 2` from a fixed set of rows.

use lowrank_linalg::{from_rows, multiply, orthonormal_basis, to_rows};
use lowrank_models::{Mlp, Rows};
use lowrank_record::Seed;
use lowrank_tensor::{Matrix, Var, cpu};
use lowrank_train::{Group, Run, Schedule, Settings, Shape, Stop, train};
use serde::Serialize;

use super::learning::Learning;
use crate::AppError;
use crate::objective::Trainable;
use lowrank_command::Because;

/// Width of the inputs.
pub(super) const INPUTS: usize = 64;
/// Classes.
pub(super) const CLASSES: usize = 16;
/// Hidden width of the teachers.
const TEACHER: usize = 48;
/// How much of the second teacher the new task holds.
const SHIFT: f32 = 1.5;

/// How large the problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Size {
    /// Width of the two hidden layers.
    pub hidden: usize,
    /// Steps on the first task.
    pub pretraining: u64,
    /// Fresh rows of each of them.
    pub pretraining_batch: usize,
    /// Steps on the new task.
    pub steps: u64,
    /// Rows of each of them.
    pub batch: usize,
    /// Rows to learn the new task from.
    pub train: usize,
    /// Rows to test on.
    pub test: usize,
}

/// A pretrained network, and the task that it does not know.
pub(super) struct Problem {
    /// `[out, in]`, first layer to last.
    weights: Vec<Matrix>,
    /// What the new task is learnt from.
    pub(super) train: Rows,
    /// What it is tested on.
    pub(super) test: Rows,
    /// Accuracy on the first task after learning it.
    pub(super) first_task: f64,
    /// Accuracy on the new task before learning it.
    pub(super) before: f64,
    /// Loss on the rows to learn from before learning them.
    pub(super) loss_before: f64,
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
        let first = |inputs: Vec<f32>| label(inputs, &teachers, None);
        let second = |inputs: Vec<f32>| label(inputs, &teachers, Some(SHIFT));
        let mut network =
            Mlp::random(&[INPUTS, size.hidden, size.hidden, CLASSES], 1.0, seed.at("network", ""), &cpu())
                .while_doing("drawing the network")?;
        let variables = weights_of(network.train_all().while_doing("pretraining")?);
        let batch = |step: u64| {
            first(inputs.rows(seed.at("pretraining", &step.to_string()), size.pretraining_batch)?)
        };
        let settings = Settings {
            steps: size.pretraining,
            rate: 1e-3,
            clip_norm: 0.0,
            schedule: Schedule { shape: Shape::Constant, ..Schedule::default() },
            checkpoint_every: 0,
            ..Settings::default()
        };
        let mut learning = Learning::new(&network, &variables, &batch);
        train(&mut learning, &settings, &Run::default(), &mut (), &Stop::default())
            .while_doing("pretraining")?;
        let weights = variables.iter().map(|each| {
            Matrix::from_f32(each.variable.values(), each.variable.shape()).while_doing("pretraining")
        });
        let weights = weights.collect::<Result<Vec<_>, _>>()?;
        let rows = second(inputs.rows(seed.at("rows", "train"), size.train)?)?;
        let test_inputs = inputs.rows(seed.at("rows", "test"), size.test)?;
        let (known, test) = (first(test_inputs.clone())?, second(test_inputs)?);
        Ok(Problem {
            first_task: network.accuracy(&known).while_doing("testing")?,
            before: network.accuracy(&test).while_doing("testing")?,
            loss_before: network.loss(&rows).while_doing("testing")?,
            weights,
            train: rows,
            test,
        })
    }

    /// The pretrained network, anew.
    pub(super) fn network(&self) -> Result<Mlp, AppError> {
        Mlp::new(self.weights.clone(), &cpu()).while_doing("building the network")
    }
}

/// Whole weights as something to be trained.
pub(super) fn weights_of(variables: Vec<(String, Var)>) -> Vec<Trainable> {
    let one = |(name, variable)| Trainable { name, group: Group::Dense, decay: false, variable };
    variables.into_iter().map(one).collect()
}

/// The distribution of inputs.
struct Inputs {
    /// `√eigenvalue · basis`, `[64, 64]`, row-major: a row of standard normal draws times this has the covariance.
    root: Vec<f32>,
    mean: Vec<f32>,
}

impl Inputs {
    fn draw(seed: Seed) -> Result<Inputs, AppError> {
        let draws = seed.at("inputs", "basis").normal(INPUTS * INPUTS);
        let basis = from_rows(&draws, INPUTS, INPUTS)
            .and_then(|square| orthonormal_basis(square.as_ref()))
            .while_doing("drawing the inputs")?;
        let harmonic = (1..=INPUTS).map(|i| 1.0 / i as f32).sum::<f32>() / INPUTS as f32;
        // Eigenvalues 1/i, of mean 1; a column of the basis is as good a direction as a row.
        let root = |i: usize| (1.0 / ((i + 1) as f32 * harmonic)).sqrt();
        let rows = to_rows(basis.as_ref());
        let root = rows.chunks(INPUTS).enumerate().flat_map(|(i, row)| row.iter().map(move |b| root(i) * b));
        let mean = seed.at("inputs", "mean").normal(INPUTS).into_iter().map(|value| 0.5 * value).collect();
        Ok(Inputs { root: root.collect(), mean })
    }

    /// `[count, 64]`, row-major.
    fn rows(&self, seed: Seed, count: usize) -> Result<Vec<f32>, AppError> {
        let draws = from_rows(&seed.normal(count * INPUTS), count, INPUTS);
        let root = from_rows(&self.root, INPUTS, INPUTS).while_doing("drawing inputs")?;
        let mut rows =
            to_rows(multiply(draws.while_doing("drawing inputs")?.as_ref(), root.as_ref()).as_ref());
        for row in rows.chunks_mut(INPUTS) {
            row.iter_mut().zip(&self.mean).for_each(|(value, mean)| *value += mean);
        }
        Ok(rows)
    }
}

/// Rows with the class that the first teacher's logits give them, with so much of the second's added.
fn label(inputs: Vec<f32>, teachers: &[Mlp; 2], shift: Option<f32>) -> Result<Rows, AppError> {
    let logits =
        |teacher: &Mlp| teacher.logits(&inputs).map(lowrank_tensor::to_rows).while_doing("asking a teacher");
    let mut sum = logits(&teachers[0])?;
    if let Some(shift) = shift {
        let second = logits(&teachers[1])?;
        sum.iter_mut().zip(second).for_each(|(sum, second)| *sum += shift * second);
    }
    let classes = sum.chunks(CLASSES).map(|row| {
        let better = |best: usize, index: usize| if row[index] > row[best] { index } else { best };
        (1..row.len()).fold(0, better) as i32
    });
    Ok(Rows { classes: classes.collect(), inputs })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TINY: Size = Size {
        hidden: 24,
        pretraining: 300,
        pretraining_batch: 64,
        steps: 10,
        batch: 16,
        train: 300,
        test: 400,
    };

    #[test]
    fn a_problem_is_its_seeds_and_knows_the_first_task_better() {
        let problem = Problem::make(&TINY, Seed(4)).unwrap();
        let again = Problem::make(&TINY, Seed(4)).unwrap();
        assert_eq!(problem.train, again.train);
        let values = |problem: &Problem| problem.weights.iter().map(Matrix::to_f32).collect::<Vec<_>>();
        assert_eq!(values(&problem), values(&again));
        assert_ne!(problem.train, Problem::make(&TINY, Seed(5)).unwrap().train);
        // Chance is one of sixteen.
        assert!(problem.first_task > 0.25 && problem.before < problem.first_task, "{}", problem.first_task);
        let network = problem.network().unwrap();
        assert!((network.accuracy(&problem.test).unwrap() - problem.before).abs() < 1e-12);
    }

    #[test]
    fn inputs_have_the_planted_spectrum() {
        let inputs = Inputs::draw(Seed(7)).unwrap();
        let rows = inputs.rows(Seed(8), 20_000).unwrap();
        let variance: f64 = rows
            .chunks(INPUTS)
            .flat_map(|row| row.iter().zip(&inputs.mean).map(|(value, mean)| f64::from(value - mean).powi(2)))
            .sum::<f64>()
            / 20_000.0;
        assert!((variance / INPUTS as f64 - 1.0).abs() < 0.05, "eigenvalues of mean 1: {variance}");
        // The first eigenvalue of 64 holds 1/H(64) of the variance, H the harmonic number 4.744.
        let first: f32 = inputs.root[..INPUTS].iter().map(|value| value * value).sum();
        assert!((f64::from(first) / INPUTS as f64 - 1.0 / 4.744).abs() < 1e-3, "{first}");
    }
}
