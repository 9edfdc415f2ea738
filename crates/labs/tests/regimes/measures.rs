//! What alignments are blind to, what a network that does not learn shows, and that the same seed gives the same bytes.

use faer::Mat;
use lowrank_labs::regimes::alignment::{
    centred_alignment, representation_alignment, sign_similarity, singular_alignment, weight_change,
};
use lowrank_labs::regimes::connectivity::gaussian;
use lowrank_labs::regimes::kernel::{kernel, kernel_alignment, task_alignment};
use lowrank_labs::regimes::task::{Digits, MatchToSample, TwoAlternative};
use lowrank_labs::regimes::{Network, RegimeError, Scored, Training, train};
use lowrank_linalg::{multiply, orthonormal_basis};
use lowrank_record::Seed;

use crate::{norm, random, small};

fn trained(rate: f64, iterations: usize) -> (Network, Network, Vec<f64>) {
    let before = Network::new(&TwoAlternative, gaussian(12, 1.25, Seed(1)), 1.0, Seed(2)).unwrap();
    let mut after = before.clone();
    let training = Training { rate, iterations, ..Training::default() };
    let losses = train(&mut after, &TwoAlternative, &training, Seed(3), &mut |_, _| Ok(())).unwrap();
    (before, after, losses)
}

#[test]
fn what_does_not_learn_does_not_move() {
    let (before, after, losses) = trained(0.0, 3);
    let batch = small(&TwoAlternative, 1.0, Scored::All).1;
    let states = |network: &Network| network.run(&batch).last_states(12, 4);
    assert_eq!((before.clone(), losses.len()), (after.clone(), 3));
    assert_eq!(weight_change(before.recurrent.as_ref(), after.recurrent.as_ref()).unwrap(), 0.0);
    let kernels = [&before, &after].map(|network| kernel(network, &batch));
    assert!((kernel_alignment(kernels[0].as_ref(), kernels[1].as_ref()) - 1.0).abs() < 1e-14);
    let states = [states(&before), states(&after)];
    for found in [
        representation_alignment(states[0].as_ref(), states[1].as_ref()).unwrap(),
        centred_alignment(states[0].as_ref(), states[1].as_ref()).unwrap(),
        sign_similarity(states[0].as_ref(), states[1].as_ref()).unwrap(),
    ] {
        assert!((found - 1.0).abs() < 1e-14, "{found}");
    }
    let (w0, w1) = (before.recurrent.as_ref(), after.recurrent.as_ref());
    assert_eq!(singular_alignment(w0, w1, 3).unwrap(), None);
}

#[test]
fn learning_lowers_the_loss_and_the_same_seed_gives_the_same_bytes() {
    let (before, after, losses) = trained(0.02, 400);
    let mean = |range: &[f64]| range.iter().sum::<f64>() / range.len() as f64;
    assert!(mean(&losses[380..]) < 0.3 * mean(&losses[..20]), "{} {}", losses[0], losses[399]);
    assert!(norm(&(&after.recurrent - &before.recurrent)) > 0.01);
    let again = trained(0.02, 400);
    assert!(again.1 == after && again.2 == losses);
    let batch = small(&TwoAlternative, 1.0, Scored::All).1;
    let kernels = [&before, &after].map(|network| kernel(network, &batch));
    let found = kernel_alignment(kernels[0].as_ref(), kernels[1].as_ref());
    assert!((0.0..0.999).contains(&found), "{found}");
}

#[test]
fn a_rate_too_large_is_told_and_not_hidden() {
    let mut network = Network::new(&MatchToSample, gaussian(12, 30.0, Seed(1)), 1.0, Seed(2)).unwrap();
    let training = Training { rate: 1e6, iterations: 200, ..Training::default() };
    let found = train(&mut network, &MatchToSample, &training, Seed(3), &mut |_, _| Ok(())).unwrap_err();
    assert!(matches!(found, RegimeError::Diverged { .. }), "{found}");
    assert!(found.to_string().contains("smaller rate"));
}

#[test]
fn representation_alignment_is_blind_to_rotations_permutations_and_scales() {
    let (a, b) = (random(20, 7, 1), random(20, 7, 2));
    let plain = representation_alignment(a.as_ref(), b.as_ref()).unwrap();
    let centred = centred_alignment(a.as_ref(), b.as_ref()).unwrap();
    let rotation = orthonormal_basis(random(7, 7, 3).as_ref()).unwrap();
    let turned = multiply(b.as_ref(), rotation.as_ref());
    let order = Seed(4).permutation(7);
    let permuted = Mat::from_fn(20, 7, |i, j| b[(i, order[j])]);
    let scaled = &b * faer::Scale(0.3);
    let shifted = Mat::from_fn(20, 7, |i, j| b[(i, j)] + 5.0 + j as f64);
    assert!((0.0..0.9).contains(&plain) && (0.0..0.9).contains(&centred));
    for other in [&turned, &permuted, &scaled] {
        assert!((representation_alignment(a.as_ref(), other.as_ref()).unwrap() - plain).abs() < 1e-13);
        assert!((centred_alignment(a.as_ref(), other.as_ref()).unwrap() - centred).abs() < 1e-13);
    }
    assert!((centred_alignment(a.as_ref(), shifted.as_ref()).unwrap() - centred).abs() < 1e-12);
    assert!((representation_alignment(a.as_ref(), shifted.as_ref()).unwrap() - plain).abs() > 0.01);
    // By the definition, over trials.
    let (r0, r1) = (&a * a.transpose(), &b * b.transpose());
    assert!((kernel_alignment(r0.as_ref(), r1.as_ref()) - plain).abs() < 1e-13);
    assert!(representation_alignment(a.as_ref(), random(19, 7, 1).as_ref()).is_err());
}

