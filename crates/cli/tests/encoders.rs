//! Encoders: a tiny random BERT learns classes, numbers and hidden tokens with several methods, is gone on with, and is handed
//! over; what means nothing to it is refused by name.
#![allow(clippy::unwrap_used, clippy::panic)] // A failure here is a failure of the test.

mod program;

use std::collections::BTreeMap;
use std::path::Path;

use lowrank_record::Seed;
use program::Folder;
use serde_json::{Value, json};

const HIDDEN: usize = 24;
const INNER: usize = 40;
const WORDS: [&str; 16] = [
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "room", "was", "clean", "dirty", "food", "good",
    "bad", "and", "very", "not",
];

/// A BERT of two blocks with random weights, its tokenizer and a masked-language head, as Hugging Face writes them.
fn encoder(folder: &Folder) {
    let path = folder.path().join("encoder");
    std::fs::create_dir_all(&path).unwrap();
    let config = json!({
        "architectures": ["BertForMaskedLM"], "model_type": "bert", "vocab_size": WORDS.len(), "hidden_size": HIDDEN,
        "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": INNER, "max_position_embeddings": 40,
        "type_vocab_size": 2, "layer_norm_eps": 1e-12, "hidden_act": "gelu", "pad_token_id": 0
    });
    std::fs::write(path.join("config.json"), config.to_string()).unwrap();
    let vocabulary: BTreeMap<&str, usize> = WORDS.iter().enumerate().map(|(id, word)| (*word, id)).collect();
    let special = |id: usize| {
        json!({"id": id, "content": WORDS[id], "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true})
    };
    let around = |name: &str, segment: u32| json!({"SpecialToken": {"id": name, "type_id": segment}});
    let text = |name: &str, segment: u32| json!({"Sequence": {"id": name, "type_id": segment}});
    let tokenizer = json!({
        "version": "1.0", "truncation": {"max_length": 8, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 8}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
            "pad_type_id": 0, "pad_token": "[PAD]"},
        "added_tokens": (0..5).map(special).collect::<Vec<_>>(), "normalizer": null,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": {"type": "TemplateProcessing",
            "single": [around("[CLS]", 0), text("A", 0), around("[SEP]", 0)],
            "pair": [around("[CLS]", 0), text("A", 0), around("[SEP]", 0), text("B", 1), around("[SEP]", 1)],
            "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]},
                "[SEP]": {"id": "[SEP]", "ids": [3], "tokens": ["[SEP]"]}}},
        "decoder": null, "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"}
    });
    std::fs::write(path.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let mut tensors: Vec<(String, Vec<usize>)> = Vec::new();
    let mut add = |name: String, shape: &[usize]| tensors.push((name, shape.to_vec()));
    for (table, rows) in [("word", WORDS.len()), ("position", 40), ("token_type", 2)] {
        add(format!("bert.embeddings.{table}_embeddings.weight"), &[rows, HIDDEN]);
    }
    let norms = |at: &str| [format!("{at}.weight"), format!("{at}.bias")];
    norms("bert.embeddings.LayerNorm").into_iter().for_each(|name| add(name, &[HIDDEN]));
    for layer in 0..2 {
        let at = |part: &str| format!("bert.encoder.layer.{layer}.{part}");
        for (part, [out, inp]) in [
            ("attention.self.query", [HIDDEN, HIDDEN]),
            ("attention.self.key", [HIDDEN, HIDDEN]),
            ("attention.self.value", [HIDDEN, HIDDEN]),
            ("attention.output.dense", [HIDDEN, HIDDEN]),
            ("intermediate.dense", [INNER, HIDDEN]),
            ("output.dense", [HIDDEN, INNER]),
        ] {
            add(at(&format!("{part}.weight")), &[out, inp]);
            add(at(&format!("{part}.bias")), &[out]);
        }
        norms(&at("attention.output.LayerNorm")).into_iter().for_each(|name| add(name, &[HIDDEN]));
        norms(&at("output.LayerNorm")).into_iter().for_each(|name| add(name, &[HIDDEN]));
    }
    add("bert.pooler.dense.weight".to_owned(), &[HIDDEN, HIDDEN]);
    add("bert.pooler.dense.bias".to_owned(), &[HIDDEN]);
    add("cls.predictions.transform.dense.weight".to_owned(), &[HIDDEN, HIDDEN]);
    add("cls.predictions.transform.dense.bias".to_owned(), &[HIDDEN]);
    norms("cls.predictions.transform.LayerNorm").into_iter().for_each(|name| add(name, &[HIDDEN]));
    add("cls.predictions.bias".to_owned(), &[WORDS.len()]);
    let (mut header, mut data) = (json!({"__metadata__": {"format": "pt"}}), Vec::new());
    for (name, shape) in &tensors {
        let gain = name.contains("LayerNorm.weight");
        let draws = Seed(4).at("weight", name).normal(shape.iter().product());
        let value = |draw: f32| if gain { 1.0 + 0.1 * draw } else { 0.25 * draw };
        let bytes: Vec<u8> = draws.into_iter().flat_map(|draw| value(draw).to_le_bytes()).collect();
        header[name] =
            json!({"dtype": "F32", "shape": shape, "data_offsets": [data.len(), data.len() + bytes.len()]});
        data.extend(bytes);
    }
    let header = header.to_string().into_bytes();
    let file = [&(header.len() as u64).to_le_bytes()[..], &header, &data].concat();
    std::fs::write(path.join("model.safetensors"), file).unwrap();
}

