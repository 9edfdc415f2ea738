//! A run killed at a random moment and resumed ends in the same bytes as one that was never interrupted.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // Tests may wait; a failure here is a failure of the test.

mod program;

use std::time::Duration;

use lowrank_record::Seed;
use program::{Folder, QUICK, records};

fn arguments<'a>(init: &'a str, run: &'a str, resume: bool) -> Vec<&'a str> {
    let mut all = vec![
        "tune",
        "--data",
        "data.jsonl",
        "--quiet",
        "--init",
        init,
        "--run",
        run,
        "--checkpoint-every",
        "2",
        "--eval-every",
        "3",
    ];
    all.extend(QUICK);
    all.extend(["--accumulate", "2"]);
    if resume {
        all.push("--resume");
    }
    all
}

/// The same with so many steps that a kill comes before the end on any machine.
fn long(run: &str, resume: bool) -> Vec<&str> {
    let mut all = arguments("lora-ga", run, resume);
    let steps = all.iter().position(|&option| option == "--steps").unwrap() + 1;
    all[steps] = "60";
    all
}

/// Ten moments at which a run is killed: so many lines of metrics are there, and then a little later. The moments
/// follow the run's own progress, not the clock, since a machine may be fast or busy.
#[test]
fn killed_ten_times_and_resumed_is_never_interrupted() {
    let folder = Folder::new();
    folder.file("data.jsonl", &records());
    folder.succeed(&long("whole", false));
    let metrics = folder.path().join("cut/metrics.jsonl");
    let lines = || std::fs::read_to_string(&metrics).map_or(0, |text| text.lines().count());
    let delays = Seed(9).at("kill", "delay").uniform(10, 1.0);
    let (mut started, mut killed) = (false, 0);
    for (time, delay) in delays.into_iter().enumerate() {
        let mut child = folder.command(&long("cut", started)).spawn().unwrap();
        // The first two die while the start is computed or before.
        while time > 1 && lines() < 4 * time && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis((delay.abs() * 20.0) as u64));
        killed += usize::from(child.try_wait().unwrap().is_none());
        // SIGKILL: no handler runs, nothing is flushed.
        let _ = child.kill();
        let _ = child.wait();
        started = folder.path().join("cut/recipe.toml").exists();
    }
    assert_eq!(killed, 10, "the others were over");
    let loud: Vec<&str> = long("cut", started).into_iter().filter(|&option| option != "--quiet").collect();
    let (_, told) = folder.tell(&loud);
    let from = told.lines().find_map(|line| line.strip_prefix("going on from step ")?.parse::<u64>().ok());
    assert!(from.is_some_and(|step| step > 0), "it began again: {told}");
    same(&folder, "whole", "cut");
}

/// Two runs came to the same bytes.
fn same(folder: &Folder, one: &str, other: &str) {
    for file in [
        "adapter/adapter_model.safetensors",
        "adapter/adapter_config.json",
        "metrics.jsonl",
        "start.safetensors",
    ] {
        let read = |run: &str| std::fs::read(folder.path().join(run).join(file)).unwrap();
        assert!(read(one) == read(other), "{file} differs");
    }
}

#[cfg(unix)]
#[test]
fn interrupted_and_resumed_is_never_interrupted() {
    let folder = Folder::new();
    folder.file("data.jsonl", &records());
    folder.succeed(&long("whole", false));
    let mut command = folder.command(&long("cut", false));
    let mut child = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
    let metrics = folder.path().join("cut/metrics.jsonl");
    let lines = || std::fs::read_to_string(&metrics).map_or(0, |text| text.lines().count());
    while lines() < 7 && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let asked = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(asked.unwrap().success());
    let output = child.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(
        errors.contains("stopping when this step is done") && errors.contains("--resume --run cut"),
        "{errors}"
    );
    let before = lines();
    assert!((7..61).contains(&before), "{before}");
    folder.succeed(&long("cut", true));
    assert_eq!(lines(), 61);
    same(&folder, "whole", "cut");
}

#[test]
fn a_resumed_run_replaces_no_adapter_but_its_own() {
    let folder = Folder::new();
    folder.file("data.jsonl", &records());
    let with_out = |init: &'static str, run: &'static str, resume| {
        [&arguments(init, run, resume)[..], &["--out", "adapter"]].concat()
    };
    folder.succeed(&with_out("kaiming", "r", false));
    let bytes = || std::fs::read(folder.path().join("adapter/adapter_model.safetensors")).unwrap();
    let first = bytes();
    // Its own, written once more.
    folder.succeed(&with_out("kaiming", "r", true));
    assert!(bytes() == first);
    // Another run that was stopped before its end.
    folder.succeed(&arguments("gaussian", "other", false));
    folder.refuse(&with_out("gaussian", "other", true), 2, &["adapter exists already", "--overwrite"]);
    assert!(bytes() == first);
}

#[test]
fn a_run_of_another_recipe_is_not_gone_on_with() {
    let folder = Folder::new();
    folder.file("data.jsonl", &records());
    folder.succeed(&arguments("kaiming", "r", false));
    let recipe = || std::fs::read_to_string(folder.path().join("r/recipe.toml")).unwrap();
    let before = recipe();
    let refuse = |init: &'static str, more: &[&str], words: &[&str]| {
        folder.refuse(&[&arguments(init, "r", true)[..], more].concat(), 2, words);
    };
    refuse("kaiming", &["--alpha", "3"], &["alpha = 16", "now it is 3"]);
    refuse("kaiming", &["--held-out", "0.04"], &["data = ", "now it is"]);
    refuse("kaiming", &["--lora-plus", "4"], &["--lora-plus = 1"]);
    // The start alone already says what it was made for, before there is a checkpoint.
    for entry in std::fs::read_dir(folder.path().join("r")).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_string_lossy().starts_with("checkpoint-") {
            std::fs::remove_file(path).unwrap();
        }
    }
    refuse("gaussian", &[], &["init = kaiming", "now it is gaussian"]);
    assert_eq!(recipe(), before, "a refused run leaves the recipe of the run as it was");
}
