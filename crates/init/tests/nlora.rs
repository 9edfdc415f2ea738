//! Facts of NLoRA: slices of the weight, the identities of a Nyström approximation, and what is refused.

#![allow(clippy::unwrap_used, clippy::panic, reason = "clippy sees only the #[test] functions here as tests")]

use faer::Mat;
use lowrank_init::{Base, Evidence, InitError, Site, Start, by_name};
use lowrank_linalg::{LowRank, energy, multiply, widen};
use lowrank_record::{Promise, Seed, Value};

const SCALE: f64 = 2.5;

fn start(choices: &[(&str, &str)], weight: &Mat<f32>, rank: usize) -> Result<Start, InitError> {
    let site = Site { out: weight.nrows(), inp: weight.ncols(), scale: SCALE };
    let seen = Evidence::of(site).with_weight(weight.as_ref());
    by_name("nlora", choices.iter().copied())?.start(&seen, rank, Seed(3))
}

fn random(seed: u64, out: usize, inp: usize) -> Mat<f32> {
    let draws = Seed(seed).normal(out * inp);
    Mat::from_fn(out, inp, |i, j| draws[i * inp + j])
}

/// scale·left·core·right in f64.
fn part(start: &Start) -> Mat<f64> {
    let core = widen(start.core.as_ref().unwrap().as_ref());
    let left = multiply(widen(start.delta.left.as_ref()).as_ref(), core.as_ref());
    faer::Scale(SCALE) * multiply(left.as_ref(), widen(start.delta.right.as_ref()).as_ref())
}

/// Which rows of the weight are the rows of right.
fn rows_taken(start: &Start, weight: &Mat<f32>) -> Vec<usize> {
    let same = |k: usize, i: usize| (0..weight.ncols()).all(|j| start.delta.right[(k, j)] == weight[(i, j)]);
    (0..start.delta.rank()).map(|k| (0..weight.nrows()).find(|&i| same(k, i)).unwrap()).collect()
}

fn columns_taken(start: &Start, weight: &Mat<f32>) -> Vec<usize> {
    let same = |k: usize, j: usize| (0..weight.nrows()).all(|i| start.delta.left[(i, k)] == weight[(i, j)]);
    (0..start.delta.rank()).map(|k| (0..weight.ncols()).find(|&j| same(k, j)).unwrap()).collect()
}

#[test]
fn raw_blocks_are_slices_of_the_weight_bit_for_bit() {
    let weight = random(1, 30, 20);
    for (rows, columns) in
        [("first", "first"), ("random", "first"), ("pivoted", "pivoted"), ("first", "pivoted")]
    {
        let start = start(&[("rows", rows), ("columns", columns)], &weight, 5).unwrap();
        let (i, j) = (rows_taken(&start, &weight), columns_taken(&start, &weight));
        let core = start.core.as_ref().unwrap();
        assert!((0..5).all(|k| (0..5).all(|l| core[(k, l)] == weight[(i[k], j[l])])));
        assert_eq!(rows == "first", i == [0, 1, 2, 3, 4], "{rows}: {i:?}");
        assert_eq!(columns == "first", j == [0, 1, 2, 3, 4], "{columns}: {j:?}");
    }
}

#[test]
fn what_the_authors_add_to_the_function_grows_with_rank_and_weight() {
    let spread = 0.02;
    let weight = faer::Scale(spread as f32) * random(1, 300, 260);
    for rank in [8, 32] {
        let start = start(&[("residual", "none")], &weight, rank).unwrap();
        assert_eq!(start.base, Base::Keep);
        // Each entry is a sum of r² products of three: r·v³, that is r·v² of the weight.
        let relative = energy(part(&start).as_ref()).sqrt() / energy(weight.as_ref()).sqrt() / SCALE;
        let wanted = rank as f64 * spread * spread;
        assert!((relative / wanted - 1.0).abs() < 0.15, "{relative} {wanted}");
        let Some(&Value::Number(said)) = start.report.get("size of the start, relative to the weight") else {
            panic!("nothing said")
        };
        assert!((said / (SCALE * relative) - 1.0).abs() < 1e-4);
    }
}

