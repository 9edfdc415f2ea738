//! The whole way of an adapter: started, trained, evaluated, looked at, merged, exported; and back.
#![allow(clippy::unwrap_used, clippy::panic)] // A failure here is a failure of the test.

mod program;

use program::{Folder, QUICK, records};
use serde_json::Value;

fn tuned(folder: &Folder, init: &str, more: &[&str]) {
    folder.file("data.jsonl", &records());
    let fixed =
        ["tune", "--data", "data.jsonl", "--quiet", "--rate", "0.01", "--init", init, "--out", "adapter"];
    folder.succeed(&[&fixed[..], &QUICK[..], more].concat());
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn loss(folder: &Folder, more: &[&str]) -> f64 {
    let eval = ["--json", "--quiet", "eval", "--data", "data.jsonl", "--max-length", "64"];
    json(&folder.succeed(&[&eval[..], more].concat()))["loss"].as_f64().unwrap()
}

/// `file` in the folder, as JSON.
fn read(folder: &Folder, file: &str) -> Value {
    json(&std::fs::read_to_string(folder.path().join(file)).unwrap())
}

#[test]
fn a_trained_adapter_is_plain_and_says_what_made_it() {
    let folder = Folder::new();
    tuned(&folder, "lora-ga", &["--rank-pattern", "down_proj=1", "--rank-stabilised"]);
    let config = read(&folder, "adapter/adapter_config.json");
    assert_eq!(config["init_lora_weights"], Value::Bool(true));
    assert_eq!((config["r"].as_u64(), config["lora_alpha"].as_f64()), (Some(4), Some(4.0)), "2r, folded");
    assert_eq!(config["use_rslora"], Value::Bool(false));
    let shown = json(&folder.succeed(&["--json", "inspect", "adapter"]));
    let made = &shown["provenance"];
    assert_eq!((made["lowrank.init"].as_str(), made["lowrank.seed"].as_str()), (Some("lora-ga"), Some("0")));
    assert_eq!(made["lowrank.base_hash"].as_str().map(str::len), Some(64));
    // The start's own factors are kept, and refused as an adapter for the untouched base.
    let initial = read(&folder, "adapter/initial/adapter_config.json");
    assert_eq!(initial["r"].as_u64(), Some(2));
    folder.refuse(&["eval", "--adapter", "adapter/initial"], 2, &["changed base"]);
    assert!(std::fs::read_to_string(folder.path().join("run/report.html")).unwrap().contains("<svg"));
}

#[test]
fn training_lowers_the_loss_and_every_way_of_applying_it_agrees() {
    let folder = Folder::new();
    tuned(&folder, "lora-ga", &[]);
    let (base, adapted) = (loss(&folder, &[]), loss(&folder, &["--adapter", "adapter"]));
    assert!(adapted < base - 0.05, "{base} {adapted}");
    let merge = ["merge", "--adapter", "adapter", "--out"];
    folder.succeed(&[&merge[..], &["merged.gguf"]].concat());
    let merged = loss(&folder, &["--model", "merged.gguf"]);
    assert!((merged - adapted).abs() < 1e-4, "{merged} {adapted}");
    // Rounding is shown, and refused where it moves the logits by more than was allowed.
    let rounded = [&merge[..], &["rounded.gguf", "--format", "Q8_0"]];
    let shown = json(&folder.succeed(&[&["--json"], &rounded.concat()[..]].concat()));
    assert!(shown["read_difference"].as_f64().unwrap() > shown["merged_difference"].as_f64().unwrap());
    let strict = [&merge[..], &["strict.gguf", "--format", "Q8_0", "--tolerance", "1e-7"]].concat();
    folder.refuse(&strict, 1, &["logits differ", "nothing was written"]);
    let left: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().contains("strict")), "{left:?}");
}

