//! One training step of the benchmark shape: hidden 576, 9 heads / 3 KV heads of 64, FFN 1536, 6 layers, vocabulary 8192,
//! batch 4 × 256, f32, frozen base, rank 8 on all seven linears, AdamW. Prints one line of JSON.
//!
//! `step [threads] [steps] [offset: none|shadow] [recompute: nothing|blocks]`
#![allow(clippy::print_stdout, clippy::disallowed_methods, clippy::unwrap_used)]

use std::time::Instant;

use lowrank_adapt::{Form, Offset, Site, Start, forms::Lora};
use lowrank_models::{Config, Decoder, Recompute};
use lowrank_record::Seed;
use lowrank_tensor::ops::{Layout, Targets};
use lowrank_tensor::{Var, cpu, to_rows};

const BATCH: usize = 4;
const TIME: usize = 256;
const RANK: usize = 8;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let word = |index: usize, default: &str| arguments.get(index).cloned().unwrap_or(default.to_owned());
    let (threads, steps): (usize, usize) = (word(0, "1").parse().unwrap(), word(1, "10").parse().unwrap());
    let offset = if word(2, "none") == "shadow" { Offset::Shadow } else { Offset::None };
    let recompute = if word(3, "nothing") == "blocks" { Recompute::Blocks } else { Recompute::Nothing };
    // As the program does: keep memory between steps, and work on a thread of the pool.
    lowrank_tensor::keep_memory();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool.install(|| measure(threads, steps, offset, recompute));
}

fn measure(threads: usize, steps: usize, offset: Offset, recompute: Recompute) {
    let config = Config::from_json(&serde_json::json!({
        "model_type": "llama", "vocab_size": 8192, "hidden_size": 576, "intermediate_size": 1536,
        "num_hidden_layers": 6, "num_attention_heads": 9, "num_key_value_heads": 3,
        "max_position_embeddings": 2048, "tie_word_embeddings": true,
    }));
    let mut model = Decoder::random(config.unwrap(), Seed(1), &cpu()).unwrap();
    let mut variables: Vec<Var> = Vec::new();
    for (name, linear) in model.sites_mut() {
        let [out, inp] = linear.shape();
        let right = Seed(2).at("right", &name).uniform(RANK * inp, 1.0 / (inp as f32).sqrt());
        let start = Start { left: vec![0.0; out * RANK], right, core: None, rank: RANK, offset };
        let (base, device) = (linear.frozen().unwrap(), cpu());
        let site = Site::alone(&name, base, RANK, 2.0, Seed(2), &device);
        let adapter = Lora::DEFAULT.build(&site, Some(start)).unwrap();
        variables.extend(adapter.trainable().into_iter().map(|(_, var)| var));
        linear.mount("default", adapter).unwrap();
    }
    let mut moments: Vec<[Vec<f32>; 2]> =
        variables.iter().map(|var| [vec![0.0; var.values().len()], vec![0.0; var.values().len()]]).collect();
    let tokens: Vec<u32> =
        Seed(3).permutation(8192).into_iter().take(BATCH * TIME).map(|t| t as u32).collect();
    let ids: Vec<i32> = tokens.iter().skip(1).chain(&tokens[..1]).map(|&t| t as i32).collect();
    let targets = Targets { ids: ids.into(), weights: None };
    let layout = Layout::dense(BATCH, TIME);

    let before = peak_after_reset();
    let (mut wall, mut cpu_ms, mut loss) = (Vec::new(), Vec::new(), 0.0);
    for step in 0..steps + 2 {
        let (start, cpu_start) = (Instant::now(), cpu_seconds());
        let mut gradients: Vec<Option<Vec<f32>>> = vec![None; variables.len()];
        let passed = model
            .gradients(&tokens, &targets, &layout, recompute, false, &mut |found| {
                for (var, slot) in variables.iter().zip(&mut gradients) {
                    if let Some(gradient) = var.take_gradient(found) {
                        *slot = Some(to_rows(gradient));
                    }
                }
            })
            .unwrap();
        // AdamW with the peer's settings: no weight decay.
        let (first, second) = (1.0 - 0.9_f32.powi(step as i32 + 1), 1.0 - 0.999_f32.powi(step as i32 + 1));
        for ((var, gradient), [m, v]) in variables.iter().zip(gradients).zip(&mut moments) {
            let mut values = var.values();
            let gradient = gradient.unwrap();
            for (((w, g), m), v) in values.iter_mut().zip(gradient).zip(m).zip(v) {
                let g = g / passed.weight as f32;
                *m = 0.9 * *m + 0.1 * g;
                *v = 0.999 * *v + 0.001 * g * g;
                *w -= 1e-3 * (*m / first) / ((*v / second).sqrt() + 1e-8);
            }
            var.assign(values);
        }
        loss = passed.loss_sum / passed.weight;
        if step >= 2 {
            wall.push(start.elapsed().as_secs_f64() * 1e3);
            cpu_ms.push((cpu_seconds() - cpu_start) * 1e3);
        }
    }
    let growth = peak() - before;
    println!(
        "{}",
        serde_json::json!({"threads": threads, "wall_ms": spread(wall), "cpu_ms": spread(cpu_ms),
            "peak_growth_mb": growth, "loss": loss})
    );
}

/// `[min, median, max]`.
fn spread(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [values[0], values[values.len() / 2], values[values.len() - 1]]
}

/// User and system time of the process in seconds, from clock ticks of 10 ms.
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = text.rsplit_once(')').unwrap().1.split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

/// Resets the kernel's high-water mark to the present size and returns it, in MB.
fn peak_after_reset() -> f64 {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    peak()
}

/// High-water mark of the resident size in MB.
fn peak() -> f64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}
