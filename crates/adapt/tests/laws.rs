//! What must hold of every form: a form joins by its line in the catalogue.
#![allow(clippy::unwrap_used)] // A failure here is a failure of the test.

use lowrank_adapt::{ALL, AdaptError, Form, Linear, Offset, Start, Weight};
use lowrank_record::Seed;
use lowrank_tensor::{Matrix, Tensor, cpu, from_rows, to_rows};

const OUT: usize = 9;
const IN: usize = 7;
const RANK: usize = 3;
const SCALE: f64 = 1.7;

fn draws(name: &str, count: usize) -> Vec<f32> {
    Seed(21).at("adapt", name).normal(count)
}

fn layer() -> Linear {
    let weight = Matrix::from_f32(draws("weight", OUT * IN), [OUT, IN]).unwrap();
    let bias = Matrix::from_f32(draws("bias", OUT), [1, OUT]).unwrap();
    Linear::new(Weight::Frozen(weight), Some(bias))
}

fn start(name: &str, offset: Offset) -> Start {
    let left = draws(&format!("{name} left"), OUT * RANK);
    Start { left, right: draws(&format!("{name} right"), RANK * IN), rank: RANK, offset }
}

fn mount(linear: &mut Linear, form: &dyn Form, name: &str, offset: Offset) {
    let adapter = form.build(linear.frozen().unwrap(), start(name, offset), SCALE, &cpu()).unwrap();
    linear.mount(name, adapter).unwrap();
}

fn input() -> Tensor<2> {
    from_rows(draws("input", 5 * IN), [5, IN], &cpu())
}

fn close(a: &[f32], b: &[f32], bound: f32) {
    let size = b.iter().fold(1.0_f32, |size, b| size.max(b.abs()));
    for (a, b) in a.iter().zip(b) {
        assert!((a - b).abs() <= bound * size, "{a} {b}");
    }
}

/// `x Wᵀ + b` by loops, in f64.
fn product(weight: &[f32], linear: &Linear) -> Vec<f32> {
    let (x, bias) = (to_rows(input()), linear.bias().unwrap().to_f32());
    (0..5 * OUT)
        .map(|at| {
            let (row, out) = (at / OUT, at % OUT);
            let sum: f64 =
                (0..IN).map(|i| f64::from(x[row * IN + i]) * f64::from(weight[out * IN + i])).sum();
            (sum + f64::from(bias[out])) as f32
        })
        .collect()
}

#[test]
fn the_layer_computes_the_weight_plus_the_change() {
    for form in ALL {
        let mut linear = layer();
        mount(&mut linear, *form, "a", Offset::None);
        mount(&mut linear, *form, "b", Offset::None);
        let mut weight = linear.frozen().unwrap().to_f32();
        for mounted in linear.adapters() {
            let change = mounted.adapter.delta(linear.frozen().unwrap());
            assert!(change.iter().any(|value| value.abs() > 0.1));
            weight.iter_mut().zip(change).for_each(|(weight, change)| *weight += change);
            let (path, x) = (mounted.adapter.apply(linear.frozen().unwrap(), &input()), to_rows(input()));
            let change = mounted.adapter.delta(linear.frozen().unwrap());
            let applied: Vec<f32> = (0..5 * OUT)
                .map(|at| (0..IN).map(|i| x[at / OUT * IN + i] * change[at % OUT * IN + i]).sum())
                .collect();
            close(&to_rows(path), &applied, 1e-5);
        }
        close(&to_rows(linear.forward(input())), &product(&weight, &linear), 1e-5);
    }
}

#[test]
fn a_shadow_offset_leaves_the_function_unchanged_where_it_started() {
    for form in ALL {
        let mut linear = layer();
        let before = to_rows(linear.forward(input()));
        mount(&mut linear, *form, "a", Offset::Shadow);
        close(&to_rows(linear.forward(input())), &before, 1e-5);
        let change = linear.adapters()[0].adapter.delta(linear.frozen().unwrap());
        assert!(change.iter().all(|value| value.abs() < 1e-5));
        // After a step the change is measured from the start.
        let (_, var) = &linear.adapters()[0].adapter.trainable()[0];
        var.assign(var.values().iter().map(|value| value + 0.5).collect());
        let change = linear.adapters()[0].adapter.delta(linear.frozen().unwrap());
        let mut weight = linear.frozen().unwrap().to_f32();
        weight.iter_mut().zip(change).for_each(|(weight, change)| *weight += change);
        close(&to_rows(linear.forward(input())), &product(&weight, &linear), 1e-5);
    }
}

