//! One training of one network with everything that is measured of it.
//!
//! As in the paper (Liu et al., 2024, and their `main.py`): the same trials before and behind, 320 for the representation at the last step and 32
//! for the kernel. The final loss is the mean of the second half of the batches; theirs is that of twenty batches of the same half.

use faer::{Mat, MatRef};
use lowrank_record::Seed;
use serde::Serialize;

use super::alignment::{
    SingularAlignment, centred_alignment, representation_alignment, sign_similarity, singular_alignment,
    weight_change,
};
use super::kernel::{kernel, kernel_alignment, task_alignment};
use super::{Batch, Network, RegimeError, Spectrum, Task, Training, train};

/// How many leading singular vectors of a change are compared with those of the start.
const DIRECTIONS: usize = 4;

/// Points of the loss curve.
const CURVE: usize = 80;

/// How much is measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Probes {
    /// Trials of the kernel.
    pub kernel_trials: usize,
    /// Trials of the representation.
    pub state_trials: usize,
    /// Trials on which the answers are counted.
    pub test_trials: usize,
    /// Numbers of steps behind which the network is measured; the end is measured in any case.
    pub at: Vec<usize>,
}

impl Probes {
    /// As in the paper, with a trajectory of powers of two down to a sixty-fourth of the training.
    #[must_use]
    pub fn paper(iterations: usize) -> Probes {
        let at = (1..=6).rev().map(|power| iterations >> power).filter(|&at| at > 0).collect();
        Probes { kernel_trials: 32, state_trials: 320, test_trials: 2000, at }
    }
}

/// How far a network is from its start.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Moved {
    /// Steps done.
    pub iteration: usize,
    /// `‖W − W₀‖_F` of the recurrent weights.
    pub weight_change: f64,
    /// Representation alignment with the start.
    pub representation_alignment: f64,
    /// The same about the mean.
    pub centred_alignment: f64,
    /// Alignment of the tangent kernel with that of the start.
    pub kernel_alignment: f64,
    /// Alignment of the kernel with the task.
    pub task_alignment: f64,
}

/// What a training came to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Trained {
    /// The recurrent weights at the start.
    pub start: Spectrum,
    /// Those at the end.
    pub end: Spectrum,
    /// The trajectory; the last one is the end.
    pub moved: Vec<Moved>,
    /// Alignment of the kernel of the start with the task.
    pub task_alignment_before: f64,
    /// The mean loss of the second half of the batches, nats.
    pub loss: f64,
    /// Share of the test trials that are answered rightly.
    pub accuracy: f64,
    /// Share of units and trials that are on in both or off in both.
    pub sign_similarity: f64,
    /// Whether the change lies along the start.
    pub singular: Option<SingularAlignment>,
    /// Number of steps and mean loss of the batches before it, for plots.
    #[serde(skip)]
    pub curve: Vec<(usize, f64)>,
    /// `W_T − W₀`.
    #[serde(skip)]
    pub change: Mat<f64>,
}

impl Trained {
    /// How far the network is from its start at the end.
    #[must_use]
    pub fn last(&self) -> Option<&Moved> {
        self.moved.last()
    }
}

/// Trains a network on a task from these recurrent weights and measures it. The seed gives the other weights, the batches and the trials of the probes,
/// the same ones for every start.
///
/// # Errors
/// [`RegimeError::Diverged`], also where the loss of a dead network is finite and its weights are not; what the network or a measure refuses.
pub fn course(
    task: &dyn Task,
    recurrent: Mat<f64>,
    leak: f64,
    training: &Training,
    probes: &Probes,
    seed: Seed,
) -> Result<Trained, RegimeError> {
    let mut network = Network::new(task, recurrent, leak, seed)?;
    let before = Before::of(&network, task, probes, seed);
    let mut moved = Vec::new();
    let end = training.iterations;
    let losses = train(&mut network, task, training, seed.at("course", "training"), &mut |done, network| {
        if done > 0 && (done == end || probes.at.contains(&done)) {
            moved.push(before.moved(network, done)?);
        }
        Ok(())
    })?;
    if !lowrank_linalg::energy(network.recurrent.as_ref()).is_finite() {
        return Err(RegimeError::Diverged { iteration: end, rate: training.rate });
    }
    let (from, to) = (before.network.recurrent.as_ref(), network.recurrent.as_ref());
    let after = before.states(&network);
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len().max(1) as f64;
    let block = losses.len().div_ceil(CURVE).max(1);
    let points = losses.chunks(block).enumerate();
    Ok(Trained {
        start: Spectrum::of(from)?,
        end: Spectrum::of(to)?,
        moved,
        task_alignment_before: before.towards(&before.kernel),
        loss: mean(&losses[losses.len() / 2..]),
        accuracy: network.accuracy(&task.batch(probes.test_trials, seed.at("course", "test"))),
        sign_similarity: sign_similarity(before.states.as_ref(), after.as_ref())?,
        singular: singular_alignment(from, to, DIRECTIONS)?,
        curve: points.map(|(index, part)| (index * block + part.len(), mean(part))).collect(),
        change: to - from,
    })
}

/// The network at the start with what it is compared by.
struct Before {
    network: Network,
    kernel: Mat<f64>,
    kernel_batch: Batch,
    states: Mat<f64>,
    state_batch: Batch,
}

impl Before {
    fn of(network: &Network, task: &dyn Task, probes: &Probes, seed: Seed) -> Before {
        let kernel_batch = task.batch(probes.kernel_trials, seed.at("course", "kernel"));
        let state_batch = task.batch(probes.state_trials, seed.at("course", "states"));
        Before {
            network: network.clone(),
            kernel: kernel(network, &kernel_batch),
            states: network.run(&state_batch).last_states(network.units(), probes.state_trials),
            kernel_batch,
            state_batch,
        }
    }

    fn states(&self, network: &Network) -> Mat<f64> {
        network.run(&self.state_batch).last_states(network.units(), self.state_batch.trials)
    }

    fn towards(&self, kernel: &Mat<f64>) -> f64 {
        task_alignment(kernel.as_ref(), &self.kernel_batch, self.network.answers())
    }

    fn moved(&self, network: &Network, iteration: usize) -> Result<Moved, RegimeError> {
        let kernel = kernel(network, &self.kernel_batch);
        let after = self.states(network);
        let (from, to): (MatRef<'_, f64>, _) = (self.states.as_ref(), after.as_ref());
        Ok(Moved {
            iteration,
            weight_change: weight_change(self.network.recurrent.as_ref(), network.recurrent.as_ref())?,
            representation_alignment: representation_alignment(from, to)?,
            centred_alignment: centred_alignment(from, to)?,
            kernel_alignment: kernel_alignment(self.kernel.as_ref(), kernel.as_ref()),
            task_alignment: self.towards(&kernel),
        })
    }
}