/// Sentences that say what they are labelled with.
fn reviews(label: impl Fn(bool, usize) -> Value) -> String {
    let line = |index: usize| {
        let good = index.is_multiple_of(2);
        let word = match (good, index % 3) {
            (true, 0) => "clean",
            (true, _) => "good",
            (false, 0) => "dirty",
            (false, _) => "bad",
        };
        let filler = ["the room was", "the food was very", "and the room was"][index / 2 % 3];
        let tail = ["", " and", " and very", " and the food"][index / 6 % 4];
        json!({"text": format!("{filler} {word}{tail}"), "label": label(good, index)}).to_string() + "\n"
    };
    (0..96).map(line).collect()
}

fn ready() -> Folder {
    let folder = Folder::new();
    encoder(&folder);
    folder.file("data.jsonl", &reviews(|good, _| json!(if good { "good" } else { "bad" })));
    folder.file("numbers.jsonl", &reviews(|good, index| json!(f64::from(good) + 0.01 * (index % 3) as f64)));
    folder
}

fn tune<'a>(task: &'a str, data: &'a str, run: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut all = vec!["tune", "--model", "encoder", "--task", task, "--data", data, "--run", run];
    all.extend([
        "--batch",
        "4",
        "--rank",
        "2",
        "--held-out",
        "0.25",
        "--eval-every",
        "4",
        "--checkpoint-every",
        "2",
    ]);
    all.extend(more);
    all
}

/// Names and shapes of a safetensors file.
fn tensors(path: &Path) -> BTreeMap<String, Value> {
    let bytes = std::fs::read(path).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header: BTreeMap<String, Value> = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    header.remove("__metadata__");
    header.into_iter().map(|(name, entry)| (name, entry["shape"].clone())).collect()
}

#[test]
fn several_methods_learn_classes_and_are_handed_over_with_the_head() {
    let folder = ready();
    for method in ["lora", "lora-ga", "eva", "lora-sb", "svfit"] {
        let told = folder.succeed(&tune(
            "classification",
            "data.jsonl",
            method,
            &["--method", method, "--steps", "8", "--rate", "0.01", "--quiet"],
        ));
        assert!(told.contains("held-out accuracy") && told.contains("before"), "{method}: {told}");
        let adapter = folder.path().join(method).join("adapter");
        let config: Value =
            serde_json::from_slice(&std::fs::read(adapter.join("adapter_config.json")).unwrap()).unwrap();
        assert_eq!(config["task_type"], "SEQ_CLS");
        assert_eq!(config["modules_to_save"], json!(["classifier"]));
        let found = tensors(&adapter.join("adapter_model.safetensors"));
        assert_eq!(found["base_model.model.classifier.weight"], json!([2, HIDDEN]), "{method}");
        assert_eq!(found["base_model.model.classifier.bias"], json!([2]));
        assert!(found.contains_key("base_model.model.bert.encoder.layer.1.output.dense.lora_A.weight"));
        let report = std::fs::read_to_string(folder.path().join(method).join("report.html")).unwrap();
        assert!(report.contains("Held-out accuracy") && report.contains("nats per record"), "{method}");
    }
}

#[test]
fn what_is_said_by_a_word_is_learned() {
    let folder = ready();
    let more = ["--init", "kaiming", "--steps", "60", "--rate", "0.02", "--quiet"];
    let told =
        folder.succeed(&[&["--json"], &tune("classification", "data.jsonl", "run", &more)[..]].concat());
    let told: Value = serde_json::from_str(&told).unwrap();
    let run = &told["runs"][0];
    assert!(run["score"]["value"].as_f64().unwrap() > 0.9, "{run}");
    assert!(
        run["held_out_after"].as_f64().unwrap() < 0.5 * run["held_out_before"].as_f64().unwrap(),
        "{run}"
    );
}

