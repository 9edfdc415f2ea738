//! What a run does: accumulation, rates, clipping, decay, evaluation, early stop, events.

#![allow(clippy::unwrap_used, reason = "a test may unwrap")]

mod regression;

use lowrank_record::Seed;
use lowrank_train::{
    Best, EarlyStop, Evaluated, Evaluation, Event, Failure, Group, Method, Objective, Outcome, Parameter,
    Run, Schedule, Settings, Sgd, Shape, Step, Stop, Stopped, TrainError, train,
};
use regression::Regression;

fn run(objective: &mut dyn Objective, settings: &Settings) -> (Outcome, Vec<Step>) {
    let mut steps = Vec::new();
    let mut observer = |event: &Event<'_>| {
        if let Event::Step(step) = event {
            steps.push(*step);
        }
    };
    let outcome = train(objective, settings, &Run::default(), &mut observer, &Stop::default()).unwrap();
    (outcome, steps)
}

fn plain_sgd() -> Settings {
    Settings {
        steps: 10,
        rate: 0.05,
        clip_norm: 0.0,
        optimiser: Method::Sgd(Sgd::default()),
        schedule: Schedule { shape: Shape::Constant, ..Schedule::default() },
        ..Settings::default()
    }
}

#[test]
fn the_loss_falls() {
    let mut objective = Regression::new(1, 4, 1);
    let settings = Settings { steps: 300, rate: 0.02, eval_every: 100, ..Settings::default() };
    let before = objective.evaluate().unwrap();
    let (outcome, steps) = run(&mut objective, &settings);
    let best = outcome.best.unwrap();
    // Rank 2 of a 5×7 matrix: not to zero, but by well more than a third.
    assert!(best.loss < 0.67 * before.loss_sum / before.weight, "{best:?}, {before:?}");
    assert_eq!(steps.len(), 300);
    assert_eq!(steps.iter().map(|step| step.tokens).sum::<u64>(), outcome.tokens);
    assert!(outcome.untouched.is_empty());
}

#[test]
fn micro_batches_are_one_large_batch() {
    // Six examples a step with one to four loss tokens each, in 1, 2, 3 and 6 parts.
    let settings = |accumulation| Settings { accumulation, rate: 0.02, steps: 12, ..Settings::default() };
    let mut whole = Regression::new(4, 6, 1).quiet();
    let (_, expected) = run(&mut whole, &settings(1));
    for parts in [2, 3, 6] {
        let mut split = Regression::new(4, 6 / parts, parts as u32).quiet();
        let (_, got) = run(&mut split, &settings(parts as u32));
        for (got, expected) in got.iter().zip(&expected) {
            assert_eq!(got.tokens, expected.tokens);
            assert!(
                (got.loss - expected.loss).abs() < 1e-5 * expected.loss,
                "{parts} parts: {got:?}, {expected:?}"
            );
            assert!(
                (got.norm - expected.norm).abs() < 1e-5 * expected.norm,
                "{parts} parts: {got:?}, {expected:?}"
            );
        }
        for (got, expected) in split.values.iter().flatten().zip(whole.values.iter().flatten()) {
            assert!((got - expected).abs() < 1e-4, "{parts} parts: {got}, {expected}");
        }
    }
}

/// Three 1×2 parameters, one of each group, with the gradients written into it.
struct Fixed {
    values: Vec<Vec<f32>>,
    gradient: Vec<f32>,
    weight: f64,
    decay: bool,
}

impl Fixed {
    fn new(gradient: [f32; 2], weight: f64) -> Self {
        Fixed { values: vec![vec![1.0, -2.0]; 3], gradient: gradient.to_vec(), weight, decay: true }
    }
}

impl Objective for Fixed {
    fn parameters(&self) -> Vec<Parameter> {
        let groups = [Group::Left, Group::Right, Group::Dense];
        let make = |(index, group): (usize, Group)| Parameter {
            name: format!("{group:?}"),
            shape: [1, 2],
            group,
            decay: self.decay && group != Group::Dense,
            value: self.values[index].clone(),
        };
        groups.into_iter().enumerate().map(make).collect()
    }
    fn assign(&mut self, index: usize, value: &[f32]) -> Result<(), Failure> {
        self.values[index] = value.to_vec();
        Ok(())
    }
    fn gradients(&mut self, _: u64, _: u32) -> Result<Evaluated, Failure> {
        let gradients = vec![self.gradient.clone(), self.gradient.clone(), vec![0.0; 2]];
        Ok(Evaluated { loss_sum: 3.0, weight: self.weight, tokens: 1, gradients })
    }
    fn evaluate(&mut self) -> Result<Evaluation, Failure> {
        Ok(Evaluation { loss_sum: 0.0, weight: 0.0 })
    }
}

