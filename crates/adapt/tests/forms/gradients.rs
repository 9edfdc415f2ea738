//! Gradients against finite differences of the layer's output.

use lowrank_adapt::Linear;
use lowrank_tensor::{Tensor, cpu, from_rows, to_rows};

use crate::small::*;

/// `Σ y ⊙ upstream`, summed in f64.
fn loss(linear: &Linear, x: &Tensor<2>, upstream: &[f32]) -> f64 {
    let y = to_rows(linear.forward(x.clone()));
    y.iter().zip(upstream).map(|(&y, &u)| f64::from(y) * f64::from(u)).sum()
}

/// The slope from four points: exact for polynomials of degree 4, and wide enough that the rounding of f32 drowns.
fn slope(mut at: impl FnMut(f32) -> f64) -> f64 {
    let h = 0.0625;
    let mut pair = |h: f32| at(h) - at(-h);
    (8.0 * pair(h) - pair(2.0 * h)) / (12.0 * f64::from(h))
}

#[track_caller]
fn agree(found: &[f32], wanted: &[f64], what: &str) {
    let size = wanted.iter().fold(1.0_f64, |size, value| size.max(value.abs()));
    for (&found, wanted) in found.iter().zip(wanted) {
        assert!((f64::from(found) - wanted).abs() < 5e-4 * size, "{what}: {found} {wanted}");
    }
}

#[test]
fn gradients_equal_finite_differences() {
    let upstream = draws("upstream", ROWS * OUT);
    for row in rows() {
        let linear = trained(&row);
        let x = input().autodiff().require_grad();
        let weighted =
            linear.forward(x.clone()) * from_rows(upstream.clone(), [ROWS, OUT], &cpu()).autodiff();
        let mut gradients = weighted.sum().backward();
        let to_input = to_rows(x.grad(&gradients).unwrap());
        let values = to_rows(input());
        let wanted: Vec<f64> = (0..values.len())
            .map(|index| {
                slope(|step| {
                    let mut moved = values.clone();
                    moved[index] += step;
                    loss(&linear, &from_rows(moved, [ROWS, IN], &cpu()), &upstream)
                })
            })
            .collect();
        agree(&to_input, &wanted, &format!("{} input", row.name()));
        for (part, var) in linear.adapters()[0].adapter.trainable() {
            let gradient = to_rows(var.take_gradient(&mut gradients).unwrap());
            assert!(gradient.iter().any(|value| value.abs() > 1e-3), "{} {part}", row.name());
            if row.detached() && part != "magnitude" {
                continue;
            }
            let origin = var.values();
            let wanted: Vec<f64> = (0..origin.len())
                .map(|index| {
                    let found = slope(|step| {
                        let mut values = origin.clone();
                        values[index] += step;
                        var.assign(values);
                        loss(&linear, &input(), &upstream)
                    });
                    var.assign(origin.clone());
                    found
                })
                .collect();
            agree(&gradient, &wanted, &format!("{} {part}", row.name()));
        }
    }
}

#[test]
fn what_is_trained_is_all_that_a_step_moves() {
    for row in rows() {
        let linear = trained(&row);
        let adapter = &linear.adapters()[0].adapter;
        let before = adapter.parts();
        let trained: Vec<&str> = adapter.trainable().iter().map(|(name, _)| *name).collect();
        let mut gradients = linear.forward(input().autodiff()).sum().backward();
        for (part, var) in adapter.trainable() {
            let step = to_rows(var.take_gradient(&mut gradients).unwrap());
            var.assign(var.values().iter().zip(step).map(|(value, step)| value - 0.1 * step).collect());
            assert!(before.iter().any(|held| held.name == part), "{part} is among the parts");
        }
        for (now, before) in adapter.parts().iter().zip(&before) {
            assert_eq!(now == before, !trained.contains(&now.name.as_str()), "{} {}", row.name(), now.name);
        }
        assert!(linear.frozen().unwrap().to_f32() == weight().to_f32());
    }
}
