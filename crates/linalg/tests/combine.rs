//! Laws of every combination, and PEFT's results as numbers.

#![allow(clippy::unwrap_used, clippy::panic, reason = "clippy sees only the #[test] functions here as tests")]

#[path = "combine/reference.rs"]
mod reference;

use faer::Mat;
use lowrank_linalg::combination::{ALL, CombinationError, Election, Masks, Part, Settings, named};
use lowrank_linalg::{LowRank, energy};
use lowrank_record::Seed;

const SHAPE: (usize, usize) = (14, 11);

/// A random change of a weight `[14, 11]`, with a scale that is not 1.
fn part(name: &str, rank: usize, weight: f64) -> Part {
    let (out, inp) = SHAPE;
    let draw = |tensor: &str, count| Seed(3).at(name, tensor).normal(count);
    let factors =
        LowRank::from_rows(&draw("left", out * rank), &draw("right", rank * inp), out, inp, rank).unwrap();
    Part { factors, scale: 1.75, weight }
}

/// `Σ weight·scale·left·right`, formed.
fn weighted_sum(parts: &[Part]) -> Mat<f32> {
    parts.iter().fold(Mat::zeros(SHAPE.0, SHAPE.1), |sum, part| {
        sum + part.factors.times(part.weight * part.scale).reconstruct()
    })
}

/// The distance of two matrices as a part of the second.
fn apart(a: &Mat<f32>, b: &Mat<f32>) -> f64 {
    (energy((a - b).as_ref()) / energy(b.as_ref())).sqrt()
}

fn with_density<'a>(masks: &'a dyn Masks, density: f64) -> Settings<'a> {
    Settings { density: Some(density), ..Settings::new(masks) }
}

fn made(name: &str, parts: &[Part], settings: &Settings<'_>) -> Mat<f32> {
    named(name)
        .unwrap()
        .combine(parts, settings)
        .unwrap_or_else(|error| panic!("{name}: {error}"))
        .reconstruct()
}

#[test]
fn one_adapter_of_weight_one_beside_one_of_weight_zero_is_itself() {
    // Elections divide by the number that agree, whatever its weight: there the other must be absent.
    for combination in ALL {
        let name = combination.card().name;
        let first = part("a", 3, 1.0);
        let parts = if name.contains("ties") { vec![first] } else { vec![first, part("b", 3, 0.0)] };
        let found = made(name, &parts, &with_density(&Seed(1), 1.0));
        let distance = apart(&found, &weighted_sum(&parts[..1]));
        assert!(distance < 2e-6, "{name}: {distance:e}");
    }
}

#[test]
fn a_change_of_zero_is_the_same_as_none() {
    let (mut zero, parts) = (part("z", 3, 0.9), vec![part("a", 3, 0.6), part("b", 3, -1.2)]);
    zero.factors = LowRank::zeros(SHAPE.0, SHAPE.1, 3);
    for combination in ALL {
        let name = combination.card().name;
        let settings = Settings { rank: Some(4), ..with_density(&Seed(1), 0.5) };
        let without = made(name, &parts, &settings);
        // Behind the others, so that these keep their masks.
        let with = made(name, &[parts.clone(), vec![zero.clone()]].concat(), &settings);
        assert!(apart(&with, &without) < 2e-6, "{name}");
    }
}

#[test]
fn exact_methods_give_the_weighted_sum() {
    let parts = [part("a", 3, 0.7), part("b", 2, -1.4), part("c", 4, 0.2)];
    let wanted = weighted_sum(&parts);
    let cat = named("cat").unwrap().combine(&parts, &Settings::new(&Seed(0))).unwrap();
    assert_eq!(cat.rank(), 9);
    assert!(apart(&cat.reconstruct(), &wanted) < 1e-6);
    let full = Settings { rank: Some(9), ..with_density(&Seed(0), 1.0) };
    for name in ["svd", "dare-linear-svd", "magnitude-prune-svd"] {
        let distance = apart(&made(name, &parts, &full), &wanted);
        assert!(distance < 2e-6, "{name}: {distance:e}");
    }
    // Cut to two directions: the best there is.
    let cut = named("svd").unwrap().combine(&parts, &Settings { rank: Some(2), ..full }).unwrap();
    let (_, least) = cat.truncate(2).unwrap();
    assert_eq!(cut.rank(), 2);
    assert!((energy((cut.reconstruct() - wanted).as_ref()).sqrt() / least - 1.0).abs() < 1e-5);
    let largest = named("svd").unwrap().combine(&parts, &Settings::new(&Seed(0))).unwrap();
    assert_eq!(largest.rank(), 4, "without a rank the largest of the adapters");
    let beyond = Settings { rank: Some(1000), ..full };
    assert_eq!(named("ties-svd").unwrap().combine(&parts, &beyond).unwrap().rank(), 11);
}

