//! Facts of LoLDU: what elimination leaves, the cross approximation, and that every start of the diagonal is consistent.

#![allow(clippy::unwrap_used, clippy::panic, reason = "clippy sees only the #[test] functions here as tests")]

use faer::Mat;
use lowrank_init::{Evidence, Site, Start, by_name};
use lowrank_linalg::{energy, multiply, pseudo_inverse, widen};
use lowrank_record::{Seed, Value};

const SCALE: f64 = 2.5;

fn start(choices: &[(&str, &str)], weight: &Mat<f32>, rank: usize) -> Start {
    let site = Site { out: weight.nrows(), inp: weight.ncols(), scale: SCALE };
    let seen = Evidence::of(site).with_weight(weight.as_ref());
    by_name("loldu", choices.iter().copied()).unwrap().start(&seen, rank, Seed(3)).unwrap()
}

fn random(out: usize, inp: usize) -> Mat<f32> {
    let draws = Seed(8).normal(out * inp);
    Mat::from_fn(out, inp, |i, j| draws[i * inp + j])
}

/// scale·left·core·right in f64.
fn part(start: &Start) -> Mat<f64> {
    let left = multiply(
        widen(start.delta.left.as_ref()).as_ref(),
        widen(start.core.as_ref().unwrap().as_ref()).as_ref(),
    );
    faer::Scale(SCALE) * multiply(left.as_ref(), widen(start.delta.right.as_ref()).as_ref())
}

/// The row of the 1 of each column of left.
fn pivots(start: &Start) -> Vec<usize> {
    let left = &start.delta.left;
    (0..left.ncols()).map(|k| (0..left.nrows()).find(|&i| left[(i, k)] == 1.0).unwrap()).collect()
}

#[test]
fn pivots_are_those_of_the_full_factorisation() {
    // torch 2.15.0, torch.linalg.lu of this weight: the first three of five pivots and their rows, column 1 of L, row 2 of U.
    let entry = |i: usize, j: usize| (1.0 + 3.0 * i as f64 + 7.0 * j as f64).sin() * (1 + (i * j) % 5) as f64;
    let weight = Mat::from_fn(7, 5, |i, j| entry(i, j) as f32);
    let start = start(&[], &weight, 3);
    assert_eq!(pivots(&start), [0, 4, 2]);
    let core = start.core.as_ref().unwrap();
    for (k, wanted) in [0.841_470_96, 4.070_715_58, 1.784_109_24].into_iter().enumerate() {
        assert!((f64::from(core[(k, k)]) * SCALE - wanted).abs() < 1e-6, "{k}");
    }
    let column = [0.0, -0.272_721_34, 0.540_291, -0.787_566_2, 1.0, -0.124_724_64, 0.331_366_56];
    assert!((0..7).all(|i| (start.delta.left[(i, 1)] - column[i]).abs() < 1e-6));
    let row = [0.0, 0.0, 1.0, -0.174_452, -0.673_850_4];
    assert!((0..5).all(|j| (start.delta.right[(2, j)] - row[j]).abs() < 1e-6));
}

#[test]
fn nothing_is_left_of_pivot_rows_and_columns() {
    for (out, inp) in [(24, 18), (18, 24), (20, 20)] {
        let (weight, rank) = (random(out, inp), 6);
        let start = start(&[], &weight, rank);
        let base = start.base_weight(weight.as_ref(), SCALE);
        let rows = pivots(&start);
        for j in 0..rank {
            assert!((0..out).all(|i| base[(i, j)].abs() < 2e-5), "column {j}");
        }
        for &i in &rows {
            assert!((0..inp).all(|j| base[(i, j)].abs() < 2e-5), "row {i}");
        }
        // The cross approximation on the first columns and the pivot rows.
        let w = widen(weight.as_ref());
        let columns = w.as_ref().subcols(0, rank).to_owned();
        let above = Mat::from_fn(rank, inp, |k, j| w[(rows[k], j)]);
        let block = above.as_ref().subcols(0, rank).to_owned();
        let inverse = pseudo_inverse(block.as_ref(), 0.0).unwrap().matrix;
        let cross = multiply(multiply(columns.as_ref(), inverse.as_ref()).as_ref(), above.as_ref());
        let off = energy((cross - part(&start)).as_ref()).sqrt();
        assert!(off < 1e-5 * energy(w.as_ref()).sqrt(), "{off:e}");
        let most = start.delta.left.col_iter().flat_map(|c| c.iter().map(|x| x.abs())).fold(0.0, f32::max);
        assert!(most <= 1.0);
    }
}

#[test]
fn all_steps_leave_nothing() {
    for (out, inp) in [(24, 18), (18, 24)] {
        let weight = random(out, inp);
        for pivot in ["partial", "rook"] {
            let start = start(&[("pivot", pivot)], &weight, 18);
            let rest = energy(start.base_weight(weight.as_ref(), SCALE).as_ref()).sqrt();
            assert!(rest < 1e-5 * energy(weight.as_ref()).sqrt(), "{pivot}: {rest:e}");
        }
    }
}

