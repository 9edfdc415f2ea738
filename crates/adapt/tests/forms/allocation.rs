//! What AdaLoRA decides over all sites between two steps, and switching among adapters in a slot.

use lowrank_adapt::forms::Adalora;
use lowrank_adapt::{ALL, AdaptError, Allocator, Form, Trained, by_name};

use crate::small::*;

/// `[out, r, in]` of two sites.
const SITES: [[usize; 3]; 2] = [[5, 4, 7], [6, 2, 3]];

fn allocator(choices: &[(&str, &str)], steps: usize) -> Box<dyn Allocator> {
    let form = by_name("adalora", choices.iter().copied()).unwrap();
    form.allocator(&SITES, steps).unwrap().unwrap()
}

/// Values or gradients of all sites at a step.
fn numbers(kind: &str, step: usize) -> Vec<[Vec<f32>; 3]> {
    let draw = |(index, [out, rank, inp]): (usize, &[usize; 3])| {
        [rank * inp, *rank, out * rank].map(|count| draws(&format!("{kind} {step} {index} {count}"), count))
    };
    SITES.iter().enumerate().map(draw).collect()
}

/// The values of E behind a step.
fn run(allocator: &mut dyn Allocator, step: usize) -> Vec<Vec<f32>> {
    let (mut values, gradients) = (numbers("value", step), numbers("gradient", step));
    let mut seen: Vec<Trained<'_>> = values
        .iter_mut()
        .zip(&gradients)
        .map(|(values, gradients)| Trained {
            values: values.iter_mut().map(Vec::as_mut_slice).collect(),
            gradients: gradients.to_vec(),
        })
        .collect();
    allocator.step(step, &mut seen).unwrap();
    let before = numbers("value", step);
    for (now, before) in values.iter().zip(&before) {
        assert!(now[0] == before[0] && now[2] == before[2], "the factors stay as they are");
        assert!(now[1].iter().zip(&before[1]).all(|(now, before)| now == before || *now == 0.0));
    }
    values.into_iter().map(|[_, values, _]| values).collect()
}

fn kept(values: &[Vec<f32>]) -> usize {
    values.iter().flatten().filter(|value| **value != 0.0).count()
}

#[test]
fn masked_values_are_zero_and_the_target_is_reached() {
    let mut allocator = allocator(&[("target-rank", "1"), ("t-init", "2"), ("t-final", "3")], 12);
    let found: Vec<usize> = (1..=12).map(|step| kept(&run(&mut *allocator, step))).collect();
    // 2 + 4·(1 − (t − 2)/7)³, rounded down.
    assert_eq!(found, [6, 6, 4, 3, 2, 2, 2, 2, 2, 2, 2, 2]);
}

#[test]
fn choices_that_are_not_given_follow_from_ranks_and_steps() {
    // Two thirds of a mean rank of 3; a tenth and three tenths of 20 steps.
    let budget = Adalora::DEFAULT.budget(&[4, 2], 20);
    assert_eq!((budget.target, budget.warmup, budget.last, budget.interval), (2, 2, 6, 1));
    assert_eq!(Adalora::DEFAULT.budget(&[12], 100).target, 8, "as in PEFT");
    let chosen = Adalora::chosen([("target_rank", "3"), ("beta1", "0.5"), ("orthogonality", "0")]).unwrap();
    assert_eq!((chosen.target, chosen.sensitivity, chosen.orthogonality), (Some(3), 0.5, 0.0));
    assert_eq!(Adalora::chosen(chosen.settings()).unwrap(), chosen);
    for (choice, value) in [
        ("target-rank", "0"),
        ("t-init", "-1"),
        ("delta-t", "0"),
        ("beta1", "1"),
        ("beta2", "0"),
        ("orthogonality", "-0.1"),
    ] {
        let refused = Adalora::chosen([(choice, value)]).unwrap_err().to_string();
        assert!(refused.contains(&format!("adalora: {choice} = {value} is not allowed")), "{refused}");
    }
}

#[test]
fn the_penalty_is_the_mean_over_all_factors() {
    let weight = |choices: &[(&str, &str)]| allocator(choices, 12).penalty_weight();
    assert!(
        (weight(&[]) - 0.5 / 4.0).abs() < 1e-12 && (weight(&[("orthogonality", "2")]) - 0.5).abs() < 1e-12
    );
}

#[test]
fn a_resumed_allocator_goes_on_as_it_was() {
    for stop in [1, 4, 9, 11] {
        let mut whole = allocator(&[("target-rank", "1")], 12);
        (1..=stop).for_each(|step| drop(run(&mut *whole, step)));
        let mut resumed = allocator(&[("target-rank", "1")], 12);
        resumed.resume(whole.parts()).unwrap();
        for step in stop + 1..=12 {
            assert_eq!(run(&mut *resumed, step), run(&mut *whole, step), "{stop} {step}");
        }
        assert_eq!(resumed.parts(), whole.parts());
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let adalora = |choices: &[(&str, &str)]| by_name("adalora", choices.iter().copied()).unwrap();
    // 2^63 for each of two sites is 0 where the product wraps.
    for (choices, steps) in [
        (&[("target-rank", "4")][..], 12),
        (&[("target-rank", "9223372036854775808")], 12),
        (&[("t-init", "9"), ("t-final", "3")], 12),
        (&[], 0),
    ] {
        let refused = adalora(choices).allocator(&SITES, steps).err();
        assert!(matches!(refused, Some(AdaptError::Budget { .. })), "{choices:?} {refused:?}");
    }
    let mut two = allocator(&[], 12);
    assert!(matches!(two.step(1, &mut []), Err(AdaptError::Budget { .. })));
    let mut short = Trained { values: Vec::new(), gradients: Vec::new() };
    assert!(matches!(two.step(1, std::slice::from_mut(&mut short)), Err(AdaptError::Budget { .. })));
    // The sites of every other form know nothing of each other.
    for form in ALL.iter().filter(|form| form.card().name != "adalora") {
        assert!(form.allocator(&SITES, 12).unwrap().is_none(), "{}", form.card().name);
    }
}

#[test]
fn one_of_several_adapters_is_active_and_computes_what_it_does_alone() {
    let rows = rows();
    let chosen: Vec<&Row> = ["lora", "dora", "ia3", "oft", "vera", "adalora", "full"]
        .iter()
        .map(|name| rows.iter().find(|row| row.form.card().name == *name).unwrap())
        .collect();
    let mut several = layer();
    let plain = output(&several);
    let alone: Vec<(String, Vec<f32>)> = chosen
        .iter()
        .map(|row| {
            let (name, mut linear) = (row.form.card().name.to_owned(), layer());
            for linear in [&mut several, &mut linear] {
                mount(linear, row, &name);
                train(linear, &name);
            }
            let y = output(&linear);
            assert!(y != plain, "{name} does something");
            (name, y)
        })
        .collect();
    for (name, wanted) in alone.iter().chain(alone.iter().rev()) {
        several.activate(Some(name)).unwrap();
        assert!(output(&several) == *wanted, "{name}");
    }
    several.activate(None).unwrap();
    assert!(output(&several) == plain);
    several.activate(Some("another")).unwrap();
    assert!(output(&several) == plain, "a layer that does not hold it is as it was");
    several.merge("lora").unwrap();
    assert!(matches!(several.activate(Some("ia3")), Err(AdaptError::Merged(_))));
}
