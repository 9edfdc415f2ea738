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
    let layers = read(&folder, "run/start.json");
    let facts = &layers[0]["facts"];
    assert!(
        layers.as_array().unwrap().len() == 42 && facts["size of the start"].as_f64().unwrap() > 0.0,
        "{facts}"
    );
    assert_eq!(made["lowrank.prompt"].as_str(), Some("raw"), "prompt and completion are joined as they are");
}

#[test]
fn without_arguments_both_starts_are_trained_and_shown() {
    let folder = Folder::new();
    let shown = json(&folder.succeed(&["--json", "--quiet", "tune", "--steps", "2"]));
    let runs = shown["runs"].as_array().unwrap();
    let names: Vec<_> = runs.iter().map(|run| run["init"].as_str().unwrap()).collect();
    assert_eq!(names, ["lora-ga", "kaiming"]);
    for run in runs {
        assert_eq!((run["steps"].as_u64(), run["rate"].as_f64()), (Some(2), Some(1e-3)));
        assert!(run["held_out_after"].as_f64().unwrap() < run["held_out_before"].as_f64().unwrap(), "{run}");
        assert!(run["tokens_per_second"].as_f64().unwrap() > 0.0);
        let moved = run["start_difference"].as_f64().unwrap();
        assert!(if run["init"] == "kaiming" { moved == 0.0 } else { moved < 1e-4 }, "{moved}");
    }
    let page = std::fs::read_to_string(folder.path().join("run/report.html")).unwrap();
    let captions = [
        "Held-out loss",
        "Training loss, mean of 8 steps",
        "Training loss against tokens",
        "Training loss against time",
        "Held-out loss against time",
        "Learning rate",
    ];
    for caption in captions {
        // Each with a line of either start.
        let plot = page.split("<h2>").find(|part| part.starts_with(&format!("{caption}</h2>")));
        let plot = plot.unwrap_or_else(|| panic!("no plot \"{caption}\""));
        assert!(plot.contains("<svg") && names.iter().all(|name| plot.contains(name)), "{caption}");
    }
    for table in
        ["Runs on the same budget", "What training changed: lora-ga", "What training changed: kaiming"]
    {
        assert!(page.contains(table), "{table}");
    }
    assert!(page.contains("effective rank") && page.contains("model.layers.5.mlp.down_proj"));
    let outside = ["<script", "<link", "src=", "href="];
    assert!(outside.iter().all(|outside| !page.contains(outside)), "self-contained");
}

#[test]
fn what_changed_is_measured_from_the_start() {
    let folder = Folder::new();
    let run = |rate: &str, run: &str| {
        let fixed =
            ["--json", "--quiet", "tune", "--init", "lora-ga", "--compare", "gaussian", "--steps", "1"];
        let shown = json(&folder.succeed(&[&fixed[..], &["--rate", rate, "--run", run]].concat()));
        let changes = shown["runs"][0]["changes"].as_array().unwrap().clone();
        assert_eq!(changes.len(), 42);
        changes.iter().map(|change| change["norm"].as_f64().unwrap()).fold(0.0, f64::max)
    };
    // LoRA-GA's start is not zero, and no change; a step of Adam moves each value by the rate.
    let (still, moved) = (run("1e-12", "still"), run("1e-2", "moved"));
    assert!(still < 1e-5 && moved > 1e-2, "{still} {moved}");
}

#[test]
fn held_out_records_come_from_all_over_a_file_and_no_record_is_lost() {
    let folder = Folder::new();
    folder.file(
        "data.jsonl",
        &(0..300).map(|i| format!("{{\"text\": \"Line {i} of the file\"}}\n")).collect::<String>(),
    );
    let dry = ["tune", "--data", "data.jsonl", "--dry-run", "--eval-limit", "8", "--held-out", "0.5"];
    let (_, told) = folder.tell(&dry);
    assert!(told.contains("292 examples to train on, 8 held out"), "{told}");
    // A dry run shows what was read.
    assert!(told.contains("300 records of kind text") && told.contains("first example"), "{told}");
}

