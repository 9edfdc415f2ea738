//! What goes wrong: damaged checkpoints, other settings, losses that are not finite.

#![allow(clippy::unwrap_used, reason = "a test may unwrap")]

mod regression;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lowrank_record::Seed;
use lowrank_train::metrics::METRICS_FILE;
use lowrank_train::{
    AdamW, Event, Failure, Method, Objective, Outcome, Parameter, Place, Run, Schedule, Settings, Shape,
    Stop, TrainError, checkpoints, train,
};
use regression::Regression;

fn settings() -> Settings {
    Settings { steps: 8, rate: 0.05, checkpoint_every: 2, keep_last: 3, seed: Seed(2), ..Settings::default() }
}

fn run_with(
    objective: &mut Regression,
    place: Place,
    settings: &Settings,
    data: &str,
    stop_at: u64,
) -> Result<Outcome, TrainError> {
    let identity = BTreeMap::from([("data".to_owned(), data.to_owned())]);
    let stop = Stop::default();
    let asked = stop.clone();
    let mut observer = |event: &Event<'_>| {
        if matches!(event, Event::Step(step) if step.step == stop_at) {
            asked.request();
        }
    };
    train(objective, settings, &Run { place, identity }, &mut observer, &stop)
}

fn run(
    place: Place,
    settings: &Settings,
    data: &str,
    stop_at: u64,
) -> (Result<Outcome, TrainError>, Vec<u32>) {
    let mut objective = Regression::new(2, 3, settings.accumulation);
    let outcome = run_with(&mut objective, place, settings, data, stop_at);
    (outcome, objective.bits())
}

fn fresh(folder: &Path) -> Place {
    Place::Fresh(folder.to_owned())
}

fn resume(folder: &Path) -> Place {
    Place::Resume(folder.to_owned())
}

fn file(folder: &Path, step: u64) -> PathBuf {
    folder.join(format!("checkpoint-{step:06}.safetensors"))
}

fn steps(folder: &Path) -> Vec<u64> {
    checkpoints(folder).unwrap().into_iter().map(|(step, _)| step).collect()
}

/// Damages the newest checkpoint of a run that was stopped at step 6, and resumes.
fn check_damage(damage: impl Fn(Vec<u8>) -> Vec<u8>) {
    let whole = tempfile::tempdir().unwrap();
    let (_, expected) = run(fresh(whole.path()), &settings(), "a", 0);
    let folder = tempfile::tempdir().unwrap();
    run(fresh(folder.path()), &settings(), "a", 6).0.unwrap();
    let newest = file(folder.path(), 6);
    std::fs::write(&newest, damage(std::fs::read(&newest).unwrap())).unwrap();
    let (outcome, bits) = run(resume(folder.path()), &settings(), "a", 0);
    let resumed = outcome.unwrap().resumed.unwrap();
    assert_eq!((resumed.step, resumed.path), (4, Some(file(folder.path(), 4))));
    assert_eq!(resumed.skipped.len(), 1);
    assert_eq!(resumed.skipped[0].path, newest);
    assert!(!resumed.skipped[0].reason.is_empty());
    assert_eq!(bits, expected);
    let metrics = |folder: &Path| std::fs::read_to_string(folder.join(METRICS_FILE)).unwrap();
    assert_eq!(metrics(folder.path()), metrics(whole.path()));
    // The damaged one was written anew when its step was reached.
    assert_eq!(std::fs::read(newest).unwrap(), std::fs::read(file(whole.path(), 6)).unwrap());
}

#[test]
fn a_damaged_checkpoint_is_reported_and_the_one_before_is_used() {
    check_damage(|bytes| bytes[..bytes.len() / 2].to_vec());
    check_damage(|bytes| bytes[..bytes.len() - 1].to_vec());
    check_damage(|_| Vec::new());
    check_damage(|bytes| [bytes, vec![0]].concat());
    for part in 0..7 {
        check_damage(|mut bytes| {
            let at = bytes.len() * part / 7 + 3;
            bytes[at] ^= 0x10;
            bytes
        });
    }
}

