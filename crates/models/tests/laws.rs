//! What must hold of any decoder: the same function however it is computed.
#![allow(clippy::unwrap_used)] // A failure here is a failure of the test.

use lowrank_adapt::forms::Lora;
use lowrank_adapt::{Form, Offset, Site, Start};
use lowrank_models::{Config, Decoder, Recompute, Sampling};
use lowrank_record::Seed;
use lowrank_tensor::ops::{Layout, Targets};
use lowrank_tensor::{Var, cpu, to_rows};

const VOCABULARY: usize = 50;

fn config(changes: &serde_json::Value) -> Config {
    let mut value = serde_json::json!({
        "model_type": "llama", "vocab_size": VOCABULARY, "hidden_size": 24, "intermediate_size": 40,
        "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-5,
        "max_position_embeddings": 64, "tie_word_embeddings": false
    });
    for (key, change) in changes.as_object().unwrap() {
        value[key] = change.clone();
    }
    Config::from_json(&value).unwrap()
}

fn random(changes: &serde_json::Value) -> Decoder {
    Decoder::random(config(changes), Seed(11), &cpu()).unwrap()
}

fn tokens(count: usize, name: &str) -> Vec<u32> {
    let draws = Seed(5).at("tokens", name).uniform(count, 1.0);
    draws.into_iter().map(|u| ((u.abs() * VOCABULARY as f32) as u32).min(VOCABULARY as u32 - 1)).collect()
}

/// Random adapters of rank 3 and scale 2 on every layer; their variables by name.
fn adapters(model: &mut Decoder) -> Vec<(String, Var)> {
    let device = model.device().clone();
    let mut variables = Vec::new();
    for (name, linear) in model.sites_mut() {
        let [out, inp] = linear.shape();
        let draw = |part: &str, count: usize| {
            Seed(7).at(&name, part).normal(count).into_iter().map(|value| 0.1 * value).collect()
        };
        let start = Start {
            left: draw("left", out * 3),
            right: draw("right", 3 * inp),
            core: None,
            rank: 3,
            offset: Offset::None,
        };
        let site = Site::alone(&name, linear.frozen().unwrap(), 3, 2.0, Seed(7), &device);
        let adapter = Lora::DEFAULT.build(&site, Some(start)).unwrap();
        variables.extend(adapter.trainable().into_iter().map(|(part, var)| (format!("{name}.{part}"), var)));
        linear.mount("a", adapter).unwrap();
    }
    variables
}

fn targets(count: usize) -> Targets {
    let ids: Vec<i32> = tokens(count, "targets")
        .iter()
        .enumerate()
        .map(|(i, &t)| if i % 5 == 0 { -1 } else { t as i32 })
        .collect();
    Targets { ids: ids.into(), weights: None }
}

fn gradients(
    model: &Decoder,
    variables: &[(String, Var)],
    tokens: &[u32],
    targets: &Targets,
    layout: &Layout,
    recompute: Recompute,
) -> (f64, Vec<Vec<f32>>) {
    tracked_gradients(model, variables, tokens, targets, layout, recompute, false)
}

fn tracked_gradients(
    model: &Decoder,
    variables: &[(String, Var)],
    tokens: &[u32],
    targets: &Targets,
    layout: &Layout,
    recompute: Recompute,
    track_all: bool,
) -> (f64, Vec<Vec<f32>>) {
    let mut found = vec![Vec::new(); variables.len()];
    let passed = model
        .gradients(tokens, targets, layout, recompute, track_all, &mut |gradients| {
            for ((_, variable), slot) in variables.iter().zip(&mut found) {
                if let Some(gradient) = variable.take_gradient(gradients) {
                    let values = to_rows(gradient);
                    if slot.is_empty() {
                        *slot = values;
                    } else {
                        slot.iter_mut().zip(values).for_each(|(sum, more)| *sum += more);
                    }
                }
            }
        })
        .unwrap();
    (passed.loss_sum, found)
}

fn relative(a: &[f32], b: &[f32]) -> f64 {
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    norm(&mut a.iter().zip(b).map(|(a, b)| f64::from(a - b))) / norm(&mut b.iter().map(|&b| f64::from(b)))
}

