//! Facts of the control with random directions: the sizes of the method it is the control of, and nothing else of it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "clippy sees only the #[test] functions here as tests")]

use faer::Mat;
use lowrank_init::{ALL, Evidence, Gradient, InitError, Inputs, Site, Start, by_name};
use lowrank_linalg::{LowRank, Moments, energy, multiply, overlap, svd_in_f64, widen};
use lowrank_record::{Need, Seed};

fn random(seed: u64, out: usize, inp: usize) -> Mat<f32> {
    let draws = Seed(seed).normal(out * inp);
    Mat::from_fn(out, inp, |i, j| draws[i * inp + j])
}

/// Spectra of left, right and the change.
fn spectra(start: &Start) -> [Vec<f64>; 3] {
    let LowRank { left, right } = &start.delta;
    let between = match &start.core {
        Some(core) => multiply(left.as_ref(), core.as_ref()),
        None => left.clone(),
    };
    let change = multiply(widen(between.as_ref()).as_ref(), widen(right.as_ref()).as_ref());
    let values = |m: &Mat<f64>| svd_in_f64(m.as_ref()).unwrap().values;
    [values(&widen(left.as_ref())), values(&widen(right.as_ref())), values(&change)]
}

#[test]
fn sizes_spectra_core_and_base_are_those_of_the_method() {
    let (weight, gradient) = (random(1, 60, 44), random(2, 60, 44));
    let site = Site { out: 60, inp: 44, scale: 2.5 };
    let seen = Evidence::of(site)
        .with_weight(weight.as_ref())
        .with_gradient(Gradient::Exact(gradient.as_ref()))
        .with_rate(0.01);
    let nothing: [(&str, &str); 0] = [];
    let mut compared = 0;
    for method in ALL.iter().filter(|method| {
        let needs = method.needs();
        needs.iter().all(|need| matches!(need, Need::Weight | Need::Gradient))
    }) {
        let name = method.card().name;
        if name == "random-control" {
            continue;
        }
        let real = by_name(name, nothing).unwrap().start(&seen, 6, Seed(3)).unwrap();
        let control = by_name("random-control", [("of", name)]);
        // Known without computing anything.
        if method.replaces_base() {
            let refused = control.err().unwrap();
            assert_eq!(refused, InitError::NoControl { method: "random-control", of: name });
            continue;
        }
        let control = control.unwrap();
        assert_eq!((control.needs(), control.promise()), (method.needs(), method.promise()), "{name}");
        let found = control.start(&seen, 6, Seed(3)).unwrap();
        // A product may vanish beside its factors: its rounding is relative to theirs.
        let (before, after) = (spectra(&real), spectra(&found));
        let largest = |values: &[f64]| values.first().copied().unwrap_or(0.0);
        let (left, right) = (largest(&before[0]), largest(&before[1]));
        for ((before, after), size) in before.iter().zip(&after).zip([left, right, left * right]) {
            let near = before.iter().zip(after).all(|(x, y)| (x - y).abs() <= 1e-5 * size);
            assert!(near, "{name}: {before:?} {after:?}");
        }
        assert!(real.core == found.core && real.base == found.base, "{name}");
        compared += 1;
    }
    assert!(compared >= 12, "{compared}");
}

#[test]
fn what_a_method_asks_of_inputs_and_ranks_its_control_asks_too() {
    for rho in ["1", "3"] {
        let choices = format!("rho = {rho}, normalise = max");
        let control = by_name("random-control", [("of", "eva"), ("with", &choices)]).unwrap();
        let eva = by_name("eva", [("rho", rho), ("normalise", "max")]).unwrap();
        assert_eq!(control.redistributes(), eva.redistributes());
        assert_eq!(control.inputs(6), eva.inputs(6));
        let (site, draws) = (Site { out: 40, inp: 30, scale: 2.5 }, random(4, 200, 30));
        let mut moments = Moments::new(30);
        moments.absorb(draws.as_ref()).unwrap();
        let seen = Evidence::of(site).with_inputs(Inputs::Moments(&moments));
        assert_eq!(control.ratios(&seen, 5, Seed(3)).unwrap(), eva.ratios(&seen, 5, Seed(3)).unwrap());
    }
    let control = by_name("random-control", [("of", "svfit"), ("with", "rank = full")]).unwrap();
    let site = Site { out: 40, inp: 30, scale: 2.5 };
    assert!(control.chooses_rank() && control.chosen_rank(&Evidence::of(site), 4).unwrap() == 30);
}

#[test]
fn the_directions_are_random() {
    let weight = random(1, 90, 70);
    let site = Site { out: 90, inp: 70, scale: 2.5 };
    let seen = Evidence::of(site).with_weight(weight.as_ref());
    let start = |name: &str, choices: &[(&str, &str)], seed: u64| {
        by_name(name, choices.iter().copied()).unwrap().start(&seen, 5, Seed(seed)).unwrap().delta
    };
    let real = svd_in_f64(start("pissa", &[], 3).left.as_ref()).unwrap().left;
    let control = |seed| svd_in_f64(start("random-control", &[], seed).left.as_ref()).unwrap().left;
    // About r/out for random ones.
    let share = overlap(real.as_ref(), control(3).as_ref()).unwrap();
    assert!(share < 0.2, "{share}");
    assert!(overlap(control(3).as_ref(), control(4).as_ref()).unwrap() < 0.2);
    assert!((energy(real.as_ref()) - 5.0).abs() < 1e-4);
}

#[test]
fn choices_reach_the_method_and_mistakes_are_named() {
    let method =
        by_name("random-control", [("of", "Lora_GA"), ("with", "scale=weight-svd,gamma = 4")]).unwrap();
    assert_eq!(method.needs(), [Need::Weight, Need::Gradient]);
    let settings = method.settings();
    assert_eq!(
        settings,
        [("of", "lora-ga".to_owned()), ("with", "scale = weight-svd, gamma = 4".to_owned())]
    );
    assert_eq!(by_name("random-control", settings.clone()).unwrap().settings(), settings);
    let refused =
        |of: &str, with: &str| by_name("random-control", [("of", of), ("with", with)]).err().unwrap();
    assert!(matches!(refused("nonsense", "none"), InitError::BadValue { option: "of", .. }));
    assert!(matches!(refused("random-control", "none"), InitError::BadValue { option: "of", .. }));
    assert!(matches!(refused("pissa", "exact"), InitError::BadValue { option: "with", .. }));
    assert!(matches!(refused("pissa", "gamma = 3"), InitError::UnknownOption { method: "pissa", .. }));
    let missing = by_name("random-control", [("of", "lora-ga")]).unwrap();
    let site = Site { out: 30, inp: 20, scale: 1.0 };
    let refused = missing.start(&Evidence::of(site), 4, Seed(1)).unwrap_err();
    assert_eq!(refused, InitError::Missing { method: "random-control", need: Need::Gradient });
    assert!(matches!(missing.admits(site, 11), Err(InitError::DoubleRank { method: "lora-ga", .. })));
}
