//! Facts of CorDA: PEFT's factors; all directions give the weight; the best part of the weight as the inputs weigh it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "clippy sees only the #[test] functions here as tests")]

use faer::{Mat, MatRef};
use lowrank_init::{Evidence, InitError, Inputs, Site, Start, by_name};
use lowrank_linalg::{LowRank, Moments, energy, multiply, svd_in_f64, widen};
use lowrank_record::{Seed, Value, scale};

fn random(seed: u64, m: usize, n: usize) -> Mat<f32> {
    let draws = Seed(seed).normal(m * n);
    Mat::from_fn(m, n, |i, j| draws[i * n + j])
}

/// Inputs of variances `1/j`, mixed, around a mean.
fn inputs(n: usize, d: usize) -> Mat<f32> {
    let draws = random(5, n, d);
    let scaled = Mat::from_fn(n, d, |i, j| draws[(i, j)] / (j as f32 + 1.0).sqrt());
    let mixed = multiply(scaled.as_ref(), random(6, d, d).as_ref());
    let mean = random(7, 1, d);
    Mat::from_fn(n, d, |i, j| mixed[(i, j)] + mean[(0, j)])
}

fn moments(rows: MatRef<'_, f32>) -> Moments {
    let mut moments = Moments::new(rows.ncols());
    moments.absorb(rows).unwrap();
    moments
}

fn start(
    weight: &Mat<f32>,
    inputs: Inputs<'_>,
    rank: usize,
    scale: f64,
    choices: &[(&str, &str)],
) -> Result<Start, InitError> {
    let site = Site { out: weight.nrows(), inp: weight.ncols(), scale };
    let seen = Evidence::of(site).with_weight(weight.as_ref()).with_inputs(inputs);
    by_name("corda", choices.iter().copied())?.start(&seen, rank, Seed(3))
}

/// `C/mean(diag C) + damp·I`.
fn damped(moments: &Moments, damp: f64) -> Mat<f64> {
    let c = moments.second_moment();
    let d = c.nrows();
    let mean = (0..d).map(|i| c[(i, i)]).sum::<f64>() / d as f64;
    Mat::from_fn(d, d, |i, j| c[(i, j)] / mean + if i == j { damp } else { 0.0 })
}

/// The weighted size of what a start leaves: `‖(W − scale·left·right)·C‖`, and of the start itself.
fn weighted(weight: &Mat<f32>, delta: &LowRank, scale: f64, c: &Mat<f64>) -> (f64, f64) {
    let change = widen(delta.times(scale).reconstruct().as_ref());
    let rest = widen(weight.as_ref()) - &change;
    let size = |part: &Mat<f64>| energy(multiply(part.as_ref(), c.as_ref()).as_ref()).sqrt();
    (size(&rest), size(&change))
}

#[test]
fn factors_are_those_of_peft() {
    // PEFT 0.21.2 with torch 2.15, November 2026: a linear layer [5, 6], r = 2, lora_alpha = 5, `preprocess_corda` with one call on
    // these twelve rows; lora_A and lora_B after `get_peft_model`. PEFT divides the rows of a call by their largest signed entry, ours have a
    // mean square of 1, so its S is `ratio` times ours, and B √ratio times; A is divided by it. Its signs are not fixed.
    let peft_ipm = (
        [
            [0.125_552_64, 0.050_400_842, 0.090_001_71, 0.107_419_21, 0.112_364_374, 0.091_195_8],
            [-0.279_738_93, 0.163_899_08, 0.072_677_36, 0.088_629_31, 0.129_019_5, -0.161_729_94],
        ],
        [
            [1.104_952_5, -0.460_250_94],
            [-0.648_589_6, 1.067_636_25],
            [0.351_444_66, -1.229_652_5],
            [0.290_768_27, 1.136_248_35],
            [3.490_384_3, 0.373_249_14],
        ],
    );
    let peft_kpm = (
        [
            [-0.104_538_515, -0.345_770_1, -0.566_150_55, 0.646_877, 0.004_002_413, -0.088_569_89],
            [0.023_000_67, 0.216_853_59, 0.670_012_1, 0.647_818_45, -0.896_238_74, 0.008_108_667],
        ],
        [
            [0.374_032_97, -0.355_657_01],
            [0.291_138_95, -0.001_736_768_6],
            [0.358_692_8, 0.280_296_6],
            [0.307_531_2, 0.137_049_32],
            [-0.126_043_44, 0.072_627_91],
        ],
    );
    let rows = Mat::from_fn(12, 6, |i, j| {
        let (i, j) = (i as f64, j as f64);
        ((1.0 + 1.7 * i + 0.9 * j + 0.31 * i * j).sin() * (3.0 / (j + 1.0)) + 0.5 * j) as f32
    });
    let weight = Mat::from_fn(5, 6, |i, j| {
        let (i, j) = (i as f64, j as f64);
        (1.3 * (i + 1.0) * (j + 2.0) + 0.2 * i).sin() as f32
    });
    // Mean over entries of (row/max)², summed over the twelve rows.
    let largest = 2.995_630_026_f64;
    let ratio = energy(rows.as_ref()) / 6.0 / (largest * largest);
    let moments = moments(rows.as_ref());
    for (mode, (right, left)) in [("ipm", peft_ipm), ("kpm", peft_kpm)] {
        let delta = start(&weight, Inputs::Moments(&moments), 2, 2.5, &[("mode", mode)]).unwrap().delta;
        for k in 0..2 {
            let sign = if f64::from(delta.left[(0, k)]) * left[0][k] > 0.0 { 1.0 } else { -1.0 };
            for (i, row) in left.iter().enumerate() {
                let found = f64::from(delta.left[(i, k)]) * sign * ratio.sqrt();
                assert!((found - row[k]).abs() < 1e-3, "{mode}: left ({i}, {k}): {found} {}", row[k]);
            }
            for (j, wanted) in right[k].iter().enumerate() {
                let found = f64::from(delta.right[(k, j)]) * sign / ratio.sqrt();
                // PEFT multiplies by an inverse in f32.
                assert!((found - wanted).abs() < 3e-3, "{mode}: right ({k}, {j}): {found} {wanted}");
            }
        }
    }
}

