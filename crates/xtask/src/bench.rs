//! `bench step`: one training step of ours against PyTorch's, in alternating rounds.
//!
//! Both programs take the number of threads and of steps, measure themselves, each in a process of its own, and print one
//! JSON object (times of a step as lowest, median, highest; MB of 2^20 bytes):
//!
//! ```text
//! {"threads": 1, "wall_ms": [1, 2, 3], "cpu_ms": [1, 2, 3], "peak_growth_mb": 1}
//! ```
//!
//! A ratio is ours divided by the peer's of the same round, so a slow
//! minute of the machine touches both; the spread over the rounds is printed beside the median.

mod init;

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

pub use init::init;

const PYTHON: &str = "LOWRANK_PYTHON";
/// Name, JSON pointer, unit of what is compared; smaller is better in each.
const MEASURES: [(&str, &str, &str); 3] =
    [("wall", "/wall_ms/1", "ms"), ("cpu", "/cpu_ms/1", "ms"), ("memory growth", "/peak_growth_mb", "MB")];

struct Options {
    rounds: usize,
    steps: usize,
    threads: Vec<usize>,
}

/// Runs both, ours first in every other round.
fn alternating(
    round: usize,
    ours: impl Fn() -> Result<Value, String>,
    peer: impl Fn() -> Result<Value, String>,
) -> Result<(Value, Value), String> {
    if round.is_multiple_of(2) {
        let ours = ours()?;
        return Ok((ours, peer()?));
    }
    let peer = peer()?;
    Ok((ours()?, peer))
}

/// Runs the rounds, prints the ratios, writes `benches/results/step.json`.
pub fn step(root: &Path, arguments: &[&str]) -> Result<(), String> {
    let options = parse(arguments)?;
    let python = std::env::var(PYTHON).map_err(|_| {
        format!("{PYTHON} is not set: the path of a Python with torch (tests/interop/setup.sh makes one)")
    })?;
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    // The whole workspace, so that the engine is built with the features that it has for every other command.
    let build = ["build", "--release", "--quiet", "--workspace", "--example", "step"];
    succeed(Command::new(&cargo).args(build).current_dir(root))?;
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), std::path::PathBuf::from);
    let program = target.join("release/examples/step");

    let mut results = vec![];
    for &threads in &options.threads {
        let settings = [threads.to_string(), options.steps.to_string()];
        let mut rounds = vec![];
        for round in 0..options.rounds {
            let ours = || measure(Command::new(&program).args(&settings).current_dir(root));
            let peer = || {
                measure(Command::new(&python).arg("benches/peers/step.py").args(&settings).current_dir(root))
            };
            let (ours, peer) = alternating(round, ours, peer)?;
            println!("{threads} thread(s), round {}: {}", round + 1, line(&ours, &peer)?);
            rounds.push((ours, peer));
        }
        let summary = summary(&rounds)?;
        println!(
            "{threads} thread(s), ratio ours / peer, median [lowest … highest] of {} rounds",
            rounds.len()
        );
        for (name, ratios) in &summary {
            println!("  {name:14} {:.2} [{:.2} … {:.2}]", ratios[1], ratios[0], ratios[2]);
        }
        let ratios: serde_json::Map<String, Value> = summary
            .into_iter()
            .map(|(name, [low, mid, high])| {
                (name.to_owned(), json!({"median": mid, "min": low, "max": high}))
            })
            .collect();
        let rounds: Vec<Value> =
            rounds.into_iter().map(|(ours, peer)| json!({"ours": ours, "peer": peer})).collect();
        results.push(json!({"threads": threads, "ratio_ours_over_peer": ratios, "rounds": rounds}));
    }
    let folder = root.join("benches/results");
    fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let page = json!({"bench": "step", "machine": machine(), "results": results});
    let text = serde_json::to_string_pretty(&page).map_err(|e| e.to_string())? + "\n";
    fs::write(folder.join("step.json"), text).map_err(|e| format!("benches/results/step.json: {e}"))?;
    println!("written: benches/results/step.json");
    Ok(())
}

