//! Processes that die: killed with signal 9 at random moments, and a disk that takes no more.
//!
//! Each test is its own child: the parent starts this test binary again with the folder in the environment.

#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may unwrap, and the child speaks through its output"
)]

mod regression;

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use lowrank_record::Seed;
use lowrank_train::metrics::METRICS_FILE;
use lowrank_train::{
    Event, Objective, Outcome, Parameter, Place, Run, Settings, Stop, Stopped, TrainError, checkpoints, train,
};
use regression::Regression;

const FOLDER: &str = "LOWRANK_TEST_FOLDER";

fn settings() -> Settings {
    Settings {
        steps: 300,
        accumulation: 2,
        rate: 0.01,
        left_ratio: 4.0,
        eval_every: 10,
        checkpoint_every: 6,
        seed: Seed(3),
        ..Settings::default()
    }
}

fn run(
    place: Place,
    settings: &Settings,
    observer: &mut dyn lowrank_train::Observer,
) -> Result<Outcome, TrainError> {
    let mut objective = Regression::new(settings.seed.0, 4, settings.accumulation);
    train(&mut objective, settings, &Run { place, ..Run::default() }, observer, &Stop::default())
}

/// The files of a finished run: its metrics and the checkpoint of its last step, which holds the adapter.
fn files(folder: &Path) -> (String, String, Vec<u8>) {
    let (_, newest) = checkpoints(folder).unwrap().remove(0);
    let name = newest.file_name().unwrap().to_string_lossy().into_owned();
    (std::fs::read_to_string(folder.join(METRICS_FILE)).unwrap(), name, std::fs::read(newest).unwrap())
}

#[test]
fn killed_ten_times_and_resumed_is_never_killed() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        // The child: slow enough that the signal comes before its end on a busy machine too, and telling where it is.
        let mut tell = |event: &Event<'_>| {
            if let Event::Step(step) = event {
                println!("step {}", step.step);
                std::thread::sleep(Duration::from_millis(1));
            }
        };
        run(Place::Resume(PathBuf::from(folder)), &settings(), &mut tell).unwrap();
        return;
    }
    let whole = tempfile::tempdir().unwrap();
    run(Place::Fresh(whole.path().to_owned()), &settings(), &mut ()).unwrap();

    let folder = tempfile::tempdir().unwrap();
    for (kill, draw) in Seed(77).permutation(20).into_iter().take(10).enumerate() {
        let target = 20 * kill as u64 + draw as u64 + 1;
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "killed_ten_times_and_resumed_is_never_killed", "--nocapture"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        // It runs on while the signal is on its way: the moment is as random as the machine makes it.
        let seen = lines
            .filter_map(|line| line.rsplit_once("step ")?.1.parse::<u64>().ok())
            .find(|&step| step >= target);
        child.kill().unwrap();
        let status = child.wait().unwrap();
        assert!(seen.is_some(), "kill {kill}: the child ended before step {target}");
        assert_eq!(status.signal(), Some(9), "kill {kill} came too late");
    }
    let outcome = run(Place::Resume(folder.path().to_owned()), &settings(), &mut ()).unwrap();
    assert_eq!(outcome.stopped, Stopped::Finished);
    let resumed = outcome.resumed.unwrap();
    assert!(resumed.step > 0 && resumed.skipped.is_empty() && resumed.missing_metrics == 0, "{resumed:?}");
    assert!(files(folder.path()) == files(whole.path()));
}

/// A regression with one large parameter beside, so that a checkpoint is larger than the limit on files.
struct Large(Regression, Vec<f32>);

impl Objective for Large {
    fn parameters(&self) -> Vec<Parameter> {
        let mut parameters = self.0.parameters();
        let first = parameters[0].clone();
        parameters.push(Parameter { name: "large".into(), shape: [64, 200], value: self.1.clone(), ..first });
        parameters
    }

    fn assign(&mut self, index: usize, value: &[f32]) -> Result<(), lowrank_train::Failure> {
        if index < 3 {
            return self.0.assign(index, value);
        }
        self.1.copy_from_slice(value);
        Ok(())
    }

    fn gradients(
        &mut self,
        step: u64,
        micro: u32,
    ) -> Result<lowrank_train::Evaluated, lowrank_train::Failure> {
        let mut evaluated = self.0.gradients(step, micro)?;
        // The gradient of ½·weight·‖large‖².
        evaluated.gradients.push(self.1.iter().map(|value| value * evaluated.weight as f32).collect());
        Ok(evaluated)
    }

    fn evaluate(&mut self) -> Result<lowrank_train::Evaluation, lowrank_train::Failure> {
        self.0.evaluate()
    }
}

#[test]
fn a_full_disk_keeps_the_checkpoint_before() {
    let settings = Settings { steps: 9, checkpoint_every: 3, seed: Seed(3), ..Settings::default() };
    let large = |place: Place, steps_before_stop: u64| {
        let mut objective = Large(Regression::new(3, 4, 1), Seed(5).normal(64 * 200));
        let stop = Stop::default();
        let asked = stop.clone();
        let mut observer = |event: &Event<'_>| {
            if matches!(event, Event::Step(step) if step.step == steps_before_stop) {
                asked.request();
            }
        };
        train(&mut objective, &settings, &Run { place, ..Run::default() }, &mut observer, &stop)
    };
    if let Some(folder) = std::env::var_os(FOLDER) {
        let error = large(Place::Resume(PathBuf::from(folder)), 0).unwrap_err();
        assert!(matches!(error, TrainError::Save { step: 6, .. }), "{error}");
        println!("refused as it should be");
        return;
    }
    let whole = tempfile::tempdir().unwrap();
    large(Place::Fresh(whole.path().to_owned()), 0).unwrap();

    let folder = tempfile::tempdir().unwrap();
    large(Place::Fresh(folder.path().to_owned()), 3).unwrap();
    let before = files(folder.path());
    assert_eq!(before.1, "checkpoint-000003.safetensors");
    // The shell limits files to a few KiB, and has the write fail instead of killing the process.
    let child = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 16; exec \"$0\" --exact \"$1\" --nocapture"])
        .arg(std::env::current_exe().unwrap())
        .arg("a_full_disk_keeps_the_checkpoint_before")
        .env(FOLDER, folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout).into_owned();
    assert!(child.status.success() && said.contains("refused as it should be"), "{child:?}");
    let after = files(folder.path());
    assert_eq!((&after.1, &after.2), (&before.1, &before.2));
    assert_eq!(checkpoints(folder.path()).unwrap().len(), 1);

    let outcome = large(Place::Resume(folder.path().to_owned()), 0).unwrap();
    assert_eq!(outcome.resumed.unwrap().step, 3);
    assert!(files(folder.path()) == files(whole.path()));
}
