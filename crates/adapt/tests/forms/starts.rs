//! Where the forms that make their own start begin, and what each promises by itself.

use lowrank_adapt::{AdaptError, Form, Linear, Offset, Part, Site, Start, Weight, by_name};
use lowrank_record::Seed;
use lowrank_tensor::{Matrix, cpu, from_rows, to_rows};

use crate::small::*;

fn form(name: &str, choices: &[(&str, &str)]) -> Box<dyn Form> {
    by_name(name, choices.iter().copied()).unwrap()
}

/// The parts of a fresh adapter on a layer `[out, in]`.
fn fresh(
    form: &dyn Form,
    [out, inp]: [usize; 2],
    rank: usize,
    [most_out, most_in]: [usize; 2],
    name: &str,
) -> Vec<Part> {
    let (base, device) = (Matrix::from_f32(draws("wide", out * inp), [out, inp]).unwrap(), cpu());
    let largest = [most_out, most_in, rank];
    let site = Site { largest, ..Site::alone(name, &base, rank, SCALE, Seed(5), &device) };
    form.build(&site, None).unwrap().parts()
}

fn find<'a>(parts: &'a [Part], name: &str) -> &'a Part {
    parts.iter().find(|part| part.name == name).unwrap()
}

/// Uniform draws below a bound reach near it, and their mean square is a third of its square.
#[track_caller]
fn uniform_below(part: &Part, bound: f64) {
    let largest = part.values.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    let square =
        part.values.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>() / part.values.len() as f64;
    assert!(
        f64::from(largest) <= bound && f64::from(largest) > 0.8 * bound,
        "{}: {largest} {bound}",
        part.name
    );
    assert!((3.0 * square / (bound * bound) - 1.0).abs() < 0.25, "{}: {square} {bound}", part.name);
}

#[test]
fn the_random_factors_of_vera_are_shared_and_sliced() {
    let vera = form("vera", &[]);
    let largest = [90, 70];
    let whole = fresh(&*vera, largest, 16, largest, "a");
    let part = fresh(&*vera, [40, 30], 16, largest, "b");
    let (wide, narrow) = (find(&whole, "right"), find(&part, "right"));
    let rows = wide.values.chunks_exact(70).zip(narrow.values.chunks_exact(30));
    assert!(rows.into_iter().all(|(wide, narrow)| wide[..30] == *narrow));
    assert!(find(&whole, "left").values[..40 * 16] == find(&part, "left").values);
    uniform_below(wide, (6.0_f64 / 70.0).sqrt());
    uniform_below(find(&whole, "left"), (6.0_f64 / 16.0).sqrt());
    assert!(find(&whole, "lambda_b").values == [0.0; 90] && find(&whole, "lambda_d").values == [0.1; 16]);
    // A site of a smaller rank has the first rows of right and the first columns of left.
    let (base, device) = (Matrix::from_f32(draws("wide", 40 * 30), [40, 30]).unwrap(), cpu());
    let low = Site { largest: [90, 70, 16], ..Site::alone("c", &base, 5, SCALE, Seed(5), &device) };
    let low = vera.build(&low, None).unwrap().parts();
    assert!(find(&low, "right").values == find(&part, "right").values[..5 * 30]);
    let columns = find(&part, "left").values.chunks_exact(16).flat_map(|row| row[..5].to_vec());
    assert!(find(&low, "left").values == columns.collect::<Vec<f32>>());
}

#[test]
fn factors_begin_as_pefts_do_and_differ_from_site_to_site() {
    let shape = [60, 96];
    let loha = fresh(&*form("loha", &[]), shape, 6, shape, "a");
    uniform_below(find(&loha, "w1_a"), (1.0_f64 / 6.0).sqrt());
    uniform_below(find(&loha, "w1_b"), (1.0_f64 / 96.0).sqrt());
    uniform_below(find(&loha, "w2_a"), (1.0_f64 / 6.0).sqrt());
    assert!(find(&loha, "w2_b").values.iter().all(|value| *value == 0.0));
    assert!(find(&loha, "w1_a").values != find(&loha, "w2_a").values);
    let other = fresh(&*form("loha", &[]), shape, 6, shape, "b");
    assert!(find(&loha, "w1_a").values != find(&other, "w1_a").values);
    // [60, 96] splits into [6, 8] and [10, 12]; at rank 6 the second factor is whole, at rank 2 it is a product.
    let lokr = fresh(&*form("lokr", &[]), shape, 6, shape, "a");
    assert_eq!(find(&lokr, "w1").shape, [6, 8]);
    assert!(find(&lokr, "w1").values.iter().all(|value| *value == 0.0));
    assert_eq!(find(&lokr, "w2").shape, [10, 12]);
    uniform_below(find(&lokr, "w2"), (1.0_f64 / 12.0).sqrt());
    let lokr = fresh(&*form("lokr", &[("zero", "second"), ("decompose-both", "true")]), shape, 2, shape, "a");
    let shapes: Vec<_> = lokr.iter().map(|part| (part.name.as_str(), part.shape.as_slice())).collect();
    let wanted: [(&str, &[usize]); 4] =
        [("w1_a", &[6, 2]), ("w1_b", &[2, 8]), ("w2_a", &[10, 2]), ("w2_b", &[2, 12])];
    assert_eq!(shapes, wanted);
    assert!(find(&lokr, "w2_b").values.iter().all(|value| *value == 0.0));
    let adalora = fresh(&*form("adalora", &[]), shape, 6, shape, "a");
    for name in ["right", "left"] {
        let values = &find(&adalora, name).values;
        let square = values.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>() / values.len() as f64;
        assert!((square.sqrt() / 0.02 - 1.0).abs() < 0.1, "{name}: {square}");
    }
}

