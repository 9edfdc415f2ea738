//! Facts of EVA: PEFT's components; the most variance that orthonormal rows can hold; prefixes; what is refused; when it has
//! seen enough.

#![allow(clippy::unwrap_used, clippy::panic, reason = "clippy sees only the #[test] functions here as tests")]

use faer::{Mat, MatRef};
use lowrank_init::{
    CollectedInputs, Evidence, InitError, Initialiser, Inputs, Place, Site, Start, by_name, most_rank,
    redistribute,
};
use lowrank_linalg::{Moments, energy, multiply, widen};
use lowrank_record::{Seed, Value, scale};

fn random(seed: u64, m: usize, n: usize) -> Mat<f32> {
    let draws = Seed(seed).normal(m * n);
    Mat::from_fn(m, n, |i, j| draws[i * n + j])
}

/// Inputs of variances `1/j`, mixed, around a mean.
fn inputs(seed: u64, n: usize, d: usize) -> Mat<f32> {
    let draws = random(seed, n, d);
    let scaled = Mat::from_fn(n, d, |i, j| draws[(i, j)] / (j as f32 + 1.0).sqrt());
    let mixed = multiply(scaled.as_ref(), random(99, d, d).as_ref());
    let mean = random(98, 1, d);
    Mat::from_fn(n, d, |i, j| mixed[(i, j)] + 2.0 * mean[(0, j)])
}

fn moments(rows: MatRef<'_, f32>) -> Moments {
    let mut moments = Moments::new(rows.ncols());
    moments.absorb(rows).unwrap();
    moments
}

fn eva(choices: &[(&str, &str)]) -> Box<dyn Initialiser> {
    by_name("eva", choices.iter().copied()).unwrap()
}

