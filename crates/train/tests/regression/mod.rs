//! A small low-rank regression: `y = left · right · x + bias`, with examples of different lengths, held-out data, and
//! input noise that depends on step and micro-batch alone. Gradients by hand, in f64, rounded once.

#![allow(dead_code, clippy::unwrap_used, reason = "each test file uses a part of this; a test may unwrap")]

use lowrank_record::Seed;
use lowrank_train::{Evaluated, Evaluation, Failure, Group, Objective, Parameter};

pub const OUT: usize = 5;
pub const RANK: usize = 2;
pub const IN: usize = 7;
const EXAMPLES: usize = 23;

/// One example: a few input-output pairs, its "loss tokens".
struct Example {
    inputs: Vec<Vec<f32>>,
    outputs: Vec<Vec<f32>>,
}

pub struct Regression {
    train: Vec<Example>,
    held_out: Vec<Example>,
    batch: usize,
    accumulation: usize,
    seed: Seed,
    noise: f32,
    /// left `[OUT, RANK]`, right `[RANK, IN]`, bias `[1, OUT]`.
    pub values: [Vec<f32>; 3],
    /// Fails when asked for this step, as if the machine had died.
    pub dies_at: Option<u64>,
    /// Puts this number into the loss (`None`) or the gradient of the given parameter, at the given step.
    pub poison: Option<(u64, Option<usize>, f32)>,
    /// Adds this much to the held-out loss per evaluation, to make it rise.
    pub drift: f64,
    pub evaluations: u32,
}

impl Regression {
    pub fn new(seed: u64, batch: usize, accumulation: u32) -> Self {
        let seed = Seed(seed);
        let truth = seed.at("truth", "").normal(OUT * IN);
        let examples = |kind: &str, count: usize| -> Vec<Example> {
            (0..count)
                .map(|index| {
                    // One to four pairs: lengths differ, as in text.
                    let inputs: Vec<Vec<f32>> = (0..1 + index * index % 4)
                        .map(|pair| seed.at(kind, &format!("{index} {pair}")).normal(IN))
                        .collect();
                    let outputs = inputs.iter().map(|x| multiply(&truth, x)).collect();
                    Example { inputs, outputs }
                })
                .collect()
        };
        Regression {
            train: examples("train", EXAMPLES),
            held_out: examples("held-out", 6),
            batch,
            accumulation: accumulation as usize,
            seed,
            noise: 0.1,
            // `left` is small but not zero, so that every parameter has a gradient at once.
            values: [
                seed.at("start", "left").uniform(OUT * RANK, 0.2),
                seed.at("start", "right").normal(RANK * IN),
                vec![0.25; OUT],
            ],
            dies_at: None,
            poison: None,
            drift: 0.0,
            evaluations: 0,
        }
    }

    /// Without input noise, so that a step does not depend on how it is split into micro-batches.
    pub fn quiet(mut self) -> Self {
        self.noise = 0.0;
        self
    }

    pub fn bits(&self) -> Vec<u32> {
        self.values.iter().flatten().map(|value| value.to_bits()).collect()
    }

    /// Loss sum, number of pairs and gradients over some examples.
    fn sums<'a>(
        &self,
        examples: impl Iterator<Item = &'a Example>,
        noise: &[f32],
    ) -> (f64, f64, [Vec<f64>; 3]) {
        let [left, right, bias] = &self.values;
        let (mut loss, mut weight) = (0.0, 0.0);
        let mut gradients = [vec![0.0; OUT * RANK], vec![0.0; RANK * IN], vec![0.0; OUT]];
        for (x, y) in examples.flat_map(|example| example.inputs.iter().zip(&example.outputs)) {
            let x: Vec<f32> = x.iter().zip(noise).map(|(x, noise)| x + noise).collect();
            let inner = multiply(right, &x);
            let error: Vec<f64> = multiply(left, &inner)
                .iter()
                .zip(bias)
                .zip(y)
                .map(|((product, bias), y)| f64::from(product + bias - y))
                .collect();
            loss += error.iter().map(|e| 0.5 * e * e).sum::<f64>();
            weight += 1.0;
            for o in 0..OUT {
                gradients[2][o] += error[o];
                for r in 0..RANK {
                    gradients[0][o * RANK + r] += error[o] * f64::from(inner[r]);
                    for i in 0..IN {
                        gradients[1][r * IN + i] +=
                            error[o] * f64::from(left[o * RANK + r]) * f64::from(x[i]);
                    }
                }
            }
        }
        (loss, weight, gradients)
    }
}

fn multiply(matrix: &[f32], x: &[f32]) -> Vec<f32> {
    matrix.chunks(x.len()).map(|row| row.iter().zip(x).map(|(a, b)| a * b).sum()).collect()
}

impl Objective for Regression {
    fn parameters(&self) -> Vec<Parameter> {
        let parts = [
            ("left", [OUT, RANK], Group::Left),
            ("right", [RANK, IN], Group::Right),
            ("bias", [1, OUT], Group::Dense),
        ];
        let zipped = parts.into_iter().zip(&self.values);
        zipped
            .map(|((name, shape, group), value)| Parameter {
                name: format!("layer.{name}"),
                shape,
                group,
                decay: name != "bias",
                value: value.clone(),
            })
            .collect()
    }

    fn assign(&mut self, index: usize, value: &[f32]) -> Result<(), Failure> {
        self.values[index].copy_from_slice(value);
        Ok(())
    }

    fn gradients(&mut self, step: u64, micro: u32) -> Result<Evaluated, Failure> {
        if self.dies_at == Some(step) {
            return Err("the machine died".into());
        }
        // Examples are counted through without a gap, in a new order each epoch: a step holds the same ones whatever
        // its split into micro-batches, and every one comes once an epoch.
        let first = (step as usize * self.accumulation + micro as usize) * self.batch;
        let examples = (first..first + self.batch).map(|position| {
            let epoch = self.seed.at("data order", &(position / EXAMPLES).to_string());
            &self.train[epoch.permutation(EXAMPLES)[position % EXAMPLES]]
        });
        let noise: Vec<f32> = self.seed.at("noise", &format!("{step} {micro}")).normal(IN);
        let noise: Vec<f32> = noise.iter().map(|draw| draw * self.noise).collect();
        let (mut loss_sum, weight, gradients) = self.sums(examples, &noise);
        let mut gradients: Vec<Vec<f32>> =
            gradients.iter().map(|gradient| gradient.iter().map(|&entry| entry as f32).collect()).collect();
        match self.poison {
            Some((at, None, number)) if at == step => loss_sum = f64::from(number),
            Some((at, Some(index), number)) if at == step => gradients[index][3] = number,
            _ => {}
        }
        Ok(Evaluated { loss_sum, weight, tokens: 10 * weight as u64, gradients })
    }

    fn evaluate(&mut self) -> Result<Evaluation, Failure> {
        self.evaluations += 1;
        let (loss_sum, weight, _) = self.sums(self.held_out.iter(), &[0.0; IN]);
        Ok(Evaluation { loss_sum: loss_sum + self.drift * f64::from(self.evaluations) * weight, weight })
    }
}
