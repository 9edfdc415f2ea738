//! The law of this crate: interrupted at any step and resumed = never interrupted, bit for bit.

#![allow(clippy::unwrap_used, reason = "a test may unwrap")]

mod regression;

use std::collections::BTreeMap;
use std::path::Path;

use lowrank_record::Seed;
use lowrank_train::metrics::METRICS_FILE;
use lowrank_train::{
    AdamW, EarlyStop, Event, Method, Outcome, Place, Run, Schedule, Settings, Sgd, Shape, Stop, Stopped,
    TrainError, checkpoints, train,
};
use regression::Regression;

/// Few, because each interrupted run writes to the disk and waits for it.
const STEPS: u64 = 6;

/// How a run is cut short.
#[derive(Clone, Copy)]
enum Cut {
    /// Asked to stop after this many steps.
    Asked(u64),
    /// Dies in the step after this many: nothing is saved.
    Dies(u64),
    No,
}

fn run(
    folder: &Path,
    settings: &Settings,
    place: fn(&Path) -> Place,
    cut: Cut,
) -> (Result<Outcome, TrainError>, Regression) {
    let mut objective = Regression::new(settings.seed.0, 3, settings.accumulation);
    let stop = Stop::default();
    let asked = stop.clone();
    let mut observer = |event: &Event<'_>| match (event, cut) {
        (Event::Step(step), Cut::Asked(at)) if step.step == at => asked.request(),
        _ => {}
    };
    if let Cut::Dies(at) = cut {
        objective.dies_at = Some(at);
    }
    let identity = BTreeMap::from([("data".to_owned(), "regression".to_owned())]);
    let outcome =
        train(&mut objective, settings, &Run { place: place(folder), identity }, &mut observer, &stop);
    (outcome, objective)
}

fn fresh(folder: &Path) -> Place {
    Place::Fresh(folder.to_owned())
}

fn resume(folder: &Path) -> Place {
    Place::Resume(folder.to_owned())
}

/// What must not depend on interruptions: values, metrics, the last checkpoint, and what the outcome says.
fn result(folder: &Path, outcome: &Outcome, objective: &Regression) -> (Vec<u32>, String, Vec<u8>, Outcome) {
    let metrics = std::fs::read_to_string(folder.join(METRICS_FILE)).unwrap();
    let newest = std::fs::read(&checkpoints(folder).unwrap()[0].1).unwrap();
    let outcome = Outcome { resumed: None, checkpoint: None, ..outcome.clone() };
    (objective.bits(), metrics, newest, outcome)
}

fn check(settings: &Settings) {
    let whole = tempfile::tempdir().unwrap();
    let (outcome, objective) = run(whole.path(), settings, fresh, Cut::No);
    let expected = result(whole.path(), &outcome.unwrap(), &objective);
    assert_ne!(
        expected.0,
        Regression::new(settings.seed.0, 3, settings.accumulation).bits(),
        "nothing was trained"
    );

    for at in 1..=settings.steps {
        for cut in [Cut::Asked(at), Cut::Dies(at - 1)] {
            let folder = tempfile::tempdir().unwrap();
            let (first, _) = run(folder.path(), settings, fresh, cut);
            match cut {
                // Asked during the last step, or after it stopped on its own: the run is simply over.
                Cut::Asked(_) if at < expected.3.steps => {
                    assert_eq!(first.unwrap().stopped, Stopped::Interrupted)
                }
                Cut::Dies(_) if at <= expected.3.steps => {
                    first.unwrap_err();
                }
                _ => assert_ne!(first.unwrap().stopped, Stopped::Interrupted),
            }
            let (outcome, objective) = run(folder.path(), settings, resume, Cut::No);
            let got = result(folder.path(), &outcome.unwrap(), &objective);
            assert_eq!(got.1, expected.1, "metrics, cut at {at}, {settings:?}");
            assert!(got == expected, "cut at {at}, {settings:?}:\n{:?}\n{:?}", got.3, expected.3);
        }
    }
}

fn settings(method: Method, shape: Shape, accumulation: u32) -> Settings {
    Settings {
        steps: STEPS,
        accumulation,
        rate: 0.03,
        left_ratio: 4.0,
        weight_decay: 0.01,
        clip_norm: 2.0,
        optimiser: method,
        schedule: Schedule { shape, warmup_steps: 2, warmup_ratio: 0.0, floor: 0.1 },
        eval_every: 4,
        checkpoint_every: 4,
        seed: Seed(11),
        ..Settings::default()
    }
}

fn check_all(method: Method) {
    for shape in [Shape::Constant, Shape::Linear, Shape::Cosine] {
        for accumulation in [1, 3] {
            check(&settings(method, shape, accumulation));
        }
    }
}

#[test]
fn adamw() {
    check_all(Method::AdamW(AdamW::default()));
}

#[test]
fn sgd() {
    check_all(Method::Sgd(Sgd::default()));
}

#[test]
fn sgd_with_momentum() {
    check_all(Method::Sgd(Sgd { momentum: 0.9, nesterov: true }));
}

#[test]
fn with_early_stop_and_the_best_values_restored() {
    let early_stop = Some(EarlyStop { patience: 2, min_improvement: 0.0 });
    let base = settings(Method::default(), Shape::Constant, 1);
    // A rate so large that the held-out loss falls and then rises: it stops early, and the best values are older ones.
    let wild =
        Settings { rate: 0.1, eval_every: 1, early_stop, restore_best: true, checkpoint_every: 2, ..base };
    let folder = tempfile::tempdir().unwrap();
    let outcome = run(folder.path(), &wild, fresh, Cut::No).0.unwrap();
    assert_eq!(outcome.stopped, Stopped::Early);
    assert!(0 < outcome.values_of && outcome.values_of < outcome.steps, "{outcome:?}");
    check(&wild);
}

#[test]
fn interrupted_after_every_single_step() {
    let settings = settings(Method::default(), Shape::Cosine, 2);
    let whole = tempfile::tempdir().unwrap();
    let (outcome, objective) = run(whole.path(), &settings, fresh, Cut::No);
    let expected = result(whole.path(), &outcome.unwrap(), &objective);
    let folder = tempfile::tempdir().unwrap();
    let mut last = run(folder.path(), &settings, fresh, Cut::Asked(1));
    for at in 2..=STEPS {
        last = run(folder.path(), &settings, resume, Cut::Asked(at));
        let resumed = last.0.as_ref().unwrap().resumed.as_ref().unwrap();
        assert_eq!((resumed.step, resumed.missing_metrics), (at - 1, 0));
    }
    assert!(result(folder.path(), last.0.as_ref().unwrap(), &last.1) == expected);
}

#[test]
fn resuming_a_finished_run_changes_nothing() {
    let settings = Settings { restore_best: true, ..settings(Method::default(), Shape::Linear, 1) };
    let folder = tempfile::tempdir().unwrap();
    let (outcome, objective) = run(folder.path(), &settings, fresh, Cut::No);
    let expected = result(folder.path(), &outcome.unwrap(), &objective);
    let (outcome, objective) = run(folder.path(), &settings, resume, Cut::No);
    assert!(result(folder.path(), &outcome.unwrap(), &objective) == expected);
}
