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

#[test]
fn killed_ten_times_and_resumed_is_never_interrupted() {
    let folder = Folder::new();
    folder.file("data.jsonl", &records());
    folder.succeed(&arguments("lora-ga", "whole", false));
    let waits = Seed(9).at("kill", "wait").uniform(10, 1.0);
    let mut started = false;
    for wait in waits {
        let mut child = folder.command(&arguments("lora-ga", "cut", started)).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(150 + (wait.abs() * 700.0) as u64));
        // SIGKILL: no handler runs, nothing is flushed.
        let _ = child.kill();
        let _ = child.wait();
        started = folder.path().join("cut/recipe.toml").exists();
    }
    folder.succeed(&arguments("lora-ga", "cut", started));
    for file in [
        "adapter/adapter_model.safetensors",
        "adapter/adapter_config.json",
        "metrics.jsonl",
        "start.safetensors",
    ] {
        let read = |run: &str| std::fs::read(folder.path().join(run).join(file)).unwrap();
        assert!(read("whole") == read("cut"), "{file} differs");
    }
}

#[test]
fn a_run_of_another_recipe_is_not_gone_on_with() {
    let folder = Folder::new();
    folder.file("data.jsonl", &records());
    folder.succeed(&arguments("kaiming", "r", false));
    let mut other = arguments("kaiming", "r", true);
    other.extend(["--alpha", "3"]);
    let output = folder.run(&other);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && errors.contains("plan"), "{errors}");
}