fn seen(inputs: Inputs<'_>, out: usize) -> Evidence<'_> {
    Evidence::of(Site { out, inp: inputs.width(), scale: scale(6.0, 3, false) }).with_inputs(inputs)
}

fn start(inputs: Inputs<'_>, rank: usize, choices: &[(&str, &str)]) -> Result<Start, InitError> {
    eva(choices).start(&seen(inputs, 40), rank, Seed(3))
}

/// Collects in batches of this many rows, until the method has seen enough.
fn collected(
    rows: &Mat<f32>,
    batch: usize,
    rank: usize,
    exact_up_to: usize,
    choices: &[(&str, &str)],
) -> (CollectedInputs, usize) {
    // As many as redistribution may ask for.
    let mut wanted = eva(choices).inputs(2 * rank);
    wanted.exact_up_to = exact_up_to;
    let mut collector = wanted.collector(rows.ncols(), Seed(1)).unwrap();
    for first in (0..rows.nrows()).step_by(batch) {
        if collector.is_done(rank) {
            break;
        }
        collector.absorb(rows.as_ref().subrows(first, batch.min(rows.nrows() - first))).unwrap();
    }
    let batches = collector.batches();
    (collector.finish().unwrap(), batches)
}

fn number(start: &Start, fact: &str) -> f64 {
    match start.report.get(fact) {
        Some(Value::Number(number)) => *number,
        other => panic!("{fact}: {other:?}"),
    }
}

const CAPTURED: &str = "part of the inputs' variance captured";

#[test]
fn components_are_those_of_peft() {
    // PEFT 0.21.2 with torch 2.15, November 2026: a linear layer [5, 6], `EvaConfig(rho=1.0)`, r = 3, and one batch of these
    // twelve rows, which its loader repeats until it has settled; lora_A after `initialize_lora_eva_weights`.
    let wanted = [
        [0.963_486_67, -0.266_014_2, 0.010_438_655, 0.020_068_118, -0.018_126_259, -0.009_467_656],
        [0.237_400_76, 0.854_317_2, -0.448_573_44, 0.080_151_06, -0.068_585_13, -0.037_905_026],
        [-0.111_843_82, -0.371_926_13, -0.631_169_7, 0.663_149_65, -0.100_919_42, -0.028_888_084],
    ];
    let rows = Mat::from_fn(12, 6, |i, j| {
        let (i, j) = (i as f64, j as f64);
        ((1.0 + 1.7 * i + 0.9 * j + 0.31 * i * j).sin() * (3.0 / (j + 1.0)) + 0.5 * j) as f32
    });
    let moments = moments(rows.as_ref());
    let (by_batches, _) = collected(&rows, 12, 3, 0, &[("rho", "1")]);
    for inputs in [Inputs::Moments(&moments), by_batches.inputs()] {
        let start = eva(&[("rho", "1")]).start(&seen(inputs, 5), 3, Seed(3)).unwrap();
        for (i, row) in wanted.iter().enumerate() {
            for (j, wanted) in row.iter().enumerate() {
                let found = f64::from(start.delta.right[(i, j)]);
                assert!((found - wanted).abs() < 2e-5, "({i}, {j}): {found} {wanted}");
            }
        }
        assert_eq!(energy(start.delta.left.as_ref()), 0.0);
    }
}

#[test]
fn rows_are_orthonormal_or_whitened() {
    let rows = inputs(1, 400, 30);
    let moments = moments(rows.as_ref());
    let values = moments.principal(6, true, Seed(1)).unwrap().values;
    for (whiten, wanted) in [("false", vec![1.0; 6]), ("true", values.iter().map(|s| 1.0 / s).collect())] {
        let delta = start(Inputs::Moments(&moments), 6, &[("whiten", whiten)]).unwrap().delta;
        let right = widen(delta.right.as_ref());
        let gram = multiply(right.as_ref(), right.transpose());
        for i in 0..6 {
            for j in 0..6 {
                let wanted: f64 = if i == j { wanted[i] } else { 0.0 };
                assert!((gram[(i, j)] - wanted).abs() < 1e-6, "({i}, {j}): {} {wanted}", gram[(i, j)]);
            }
        }
    }
    // Whitening twice from the same evidence gives the same: nothing is divided in place.
    let twice = [(); 2].map(|()| start(Inputs::Moments(&moments), 6, &[("whiten", "true")]).unwrap().delta);
    assert!(twice[0] == twice[1]);
}

/// `tr(A·M·Aᵀ)`.
fn inside(moment: &Mat<f64>, right: &Mat<f32>) -> f64 {
    let right = widen(right.as_ref());
    let turned = multiply(right.as_ref(), moment.as_ref());
    (0..right.nrows())
        .map(|i| turned.row(i).iter().zip(right.row(i).iter()).map(|(a, b)| a * b).sum::<f64>())
        .sum()
}

#[test]
fn no_orthonormal_rows_hold_more() {
    let rows = inputs(2, 500, 24);
    let moments = moments(rows.as_ref());
    for (center, moment) in [("true", moments.covariance()), ("false", moments.second_moment())] {
        let found = start(Inputs::Moments(&moments), 5, &[("center", center)]).unwrap();
        let best = inside(&moment, &found.delta.right);
        let all: f64 = (0..24).map(|i| moment[(i, i)]).sum();
        assert!((number(&found, CAPTURED) - best / all).abs() < 1e-6, "centred: {center}");
        let control = by_name::<&str, &str>("eva-control", []).unwrap();
        let empty = Evidence::of(Site { out: 40, inp: 24, scale: 2.0 });
        for seed in 0..50 {
            let random = control.start(&empty, 5, Seed(seed)).unwrap().delta.right;
            assert!(inside(&moment, &random) < best, "centred: {center}, seed {seed}");
            assert!((energy(random.as_ref()) - 5.0).abs() < 1e-5, "the control has another size");
        }
        // Nor do rows a little beside the best: this is a maximum.
        for seed in 0..20 {
            let mut beside = widen(found.delta.right.as_ref());
            beside += faer::Scale(0.05) * widen(random(seed, 5, 24).as_ref());
            let beside = lowrank_linalg::orthonormal_basis(beside.transpose()).unwrap();
            let beside = lowrank_linalg::narrow(beside.transpose());
            assert!(inside(&moment, &beside) < best, "centred: {center}, beside {seed}");
        }
    }
}

#[test]
fn the_mean_is_a_component_only_without_centring() {
    let rows = inputs(3, 500, 24);
    let moments = moments(rows.as_ref());
    let mean = moments.mean();
    let norm = mean.iter().map(|x| x * x).sum::<f64>().sqrt();
    let along = |center: &str| {
        let right = start(Inputs::Moments(&moments), 3, &[("center", center)]).unwrap().delta.right;
        let cosine =
            |i: usize| right.row(i).iter().zip(mean).map(|(a, b)| f64::from(*a) * b).sum::<f64>() / norm;
        (0..3).map(cosine).map(|cosine| cosine * cosine).sum::<f64>()
    };
    assert!(
        along("false") > 0.5 && along("false") > 2.0 * along("true"),
        "{} {}",
        along("false"),
        along("true")
    );
}

#[test]
fn smaller_ranks_are_prefixes_also_across_a_group() {
    let rows = inputs(4, 300, 20);
    let moments = moments(rows.as_ref());
    let (by_batches, _) = collected(&rows, 30, 8, 0, &[]);
    for inputs in [Inputs::Moments(&moments), by_batches.inputs()] {
        let whole = start(inputs, 8, &[]).unwrap().delta.right;
        for (rank, out) in [(1, 40), (3, 9), (7, 70)] {
            let part = eva(&[]).start(&seen(inputs, out), rank, Seed(8)).unwrap().delta.right;
            assert!(part.as_ref() == whole.as_ref().subrows(0, rank), "rank {rank}");
        }
    }
}

#[test]
fn tokens_that_are_not_let_in_have_no_part() {
    let (rows, others) = (inputs(5, 200, 12), inputs(6, 200, 12));
    for exact_up_to in [0, 2048] {
        let mut wanted = eva(&[]).inputs(3);
        wanted.exact_up_to = exact_up_to;
        let from = |second: &Mat<f32>, rows_let_in: usize| {
            let mut collector = wanted.collector(12, Seed(1)).unwrap();
            collector.absorb(rows.as_ref()).unwrap();
            collector.absorb(second.as_ref().subrows(0, rows_let_in)).unwrap();
            let rows = collector.rows();
            (collector.finish().unwrap(), rows)
        };
        let (none, of_none) = from(&others, 0);
        let ((some, of_some), (as_many, _)) = (from(&others, 50), from(&rows, 50));
        assert_eq!((of_none, of_some), (200, 250));
        assert!(none == from(&rows, 0).0, "rows that were not let in have a part");
        assert!(some != none && some != as_many, "rows that were let in have none");
    }
}

#[test]
fn evidence_that_does_not_span_the_rank_is_refused_by_name() {
    let rows = inputs(7, 300, 20);
    let refused = |rows: MatRef<'_, f32>, rank: usize, choices: &[(&str, &str)]| {
        let moments = moments(rows);
        start(Inputs::Moments(&moments), rank, choices).unwrap_err()
    };
    let few = |have, rank, rows| InitError::FewDirections { method: "eva", rank, have, rows };
    // n rows about their mean have n − 1 directions, about zero n.
    assert_eq!(refused(rows.as_ref().subrows(0, 6), 6, &[]), few(5, 6, 6));
    assert_eq!(refused(rows.as_ref().subrows(0, 1), 1, &[]), few(0, 1, 1));
    assert_eq!(refused(rows.as_ref().subrows(0, 5), 6, &[("center", "false")]), few(5, 6, 5));
    // The same four rows many times.
    let repeated = Mat::from_fn(200, 20, |i, j| rows[(i % 4, j)]);
    assert_eq!(refused(repeated.as_ref(), 4, &[]), few(3, 4, 200));
    assert_eq!(refused(Mat::zeros(0, 20).as_ref(), 4, &[]), few(0, 4, 0));
    assert_eq!(refused(Mat::zeros(50, 20).as_ref(), 4, &[]), few(0, 4, 50));
    let message = few(3, 4, 200).to_string();
    assert!(
        message.starts_with("eva: 200 inputs of this site span 3 directions, a start of rank 4 takes 4;"),
        "{message}"
    );
    let (short, _) = collected(&rows, 5, 2, 0, &[("rho", "1")]);
    let (tiny, _) = collected(&rows.as_ref().subrows(0, 3).to_owned(), 1, 4, 0, &[]);
    assert_eq!(start(tiny.inputs(), 4, &[]).unwrap_err(), few(2, 4, 3));
    // Other evidence than was asked for.
    let refused = start(short.inputs(), 6, &[]).unwrap_err();
    assert!(matches!(refused, InitError::Statistic { method: "eva", .. }), "{refused}");
    let refused = start(short.inputs(), 2, &[("center", "false")]).unwrap_err().to_string();
    assert!(
        refused.contains("components about zero of this site's inputs, and components about the mean"),
        "{refused}"
    );
    for (name, value) in [("rho", "0.9"), ("tau", "1.1"), ("tau", "0")] {
        assert!(
            matches!(by_name("eva", [(name, value)]).err(), Some(InitError::BadValue { .. })),
            "{name} {value}"
        );
    }
}