#[test]
fn a_run_is_gone_on_with_and_the_same_seed_gives_the_same_bytes() {
    let folder = ready();
    for task in
        [("classification", "data.jsonl"), ("masked-lm", "data.jsonl"), ("regression", "numbers.jsonl")]
    {
        let options = ["--init", "lora-ga", "--steps", "8", "--quiet"];
        let (whole, again, cut) =
            (format!("{}-whole", task.0), format!("{}-again", task.0), format!("{}-cut", task.0));
        for run in [&whole, &again, &cut] {
            folder.succeed(&tune(task.0, task.1, run, &options));
        }
        // As a run that died behind its step 6.
        let folder_of = |run: &str| folder.path().join(run);
        std::fs::remove_dir_all(folder_of(&cut).join("adapter")).unwrap();
        std::fs::remove_file(folder_of(&cut).join("checkpoint-000008.safetensors")).unwrap();
        let loud = [&options[..4], &["--resume"]].concat();
        let (_, told) = folder.tell(&tune(task.0, task.1, &cut, &loud));
        assert!(told.contains("going on from step 6"), "{told}");
        for file in ["adapter/adapter_model.safetensors", "adapter/adapter_config.json", "metrics.jsonl"] {
            let read = |run: &str| std::fs::read(folder_of(run).join(file)).unwrap();
            assert!(read(&whole) == read(&again), "{}: {file} differs between two runs", task.0);
            assert!(read(&whole) == read(&cut), "{}: {file} differs after going on", task.0);
        }
    }
}

#[test]
fn numbers_and_hidden_tokens_are_told_of_by_their_own_measures() {
    let folder = ready();
    let quick = ["--init", "kaiming", "--steps", "4", "--quiet"];
    let told = folder.succeed(&tune("regression", "numbers.jsonl", "numbers", &quick));
    assert!(told.contains("held-out correlation"), "{told}");
    let told = folder.succeed(&tune("masked-lm", "data.jsonl", "hidden", &quick));
    assert!(!told.contains("accuracy") && !told.contains("correlation"), "{told}");
    let config = folder.path().join("hidden/adapter/adapter_config.json");
    let config: Value = serde_json::from_slice(&std::fs::read(config).unwrap()).unwrap();
    assert!(config["task_type"].is_null() && config["modules_to_save"].is_null(), "{config}");
}

#[test]
fn a_big_bench_task_is_learned_without_its_empty_examples_and_evaluated() {
    let folder = ready();
    let example = |index: usize| {
        let (text, good) = (["the room was clean", "the food was bad"][index % 2], index.is_multiple_of(2));
        let scores = json!({"good": u8::from(good), "bad": u8::from(!good)});
        json!({"input": format!("{text}{}", [" and", " and very", ""][index % 3]), "target_scores": scores})
    };
    let mut examples: Vec<Value> = (0..40).map(example).collect();
    examples.push(json!({"input": " ", "target_scores": {"good": 1, "bad": 0}}));
    examples.push(json!({"input": "the room", "target_scores": {"good": 1, "bad": 1}}));
    folder
        .file("task.json", &json!({"name": "t", "task_prefix": "Well? ", "examples": examples}).to_string());
    let (_, told) =
        folder.tell(&tune("classification", "task.json", "run", &["--method", "lora", "--steps", "4"]));
    for part in
        ["40 records", "1 left out, whose text is empty", "1 left out, whose choices", "bad (20), good (20)"]
    {
        assert!(told.contains(part), "{part}: {told}");
    }
    let eval = ["eval", "--model", "encoder", "--task", "classification", "--data", "task.json", "--quiet"];
    let adapted =
        [&["--json"], &eval[..], &["--adapter", "run/adapter", "--dump-logits", "l.safetensors"]].concat();
    let found: Value = serde_json::from_str(&folder.succeed(&adapted)).unwrap();
    assert_eq!(found["score"]["name"], "accuracy");
    assert_eq!(tensors(&folder.path().join("l.safetensors"))["logits"], json!([40, 2]));
    // Answers are in the order of the data, however batches are sorted: the same data turned round.
    examples.truncate(40);
    examples.reverse();
    folder.file("turned.json", &json!({"name": "t", "examples": examples}).to_string());
    let turned =
        ["--data", "turned.json", "--quiet", "--adapter", "run/adapter", "--dump-logits", "m.safetensors"];
    folder.succeed(&[&eval[..5], &turned].concat());
    let answers = |name: &str| -> Vec<[u8; 8]> {
        let bytes = std::fs::read(folder.path().join(name)).unwrap();
        bytes[bytes.len() - 40 * 8..].as_chunks::<8>().0.to_vec()
    };
    let (there, mut back) = (answers("l.safetensors"), answers("m.safetensors"));
    back.reverse();
    assert_eq!(there, back);
    assert!(there.iter().any(|row| row != &there[0]), "answers differ between texts");
    folder.refuse(&eval[..7], 2, &["--adapter"]);
    folder.refuse(&[&eval[..5], &["--data", "task.json", "--tokens", "x.json"]].concat(), 2, &["--tokens"]);
    folder.refuse(&[&eval[..7], &["--loss-on", "all"]].concat(), 2, &["--loss-on"]);
    let hidden = ["eval", "--model", "encoder", "--task", "masked-lm", "--data", "task.json"];
    folder.refuse(&[&hidden[..], &["--dump-logits", "h.safetensors"]].concat(), 2, &["--dump-logits"]);
}

