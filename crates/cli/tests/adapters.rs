//! Adapters that others wrote, that were damaged, or that would be misread: refused by name where they would be dropped
//! or counted wrongly, shown by `inspect`, and never at the cost of what is there.
#![allow(clippy::unwrap_used, clippy::panic)] // A failure here is a failure of the test.

mod program;

use std::collections::BTreeMap;

use program::{Folder, QUICK, records};
use serde_json::{Value, json};

const PREFIX: &str = "base_model.model.";
const QUERY: &str = "model.layers.3.self_attn.q_proj";

/// A PEFT folder taken apart: configuration, tensors of f32 by name, free text.
struct Adapter {
    config: Value,
    tensors: BTreeMap<String, (Vec<usize>, Vec<u8>)>,
    metadata: Value,
}

impl Adapter {
    fn read(folder: &Folder, name: &str) -> Adapter {
        let path = folder.path().join(name);
        let config = parse(&std::fs::read_to_string(path.join("adapter_config.json")).unwrap());
        let bytes = std::fs::read(path.join("adapter_model.safetensors")).unwrap();
        let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let (header, data) = bytes[8..].split_at(header);
        let mut header: BTreeMap<String, Value> = serde_json::from_slice(header).unwrap();
        let metadata = header.remove("__metadata__").unwrap_or(json!({}));
        let number = |value: &Value| value.as_u64().unwrap() as usize;
        let tensors = header.into_iter().map(|(name, entry)| {
            assert_eq!(entry["dtype"], "F32");
            let shape = entry["shape"].as_array().unwrap().iter().map(number).collect();
            let offsets = number(&entry["data_offsets"][0])..number(&entry["data_offsets"][1]);
            (name, (shape, data[offsets].to_vec()))
        });
        Adapter { config, tensors: tensors.collect(), metadata }
    }

    /// Factors of one layer, small and not zero.
    fn of(module: &str, [out, inp]: [usize; 2], rank: usize) -> Adapter {
        let config = json!({
            "peft_type": "LORA", "r": rank, "lora_alpha": rank, "target_modules": [module],
            "init_lora_weights": true, "task_type": "CAUSAL_LM",
        });
        let mut adapter = Adapter { config, tensors: BTreeMap::new(), metadata: json!({}) };
        adapter.put(&format!("{module}.lora_A.weight"), &[rank, inp]);
        adapter.put(&format!("{module}.lora_B.weight"), &[out, rank]);
        adapter
    }

    /// A tensor of small numbers.
    fn put(&mut self, name: &str, shape: &[usize]) {
        let count: usize = shape.iter().product();
        let values = (0..count).flat_map(|i| (0.001 * (i % 7) as f32).to_le_bytes()).collect();
        self.tensors.insert(format!("{PREFIX}{name}"), (shape.to_vec(), values));
    }

    fn modules(&self) -> Vec<(String, usize)> {
        let left = |(name, (shape, _)): (&String, &(Vec<usize>, Vec<u8>))| {
            let module = name.strip_prefix(PREFIX)?.strip_suffix(".lora_B.weight")?;
            Some((module.to_owned(), shape[0]))
        };
        self.tensors.iter().filter_map(left).collect()
    }

    fn write(&self, folder: &Folder, name: &str) {
        let path = folder.path().join(name);
        std::fs::create_dir_all(&path).unwrap();
        std::fs::write(path.join("adapter_config.json"), self.config.to_string()).unwrap();
        let mut header = json!({"__metadata__": self.metadata});
        let mut data = Vec::new();
        for (name, (shape, bytes)) in &self.tensors {
            let offsets = [data.len(), data.len() + bytes.len()];
            header[name] = json!({"dtype": "F32", "shape": shape, "data_offsets": offsets});
            data.extend(bytes);
        }
        let header = header.to_string().into_bytes();
        let file = [&(header.len() as u64).to_le_bytes()[..], &header, &data].concat();
        std::fs::write(path.join("adapter_model.safetensors"), file).unwrap();
    }
}

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn tuned(folder: &Folder, init: &str, out: &str, more: &[&str]) {
    folder.file("data.jsonl", &records());
    let fixed = ["tune", "--data", "data.jsonl", "--quiet", "--rate", "0.01", "--init", init, "--out", out];
    folder.succeed(&[&fixed[..], &QUICK[..], more].concat());
}

