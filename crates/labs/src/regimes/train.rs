//! Training: stochastic gradient descent with momentum on fresh batches, `v ← μ·v + g`, `w ← w − η·v`, no decay, no clipping, all three weights
//! (Liu et al., 2024, and their `main.py`: η = 0.003, μ = 0.9, 10 000 iterations of 32 trials with 300 units).

use faer::Mat;
use lowrank_record::Seed;

use super::network::Gradient;
use super::{Network, RegimeError, Task};

/// How a network is trained.
#[derive(Debug, Clone, PartialEq)]
pub struct Training {
    /// Learning rate η per iteration.
    pub rate: f64,
    /// Momentum μ.
    pub momentum: f64,
    /// Batches.
    pub iterations: usize,
    /// Trials of each.
    pub trials: usize,
    /// The sign of each unit's outgoing weights, kept by setting to zero what crosses it (Dale's law). Without it, as in the paper, signs
    /// are given at the start only.
    pub column_signs: Option<Vec<f64>>,
}

impl Default for Training {
    /// Our replication of the paper's at 64 units: a rate of 0.01 and 4000 batches.
    fn default() -> Training {
        Training { rate: 0.01, momentum: 0.9, iterations: 4000, trials: 32, column_signs: None }
    }
}

/// Trains; the losses of all batches, in nats, each before its step. `watch` sees the number of steps done and the network at the start and behind
/// each step.
///
/// # Errors
/// [`RegimeError::Diverged`]; what `watch` returns; [`RegimeError::Size`] for signs of another number of units.
pub fn train(
    network: &mut Network,
    task: &dyn Task,
    training: &Training,
    seed: Seed,
    watch: &mut dyn FnMut(usize, &Network) -> Result<(), RegimeError>,
) -> Result<Vec<f64>, RegimeError> {
    if let Some(signs) = training.column_signs.as_ref().filter(|signs| signs.len() != network.units()) {
        let what = "signs of units";
        return Err(RegimeError::Size { what, wanted: network.units(), found: signs.len() });
    }
    let zeros = |like: &Mat<f64>| Mat::<f64>::zeros(like.nrows(), like.ncols());
    let mut velocity = Gradient {
        input: zeros(&network.input),
        recurrent: zeros(&network.recurrent),
        readout: zeros(&network.readout),
    };
    let mut losses = Vec::with_capacity(training.iterations);
    watch(0, network)?;
    for iteration in 0..training.iterations {
        let batch = task.batch(training.trials, seed.at("batch", &iteration.to_string()));
        let trace = network.run(&batch);
        let (loss, logits) = network.loss(&batch, &trace);
        if !loss.is_finite() {
            return Err(RegimeError::Diverged { iteration, rate: training.rate });
        }
        losses.push(loss);
        let gradient = network.gradient(&batch, &trace, &logits);
        for (weight, velocity, gradient) in [
            (&mut network.input, &mut velocity.input, &gradient.input),
            (&mut network.recurrent, &mut velocity.recurrent, &gradient.recurrent),
            (&mut network.readout, &mut velocity.readout, &gradient.readout),
        ] {
            step(weight, velocity, gradient, training);
        }
        if let Some(signs) = &training.column_signs {
            keep_signs(&mut network.recurrent, signs);
        }
        watch(iteration + 1, network)?;
    }
    Ok(losses)
}

fn step(weight: &mut Mat<f64>, velocity: &mut Mat<f64>, gradient: &Mat<f64>, training: &Training) {
    for j in 0..weight.ncols() {
        let values = weight.col_mut(j).iter_mut().zip(velocity.col_mut(j).iter_mut());
        for ((weight, velocity), gradient) in values.zip(gradient.col(j).iter()) {
            *velocity = training.momentum * *velocity + gradient;
            *weight -= training.rate * *velocity;
        }
    }
}

fn keep_signs(recurrent: &mut Mat<f64>, signs: &[f64]) {
    for (j, sign) in signs.iter().enumerate() {
        recurrent
            .col_mut(j)
            .iter_mut()
            .filter(|weight| **weight * sign < 0.0)
            .for_each(|weight| *weight = 0.0);
    }
}