#[test]
fn blocks_that_do_not_make_up_the_inputs_are_refused_with_what_would() {
    let (base, device) = (weight(), cpu());
    let site = Site::alone("a", &base, RANK, SCALE, Seed(5), &device);
    let said = |form: Box<dyn Form>| form.build(&site, None).err().unwrap().to_string();
    assert_eq!(
        said(form("oft", &[("block-size", "5")])),
        "oft: block-size = 5 does not fit a weight [8, 12]: it has to divide the 12 inputs; 4 or 6 would"
    );
    assert!(said(form("boft", &[("block-size", "8")])).contains("6 or 12 would"));
    assert!(said(form("boft", &[("block-size", "3"), ("factors", "2")])).contains("take an even one"));
    assert!(said(form("boft", &[("block-size", "4"), ("factors", "3")])).contains("take fewer factors"));
    // A stored rotation says its own size, and is refused where that does not fit.
    let strange = vec![Part::new("rotation", &[3, 5], vec![0.0; 15])];
    let refused = form("oft", &[]).restore(&site, strange, Offset::None).err();
    assert!(matches!(refused, Some(AdaptError::PartShape { .. })), "{refused:?}");
    assert!(
        form("oft", &[])
            .restore(&site, vec![Part::new("rotation", &[3, 6], vec![0.1; 18])], Offset::None)
            .is_ok()
    );
}

#[test]
fn dora_begins_as_the_function_of_any_start_and_refuses_a_row_without_direction() {
    let dora = form("dora", &[]);
    let lora = form("lora", &[]);
    for offset in [Offset::None, Offset::Shadow] {
        let mut rows = Vec::new();
        for form in [&dora, &lora] {
            let mut linear = layer();
            let (base, device) = (weight(), cpu());
            let site = Site::alone("a", &base, RANK, SCALE, Seed(5), &device);
            linear.mount("a", form.build(&site, start(&**form, "a", offset)).unwrap()).unwrap();
            rows.push(output(&linear));
        }
        close(&rows[0], &rows[1], 1e-6, "dora at step 0");
    }
    let mut values = weight().to_f32();
    values[2 * IN..3 * IN].fill(0.0);
    let (base, device) = (Matrix::from_f32(values, [OUT, IN]).unwrap(), cpu());
    let site = Site::alone("a", &base, RANK, SCALE, Seed(5), &device);
    let zero = Start { left: vec![0.0; OUT * RANK], ..start(&*dora, "a", Offset::None).unwrap() };
    assert!(matches!(dora.build(&site, Some(zero)), Err(AdaptError::NoDirection { row: 2, .. })));
}

#[test]
fn the_norms_of_dora_are_those_of_the_rows_and_follow_the_factors_and_the_weight() {
    let dora = form("dora", &[]);
    let mut linear = layer();
    let (base, device) = (weight(), cpu());
    let site = Site::alone("a", &base, RANK, SCALE, Seed(5), &device);
    linear.mount("a", dora.build(&site, start(&*dora, "a", Offset::None)).unwrap()).unwrap();
    let norm = |values: &[f32]| values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
    for step in 0..3 {
        // A factor moves, then the weight is replaced.
        if step == 1 {
            train(&linear, "a");
        }
        if step == 2 {
            let other = Matrix::from_f32(draws("another", OUT * IN), [OUT, IN]).unwrap();
            linear.replace_weight(other).unwrap();
        }
        let adapter = &linear.adapters()[0].adapter;
        let held = linear.frozen().unwrap();
        let magnitude = adapter.parts().into_iter().find(|part| part.name == "magnitude").unwrap().values;
        let mut values = held.to_f32();
        values.iter_mut().zip(adapter.delta(held)).for_each(|(value, change)| *value += change);
        for (row, magnitude) in values.chunks_exact(IN).zip(&magnitude) {
            let wanted = f64::from(magnitude.abs());
            assert!((norm(row) - wanted).abs() < 1e-4 * wanted.max(1.0), "{} {wanted}", norm(row));
        }
    }
}

