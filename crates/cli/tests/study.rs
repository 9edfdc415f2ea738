//! Studies through the program: every one in its small version, what is written, and the verdict on a comparison.
#![allow(clippy::unwrap_used)] // A failure here is a failure of the test.

mod program;

use program::{Folder, records};
use serde_json::Value;

const SYSTEMS: [&str; 6] = ["lora-ga", "lora-sb", "eva", "loldu", "nlora", "svfit"];

fn read(folder: &Folder, file: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(folder.path().join(file)).unwrap()).unwrap()
}

/// Mean of a number over the runs of an arm at its own rate.
fn mean(result: &Value, arm: &str, number: &str) -> f64 {
    let arms = result["arms"].as_array().unwrap();
    let arm = arms.iter().find(|each| each["name"] == arm).unwrap();
    let runs = arm["tuned"]["runs"].as_array().unwrap();
    runs.iter().map(|run| run[number].as_f64().unwrap()).sum::<f64>() / runs.len() as f64
}

#[test]
fn every_study_leaves_a_folder_that_runs_it_again() {
    let folder = Folder::new();
    for system in SYSTEMS {
        folder.succeed(&["--quiet", "study", system, "--quick", "--run", system]);
        let result = read(&folder, &format!("{system}/result.json"));
        assert_eq!((result["study"].as_str(), result["quick"].as_bool()), (Some(system), Some(true)));
        for statement in result["statements"].as_array().unwrap() {
            assert_ne!(statement["found"], "not-run", "{system}: {statement}");
        }
        // Learning is large and certain: every arm with thousands of values leaves the pretrained network behind.
        let arms = result["arms"].as_array().unwrap();
        let before = mean(&result, "before", "last");
        for arm in arms.iter().filter(|arm| arm["parameters"].as_u64().unwrap() > 1000) {
            let name = arm["name"].as_str().unwrap();
            assert!(mean(&result, name, "last") < 0.95 * before, "{system}: {name}");
        }
        let text = |file: &str| std::fs::read_to_string(folder.path().join(system).join(file)).unwrap();
        let note = text("NOTE.md");
        for part in
            ["# ", "**Question.**", "**Command.** `lowrank study", "**Answer.**", "## What was not shown"]
        {
            assert!(note.contains(part), "{system}: {part}");
        }
        let page = text("study.html");
        assert!(page.contains("<svg") && !page.contains("<script"), "{system}");
    }
    let recipe = folder.path().join("eva/recipe.toml");
    folder.succeed(&["--quiet", "study", "--recipe", recipe.to_str().unwrap(), "--run", "again"]);
    assert_eq!(read(&folder, "eva/result.json"), read(&folder, "again/result.json"));
    folder.refuse(&["study", "eva", "--quick", "--run", "again"], 2, &["again", "--run"]);
}

#[test]
fn a_finished_comparison_is_judged_by_the_same_rule() {
    let folder = Folder::new();
    folder.file("data.jsonl", &records());
    let compare = [
        "--quiet",
        "compare",
        "--data",
        "data.jsonl",
        "--steps",
        "8",
        "--seeds",
        "2",
        "--rates",
        "1",
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
        "--methods",
        "lora,lora-ga,lora-ga-control",
        "--run",
        "run",
    ];
    folder.succeed(&compare);
    let shown =
        folder.succeed(&["--quiet", "study", "lora-ga", "--verdict", "run/compare.json", "--run", "judged"]);
    assert!(shown.starts_with("LoRA-GA on ") && shown.contains("not run"), "{shown}");
    let (result, compared) = (read(&folder, "judged/result.json"), read(&folder, "run/compare.json"));
    // The margin of "its held-out loss is below LoRA's" is the difference that the comparison told, turned round.
    let statement = &result["statements"][1];
    let told = compared["methods"][1]["difference"]["mean"].as_f64().unwrap();
    let found = statement["margin"]["mean"].as_f64().unwrap();
    assert!((found + told).abs() < 1e-9, "{found} {told}");
    let recipe = std::fs::read_to_string(folder.path().join("judged/recipe.toml")).unwrap();
    assert!(recipe.contains("data = \"data.jsonl\"") && !recipe.contains("run ="), "{recipe}");
    let eva = ["study", "eva", "--verdict", "run/compare.json"];
    folder.refuse(&eva, 2, &["no statement of eva can be judged", "eva was not run"]);
}

#[test]
fn studies_are_listed_and_refused_by_name() {
    let folder = Folder::new();
    let listed = folder.succeed(&["study"]);
    assert!(SYSTEMS.iter().all(|system| listed.contains(system)) && listed.contains("arxiv.org"), "{listed}");
    folder.refuse(&["study", "lora-gg"], 2, &["lora-gg", "lora-ga, lora-sb, eva"]);
    folder.refuse(&["study", "eva", "--verdict", "none.json", "--quick"], 2, &["--quick", "--verdict"]);
    let planned = folder.succeed(&["study", "svfit", "--dry-run"]);
    assert!(planned.contains("statement: ") && planned.contains("rule: "), "{planned}");
}
