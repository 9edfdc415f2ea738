//! `lowrank combine` through the program: what it makes, what it tells, what it refuses.
#![allow(clippy::unwrap_used, clippy::panic)] // A failure here is a failure of the test.

mod program;

use program::{Folder, QUICK, records};
use serde_json::{Value, json};

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn tuned(folder: &Folder, seed: &str, out: &str, more: &[&str]) {
    folder.file("data.jsonl", &records());
    let fixed = ["tune", "--data", "data.jsonl", "--quiet", "--rate", "0.01", "--init", "kaiming"];
    let named = ["--seed", seed, "--out", out, "--run", &format!("{out}-run")];
    folder.succeed(&[&fixed[..], &named, &QUICK, more].concat());
}

/// The model that the adapters are for, as a file.
fn base(folder: &Folder) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets");
    let gguf = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    let gguf = gguf.into_iter().find(|path| path.extension().is_some_and(|e| e == "gguf")).unwrap();
    std::fs::copy(gguf, folder.path().join("base.gguf")).unwrap();
}

fn rewrite(folder: &Folder, name: &str, key: &str, value: Value) {
    let path = folder.path().join(name).join("adapter_config.json");
    let mut config = parse(&std::fs::read_to_string(&path).unwrap());
    config[key] = value;
    std::fs::write(&path, config.to_string()).unwrap();
}

fn copy(folder: &Folder, from: &str, to: &str) {
    std::fs::create_dir_all(folder.path().join(to)).unwrap();
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        std::fs::copy(folder.path().join(from).join(file), folder.path().join(to).join(file)).unwrap();
    }
}

#[test]
fn every_combination_makes_an_adapter_that_runs() {
    let folder = Folder::new();
    base(&folder);
    // Different targets, ranks and scales; both ranks are 2 where a method needs one.
    tuned(&folder, "1", "a", &["--targets", "q_proj,v_proj"]);
    tuned(&folder, "2", "b", &["--targets", "v_proj,down_proj", "--alpha", "3", "--rank-stabilised"]);
    let methods = parse(&folder.succeed(&["--json", "list"]));
    let names = methods["methods"].as_array().unwrap().iter().filter(|m| m["kind"] == "combination");
    let names: Vec<&str> = names.map(|method| method["name"].as_str().unwrap()).collect();
    assert_eq!(names.len(), 11);
    for how in names {
        let mut more = vec!["--how", how];
        let explained = parse(&folder.succeed(&["--json", "explain", how]));
        let takes = |name: &str| explained["choices"].as_array().unwrap().iter().any(|c| c["name"] == name);
        for (choice, value) in [("density", "0.5"), ("sign", "frequency"), ("seed", "3")] {
            if takes(choice) {
                more.extend([
                    ["--density", "--sign", "--seed"]
                        [["density", "sign", "seed"].iter().position(|c| *c == choice).unwrap()],
                    value,
                ]);
            }
        }
        let fixed = [
            "--json",
            "--quiet",
            "combine",
            "a",
            "b",
            "--weights",
            "0.8,-0.5",
            "--out",
            how,
            "--model",
            "base.gguf",
        ];
        let shown = parse(&folder.succeed(&[&fixed[..], &more].concat()));
        let number = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("{how}: {shown}"));
        let (effect, apart) = (number(&shown["logits"]["effect"]), number(&shown["logits"]["from_sum"]));
        assert!(effect > 1e-3, "{how}: {shown}");
        assert_eq!(number(&shown["logits"]["read_difference"]), 0.0, "{how}: {shown}");
        match how {
            "cat" => {
                assert_eq!(shown["rank"], 4, "the sum, where both change a layer");
                assert!(number(&shown["from_sum"]) < 1e-6 && apart < 1e-3 * effect.max(1.0), "{shown}");
            }
            _ => assert!(shown["rank"] == 2 && number(&shown["from_sum"]) > 1e-4, "{how}: {shown}"),
        }
        let seen = parse(&folder.succeed(&["--json", "inspect", how]));
        assert_eq!(seen["objections"], json!([]), "{how}");
        assert_eq!(seen["provenance"]["lowrank.combination"], how);
        assert_eq!(seen["provenance"]["lowrank.weights"], "0.8,-0.5");
        assert_eq!(seen["provenance"]["lowrank.base_hash"].as_str().map(str::len), Some(64));
        folder.succeed(&["merge", "--quiet", "--adapter", how, "--out", "m.gguf", "--overwrite"]);
    }
    let plain = folder.succeed(&["combine", "a", "b", "--quiet", "--weights", "1,1", "--out", "plain"]);
    for word in ["2 adapters combined by cat", "rank at most 4", "distance from the weighted sum", "not run"]
    {
        assert!(plain.contains(word), "{plain}");
    }
}