#[test]
fn a_damaged_newer_checkpoint_does_not_push_out_a_good_older_one() {
    let folder = tempfile::tempdir().unwrap();
    run(fresh(folder.path()), &settings(), "a", 6).0.unwrap();
    std::fs::write(file(folder.path(), 6), b"torn").unwrap();
    let keep_one = Settings { keep_last: 1, ..settings() };
    run(resume(folder.path()), &keep_one, "a", 5).0.unwrap();
    assert_eq!(steps(folder.path()), [6, 5]);
    let resumed = run(resume(folder.path()), &keep_one, "a", 0).0.unwrap().resumed.unwrap();
    assert_eq!((resumed.step, resumed.skipped.len()), (5, 1));
    assert_eq!(steps(folder.path()), [8]);
}

#[test]
fn no_readable_checkpoint_is_an_error_not_a_new_beginning() {
    let folder = tempfile::tempdir().unwrap();
    run(fresh(folder.path()), &settings(), "a", 6).0.unwrap();
    for (_, path) in checkpoints(folder.path()).unwrap() {
        std::fs::write(path, b"torn").unwrap();
    }
    let metrics = std::fs::read(folder.path().join(METRICS_FILE)).unwrap();
    let error = run(resume(folder.path()), &settings(), "a", 0).0.unwrap_err();
    assert!(matches!(error, TrainError::NoneReadable { count: 3, .. }), "{error}");
    assert!(error.to_string().contains("checkpoint-000006"), "{error}");
    assert_eq!(std::fs::read(folder.path().join(METRICS_FILE)).unwrap(), metrics, "nothing is touched");
}

#[test]
fn a_checkpoint_under_another_step_s_name_is_not_believed() {
    let folder = tempfile::tempdir().unwrap();
    run(fresh(folder.path()), &settings(), "a", 6).0.unwrap();
    std::fs::rename(file(folder.path(), 6), file(folder.path(), 7)).unwrap();
    let resumed = run(resume(folder.path()), &settings(), "a", 0).0.unwrap().resumed.unwrap();
    assert_eq!((resumed.step, resumed.skipped.len()), (4, 1));
}

#[test]
fn other_settings_or_data_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    run(fresh(folder.path()), &settings(), "a", 6).0.unwrap();
    let before = std::fs::read(folder.path().join(METRICS_FILE)).unwrap();
    let base = settings;
    let beta = Method::AdamW(AdamW { beta2: 0.95, ..AdamW::default() });
    let cosine = Schedule { shape: Shape::Cosine, ..Schedule::default() };
    for (settings, data, field) in [
        (Settings { rate: 0.051, ..base() }, "a", "rate = 0.05,"),
        (Settings { steps: 9, ..base() }, "a", "steps = 8,"),
        (Settings { accumulation: 2, ..base() }, "a", "accumulation"),
        (Settings { optimiser: beta, ..base() }, "a", "optimiser.beta2"),
        (Settings { schedule: cosine, ..base() }, "a", "schedule.shape"),
        (Settings { seed: Seed(1), ..base() }, "a", "seed"),
        (base(), "b", "data = a, but now it is b"),
    ] {
        let error = run(resume(folder.path()), &settings, data, 0).0.unwrap_err();
        assert!(matches!(error, TrainError::Differs { .. }), "{error}");
        assert!(error.to_string().contains(field), "{error}");
    }
    assert_eq!(std::fs::read(folder.path().join(METRICS_FILE)).unwrap(), before, "nothing is touched");
    // How often and how many to keep decides no number.
    let kept = Settings { checkpoint_every: 1, keep_last: 1, ..base() };
    run(resume(folder.path()), &kept, "a", 0).0.unwrap();
    assert_eq!(steps(folder.path()), [8]);
}

/// A regression whose second parameter has another name or shape.
struct Renamed(Regression, &'static str, [usize; 2]);

impl Objective for Renamed {
    fn parameters(&self) -> Vec<Parameter> {
        let mut parameters = self.0.parameters();
        parameters[1].name = self.1.to_owned();
        parameters[1].shape = self.2;
        parameters
    }
    fn assign(&mut self, index: usize, value: &[f32]) -> Result<(), Failure> {
        self.0.assign(index, value)
    }
    fn gradients(&mut self, step: u64, micro: u32) -> Result<lowrank_train::Evaluated, Failure> {
        self.0.gradients(step, micro)
    }
    fn evaluate(&mut self) -> Result<lowrank_train::Evaluation, Failure> {
        self.0.evaluate()
    }
}

#[test]
fn other_tensors_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    run(fresh(folder.path()), &settings(), "a", 6).0.unwrap();
    let check = |name: &'static str, shape: [usize; 2], place: Place| {
        let identity = BTreeMap::from([("data".to_owned(), "a".to_owned())]);
        let mut objective = Renamed(Regression::new(2, 3, 1), name, shape);
        train(&mut objective, &settings(), &Run { place, identity }, &mut (), &Stop::default())
    };
    for (name, shape) in [("layer.other", [2, 7]), ("layer.right", [7, 2])] {
        let error = check(name, shape, resume(folder.path())).unwrap_err();
        assert!(matches!(error, TrainError::Differs { .. }), "{error}");
        assert!(error.to_string().contains("layer."), "{error}");
    }
    let error = check("layer.left", [2, 7], Place::Nowhere).unwrap_err();
    assert!(matches!(error, TrainError::SameName { .. }), "{error}");
    let error = check("layer.right", [2, 8], Place::Nowhere).unwrap_err();
    assert!(matches!(error, TrainError::Size { what: "value", got: 14, .. }), "{error}");
}

