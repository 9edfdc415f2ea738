//! Facts of LoRA-SB: the best approximation of the first step; the chain rule of the core; the optimal step in fixed bases; what
//! the sign gives away.

#![allow(clippy::unwrap_used, clippy::panic, reason = "clippy sees only the #[test] functions here as tests")]

use faer::Mat;
use lowrank_init::{Base, Evidence, Gradient, GradientMap, InitError, Site, Start, by_name};
use lowrank_linalg::{energy, multiply, narrow, orthonormal_basis, svd_in_f64, widen};
use lowrank_record::{Promise, Seed, Value};

const OUT: usize = 96;
const INP: usize = 64;
const RANK: usize = 6;
const RATE: f64 = 3e-3;

fn random(seed: u64, m: usize, n: usize) -> Mat<f32> {
    let draws = Seed(seed).normal(m * n);
    Mat::from_fn(m, n, |i, j| draws[i * n + j])
}

fn basis(seed: u64, d: usize, k: usize) -> Mat<f64> {
    orthonormal_basis(widen(random(seed, d, k).as_ref()).as_ref()).unwrap()
}

/// A gradient with singular values `1/i`.
fn gradient() -> Mat<f32> {
    let scaled = Mat::from_fn(OUT, INP, {
        let u = basis(1, OUT, INP);
        move |i, j| u[(i, j)] / (j + 1) as f64
    });
    narrow(multiply(scaled.as_ref(), basis(2, INP, INP).transpose()).as_ref())
}

fn start_of(
    name: &str,
    gradient: Gradient<'_>,
    scale: f64,
    choices: &[(&str, &str)],
) -> Result<Start, InitError> {
    let seen = Evidence::of(Site { out: OUT, inp: INP, scale }).with_gradient(gradient).with_rate(RATE);
    by_name(name, choices.iter().copied())?.start(&seen, RANK, Seed(3))
}

fn start(gradient: &Mat<f32>, scale: f64, choices: &[(&str, &str)]) -> Start {
    start_of("lora-sb", Gradient::Exact(gradient.as_ref()), scale, choices).unwrap()
}

/// The three factors in f64.
fn factors(start: &Start) -> (Mat<f64>, Mat<f64>, Mat<f64>) {
    let core = start.core.as_ref().unwrap();
    (widen(start.delta.left.as_ref()), widen(core.as_ref()), widen(start.delta.right.as_ref()))
}

/// `left·core·right`.
fn product(left: &Mat<f64>, core: &Mat<f64>, right: &Mat<f64>) -> Mat<f64> {
    multiply(multiply(left.as_ref(), core.as_ref()).as_ref(), right.as_ref())
}

fn change(start: &Start, scale: f64) -> Mat<f64> {
    let (left, core, right) = factors(start);
    faer::Scale(scale) * product(&left, &core, &right)
}

fn norm(a: &Mat<f64>) -> f64 {
    energy(a.as_ref()).sqrt()
}

const TARGETS: [(&str, GradientMap); 3] = [
    ("sign-update", GradientMap::Sign),
    ("gradient", GradientMap::Itself),
    ("adam-first-step", GradientMap::AdamFirstStep { epsilon: 0.01 }),
];

#[test]
fn the_start_is_the_best_approximation_of_the_first_step_at_every_scale() {
    let g = gradient();
    for (target, map) in TARGETS {
        let step = faer::Scale(-RATE) * widen(map.apply(g.as_ref()).as_ref());
        let best = svd_in_f64(step.as_ref()).unwrap().head(RANK);
        for scale in [0.1, 1.0, 10.0] {
            let start = start(&g, scale, &[("target", target), ("epsilon", "0.01")]);
            let off = norm(&(change(&start, scale) - best.reconstruct()));
            assert!(off < 1e-5 * norm(&step), "{target} at {scale}: {off:e}");
            assert_eq!(start.base, Base::Keep);
            let (left, core, right) = factors(&start);
            for gram in
                [multiply(left.transpose(), left.as_ref()), multiply(right.as_ref(), right.transpose())]
            {
                assert!(norm(&(gram - Mat::<f64>::identity(RANK, RANK))) < 1e-5, "{target}: not orthonormal");
            }
            let diagonal: Vec<f64> = (0..RANK).map(|i| core[(i, i)]).collect();
            assert!(diagonal.is_sorted_by(|a, b| a >= b) && diagonal[RANK - 1] > 0.0, "{diagonal:?}");
            let inside: f64 = diagonal.iter().map(|x| x * x).sum();
            assert!((energy(core.as_ref()) - inside).abs() < 1e-12 * inside, "not diagonal");
            for row in start.delta.right.row_iter() {
                let most = row.iter().fold(0.0_f32, |most, &x| if x.abs() > most.abs() { x } else { most });
                assert!(most > 0.0, "{target}: the sign is not fixed");
            }
            // Downhill.
            let slope: f64 = change(&start, scale)
                .col_iter()
                .zip(widen(g.as_ref()).col_iter())
                .map(|(a, b)| a.iter().zip(b.iter()).map(|(x, y)| x * y).sum::<f64>())
                .sum();
            assert!(slope < 0.0, "{target}: uphill");
        }
    }
}