fn parse(arguments: &[&str]) -> Result<Options, String> {
    let mut options = Options { rounds: 3, steps: 10, threads: vec![1, 2] };
    let number = |key: &str, text: &str| -> Result<usize, String> {
        let value = text.trim().parse().map_err(|_| format!("{key}: `{text}` is not a whole number"))?;
        if value == 0 { Err(format!("{key}: 0 measures nothing")) } else { Ok(value) }
    };
    for pair in arguments.chunks(2) {
        match pair {
            [key @ "--rounds", value] => options.rounds = number(key, value)?,
            [key @ "--steps", value] => options.steps = number(key, value)?,
            [key @ "--threads", value] => {
                options.threads = value.split(',').map(|part| number(key, part)).collect::<Result<_, _>>()?;
            }
            other => return Err(format!("unknown option `{}`", other.join(" "))),
        }
    }
    Ok(options)
}

/// The lowest, middle and highest ratio of each measure.
fn summary(rounds: &[(Value, Value)]) -> Result<Vec<(&'static str, [f64; 3])>, String> {
    MEASURES
        .iter()
        .map(|(name, pointer, _)| {
            let mut ratios: Vec<f64> = rounds
                .iter()
                .map(|(ours, peer)| Ok(field(ours, pointer)? / field(peer, pointer)?))
                .collect::<Result<_, String>>()?;
            ratios.sort_by(f64::total_cmp);
            let (low, high) = (ratios[0], ratios[ratios.len() - 1]);
            let half = ratios.len() / 2;
            let mid =
                if ratios.len() % 2 == 1 { ratios[half] } else { (ratios[half - 1] + ratios[half]) / 2.0 };
            Ok((*name, [low, mid, high]))
        })
        .collect()
}

fn line(ours: &Value, peer: &Value) -> Result<String, String> {
    let parts: Vec<String> = MEASURES
        .iter()
        .map(|(name, pointer, unit)| {
            Ok(format!("{name} {:.0} / {:.0} {unit}", field(ours, pointer)?, field(peer, pointer)?))
        })
        .collect::<Result<_, String>>()?;
    Ok(parts.join(", "))
}

fn field(report: &Value, pointer: &str) -> Result<f64, String> {
    report
        .pointer(pointer)
        .and_then(Value::as_f64)
        .ok_or_else(|| format!("no number at {pointer} in {report}"))
}

/// Runs a program and reads the last line of its output as its report.
fn measure(command: &mut Command) -> Result<Value, String> {
    let output = succeed(command)?;
    let last = output.trim().lines().last().unwrap_or_default();
    serde_json::from_str(last).map_err(|e| format!("{command:?} printed no JSON object: {e}: `{last}`"))
}

fn succeed(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|e| format!("{command:?} could not start: {e}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("{command:?} ended with {}\n{}", output.status, String::from_utf8_lossy(&output.stderr)))
}

/// The processor's name, so that a figure is never read without it.
fn machine() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info
        .lines()
        .find_map(|l| l.strip_prefix("model name")?.split(':').nth(1))
        .unwrap_or("unknown processor");
    format!("{}, {} threads", name.trim(), std::thread::available_parallelism().map_or(0, usize::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(wall: f64, cpu: f64, memory: f64) -> Value {
        json!({"wall_ms": [0.0, wall, 1e9], "cpu_ms": [0.0, cpu, 1e9], "peak_growth_mb": memory})
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        let rounds = [
            (report(100.0, 10.0, 1.0), report(200.0, 10.0, 4.0)),
            (report(300.0, 30.0, 1.0), report(300.0, 10.0, 2.0)),
            (report(90.0, 20.0, 1.0), report(100.0, 10.0, 1.0)),
        ];
        let found = summary(&rounds).unwrap();
        assert_eq!(found[0], ("wall", [0.5, 0.9, 1.0]));
        assert_eq!(found[1], ("cpu", [1.0, 2.0, 3.0]));
        assert_eq!(found[2], ("memory growth", [0.25, 0.5, 1.0]));
        assert_eq!(summary(&rounds[..2]).unwrap()[0].1[1], 0.75);
    }

    #[test]
    fn a_report_without_a_measure_is_refused() {
        assert!(summary(&[(json!({}), report(1.0, 1.0, 1.0))]).unwrap_err().contains("/wall_ms/1"));
    }

    #[test]
    fn options_are_checked() {
        let options = parse(&["--threads", "1,4", "--rounds", "5"]).unwrap();
        assert_eq!((options.threads, options.rounds, options.steps), (vec![1, 4], 5, 10));
        for wrong in [&["--rounds", "0"][..], &["--rounds"], &["--threads", "1,x"], &["--speed", "2"]] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_report_is_the_last_line() {
        let mut command = Command::new("printf");
        assert_eq!(measure(command.arg("note\\n{\"a\": 1}\\n")).unwrap(), json!({"a": 1}));
    }
}
