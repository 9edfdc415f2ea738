//! Laws of every initialiser: base + start = W where promised; it succeeds with exactly what it needs and fails by name
//! without; the same seed gives the same bits on one thread and on two; the card tells the truth about its choices.

#![allow(clippy::unwrap_used, clippy::panic, reason = "clippy sees only the #[test] functions here as tests")]

use std::collections::BTreeSet;

use faer::Mat;
use lowrank_init::{ALL, Base, Evidence, Gradient, InitError, Initialiser, Site, Start, by_name};
use lowrank_linalg::{energy, multiply};
use lowrank_record::{Need, Promise, Seed, scale};

/// A method with its choices, and how closely base + start gives W back (relative, Frobenius).
struct Row {
    name: &'static str,
    choices: &'static [(&'static str, &'static str)],
    tolerance: f64,
}

const fn row(name: &'static str, choices: &'static [(&'static str, &'static str)], tolerance: f64) -> Row {
    Row { name, choices, tolerance }
}

/// What a start costs: one rounding of the difference, another of the sum.
const ROUNDING: f64 = 3e-7;

const ROWS: &[Row] = &[
    row("kaiming", &[], 0.0),
    row("gaussian", &[], 0.0),
    row("gaussian", &[("deviation", "width")], 0.0),
    row("orthogonal", &[], 1e-6),
    row("orthogonal", &[("width", "fan")], 1e-6),
    row("pissa", &[], ROUNDING),
    row("pissa", &[("svd", "exact")], ROUNDING),
    row("pissa", &[("svd", "fast"), ("power", "1")], ROUNDING),
    // The start is larger than the weight here, and the sum cancels: the error is relative to the start.
    row("lora-ga", &[], 1e-6),
    row("lora-ga", &[("direction", "a2rbr"), ("svd", "exact")], 1e-6),
    row("lora-ga", &[("direction", "random"), ("scale", "gd")], 1e-6),
    row("lora-ga", &[("direction", "ArBr"), ("scale", "unit")], 1e-6),
    row("lora-ga", &[("scale", "weight-svd")], ROUNDING),
    row("lora-ga", &[("norm-clip", "true")], ROUNDING),
    row("lora-ga", &[("variant", "peft-compat")], 1e-5),
    row("lora-ga", &[("variant", "peft-compat"), ("scale", "weight_svd"), ("direction", "random")], 1e-6),
    row("lora-ga-control", &[], 1e-6),
    row("lora-ga-control", &[("scale", "weight-svd")], ROUNDING),
];

const RANK: usize = 6;
const SHAPES: [(usize, usize); 3] = [(72, 40), (40, 72), (300, 260)];

fn random(seed: u64, m: usize, n: usize) -> Mat<f32> {
    let draws = Seed(seed).normal(m * n);
    Mat::from_fn(m, n, |i, j| draws[i * n + j])
}

fn site((out, inp): (usize, usize)) -> Site {
    Site { out, inp, scale: scale(16.0, RANK, true) }
}

struct World {
    site: Site,
    weight: Mat<f32>,
    gradient: Mat<f32>,
}

impl World {
    fn new(shape: (usize, usize)) -> World {
        let spread = 1.0 / (shape.1 as f32).sqrt();
        World {
            site: site(shape),
            weight: faer::Scale(spread) * random(1, shape.0, shape.1),
            gradient: random(2, shape.0, shape.1),
        }
    }

    fn show(&self, needs: &[Need]) -> Evidence<'_> {
        let mut seen = Evidence::of(self.site);
        for need in needs {
            seen = match need {
                Need::Weight => seen.with_weight(self.weight.as_ref()),
                Need::Gradient => seen.with_gradient(Gradient::Exact(self.gradient.as_ref())),
                other => panic!("no evidence of {other} in this test yet"),
            };
        }
        seen
    }
}

fn method(row: &Row) -> Box<dyn Initialiser> {
    by_name(row.name, row.choices.iter().copied()).unwrap()
}

