//! Laws of every initialiser: base + start = W where promised; it succeeds with exactly what it needs and fails by name
//! without; the same seed gives the same bits on one thread and on two; the card tells the truth about its choices.

#![allow(clippy::unwrap_used, clippy::panic, reason = "clippy sees only the #[test] functions here as tests")]

mod edges;
mod world;

use std::collections::BTreeSet;

use faer::Mat;
use lowrank_init::{ALL, Base, InitError, Site, by_name};
use lowrank_linalg::{energy, multiply};
use lowrank_record::{Need, Promise, Seed};

use world::{RANK, ROWS, Row, SHAPES, World, change, method, random, site, sum};

#[test]
fn every_method_has_a_row() {
    let rows: BTreeSet<&str> = ROWS.iter().map(|row| row.name).collect();
    let all: BTreeSet<&str> = ALL.iter().map(|method| method.card().name).collect();
    assert_eq!(rows, all);
    assert_eq!(all.len(), ALL.len(), "a name is taken twice");
}

/// Base and start give the weight as it was promised.
fn keeps_its_promise(row: &Row, world: &World, rank: usize) {
    let (method, shape) = (method(row), (world.site.out, world.site.inp));
    let start = method.start(&world.show(&method.needs()), rank, Seed(5)).unwrap();
    let at = format!("{} {:?} at {shape:?}, rank {rank}", row.name, row.choices);
    assert_eq!((start.delta.shape(), start.delta.rank()), (shape, rank), "{at}");
    assert!(start.delta.is_finite(), "{at}");
    assert_eq!(matches!(start.base, Base::Replace(_)), method.replaces_base(), "{at}");
    let core = start.core.as_ref().map_or(1.0, |core| energy(core.as_ref()).sqrt());
    assert!(core.is_finite(), "{at}");
    let size = energy(change(&start).as_ref()).sqrt() * world.site.scale;
    let weight = energy(world.weight.as_ref()).sqrt();
    let error = energy((sum(&start, world) - &world.weight).as_ref()).sqrt();
    let (left, right) = (energy(start.delta.left.as_ref()).sqrt(), energy(start.delta.right.as_ref()).sqrt());
    // What a promise is relative to.
    let factors =
        if matches!(method.promise(), Promise::Within(_)) { world.site.scale * left * right } else { 0.0 };
    let allowed = row.tolerance * weight.max(size).max(factors);
    assert!(error <= allowed, "{at}: {error:e} off, {allowed:e} allowed");
    // The gradient of each of two is the other one, and of each of three a product of the two others.
    let zeros = [left, core, right].iter().filter(|&&norm| norm == 0.0).count();
    assert!(zeros < 2, "{at}: {left} {core} {right}: nothing learns");
    match method.promise() {
        Promise::Zero => {
            assert_eq!(zeros, 1, "{at}");
            assert_eq!(start.base, Base::Keep, "{at}");
        }
        Promise::Exact => {
            assert_eq!(start.base, Base::Subtract, "{at}");
            assert!(size > 1e-3 * weight, "{at}: the start is no start: {size:e}");
        }
        Promise::Within(bound) => {
            assert!(error <= bound * weight.max(factors), "{at}: {error:e}");
        }
        Promise::None => {
            assert_eq!(start.base, Base::Keep, "{at}");
            assert!(size > 0.0, "{at}: nothing changes, which it could promise");
        }
    }
}

#[test]
fn base_and_start_give_the_weight_that_was_promised() {
    for row in ROWS {
        for shape in SHAPES {
            keeps_its_promise(row, &World::new(shape), RANK);
        }
    }
}

#[test]
fn a_few_triplets_of_the_gradient_are_evidence_enough() {
    for row in ROWS {
        let wanted = method(row).leading(RANK);
        let world = World { triplets: Some(wanted.count), of: wanted.of, ..World::new(SHAPES[0]) };
        keeps_its_promise(row, &world, RANK);
    }
}

#[test]
fn a_weight_of_a_smaller_rank_than_the_change_is_given_back_too() {
    let (left, right) = (random(3, 72, 3), random(4, 3, 40));
    let weight = faer::Scale(0.1_f32) * multiply(left.as_ref(), right.as_ref());
    for row in ROWS {
        let world = World { weight: weight.clone(), ..World::new(SHAPES[0]) };
        // All of its minor components are rounding.
        if row.name == "milora" {
            let refused = method(row).start(&world.show(&[Need::Weight]), RANK, Seed(5)).unwrap_err();
            assert_eq!(refused, InitError::NoMinor { method: "milora", rank: RANK });
            continue;
        }
        keeps_its_promise(row, &world, RANK);
    }
}