#[test]
fn merging_keeps_the_function_and_unmerging_the_bytes() {
    for (form, offset) in ALL.iter().flat_map(|form| [(form, Offset::None), (form, Offset::Shadow)]) {
        let mut linear = layer();
        let original = linear.frozen().unwrap().to_f32();
        mount(&mut linear, *form, "a", offset);
        let (_, var) = &linear.adapters()[0].adapter.trainable()[0];
        var.assign(var.values().iter().map(|value| value + 0.5).collect());
        let adapted = to_rows(linear.forward(input()));
        linear.merge("a").unwrap();
        close(&to_rows(linear.forward(input())), &adapted, 1e-5);
        assert!(linear.frozen().unwrap().to_f32() != original);
        // Whatever would count the change twice, or lose the weight, is refused meanwhile.
        assert!(
            matches!(linear.admits("b", true), Err(AdaptError::Merged(_)))
                && linear.admits("b", false).is_ok()
        );
        for refused in [linear.enable("a", true), linear.merge("a"), linear.unmount("a").map(drop)] {
            assert!(matches!(refused, Err(AdaptError::Merged(_))), "{refused:?}");
        }
        let other = Matrix::from_f32(original.clone(), [OUT, IN]).unwrap();
        assert!(matches!(linear.replace_weight(other), Err(AdaptError::Merged(_))));
        linear.unmerge("a").unwrap();
        assert!(linear.frozen().unwrap().to_f32() == original);
        close(&to_rows(linear.forward(input())), &adapted, 1e-6);
        // An adapter that was off stays off.
        linear.enable("a", false).unwrap();
        linear.merge("a").unwrap();
        linear.unmerge("a").unwrap();
        assert!(!linear.adapters()[0].enabled);
    }
}

#[test]
fn several_adapters_merge_and_unmerge_in_any_order() {
    for (form, offset) in ALL.iter().flat_map(|form| [(form, Offset::None), (form, Offset::Shadow)]) {
        let mut linear = layer();
        let original = linear.frozen().unwrap().to_f32();
        for name in ["a", "b", "c"] {
            mount(&mut linear, *form, name, offset);
            let (_, var) = &linear.adapters()[linear.adapters().len() - 1].adapter.trainable()[0];
            var.assign(var.values().iter().map(|value| value + 0.5).collect());
        }
        linear.enable("c", false).unwrap();
        let adapted = to_rows(linear.forward(input()));
        let now = |linear: &Linear| linear.frozen().unwrap().to_f32();
        // One in the weight, one beside it.
        linear.merge("a").unwrap();
        let with_a = now(&linear);
        close(&to_rows(linear.forward(input())), &adapted, 1e-5);
        linear.merge("b").unwrap();
        let with_both = now(&linear);
        assert!(with_both != with_a && with_a != original);
        close(&to_rows(linear.forward(input())), &adapted, 1e-5);
        assert!(matches!(linear.merge("a"), Err(AdaptError::Merged(_))));
        assert!(matches!(linear.unmerge("c"), Err(AdaptError::Unknown(_))));
        // In the order in which they came, and in the other; what is left is as if it had been merged alone.
        linear.unmerge("a").unwrap();
        assert!(now(&linear) != with_a && now(&linear) != original);
        close(&to_rows(linear.forward(input())), &adapted, 1e-5);
        linear.unmerge("b").unwrap();
        assert!(now(&linear) == original);
        linear.merge("a").unwrap();
        linear.merge("b").unwrap();
        assert!(now(&linear) == with_both);
        linear.unmerge("b").unwrap();
        assert!(now(&linear) == with_a);
        linear.unmerge("a").unwrap();
        assert!(now(&linear) == original && to_rows(linear.forward(input())) == adapted);
        let on: Vec<bool> = linear.adapters().iter().map(|mounted| mounted.enabled).collect();
        assert_eq!(on, [true, true, false]);
    }
}

#[test]
fn a_trained_weight_and_an_adapter_exclude_each_other() {
    for form in ALL {
        let mut linear = layer();
        mount(&mut linear, *form, "a", Offset::None);
        assert!(matches!(linear.train_weight(&cpu()), Err(AdaptError::Adapted)));
        let mounted = linear.unmount("a").unwrap();
        linear.train_weight(&cpu()).unwrap();
        assert!(matches!(linear.mount("a", mounted.adapter), Err(AdaptError::Trained)));
        let other = Matrix::from_f32(vec![0.0; OUT * IN], [OUT, IN]).unwrap();
        assert!(matches!(linear.replace_weight(other), Err(AdaptError::Trained)));
    }
}

#[test]
fn a_rank_above_the_weights_is_applied_all_the_same() {
    // An offset start of rank r is exported at 2r, which may exceed the smaller side.
    for form in ALL {
        let mut linear = layer();
        let (left, right) = (draws("wide left", OUT * 8), draws("wide right", 8 * IN));
        let wide = Start { left, right, rank: 8, offset: Offset::None };
        let adapter = form.build(linear.frozen().unwrap(), wide, SCALE, &cpu()).unwrap();
        linear.mount("a", adapter).unwrap();
        let mut weight = linear.frozen().unwrap().to_f32();
        let change = linear.adapters()[0].adapter.delta(linear.frozen().unwrap());
        weight.iter_mut().zip(change).for_each(|(weight, change)| *weight += change);
        close(&to_rows(linear.forward(input())), &product(&weight, &linear), 1e-5);
    }
}

