//! The schedule of ranks against its formula, and against PEFT's own allocator.

use lowrank_adapt::{AdaptError, Budget, RankSchedule, Triplets};

use crate::small::draws;

/// `[out, r, in]` of two layers.
const LAYERS: [[usize; 3]; 2] = [[4, 3, 5], [6, 3, 4]];

const BUDGET: Budget =
    Budget { target: 1, warmup: 2, last: 3, interval: 2, total: 12, sensitivity: 0.85, uncertainty: 0.75 };

/// Values or gradients of everything at one step.
fn numbers(kind: &str, step: usize) -> Vec<[Vec<f32>; 3]> {
    LAYERS
        .iter()
        .enumerate()
        .map(|(index, [out, rank, inp])| {
            let draw = |part: &str, count| draws(&format!("{kind} {step} {index} {part}"), count);
            [draw("right", rank * inp), draw("values", *rank), draw("left", out * rank)]
        })
        .collect()
}

fn run(schedule: &mut RankSchedule, step: usize) -> Option<Vec<Vec<bool>>> {
    let (values, gradients) = (numbers("value", step), numbers("gradient", step));
    let seen: Vec<Triplets<'_>> = values
        .iter()
        .zip(&gradients)
        .map(|(v, g)| Triplets { right: [&v[0], &g[0]], values: [&v[1], &g[1]], left: [&v[2], &g[2]] })
        .collect();
    schedule.step(step, &seen).unwrap().map(<[_]>::to_vec)
}

fn schedule() -> RankSchedule {
    RankSchedule::new(BUDGET, &LAYERS).unwrap()
}

#[test]
fn the_budget_falls_as_a_cubic() {
    let schedule = schedule();
    let found: Vec<usize> = (0..=12).map(|step| schedule.values_at(step)).collect();
    // 2 + 4·(1 − (t − 2)/7)³ rounded down, between steps 2 and 9.
    assert_eq!(found, [6, 6, 6, 4, 3, 2, 2, 2, 2, 2, 2, 2, 2]);
}

/// The scores in f64 by their definition, over all steps so far.
fn scores(steps: usize) -> Vec<Vec<f64>> {
    let mut means = vec![vec![Vec::<f64>::new(); 3]; 2];
    let mut spreads = means.clone();
    for step in 1..=steps {
        let (values, gradients) = (numbers("value", step), numbers("gradient", step));
        for layer in 0..2 {
            for part in 0..3 {
                let (v, g) = (&values[layer][part], &gradients[layer][part]);
                let (mean, spread) = (&mut means[layer][part], &mut spreads[layer][part]);
                mean.resize(v.len(), 0.0);
                spread.resize(v.len(), 0.0);
                for at in 0..v.len() {
                    let now = (f64::from(v[at]) * f64::from(g[at])).abs();
                    mean[at] = 0.85 * mean[at] + 0.15 * now;
                    spread[at] = 0.75 * spread[at] + 0.25 * (now - mean[at]).abs();
                }
            }
        }
    }
    let score = |layer: usize, part: usize, at: usize| means[layer][part][at] * spreads[layer][part][at];
    (0..2)
        .map(|layer| {
            let [out, rank, inp] = LAYERS[layer];
            (0..rank)
                .map(|k| {
                    let row = (0..inp).map(|j| score(layer, 0, k * inp + j)).sum::<f64>() / inp as f64;
                    let column = (0..out).map(|i| score(layer, 2, i * rank + k)).sum::<f64>() / out as f64;
                    score(layer, 1, k) + row + column
                })
                .collect()
        })
        .collect()
}

#[test]
fn the_best_triplets_of_all_layers_stay() {
    let mut schedule = schedule();
    let mut last = None;
    for step in 1..=12 {
        let kept = run(&mut schedule, step);
        // After the warm-up every second step cuts, the last cut is at step 9, and then it stays.
        assert_eq!(kept.is_some(), [4, 6, 8, 9, 10, 11, 12].contains(&step), "{step}");
        let Some(kept) = kept else { continue };
        if step <= 9 {
            let scores = scores(step.min(8));
            let count = schedule.values_at(step);
            let mut sorted: Vec<f64> = scores.concat();
            sorted.sort_by(|a, b| b.total_cmp(a));
            let wanted: Vec<Vec<bool>> = scores
                .iter()
                .map(|layer| layer.iter().map(|score| *score >= sorted[count - 1]).collect())
                .collect();
            assert_eq!(kept, wanted, "{step}");
            last = Some(kept);
        } else {
            assert_eq!(Some(kept), last);
        }
    }
}

