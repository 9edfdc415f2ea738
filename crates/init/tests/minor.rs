//! Facts of the starts made of minor components, MiLoRA and MiCA: which singular values go where.

#![allow(clippy::unwrap_used, clippy::panic, reason = "clippy sees only the #[test] functions here as tests")]

use faer::Mat;
use lowrank_init::{Evidence, Site, Start, by_name};
use lowrank_linalg::{energy, multiply, narrow, orthonormal_basis, svd_in_f64, widen};
use lowrank_record::{Seed, Value};

const OPTIONS: [(&str, &str); 0] = [];

fn start(name: &str, weight: &Mat<f32>, rank: usize, scale: f64) -> Start {
    let site = Site { out: weight.nrows(), inp: weight.ncols(), scale };
    let seen = Evidence::of(site).with_weight(weight.as_ref());
    by_name(name, OPTIONS).unwrap().start(&seen, rank, Seed(3)).unwrap()
}

/// A weight with these singular values.
fn with_values(out: usize, inp: usize, values: &[f64]) -> Mat<f32> {
    let basis = |seed: u64, d: usize| {
        let draws = Seed(seed).normal(d * values.len());
        let gaussian = Mat::from_fn(d, values.len(), |i, j| f64::from(draws[i * values.len() + j]));
        orthonormal_basis(gaussian.as_ref()).unwrap()
    };
    let (u, v) = (basis(1, out), basis(2, inp));
    let scaled = Mat::from_fn(out, values.len(), |i, j| u[(i, j)] * values[j]);
    narrow(multiply(scaled.as_ref(), v.transpose()).as_ref())
}

fn slow(count: usize) -> Vec<f64> {
    (0..count).map(|i| 1.0 / (1.0 + i as f64)).collect()
}

#[test]
fn milora_trains_the_smallest_values_and_the_base_keeps_the_rest() {
    for (out, inp) in [(30, 20), (20, 30)] {
        let (values, rank, scale) = (slow(20), 6, 2.5);
        let weight = with_values(out, inp, &values);
        let start = start("milora", &weight, rank, scale);
        let part = svd_in_f64(start.delta.times(scale).reconstruct().as_ref()).unwrap().values;
        for (index, value) in part.iter().enumerate() {
            // The largest of the change is the (k - r + 1)th of the weight.
            let wanted = if index < rank { values[20 - rank + index] } else { 0.0 };
            assert!((value - wanted).abs() < 1e-6, "{index}: {value} {wanted}");
        }
        let base = svd_in_f64(start.base_weight(weight.as_ref(), scale).as_ref()).unwrap().values;
        for (index, value) in base.iter().enumerate() {
            let wanted = if index < 20 - rank { values[index] } else { 0.0 };
            assert!((value - wanted).abs() < 1e-6, "{index}: {value} {wanted}");
        }
        // Both factors carry the root of the value over the scale.
        for index in 0..rank {
            let wanted = (values[20 - rank + index] / scale).sqrt();
            for norm in [start.delta.left.col(index).norm_l2(), start.delta.right.row(index).norm_l2()] {
                assert!((f64::from(norm) - wanted).abs() < 1e-5, "{index}: {norm} {wanted}");
            }
        }
    }
}

#[test]
fn milora_warns_where_some_of_its_directions_are_rounding() {
    let mut values = slow(20);
    values[18] = 0.0;
    values[19] = 0.0;
    let start = start("milora", &with_values(24, 20, &values), 5, 2.0);
    let Some(Value::Text(warning)) = start.report.get("warning") else { panic!("no warning") };
    assert!(
        warning.starts_with("the weight has rank 18: 2 of the 5 directions start near zero"),
        "{warning}"
    );
}

#[test]
fn mica_takes_the_directions_that_the_weight_hardly_writes_to() {
    for (out, inp) in [(30, 20), (20, 30)] {
        let (values, rank) = (slow(20), 6);
        let weight = with_values(out, inp, &values);
        let start = start("mica", &weight, rank, 2.5);
        let left = widen(start.delta.left.as_ref());
        let gram = multiply(left.transpose(), left.as_ref()) - Mat::<f64>::identity(rank, rank);
        assert!(energy(gram.as_ref()).sqrt() < 1e-6);
        assert_eq!(energy(start.delta.right.as_ref()), 0.0);
        // What the weight writes along them has the smallest values.
        let along = multiply(left.transpose(), widen(weight.as_ref()).as_ref());
        for (value, wanted) in svd_in_f64(along.as_ref()).unwrap().values.iter().zip(&values[20 - rank..]) {
            assert!((value - wanted).abs() < 1e-6, "{value} {wanted}");
        }
    }
}

#[test]
fn mica_is_that_of_peft() {
    // PEFT 0.21.2, torch 2.15.0: init_lora_weights="mica", r = 2; the last column of B.
    let entry = |i: usize, j: usize| (1.0 + 3.0 * i as f64 + 7.0 * j as f64).sin() * (1 + (i * j) % 5) as f64;
    let weight = Mat::from_fn(7, 5, |i, j| entry(i, j) as f32);
    let left = start("mica", &weight, 2, 3.0).delta.left;
    let wanted =
        [-0.919_639, -0.193_513_4, 0.036_783_9, -0.097_149_0, 0.103_701_8, 0.294_807_6, -0.091_432_9];
    // Signs of singular vectors are free; ours follow the right vector.
    let sign = if left[(0, 1)] < 0.0 { 1.0 } else { -1.0 };
    assert!((0..7).all(|i| (sign * left[(i, 1)] - wanted[i]).abs() < 1e-5), "{:?}", left.col(1));
}