#[test]
fn the_best_values_are_kept_and_said() {
    let folder = Folder::new();
    folder.file("data.jsonl", &records());
    let fixed =
        ["--json", "--quiet", "tune", "--data", "data.jsonl", "--init", "kaiming", "--out", "adapter"];
    // Far too fast: the held-out loss rises after a while.
    let fast =
        ["--rate", "0.3", "--clip", "0", "--patience", "2", "--eval-every", "1", "--schedule", "constant"];
    let mut arguments = [&fixed[..], &QUICK[..], &fast[..]].concat();
    let steps = arguments.iter().position(|&option| option == "--steps").unwrap() + 1;
    arguments[steps] = "40";
    let shown = json(&folder.succeed(&arguments));
    let run = &shown["runs"][0];
    let (steps, of) = (run["steps"].as_u64().unwrap(), run["values_of"].as_u64().unwrap());
    assert!(run["stopped"] == "early" && of < steps, "{run}");
    let metrics = std::fs::read_to_string(folder.path().join("run/metrics.jsonl")).unwrap();
    let losses = metrics.lines().filter_map(|line| json(line)["eval"].as_f64());
    let best = losses.fold(f64::INFINITY, f64::min);
    assert_eq!(run["held_out_after"].as_f64(), Some(best));
    let made = &json(&folder.succeed(&["--json", "inspect", "adapter"]))["provenance"];
    assert_eq!(made["lowrank.steps"].as_str(), Some(of.to_string().as_str()));
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
    assert_eq!(tensors["table"][0]["shape"], serde_json::json!([2, 4, 2048]));
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
    for (run, more) in
        [["--init", "kaiming"], ["--init", "lora-ga"], ["--recompute", "blocks"]].iter().enumerate()
    {
        let run = format!("r{run}");
        let fixed = ["--json", "--quiet", "tune", "--steps", "3", "--compare", "gaussian", "--run", &run];
        let all = [&fixed[..], more].concat();
        let predicted = json(&folder.succeed(&[&all[..], &["--dry-run"]].concat()));
        let measured = json(&folder.succeed(&all));
        // Only where the system tells.
        if let Some(measured) = measured["runs"][0]["training_peak_bytes"].as_f64() {
            let ratio = predicted["predicted_peak_bytes"].as_f64().unwrap() / measured;
            assert!((0.75..1.33).contains(&ratio), "{more:?}: {ratio}");
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn evidence_takes_no_more_memory_than_a_quarter_above_a_step() {
    // Each in a process of its own, on the same batch: the embedded text fills every row.
    let folder = Folder::new();
    let fixed = ["--json", "--quiet", "--threads", "2"];
    let init = json(&folder.succeed(&[&fixed[..], &["init", "--init", "lora-ga", "--out", "a"]].concat()));
    let step = ["tune", "--init", "kaiming", "--compare", "gaussian", "--steps", "2", "--held-out", "0"];
    let step = json(&folder.succeed(&[&fixed[..], &step].concat()));
    let (evidence, step) = (&init["evidence_peak_bytes"], &step["runs"][0]["training_peak_bytes"]);
    let ratio = evidence.as_f64().unwrap() / step.as_f64().unwrap();
    assert!(ratio <= 1.25, "{ratio}: {evidence} and {step}");
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

/// The program where no file may grow beyond so many blocks of 512 bytes, as on a disk that is full from there on.
#[cfg(unix)]
fn on_a_full_disk(folder: &Folder, blocks: usize, arguments: &[&str]) -> (Option<i32>, String) {
    let line = format!(
        "trap '' XFSZ; ulimit -f {blocks}; exec {} {}",
        env!("CARGO_BIN_EXE_lowrank"),
        arguments.join(" ")
    );
    let output =
        std::process::Command::new("sh").args(["-c", &line]).current_dir(folder.path()).output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[cfg(unix)]
#[test]
fn a_run_whose_disk_was_full_goes_on_to_the_same_bytes() {
    let folder = Folder::new();
    folder.file("data.jsonl", &records());
    let run = |run: &'static str| {
        let fixed =
            ["tune", "--data", "data.jsonl", "--quiet", "--init", "kaiming", "--checkpoint-every", "2"];
        [&fixed[..], &QUICK[..], &["--run", run]].concat()
    };
    folder.succeed(&run("whole"));
    // The start fits, the checkpoint with its moments does not.
    let size = |file: &str| std::fs::metadata(folder.path().join("whole").join(file)).unwrap().len() as usize;
    let blocks = (size("start.safetensors") + size("checkpoint-000006.safetensors")) / 2 / 512;
    let (code, errors) = on_a_full_disk(&folder, blocks, &run("cut"));
    assert!(code == Some(1) && errors.contains("checkpoint"), "{errors}");
    assert!(!folder.path().join("cut/adapter").exists());
    folder.succeed(&[&run("cut")[..], &["--resume"]].concat());
    for file in ["adapter/adapter_model.safetensors", "metrics.jsonl"] {
        let read = |run: &str| std::fs::read(folder.path().join(run).join(file)).unwrap();
        assert!(read("whole") == read("cut"), "{file} differs");
    }
}

#[cfg(unix)]
#[test]
fn a_full_disk_is_told_and_loses_nothing() {
    let folder = Folder::new();
    tuned(&folder, "kaiming", &[]);
    folder.succeed(&["merge", "--adapter", "adapter", "--out", "merged.gguf", "--format", "Q8_0"]);
    let before = std::fs::read(folder.path().join("merged.gguf")).unwrap();
    let full = |arguments: &str| on_a_full_disk(&folder, 100, &arguments.split(' ').collect::<Vec<_>>());
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
