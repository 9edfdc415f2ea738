//! Comparisons through the program: what they write, that they repeat, that they can be gone on with, what they refuse.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // Tests may wait; a failure here is a failure of the test.

mod program;

use std::time::Duration;

use program::{Folder, records};
use serde_json::Value;

/// A comparison of seconds.
fn tiny<'a>(run: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let fixed = [
        "--json",
        "--quiet",
        "compare",
        "--data",
        "data.jsonl",
        "--steps",
        "4",
        "--seeds",
        "2",
        "--rates",
        "2",
        "--batch",
        "2",
        "--max-length",
        "32",
        "--held-out",
        "0.2",
        "--eval-limit",
        "4",
        "--rank",
        "2",
        "--targets",
        "q_proj",
        "--run",
        run,
    ];
    [&fixed[..], more].concat()
}

fn with_data() -> Folder {
    let folder = Folder::new();
    folder.file("data.jsonl", &records());
    folder
}

fn read(folder: &Folder, file: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(folder.path().join(file)).unwrap()).unwrap()
}

/// Method, rate, and the loss of each seed.
fn numbers(compared: &Value) -> Vec<(String, f64, Vec<f64>)> {
    let of = |method: &Value| {
        let runs = method["runs"].as_array().unwrap().iter();
        let losses = runs.map(|run| run["held_out"].as_f64().unwrap()).collect();
        (method["name"].as_str().unwrap().to_owned(), method["rate"].as_f64().unwrap(), losses)
    };
    compared["methods"].as_array().unwrap().iter().map(of).collect()
}

#[test]
fn a_comparison_writes_its_page_and_repeats_itself() {
    let folder = with_data();
    let shown: Value =
        serde_json::from_str(&folder.succeed(&tiny("one", &["--methods", "lora,lora-ga"]))).unwrap();
    let first = read(&folder, "one/compare.json");
    assert_eq!(numbers(&shown), numbers(&first));
    folder.succeed(&tiny("two", &["--methods", "lora,lora-ga"]));
    assert_eq!(
        numbers(&first),
        numbers(&read(&folder, "two/compare.json")),
        "the same seeds, the same numbers"
    );
    let methods = first["methods"].as_array().unwrap();
    assert_eq!(methods[0]["parameters"], methods[1]["parameters"]);
    assert!(methods[0]["difference"].is_null() && methods[1]["difference"]["low"].is_number());
    // The gradient's own directions follow the gradient; random ones hardly do.
    let cosine = |index: usize| methods[index]["first_step_cosine"].as_f64().unwrap();
    assert!(cosine(1) > cosine(0) && (0.0..=1.0).contains(&cosine(1)), "{} {}", cosine(0), cosine(1));
    // Step 0 is the same function on the same examples.
    let before = |index: usize| methods[index]["runs"][0]["held_out_before"].as_f64().unwrap();
    assert!((before(0) - before(1)).abs() < 1e-4);
    let page = std::fs::read_to_string(folder.path().join("one/compare.html")).unwrap();
    for part in ["<svg", "<polygon", "Result", "lora-ga", "interval", "Rates that were tried"] {
        assert!(page.contains(part), "{part}");
    }
    assert!(["<script", "<link", "src=", "href="].iter().all(|outside| !page.contains(outside)));
    // More methods join what is finished; what is finished stays.
    let joined = tiny("one", &["--methods", "lora,lora-ga,pissa@1e-3", "--resume"]);
    let joined: Value = serde_json::from_str(&folder.succeed(&joined)).unwrap();
    assert_eq!(numbers(&joined)[..2], numbers(&first)[..]);
    folder.refuse(&tiny("one", &["--methods", "lora,lora-ga", "--resume", "--alpha", "3"]), 2, &["alpha"]);
    folder.refuse(&tiny("one", &["--methods", "lora,lora-ga"]), 2, &["--resume"]);
}

#[test]
fn a_killed_comparison_goes_on() {
    let folder = with_data();
    let methods = ["--methods", "lora@1e-3,pissa@1e-3"];
    folder.succeed(&tiny("whole", &methods));
    let mut child = folder.command(&tiny("cut", &methods)).spawn().unwrap();
    let done = folder.path().join("cut/methods/lora@1e-3/seed-0/result.json");
    while !done.exists() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let _ = child.kill();
    let _ = child.wait();
    let written = std::fs::metadata(&done).unwrap().modified().unwrap();
    folder.succeed(&tiny("cut", &[&methods[..], &["--resume"]].concat()));
    assert_eq!(numbers(&read(&folder, "whole/compare.json")), numbers(&read(&folder, "cut/compare.json")));
    assert_eq!(
        std::fs::metadata(&done).unwrap().modified().unwrap(),
        written,
        "a finished run is not run again"
    );
}

#[test]
fn what_cannot_be_compared_is_refused() {
    let folder = with_data();
    let refuse = |more: &[&str], words: &[&str]| folder.refuse(&tiny("r", more), 2, words);
    refuse(&["--methods", "lora,pisa"], &["pisa", "did you mean pissa?"]);
    refuse(&["--methods", "lora,pissa,lora"], &["lora is there twice"]);
    refuse(&["--methods", "lora,kaiming+lora"], &["as lora and as kaiming+lora"]);
    refuse(&["--methods", "lora"], &["at least two methods"]);
    refuse(&["--methods", "lora,pissa", "--budget", "10m"], &["--steps and --budget"]);
    // A start that chooses its ranks has as many values as its weights say; the others may be given those.
    let own = ["svfit-full", "chooses the rank", "--equal rank"];
    refuse(&["--methods", "lora,svfit-full", "--equal", "parameters"], &own);
    for (methods, equal) in [("svfit-full,lora", "parameters"), ("lora,svfit-full", "rank")] {
        let planned = folder.succeed(&tiny("r", &["--methods", methods, "--equal", equal, "--dry-run"]));
        assert!(planned.contains("svfit-full"), "{planned}");
    }
    assert!(!folder.path().join("r").exists(), "nothing was begun");
    let budget = ["compare", "--quiet", "--data", "data.jsonl", "--held-out", "0.2", "--run", "r"];
    folder.refuse(&[&budget[..], &["--budget", "1s"]].concat(), 2, &["too small", "give --budget "]);
    folder.refuse(&[&budget[..], &["--budget", "10"]].concat(), 2, &["such as 90s"]);
    folder.refuse(&[&budget[..], &["--seeds", "0"]].concat(), 2, &["--seeds 0"]);
    let none = ["compare", "--quiet", "--data", "data.jsonl", "--held-out", "0", "--steps", "4"];
    folder.refuse(&none, 2, &["at least 2 held-out"]);
}

#[test]
fn a_method_by_name_is_its_parts() {
    let folder = with_data();
    let recipe =
        |more: &[&str]| folder.tell(&[&["tune", "--print-recipe", "--data", "data.jsonl"], more].concat());
    let (printed, _) = recipe(&["--method", "lora-ga-peft"]);
    assert!(
        printed.contains("init = \"lora-ga\"") && printed.contains("variant = \"peft-compat\""),
        "{printed}"
    );
    let (printed, told) = recipe(&["--method", "pissa", "--init", "kaiming"]);
    assert!(printed.contains("init = \"kaiming\"") && told.contains("--init kaiming wins"), "{told}");
    folder.refuse(&["tune", "--data", "data.jsonl", "--method", "pisa"], 2, &["did you mean pissa?"]);
    assert!(folder.succeed(&["list"]).contains("lora-ga-peft"));
    assert!(folder.succeed(&["explain", "lora-ga-peft"]).contains("peft-compat"));
}
