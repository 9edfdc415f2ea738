//! Facts of the starts beside a quantised base, LoftQ and QPiSSA: what is lost, turn by turn, and reference numbers.

#![allow(clippy::unwrap_used, clippy::panic, reason = "clippy sees only the #[test] functions here as tests")]

use faer::Mat;
use lowrank_init::{Base, Evidence, InitError, Named, Site, Start, Stored, by_name};
use lowrank_linalg::{energy, svd_in_f64};
use lowrank_record::{Promise, Seed, Value};

fn start(
    name: &str,
    choices: &[(&str, &str)],
    weight: &Mat<f32>,
    rank: usize,
    scale: f64,
) -> Result<Start, InitError> {
    let site = Site { out: weight.nrows(), inp: weight.ncols(), scale };
    let seen = Evidence::of(site).with_weight(weight.as_ref());
    by_name(name, choices.iter().copied())?.start(&seen, rank, Seed(3))
}

fn random(out: usize, inp: usize) -> Mat<f32> {
    let draws = Seed(8).normal(out * inp);
    Mat::from_fn(out, inp, |i, j| draws[i * inp + j])
}

fn number(start: &Start, fact: &str) -> f64 {
    match start.report.get(fact) {
        Some(&Value::Number(number)) => number,
        other => panic!("{fact}: {other:?}"),
    }
}

const PLAIN: &str = "error of quantising alone, relative to the weight";
const KEPT: &str = "error kept, relative to the weight";

/// ‖W − Q − scale·left·right‖ / ‖W‖, by hand.
fn lost(start: &Start, weight: &Mat<f32>, scale: f64) -> f64 {
    let Base::Replace(quantised) = &start.base else { panic!("the base is not replaced") };
    let rest = weight - quantised - start.delta.times(scale).reconstruct();
    (energy(rest.as_ref()) / energy(weight.as_ref())).sqrt()
}

#[test]
fn errors_turn_by_turn_are_those_of_the_reference() {
    // NumPy 2.4.6 in f64, written from the formulas: NF4 as the nearest of the code book in blocks of 64 along the rows, r = 3.
    let entry = |i: usize, j: usize| (1.0 + 3.0 * i as f64 + 7.0 * j as f64).sin() * (1 + (i * j) % 5) as f64;
    let weight = Mat::from_fn(24, 32, |i, j| entry(i, j) as f32);
    let turns = [0.073_159_219, 0.066_038_742, 0.062_881_156, 0.062_113_417, 0.062_199_398];
    for scale in [1.0, 2.5] {
        let start = start("loftq", &[], &weight, 3, scale).unwrap();
        assert!((number(&start, PLAIN) - 0.091_964_126).abs() < 1e-6);
        for (index, wanted) in turns.iter().enumerate() {
            let found = number(&start, &format!("error after turn {}", index + 1));
            assert!((found - wanted).abs() < 1e-4, "turn {}: {found} {wanted}", index + 1);
        }
        // The last turn lost more than the one before, which is kept.
        assert_eq!(number(&start, KEPT), number(&start, "error after turn 4"));
        assert!((lost(&start, &weight, scale) / number(&start, KEPT) - 1.0).abs() < 1e-4);
        let principal = self::start("qpissa", &[], &weight, 3, scale).unwrap();
        assert!((number(&principal, KEPT) - 0.025_719_325).abs() < 1e-4, "{}", number(&principal, KEPT));
        assert!((lost(&principal, &weight, scale) / number(&principal, KEPT) - 1.0).abs() < 1e-4);
    }
}