#[test]
fn the_masks_are_pefts() {
    // From running PEFT's RankAllocator (0.21.2) on the same numbers: tests/interop/forms.py prints them.
    let number = |kind: usize, step: usize, layer: usize, part: usize, count: usize| -> Vec<f32> {
        let phase = 1.0 + 5.0 * kind as f64 + 2.3 * step as f64 + 1.1 * layer as f64 + 0.7 * part as f64;
        (0..count).map(|k| (phase + (0.9 + 0.05 * step as f64) * k as f64).sin() as f32).collect()
    };
    let mut schedule = schedule();
    let mut cuts = Vec::new();
    for step in 1..=9 {
        let all: Vec<Vec<[Vec<f32>; 2]>> = LAYERS
            .iter()
            .enumerate()
            .map(|(layer, [out, rank, inp])| {
                let counts = [rank * inp, *rank, out * rank];
                let both = |(part, count): (usize, usize)| {
                    [number(0, step, layer, part, count), number(1, step, layer, part, count)]
                };
                counts.into_iter().enumerate().map(both).collect()
            })
            .collect();
        let seen: Vec<Triplets<'_>> = all
            .iter()
            .map(|parts| {
                let pair = |part: usize| [&parts[part][0][..], &parts[part][1][..]];
                Triplets { right: pair(0), values: pair(1), left: pair(2) }
            })
            .collect();
        if let Some(kept) = schedule.step(step, &seen).unwrap() {
            cuts.push((step, kept.to_vec()));
        }
    }
    let (on, off) = (true, false);
    let wanted = [
        (4, vec![vec![on, off, on], vec![off, on, off]]),
        (6, vec![vec![off, off, on], vec![off, on, off]]),
        (8, vec![vec![off, off, off], vec![on, on, off]]),
        (9, vec![vec![off, off, off], vec![on, on, off]]),
    ];
    assert_eq!(cuts, wanted);
}

#[test]
fn of_equal_scores_the_first_stay() {
    let mut schedule = schedule();
    let zeros: Vec<[Vec<f32>; 3]> = LAYERS
        .iter()
        .map(|[out, rank, inp]| [vec![0.0; rank * inp], vec![0.0; *rank], vec![0.0; out * rank]])
        .collect();
    let seen: Vec<Triplets<'_>> = zeros
        .iter()
        .map(|z| Triplets { right: [&z[0], &z[0]], values: [&z[1], &z[1]], left: [&z[2], &z[2]] })
        .collect();
    let kept = schedule.step(4, &seen).unwrap().unwrap();
    assert_eq!(kept, [vec![true, true, true], vec![false, false, false]]);
}

#[test]
fn a_resumed_schedule_goes_on_as_it_was() {
    for stop in [1, 5, 9, 10] {
        let mut whole = schedule();
        (1..=stop).for_each(|step| drop(run(&mut whole, step)));
        let mut resumed = schedule();
        resumed.resume(whole.parts()).unwrap();
        assert!(resumed == whole);
        for step in stop + 1..=12 {
            assert_eq!(run(&mut resumed, step), run(&mut whole, step));
        }
        for index in 0..whole.parts().len() {
            let mut short = whole.parts();
            short.remove(index);
            assert!(matches!(schedule().resume(short), Err(AdaptError::Budget { .. })));
        }
    }
}

#[test]
fn numbers_that_make_no_schedule_are_refused() {
    for (budget, said) in [
        (Budget { target: 0, ..BUDGET }, "at least 1"),
        (Budget { interval: 0, ..BUDGET }, "at least 1"),
        (Budget { warmup: 9, ..BUDGET }, "leave none to cut in"),
        (Budget { sensitivity: 1.0, ..BUDGET }, "between 0 and 1"),
        (Budget { target: 4, ..BUDGET }, "more than the 6 values"),
    ] {
        let refused = RankSchedule::new(budget, &LAYERS).err().unwrap().to_string();
        assert!(refused.contains(said), "{refused}");
    }
}
