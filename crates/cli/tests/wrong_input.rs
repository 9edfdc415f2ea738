//! What a user can get wrong: one clear message each, exit code 2 (nothing was started) or 1 (what was finished is
//! kept), and nothing lost.
#![allow(clippy::unwrap_used)] // A failure here is a failure of the test.

mod program;

use program::{Folder, QUICK, records};

fn tune<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["tune", "--data", "data.jsonl", "--quiet"], &QUICK[..], more].concat()
}

#[test]
fn ranks_and_numbers() {
    let folder = Folder::new();
    folder.file("data.jsonl", &records());
    folder.refuse(&tune(&["--out", "a", "--alpha=-1"]), 2, &["--alpha", "positive"]);
    let rank = |rank| ["tune", "--data", "data.jsonl", "--rank", rank, "--steps", "1"];
    folder.refuse(&rank("0"), 2, &["rank 0"]);
    folder.refuse(&rank("65"), 2, &["rank 65", "64"]);
    folder.refuse(&rank("x"), 2, &["--rank"]);
    folder.refuse(&tune(&["--held-out", "2"]), 2, &["--held-out"]);
    folder.refuse(&tune(&["--rank-pattern", "q_proj=two"]), 2, &["q_proj", "two"]);
    folder.refuse(&tune(&["--rank-pattern", "nothing=2"]), 2, &["nothing", "matches no layer"]);
    folder.refuse(&tune(&["--layers", "3-99"]), 2, &["99", "blocks 0 to"]);
    assert!(!folder.path().join("run").exists(), "nothing was started");
}

#[test]
fn names() {
    let folder = Folder::new();
    folder.file("data.jsonl", &records());
    folder.refuse(&tune(&["--init", "lora-gaa"]), 2, &["lora-gaa", "lora-ga"]);
    folder.refuse(&tune(&["--init-option", "gama=3"]), 2, &["gama", "gamma"]);
    folder.refuse(&tune(&["--targets", "q_prj"]), 2, &["q_prj", "did you mean \"q_proj\""]);
    folder.refuse(&tune(&["--form", "lorra"]), 2, &["lorra", "did you mean lora?"]);
    folder.refuse(&tune(&["--form", "ia3", "--init", "pissa"]), 2, &["ia3", "makes its own start", "pissa"]);
    folder.refuse(&tune(&["--method", "loftq"]), 2, &["loftq", "--base-out"]);
    // Judged before anything is computed, and by a dry run too.
    let exact = ["--init-option", "svd=exact", "--calibration-batch", "1", "--dry-run"];
    folder.refuse(&[&tune(&["--packing", "false"])[..], &exact].concat(), 2, &["svd = exact", "svd = fast"]);
    folder.refuse(&tune(&["--optimiser", "adam"]), 2, &["adamw"]);
    folder.refuse(
        &tune(&["--optimiser-option", "momentum=0.9"]),
        2,
        &["--optimiser-option momentum", "beta1"],
    );
    folder.refuse(&tune(&["--compare", "gaussian@-1"]), 2, &["--rate is -1"]);
    folder.refuse(&tune(&["--warmup", "5"]), 2, &["--warmup is 5"]);
    folder.refuse(&tune(&["--lora-plus", "0"]), 2, &["--lora-plus is 0"]);
    folder.refuse(&tune(&["--patience", "2", "--held-out", "0"]), 2, &["--patience", "--held-out"]);
    folder.refuse(&tune(&["--init", "orthogonal", "--rank-pattern", "q_proj=3"]), 2, &["q_proj", "even"]);
    folder.refuse(&["init", "--out", "a", "--resume"], 2, &["--resume", "lowrank tune"]);
    assert!(!folder.path().join("run").exists(), "nothing was started");
    folder.refuse(&["tune", "--rnak", "3"], 2, &["--rnak", "--rank"]);
    folder.refuse(&["explain", "pisa"], 2, &["pisa", "pissa"]);
    folder.refuse(&["tnue"], 2, &["tune"]);
    assert!(folder.succeed(&["--help"]).contains("Write the model with an adapter merged into its weights"));
}

#[test]
fn recipes() {
    let folder = Folder::new();
    folder.file("data.jsonl", &records());
    folder.file("r.toml", "ranc = 4\n");
    folder.refuse(&["tune", "--recipe", "r.toml"], 2, &["\"ranc\"", "\"rank\""]);
    folder.file("r.toml", "rank = \"four\"\n");
    folder.refuse(&["tune", "--recipe", "r.toml"], 2, &["recipe", "`rank`"]);
    folder.file("r.toml", "rank = = 4\n");
    folder.refuse(&["tune", "--recipe", "r.toml"], 2, &["TOML"]);
    folder.refuse(&["tune", "--recipe", "missing.toml"], 2, &["missing.toml"]);
    folder.file("r.toml", "rank = 4\nalpha = 32\n");
    let printed = folder.succeed(&["tune", "--recipe", "r.toml", "--rank", "2", "--print-recipe"]);
    assert!(printed.contains("rank = 2\n") && printed.contains("alpha = 32.0\n"), "{printed}");
    // It is checked, and holds what would be done: here the demonstration's choices.
    folder.refuse(&["tune", "--rank", "0", "--print-recipe"], 2, &["rank 0"]);
    folder.refuse(&["tune", "--data", "missing.jsonl", "--print-recipe"], 2, &["missing.jsonl"]);
    let printed = folder.succeed(&["tune", "--print-recipe"]);
    for line in ["steps = 80", "rate = 0.001", "compare = [\"kaiming\"]"] {
        assert!(printed.lines().any(|found| found == line), "{line}: {printed}");
    }
    folder.file("again.toml", &printed);
    assert_eq!(folder.succeed(&["tune", "--recipe", "again.toml", "--print-recipe"]), printed);
}