#[test]
fn adapters_switch_on_and_off_and_go() {
    for form in ALL {
        let mut linear = layer();
        let plain = to_rows(linear.forward(input()));
        mount(&mut linear, *form, "a", Offset::None);
        linear.enable("a", false).unwrap();
        assert!(to_rows(linear.forward(input())) == plain);
        linear.enable("a", true).unwrap();
        assert!(to_rows(linear.forward(input())) != plain);
        assert!(matches!(linear.enable("b", true), Err(AdaptError::Unknown(_))));
        let again = form.build(linear.frozen().unwrap(), start("a", Offset::None), SCALE, &cpu()).unwrap();
        assert!(linear.mount("a", again).is_err(), "a name is taken once");
        linear.unmount("a").unwrap();
        assert!(to_rows(linear.forward(input())) == plain);
    }
}

#[test]
fn gradients_equal_finite_differences() {
    for form in ALL {
        for offset in [Offset::None, Offset::Shadow] {
            let mut linear = layer();
            mount(&mut linear, *form, "a", offset);
            let upstream = draws("upstream", 5 * OUT);
            let loss = |linear: &Linear| -> f64 {
                let y = to_rows(linear.forward(input()));
                y.iter().zip(&upstream).map(|(&y, &u)| f64::from(y) * f64::from(u)).sum()
            };
            let y = linear.forward(input().autodiff());
            let weighted = y * from_rows(upstream.clone(), [5, OUT], &cpu()).autodiff();
            let mut gradients = weighted.sum().backward();
            for (part, var) in linear.adapters()[0].adapter.trainable() {
                let gradient = to_rows(var.take_gradient(&mut gradients).unwrap());
                let origin = var.values();
                for index in 0..origin.len() {
                    // Linear in each factor, so a large step loses nothing and drowns the rounding of f32.
                    let at = |step: f32| {
                        let mut values = origin.clone();
                        values[index] += step;
                        var.assign(values);
                        loss(&linear)
                    };
                    let slope = (at(0.5) - at(-0.5)) / 1.0;
                    var.assign(origin.clone());
                    let gradient = f64::from(gradient[index]);
                    assert!(
                        (gradient - slope).abs() < 1e-4 * slope.abs().max(1.0),
                        "{part}: {gradient} {slope}"
                    );
                }
            }
        }
    }
}

#[test]
fn the_trained_tensors_are_the_factors_and_the_start_taken_back_stays_where_it_was() {
    let change = |left: &[f32], right: &[f32]| -> Vec<f32> {
        (0..OUT * IN)
            .map(|at| {
                let terms = (0..RANK)
                    .map(|k| f64::from(left[at / IN * RANK + k]) * f64::from(right[k * IN + at % IN]));
                (SCALE * terms.sum::<f64>()) as f32
            })
            .collect()
    };
    for form in ALL {
        for offset in [Offset::None, Offset::Shadow] {
            let mut linear = layer();
            mount(&mut linear, *form, "a", offset);
            let trainable = linear.adapters()[0].adapter.trainable();
            let shapes: Vec<_> = trainable.iter().map(|(part, var)| (*part, var.shape())).collect();
            assert_eq!(shapes, [("right", [RANK, IN]), ("left", [OUT, RANK])]);
            // One step along the gradient of everything that has one.
            let mut gradients = linear.forward(input().autodiff()).sum().backward();
            for (_, var) in &trainable {
                let step = to_rows(var.take_gradient(&mut gradients).unwrap());
                var.assign(var.values().iter().zip(step).map(|(value, step)| value - 0.1 * step).collect());
            }
            let mut wanted = change(&trainable[1].1.values(), &trainable[0].1.values());
            if offset == Offset::Shadow {
                let Start { left, right, .. } = start("a", offset);
                wanted.iter_mut().zip(change(&left, &right)).for_each(|(now, before)| *now -= before);
            }
            close(&linear.adapters()[0].adapter.delta(linear.frozen().unwrap()), &wanted, 1e-5);
        }
    }
}

#[test]
fn nothing_is_recorded_outside_training() {
    for form in ALL {
        let mut linear = layer();
        mount(&mut linear, *form, "a", Offset::Shadow);
        assert!(!linear.forward(input()).is_autodiff());
        assert!(linear.forward(input().autodiff()).is_tracked());
    }
}

#[test]
fn factors_that_do_not_fit_are_refused() {
    for form in ALL {
        let linear = layer();
        let base = linear.frozen().unwrap();
        let build = |start| form.build(base, start, SCALE, &cpu()).err();
        let none = Start { left: Vec::new(), right: Vec::new(), rank: 0, offset: Offset::None };
        assert!(matches!(build(none), Some(AdaptError::Rank)));
        let short = Start { left: vec![0.0; 5], ..start("a", Offset::None) };
        assert!(matches!(build(short), Some(AdaptError::Shape { left: 5, .. })));
    }
}