#[test]
fn enough_was_seen_when_the_components_have_settled() {
    let rows = inputs(8, 20_000, 32);
    let moments = moments(rows.as_ref());
    let exact = start(Inputs::Moments(&moments), 4, &[]).unwrap();
    for stop in ["captured", "cosine"] {
        let mut before = 1;
        for tau in ["0.9", "0.99", "0.9999"] {
            let choices = [("stop", stop), ("tau", tau)];
            let (found, batches) = collected(&rows, 200, 4, 0, &choices);
            assert!(batches >= before.max(2) && batches < 100, "{stop} {tau}: {batches} after {before}");
            before = batches;
            let start = start(found.inputs(), 4, &choices).unwrap();
            assert_eq!(start.report.get("components"), Some(&Value::Text("settled".to_owned())));
            let covariance = moments.covariance();
            let part = inside(&covariance, &start.delta.right) / inside(&covariance, &exact.delta.right);
            assert!(part > 0.9 && part < 1.0 + 1e-6, "{stop} {tau}: {part} of the best");
        }
        // Not there yet.
        let choices = [("stop", stop), ("tau", "1")];
        let (found, batches) = collected(&rows.as_ref().subrows(0, 600).to_owned(), 200, 4, 0, &choices);
        let start = start(found.inputs(), 4, &choices).unwrap();
        let Some(Value::Text(state)) = start.report.get("components") else { panic!("no state") };
        assert!(batches == 3 && state.starts_with("not settled"), "{stop}: {batches}, {state}");
    }
    // Moments take what there is.
    let (found, batches) = collected(&rows, 50, 4, 2048, &[]);
    assert_eq!((found.inputs().rows(), batches), (20_000, 400));
    let state = start(found.inputs(), 4, &[]).unwrap().report.get("components").cloned();
    assert_eq!(state, Some(Value::Text("exact for the tokens seen".to_owned())));
}