#[test]
fn no_gradient_of_dora_flows_through_the_norm() {
    let dora = form("dora", &[]);
    for offset in [Offset::None, Offset::Shadow] {
        let mut linear = Linear::new(Weight::Frozen(weight()), None);
        let (base, device) = (weight(), cpu());
        let site = Site::alone("a", &base, RANK, SCALE, Seed(5), &device);
        linear.mount("a", dora.build(&site, start(&*dora, "a", offset)).unwrap()).unwrap();
        train(&linear, "a");
        let parts = linear.adapters()[0].adapter.parts();
        let of = |name: &str| find(&parts, name).values.clone();
        let (right, left, magnitude) = (of("right"), of("left"), of("magnitude"));
        let change = linear.adapters()[0].adapter.delta(&base);
        // c = m/norm of each row: W' = c·(W + path), and |W'| = |m|.
        let weights = base.to_f32();
        let shadow = |i: usize, j: usize| -> f64 {
            if offset == Offset::None {
                return 0.0;
            }
            let (left0, right0) = (of("left0"), of("right0"));
            (0..RANK).map(|k| f64::from(left0[i * RANK + k]) * f64::from(right0[k * IN + j])).sum()
        };
        let product = |left: &[f32], right: &[f32], i: usize, j: usize| -> f64 {
            let sum: f64 =
                (0..RANK).map(|k| f64::from(left[i * RANK + k]) * f64::from(right[k * IN + j])).sum();
            SCALE * (sum - shadow(i, j))
        };
        let ratio: Vec<f64> = (0..OUT)
            .map(|i| {
                let square: f64 = (0..IN)
                    .map(|j| (f64::from(weights[i * IN + j]) + product(&left, &right, i, j)).powi(2))
                    .sum();
                f64::from(magnitude[i]) / square.sqrt()
            })
            .collect();
        for (at, change) in change.iter().enumerate() {
            let (i, j) = (at / IN, at % IN);
            let wanted =
                ratio[i] * (f64::from(weights[at]) + product(&left, &right, i, j)) - f64::from(weights[at]);
            assert!((f64::from(*change) - wanted).abs() < 1e-4, "{change} {wanted}");
        }
        // With c held fast the loss is linear in each factor: its slope is a difference of two values, in f64.
        let upstream = draws("upstream", ROWS * OUT);
        let x = to_rows(input());
        let loss = |left: &[f32], right: &[f32]| -> f64 {
            let mut sum = 0.0;
            for i in 0..OUT {
                for j in 0..IN {
                    let seen: f64 =
                        (0..ROWS).map(|n| f64::from(upstream[n * OUT + i]) * f64::from(x[n * IN + j])).sum();
                    sum += seen * ratio[i] * (f64::from(weights[i * IN + j]) + product(left, right, i, j));
                }
            }
            sum
        };
        let y = linear.forward(input().autodiff());
        let mut gradients =
            (y * from_rows(upstream.clone(), [ROWS, OUT], &cpu()).autodiff()).sum().backward();
        for (name, var) in linear.adapters()[0].adapter.trainable() {
            let found = to_rows(var.take_gradient(&mut gradients).unwrap());
            if name == "magnitude" {
                continue;
            }
            for (index, found) in found.into_iter().enumerate() {
                let at = |step: f32| {
                    let (mut l, mut r) = (left.clone(), right.clone());
                    if name == "left" {
                        l[index] += step
                    } else {
                        r[index] += step
                    }
                    loss(&l, &r)
                };
                let slope = (at(0.5) - at(-0.5)) / 1.0;
                assert!(
                    (f64::from(found) - slope).abs() < 1e-3 * slope.abs().max(1.0),
                    "{name}: {found} {slope}"
                );
            }
        }
    }
}

