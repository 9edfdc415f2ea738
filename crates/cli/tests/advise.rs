//! Advice and dry runs through the program: what they write, that they agree with runs, what they refuse.
#![allow(clippy::unwrap_used)] // A failure here is a failure of the test.

mod program;

use program::{Folder, QUICK, records};
use serde_json::Value;

fn with_data() -> Folder {
    let folder = Folder::new();
    folder.file("data.jsonl", &records());
    folder
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

const ADVISE: [&str; 9] =
    ["--json", "--quiet", "advise", "--data", "data.jsonl", "--max-length", "32", "--layers", "0-1"];

#[test]
fn one_pass_tells_of_layers_methods_and_ranks() {
    let folder = with_data();
    let more = [
        "--rank",
        "4",
        "--write-ranks",
        "ranks.toml",
        "--methods",
        "lora,pissa,lora-ga,eva,lora-sb,vera,full",
    ];
    let shown = json(&folder.succeed(&[&ADVISE[..], &more].concat()));
    let sites = shown["sites"].as_array().unwrap();
    assert_eq!(sites.len(), 14);
    let seen = |name: &str| {
        let method = shown["methods"].as_array().unwrap().iter().find(|each| each["name"] == name).unwrap();
        method["seen"].as_f64()
    };
    // Two factors along the gradient see the most that two factors can; the core between two others less.
    let most = shown["summed"]["most_seen"].as_f64().unwrap();
    assert!((seen("lora-ga").unwrap() / most - 1.0).abs() < 0.02, "{:?} {most}", seen("lora-ga"));
    for name in ["lora", "pissa", "eva", "lora-sb"] {
        assert!(seen(name).unwrap() < most, "{name}");
    }
    assert!(seen("lora").unwrap() < seen("eva").unwrap(), "inputs are in few directions");
    assert!((seen("full").unwrap() - 1.0).abs() < 1e-12, "a whole weight sees all of it: {:?}", seen("full"));
    assert_eq!(seen("vera"), None);
    // The same sum of ranks, and a recipe that gives them.
    let sum: u64 = sites.iter().map(|site| site["anew_by_inputs"].as_u64().unwrap()).sum();
    assert_eq!(sum, 14 * 4);
    let recipe = std::fs::read_to_string(folder.path().join("ranks.toml")).unwrap();
    assert!(recipe.contains("[rank-pattern]"), "{recipe}");
    let dry = ["--json", "--quiet", "tune", "--recipe", "ranks.toml", "--data", "data.jsonl", "--dry-run"];
    let planned = json(&folder.succeed(&[&dry[..], &["--init", "kaiming"]].concat()));
    for site in sites {
        let rank = site["anew_by_inputs"].as_u64().unwrap();
        let name = site["site"].as_str().unwrap();
        let found = planned["sites"].as_array().unwrap().iter().find(|each| each[0] == name);
        assert_eq!(found.map_or(0, |each| each[1].as_u64().unwrap()), rank, "{name}");
    }
    let page = std::fs::read_to_string(folder.path().join("advise/advise.html")).unwrap();
    for part in ["<svg", "alignment is not accuracy", "prefers-color-scheme", "k_proj"] {
        assert!(page.contains(part), "{part}");
    }
    assert!(["<script", "<link", "src=", "href="].iter().all(|outside| !page.contains(outside)));
    // The same call gives the same numbers.
    let again = json(&folder.succeed(&[&ADVISE[..], &["--rank", "4"]].concat()));
    assert_eq!(again["sites"][3]["gradient"], shown["sites"][3]["gradient"]);
}

#[test]
fn what_cannot_be_advised_is_refused() {
    let folder = with_data();
    let refuse = |more: &[&str], words: &[&str]| folder.refuse(&[&ADVISE[2..], more].concat(), 2, words);
    refuse(&["--share", "1.5"], &["--share 1.5"]);
    refuse(&["--rho", "0"], &["--rho 0"]);
    refuse(&["--methods", "lora,pisa"], &["did you mean pissa?"]);
    folder.file("taken.toml", "");
    refuse(&["--write-ranks", "taken.toml"], &["taken.toml"]);
    assert!(!folder.path().join("advise").exists(), "nothing was written");
}

/// Every method of `lowrank list`, with what it needs beside its name.
const METHODS: [&[&str]; 31] = [
    &["lora"],
    &["lora-gaussian"],
    &["lora-orthogonal"],
    &["pissa"],
    &["lora-ga"],
    &["lora-ga-peft"],
    &["lora-ga-control"],
    &["olora"],
    &["milora"],
    &["mica"],
    &["eva"],
    &["corda"],
    &["lora-xs"],
    &["lora-sb"],
    &["slora"],
    &["nlora"],
    &["inttune"],
    &["loldu"],
    &["svfit"],
    &["loftq", "--base-out", "base"],
    &["qpissa", "--base-out", "base"],
    &["dora"],
    &["lora-fa"],
    &["vera"],
    &["ia3"],
    &["loha"],
    &["lokr"],
    &["oft"],
    &["boft"],
    &["full"],
    &["adalora"],
];

#[test]
fn a_dry_run_counts_what_is_trained() {
    let folder = with_data();
    let listed = folder.succeed(&["list"]);
    for (index, method) in METHODS.iter().enumerate() {
        assert!(listed.contains(method[0]), "{}", method[0]);
        let out = format!("adapter-{index}");
        let flags: Vec<&str> =
            QUICK[..].chunks(2).filter(|pair| pair[0] != "--steps").flatten().copied().collect();
        let fixed = [
            "--json",
            "--quiet",
            "init",
            "--data",
            "data.jsonl",
            "--targets",
            "k_proj,down_proj",
            "--layers",
            "0-1",
        ];
        // Steps enough for a form that plans over them.
        let own = ["--steps", "40", "--out", &out, "--overwrite", "--method"];
        let all = [&fixed[..], &flags, &own, method].concat();
        let planned = json(&folder.succeed(&[&all[..], &["--dry-run"]].concat()));
        let begun = json(&folder.succeed(&all));
        assert_eq!(planned["parameters"], begun["parameters"], "{}", method[0]);
        let evidence = planned["methods"][0]["evidence_seconds"].as_f64().unwrap();
        assert_eq!(evidence > 0.0, begun["evidence_seconds"].as_f64().unwrap() > 0.0, "{}", method[0]);
    }
}

#[test]
fn what_would_be_ignored_is_refused() {
    let folder = with_data();
    let tune = |more: &[&str], words: &[&str]| {
        folder.refuse(&[&["tune", "--data", "data.jsonl", "--dry-run"], more].concat(), 2, words);
    };
    tune(&["--calibration-batch", "4"], &["--calibration-batch 4", "--calibration N"]);
    for form in ["dora", "ia3", "loha", "lokr", "oft", "boft"] {
        tune(&["--method", form, "--recompress"], &["--recompress", form]);
    }
}