/// base + scale·left·right, formed by hand.
fn sum(start: &Start, world: &World) -> Mat<f32> {
    let change = multiply(start.delta.left.as_ref(), start.delta.right.as_ref());
    start.base_weight(world.weight.as_ref(), world.site.scale) + faer::Scale(world.site.scale as f32) * change
}

#[test]
fn every_method_has_a_row() {
    let rows: BTreeSet<&str> = ROWS.iter().map(|row| row.name).collect();
    let all: BTreeSet<&str> = ALL.iter().map(|method| method.card().name).collect();
    assert_eq!(rows, all);
    assert_eq!(all.len(), ALL.len(), "a name is taken twice");
}

#[test]
fn base_and_start_give_the_weight_that_was_promised() {
    for row in ROWS {
        let method = method(row);
        for shape in SHAPES {
            let world = World::new(shape);
            let start = method.start(&world.show(&method.needs()), RANK, Seed(5)).unwrap();
            let at = format!("{} {:?} at {shape:?}", row.name, row.choices);
            assert_eq!((start.delta.shape(), start.delta.rank()), (shape, RANK), "{at}");
            assert!(start.delta.is_finite(), "{at}");
            let size = start.delta.norm().unwrap() * world.site.scale;
            let weight = energy(world.weight.as_ref()).sqrt();
            let error = energy((sum(&start, &world) - &world.weight).as_ref()).sqrt();
            let allowed = row.tolerance * weight.max(size);
            assert!(error <= allowed, "{at}: {error:e} off, {allowed:e} allowed");
            match method.card().promise {
                Promise::Zero => {
                    assert_eq!(energy(start.delta.left.as_ref()), 0.0, "{at}");
                    assert_eq!(start.base, Base::Keep, "{at}");
                    assert!(
                        energy(start.delta.right.as_ref()) > 0.0,
                        "{at}: both factors are zero, nothing learns"
                    );
                }
                Promise::Exact => {
                    assert_eq!(start.base, Base::Subtract, "{at}");
                    assert!(size > 1e-3 * weight, "{at}: the start is no start: {size:e}");
                }
                Promise::Within(bound) => assert!(error <= bound * weight, "{at}: {error:e}"),
                Promise::None => {}
            }
        }
    }
}

#[test]
fn it_takes_exactly_what_it_needs() {
    let world = World::new(SHAPES[0]);
    for row in ROWS {
        let method = method(row);
        let needs = method.needs();
        assert!(method.start(&world.show(&needs), RANK, Seed(5)).is_ok(), "{}", row.name);
        for &need in &needs {
            let rest: Vec<Need> = needs.iter().copied().filter(|&other| other != need).collect();
            let refused = method.start(&world.show(&rest), RANK, Seed(5)).unwrap_err();
            assert_eq!(refused, InitError::Missing { method: method.card().name, need }, "{:?}", row.choices);
        }
        // The card's needs are those of the defaults.
        if row.choices.is_empty() {
            assert_eq!(needs, method.card().needs, "{}", row.name);
        }
        // What it does not need changes nothing.
        let all = world.show(&[Need::Weight, Need::Gradient]);
        let (least, most) =
            (method.start(&world.show(&needs), RANK, Seed(5)), method.start(&all, RANK, Seed(5)));
        assert!(least.unwrap().delta == most.unwrap().delta, "{} {:?}", row.name, row.choices);
    }
}

#[test]
fn the_same_seed_gives_the_same_bits_on_any_number_of_threads() {
    for row in ROWS {
        let method = method(row);
        let world = World::new(SHAPES[2]);
        let work = |seed| method.start(&world.show(&method.needs()), RANK, seed).unwrap().delta;
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| work(Seed(5)))
        };
        assert!(on(1) == on(2), "{} {:?} depends on the threads", row.name, row.choices);
        // A method that draws nothing may ignore the seed; one that promises zero draws.
        if method.card().promise == Promise::Zero {
            assert!(work(Seed(5)) != work(Seed(6)), "{} ignores its seed", row.name);
        }
    }
}