#[test]
fn the_smallest_and_the_largest_ranks_start_or_are_refused_beforehand() {
    let mut refused = BTreeSet::new();
    // One by one, all of the shorter side, rank 1, and twice the rank all of the shorter side.
    for (shape, rank) in [((1, 1), 1), ((5, 4), 4), ((4, 5), 4), ((1, 9), 1), ((9, 7), 1), ((8, 12), 4)] {
        for row in ROWS {
            let (method, world) = (method(row), World::new(shape));
            // One value is the largest of its block, which is held exactly.
            if (row.name, shape) == ("loftq", (1, 1)) {
                let refused = method.start(&world.show(&[Need::Weight]), rank, Seed(5)).unwrap_err();
                assert_eq!(refused, InitError::NothingLost { method: "loftq", format: "nf4" });
                continue;
            }
            match method.admits(world.site, rank) {
                Ok(()) => keeps_its_promise(row, &world, rank),
                Err(error) => {
                    let refusal = method.start(&world.show(&method.needs()), rank, Seed(5)).unwrap_err();
                    assert_eq!(refusal, error, "{}", row.name);
                    refused.insert((row.name, shape, rank));
                }
            }
        }
    }
    let wanted = [
        ("lora-ga", (1, 1), 1),
        ("lora-ga", (1, 9), 1),
        ("lora-ga", (4, 5), 4),
        ("lora-ga", (5, 4), 4),
        ("orthogonal", (1, 1), 1),
        ("orthogonal", (1, 9), 1),
        ("orthogonal", (9, 7), 1),
        // Of lora-ga and of orthogonal.
        ("random-control", (1, 1), 1),
        ("random-control", (1, 9), 1),
        ("random-control", (4, 5), 4),
        ("random-control", (5, 4), 4),
        ("random-control", (9, 7), 1),
    ];
    assert_eq!(refused.into_iter().collect::<Vec<_>>(), wanted);
}

#[test]
fn a_start_is_finite_and_can_learn_or_is_refused_by_name() {
    for row in ROWS {
        let method = method(row);
        for scale in [1e-37, 1e37] {
            let world = World { site: Site { scale, ..site(SHAPES[0]) }, ..World::new(SHAPES[0]) };
            let name = method.card().name;
            match method.start(&world.show(&method.needs()), RANK, Seed(5)) {
                Ok(start) => {
                    let energies = [energy(start.delta.left.as_ref()), energy(start.delta.right.as_ref())];
                    assert!(energies.iter().all(|energy| energy.is_finite()), "{name} at {scale:e}");
                    assert!(energies.iter().any(|energy| *energy > 0.0), "{name} at {scale:e}");
                }
                Err(InitError::Overflow { method } | InitError::Vanishes { method }) => {
                    assert_eq!(method, name)
                }
                Err(other) => panic!("{name} at {scale:e}: {other}"),
            }
        }
    }
    let world = World::new(SHAPES[0]);
    let start = |name: &str, choices: &[(&str, &str)]| {
        by_name(name, choices.iter().copied()).unwrap().start(
            &world.show(&[Need::Weight, Need::Gradient]),
            RANK,
            Seed(5),
        )
    };
    for (name, small, large) in [
        ("lora-ga", ("gamma", "1e100"), ("gamma", "1e-100")),
        ("lora-ga-control", ("gamma", "1e100"), ("gamma", "1e-100")),
        ("orthogonal", ("width", "1e-60"), ("width", "1e60")),
    ] {
        assert!(matches!(start(name, &[small]), Err(InitError::Vanishes { .. })), "{name} {small:?}");
        assert!(matches!(start(name, &[large]), Err(InitError::Overflow { .. })), "{name} {large:?}");
    }
    // Clipping bounds whatever the rule gave, also what does not fit into f32.
    let (clipped, usual) = (
        start("lora-ga", &[("norm-clip", "true"), ("gamma", "1e-100")]).unwrap().delta,
        start("lora-ga", &[("norm-clip", "true")]).unwrap().delta,
    );
    assert!((clipped.norm().unwrap() / usual.norm().unwrap() - 1.0).abs() < 1e-5);
}

#[test]
fn a_weight_of_zeros_gives_a_start_that_learns_or_is_refused_by_name() {
    for row in ROWS {
        let method = method(row);
        let world = World { weight: Mat::zeros(72, 40), ..World::new(SHAPES[0]) };
        match method.start(&world.show(&method.needs()), RANK, Seed(5)) {
            Ok(_) => assert!(!method.needs().contains(&Need::Weight), "{}: what is it made of?", row.name),
            Err(error) => assert!(matches!(error, InitError::ZeroWeight { .. }), "{}: {error}", row.name),
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
        // The card's needs and promise are those of the defaults.
        if row.choices.is_empty() {
            assert_eq!(needs, method.card().needs, "{}", row.name);
            assert_eq!(method.promise(), method.card().promise, "{}", row.name);
        }
        // What it does not need changes nothing.
        let all = world.show(&[Need::Weight, Need::Gradient, Need::Inputs]);
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
        let work = |seed| {
            let start = method.start(&world.show(&method.needs()), RANK, seed).unwrap();
            (start.delta, start.core)
        };
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| work(Seed(5)))
        };
        assert!(on(1) == on(2), "{} {:?} depends on the threads", row.name, row.choices);
        // A method that draws nothing may ignore the seed; one that promises zero and looks at nothing draws.
        if method.promise() == Promise::Zero && method.needs().is_empty() {
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
            let other = World { site: site((40, 41)), ..World::new(SHAPES[0]) };
            let refused = method.start(&other.show(&method.needs()), RANK, Seed(5)).unwrap_err();
            let elsewhere = matches!(
                refused,
                InitError::Shape { rows: 72, cols: 40, out: 40, inp: 41, .. }
                    | InitError::Width { width: 40, out: 40, inp: 41, .. }
            );
            assert!(elsewhere, "{refused}");
        }
        // Inputs that are not numbers do not come as far as this.
        if method.needs().iter().any(|need| [Need::Weight, Need::Gradient].contains(need)) {
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
         lora-ga-control, olora, milora, mica, loraxs, lora-xs, structured-lora, s-lora, slora, nystrom, n-lora, nlora, \
         loldu, sv-fit, svfit, loftq, qpissa, random-control, eva, eva-control, corda, lora-sb, lora-sb-control"
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