#[test]
fn all_directions_are_the_weight() {
    for (out, inp) in [(30, 22), (22, 30), (16, 16)] {
        let (weight, moments) = (random(1, out, inp), moments(inputs(60, inp).as_ref()));
        // The last directions are as many as the first, and all of them when there are as many as rows.
        for mode in ["ipm", "kpm"] {
            let rank = out.min(inp);
            let found = start(&weight, Inputs::Moments(&moments), rank, 0.7, &[("mode", mode)]).unwrap();
            let change = found.delta.times(0.7).reconstruct();
            // U_r·U_rᵀ·W: all of it where U is square, and also where it is not, since its columns span W's.
            let off = energy((change - &weight).as_ref()).sqrt() / energy(weight.as_ref()).sqrt();
            assert!(off < 1e-6, "{mode} [{out}, {inp}]: {off:e}");
        }
    }
}

#[test]
fn right_is_the_right_vectors_times_the_inverse() {
    let (weight, moments) = (random(1, 30, 22), moments(inputs(60, 22).as_ref()));
    let c = damped(&moments, 0.01);
    let svd = svd_in_f64(multiply(widen(weight.as_ref()).as_ref(), c.as_ref()).as_ref()).unwrap();
    let delta = start(&weight, Inputs::Moments(&moments), 5, 0.7, &[]).unwrap().delta;
    let back = multiply(widen(delta.right.as_ref()).as_ref(), c.as_ref());
    for i in 0..5 {
        let root = (svd.values[i] / 0.7).sqrt();
        for j in 0..22 {
            let (found, wanted) = (back[(i, j)], root * svd.right[(i, j)]);
            assert!((found - wanted).abs() < 1e-5 * root, "right ({i}, {j}): {found} {wanted}");
        }
        for j in 0..30 {
            let (found, wanted) = (f64::from(delta.left[(j, i)]), root * svd.left[(j, i)]);
            assert!((found - wanted).abs() < 1e-6 * root, "left ({j}, {i}): {found} {wanted}");
        }
    }
}