#[test]
fn an_inverted_core_gives_rows_and_columns_back() {
    let weight = random(1, 30, 20);
    let exact = [("core", "pinv"), ("rcond", "1e-9"), ("rows", "pivoted"), ("columns", "pivoted")];
    for balanced in ["false", "true"] {
        let choices: Vec<(&str, &str)> = exact.into_iter().chain([("balanced", balanced)]).collect();
        let start = start(&choices, &weight, 5).unwrap();
        let plain = self::start(&exact, &weight, 5).unwrap();
        let (rows, columns) = (rows_taken(&plain, &weight), columns_taken(&plain, &weight));
        let rest = widen(weight.as_ref()) - part(&start);
        assert!(rows.iter().all(|&i| (0..20).all(|j| rest[(i, j)].abs() < 1e-5)), "{balanced}");
        assert!(columns.iter().all(|&j| (0..30).all(|i| rest[(i, j)].abs() < 1e-5)), "{balanced}");
    }
    // A weight of the rank asked for is its own approximation.
    let low = multiply(random(2, 30, 5).as_ref(), random(3, 5, 20).as_ref());
    let start = start(&exact, &low, 5).unwrap();
    let off = energy((widen(low.as_ref()) - part(&start)).as_ref()).sqrt();
    assert!(off < 1e-5 * energy(low.as_ref()).sqrt(), "{off:e}");
}

#[test]
fn pivot_rows_and_first_columns_are_the_part_of_loldu() {
    let weight = random(1, 30, 20);
    let site = Site { out: 30, inp: 20, scale: SCALE };
    let seen = Evidence::of(site).with_weight(weight.as_ref());
    let nothing: [(&str, &str); 0] = [];
    let loldu = by_name("loldu", nothing).unwrap().start(&seen, 5, Seed(3)).unwrap();
    let nlora = start(&[("core", "pinv"), ("rcond", "1e-9"), ("rows", "pivoted")], &weight, 5).unwrap();
    let wanted = part(&loldu);
    assert!(energy((part(&nlora) - &wanted).as_ref()).sqrt() < 1e-5 * energy(wanted.as_ref()).sqrt());
}

#[test]
fn balancing_changes_the_factors_and_not_their_product() {
    let weight = random(1, 30, 20);
    for core in ["raw", "pinv"] {
        let plain = start(&[("core", core)], &weight, 6).unwrap();
        let split = start(&[("core", core), ("balanced", "true")], &weight, 6).unwrap();
        assert_eq!(split.core, Some(Mat::identity(6, 6)));
        let wanted = part(&plain);
        let off = energy((part(&split) - &wanted).as_ref()).sqrt();
        assert!(off < 1e-5 * energy(wanted.as_ref()).sqrt(), "{core}: {off:e}");
        let sizes =
            |delta: &LowRank| [energy(delta.left.as_ref()).sqrt(), energy(delta.right.as_ref()).sqrt()];
        let ([left, right], core_size) =
            (sizes(&split.delta), energy(plain.core.as_ref().unwrap().as_ref()).sqrt());
        assert!(left / right < 3.0 && right / left < 3.0, "{core}: {left} {right}, core {core_size}");
    }
    // Directions left out add nothing, and have a left that can learn.
    let cut = start(&[("core", "pinv"), ("rcond", "0.9"), ("balanced", "true")], &weight, 6).unwrap();
    let Some(&Value::Count(kept)) = cut.report.get("singular values of the block inverted") else { panic!() };
    assert!((1..6).contains(&kept), "{kept}");
    for k in 0..6 {
        let is_kept = k < kept as usize;
        assert_eq!(cut.delta.right.row(k).norm_l2() > 0.0, is_kept, "{k}");
        assert!(cut.delta.left.col(k).norm_l2() > 0.0, "{k}");
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let weight = random(1, 30, 20);
    let refused = |choices: &[(&str, &str)]| start(choices, &weight, 5).unwrap_err();
    let both = refused(&[("core", "pinv"), ("residual", "none")]);
    assert!(matches!(both, InitError::Combination { method: "nlora", .. }), "{both}");
    assert!(matches!(refused(&[("rcond", "1")]), InitError::BadValue { option: "rcond", .. }));
    let mut hollow = weight.clone();
    (0..5).for_each(|i| (0..5).for_each(|j| hollow[(i, j)] = 0.0));
    for choices in [&[][..], &[("core", "pinv")], &[("balanced", "true")]] {
        assert_eq!(
            start(choices, &hollow, 5).unwrap_err(),
            InitError::ZeroBlock { method: "nlora", rank: 5 }
        );
    }
    assert!(start(&[("rows", "pivoted")], &hollow, 5).is_ok());
    let promise = |residual: &str| by_name("nlora", [("residual", residual)]).unwrap().promise();
    assert_eq!((promise("subtract"), promise("none")), (Promise::Exact, Promise::None));
}