#[test]
fn starts_are_planned_written_and_compared() {
    let folder = ready();
    let dry = tune("classification", "data.jsonl", "dry", &["--steps", "4", "--dry-run", "--quiet"]);
    assert!(folder.succeed(&dry).contains("predicted peak"));
    let init = ["--model", "encoder", "--task", "classification", "--data", "data.jsonl", "--out", "start"];
    folder.succeed(&[&["init"], &init[..], &["--init", "pissa", "--rank", "2", "--quiet"]].concat());
    assert!(folder.path().join("start/initial").is_dir());
    let compare =
        ["--methods", "lora,pissa", "--steps", "4", "--seeds", "2", "--rates", "2", "--run", "both"];
    let more = ["--held-out", "0.25", "--rank", "2", "--batch", "4", "--quiet"];
    let told = folder.succeed(&[&["compare"], &init[..6], &compare[..], &more[..]].concat());
    assert!(told.contains("accuracy") && told.contains("--task classification"), "{told}");
    let result = std::fs::read(folder.path().join("both/compare.json")).unwrap();
    let result: Value = serde_json::from_slice(&result).unwrap();
    assert_eq!(result["unit"], "nats per record");
    for entry in result["methods"].as_array().unwrap() {
        assert_eq!(entry["runs"].as_array().unwrap().len(), 2);
        assert!((0.0..=1.0).contains(&entry["accuracy"]["mean"].as_f64().unwrap()), "{entry}");
    }
}

#[test]
fn what_means_nothing_to_an_encoder_is_refused_by_name() {
    let folder = ready();
    folder.file("one.jsonl", &reviews(|_, _| json!("good")));
    folder.file("other.jsonl", "{\"text\": \"the room\", \"label\": \"awful\"}\n");
    folder.file("bare.jsonl", "{\"text\": \"the room\"}\n");
    folder.file("table.csv", "text,label\n");
    let of = |more: &[&'static str]| {
        let mut all = vec!["tune", "--model", "encoder", "--task", "classification", "--data", "data.jsonl"];
        all.extend(more);
        all
    };
    for (more, words) in [
        (&["--format", "chat"][..], &["--format", "encoder"][..]),
        (&["--loss-on", "all"], &["--loss-on"]),
        (&["--recompute", "blocks"], &["--recompute"]),
        (&["--shown", "learned"], &["--shown"]),
        (&["--calibration-tokens", "data.jsonl"], &["--calibration-tokens"]),
        (&["--form", "ia3", "--init", "none"], &["ia3", "head"]),
        (&["--targets", "classifier"], &["classifier", "whole"]),
        (&["--max-length", "100"], &["--max-length 100", "40 tokens"]),
        (&["--max-length", "4"], &["max_length"]),
        (&["--held-out-data", "other.jsonl"], &["other.jsonl", "line 1", "awful", "bad, good"]),
        (&["--init", "loftq", "--base-out", "base"], &["--base-out"]),
    ] {
        folder.refuse(&of(more), 2, words);
    }
    let with = |task: &'static str, data: &'static str| {
        vec!["tune", "--model", "encoder", "--task", task, "--data", data]
    };
    folder.refuse(&with("classification", "one.jsonl"), 2, &["one.jsonl", "\"good\"", "at least two"]);
    folder.refuse(&with("classification", "bare.jsonl"), 2, &["bare.jsonl", "line 1", "no `label`"]);
    folder.refuse(&with("regression", "data.jsonl"), 2, &["line 1", "not a number"]);
    folder.refuse(&with("classification", "table.csv"), 2, &["csv", "jsonl"]);
    folder.refuse(&["tune", "--model", "encoder", "--data", "data.jsonl"], 2, &["--task", "classification"]);
    folder.refuse(&["tune", "--task", "classification"], 2, &["--model", "--data"]);
    folder.refuse(
        &[
            "compare",
            "--model",
            "encoder",
            "--task",
            "classification",
            "--data",
            "data.jsonl",
            "--questions",
            "x.json",
        ],
        2,
        &["--questions", "decoders"],
    );
}