#[test]
fn what_is_left_is_the_least_and_what_is_taken_the_least_used() {
    let (weight, moments) = (random(1, 40, 32), moments(inputs(300, 32).as_ref()));
    let (eta, c) = (scale(16.0, 4, false), damped(&moments, 0.01));
    let svd = svd_in_f64(multiply(widen(weight.as_ref()).as_ref(), c.as_ref()).as_ref()).unwrap();
    let of = |mode: &str| start(&weight, Inputs::Moments(&moments), 4, eta, &[("mode", mode)]).unwrap();
    let (first, last) = (of("ipm"), of("kpm"));
    let (left, _) = weighted(&weight, &first.delta, eta, &c);
    assert!((left / svd.tail(4) - 1.0).abs() < 1e-6, "{left} left, {} the least", svd.tail(4));
    let (_, taken) = weighted(&weight, &last.delta, eta, &c);
    let least = svd.tail(28);
    assert!((taken / least - 1.0).abs() < 1e-4, "{taken} taken, {least} the least");
    // Another best part: PiSSA's leaves less of the weight, and more of what the inputs see.
    let seen = Evidence::of(Site { out: 40, inp: 32, scale: eta }).with_weight(weight.as_ref());
    let pissa = by_name::<&str, &str>("pissa", []).unwrap().start(&seen, 4, Seed(3)).unwrap();
    assert!(weighted(&weight, &pissa.delta, eta, &c).0 > 1.05 * left);
    let Some(Value::Number(part)) =
        first.report.get("part of the weight's energy trained, as the inputs weigh it")
    else {
        panic!("no part stated")
    };
    assert!((part - svd.head(4).energy() / svd.energy()).abs() < 1e-9, "{part}");
    // Randomised, it gives little away.
    let fast = start(&weight, Inputs::Moments(&moments), 4, eta, &[("svd", "fast")]).unwrap();
    assert!(weighted(&weight, &fast.delta, eta, &c).0 < 1.001 * left);
}

#[test]
fn the_size_of_the_inputs_does_not_matter_and_much_damping_is_pissa() {
    let (weight, rows) = (random(1, 30, 22), inputs(60, 22));
    let of = |rows: &Mat<f32>, choices: &[(&str, &str)]| {
        let moments = moments(rows.as_ref());
        start(&weight, Inputs::Moments(&moments), 5, 0.7, choices).unwrap().delta
    };
    let larger = faer::Scale(64.0_f32) * &rows;
    let (once, more) = (of(&rows, &[]), of(&larger, &[]));
    let off = once.add(&more.times(-1.0)).unwrap().norm().unwrap();
    assert!(off < 1e-6 * once.norm().unwrap(), "{off:e}");
    let plain = Evidence::of(Site { out: 30, inp: 22, scale: 0.7 }).with_weight(weight.as_ref());
    let pissa = by_name::<&str, &str>("pissa", []).unwrap().start(&plain, 5, Seed(3)).unwrap().delta;
    let apart = |damp: &str| {
        let delta = of(&rows, &[("damp", damp)]);
        delta.add(&pissa.times(-1.0)).unwrap().norm().unwrap() / pissa.norm().unwrap()
    };
    assert!(apart("1e6") < 1e-4 && apart("0.01") > 0.3, "{} {}", apart("1e6"), apart("0.01"));
}

#[test]
fn what_it_cannot_use_is_refused_and_what_is_missing_is_said() {
    let (weight, rows) = (random(1, 30, 22), inputs(60, 22));
    let moments = moments(rows.as_ref());
    let components = moments.principal(8, false, Seed(1)).unwrap();
    let refused = start(&weight, Inputs::Components(&components), 4, 1.0, &[]).unwrap_err();
    assert!(matches!(refused, InitError::Statistic { method: "corda", .. }), "{refused}");
    let zero = Moments::new(22);
    let refused = start(&weight, Inputs::Moments(&zero), 4, 1.0, &[]).unwrap_err();
    assert_eq!(refused, InitError::ZeroInputs { method: "corda" });
    let refused = start(&Mat::zeros(30, 22), Inputs::Moments(&moments), 4, 1.0, &[]).unwrap_err();
    assert_eq!(refused, InitError::ZeroWeight { method: "corda" });
    let refused = by_name("corda", [("mode", "kpm"), ("svd", "fast")]).err().unwrap();
    assert!(matches!(refused, InitError::BadValue { option: "svd", .. }), "{refused}");
    // A weight of rank 3: three directions train of eight; the moment of few tokens is no obstacle.
    let low = multiply(random(2, 30, 3).as_ref(), random(3, 3, 22).as_ref());
    let few = self::moments(rows.as_ref().subrows(0, 4));
    let found = start(&low, Inputs::Moments(&few), 8, 1.0, &[]).unwrap();
    let Some(Value::Text(warning)) = found.report.get("warning") else { panic!("no warning") };
    assert!(warning.starts_with("5 of the 8 directions that train are zero"), "{warning}");
    assert!(start(&weight, Inputs::Moments(&few), 8, 1.0, &[]).unwrap().report.get("warning").is_none());
    // The last directions that a weight has, not those that it does not have.
    let last = start(&low, Inputs::Moments(&few), 3, 1.0, &[("mode", "kpm")]).unwrap();
    assert!(last.report.get("warning").is_none());
    let off = energy((last.delta.reconstruct() - &low).as_ref()).sqrt();
    assert!(off < 1e-5 * energy(low.as_ref()).sqrt(), "three directions of a weight of rank 3 are all of it");
}
