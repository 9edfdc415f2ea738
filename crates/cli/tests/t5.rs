//! A tiny T5 through the program: tuned, resumed, evaluated; and what it cannot learn from is refused by name.
#![allow(clippy::unwrap_used)] // A failure here is a failure of the test.

mod program;

use program::{Folder, directory};
use serde_json::Value;

const QUICK: [&str; 6] = ["--batch", "8", "--rank", "2", "--rate", "0.02"];

fn ready() -> Folder {
    let folder = Folder::new();
    directory::t5(&folder.path().join("t5"));
    folder.file("sums.jsonl", &directory::sums());
    folder
}

/// Six steps unless others are asked for.
fn tune<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let steps: &[&str] = if more.contains(&"--steps") { &[] } else { &["--steps", "6"] };
    [&["tune", "--model", "t5", "--data", "sums.jsonl", "--held-out", "0.2"][..], &QUICK, steps, more]
        .concat()
}

fn loss(folder: &Folder, more: &[&str]) -> f64 {
    let fixed = ["--json", "--quiet", "eval", "--model", "t5", "--data", "sums.jsonl"];
    let found: Value = serde_json::from_str(&folder.succeed(&[&fixed[..], more].concat())).unwrap();
    assert!(
        (found["perplexity"].as_f64().unwrap() / found["loss"].as_f64().unwrap().exp() - 1.0).abs() < 1e-9
    );
    // Four words and the end of each of 25 answers.
    assert_eq!(found["tokens"].as_u64(), Some(125));
    found["loss"].as_f64().unwrap()
}

#[test]
fn answers_are_learned_with_each_start_and_read_back() {
    let folder = ready();
    let before = loss(&folder, &[]);
    for method in ["lora", "eva", "lora-ga"] {
        let (out, run) = (format!("adapter-{method}"), format!("run-{method}"));
        let told = folder.tell(&tune(&["--method", method, "--steps", "30", "--out", &out, "--run", &run])).1;
        assert!(told.contains("T5 of 1 and 1 layers"), "{told}");
        assert!(told.contains("⟦ the sum is zero </s>⟧"), "{told}");
        let config = std::fs::read_to_string(folder.path().join(&out).join("adapter_config.json")).unwrap();
        assert!(config.contains("SEQ_2_SEQ_LM"), "{config}");
        let after = loss(&folder, &["--adapter", &out]);
        assert!(after < 0.8 * before, "{method}: {before} {after}");
    }
    let dumped = ["--adapter", "adapter-lora", "--limit", "3", "--dump-logits", "logits.safetensors"];
    let fixed = ["eval", "--model", "t5", "--data", "sums.jsonl", "--quiet"];
    folder.succeed(&[&fixed[..], &dumped].concat());
    let header = std::fs::read(folder.path().join("logits.safetensors")).unwrap();
    assert!(String::from_utf8_lossy(&header[..120]).contains("[3,5,24]"));
}

#[test]
fn a_run_that_is_gone_on_with_is_one_that_never_stopped() {
    let folder = ready();
    let run = |name: &'static str, resume: bool| {
        let fixed =
            ["--quiet", "--steps", "200", "--method", "eva", "--checkpoint-every", "3", "--run", name];
        tune(&[&fixed[..], if resume { &["--resume"] } else { &[] }].concat())
    };
    folder.goes_on_as_if_never_stopped(run);
}

#[test]
fn what_cannot_be_learned_from_is_refused() {
    let folder = ready();
    let on = |more: &[&'static str]| tune(&[&["--out", "never"], more].concat());
    folder.refuse(&on(&["--task", "classification"]), 2, &["--task is for encoders", "t5"]);
    folder.refuse(&on(&["--loss-on", "all"]), 2, &["--loss-on", "encoder-decoder"]);
    folder.refuse(&on(&["--shown", "learned"]), 2, &["--shown learned", "encoder-decoder"]);
    folder.refuse(&["tune", "--model", "t5"], 2, &["--data"]);
    folder.refuse(&["tune", "--model", "t5", "--data", "none.jsonl"], 2, &["no data file at none.jsonl"]);
    folder.file("text.jsonl", "{\"text\": \"what is one\"}\n");
    folder.refuse(&["tune", "--model", "t5", "--data", "text.jsonl"], 2, &["line 1", "prompt/completion"]);
    folder.file("empty.jsonl", "");
    folder.refuse(&["tune", "--model", "t5", "--data", "empty.jsonl"], 2, &["no record"]);
    folder.file("notes.txt", "what is one plus two");
    folder.refuse(&["tune", "--model", "t5", "--data", "notes.txt"], 2, &[".txt", ".jsonl"]);
    folder.refuse(&on(&["--max-length", "1"]), 2, &["max_length"]);
    std::fs::remove_file(folder.path().join("t5/tokenizer.json")).unwrap();
    folder.refuse(&on(&[]), 2, &["tokenizer.json"]);
    assert!(!folder.path().join("never").exists());
}