#[test]
fn a_core_of_zero_leaves_the_function_and_keeps_the_bases() {
    let g = gradient();
    let (update, zero) = (start(&g, 2.0, &[]), start(&g, 2.0, &[("core", "zero")]));
    assert!(update.delta == zero.delta);
    assert_eq!(energy(zero.core.unwrap().as_ref()), 0.0);
    let promise = |core: &str| by_name("lora-sb", [("core", core)]).unwrap().promise();
    assert_eq!((promise("update"), promise("zero")), (Promise::None, Promise::Zero));
}

/// `½·‖W − T‖²`, whose gradient is `W − T`.
fn loss(weight: &Mat<f64>, target: &Mat<f64>) -> f64 {
    0.5 * energy((weight - target).as_ref())
}

/// A weight and a target such that the gradient at the weight is this one.
fn problem(gradient: &Mat<f32>) -> (Mat<f64>, Mat<f64>) {
    let weight = widen(random(4, OUT, INP).as_ref());
    let target = &weight - widen(gradient.as_ref());
    (weight, target)
}

#[test]
fn the_gradient_of_the_core_is_the_gradient_in_the_bases() {
    let (g, scale) = (gradient(), 1.7);
    let (weight, target) = problem(&g);
    let (left, core, right) = factors(&start(&g, scale, &[("target", "gradient")]));
    let at = |core: &Mat<f64>| &weight + faer::Scale(scale) * product(&left, core, &right);
    let g = at(&core) - &target;
    let by_rule =
        faer::Scale(scale) * multiply(multiply(left.transpose(), g.as_ref()).as_ref(), right.transpose());
    let h = 1e-4;
    for (i, j) in [(0, 0), (1, 4), (5, 2), (3, 3)] {
        let beside = |by: f64| {
            let mut core = core.clone();
            core[(i, j)] += by;
            loss(&at(&core), &target)
        };
        let slope = (beside(h) - beside(-h)) / (2.0 * h);
        let wanted = by_rule[(i, j)];
        assert!((slope - wanted).abs() < 1e-5 * norm(&by_rule), "({i}, {j}): {slope} {wanted}");
    }
}

#[test]
fn in_any_bases_the_optimal_step_is_the_projection_and_no_other_is_nearer() {
    let g = widen(gradient().as_ref());
    let scale = 1.7;
    let (left, right) = (widen(random(8, OUT, RANK).as_ref()), widen(random(9, RANK, INP).as_ref()));
    // The inverse of a small Gram matrix, by its decomposition.
    let inverse = |gram: Mat<f64>| {
        let svd = svd_in_f64(gram.as_ref()).unwrap();
        let scaled = Mat::from_fn(RANK, RANK, |i, j| svd.right[(j, i)] / svd.values[j]);
        multiply(scaled.as_ref(), svd.left.transpose())
    };
    let of_left = inverse(multiply(left.transpose(), left.as_ref()));
    let of_right = inverse(multiply(right.as_ref(), right.transpose()));
    let inside = multiply(multiply(left.transpose(), g.as_ref()).as_ref(), right.transpose());
    let plain = faer::Scale(scale) * &inside;
    let optimal = faer::Scale(1.0 / (scale * scale)) * product(&of_left, &plain, &of_right);
    let projected = {
        let on_left = multiply(left.as_ref(), of_left.as_ref());
        let on_right = multiply(of_right.as_ref(), right.as_ref());
        product(&on_left, &inside, &on_right)
    };
    let moved = |core: &Mat<f64>| faer::Scale(scale) * product(&left, core, &right);
    assert!(norm(&(moved(&optimal) - &projected)) < 1e-12 * norm(&g));
    let nearest = norm(&(moved(&optimal) - &g));
    for seed in 0..20 {
        let other = &optimal + faer::Scale(0.01) * widen(random(20 + seed, RANK, RANK).as_ref());
        assert!(norm(&(moved(&other) - &g)) > nearest, "another step is nearer");
    }
    // In the bases of a start, the plain gradient is the optimal one, scale² times.
    let (left, _, right) = factors(&start(&gradient(), scale, &[]));
    let inside = multiply(multiply(left.transpose(), g.as_ref()).as_ref(), right.transpose());
    let plain = faer::Scale(scale) * &inside;
    let moved = faer::Scale(1.0 / (scale * scale)) * (faer::Scale(scale) * product(&left, &plain, &right));
    assert!(norm(&(moved - product(&left, &inside, &right))) < 1e-12 * norm(&g));
}