#[test]
fn full_rank_is_exact_and_a_smaller_one_says_what_it_loses() {
    let folder = Folder::new();
    base(&folder);
    tuned(&folder, "1", "a", &[]);
    tuned(&folder, "2", "b", &[]);
    let run = |more: &[&str]| {
        let fixed = [
            "--json",
            "--quiet",
            "combine",
            "a",
            "b",
            "--weights",
            "0.5,0.5",
            "--model",
            "base.gguf",
            "--overwrite",
        ];
        parse(&folder.succeed(&[&fixed[..], &["--out", "c"], more].concat()))
    };
    let number = |shown: &Value, key: &str| shown[key].as_f64().unwrap();
    let full = run(&["--how", "svd", "--rank", "4"]);
    assert!(number(&full, "from_sum") < 1e-6, "{full}");
    let less = run(&["--how", "svd", "--rank", "1"]);
    let cut = run(&["--recompress", "1"]);
    assert!(number(&less, "from_sum") > 1e-2 && cut["recompression_error"].as_f64().unwrap() > 1e-2);
    assert!((number(&less, "from_sum") - number(&cut, "from_sum")).abs() < 1e-5, "{less} {cut}");
    // The same seed, the same bytes; another one, other ones.
    let bytes = |seed: &str| {
        run(&["--how", "dare_linear", "--density", "0.5", "--seed", seed]);
        std::fs::read(folder.path().join("c/adapter_model.safetensors")).unwrap()
    };
    let first = bytes("1");
    assert!(first == bytes("1"));
    assert!(first != bytes("2"));
}

#[test]
fn what_does_not_belong_together_is_refused_by_name() {
    let folder = Folder::new();
    tuned(&folder, "1", "a", &[]);
    tuned(&folder, "2", "wide", &["--rank-pattern", "q_proj=3"]);
    let refuse = |adapters: &[&str], weights: &str, more: &[&str], words: &[&str]| {
        let fixed = ["--weights", weights, "--out", "never"];
        folder.refuse(&[&["combine"], adapters, &fixed[..], more].concat(), 2, words);
        assert!(!folder.path().join("never").exists());
    };
    refuse(&["a", "wide"], "1,1", &["--how", "linear"], &["rank", "adapter 2", "3", "2", "cat, svd"]);
    refuse(&["a", "wide"], "1", &[], &["1 numbers for 2 adapters"]);
    refuse(&["a", "wide"], "1,inf", &[], &["inf", "finite"]);
    refuse(&["a", "wide"], "1,1", &["--how", "tiez"], &["tiez", "ties-svd"]);
    refuse(&["a", "a"], "1,1", &["--how", "ties"], &["--density"]);
    refuse(&["a", "a"], "1,1", &["--how", "ties", "--density", "1.5"], &["1.5", "at most 1"]);
    refuse(&["a", "a"], "1,1", &["--density", "0.5"], &["--density", "cat", "ties"]);
    refuse(
        &["a", "a"],
        "1,1",
        &["--how", "ties", "--density", "0.5", "--rank", "2"],
        &["--rank", "ties-svd"],
    );
    refuse(&["a", "a"], "1,1", &["--how", "svd", "--rank", "0"], &["--rank 0"]);
    refuse(&["a", "a"], "1,1", &["--how", "svd", "--clamp", "0"], &["quantile"]);
    refuse(&["a", "a"], "1,1", &["--recompress", "0"], &["--recompress 0"]);
    refuse(&["a", "a/none"], "1,1", &[], &["a/none"]);
    refuse(&["a", "a-run"], "1,1", &[], &["a-run"]);
    let start = ["init", "--data", "data.jsonl", "--quiet", "--init", "pissa", "--out", "p"];
    folder.succeed(&[&start[..], &QUICK[2..]].concat());
    refuse(&["a", "p/initial"], "1,1", &[], &["p/initial", "began with", "changed base"]);
    folder.refuse(&["combine", "a", "--weights", "1", "--out", "never"], 2, &["2"]);

    // Damage of a copy: each has its own sentence.
    let damaged = |key: &str, value: Value, words: &[&str]| {
        copy(&folder, "a", "changed");
        rewrite(&folder, "changed", key, value);
        refuse(&["a", "changed"], "1,1", &[], words);
    };
    damaged("bias", json!("all"), &["bias"]);
    damaged("modules_to_save", json!(["lm_head"]), &["modules_to_save"]);
    damaged("use_dora", json!(true), &["use_dora"]);
    damaged("peft_type", json!("IA3"), &["IA3"]);
    damaged("fan_in_fan_out", json!(true), &["fan_in_fan_out"]);

    // Another base: by hash, in either way.
    folder.succeed(&["merge", "--quiet", "--adapter", "a", "--out", "other.gguf"]);
    tuned(&folder, "3", "elsewhere", &["--model", "other.gguf"]);
    refuse(&["a", "elsewhere"], "1,1", &[], &["a and elsewhere", "different bases"]);
    refuse(&["a", "wide"], "1,1", &["--model", "other.gguf"], &["made for another model"]);
    folder.succeed(&["combine", "a", "wide", "--quiet", "--weights", "1,1", "--out", "there"]);
    let again = ["combine", "a", "wide", "--weights", "1,1", "--out", "there"];
    folder.refuse(&again, 2, &["there", "exists"]);
}