#[test]
fn kernel_alignment_is_blind_to_the_scale_of_the_readout_and_to_the_order_of_units() {
    let (network, batch) = small(&MatchToSample, 0.7, Scored::All);
    let other = {
        let recurrent = &network.recurrent + random(9, 9, 8) * faer::Scale(0.2);
        Network { recurrent, ..network.clone() }
    };
    let aligned =
        |a: &Network, b: &Network| kernel_alignment(kernel(a, &batch).as_ref(), kernel(b, &batch).as_ref());
    let plain = aligned(&network, &other);
    assert!((0.0..0.99).contains(&plain), "{plain}");
    let scaled = Network { readout: &other.readout * faer::Scale(3.0), ..other.clone() };
    assert!((aligned(&network, &scaled) - plain).abs() < 1e-13);
    let order = Seed(4).permutation(9);
    let permuted = Network {
        input: Mat::from_fn(9, 3, |i, j| other.input[(order[i], j)]),
        recurrent: Mat::from_fn(9, 9, |i, j| other.recurrent[(order[i], order[j])]),
        readout: Mat::from_fn(3, 9, |i, j| other.readout[(i, order[j])]),
        leak: other.leak,
    };
    assert!((aligned(&network, &permuted) - plain).abs() < 1e-13);
    let kernel = kernel(&network, &batch);
    let towards = task_alignment(kernel.as_ref(), &batch, 3);
    let right: Vec<f64> =
        (0..kernel.nrows()).map(|row| if row % 3 == batch.targets[row / 3] { 1.0 } else { 0.0 }).collect();
    let along = |i: usize| (0..right.len()).map(|j| right[i] * kernel[(i, j)] * right[j]).sum::<f64>();
    let wanted = (0..right.len()).map(along).sum::<f64>() / (32.0 * norm(&kernel));
    assert!((towards - wanted).abs() < 1e-13 && towards > 0.0);
}

#[test]
fn a_change_along_the_start_overlaps_it_and_one_beside_it_does_not() {
    let basis = orthonormal_basis(random(10, 4, 6).as_ref()).unwrap();
    let part = |from: usize, factor: f64| {
        let part = basis.as_ref().subcols(from, 2);
        multiply((part * faer::Scale(factor)).as_ref(), part.transpose())
    };
    let start = part(0, 2.0);
    let along = &start + part(0, 0.1);
    let beside = &start + part(2, 0.1);
    let found = |after: &Mat<f64>| singular_alignment(start.as_ref(), after.as_ref(), 5).unwrap().unwrap();
    assert!((found(&along).left - 1.0).abs() < 1e-6 && (found(&along).right - 1.0).abs() < 1e-6);
    assert!(found(&beside).left < 1e-6 && found(&beside).right < 1e-6);
    assert!((found(&along).chance - 0.2).abs() < 1e-12, "the start has rank 2");
}

#[test]
fn images_are_learnt_from_their_last_step() {
    // Two classes: the upper or the lower row is lit.
    let pixels = (0..16).flat_map(|at| if at % 2 == 0 { [1.0, 1.0, 0.0, 0.0] } else { [0.0, 0.0, 1.0, 1.0] });
    let digits = Digits::new(pixels.collect(), (0..16).map(|at| at % 2).collect(), 2, 2, 2).unwrap();
    let mut network = Network::new(&digits, gaussian(8, 1.25, Seed(1)), 1.0, Seed(2)).unwrap();
    let training = Training { rate: 0.1, iterations: 200, ..Training::default() };
    train(&mut network, &digits, &training, Seed(3), &mut |_, _| Ok(())).unwrap();
    use lowrank_labs::regimes::Task as _;
    assert_eq!(network.accuracy(&digits.batch(50, Seed(9))), 1.0);
    assert_eq!(kernel(&network, &digits.batch(5, Seed(9))).nrows(), 10);
}

#[test]
fn signs_are_kept_only_where_that_was_asked() {
    use lowrank_labs::regimes::connectivity::{Dale, Norm, start};
    let dale = Dale { excitatory: 0.75, balanced: true };
    let control = gaussian(12, 1.25, Seed(1));
    let recurrent = start(&dale, control.as_ref(), Norm::Frobenius, Seed(1)).unwrap();
    let signs = dale.signs(12).unwrap();
    let crossed = |column_signs: Option<Vec<f64>>| {
        let mut network = Network::new(&TwoAlternative, recurrent.clone(), 1.0, Seed(2)).unwrap();
        let training = Training { rate: 0.05, iterations: 100, column_signs, ..Training::default() };
        train(&mut network, &TwoAlternative, &training, Seed(3), &mut |_, _| Ok(())).unwrap();
        (0..144).filter(|at| network.recurrent[(at / 12, at % 12)] * signs[at % 12] < 0.0).count()
    };
    assert!(crossed(None) > 0);
    assert_eq!(crossed(Some(signs.clone())), 0);
}