#[test]
fn with_the_optimal_gradient_the_scale_does_not_matter_and_the_loss_falls() {
    let g = gradient();
    let (weight, target) = problem(&g);
    // Ten steps of gradient descent on the core; `plain` leaves out the division by scale².
    let trained = |scale: f64, rate: f64, plain: bool| {
        let (left, mut core, right) = factors(&start(&g, scale, &[("target", "gradient")]));
        let mut losses = Vec::new();
        for _ in 0..10 {
            let at = &weight + faer::Scale(scale) * product(&left, &core, &right);
            losses.push(loss(&at, &target));
            let inside =
                multiply(multiply(left.transpose(), (&at - &target).as_ref()).as_ref(), right.transpose());
            let by = if plain { scale } else { 1.0 / scale };
            core -= faer::Scale(rate * by) * inside;
        }
        losses
    };
    let one = trained(1.0, 0.1, false);
    assert!(one.is_sorted_by(|a, b| a > b), "{one:?}");
    for scale in [0.1, 10.0] {
        for (a, b) in one.iter().zip(trained(scale, 0.1, false)) {
            assert!((a / b - 1.0).abs() < 1e-6, "{a} {b}");
        }
    }
    assert!((trained(0.1, 0.1, true)[9] / one[9] - 1.0).abs() > 1e-2, "the plain gradient is not so");
    // The first fall is the rate times the squared projection.
    let start = start(&g, 1.0, &[("target", "gradient"), ("core", "zero")]);
    let (left, core, right) = factors(&start);
    let projection =
        multiply(multiply(left.transpose(), widen(g.as_ref()).as_ref()).as_ref(), right.transpose());
    let fall = |rate: f64| {
        let stepped = &core - faer::Scale(rate) * &projection;
        let at = &weight + product(&left, &stepped, &right);
        (loss(&weight, &target) - loss(&at, &target)) / (rate * energy(projection.as_ref()))
    };
    assert!(
        (fall(1e-2) - 1.0).abs() < 1e-2 && (fall(1e-4) - 1.0).abs() < 1e-4,
        "{} {}",
        fall(1e-2),
        fall(1e-4)
    );
}

/// `‖leftᵀ·G·rightᵀ‖/‖G‖`.
fn captured(start: &Start, g: &Mat<f32>) -> f64 {
    let (left, _, right) = factors(start);
    let g = widen(g.as_ref());
    let inside = multiply(multiply(left.transpose(), g.as_ref()).as_ref(), right.transpose());
    norm(&inside) / norm(&g)
}

#[test]
fn the_sign_gives_most_of_the_gradient_away() {
    let g = gradient();
    let of = |choices: &[(&str, &str)]| start(&g, 1.0, choices);
    let (sign, itself) = (of(&[]), of(&[("target", "gradient")]));
    let best: f64 = (1..=RANK).map(|i| (i as f64).powi(-2)).sum();
    let all: f64 = (1..=INP).map(|i| (i as f64).powi(-2)).sum();
    assert!((captured(&itself, &g) - (best / all).sqrt()).abs() < 1e-5);
    assert!(captured(&sign, &g) < 0.9 * captured(&itself, &g), "{}", captured(&sign, &g));
    let control = start_of("lora-sb-control", Gradient::Exact(g.as_ref()), 1.0, &[]).unwrap();
    assert!(captured(&control, &g) < 0.5 * captured(&sign, &g), "{}", captured(&control, &g));
    // A large epsilon is the gradient, a small one its sign.
    let adam = |epsilon: &str| captured(&of(&[("target", "adam-first-step"), ("epsilon", epsilon)]), &g);
    assert!((adam("1e6") - captured(&itself, &g)).abs() < 1e-4);
    assert!((adam("1e-12") - captured(&sign, &g)).abs() < 1e-4);
    // What is said of it is so.
    for start in [&sign, &itself] {
        let Some(Value::Number(part)) = start.report.get("part of the gradient's energy in the bases") else {
            panic!("nothing said")
        };
        assert!((part.sqrt() - captured(start, &g)).abs() < 1e-5, "{part}");
    }
    // A sketch of the flat spectrum of signs is a little less than the best, and oversampled enough.
    let (exact, fast) = (of(&[("svd", "exact")]), of(&[("svd", "fast")]));
    let size = |start: &Start| norm(&change(start, 1.0));
    let ratio = size(&fast) / size(&exact);
    assert!(ratio > 0.99 && ratio < 1.0 + 1e-6, "{ratio}");
}