/// A start on its own; `QUICK` without the steps.
fn started(folder: &Folder, more: &[&str]) {
    folder.file("data.jsonl", &records());
    folder.succeed(&[&["init", "--data", "data.jsonl", "--quiet"], &QUICK[2..], more].concat());
}

/// Everything that applies an adapter refuses this one for the same reason.
fn refused_everywhere(folder: &Folder, adapter: &str, words: &[&str]) {
    let eval: &[&str] = &["eval", "--data", "data.jsonl", "--adapter", adapter];
    let generate: &[&str] = &["generate", "--prompt", "a", "--adapter", adapter];
    let merge: &[&str] = &["merge", "--adapter", adapter, "--out", "never.gguf"];
    let export: &[&str] = &["export", "--adapter", adapter, "--out", "never"];
    for arguments in [eval, generate, merge, export] {
        folder.refuse(arguments, 2, words);
    }
    assert!(!folder.path().join("never").exists() && !folder.path().join("never.gguf").exists());
}

#[test]
fn what_would_be_dropped_or_missed_is_refused() {
    let folder = Folder::new();
    tuned(&folder, "kaiming", "adapter", &[]);
    let mut whole = Adapter::read(&folder, "adapter");
    whole.config["modules_to_save"] = json!(["lm_head"]);
    whole.write(&folder, "whole");
    refused_everywhere(&folder, "whole", &["modules_to_save", "lm_head", "missing"]);
    whole.put("lm_head.weight", &[2, 3]);
    whole.write(&folder, "whole");
    refused_everywhere(&folder, "whole", &["saves whole weights", "lm_head.weight"]);

    // Short names, which other layers satisfy.
    let mut missing = Adapter::read(&folder, "adapter");
    let names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];
    missing.config["target_modules"] = json!(names);
    missing.write(&folder, "short");
    let eval = |adapter| ["eval", "--data", "data.jsonl", "--quiet", "--adapter", adapter];
    folder.succeed(&eval("short"));
    missing.config["target_modules"] = json!("all-linear");
    missing.write(&folder, "all");
    folder.succeed(&eval("all"));
    for part in ["lora_A", "lora_B"] {
        missing.tensors.remove(&format!("{PREFIX}{QUERY}.{part}.weight")).unwrap();
    }
    for targets in [json!("all-linear"), json!(names), json!(".*_proj")] {
        missing.config["target_modules"] = targets;
        missing.write(&folder, "missing");
        refused_everywhere(&folder, "missing", &[QUERY, "no factors", "missing"]);
    }
    missing.config["layers_to_transform"] = json!([0, 1, 2, 3]);
    missing.config["target_modules"] = json!(names);
    missing.write(&folder, "missing");
    folder.refuse(&eval("missing"), 2, &["target_modules does not name it"]);
}

#[test]
fn an_adapter_is_for_the_model_that_it_was_made_for() {
    let folder = Folder::new();
    tuned(&folder, "kaiming", "adapter", &[]);
    folder.succeed(&["merge", "--adapter", "adapter", "--out", "other.gguf"]);
    let other = ["--model", "other.gguf", "--adapter", "adapter"];
    let words = ["made for another model", "hash", "other.gguf"];
    folder.refuse(&[&["eval", "--data", "data.jsonl"], &other[..]].concat(), 2, &words);
    folder.refuse(&[&["merge", "--out", "m.gguf"], &other[..]].concat(), 2, &words);
    folder.refuse(&[&["export", "--out", "e"], &other[..]].concat(), 2, &words);
}