#[test]
fn models() {
    let folder = Folder::new();
    folder.file("data.jsonl", &records());
    let model = |model| ["tune", "--data", "data.jsonl", "--model", model];
    folder.refuse(&model("nowhere"), 2, &["no model at nowhere"]);
    std::fs::create_dir(folder.path().join("empty")).unwrap();
    folder.refuse(&model("empty"), 2, &["config.json"]);
    folder.file("model.bin", "not a model");
    folder.refuse(&model("model.bin"), 2, &["not a GGUF file"]);
    folder.file("model.gguf", "GGUF\u{3}\0\0\0");
    folder.refuse(&model("model.gguf"), 2, &["model.gguf"]);
    folder.refuse(&["tune", "--model", "empty"], 2, &["--data"]);
    // A checkpoint cut short.
    let hf = folder.path().join("hf");
    std::fs::create_dir(&hf).unwrap();
    let config = "{\"model_type\": \"llama\", \"vocab_size\": 8, \"hidden_size\": 4, \"intermediate_size\": 4, \
                  \"num_hidden_layers\": 1, \"num_attention_heads\": 1, \"max_position_embeddings\": 8}";
    std::fs::write(hf.join("config.json"), config).unwrap();
    let header = "{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}}     ";
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend([0; 7]);
    std::fs::write(hf.join("model.safetensors"), &bytes).unwrap();
    folder.refuse(&model("hf"), 2, &["model.safetensors"]);
    bytes.extend([0; 9]);
    std::fs::write(hf.join("model.safetensors"), &bytes).unwrap();
    folder.refuse(&model("hf"), 2, &["model.embed_tokens.weight", "missing"]);
}

#[test]
fn data() {
    let folder = Folder::new();
    let refuse = |content: &str, words: &[&str]| {
        folder.file("data.jsonl", content);
        folder.refuse(&["tune", "--data", "data.jsonl", "--quiet", "--max-length", "32"], 2, words);
    };
    refuse("", &["data.jsonl"]);
    refuse(&(records() + "{\"prompt\": \"cut"), &["line 25"]);
    refuse("{\"prompt\": \"a\"}\n", &["line 1", "completion"]);
    refuse(&(records() + "{\"text\": \"another kind\"}\n"), &["25"]);
    folder.refuse(&["tune", "--data", "missing.jsonl"], 2, &["missing.jsonl"]);
    let long = format!("{{\"prompt\": \"{}\", \"completion\": \"x\"}}\n", "word ".repeat(400));
    refuse(&long, &["32"]);
    folder.file("table.csv", "prompt,completion\na,b\n");
    folder.refuse(&["tune", "--data", "table.csv"], 2, &["table.csv", ".jsonl"]);
    folder.file("list.json", "[{\"prompt\": \"a\", \"completion\": \"b\"}, {\"prompt\": 3}]");
    folder.refuse(&["tune", "--data", "list.json"], 2, &["list.json", "line 2"]);
}

#[test]
fn outputs_that_exist_are_kept() {
    let folder = Folder::new();
    folder.file("data.jsonl", &records());
    std::fs::create_dir(folder.path().join("adapter")).unwrap();
    let mine = folder.file("adapter/mine.txt", "precious");
    folder.refuse(&tune(&["--out", "adapter"]), 2, &["adapter", "exists"]);
    // Overwriting refuses to lose what it would not write.
    folder.refuse(&tune(&["--out", "adapter", "--overwrite", "--init", "kaiming"]), 2, &["mine.txt"]);
    folder.refuse(&tune(&["--out", "no/such/place"]), 2, &["no/such", "create that folder"]);
    folder.refuse(&tune(&["--out", "."]), 2, &["output"]);
    folder.refuse(&["init", "--out", "adapter"], 2, &["adapter", "exists"]);
    folder.refuse(&["init", "--out", "a", "--base-out", "adapter"], 2, &["adapter", "exists"]);
    assert!(!folder.path().join("run").exists(), "nothing was started");
    assert_eq!(std::fs::read_to_string(mine).unwrap(), "precious");
    folder.succeed(&tune(&["--out", "r/mine", "--run", "r", "--init", "kaiming"]));
    folder.refuse(&tune(&["--out", "b", "--run", "r"]), 2, &["--resume"]);
    folder.file("rows.json", "[[5, 6]]");
    let logits = ["eval", "--tokens", "rows.json", "--dump-logits", "data.jsonl"];
    folder.refuse(&logits, 2, &["data.jsonl exists"]);
    assert_eq!(std::fs::read_to_string(folder.path().join("data.jsonl")).unwrap(), records());
}

#[test]
fn a_loss_that_is_not_a_number_stops_the_run_and_keeps_the_start() {
    let folder = Folder::new();
    folder.file("data.jsonl", &records());
    let wild = [
        "--init",
        "kaiming",
        "--rate",
        "1e30",
        "--clip",
        "0",
        "--checkpoint-every",
        "1",
        "--run",
        "r",
        "--warmup",
        "0",
    ];
    let arguments =
        [&["tune", "--data", "data.jsonl", "--quiet", "--optimiser", "sgd"], &QUICK[..], &wild[..]].concat();
    folder.refuse(&arguments, 1, &["step", "Lower `rate`"]);
    assert!(folder.path().join("r/start.safetensors").exists());
    assert!(!folder.path().join("r/adapter").exists());
}

#[test]
fn a_prompt_longer_than_the_context() {
    let folder = Folder::new();
    let prompt = "whale ".repeat(2000);
    folder.refuse(&["generate", "--prompt", &prompt], 2, &["context"]);
}
