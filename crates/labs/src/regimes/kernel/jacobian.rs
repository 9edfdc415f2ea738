//! The Jacobian itself: what [`super::kernel`] does without, for checks and for whoever wants it.

use faer::{Accum, Mat, MatMut};

use super::signals;
use crate::regimes::network::product;
use crate::regimes::{Batch, Network};

/// J, `[n, H²]`: a row for each logit of each scored step of each trial, in the order of [`super::kernel`]; column `i + H·j` is the derivative with
/// respect to `W[i, j]`.
///
/// # Panics
/// Panics when the batch has another width than the network.
#[must_use]
pub fn jacobian(network: &Network, batch: &Batch) -> Mat<f64> {
    let trace = network.run(batch);
    let signals = signals(network, batch, &trace.states);
    let (units, trials, answers) = (network.units(), batch.trials, network.answers());
    let rows = (batch.targets.len() - batch.first_scored()) * answers;
    let mut jacobian = Mat::<f64>::zeros(rows, units * units);
    let mut sum = vec![0.0; units * units];
    for row in 0..rows {
        let trial = row / answers % trials;
        sum.fill(0.0);
        for (step, signal) in signals.iter().enumerate() {
            // Rows of earlier steps are left out of a step's signals.
            let Some(column) = (row + signal.len() / units).checked_sub(rows) else { continue };
            let signal = &signal[column * units..(column + 1) * units];
            let before = (step * trials + trial) * units;
            let before = &trace.states[before..before + units];
            product(
                MatMut::from_column_major_slice_mut(&mut sum, units, units),
                Accum::Add,
                faer::MatRef::from_column_major_slice(signal, units, 1),
                faer::MatRef::from_row_major_slice(before, 1, units),
                network.leak,
            );
        }
        jacobian.row_mut(row).iter_mut().zip(&sum).for_each(|(to, &from)| *to = from);
    }
    jacobian
}