#[test]
fn a_start_is_taken_back_once_at_its_scale_and_on_its_base() {
    let folder = Folder::new();
    started(&folder, &["--init", "lora-ga", "--out", "started", "--base-out", "base"]);
    let config = |name: &str| Adapter::read(&folder, name).config;
    assert_eq!(config("started/initial")["base_model_name_or_path"], "base", "the factors belong there");
    let export = |trained, initial, out| {
        ["--json", "--quiet", "export", "--adapter", trained, "--initial", initial, "--out", out]
    };
    folder.refuse(&export("started", "started/initial", "never"), 2, &["taken back already", "--initial"]);
    tuned(&folder, "kaiming", "plain", &[]);
    folder.refuse(&export("started/initial", "plain/initial", "never"), 2, &["nothing to take back"]);
    // As PEFT saves it: without our free text.
    let mut trained = Adapter::read(&folder, "started/initial");
    trained.metadata = json!({"format": "pt"});
    trained.write(&folder, "trained");
    folder.succeed(&export("trained", "started/initial", "back"));
    let shown = parse(&folder.succeed(&["--json", "inspect", "back"]));
    let made = &shown["provenance"];
    assert_eq!(made["lowrank.base_hash"].as_str().map(str::len), Some(64), "{shown}");
    assert!(made.get("lowrank.offset").is_none() && shown["objections"] == json!([]), "{shown}");
    assert_eq!(config("back")["base_model_name_or_path"], Value::Null, "not the changed base");
    folder.succeed(&["merge", "--adapter", "plain", "--out", "other.gguf"]);
    let other = [&export("trained", "started/initial", "never")[..], &["--model", "other.gguf"]].concat();
    folder.refuse(&other, 2, &["made for another model"]);
    trained.config["lora_alpha"] = json!(99);
    trained.write(&folder, "louder");
    folder.refuse(&export("louder", "started/initial", "never"), 2, &["scale", "when this training began"]);
    assert!(!folder.path().join("never").exists());
    // Without a changed base on the disk the factors name none.
    let more = ["--model", "other.gguf", "--init", "lora-ga", "--out", "again"];
    started(&folder, &more);
    assert_eq!(config("again")["base_model_name_or_path"], "other.gguf");
    assert_eq!(config("again/initial")["base_model_name_or_path"], Value::Null);
}

#[test]
fn a_recompressed_adapter_is_verified_as_what_it_is() {
    let folder = Folder::new();
    tuned(&folder, "pissa", "adapter", &[]);
    let cut = ["--json", "--quiet", "export", "--adapter", "adapter", "--recompress", "1", "--out"];
    for (reader, out) in [("peft", "p"), ("vllm", "v"), ("llama.cpp", "l.gguf"), ("mlx", "x")] {
        let shown = parse(&folder.succeed(&[&cut[..], &[out, "--for", reader]].concat()));
        let number = |key: &str| shown[key].as_f64().unwrap();
        assert_eq!(shown["rank"], 1, "cut before it is padded");
        assert!(number("recompression_error") > 0.0 && number("recompression_difference") > 1e-3, "{shown}");
        assert!(number("read_difference") < 0.02 * number("effect"), "{shown}");
    }
    let exact = parse(&folder.succeed(&["--json", "export", "--adapter", "adapter", "--out", "e"]));
    assert!(exact["recompression_difference"].is_null() && exact["effect"].as_f64().unwrap() > 1e-3);
    // What a tuned adapter loses by it is told, and no reason to refuse it.
    let tune =
        ["tune", "--data", "data.jsonl", "--init", "pissa", "--recompress", "--out", "r", "--run", "r-run"];
    let output = folder.run(&[&tune[..], &QUICK[..]].concat());
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && told.contains("logits differ from the trained adapter's"), "{told}");
}

#[test]
fn what_stops_an_output_is_found_first_and_loses_nothing() {
    let folder = Folder::new();
    tuned(&folder, "pissa", "adapter", &[]);
    let export = ["export", "--adapter", "adapter", "--out"];
    let merge = ["merge", "--adapter", "adapter", "--out"];
    let with = |first: &[&'static str], more: &[&'static str]| [first, more].concat();
    for first in [&export[..], &merge[..]] {
        folder.refuse(&with(first, &["missing/out"]), 2, &["missing", "create that folder"]);
        folder.refuse(&with(first, &["adapter"]), 2, &["adapter", "exists"]);
        folder.refuse(&with(first, &[".."]), 2, &[".."]);
    }
    let lost = "which overwriting would lose";
    folder.refuse(&with(&export, &["adapter", "--overwrite"]), 2, &["initial", lost]);
    folder.refuse(&with(&merge, &["adapter", "--overwrite"]), 2, &["adapter", lost]);
    folder.refuse(&with(&export, &["adapter", "--overwrite", "--for", "llama.cpp"]), 2, &["is a folder"]);
    folder.succeed(&with(&export, &["plain"]));
    folder.file("plain/thesis.txt", "years of work");
    folder.refuse(&with(&export, &["plain", "--overwrite"]), 2, &["thesis.txt", lost]);
    std::fs::remove_file(folder.path().join("plain/thesis.txt")).unwrap();
    folder.succeed(&with(&export, &["plain", "--overwrite"]));
    if cfg!(target_os = "linux") {
        // Not even the superuser writes there.
        folder.refuse(&with(&export, &["/proc/adapter"]), 2, &["cannot write into /proc"]);
    }
}