#[test]
fn a_core_between_frozen_factors_keeps_its_rank_with_a_shadow_and_trains_alone() {
    let core = form("core", &[]);
    let (base, device) = (weight(), cpu());
    let site = Site::alone("a", &base, RANK, SCALE, Seed(5), &device);
    let adapter = core.build(&site, start(&*core, "a", Offset::Shadow)).unwrap();
    assert_eq!(adapter.low_rank().unwrap().right.dims(), [RANK, IN]);
    let names: Vec<&str> = adapter.trainable().iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["core"]);
    // The frozen factor is not tracked, which is what makes the fused product keep x rightᵀ and not x.
    assert!(!adapter.low_rank().unwrap().right.is_tracked() && adapter.low_rank().unwrap().left.is_tracked());
    let all = form("core", &[("trains", "all")]).build(&site, start(&*core, "a", Offset::Shadow)).unwrap();
    assert_eq!(all.low_rank().unwrap().right.dims(), [2 * RANK, IN]);
    for (name, choices) in [("lora", &[("trains", "left")][..]), ("diag", &[]), ("vera", &[])] {
        let form = form(name, choices);
        let adapter = form.build(&site, start(&*form, "a", Offset::Shadow)).unwrap();
        let path = adapter.low_rank().unwrap();
        assert!(
            !path.right.is_tracked() && path.left.is_tracked() && path.right.dims() == [RANK, IN],
            "{name}"
        );
    }
    // The two starts are one function, with and without a core.
    let given = start(&*core, "a", Offset::None).unwrap();
    let plain = Start { core: None, ..given.clone() };
    let lora = form("lora", &[]).build(&site, Some(plain.clone())).unwrap().delta(&base);
    close(&core.build(&site, Some(plain)).unwrap().delta(&base), &lora, 1e-6, "identity core");
    let with = core.build(&site, Some(given.clone())).unwrap().delta(&base);
    let (left, middle) =
        (from_rows(given.left, [OUT, RANK], &device), from_rows(given.core.unwrap(), [RANK, RANK], &device));
    let wanted = left.matmul(middle).matmul(from_rows(given.right, [RANK, IN], &device)) * SCALE;
    close(&with, &to_rows(wanted), 1e-5, "core");
}

#[test]
fn the_penalty_of_adalora_is_the_distance_from_orthogonal_factors() {
    let (base, device) = (weight(), cpu());
    let site = Site::alone("a", &base, RANK, SCALE, Seed(5), &device);
    let of = |right: Vec<f32>, left: Vec<f32>| {
        let parts = vec![
            Part::new("right", &[RANK, IN], right),
            Part::new("values", &[RANK, 1], vec![0.5; RANK]),
            Part::new("left", &[OUT, RANK], left),
        ];
        form("adalora", &[]).restore(&site, parts, Offset::None).unwrap()
    };
    let unit = |rows: usize, cols: usize| {
        (0..rows * cols).map(|at| f32::from(u8::from(at / cols == at % cols))).collect()
    };
    let orthogonal = of(unit(RANK, IN), unit(OUT, RANK)).penalty().unwrap();
    assert!(to_rows(orthogonal.clone())[0] < 1e-6);
    let mut none = orthogonal.backward();
    assert!(of(unit(RANK, IN), unit(OUT, RANK)).trainable()[0].1.take_gradient(&mut none).is_none());
    let (right, left) = (draws("right", RANK * IN), draws("left", OUT * RANK));
    let gap = |dot: &dyn Fn(usize, usize) -> f64| -> f64 {
        let square =
            |at: usize| (dot(at / RANK, at % RANK) - f64::from(u8::from(at / RANK == at % RANK))).powi(2);
        (0..RANK * RANK).map(square).sum::<f64>().sqrt()
    };
    let value = |right: &[f32], left: &[f32]| {
        let rows = |p: usize, q: usize| {
            (0..IN).map(|j| f64::from(right[p * IN + j]) * f64::from(right[q * IN + j])).sum()
        };
        let columns = |p: usize, q: usize| {
            (0..OUT).map(|i| f64::from(left[i * RANK + p]) * f64::from(left[i * RANK + q])).sum()
        };
        gap(&rows) + gap(&columns)
    };
    let adapter = of(right.clone(), left.clone());
    let penalty = adapter.penalty().unwrap();
    let wanted = value(&right, &left);
    assert!((f64::from(to_rows(penalty.clone())[0]) / wanted - 1.0).abs() < 1e-5);
    let mut gradients = penalty.backward();
    for (name, var) in adapter.trainable().into_iter().filter(|(name, _)| *name != "values") {
        let found = to_rows(var.take_gradient(&mut gradients).unwrap());
        for (index, found) in found.into_iter().enumerate() {
            let at = |step: f32| {
                let (mut l, mut r) = (left.clone(), right.clone());
                if name == "left" {
                    l[index] += step
                } else {
                    r[index] += step
                }
                value(&r, &l)
            };
            let slope = (at(1e-3) - at(-1e-3)) / 2e-3;
            assert!(
                (f64::from(found) - slope).abs() < 1e-2 * slope.abs().max(1.0),
                "{name}: {found} {slope}"
            );
        }
    }
    // Other forms ask for none.
    assert!(form("full", &[]).build(&site, None).unwrap().penalty().is_none());
}
