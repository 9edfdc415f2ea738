//! Facts of OLoRA: an orthonormal left factor, exact columns, and PEFT's numbers.

#![allow(clippy::unwrap_used, clippy::panic, reason = "clippy sees only the #[test] functions here as tests")]

use faer::Mat;
use lowrank_init::{Evidence, InitError, Site, Start, by_name};
use lowrank_linalg::{energy, multiply, widen};
use lowrank_record::{Seed, Value};

fn start(weight: &Mat<f32>, pivot: &str, rank: usize, scale: f64) -> Result<Start, InitError> {
    let site = Site { out: weight.nrows(), inp: weight.ncols(), scale };
    let seen = Evidence::of(site).with_weight(weight.as_ref());
    by_name("olora", [("pivot", pivot)])?.start(&seen, rank, Seed(3))
}

fn random(out: usize, inp: usize) -> Mat<f32> {
    let draws = Seed(8).normal(out * inp);
    Mat::from_fn(out, inp, |i, j| draws[i * inp + j])
}

#[test]
fn the_base_is_that_of_peft() {
    // PEFT 0.21.2, torch 2.15.0: init_lora_weights="olora", r = 2, alpha = 6 on this weight; row 3 of the base, and |A|.
    let entry = |i: usize, j: usize| (1.0 + 3.0 * i as f64 + 7.0 * j as f64).sin() * (1 + (i * j) % 5) as f64;
    let weight = Mat::from_fn(7, 5, |i, j| entry(i, j) as f32);
    let start = start(&weight, "none", 2, 3.0).unwrap();
    let base = start.base_weight(weight.as_ref(), 3.0);
    let wanted = [1.088_042, 7.691_178, 8.470_86, 3.224_881, -1.814_504];
    assert!((0..5).all(|j| (base[(3, j)] - wanted[j]).abs() < 1e-5), "{:?}", base.row(3));
    // LAPACK leaves both rows negative on the diagonal; here it is positive.
    let right = [
        [1.513_376, 5.802_123, 5.502_475, 2.079_513, -2.841_168],
        [0.0, 4.337_418, 3.572_068, 2.466_653, 0.296_067],
    ];
    for (i, row) in right.iter().enumerate() {
        assert!((0..5).all(|j| (start.delta.right[(i, j)] - row[j]).abs() < 1e-5), "row {i}");
    }
}

#[test]
fn left_is_orthonormal_and_the_first_columns_are_exact() {
    for (out, inp) in [(30, 20), (20, 30)] {
        let (weight, rank, scale) = (random(out, inp), 5, 2.5);
        let start = start(&weight, "none", rank, scale).unwrap();
        let left = widen(start.delta.left.as_ref());
        let gram = multiply(left.transpose(), left.as_ref()) - Mat::<f64>::identity(rank, rank);
        assert!(energy(gram.as_ref()).sqrt() < 1e-6);
        for j in 0..rank {
            assert!(start.delta.right[(j, j)] > 0.0);
            assert!((j + 1..rank).all(|i| start.delta.right[(i, j)] == 0.0), "column {j}");
        }
        // Not divided by the scale: the base keeps 1 - scale times these columns.
        let base = start.base_weight(weight.as_ref(), scale);
        for j in 0..rank {
            for i in 0..out {
                let wanted = (1.0 - scale) * f64::from(weight[(i, j)]);
                assert!((f64::from(base[(i, j)]) - wanted).abs() < 1e-5, "({i}, {j})");
            }
        }
    }
}

#[test]
fn pivoting_does_not_depend_on_where_the_large_columns_stand() {
    let mut weight = random(30, 24);
    for j in 0..24 {
        let size = if j >= 20 { 10.0 } else { 1.0 };
        (0..30).for_each(|i| weight[(i, j)] *= size);
    }
    let share = |pivot: &str| {
        let start = start(&weight, pivot, 4, 2.0).unwrap();
        let Some(&Value::Number(share)) = start.report.get("part of the weight's energy trained") else {
            panic!("no share")
        };
        let part = energy(multiply(start.delta.left.as_ref(), start.delta.right.as_ref()).as_ref());
        assert!((share / (part / energy(weight.as_ref())) - 1.0).abs() < 1e-5);
        share
    };
    let (none, columns) = (share("none"), share("columns"));
    // Four of 24 columns hold 400 of 420 parts of the energy.
    assert!(columns > 0.95 && none < 0.3, "{columns} {none}");
}

#[test]
fn directions_that_the_weight_does_not_have_are_reported() {
    let weight = multiply(random(14, 3).as_ref(), random(3, 10).as_ref());
    for pivot in ["none", "columns"] {
        let warned = start(&weight, pivot, 5, 1.0).unwrap();
        let Some(Value::Text(warning)) = warned.report.get("warning") else { panic!("{pivot}: no warning") };
        assert!(warning.starts_with("the weight has 3 of the 5 directions"), "{pivot}: {warning}");
        assert!(start(&weight, pivot, 3, 1.0).unwrap().report.get("warning").is_none(), "{pivot}");
    }
    // Dependent columns are no loss where others follow.
    let mut weight = random(12, 10);
    (0..12).for_each(|i| weight[(i, 1)] = 2.0 * weight[(i, 0)]);
    let start = start(&weight, "none", 3, 1.0).unwrap();
    assert!(start.report.get("warning").is_none());
    let base = start.base_weight(weight.as_ref(), 1.0);
    assert!((0..12).all(|i| (0..3).all(|j| base[(i, j)].abs() < 1e-5)));
}
