//! The closed forms of the two-layer linear network.

use faer::Mat;
use lowrank_labs::regimes::linear::{
    LinearNetwork, aligned_without_readout, alignment_of_target, expected_alignment, flat_start,
    gaussian_start,
};
use lowrank_linalg::svd_in_f64;
use lowrank_record::Seed;

const D: usize = 20;
const H: usize = 30;

fn unit(seed: u64) -> Vec<f64> {
    let draws = Seed(seed).normal(D);
    let norm = draws.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
    draws.iter().map(|&x| f64::from(x) / norm).collect()
}

fn learned(hidden: &Mat<f64>, readout: Vec<f64>, target: &[f64]) -> f64 {
    LinearNetwork { hidden: hidden.clone(), readout }.learn(target).unwrap().kernel_alignment
}

#[test]
fn a_vanishing_start_ends_at_the_closed_form_of_its_task() {
    for rank in [1, 2, 5, 10, 20] {
        let hidden = flat_start(H, D, rank, 1e-3, Seed(7)).unwrap();
        for task in 0..6 {
            let target = unit(100 + task);
            let found = learned(&hidden, vec![0.0; H], &target);
            let wanted = alignment_of_target(hidden.as_ref(), &target).unwrap();
            assert!((found / wanted - 1.0).abs() < 5e-3, "rank {rank}, task {task}: {found} {wanted}");
        }
    }
}

#[test]
fn the_mean_over_an_orthonormal_set_of_tasks_is_the_expectation() {
    // Over such a set bᵀS₀b has its mean over all directions exactly, tr S₀/d.
    for rank in [1, 5, 20] {
        let hidden = flat_start(H, D, rank, 1e-3, Seed(8)).unwrap();
        let axis = |task: usize| (0..D).map(|j| f64::from(u8::from(j == task))).collect::<Vec<f64>>();
        let mean = (0..D).map(|task| learned(&hidden, vec![0.0; H], &axis(task))).sum::<f64>() / D as f64;
        let values = svd_in_f64(hidden.as_ref()).unwrap().values;
        let wanted = expected_alignment(&values, D);
        assert!((mean / wanted - 1.0).abs() < 5e-3, "rank {rank}: {mean} {wanted}");
    }
    // By hand, 1.05·√rank/√23: flat spectra in 20 dimensions.
    for (rank, wanted) in [(1, 0.2189), (2, 0.3096), (5, 0.4896), (10, 0.6923), (20, 0.9791)] {
        assert!((expected_alignment(&vec![1.0; rank], D) - wanted).abs() < 6e-5);
    }
}

#[test]
fn a_low_rank_along_the_task_is_lazy_when_it_is_balanced() {
    let (target, left) = (unit(1), {
        let draws = flat_start(H, D, 1, 1.0, Seed(3)).unwrap();
        let svd = svd_in_f64(draws.as_ref()).unwrap();
        (0..H).map(|i| svd.left[(i, 0)]).collect::<Vec<f64>>()
    });
    let ray = |s: f64| Mat::from_fn(H, D, |i, j| s * left[i] * target[j]);
    let balanced = learned(&ray(0.1), left.iter().map(|u| 0.1 * u).collect(), &target);
    assert!((balanced - 1.0).abs() < 1e-4, "{balanced}");
    let found = learned(&ray(1e-3), vec![0.0; H], &target);
    assert!((found / aligned_without_readout(D) - 1.0).abs() < 0.01, "{found}");
}

#[test]
fn a_large_scale_is_lazy_whatever_the_task() {
    let mean = |scale: f64| {
        let hidden = gaussian_start(H, D, scale, Seed(5));
        (0..3).map(|task| learned(&hidden, vec![0.0; H], &unit(task))).sum::<f64>() / 3.0
    };
    let (small, unitary, large) = (mean(1e-2), mean(1.0), mean(3.0));
    assert!(small < 0.85 && unitary > small + 0.05, "{small} {unitary}");
    assert!(large > 0.99 && large > unitary, "{large}");
}