#[cfg(unix)]
#[test]
fn an_older_adapter_survives_a_start_that_cannot_be_written() {
    let folder = Folder::new();
    let init = ["--init", "kaiming", "--out", "adapter"];
    started(&folder, &init);
    let read = || std::fs::read(folder.path().join("adapter/adapter_model.safetensors")).unwrap();
    let before = read();
    // No file may grow beyond 10 blocks, as on a disk that is full from there on.
    let program = env!("CARGO_BIN_EXE_lowrank");
    let arguments =
        [&["init", "--data", "data.jsonl", "--quiet", "--seed", "5", "--overwrite"], &init[..]].concat();
    let line = format!(
        "trap '' XFSZ; ulimit -f 10; exec {program} {} {}",
        arguments.join(" "),
        QUICK[2..].join(" ")
    );
    let output =
        std::process::Command::new("sh").args(["-c", &line]).current_dir(folder.path()).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && errors.contains("writing the adapter"), "{errors}");
    assert!(read() == before);
    let names: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().starts_with('.')), "{names:?}");
    started(&folder, &[&["--seed", "5", "--overwrite"], &init[..]].concat());
    assert!(read() != before);
}

#[test]
fn each_reader_refuses_what_it_would_misread() {
    let folder = Folder::new();
    tuned(&folder, "kaiming", "adapter", &[]);
    let refused = |adapter: &Adapter, readers: &[&str], what: &str| {
        adapter.write(&folder, "changed");
        for reader in readers {
            let out = if *reader == "llama.cpp" { "never.gguf" } else { "never" };
            // A model that is not there: the reader's reason comes first.
            let arguments =
                ["export", "--adapter", "changed", "--for", reader, "--out", out, "--model", "none"];
            folder.refuse(&arguments, 2, &[reader, "would not read this adapter rightly", what]);
        }
    };
    let plain = || Adapter::read(&folder, "adapter");
    let mut dora = plain();
    dora.config["use_dora"] = json!(true);
    for (module, out) in plain().modules() {
        dora.put(&format!("{module}.lora_magnitude_vector"), &[out]);
    }
    refused(&dora, &["vllm", "llama.cpp", "mistral.rs", "mlx"], "use_dora");
    // PEFT reads it, and so do we.
    folder.succeed(&["export", "--adapter", "changed", "--out", "dora"]);
    assert_eq!(Adapter::read(&folder, "dora").config["use_dora"], json!(true));
    let mut bias = plain();
    bias.config["lora_bias"] = json!(true);
    for (module, out) in plain().modules() {
        bias.put(&format!("{module}.lora_B.bias"), &[out]);
    }
    refused(&bias, &["vllm", "llama.cpp", "mistral.rs", "mlx"], "biases");
    let mut embedding = plain();
    embedding.config["target_modules"].as_array_mut().unwrap().push(json!("embed_tokens"));
    embedding.put("model.embed_tokens.lora_embedding_A", &[2, 2048]);
    embedding.put("model.embed_tokens.lora_embedding_B", &[192, 2]);
    refused(&embedding, &["mistral.rs", "mlx"], "factors of an embedding");
    let mut whole = plain();
    whole.config["modules_to_save"] = json!(["lm_head"]);
    whole.put("lm_head.weight", &[2, 3]);
    refused(&whole, &["vllm", "llama.cpp", "mistral.rs", "mlx"], "modules_to_save");
    let large = Adapter::of(QUERY, [192, 192], 300);
    refused(&large, &["mistral.rs"], "rank 300, the most is 256");
    let cut = ["export", "--adapter", "changed", "--for", "mistral.rs", "--recompress", "8", "--out", "cut"];
    folder.succeed(&cut);
    let strange = Adapter::of("model.layers.0.mlp.router", [4, 192], 1);
    refused(&strange, &["vllm"], "router");
    let head = Adapter::of("lm_head", [2048, 192], 1);
    head.write(&folder, "head");
    let to_llama = ["export", "--adapter", "head", "--for", "llama.cpp", "--out", "never.gguf"];
    folder.refuse(&to_llama, 2, &["llama.cpp", "lm_head", "ties its head"]);
    assert!(!folder.path().join("never").exists() && !folder.path().join("never.gguf").exists());
}