#[test]
fn every_reader_gets_the_same_function() {
    let folder = Folder::new();
    tuned(&folder, "pissa", &["--rank-pattern", "q_proj=1"]);
    for (reader, out) in
        [("peft", "p"), ("vllm", "v"), ("llama.cpp", "l.gguf"), ("mistral.rs", "m"), ("mlx", "x")]
    {
        let export = ["--json", "export", "--adapter", "adapter", "--for", reader, "--out", out];
        let shown = json(&folder.succeed(&export));
        assert!(shown["read_difference"].as_f64().unwrap() < 1e-3, "{reader}: {shown}");
        assert!(shown["recompression_error"].is_null());
        folder.refuse(&export[1..], 2, &[out, "exists"]);
    }
    let (base, adapted) = (loss(&folder, &["--adapter", "adapter"]), loss(&folder, &["--adapter", "v"]));
    assert!((base - adapted).abs() < 1e-4, "{base} {adapted}");
    let cut = ["--json", "export", "--adapter", "adapter", "--recompress", "2", "--out", "cut"];
    let error = json(&folder.succeed(&cut))["recompression_error"].as_f64().unwrap();
    assert!(error > 0.0 && error < 1.0, "{error}");
    assert_eq!(read(&folder, "cut/adapter_config.json")["r"].as_u64(), Some(2));
    folder.refuse(
        &["export", "--adapter", "adapter", "--for", "ollama", "--out", "o"],
        2,
        &["ollama", "llama.cpp"],
    );
}

/// A safetensors file of f32 with every value a tenth larger.
fn grown(mut bytes: Vec<u8>) -> Vec<u8> {
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    for four in bytes[8 + header..].chunks_exact_mut(4) {
        let value = f32::from_le_bytes((&*four).try_into().unwrap());
        four.copy_from_slice(&(1.1 * value).to_le_bytes());
    }
    bytes
}

#[test]
fn a_start_goes_to_python_and_comes_back() {
    let folder = Folder::new();
    folder.file("data.jsonl", &records());
    let init = [
        "init",
        "--data",
        "data.jsonl",
        "--quiet",
        "--init",
        "lora-ga",
        "--out",
        "started",
        "--base-out",
        "base",
    ];
    folder.succeed(&[&init[..], &QUICK[2..]].concat());
    // Untrained, the adapter for the untouched base changes nothing …
    let base = loss(&folder, &[]);
    assert!((loss(&folder, &["--adapter", "started"]) - base).abs() < 1e-4);
    assert!(folder.path().join("base/config.json").is_file());
    // … and factors trained on the changed base are converted with the ones that they began with.
    let back = |trained: &str, out: &str| {
        let initial = ["--initial", "started/initial", "--out", out];
        folder.succeed(&[&["--json", "export", "--adapter", trained], &initial[..]].concat());
        loss(&folder, &["--adapter", out])
    };
    assert!((back("started/initial", "unchanged") - base).abs() < 1e-4);
    std::fs::create_dir(folder.path().join("trained")).unwrap();
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        let bytes = std::fs::read(folder.path().join("started/initial").join(file)).unwrap();
        let bytes = if file.ends_with("json") { bytes } else { grown(bytes) };
        std::fs::write(folder.path().join("trained").join(file), bytes).unwrap();
    }
    let trained = back("trained", "back");
    assert!((trained - base).abs() > 1e-3, "what was trained is lost: {trained} {base}");
    folder.refuse(&["tune", "--data", "data.jsonl", "--base-out", "b"], 2, &["lowrank init"]);
}

#[test]
fn questions_logits_and_text() {
    let folder = Folder::new();
    let question = |answer: &str| {
        format!(
            "{{\"question\": \"Who?\", \"choices\": [\"qzx jvk wqx zzq\", \"the whale\", \"xkq vvj\"], \"answer\": \"{answer}\"}}\n"
        )
    };
    // A reader of English prefers words.
    folder.file("questions.jsonl", &question("B"));
    let shown = json(&folder.succeed(&["--json", "eval", "--questions", "questions.jsonl"]));
    assert_eq!(shown["accuracy"].as_f64(), Some(1.0), "{shown}");
    folder.file("questions.jsonl", &["A", "B", "C"].map(question).concat());
    let shown = json(&folder.succeed(&["--json", "eval", "--questions", "questions.jsonl"]));
    // One of the three answers is chosen each time, so a third of these is right.
    assert!((shown["accuracy"].as_f64().unwrap() - 1.0 / 3.0).abs() < 1e-9, "{shown}");
    assert!((shown["chance"].as_f64().unwrap() - 1.0 / 3.0).abs() < 1e-9);
    folder.file("rows.json", "[[5, 6, 7, 8], [9]]");
    folder.succeed(&["eval", "--tokens", "rows.json", "--dump-logits", "l.safetensors"]);
    let tensors = json(&folder.succeed(&["--json", "inspect", "l.safetensors"]));
    assert_eq!(tensors["table"]["rows"][0][2], "[2, 4, 2048]");
    folder.file("rows.json", "[[5, 99999]]");
    folder.refuse(&["eval", "--tokens", "rows.json", "--dump-logits", "m.safetensors"], 2, &["99999"]);
    let generate = ["--quiet", "generate", "--prompt", "The people of this", "--max-tokens", "8"];
    let text = folder.succeed(&generate);
    assert!(!text.trim().is_empty() && text == folder.succeed(&generate), "{text}");
    let warm = [&generate[..], &["--temperature", "2", "--seed", "7"]].concat();
    assert!(folder.succeed(&warm) == folder.succeed(&warm));
}