#[test]
fn no_more_components_are_asked_for_than_can_be_given_out() {
    // The most that a site can come to have is told; a large rho does not multiply it again.
    for rho in ["1", "2", "1e9"] {
        let wanted = eva(&[("rho", rho)]).inputs(12);
        assert_eq!((wanted.count, wanted.oversampling), (12, 12), "{rho}");
    }
    // Of a layer whose every direction is kept, the moments are no larger.
    let wanted = eva(&[("rho", "1e9")]).inputs(3000);
    assert!(wanted.is_exact(6000) && !wanted.is_exact(6001));
}

#[test]
fn a_flat_spectrum_is_not_called_exact() {
    let white = random(31, 900, 530);
    let state = start(Inputs::Moments(&moments(white.as_ref())), 4, &[]);
    // 40 outputs, 530 inputs: above 128 the components are iterated for.
    let state = state.unwrap().report.get("components").cloned();
    let Some(Value::Text(state)) = state else { panic!("no state") };
    assert!(state.contains("too flat"), "{state}");
}

#[test]
fn ranks_go_where_the_inputs_are_simple() {
    // One layer of inputs with one strong direction, one of inputs like noise, and one that shares the first's inputs.
    let spread = |power: i32| {
        let draws = random(9, 500, 16);
        Mat::from_fn(500, 16, |i, j| draws[(i, j)] / (j as f32 + 1.0).powi(power))
    };
    let groups = [moments(spread(2).as_ref()), moments(spread(0).as_ref())];
    for rho in ["1", "2", "1e9"] {
        let method = eva(&[("rho", rho)]);
        let rho = method.redistributes().unwrap();
        let most = most_rank(rho, 4, 16);
        let ratios: Vec<Vec<f64>> = groups
            .iter()
            .map(|moments| method.ratios(&seen(Inputs::Moments(moments), 16), most, Seed(3)).unwrap())
            .collect();
        assert!(ratios.iter().all(|ratios| ratios.len() == most && ratios.iter().sum::<f64>() <= 1.0 + 1e-9));
        let places = [0, 1, 0].map(|group| Place { group, planned: 4, most });
        let ranks = redistribute(&ratios, &places).unwrap();
        assert_eq!(ranks.iter().sum::<usize>(), 12);
        if rho == 1.0 {
            assert_eq!(ranks, [4, 4, 4]);
        } else {
            // 0.93, 0.06, 0.01, 0.004 of the variance against 1/16 each.
            assert!(ranks[0] >= ranks[2] && ranks[1] > 4 && ranks[1] <= most, "{ranks:?}");
        }
    }
    let by = |normalise: &str| {
        let seen = seen(Inputs::Moments(&groups[0]), 16);
        eva(&[("normalise", normalise)]).ratios(&seen, 4, Seed(3)).unwrap()
    };
    let (ratio, sum, raw, max) = (by("ratio"), by("sum"), by("raw"), by("max"));
    assert!((sum.iter().sum::<f64>() - 1.0).abs() < 1e-12 && max[0] == 1.0);
    let energy = groups[0].energy(true);
    for i in 0..4 {
        assert!((raw[i] * 499.0 / energy / ratio[i] - 1.0).abs() < 1e-12);
        assert!(
            (sum[i] / sum[0] / max[i] - 1.0).abs() < 1e-12
                && (ratio[i] / ratio[0] / max[i] - 1.0).abs() < 1e-12
        );
    }
    let refused = by_name::<&str, &str>("kaiming", []).unwrap();
    let refused = refused.ratios(&seen(Inputs::Moments(&groups[0]), 16), 4, Seed(3)).unwrap_err();
    assert_eq!(refused, InitError::NoRatios { method: "kaiming" });
}