#[test]
fn the_step_is_rate_times_the_mean_gradient() {
    // Gradient of the sum 4, −8 over weight 4: mean 1, −2.
    let mut objective = Fixed::new([4.0, -8.0], 4.0);
    let settings = Settings { steps: 1, rate: 0.25, left_ratio: 2.0, ..plain_sgd() };
    let (outcome, steps) = run(&mut objective, &settings);
    assert_eq!(objective.values, [vec![0.5, -1.0], vec![0.75, -1.5], vec![1.0, -2.0]]);
    assert_eq!((steps[0].loss, steps[0].rate, steps[0].clipped), (0.75, 0.25, false));
    assert!((steps[0].norm - 10.0_f64.sqrt()).abs() < 1e-12, "two parameters of norm √5");
    assert_eq!(outcome.untouched, ["Dense"]);
}

#[test]
fn adamw_is_told_which_step_it_is() {
    // A gradient that never changes: with the right bias corrections m̂ = g and v̂ = g² at every step, so that each is
    // the rate long, whatever the gradient's size.
    let mut objective = Fixed::new([12.0, -0.5], 4.0);
    let settings = Settings { rate: 0.125, left_ratio: 2.0, optimiser: Method::default(), ..plain_sgd() };
    run(&mut objective, &settings);
    for (value, expected) in objective.values[..2].iter().flatten().zip([-1.5, 0.5, -0.25, -0.75]) {
        assert!((value - expected).abs() < 1e-4, "{:?}", objective.values);
    }
}

#[test]
fn clipping_bounds_the_mean_gradient_not_the_sum() {
    // Means 3, 4 twice: norm √50, cut to a fifth of it.
    let limit = 50.0_f64.sqrt() / 5.0;
    let mut objective = Fixed::new([30.0, 40.0], 10.0);
    let settings = Settings { steps: 1, rate: 0.5, clip_norm: limit, ..plain_sgd() };
    let (_, steps) = run(&mut objective, &settings);
    assert!(steps[0].clipped && (steps[0].norm - 50.0_f64.sqrt()).abs() < 1e-12);
    for (value, expected) in objective.values[1].iter().zip([1.0 - 0.5 * 0.6, -2.0 - 0.5 * 0.8]) {
        assert!((f64::from(*value) - expected).abs() < 1e-6, "{value}, {expected}");
    }
    let mut objective = Fixed::new([30.0, 40.0], 10.0);
    let (_, steps) = run(&mut objective, &Settings { clip_norm: 7.1, ..settings });
    assert!(!steps[0].clipped);
    assert_eq!(objective.values[1], [-0.5, -4.0]);
}

#[test]
fn decay_is_off_unless_both_sides_want_it() {
    let settings = Settings { steps: 1, rate: 0.5, weight_decay: 0.5, ..plain_sgd() };
    let mut objective = Fixed::new([0.0, 0.0], 1.0);
    run(&mut objective, &settings);
    assert_eq!(objective.values, [vec![0.75, -1.5], vec![0.75, -1.5], vec![1.0, -2.0]]);
    let mut objective = Fixed { decay: false, ..Fixed::new([0.0, 0.0], 1.0) };
    run(&mut objective, &settings);
    assert_eq!(objective.values[0], [1.0, -2.0]);
    let mut objective = Fixed::new([0.0, 0.0], 1.0);
    run(&mut objective, &Settings { weight_decay: 0.0, ..settings });
    assert_eq!(objective.values[0], [1.0, -2.0]);
}

#[test]
fn a_step_without_loss_tokens_is_an_error() {
    let mut objective = Fixed::new([1.0, 1.0], 0.0);
    let error = train(&mut objective, &plain_sgd(), &Run::default(), &mut (), &Stop::default()).unwrap_err();
    assert!(matches!(error, TrainError::Weight { step: 1, .. }), "{error}");
    let settings = Settings { eval_every: 1, ..plain_sgd() };
    let error = train(&mut objective, &settings, &Run::default(), &mut (), &Stop::default()).unwrap_err();
    assert!(matches!(error, TrainError::Evaluation { step: 0, .. }), "{error}");
}

#[test]
fn the_rate_follows_the_schedule() {
    let mut objective = Regression::new(1, 2, 1);
    let schedule = Schedule { shape: Shape::Linear, warmup_steps: 1, ..Schedule::default() };
    let (_, steps) = run(&mut objective, &Settings { steps: 4, rate: 0.5, schedule, ..plain_sgd() });
    let rates: Vec<f64> = steps.iter().map(|step| step.rate).collect();
    for (rate, expected) in rates.iter().zip([0.25, 0.5, 1.0 / 3.0, 0.5 / 3.0]) {
        assert!((rate - expected).abs() < 1e-12, "{rates:?}");
    }
}