#[test]
fn rook_pivoting_bounds_both_factors() {
    let (weight, most) = (random(60, 60), |m: &Mat<f32>| {
        m.col_iter().flat_map(|c| c.iter().map(|x| x.abs())).fold(0.0, f32::max)
    });
    let (partial, rook) = (start(&[], &weight, 12), start(&[("pivot", "rook")], &weight, 12));
    assert!(most(&rook.delta.left) <= 1.0 && most(&rook.delta.right) <= 1.0);
    assert!(most(&partial.delta.left) <= 1.0 && most(&partial.delta.right) > 1.0);
}

#[test]
fn the_same_step_from_every_start_of_the_diagonal_gives_the_same_weight() {
    let (weight, rank) = (random(24, 18), 6);
    let merged = |init: &str| {
        let mut start = start(&[("init", init)], &weight, rank);
        let base = widen(start.base_weight(weight.as_ref(), SCALE).as_ref());
        let core = start.core.as_mut().unwrap();
        (0..rank).for_each(|k| core[(k, k)] += 0.1 * (k as f32 - 2.0));
        (base + part(&start), start.core.unwrap())
    };
    let (wanted, z) = merged("lu");
    for init in ["uniform", "normal", "constant"] {
        let (found, other) = merged(init);
        assert!(energy((&found - &wanted).as_ref()).sqrt() < 1e-5 * energy(wanted.as_ref()).sqrt(), "{init}");
        assert!(energy((&other - &z).as_ref()) > 0.1, "{init} is lu");
    }
    let constant = start(&[("init", "constant")], &weight, rank).core.unwrap();
    let lu = start(&[], &weight, rank).core.unwrap();
    let mean = (0..rank).map(|k| f64::from(lu[(k, k)])).sum::<f64>() / rank as f64;
    assert!((0..rank).all(|k| (f64::from(constant[(k, k)]) - mean).abs() < 1e-6));
    let uniform = start(&[("init", "uniform")], &weight, rank).core.unwrap();
    assert!((0..rank).all(|k| f64::from(uniform[(k, k)]).abs() <= mean.abs() / 2.0));
}

#[test]
fn normalised_directions_have_length_one_and_the_same_part() {
    let weight = random(24, 18);
    let (plain, normal) = (start(&[], &weight, 6), start(&[("normalise", "true")], &weight, 6));
    for k in 0..6 {
        let lengths = [normal.delta.left.col(k).norm_l2(), normal.delta.right.row(k).norm_l2()];
        assert!(lengths.iter().all(|length| (length - 1.0).abs() < 1e-6), "{lengths:?}");
    }
    let part_of = part(&plain);
    let off = energy((part(&normal) - &part_of).as_ref()).sqrt();
    assert!(off < 1e-5 * energy(part_of.as_ref()).sqrt(), "{off:e}");
}

#[test]
fn what_has_no_pivot_is_passed_over_and_reported() {
    let mut weight = random(12, 9);
    for i in 0..12 {
        weight[(i, 0)] = 0.0;
        weight[(i, 2)] = -weight[(i, 1)];
    }
    // Seven columns are left: a rank of 7 is made of them, the eighth direction has no pivot.
    let seven = start(&[], &weight, 7);
    assert!(seven.report.get("warning").is_none());
    assert!(energy(seven.base_weight(weight.as_ref(), SCALE).as_ref()).sqrt() < 1e-4);
    let eight = start(&[], &weight, 8);
    let Some(Value::Text(warning)) = eight.report.get("warning") else { panic!("no warning") };
    assert!(warning.starts_with("the weight has 7 usable pivots, 8 directions are trained"), "{warning}");
    assert!(eight.delta.is_finite() && eight.core.as_ref().unwrap()[(7, 7)] == 0.0);
    assert!(warning.contains("start at zero"), "{warning}");
    // Whatever the diagonal starts at: what no pivot weighs starts at zero and has no part in the mean.
    let lu = eight.core.clone().unwrap();
    let mean = (0..7).map(|k| f64::from(lu[(k, k)])).sum::<f64>() / 7.0;
    for init in ["uniform", "normal", "constant"] {
        for normalise in ["false", "true"] {
            let other = start(&[("init", init), ("normalise", normalise)], &weight, 8);
            let core = other.core.as_ref().unwrap();
            assert!(core[(7, 7)] == 0.0 && core[(6, 6)] != 0.0, "{init} {normalise}");
            assert_eq!(other.report.get("warning"), eight.report.get("warning"));
            if (init, normalise) == ("constant", "false") {
                assert!((0..7).all(|k| (f64::from(core[(k, k)]) / mean - 1.0).abs() < 1e-6));
            }
        }
    }
    // It can be trained: a direction on either side.
    assert_eq!((eight.delta.left.col(7).sum(), eight.delta.right.row(7).sum()), (1.0, 1.0));
}