#[test]
fn more_turns_never_lose_more_and_any_turn_beats_quantising_alone() {
    let weight = random(48, 64);
    for format in Stored::NAMES.iter().map(|(name, _)| *name) {
        let mut before = f64::INFINITY;
        for iterations in ["1", "2", "4", "8"] {
            let choices = [("format", format), ("iterations", iterations)];
            let start = start("loftq", &choices, &weight, 6, 2.5).unwrap();
            let kept = lost(&start, &weight, 2.5);
            assert!((kept / number(&start, KEPT) - 1.0).abs() < 1e-3, "{format}");
            assert!(kept < number(&start, PLAIN), "{format}: {kept}");
            assert!(kept <= before * (1.0 + 1e-6), "{format}, {iterations} turns: {kept} after {before}");
            before = kept;
        }
    }
}

#[test]
fn one_turn_is_the_best_approximation_of_what_was_lost() {
    let weight = random(48, 64);
    let (rank, scale) = (6, 2.5);
    let start = start("loftq", &[("iterations", "1")], &weight, rank, scale).unwrap();
    let Base::Replace(quantised) = &start.base else { panic!("the base is not replaced") };
    let error = svd_in_f64((&weight - quantised).as_ref()).unwrap();
    let predicted = error.tail(rank) / energy(weight.as_ref()).sqrt();
    assert!((lost(&start, &weight, scale) / predicted - 1.0).abs() < 1e-4);
    // Both factors carry the root of the value over the scale.
    for (k, value) in error.values[..rank].iter().enumerate() {
        let wanted = (value / scale).sqrt();
        for norm in [start.delta.left.col(k).norm_l2(), start.delta.right.row(k).norm_l2()] {
            assert!((f64::from(norm) / wanted - 1.0).abs() < 1e-4);
        }
    }
}

#[test]
fn a_full_rank_takes_up_everything() {
    let weight = random(20, 64);
    for format in ["nf4", "q4_0", "q8_0"] {
        let start = start("loftq", &[("format", format)], &weight, 20, 2.5).unwrap();
        assert!(lost(&start, &weight, 2.5) < 1e-6, "{format}");
    }
}

#[test]
fn formats_lose_what_their_bits_promise() {
    let weight = random(48, 64);
    let kept = |format: &str, block: &str| {
        let start = start("qpissa", &[("format", format), ("block", block)], &weight, 4, 2.5).unwrap();
        let promise = by_name("qpissa", [("format", format), ("block", block)]).unwrap().promise();
        let Promise::Within(bound) = promise else { panic!("{promise:?}") };
        let found = lost(&start, &weight, 2.5);
        assert!(found < bound, "{format}, {block}: {found} {bound}");
        found
    };
    let (four, eight) = (kept("nf4", "64"), kept("q8-0", "64"));
    // Four bits more are 16 times less, near enough.
    assert!(four > 10.0 * eight && four < 0.12, "{four} {eight}");
    assert!(kept("nf4", "16") < four && four < kept("nf4", "512"));
    // Equal steps of 32 normal values, one end of which is always the largest: 0.086 of a wide sample (NumPy).
    let equal = kept("q4-0", "64");
    assert!((0.07..0.095).contains(&equal), "{equal}");
}

#[test]
fn rows_that_fill_no_blocks_are_refused_before_anything_is_seen() {
    for name in ["loftq", "qpissa"] {
        let method = by_name(name, [("format", "q4-0")]).unwrap();
        let site = Site { out: 64, inp: 40, scale: 2.0 };
        let refused = method.admits(site, 4).unwrap_err();
        assert!(matches!(refused, InitError::Blocks { .. }), "{refused}");
        let weight = random(64, 40);
        let seen = Evidence::of(site).with_weight(weight.as_ref());
        assert_eq!(method.start(&seen, 4, Seed(3)).unwrap_err(), refused);
        assert!(method.admits(Site { inp: 64, ..site }, 4).is_ok());
        for block in ["0", "1", "5000"] {
            let refused = by_name(name, [("block", block)]).err().unwrap();
            assert!(matches!(refused, InitError::BadValue { option: "block", .. }), "{refused}");
        }
    }
    assert!(by_name("loftq", [("iterations", "0")]).is_err());
}