#[test]
fn the_control_has_the_values_of_the_method_in_random_bases() {
    let g = gradient();
    let of = |name: &str, seed: u64| {
        let seen = Evidence::of(Site { out: OUT, inp: INP, scale: 0.5 })
            .with_gradient(Gradient::Exact(g.as_ref()))
            .with_rate(RATE);
        by_name::<&str, &str>(name, []).unwrap().start(&seen, RANK, Seed(seed)).unwrap()
    };
    let (method, control) = (of("lora-sb", 3), of("lora-sb-control", 3));
    assert_eq!(method.core, control.core);
    let (left, _, right) = factors(&control);
    for gram in [multiply(left.transpose(), left.as_ref()), multiply(right.as_ref(), right.transpose())] {
        assert!(norm(&(gram - Mat::<f64>::identity(RANK, RANK))) < 1e-5);
    }
    assert!(control.delta != of("lora-sb-control", 4).delta);
}

#[test]
fn factors_of_the_map_are_as_good_and_those_of_another_are_refused() {
    let g = gradient();
    let factors = |map: GradientMap, count: usize| Gradient::Factors {
        leading: svd_in_f64(map.apply(g.as_ref()).as_ref()).unwrap().head(count),
        energy: None,
        of: map,
    };
    for (target, map) in TARGETS {
        let choices = [("target", target), ("epsilon", "0.01")];
        let whole = start(&g, 1.0, &choices);
        let few = start_of("lora-sb", factors(map, RANK), 1.0, &choices).unwrap();
        assert!(whole.delta == few.delta && whole.core == few.core, "{target}");
        assert_eq!(by_name("lora-sb", choices).unwrap().leading(RANK).of, map);
        for (_, other) in TARGETS.iter().filter(|(_, other)| *other != map) {
            let refused = start_of("lora-sb", factors(*other, RANK), 1.0, &choices).unwrap_err();
            let (want, have) = (map.describe(), other.describe());
            assert_eq!(refused, InitError::OtherMap { method: "lora-sb", want, have });
        }
    }
    let refused = start_of("lora-ga", factors(GradientMap::Sign, 12), 1.0, &[]).unwrap_err().to_string();
    assert_eq!(
        refused,
        "lora-ga takes factors of the gradient itself, and those of the gradient's sign were collected; collect what \
         `Initialiser::leading` asks for"
    );
    let refused = start_of("lora-sb", factors(GradientMap::Sign, RANK - 1), 1.0, &[]).unwrap_err();
    assert!(matches!(refused, InitError::TooFewTriplets { want: RANK, have: 5, .. }), "{refused}");
    // A map needs the gradient whole.
    assert!(
        by_name::<&str, &str>("lora-sb", []).unwrap().leading(RANK).in_passes(OUT, INP, Seed(1)).is_err()
    );
}

#[test]
fn the_rate_is_that_of_the_first_step_or_the_number_given() {
    let g = gradient();
    let of = |rate: Option<f64>, choices: &[(&str, &str)]| {
        let mut seen =
            Evidence::of(Site { out: OUT, inp: INP, scale: 1.0 }).with_gradient(Gradient::Exact(g.as_ref()));
        if let Some(rate) = rate {
            seen = seen.with_rate(rate);
        }
        by_name("lora-sb", choices.iter().copied()).unwrap().start(&seen, RANK, Seed(3))
    };
    assert_eq!(of(None, &[]).unwrap_err(), InitError::NoRate { method: "lora-sb" });
    for rate in [0.0, -1.0, f64::INFINITY] {
        assert_eq!(of(Some(rate), &[]).unwrap_err(), InitError::Rate { method: "lora-sb", rate });
    }
    assert!(of(None, &[("core", "zero")]).is_ok());
    let (shown, given) = (of(Some(RATE), &[]).unwrap(), of(None, &[("rate", "0.003")]).unwrap());
    assert_eq!(shown.core, given.core);
    let size = |rate: &str| norm(&change(&of(Some(9.0), &[("rate", rate)]).unwrap(), 1.0));
    assert!((size("0.02") / size("0.01") - 2.0).abs() < 1e-5);
    let zero = Mat::zeros(OUT, INP);
    let refused = start_of("lora-sb", Gradient::Exact(zero.as_ref()), 1.0, &[]).unwrap_err();
    assert_eq!(refused, InitError::ZeroGradient { method: "lora-sb" });
    let mut broken = g.clone();
    broken[(3, 4)] = f32::INFINITY;
    let refused = start_of("lora-sb", Gradient::Exact(broken.as_ref()), 1.0, &[]).unwrap_err();
    assert!(matches!(refused, InitError::Linalg { .. }), "the sign of infinity passed: {refused}");
}
