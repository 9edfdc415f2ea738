//! Evidence at its edges: a weight of a small rank, one sample, nothing at all, ranks that no weight has. Each is handled and told
//! of, or refused by name.

use faer::Mat;
use lowrank_init::{InitError, by_name};
use lowrank_linalg::{Moments, multiply};
use lowrank_record::{Need, Seed};

use crate::world::{RANK, ROWS, Row, SHAPES, World, method, random};

/// Whether the start's directions are taken from the weight, so that a weight without them is to be told of.
fn stands_on_the_weight(row: &Row) -> bool {
    let needs = method(row).needs();
    let other = ["mica", "milora", "loftq", "lora-ga-control"];
    // MiCA wants directions that the weight hardly has; LoftQ's are those of its rounding; MiLoRA refuses.
    let is_other = |name: &str| other.contains(&name);
    needs.contains(&Need::Weight)
        && !needs.contains(&Need::Gradient)
        && !is_other(row.name)
        && !row.choices.iter().any(|(name, value)| *name == "of" && is_other(value))
}

#[test]
fn a_weight_of_a_smaller_rank_than_the_change_is_told_of() {
    let weight = faer::Scale(0.1_f32) * multiply(random(3, 72, 3).as_ref(), random(4, 3, 40).as_ref());
    let (small, whole) = (World { weight, ..World::new(SHAPES[0]) }, World::new(SHAPES[0]));
    let mut told = 0;
    for row in ROWS.iter().filter(|row| stands_on_the_weight(row)) {
        let method = method(row);
        let warned = |world: &World| {
            let start = method.start(&world.show(&method.needs()), RANK, Seed(5)).unwrap();
            start.report.get("warning").is_some()
        };
        assert!(warned(&small), "{} {:?} says nothing", row.name, row.choices);
        assert!(!warned(&whole), "{} {:?} warns of a weight that has its rank", row.name, row.choices);
        told += 1;
    }
    assert!(told > 20, "{told}");
}

#[test]
fn evidence_from_one_sample_is_told_of_or_refused() {
    let one = multiply(random(8, 72, 1).as_ref(), random(9, 1, 40).as_ref());
    let mut moments = Moments::new(40);
    moments.absorb(random(10, 1, 40).as_ref()).unwrap();
    let world = World { gradient: one, moments, ..World::new(SHAPES[0]) };
    for row in ROWS {
        let (method, at) = (method(row), format!("{} {:?}", row.name, row.choices));
        let needs = method.needs();
        if !needs.contains(&Need::Gradient) && !needs.contains(&Need::Inputs) {
            continue;
        }
        match method.start(&world.show(&needs), RANK, Seed(5)) {
            Ok(start) => {
                assert!(start.delta.is_finite(), "{at}");
                // The damped moment has all directions, and so has the first Adam step of a gradient of rank 1; the bases of a
                // control are random whatever the gradient has.
                let has_all = ["corda", "lora-sb-control"].contains(&row.name)
                    || row.choices.contains(&("target", "adam-first-step"));
                assert!(has_all || start.report.get("warning").is_some(), "{at} says nothing");
            }
            Err(InitError::FewDirections { rank, have, rows, .. }) => {
                assert!(rank == RANK && have <= 1 && rows == 1, "{at}: {have} {rows}");
            }
            Err(error) => assert!(matches!(error, InitError::NoDirection { .. }), "{at}: {error}"),
        }
    }
}

#[test]
fn evidence_of_nothing_is_refused_by_name() {
    let nothing = World { gradient: Mat::zeros(72, 40), moments: Moments::new(40), ..World::new(SHAPES[0]) };
    for row in ROWS {
        let (method, at) = (method(row), format!("{} {:?}", row.name, row.choices));
        let needs = method.needs();
        let start = method.start(&nothing.show(&needs), RANK, Seed(5));
        if needs.contains(&Need::Gradient) {
            assert!(matches!(start, Err(InitError::ZeroGradient { .. })), "{at}");
        } else if needs.contains(&Need::Inputs) {
            let named = matches!(
                start,
                Err(InitError::ZeroInputs { .. } | InitError::FewDirections { have: 0, rows: 0, .. })
            );
            assert!(named, "{at}");
        }
    }
}

#[test]
fn an_odd_rank_is_refused_by_the_start_that_halves_it() {
    let world = World::new(SHAPES[0]);
    for (name, choices) in [("orthogonal", vec![]), ("random-control", vec![("of", "orthogonal")])] {
        let method = by_name(name, choices).unwrap();
        for rank in [1, 5, 7] {
            let refused = method.start(&world.show(&[]), rank, Seed(5)).unwrap_err();
            assert_eq!(refused, InitError::OddRank { method: "orthogonal", rank });
            assert_eq!(method.admits(world.site, rank), Err(refused));
        }
    }
}

#[test]
fn a_rank_above_the_shorter_side_is_refused_by_all() {
    for row in ROWS {
        for (shape, rank) in [((5, 9), 6), ((9, 5), 6), ((40, 72), 41)] {
            let world = World::new(shape);
            let refused = method(row).admits(world.site, rank).unwrap_err();
            let named = matches!(refused, InitError::Rank { rank: told, .. } if told == rank);
            assert!(named, "{} at {shape:?}: {refused}", row.name);
        }
    }
}

#[test]
fn svfit_chooses_the_fewest_values_that_hold_the_share() {
    for shape in SHAPES {
        let world = World::new(shape);
        let values = lowrank_linalg::svd_in_f64(world.weight.as_ref()).unwrap().values;
        let squares: Vec<f64> = values.iter().map(|value| value * value).collect();
        let all: f64 = squares.iter().sum();
        let mut before = 0;
        for share in [1e-9, 0.3, 0.9, 0.99, 1.0] {
            let method = by_name("svfit", [("rank", "energy"), ("share", &share.to_string())]).unwrap();
            let rank = method.chosen_rank(&world.show(&[Need::Weight]), 3).unwrap();
            let held = |rank: usize| squares[..rank].iter().sum::<f64>() / all;
            assert!(method.chooses_rank() && rank >= before.max(1), "{share}: {rank} after {before}");
            assert!(held(rank) >= share - 1e-12 && (rank == 1 || held(rank - 1) < share), "{share}: {rank}");
            before = rank;
        }
        assert_eq!(before, shape.0.min(shape.1));
        let full = by_name("svfit", [("rank", "full")]).unwrap();
        assert_eq!(full.chosen_rank(&world.show(&[]), 3), Ok(shape.0.min(shape.1)));
        let fixed = by_name("svfit", [("svd", "exact")]).unwrap();
        assert!(!fixed.chooses_rank() && fixed.chosen_rank(&world.show(&[]), 3) == Ok(3));
    }
    let zero = World { weight: Mat::zeros(72, 40), ..World::new(SHAPES[0]) };
    let energy = by_name("svfit", [("rank", "energy")]).unwrap();
    let refused = energy.chosen_rank(&zero.show(&[Need::Weight]), 3).unwrap_err();
    assert_eq!(refused, InitError::ZeroWeight { method: "svfit" });
    let refused = energy.chosen_rank(&zero.show(&[]), 3).unwrap_err();
    assert_eq!(refused, InitError::Missing { method: "svfit", need: Need::Weight });
    assert!(matches!(by_name("svfit", [("share", "1.5")]), Err(InitError::BadValue { option: "share", .. })));
}