#[test]
fn ranks_scales_and_shapes_are_checked_by_every_method() {
    let world = World::new(SHAPES[0]);
    for row in ROWS {
        let method = method(row);
        let name = method.card().name;
        let seen = world.show(&method.needs());
        for rank in [0, 41] {
            let refused = method.start(&seen, rank, Seed(5)).unwrap_err();
            assert_eq!(refused, InitError::Rank { method: name, rank, out: 72, inp: 40 });
        }
        for scale in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let bad = World { site: Site { scale, ..world.site }, ..World::new(SHAPES[0]) };
            let refused = method.start(&bad.show(&method.needs()), RANK, Seed(5)).unwrap_err();
            assert!(matches!(refused, InitError::Scale { .. }), "{name}: {refused}");
        }
        if !method.needs().is_empty() {
            let other = World { site: site((40, 40)), ..World::new(SHAPES[0]) };
            let refused = method.start(&other.show(&method.needs()), RANK, Seed(5)).unwrap_err();
            assert!(
                matches!(refused, InitError::Shape { rows: 72, cols: 40, out: 40, inp: 40, .. }),
                "{refused}"
            );
            let mut broken = World::new(SHAPES[0]);
            broken.weight[(3, 4)] = f32::NAN;
            broken.gradient[(3, 4)] = f32::INFINITY;
            let refused = method.start(&broken.show(&method.needs()), RANK, Seed(5)).unwrap_err();
            assert!(matches!(refused, InitError::Linalg { .. }), "{name}: {refused}");
        }
    }
    let message = ALL[0].start(&world.show(&[]), 41, Seed(5)).unwrap_err().to_string();
    assert_eq!(
        message,
        "kaiming: rank 41 for a weight [72, 40]; give a rank from 1 to 40, or exclude this site"
    );
}

#[test]
fn cards_tell_the_truth_about_choices() {
    for method in ALL {
        let card = method.card();
        let stated: Vec<(&str, String)> =
            card.choices.iter().map(|choice| (choice.name, choice.default.to_owned())).collect();
        assert_eq!(method.settings(), stated, "{}", card.name);
        let nothing: [(&str, &str); 0] = [];
        assert_eq!(by_name(card.name, nothing).unwrap().settings(), stated, "{}", card.name);
        for alias in method.aliases() {
            assert_eq!(by_name(alias, nothing).unwrap().card().name, card.name);
        }
        for choice in card.choices {
            let refused = by_name(card.name, [(choice.name, "nonsense")]).err().unwrap();
            assert!(matches!(refused, InitError::BadValue { .. }), "{refused}");
            for value in choice.values.split(" | ").filter(|value| !value.contains(' ')) {
                let chosen = by_name(card.name, [(choice.name, value)]).unwrap();
                assert!(
                    chosen.settings().contains(&(choice.name, value.to_owned())),
                    "{} {value}",
                    choice.name
                );
                assert_eq!(by_name(card.name, chosen.settings()).unwrap().settings(), chosen.settings());
            }
        }
    }
}

#[test]
fn unknown_names_are_answered_with_the_nearest() {
    let refused = |name: &str, options: &[(&str, &str)]| {
        by_name(name, options.iter().copied()).err().unwrap().to_string()
    };
    assert_eq!(refused("pisa", &[]), "no initialiser is called pisa; did you mean pissa?");
    assert_eq!(
        refused("nonsense", &[]),
        "no initialiser is called nonsense; it knows lora, default, zero, kaiming, gaussian, orthogonal, pissa, lora-ga, \
         lora-ga-control"
    );
    assert_eq!(refused("lora_ga", &[("gama", "3")]), "lora-ga has no option gama; did you mean gamma?");
    assert_eq!(refused("kaiming", &[("gain", "3")]), "kaiming has no option gain; it takes none");
    assert_eq!(
        refused("lora-ga", &[("gamma", "-3")]),
        "lora-ga: gamma = -3 is not allowed; it takes a positive number"
    );
    assert_eq!(
        refused("lora-ga", &[("gamma", "3"), ("Gamma", "4")]),
        "lora-ga: option gamma is given twice; keep one"
    );
    assert_eq!(
        refused("pissa", &[("svd", "quick")]),
        "pissa: svd = quick is not allowed; it takes auto | exact | fast"
    );
}
