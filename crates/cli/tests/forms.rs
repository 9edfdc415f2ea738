//! Forms through the program: AdaLoRA's schedule with its resume and its file, VeRA's two files, several adapters in `generate`, and what
//! `inspect` tells of typed folders.
#![allow(clippy::unwrap_used, clippy::panic)] // A failure here is a failure of the test.

mod program;

use std::collections::BTreeMap;
use std::path::Path;

use program::{Folder, QUICK, records};
use serde_json::Value;

fn tuned(folder: &Folder, run: &str, more: &[&str]) -> String {
    folder.file("data.jsonl", &records());
    folder.succeed(&[&["tune", "--data", "data.jsonl", "--quiet", "--run", run], &QUICK[..], more].concat())
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn inspected(folder: &Folder, adapter: &str) -> Value {
    serde_json::from_str(&folder.succeed(&["--json", "inspect", adapter])).unwrap()
}

fn perplexity(folder: &Folder, adapter: &str) -> String {
    folder.succeed(&["--json", "eval", "--data", "data.jsonl", "--quiet", "--adapter", adapter])
}

const ADALORA: [&str; 12] = [
    "--form",
    "adalora",
    "--rate",
    "0.02",
    "--form-option",
    "target-rank=1",
    "--form-option",
    "t-init=1",
    "--form-option",
    "t-final=1",
    "--checkpoint-every",
    "2",
];

#[test]
fn adalora_ends_at_its_budget_resumes_exactly_and_shows_its_ranks() {
    let folder = Folder::new();
    let told = tuned(&folder, "whole", &ADALORA);
    let at = |name: &str| folder.path().join(name);
    let config = json(&at("whole/adapter/adapter_config.json"));
    assert_eq!((config["peft_type"].as_str(), config["init_r"].as_u64()), (Some("ADALORA"), Some(2)));
    assert_eq!((config["total_step"].as_u64(), config["tinit"].as_u64()), (Some(6), Some(1)));
    let pattern = config["rank_pattern"].as_object().unwrap();
    let kept = |choice: &Value| choice.as_array().unwrap().iter().filter(|kept| **kept == true).count();
    assert!(pattern.values().all(|choice| choice.as_array().unwrap().len() == 2));
    let line = format!("ranks: {} of {} directions left", pattern.len(), 2 * pattern.len());
    assert!(told.contains(&line), "{told}");
    assert!(std::fs::read_to_string(at("whole/report.html")).unwrap().contains("Ranks at the end"));

    // The same run without its last checkpoint: what decided the ranks is in the one before.
    tuned(&folder, "cut", &ADALORA);
    std::fs::remove_file(at("cut/checkpoint-000006.safetensors")).unwrap();
    assert!(at("cut/checkpoint-000004.safetensors").exists());
    std::fs::remove_dir_all(at("cut/adapter")).unwrap();
    tuned(&folder, "cut", &[&ADALORA[..], &["--resume"]].concat());
    for file in ["adapter/adapter_model.safetensors", "adapter/adapter_config.json", "metrics.jsonl"] {
        let read = |run: &str| std::fs::read(at(run).join(file)).unwrap();
        assert!(read("whole") == read("cut"), "{file}");
    }

    let seen = inspected(&folder, "whole/adapter");
    assert_eq!(seen["facts"]["format"], "AdaLoRA adapter (PEFT folder)");
    assert_eq!(seen["facts"]["mean_rank"], 1.0, "one a layer on average");
    for row in seen["table"].as_array().unwrap() {
        let (rank, effective) = (row["rank"].as_u64().unwrap(), row["effective_rank"].as_f64().unwrap());
        // PEFT takes empty tensors for damage: a layer that lost all directions keeps one of value zero in the file.
        let held = kept(&pattern[&format!("{}.lora_E", row["layer"].as_str().unwrap())]);
        assert_eq!(held as u64, rank.max(1), "{row}");
        assert_eq!(effective > 0.0, rank > 0, "{row}");
        assert!(effective <= rank as f64 + 1e-6, "{row}");
    }

    // Numbers that make no schedule are refused before anything is computed.
    let refused = [&["tune", "--data", "data.jsonl", "--quiet", "--form", "adalora"], &QUICK[..]].concat();
    let with = |option| [&refused[..], &["--form-option", option]].concat();
    folder.refuse(&with("target-rank=3"), 2, &["adalora", "target rank of 3"]);
    folder.refuse(&with("t-init=6"), 2, &["adalora", "leave none to cut in"]);
    folder.refuse(&with("t-inti=6"), 2, &["t-inti", "t-init"]);
}

/// The f32 tensors of a file by name.
fn tensors(path: &Path) -> BTreeMap<String, (Vec<usize>, Vec<f64>)> {
    let bytes = std::fs::read(path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let (header, data) = bytes[8..].split_at(length);
    let header: BTreeMap<String, Value> = serde_json::from_slice(header).unwrap();
    let number = |value: &Value| value.as_u64().unwrap() as usize;
    let held = header.into_iter().filter(|(_, entry)| entry["dtype"] == "F32");
    held.map(|(name, entry)| {
        let range = number(&entry["data_offsets"][0])..number(&entry["data_offsets"][1]);
        let value = |value: &[u8]| f64::from(f32::from_le_bytes(value.try_into().unwrap()));
        let shape = entry["shape"].as_array().unwrap().iter().map(number).collect();
        (name, (shape, data[range].chunks_exact(4).map(value).collect()))
    })
    .collect()
}

#[test]
fn the_penalty_of_adalora_moves_the_factors_as_beside_the_mean_loss() {
    let folder = Folder::new();
    // At the start E is zero, so that the loss has no gradient by the factors: one plain step is the penalty's alone. Two
    // micro-batches of different numbers of tokens must count it once.
    let once = [
        "--steps",
        "1",
        "--batch",
        "2",
        "--max-length",
        "32",
        "--limit",
        "24",
        "--rank",
        "3",
        "--alpha",
        "5",
    ];
    let plain =
        ["--optimiser", "sgd", "--optimiser-option", "momentum=0", "--schedule", "constant", "--warmup", "0"];
    let rest = ["--clip", "0", "--accumulate", "2", "--rate", "7", "--held-out", "0", "--packing", "false"];
    let form = ["--form", "adalora", "--form-option", "target-rank=3", "--form-option", "orthogonality=0.8"];
    folder.file("data.jsonl", &records());
    let tune = ["tune", "--data", "data.jsonl", "--quiet", "--run", "r"];
    folder.succeed(&[&tune[..], &once, &plain, &rest, &form].concat());
    let start = tensors(&folder.path().join("r/start.safetensors"));
    let end = tensors(&folder.path().join("r/adapter/adapter_model.safetensors"));
    let layers = start.keys().filter(|name| name.ends_with(".right")).count();
    assert!(layers > 10, "{layers}");
    let mut moved = 0.0_f64;
    for (name, (shape, before)) in start.iter().filter(|(name, _)| name.ends_with(".right")) {
        let module = name.strip_suffix(".right").unwrap();
        let (_, after) = &end[&format!("base_model.model.{module}.lora_A")];
        let ([rank, inp], row) = ([shape[0], shape[1]], |k: usize| &before[k * shape[1]..(k + 1) * shape[1]]);
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let gap: Vec<f64> = (0..rank * rank)
            .map(|at| dot(row(at / rank), row(at % rank)) - f64::from(u8::from(at / rank == at % rank)))
            .collect();
        let norm = dot(&gap, &gap).sqrt();
        for at in 0..rank * inp {
            let (k, j) = (at / inp, at % inp);
            let slope: f64 = (0..rank).map(|l| 2.0 * gap[k * rank + l] * row(l)[j]).sum::<f64>() / norm;
            let wanted = -7.0 * 0.8 / (2 * layers) as f64 * slope;
            assert!(
                (after[at] - before[at] - wanted).abs() < 1e-6,
                "{name} {at}: {} {wanted}",
                after[at] - before[at]
            );
            moved = moved.max(wanted.abs());
        }
    }
    assert!(moved > 1e-3, "{moved}");
}

#[test]
fn vera_is_written_as_its_own_type_or_as_a_plain_lora_and_both_compute_the_same() {
    let folder = Folder::new();
    // Layers of several shapes, and of two ranks.
    let vera = ["--form", "vera", "--rate", "0.3", "--rank-pattern", "q_proj=3"];
    tuned(&folder, "own", &vera);
    tuned(&folder, "plain", &[&vera[..], &["--peft-type", "lora"]].concat());
    let kind =
        |run: &str| json(&folder.path().join(run).join("adapter/adapter_config.json"))["peft_type"].clone();
    assert_eq!((kind("own"), kind("plain")), ("VERA".into(), "LORA".into()));
    let loss = |run: &str| -> f64 {
        let found: Value = serde_json::from_str(&perplexity(&folder, &format!("{run}/adapter"))).unwrap();
        found["loss"].as_f64().unwrap_or_else(|| panic!("{found}"))
    };
    let (own, plain) = (loss("own"), loss("plain"));
    assert!((own - plain).abs() < 1e-5 * own, "{own} {plain}");
    let seen = inspected(&folder, "own/adapter");
    assert_eq!(seen["facts"]["format"], "VeRA adapter (PEFT folder)");
    assert_eq!(seen["facts"]["rank"], 3, "the largest, with zeros in the others");
    assert!(folder.succeed(&["inspect", "own/adapter"]).contains("needs the base"));
}

#[test]
fn typed_folders_and_dora_are_shown_with_what_the_file_tells() {
    let folder = Folder::new();
    for (form, name, spectrum) in [
        ("ia3", "IA³", false),
        ("loha", "LoHa", true),
        ("lokr", "LoKr", true),
        ("oft", "OFT", false),
        ("boft", "BOFT", false),
    ] {
        let option = if form == "oft" { ["--form-option", "block-size=4"] } else { ["--targets", "q_proj"] };
        tuned(&folder, form, &[&["--form", form, "--rate", "0.05"], &option[..]].concat());
        let seen = inspected(&folder, &format!("{form}/adapter"));
        assert_eq!(seen["facts"]["format"], format!("{name} adapter (PEFT folder)"));
        assert!(
            seen["facts"]["parameters"].as_u64().unwrap() > 0 && seen["objections"] == serde_json::json!([])
        );
        let row = &seen["table"][0];
        assert!(row["tensors"].as_object().is_some_and(|tensors| !tensors.is_empty()), "{row}");
        if spectrum {
            assert!(row["effective_rank"].as_f64().unwrap() > 0.0, "{row}");
        } else {
            assert!(row["distance_from_no_change"].as_f64().unwrap() > 0.0, "{row}");
            assert!(folder.succeed(&["inspect", &format!("{form}/adapter")]).contains("needs the base"));
        }
    }
    tuned(&folder, "dora", &["--form", "dora", "--init", "kaiming"]);
    let seen = inspected(&folder, "dora/adapter");
    assert_eq!(seen["facts"]["format"], "DoRA adapter (PEFT folder)");
    assert!(folder.succeed(&["inspect", "dora/adapter"]).contains("needs the base"));
}

#[test]
fn several_adapters_are_switched_from_prompt_to_prompt() {
    let folder = Folder::new();
    tuned(&folder, "first", &["--init", "kaiming", "--rate", "0.05"]);
    tuned(&folder, "second", &["--form", "dora", "--init", "pissa", "--rate", "0.02", "--seed", "3"]);
    tuned(&folder, "third", &["--form", "ia3", "--rate", "0.3"]);
    let prompts = ["Number 3?\n", "Number 7?\n"];
    let generate = ["--quiet", "--json", "generate", "--max-tokens", "6", "--format", "plain"];
    let text = |found: &Value| found["text"].as_str().unwrap_or_else(|| panic!("{found}")).to_owned();
    let run = |more: &[&str]| -> Value {
        serde_json::from_str(&folder.succeed(&[&generate[..], more].concat())).unwrap()
    };
    let adapters = [("a", "first/adapter"), ("b", "second/adapter"), ("c", "third/adapter")];
    let mut lines = String::new();
    let mut wanted = Vec::new();
    for prompt in prompts {
        for (name, path) in adapters {
            wanted.push(text(&run(&["--adapter", path, "--prompt", prompt])));
            lines += &format!("{}\n", serde_json::json!({"prompt": prompt, "adapter": name}));
        }
        wanted.push(text(&run(&["--prompt", prompt])));
        lines += &format!("{}\n", serde_json::json!({"prompt": prompt, "adapter": null}));
    }
    let distinct: std::collections::BTreeSet<&String> = wanted.iter().collect();
    assert!(distinct.len() > prompts.len(), "the adapters do something: {wanted:?}");
    folder.file("prompts.jsonl", &lines);
    let mut given = Vec::new();
    for (name, path) in adapters {
        given.push(format!("{name}={path}"));
    }
    let all: Vec<&str> = given.iter().flat_map(|adapter| ["--adapter", adapter.as_str()]).collect();
    let found = run(&[&all[..], &["--prompts", "prompts.jsonl"]].concat());
    let texts: Vec<String> = found.as_array().unwrap().iter().map(text).collect();
    assert_eq!(texts, wanted);
    assert_eq!(found[1]["adapter"], "b");
    // In another order, by flags.
    let mixed = ["--prompt", prompts[1], "--prompt", prompts[0], "--prompt", prompts[1]];
    let uses = ["--use", "none", "--use", "b", "--use", "a"];
    let found = run(&[&all[..], &mixed, &uses].concat());
    let texts: Vec<String> = found.as_array().unwrap().iter().map(text).collect();
    assert_eq!(texts, [wanted[7].clone(), wanted[1].clone(), wanted[4].clone()]);
    // A scale of 0 is the model alone, a scale of 1 what it was.
    let scaled = |factor: &str| {
        let scale = format!("a={factor}");
        text(&run(&["--adapter", "a=first/adapter", "--adapter-scale", &scale, "--prompt", prompts[0]]))
    };
    assert_eq!((scaled("0"), scaled("1")), (wanted[3].clone(), wanted[0].clone()));

    let refuse = |more: &[&str], words: &[&str]| {
        folder.refuse(&[&["generate", "--quiet"], &all[..], more].concat(), 2, words);
    };
    refuse(&["--prompt", "x"], &["which adapter", "a, b, c, or none"]);
    refuse(&["--prompt", "x", "--use", "aa"], &["no adapter is called \"aa\"", "did you mean a?"]);
    refuse(&["--prompt", "x", "--use", "a", "--use", "b"], &["--use is given 2 times for 1 prompts"]);
    refuse(&["--prompt", "x", "--use", "c", "--adapter-scale", "c=0.5"], &["scale of 0.5", "IA3"]);
    refuse(&["--prompt", "x", "--use", "a", "--adapter-scale", "d=0.5"], &["--adapter-scale", "\"d\""]);
    folder.file("prompts.jsonl", "{\"prompt\": \"x\", \"adapter\": \"a\"}\n{\"prompt\": \"x\"}\n");
    refuse(&["--prompts", "prompts.jsonl"], &["line 2", "which adapter"]);
    folder.refuse(&["generate", "--quiet"], 2, &["--prompt"]);
}