#[test]
fn a_fresh_run_overwrites_nothing() {
    let folder = tempfile::tempdir().unwrap();
    run(fresh(folder.path()), &settings(), "a", 6).0.unwrap();
    let error = run(fresh(folder.path()), &settings(), "a", 0).0.unwrap_err();
    assert!(matches!(error, TrainError::FolderInUse { .. }), "{error}");
    for (_, path) in checkpoints(folder.path()).unwrap() {
        std::fs::remove_file(path).unwrap();
    }
    let error = run(fresh(folder.path()), &settings(), "a", 0).0.unwrap_err();
    assert!(error.to_string().contains(METRICS_FILE), "{error}");
}

#[test]
fn only_the_last_checkpoints_are_kept() {
    for (keep_last, kept) in [(1, vec![8]), (3, vec![8, 6, 4]), (0, vec![8, 6, 4, 2])] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("checkpoint-000001.safetensors.tmp"), b"left by a kill").unwrap();
        std::fs::write(folder.path().join("checkpoint-1.safetensors"), b"not ours").unwrap();
        run(fresh(folder.path()), &Settings { keep_last, ..settings() }, "a", 0).0.unwrap();
        assert_eq!(steps(folder.path()), kept);
        assert!(folder.path().join("checkpoint-1.safetensors").exists());
    }
}

#[test]
fn a_loss_or_gradient_that_is_not_finite_stops_and_keeps_the_last_checkpoint() {
    let check = |poison: (u64, Option<usize>, f32)| {
        let folder = tempfile::tempdir().unwrap();
        let mut objective = Regression::new(2, 3, 1);
        objective.poison = Some(poison);
        let settings = Settings { clip_norm: 0.0, ..settings() };
        let error = run_with(&mut objective, fresh(folder.path()), &settings, "a", 0).unwrap_err();
        assert_eq!(steps(folder.path()), [4, 2]);
        // Healthy again, it goes on from there.
        let outcome = run(resume(folder.path()), &settings, "a", 0).0.unwrap();
        assert_eq!((outcome.steps, outcome.resumed.unwrap().step), (8, 4));
        error
    };
    let error = check((5, None, f32::NAN));
    assert!(matches!(error, TrainError::LossNotFinite { step: 6, micro: 0, .. }), "{error}");
    let error = check((4, Some(1), f32::NEG_INFINITY));
    assert!(matches!(&error, TrainError::GradientNotFinite { step: 5, entry: 3, .. }), "{error}");
    assert!(error.to_string().contains("layer.right"), "{error}");
    let error = check((5, Some(0), 1e25));
    assert!(matches!(error, TrainError::GradientTooLarge { step: 6, .. }), "{error}");
}

#[test]
fn a_step_that_overflows_is_refused_before_the_objective_sees_it() {
    let mut objective = Regression::new(2, 3, 1);
    let before = objective.bits();
    let settings = Settings {
        rate: 1e38,
        clip_norm: 0.0,
        optimiser: Method::Sgd(lowrank_train::Sgd::default()),
        ..settings()
    };
    let error = run_with(&mut objective, Place::Nowhere, &settings, "a", 0).unwrap_err();
    assert!(matches!(error, TrainError::ValueNotFinite { step: 1, .. }), "{error}");
    assert_eq!(objective.bits(), before);
    objective.values[2][1] = f32::NAN;
    let error = run_with(&mut objective, Place::Nowhere, &settings, "a", 0).unwrap_err();
    assert!(matches!(error, TrainError::ValueNotFinite { step: 0, entry: 1, .. }), "{error}");
}