#[test]
fn a_negative_weight_takes_a_change_away() {
    let parts = [part("a", 3, 0.8), part("a", 3, -0.8)];
    for name in ["cat", "svd"] {
        let found = made(name, &parts, &Settings::new(&Seed(0)));
        assert!(energy(found.as_ref()) < 1e-9 * energy(weighted_sum(&parts[..1]).as_ref()), "{name}");
    }
    let linear = made("linear", &parts[1..], &Settings::new(&Seed(0)));
    assert!(apart(&linear, &weighted_sum(&parts[1..])) < 1e-6);
}

#[test]
fn where_all_signs_agree_nothing_is_lost_by_an_election() {
    // All entries positive: TIES that keeps everything is the mean of the weighted entries.
    let mut parts = [part("a", 2, 0.5), part("b", 2, 1.5)];
    for Part { factors: LowRank { left, right }, .. } in &mut parts {
        for factor in [left, right] {
            (0..factor.ncols())
                .for_each(|j| factor.as_mut().col_mut(j).iter_mut().for_each(|x| *x = x.abs()));
        }
    }
    for election in [Election::Total, Election::Frequency] {
        for name in ["ties-svd", "dare-ties-svd"] {
            let settings = Settings { election, rank: Some(4), ..with_density(&Seed(0), 1.0) };
            let found = made(name, &parts, &settings);
            assert!(apart(&(faer::Scale(2.0_f32) * found), &weighted_sum(&parts)) < 2e-6, "{name}");
        }
    }
}

#[test]
fn random_masks_keep_the_mean_and_the_part_asked_for() {
    let kept = Seed(5).keep(0, "left", 40_000, 0.3).into_iter().filter(|&kept| kept).count();
    assert!((kept as f64 / 40_000.0 - 0.3).abs() < 0.01, "{kept}");
    assert_ne!(Seed(5).keep(0, "left", 99, 0.3), Seed(5).keep(1, "left", 99, 0.3), "each adapter its own");
    assert_ne!(Seed(5).keep(0, "left", 99, 0.3), Seed(5).keep(0, "right", 99, 0.3), "each tensor its own");
    // 2000 draws at density ½: the deviation of the mean is 1/√2000 of the entries.
    let parts = [part("a", 3, 0.7), part("b", 3, -0.5)];
    let wanted = weighted_sum(&parts);
    let mut mean = Mat::<f32>::zeros(SHAPE.0, SHAPE.1);
    for draw in 0..2000 {
        let seed = Seed(draw);
        mean += made("dare-linear-svd", &parts, &Settings { rank: Some(11), ..with_density(&seed, 0.5) });
    }
    let distance = apart(&(faer::Scale(1.0 / 2000.0_f32) * mean), &wanted);
    assert!(distance < 0.05, "{distance}");
    let one = |seed: u64| made("dare-ties", &parts, &with_density(&Seed(seed), 0.5));
    assert_eq!(one(1), one(1));
    assert_ne!(one(1), one(2));
}

const TENSORS: [&str; 3] = ["right", "left", "change"];

/// As in `combine/make.py`.
struct Formula;

impl Masks for Formula {
    fn keep(&self, part: usize, tensor: &'static str, entries: usize, _: f64) -> Vec<bool> {
        let tensor = TENSORS.iter().position(|name| *name == tensor).unwrap();
        (0..entries).map(|i| (29 * i + 17 * part + 7 * tensor) % 10 < 6).collect()
    }
}

/// As in `combine/make.py`.
fn formula(part: usize, tensor: usize, count: usize) -> Vec<f32> {
    let first = 11 * part + 53 * tensor;
    (0..count).map(|i| (((37 * (i + 1) + first) % 101) as f32 - 50.0 + 0.25) / 32.0).collect()
}

