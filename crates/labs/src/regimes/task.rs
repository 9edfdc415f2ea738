//! Tasks: what a network sees at each step of a trial, and what it should answer there.
//!
//! The three of neurogym 0.0.2 that the paper trains on (Liu et al., 2024) are generated here to its rules, with θ ∈ {0, π}: trials of eight
//! steps of 100 ms, the answer 0 ("fixate") at every step before the decision and the choice at the last. Images are read row by row.

mod context;
mod digits;
mod match_to_sample;
mod two_alternative;

pub use context::Context;
pub use digits::Digits;
pub use match_to_sample::MatchToSample;
pub use two_alternative::TwoAlternative;

use lowrank_record::Seed;
use rand::Rng;
use rand_distr::{Distribution, StandardNormal};

/// Standard deviation of the input noise of one step: `σ/√dt` with σ = 1 and dt = 100 ms.
const NOISE: f64 = 0.1;

/// Steps of a trial of the three cognitive tasks.
const STEPS: usize = 8;

/// Which steps of a trial the loss counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scored {
    /// Every step, all of one weight.
    All,
    /// The last one.
    Last,
}

/// Trials side by side. Column `t · trials + b` of a matrix over steps and trials belongs to step t of trial b.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// Number of trials.
    pub trials: usize,
    /// Steps of each.
    pub steps: usize,
    /// Width of the input.
    pub width: usize,
    /// `[width, steps · trials]`, column after column.
    pub inputs: Vec<f64>,
    /// The right answer of each step of each trial.
    pub targets: Vec<usize>,
    /// Which of them count.
    pub scored: Scored,
}

impl Batch {
    /// Trials of zeros in which 0 is right everywhere.
    pub(super) fn zeros(trials: usize, steps: usize, width: usize, scored: Scored) -> Batch {
        let columns = trials * steps;
        Batch { trials, steps, width, inputs: vec![0.0; columns * width], targets: vec![0; columns], scored }
    }

    /// The input of one step of one trial.
    pub(super) fn input(&mut self, step: usize, trial: usize) -> &mut [f64] {
        let at = (step * self.trials + trial) * self.width;
        &mut self.inputs[at..at + self.width]
    }

    /// Sets the right answer of the last step.
    pub(super) fn decide(&mut self, trial: usize, choice: usize) {
        let last = (self.steps - 1) * self.trials + trial;
        self.targets[last] = choice;
    }

    /// The first column that counts: all columns from there on do.
    #[must_use]
    pub fn first_scored(&self) -> usize {
        match self.scored {
            Scored::All => 0,
            Scored::Last => (self.steps - 1) * self.trials,
        }
    }
}

/// A source of trials.
pub trait Task: Send + Sync {
    /// Short name, as tables show it.
    fn name(&self) -> &'static str;
    /// Width of the input.
    fn width(&self) -> usize;
    /// Number of answers, "fixate" included.
    fn answers(&self) -> usize;
    /// So many trials; the same seed gives the same trials.
    fn batch(&self, trials: usize, seed: Seed) -> Batch;
}

/// Adds the noise of one step to these lines.
fn add_noise(lines: &mut [f64], rng: &mut impl Rng) {
    for line in lines {
        let draw: f64 = StandardNormal.sample(rng);
        *line += NOISE * draw;
    }
}