/// The two ways to hold activations agree on the gradients of these variables, and every variable has one.
fn recomputing_agrees(model: &Decoder, variables: &[(String, Var)], track_all: bool) {
    let (tokens, targets, layout) = (tokens(2 * 13, "batch"), targets(2 * 13), Layout::dense(2, 13));
    let run =
        |recompute| tracked_gradients(model, variables, &tokens, &targets, &layout, recompute, track_all);
    let ((loss, kept), (again, recomputed)) = (run(Recompute::Nothing), run(Recompute::Blocks));
    assert!((loss - again).abs() < 1e-6 * loss.abs(), "{loss} {again}");
    for ((name, _), (kept, recomputed)) in variables.iter().zip(kept.iter().zip(&recomputed)) {
        // The head's adapter is not part of a block, so it is reached in both.
        assert!(!kept.is_empty(), "{name} has no gradient");
        let error = relative(recomputed, kept);
        assert!(error < 1e-5, "{name}: {error:e}");
    }
}

const VARIANTS: [&str; 2] = ["{}", r#"{"tie_word_embeddings": true, "attention_bias": true}"#];

fn variants() -> impl Iterator<Item = serde_json::Value> {
    VARIANTS.iter().map(|text| serde_json::from_str(text).unwrap())
}

#[test]
fn recomputing_blocks_gives_the_same_gradients() {
    for changes in variants() {
        for track_all in [false, true] {
            let mut model = random(&changes);
            let variables = adapters(&mut model);
            recomputing_agrees(&model, &variables, track_all);
            // Adapters in the last block alone, in none, and everything trained.
            let mut model = random(&changes);
            let mut variables = adapters(&mut model);
            for (name, linear) in model.sites_mut() {
                if !name.contains("layers.2.") && name != "lm_head" {
                    linear.unmount("a").unwrap();
                    variables.retain(|(variable, _)| !variable.starts_with(&name));
                }
            }
            recomputing_agrees(&model, &variables, track_all);
            recomputing_agrees(&random(&changes), &[], track_all);
            let mut model = random(&changes);
            let variables = model.train_all().unwrap();
            recomputing_agrees(&model, &variables, track_all);
        }
    }
}

#[test]
fn a_head_with_an_adapter_loses_as_its_logits_do() {
    let mut model = random(&serde_json::json!({}));
    adapters(&mut model);
    let (row, layout) = (tokens(70, "row")[..60].to_vec(), Layout::dense(1, 60));
    let targets = targets(60);
    let by_logits = |model: &Decoder| -> Vec<f64> {
        let logits = to_rows(model.logits(&row, &layout).unwrap());
        let rows = logits.chunks_exact(VOCABULARY).zip(targets.ids.iter());
        let loss = |(row, &target): (&[f32], &i32)| {
            let total: f64 = row.iter().map(|&logit| f64::from(logit).exp()).sum();
            usize::try_from(target).map_or(0.0, |target| total.ln() - f64::from(row[target]))
        };
        rows.map(loss).collect()
    };
    let mut seen: Vec<Vec<f64>> = Vec::new();
    // One adapter, two side by side, and both switched off.
    for step in 0..3 {
        let (_, head) = model.sites_mut().pop().unwrap();
        match step {
            0 => {}
            1 => {
                let [out, inp] = head.shape();
                let draw = |count: usize| Seed(9).normal(count).into_iter().map(|v| 0.2 * v).collect();
                let (left, right, offset) = (draw(out), draw(inp), Offset::Shadow);
                let start = Start { left, right, core: None, rank: 1, offset };
                let device = cpu();
                let site = Site::alone("head", head.frozen().unwrap(), 1, 1.5, Seed(9), &device);
                let adapter = Lora::DEFAULT.build(&site, Some(start)).unwrap();
                let left = adapter.trainable().pop().unwrap().1;
                left.assign(Seed(10).normal(out));
                head.mount("b", adapter).unwrap();
            }
            _ => ["a", "b"].iter().for_each(|name| head.enable(name, false).unwrap()),
        }
        let expected = by_logits(&model);
        let found = model.log_likelihoods(&row, &targets.ids, &layout).unwrap();
        for (found, expected) in found.iter().zip(&expected) {
            assert!(
                (f64::from(*found) - expected).abs() < 1e-4 * expected.abs().max(1.0),
                "{found} {expected}"
            );
        }
        seen.push(expected);
    }
    assert!(seen[0] != seen[1] && seen[1] != seen[2] && seen[0] != seen[2]);
}

/// The gradient along a random direction of all variables against a central difference of the loss.
fn directional(model: &Decoder, variables: &[(String, Var)], step: f32) -> (f64, f64) {
    let (tokens, targets, layout) = (tokens(2 * 11, "fd"), targets(2 * 11), Layout::dense(2, 11));
    let (_, found) = gradients(model, variables, &tokens, &targets, &layout, Recompute::Nothing);
    let directions: Vec<Vec<f32>> = variables
        .iter()
        .map(|(name, var)| Seed(3).at("direction", name).normal(var.values().len()))
        .collect();
    let along: f64 = found
        .iter()
        .zip(&directions)
        .flat_map(|(g, d)| g.iter().zip(d).map(|(&g, &d)| f64::from(g) * f64::from(d)))
        .sum();
    let origin: Vec<Vec<f32>> = variables.iter().map(|(_, var)| var.values()).collect();
    let loss_at = |sign: f32| {
        for (((_, var), origin), direction) in variables.iter().zip(&origin).zip(&directions) {
            var.assign(origin.iter().zip(direction).map(|(&o, &d)| o + sign * step * d).collect());
        }
        let losses = model.log_likelihoods(&tokens, &targets.ids, &layout).unwrap();
        losses.iter().map(|&loss| f64::from(loss)).sum::<f64>()
    };
    let difference = (loss_at(1.0) - loss_at(-1.0)) / (2.0 * f64::from(step));
    loss_at(0.0);
    (along, difference)
}

#[test]
fn gradients_through_the_whole_model_equal_a_finite_difference() {
    // Parts are tested in f64 in `lowrank-tensor`; this is their composition, in f32.
    for changes in variants() {
        let mut model = random(&changes);
        let variables = adapters(&mut model);
        let (along, difference) = directional(&model, &variables, 1e-3);
        assert!(
            (along - difference).abs() < 2e-3 * difference.abs().max(1.0),
            "adapters: {along} {difference}"
        );
        let mut model = random(&changes);
        let variables = model.train_all().unwrap();
        assert!(variables.iter().any(|(name, _)| name.contains("norm")));
        let (along, difference) = directional(&model, &variables, 3e-4);
        assert!((along - difference).abs() < 5e-3 * difference.abs().max(1.0), "all: {along} {difference}");
    }
}

#[test]
fn packed_documents_do_not_see_each_other() {
    let model = random(&serde_json::json!({}));
    let (first, second) = (tokens(7, "first"), tokens(5, "second"));
    let row: Vec<u32> = first.iter().chain(&second).copied().collect();
    let positions: Vec<u32> = (0..7).chain(0..5).collect();
    let starts: Vec<u32> = [vec![0; 7], vec![7; 5]].concat();
    let packed = Layout { batch: 1, time: 12, positions: positions.into(), starts: starts.into() };
    let packed = to_rows(model.logits(&row, &packed).unwrap());
    let alone = [&first, &second]
        .map(|tokens| to_rows(model.logits(tokens, &Layout::dense(1, tokens.len())).unwrap()));
    assert!(relative(&packed, &alone.concat()) < 1e-6);
}

#[test]
fn the_cache_gives_the_logits_of_the_whole_row() {
    for window in [serde_json::json!({}), serde_json::json!({"model_type": "mistral", "sliding_window": 4})] {
        let mut model = random(&window);
        adapters(&mut model);
        let row = tokens(14, "cache");
        let whole = to_rows(model.logits(&row, &Layout::dense(1, 14)).unwrap());
        let mut cache = model.cache();
        let mut seen = 0;
        for piece in [5, 1, 1, 4, 1, 2] {
            let next = model.next_logits(&row[seen..seen + piece], &mut cache).unwrap();
            seen += piece;
            let error = relative(&next, &whole[(seen - 1) * VOCABULARY..seen * VOCABULARY]);
            assert!(error < 1e-5, "after {seen} tokens: {error:e}");
        }
        cache.rewind(6);
        let again = model.next_logits(&row[6..9], &mut cache).unwrap();
        assert!(relative(&again, &whole[8 * VOCABULARY..9 * VOCABULARY]) < 1e-5);
    }
}

#[test]
fn greedy_generation_is_the_likeliest_token_each_time() {
    let model = random(&serde_json::json!({}));
    let prompt = tokens(4, "prompt");
    let written = model.generate(&prompt, 6, &[], &Sampling::GREEDY, &mut |_| true).unwrap();
    assert_eq!(written.len(), 6);
    let mut row = prompt;
    for &token in &written {
        let logits = to_rows(model.logits(&row, &Layout::dense(1, row.len())).unwrap());
        let last = &logits[(row.len() - 1) * VOCABULARY..];
        assert!(last.iter().all(|&logit| logit <= last[token as usize]));
        row.push(token);
    }
    // A stop token ends, and is not returned; so does the end of the context.
    let stop = written[5];
    let stopped = model.generate(&row[..4], 6, &[stop], &Sampling::GREEDY, &mut |_| true).unwrap();
    let first = written.iter().position(|&token| token == stop).unwrap();
    assert_eq!(stopped, written[..first]);
    // All 64 places are filled, and the token behind the last is still chosen.
    let full = model.generate(&row[..4], 1000, &[], &Sampling::GREEDY, &mut |_| true).unwrap();
    assert_eq!(full.len(), 64 - 4 + 1);
}

#[test]
fn sampling_depends_on_the_seed_alone() {
    let model = random(&serde_json::json!({}));
    let write = |seed: u64| {
        let sampling = Sampling { temperature: 1.5, top_k: 0, top_p: 1.0, seed: Seed(seed) };
        model.generate(&tokens(4, "prompt"), 30, &[], &sampling, &mut |_| true).unwrap()
    };
    assert_eq!(write(1), write(1));
    assert_ne!(write(1), write(2));
}

#[test]
fn logits_that_are_not_finite_are_an_error() {
    let mut model = random(&serde_json::json!({}));
    let variables = adapters(&mut model);
    let (_, broken) = variables.iter().find(|(name, _)| name.ends_with("layers.1.mlp.up_proj.left")).unwrap();
    broken.assign(vec![f32::NAN; broken.values().len()]);
    for sampling in [Sampling::GREEDY, Sampling { temperature: 1.0, ..Sampling::GREEDY }] {
        let error = model.generate(&tokens(4, "prompt"), 3, &[], &sampling, &mut |_| true).unwrap_err();
        assert!(error.to_string().contains("not finite"), "{error}");
    }
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    // Several tiles of every kernel: rows, columns, blocks of the vocabulary and of queries and keys.
    const BATCH: usize = 3;
    const TIME: usize = 370;
    let changes = serde_json::json!({
        "vocab_size": 4200, "hidden_size": 304, "intermediate_size": 400, "num_hidden_layers": 2,
        "head_dim": 32, "max_position_embeddings": 512,
    });
    let run = |threads: usize, recompute| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut model = random(&changes);
            let variables = adapters(&mut model);
            let (tokens, targets) = (tokens(BATCH * TIME, "t"), targets(BATCH * TIME));
            gradients(&model, &variables, &tokens, &targets, &Layout::dense(BATCH, TIME), recompute)
        })
    };
    for recompute in [Recompute::Nothing, Recompute::Blocks] {
        let one = run(1, recompute);
        assert!(one == run(1, recompute), "one thread, twice");
        assert!(one == run(2, recompute), "one thread and two");
        assert!(one == run(3, recompute), "one thread and three");
    }
}

#[test]
fn wrong_input_is_an_error() {
    let model = random(&serde_json::json!({}));
    assert!(model.logits(&[3, VOCABULARY as u32], &Layout::dense(1, 2)).is_err());
    assert!(model.logits(&tokens(65, "long"), &Layout::dense(1, 65)).is_err());
    assert!(model.log_likelihoods(&[1, 2], &[0, VOCABULARY as i32], &Layout::dense(1, 2)).is_err());
    // With an adapter on the head the logits are formed; the targets are checked all the same.
    let mut model = model;
    adapters(&mut model);
    let (outside, layout) =
        (Targets { ids: [0, VOCABULARY as i32].into(), weights: None }, Layout::dense(1, 2));
    assert!(model.gradients(&[1, 2], &outside, &layout, Recompute::Nothing, false, &mut |_| {}).is_err());
}