#[test]
fn every_method_gives_what_peft_gives() {
    let (out, inp, rank) = (5, 6, 3);
    let parts: Vec<Part> = [(6.0, 0.7), (1.5, -0.4), (3.0, 1.3)]
        .into_iter()
        .enumerate()
        .map(|(index, (alpha, weight))| {
            let (left, right) = (formula(index, 1, out * rank), formula(index, 0, rank * inp));
            let factors = LowRank::from_rows(&left, &right, out, inp, rank).unwrap();
            Part { factors, scale: lowrank_record::scale(alpha, rank, false), weight }
        })
        .collect();
    let mut seen = Vec::new();
    for &(name, sign, rank, ref wanted) in reference::CHANGES {
        let election = if sign == "total" { Election::Total } else { Election::Frequency };
        let settings = Settings { election, rank: Some(rank), ..with_density(&Formula, 0.6) };
        let found = made(name, &parts, &settings);
        for (index, &wanted) in wanted.iter().enumerate() {
            let found = f64::from(found[(index / inp, index % inp)]);
            assert!((found - wanted).abs() <= 1e-5, "{name}, {sign}, {index}: {found} {wanted}");
        }
        seen.push(name);
    }
    assert!(ALL.iter().all(|method| seen.contains(&method.card().name)), "each method has its numbers");
}

#[test]
fn clamping_bounds_both_factors() {
    let parts = [part("a", 3, 0.7), part("b", 3, 0.5)];
    let combined = |clamp| {
        let settings = Settings { clamp: Some(clamp), ..Settings::new(&Seed(0)) };
        named("svd").unwrap().combine(&parts, &settings)
    };
    let plain = named("svd").unwrap().combine(&parts, &Settings::new(&Seed(0))).unwrap();
    let (left, right) = plain.to_rows();
    let mut entries = [left, right].concat();
    entries.sort_by(f32::total_cmp);
    // 75 entries, so that 0.75·74 = 55.5.
    let bound = 0.5 * (entries[55] + entries[56]);
    let (left, right) = combined(0.75).unwrap().to_rows();
    for (clamped, whole) in [left, right].concat().iter().zip([plain.to_rows().0, plain.to_rows().1].concat())
    {
        assert!((clamped - whole.clamp(-bound, bound)).abs() < 1e-6, "{clamped} {whole}");
    }
    assert_eq!(combined(1.0).unwrap().left.nrows(), 14);
    for wrong in [0.0, 1.5, f64::NAN] {
        assert!(matches!(combined(wrong), Err(CombinationError::Clamp { .. })), "{wrong}");
    }
}

#[test]
fn each_mistake_has_its_own_error() {
    let parts = [part("a", 3, 1.0), part("b", 2, 1.0)];
    let with = |name: &str, parts: &[Part], density| {
        let settings = Settings { density, ..Settings::new(&Seed(0)) };
        named(name).unwrap().combine(parts, &settings).unwrap_err()
    };
    for combination in ALL {
        let card = combination.card();
        assert_eq!(with(card.name, &[], Some(0.5)), CombinationError::Empty);
        let infinite = [Part { weight: f64::INFINITY, ..parts[0].clone() }];
        assert!(matches!(with(card.name, &infinite, Some(0.5)), CombinationError::Weight { part: 1, .. }));
        let mut nan = parts[0].clone();
        nan.factors.left[(2, 1)] = f32::NAN;
        assert!(matches!(with(card.name, &[nan], Some(0.5)), CombinationError::Linalg(_)));
        let other = Part { factors: LowRank::zeros(14, 10, 3), ..parts[0].clone() };
        let shape = with(card.name, &[parts[0].clone(), other], Some(0.5));
        assert!(matches!(shape, CombinationError::Shape { part: 2, inp: 10, want_in: 11, .. }), "{shape}");
        if card.choices.iter().any(|choice| choice.name == "density") {
            assert_eq!(with(card.name, &parts[..1], None), CombinationError::NoDensity { method: card.name });
            for density in [0.0, -0.1, 1.1] {
                assert_eq!(
                    with(card.name, &parts[..1], Some(density)),
                    CombinationError::Density { density }
                );
            }
            if !card.name.starts_with("dare") {
                let few = with(card.name, &parts[..1], Some(0.001));
                assert!(matches!(few, CombinationError::NothingKept { .. }), "{few}");
            }
        }
        let on_factors = card.name != "cat" && !card.name.ends_with("svd");
        if on_factors {
            let ranks = CombinationError::Ranks { method: card.name, part: 2, rank: 2, first: 3 };
            assert_eq!(with(card.name, &parts, Some(0.5)), ranks);
        }
    }
    let none = Settings { rank: Some(0), ..Settings::new(&Seed(0)) };
    assert_eq!(named("svd").unwrap().combine(&parts, &none).unwrap_err(), CombinationError::NoRank);
    assert!(named("svd ").is_none());
}