#[test]
fn evaluations_come_before_on_time_and_after() {
    let mut objective = Regression::new(1, 2, 1);
    let mut seen = Vec::new();
    let mut observer = |event: &Event<'_>| {
        if let Event::Evaluated { step, .. } = event {
            seen.push(*step);
        }
    };
    let settings = Settings { eval_every: 4, ..plain_sgd() };
    train(&mut objective, &settings, &Run::default(), &mut observer, &Stop::default()).unwrap();
    assert_eq!(seen, [0, 4, 8, 10]);
    train(&mut objective, &plain_sgd(), &Run::default(), &mut (), &Stop::default()).unwrap();
    assert_eq!(objective.evaluations, 4, "never, unless asked");
}

#[test]
fn it_stops_when_the_held_out_loss_no_longer_falls() {
    // The loss rises by 100 at each evaluation: the one before training is the best, and three later ones are worse.
    let mut objective = Regression::new(1, 2, 1);
    objective.drift = 100.0;
    let start = objective.bits();
    let early_stop = Some(EarlyStop { patience: 3, min_improvement: 0.0 });
    let settings = Settings { eval_every: 2, early_stop, restore_best: true, ..plain_sgd() };
    let (outcome, _) = run(&mut objective, &settings);
    assert_eq!((outcome.stopped, outcome.steps, outcome.values_of), (Stopped::Early, 6, 0));
    assert_eq!(outcome.best.map(|best| best.step), Some(0));
    assert_eq!(objective.bits(), start, "the best values are put back");

    let mut objective = Regression::new(1, 2, 1);
    objective.drift = 100.0;
    let (outcome, _) = run(&mut objective, &Settings { restore_best: false, ..settings });
    assert_eq!((outcome.steps, outcome.values_of), (6, 6));
    assert_ne!(objective.bits(), start);
}

#[test]
fn a_small_improvement_does_not_count() {
    // Falls by exactly 1 at each evaluation, without learning anything.
    struct Falling(Fixed, f64);
    impl Objective for Falling {
        fn parameters(&self) -> Vec<Parameter> {
            self.0.parameters()
        }
        fn assign(&mut self, index: usize, value: &[f32]) -> Result<(), Failure> {
            self.0.assign(index, value)
        }
        fn gradients(&mut self, step: u64, micro: u32) -> Result<Evaluated, Failure> {
            self.0.gradients(step, micro)
        }
        fn evaluate(&mut self) -> Result<Evaluation, Failure> {
            self.1 -= 1.0;
            Ok(Evaluation { loss_sum: 2.0 * self.1, weight: 2.0 })
        }
    }
    let check = |patience, min_improvement| {
        let early_stop = Some(EarlyStop { patience, min_improvement });
        let settings = Settings { eval_every: 1, early_stop, ..plain_sgd() };
        let (outcome, _) = run(&mut Falling(Fixed::new([1.0, 0.0], 1.0), 100.0), &settings);
        (outcome.stopped, outcome.steps, outcome.best)
    };
    assert_eq!(check(2, 0.5), (Stopped::Finished, 10, Some(Best { step: 10, loss: 89.0 })));
    assert_eq!(check(2, 2.5), (Stopped::Early, 2, Some(Best { step: 0, loss: 99.0 })));
    // Small ones add up: the third is 3 below the best.
    assert_eq!(check(3, 2.5), (Stopped::Finished, 10, Some(Best { step: 9, loss: 90.0 })));
}

#[test]
fn events_come_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings { steps: 2, eval_every: 2, checkpoint_every: 1, seed: Seed(1), ..plain_sgd() };
    let place = lowrank_train::Place::Fresh(folder.path().join("run"));
    let mut seen = Vec::new();
    let mut observer = |event: &Event<'_>| {
        seen.push(match event {
            Event::Resumed(_) => "resumed".to_owned(),
            Event::Step(step) => format!("step {}", step.step),
            Event::Evaluated { step, .. } => format!("evaluated {step}"),
            Event::CheckpointSaved { step, .. } => format!("saved {step}"),
            Event::Stopped { step, reason } => format!("{reason:?} {step}"),
        });
    };
    let run = Run { place, ..Run::default() };
    train(&mut Regression::new(1, 2, 1), &settings, &run, &mut observer, &Stop::default()).unwrap();
    let expected = ["evaluated 0", "step 1", "saved 1", "step 2", "evaluated 2", "saved 2", "Finished 2"];
    assert_eq!(seen, expected);
    let lines = lowrank_train::metrics::read(&folder.path().join("run")).unwrap();
    assert_eq!(
        lines.iter().map(|line| (line.step, line.eval.is_some())).collect::<Vec<_>>(),
        [(0, true), (1, false), (2, true)]
    );
    assert!(lines[0].loss.is_none() && lines[1].loss.is_some() && lines[2].tokens > lines[1].tokens);
}