#[test]
fn a_dry_run_tells_and_does_nothing() {
    let folder = Folder::new();
    for command in ["tune", "init"] {
        let shown = json(&folder.succeed(&["--json", "--quiet", command, "--dry-run", "--rank", "3"]));
        // Six blocks of seven layers: 3·(out + in) each.
        assert_eq!(shown["sites"].as_array().unwrap().len(), 42);
        assert_eq!(shown["parameters"].as_u64(), Some(3 * 6 * (2 * 384 + 2 * (192 + 64) + 3 * 704)));
        assert_eq!(shown["steps"].as_u64(), Some(if command == "tune" { 80 } else { 0 }));
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn the_predicted_memory_is_the_measured_one_within_a_third() {
    let folder = Folder::new();
    let fixed = ["--json", "--quiet", "tune", "--steps", "3", "--init", "kaiming", "--batch", "8"];
    let predicted = json(&folder.succeed(&[&fixed[..], &["--dry-run"]].concat()));
    let measured = json(&folder.succeed(&fixed));
    // Only where the system tells.
    if let Some(measured) = measured["runs"][0]["training_peak_bytes"].as_f64() {
        let ratio = predicted["predicted_peak_bytes"].as_f64().unwrap() / measured;
        assert!((0.75..1.33).contains(&ratio), "{ratio}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn results_that_cannot_be_shown_are_no_panic() {
    let folder = Folder::new();
    let shell = |line: &str| {
        let line = line.replace("lowrank", env!("CARGO_BIN_EXE_lowrank"));
        let output =
            std::process::Command::new("bash").args(["-c", &line]).current_dir(folder.path()).output();
        let output = output.unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, errors) = shell("lowrank list > /dev/full");
    assert!(code == Some(1) && errors.contains("standard output"), "{errors}");
    let (code, errors) = shell("set -o pipefail; lowrank list | true");
    assert!(code == Some(0) && errors.is_empty(), "{errors}");
}

#[test]
fn a_damaged_checkpoint_is_told() {
    let folder = Folder::new();
    tuned(&folder, "kaiming", &["--run", "r"]);
    let path = folder.path().join("r/start.safetensors");
    assert_eq!(json(&folder.succeed(&["--json", "inspect", "r/start.safetensors"]))["kind"], "checkpoint");
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, bytes).unwrap();
    folder.refuse(&["inspect", "r/start.safetensors"], 2, &["start.safetensors"]);
}

#[cfg(unix)]
#[test]
fn a_full_disk_is_told_and_loses_nothing() {
    let folder = Folder::new();
    tuned(&folder, "kaiming", &[]);
    folder.succeed(&["merge", "--adapter", "adapter", "--out", "merged.gguf", "--format", "Q8_0"]);
    let before = std::fs::read(folder.path().join("merged.gguf")).unwrap();
    // No file may grow beyond 100 blocks, as on a disk that is full from there on.
    let full = |arguments: &str| {
        let program = env!("CARGO_BIN_EXE_lowrank");
        let line = format!("trap '' XFSZ; ulimit -f 100; exec {program} {arguments}");
        let output =
            std::process::Command::new("sh").args(["-c", &line]).current_dir(folder.path()).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, errors) = full("merge --adapter adapter --out merged.gguf --overwrite --quiet");
    assert!(code == Some(1) && errors.contains("merged.gguf"), "{errors}");
    assert!(std::fs::read(folder.path().join("merged.gguf")).unwrap() == before);
    let (code, errors) =
        full("tune --data data.jsonl --quiet --steps 2 --run r --init kaiming --max-length 32");
    assert!(code == Some(1) && errors.contains("start.safetensors"), "{errors}");
    let hidden = |name: &str| name.starts_with('.');
    let names: Vec<String> = [folder.path().to_owned(), folder.path().join("r")]
        .iter()
        .flat_map(|path| std::fs::read_dir(path).unwrap())
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    assert!(!names.iter().any(|name| hidden(name)), "nothing half-written is left: {names:?}");
}
