//! Facts of PiSSA: the closed forms of the paper, and how near the randomised decomposition comes.

#![allow(clippy::unwrap_used, clippy::panic, reason = "clippy sees only the #[test] functions here as tests")]

use faer::Mat;
use lowrank_init::{Evidence, Initialiser, Site, Start, by_name};
use lowrank_linalg::{energy, multiply, narrow, orthonormal_basis, svd_in_f64, widen};
use lowrank_record::{Seed, Value, scale};

fn with_decay(out: usize, inp: usize, power: f64) -> Mat<f32> {
    let k = out.min(inp);
    let basis = |seed: u64, d: usize| {
        let draws = Seed(seed).normal(d * k);
        orthonormal_basis(Mat::from_fn(d, k, |i, j| f64::from(draws[i * k + j])).as_ref()).unwrap()
    };
    let (u, v) = (basis(1, out), basis(2, inp));
    let scaled = Mat::from_fn(out, k, |i, j| u[(i, j)] * ((j + 1) as f64).powf(-power));
    narrow(multiply(scaled.as_ref(), v.transpose()).as_ref())
}

fn start(weight: &Mat<f32>, svd: &str, rank: usize, scale: f64) -> Start {
    let seen =
        Evidence::of(Site { out: weight.nrows(), inp: weight.ncols(), scale }).with_weight(weight.as_ref());
    let method: Box<dyn Initialiser> = by_name("pissa", [("svd", svd)]).unwrap();
    method.start(&seen, rank, Seed(3)).unwrap()
}

#[test]
fn both_factors_carry_the_root_of_the_values_over_the_scale() {
    for (out, inp) in [(60, 44), (44, 60)] {
        let weight = with_decay(out, inp, 0.5);
        let eta = scale(16.0, 5, false);
        let Start { delta, .. } = start(&weight, "exact", 5, eta);
        let (left, right) = (widen(delta.left.as_ref()), widen(delta.right.as_ref()));
        let grams = [multiply(left.transpose(), left.as_ref()), multiply(right.as_ref(), right.transpose())];
        for gram in grams {
            for i in 0..5 {
                for j in 0..5 {
                    let wanted = if i == j { ((i + 1) as f64).powf(-0.5) / eta } else { 0.0 };
                    assert!((gram[(i, j)] - wanted).abs() < 1e-6, "({i}, {j}): {} {wanted}", gram[(i, j)]);
                }
            }
        }
    }
}

#[test]
fn what_the_base_keeps_begins_at_the_next_singular_value() {
    let weight = with_decay(60, 44, 0.5);
    let start = start(&weight, "exact", 5, 2.5);
    let rest = start.base_weight(weight.as_ref(), 2.5);
    let values = svd_in_f64(rest.as_ref()).unwrap().values;
    assert!((values[0] / 6.0_f64.powf(-0.5) - 1.0).abs() < 1e-5, "{}", values[0]);
    let all: f64 = (1..=44).map(|i| 1.0 / f64::from(i)).sum();
    let trained: f64 = (1..=5).map(|i| 1.0 / f64::from(i)).sum();
    let Some(Value::Number(stated)) = start.report.get("part of the weight's energy trained") else {
        panic!()
    };
    assert!((stated - trained / all).abs() < 1e-6, "{stated}");
}

#[test]
fn more_directions_than_the_weight_has_are_reported() {
    let draws = |seed: u64, m: usize, n: usize| {
        let draws = Seed(seed).normal(m * n);
        Mat::from_fn(m, n, |i, j| draws[i * n + j])
    };
    let low = multiply(draws(1, 60, 3).as_ref(), draws(2, 3, 44).as_ref());
    for svd in ["exact", "fast"] {
        let start = start(&low, svd, 8, 2.0);
        let Some(Value::Text(warning)) = start.report.get("warning") else { panic!("{svd}: no warning") };
        assert!(warning.starts_with("the weight has rank 3, 8 directions are trained"), "{svd}: {warning}");
    }
    assert!(start(&with_decay(60, 44, 0.5), "exact", 8, 2.0).report.get("warning").is_none());
}

#[test]
fn four_power_iterations_capture_what_matters() {
    let weight = with_decay(200, 160, 0.5);
    let (exact, fast) = (start(&weight, "exact", 8, 2.0), start(&weight, "fast", 8, 2.0));
    let ratio = fast.delta.norm().unwrap() / exact.delta.norm().unwrap();
    assert!((0.99..=1.0 + 1e-6).contains(&ratio), "{ratio}");
    // Whatever was captured, the sum is the weight.
    let sum = fast.base_weight(weight.as_ref(), 2.0) + fast.delta.times(2.0).reconstruct();
    assert!(energy((sum - &weight).as_ref()).sqrt() < 3e-7 * energy(weight.as_ref()).sqrt());
    // 160 on the shorter side is beyond what `auto` decomposes whole, 128 is not.
    assert_eq!(start(&weight, "auto", 8, 2.0).delta, fast.delta);
    let narrow = with_decay(200, 128, 0.5);
    assert_eq!(start(&narrow, "auto", 8, 2.0).delta, start(&narrow, "exact", 8, 2.0).delta);
}
