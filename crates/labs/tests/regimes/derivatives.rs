//! Gradients and Jacobians against finite differences, and the kernel against the Jacobian.

use faer::Mat;
use lowrank_labs::regimes::kernel::{jacobian, kernel};
use lowrank_labs::regimes::task::{Context, MatchToSample, TwoAlternative};
use lowrank_labs::regimes::{Network, Scored, Task};

use crate::{norm, small};

const STEP: f64 = 1e-6;

const CASES: [(&dyn Task, f64, Scored); 4] = [
    (&TwoAlternative, 1.0, Scored::All),
    (&MatchToSample, 0.6, Scored::All),
    (&Context, 1.0, Scored::Last),
    (&Context, 0.3, Scored::All),
];

/// `∂ value / ∂ weight` by central differences, an entry at a time.
fn differences(
    network: &Network,
    weight: impl Fn(&mut Network) -> &mut Mat<f64>,
    value: impl Fn(&Network) -> f64,
) -> Mat<f64> {
    let mut moved = network.clone();
    let (rows, cols) = weight(&mut moved).shape();
    Mat::from_fn(rows, cols, |i, j| {
        let mut at = |by: f64| {
            weight(&mut moved)[(i, j)] += by;
            let found = value(&moved);
            weight(&mut moved)[(i, j)] -= by;
            found
        };
        (at(STEP) - at(-STEP)) / (2.0 * STEP)
    })
}

#[test]
fn gradients_are_those_of_finite_differences() {
    for (task, leak, scored) in CASES {
        let (network, batch) = small(task, leak, scored);
        let trace = network.run(&batch);
        let (_, logits) = network.loss(&batch, &trace);
        let found = network.gradient(&batch, &trace, &logits);
        let loss = |network: &Network| network.loss(&batch, &network.run(&batch)).0;
        let wanted = [
            differences(&network, |network| &mut network.input, loss),
            differences(&network, |network| &mut network.recurrent, loss),
            differences(&network, |network| &mut network.readout, loss),
        ];
        for (found, wanted) in [found.input, found.recurrent, found.readout].iter().zip(&wanted) {
            assert!(norm(wanted) > 1e-4, "{} has a gradient", task.name());
            assert!(norm(&(found - wanted)) < 1e-7 * (1.0 + norm(wanted)), "{} {leak}", task.name());
        }
    }
}

#[test]
fn jacobians_are_those_of_finite_differences() {
    for (task, leak, scored) in CASES {
        let (network, batch) = small(task, leak, scored);
        let found = jacobian(&network, &batch);
        let first = batch.first_scored() * network.answers();
        assert_eq!(found.nrows(), network.run(&batch).logits.len() - first);
        for row in (0..found.nrows()).step_by(5) {
            let logit = |network: &Network| network.run(&batch).logits[first + row];
            let wanted = differences(&network, |network| &mut network.recurrent, logit);
            let units = network.units();
            let found = Mat::from_fn(units, units, |i, j| found[(row, i + units * j)]);
            assert!(norm(&(&found - &wanted)) <= 1e-5 * norm(&wanted) + 1e-8, "{} row {row}", task.name());
        }
    }
}

#[test]
fn the_kernel_without_a_jacobian_is_the_one_with_it() {
    for (task, leak, scored) in CASES {
        let (network, batch) = small(task, leak, scored);
        let (found, jacobian) = (kernel(&network, &batch), jacobian(&network, &batch));
        let wanted = &jacobian * jacobian.transpose();
        assert!(norm(&wanted) > 1e-3);
        assert!(norm(&(&found - &wanted)) < 1e-12 * norm(&wanted), "{}", task.name());
        // Symmetric to the bit, positive semidefinite, and of the trace ‖J‖².
        assert_eq!(found, found.transpose().to_owned());
        let trace: f64 = (0..found.nrows()).map(|i| found[(i, i)]).sum();
        assert!((trace - norm(&jacobian).powi(2)).abs() < 1e-10 * trace);
        let least = found.self_adjoint_eigenvalues(faer::Side::Lower).unwrap()[0];
        assert!(least > -1e-10 * trace, "{least}");
    }
}