#[test]
fn what_cannot_be_applied_is_shown_with_the_reason() {
    let folder = Folder::new();
    tuned(&folder, "lora-ga", "adapter", &["--run", "r"]);
    let inspect = |path: &str| parse(&folder.succeed(&["--json", "inspect", path]));
    let sound = inspect("adapter");
    assert_eq!((sound["kind"].as_str(), &sound["objections"]), (Some("adapter"), &json!([])));
    assert_eq!((&sound["facts"]["ranks"], &sound["facts"]["layers"]), (&json!([4]), &json!(42)));
    let row = &sound["table"][0];
    assert_eq!((&row["shape"], &row["rank"]), (&json!([192, 512]), &json!(4)), "{row}");
    assert!(row["norm"].as_f64().unwrap() > 0.0);
    let objection = |path: &str, words: &str| {
        let shown = inspect(path);
        let found = shown["objections"].to_string();
        assert!(found.contains(words), "{path}: {found}");
        assert_eq!(shown["facts"]["layers"], 42, "it is shown all the same");
    };
    objection("adapter/initial", "changed base");
    let mut changed = Adapter::read(&folder, "adapter");
    for start in ["pissa", "lora_ga", "corda"] {
        changed.config["init_lora_weights"] = json!(start);
        changed.write(&folder, "raw");
        objection("raw", "a base that was changed at the start");
    }
    let text = folder.succeed(&["inspect", "raw"]);
    assert!(text.contains("lowrank cannot use this") && text.contains("effective rank"), "{text}");
    changed.config["init_lora_weights"] = json!(true);
    changed.config["alora_invocation_tokens"] = json!([1, 2]);
    changed.put("model.layers.0.mlp.up_proj.extra", &[3]);
    changed.write(&folder, "unsupported");
    objection("unsupported", "alora_invocation_tokens");
    objection("unsupported", "up_proj.extra");
    for (reader, out) in [("mlx", "x"), ("llama.cpp", "l.gguf")] {
        folder.succeed(&["export", "--adapter", "adapter", "--for", reader, "--out", out]);
        let shown = inspect(out);
        assert_eq!((shown["kind"].as_str(), &shown["facts"]["ranks"]), (Some("adapter"), &json!([4])));
        assert_eq!(
            (&shown["provenance"]["lowrank.init"], &shown["facts"]["layers"]),
            (&json!("lora-ga"), &json!(42))
        );
        let norms = |shown: &Value| {
            shown["table"].as_array().unwrap().iter().map(|row| row["norm"].as_f64().unwrap()).sum::<f64>()
        };
        assert!((norms(&shown) / norms(&sound) - 1.0).abs() < 1e-5, "{reader}");
    }
    let last = std::fs::read_dir(folder.path().join("r")).unwrap();
    let last = last.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let last = last.filter(|name| name.starts_with("checkpoint-")).max().unwrap();
    for (file, key) in [("start.safetensors", "identity.init"), (&last, "identity.model")] {
        let shown = inspect(&format!("r/{file}"));
        assert_eq!(shown["kind"], "checkpoint");
        assert_eq!(
            (&shown["facts"]["layers"], &shown["facts"]["ranks"]),
            (&json!(42), &json!([2])),
            "{file}"
        );
        assert!(shown["provenance"].get(key).is_some(), "{file}: {}", shown["provenance"]);
        assert_eq!(shown["table"][0]["rank"], 2);
    }
}
