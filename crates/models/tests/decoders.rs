//! The laws of a decoder beyond the Llama family, a row a kind of model: the same function however it is computed, its
//! gradients, and what is written of it.
#![allow(clippy::unwrap_used)] // A failure here is a failure of the test.

use std::collections::BTreeMap;
use std::sync::Arc;

use lowrank_adapt::forms::Lora;
use lowrank_adapt::{Form, Offset, Site, Start};
use lowrank_models::decoder::load::Weights;
use lowrank_models::{Config, Decoder, Family, ModelError, Named, Projection, Recompute, Sampling, Widen};
use lowrank_record::Seed;
use lowrank_store::safetensors::{Entry, SafetensorsFile, encode};
use lowrank_store::{Dtype, Format};
use lowrank_tensor::ops::{Layout, Targets};
use lowrank_tensor::{Matrix, Var, cpu, to_rows};

const VOCABULARY: usize = 50;
const CONTEXT: usize = 40;

/// Two sizes of head that are odd, both orders of the residual connections, parts of heads that turn, few heads of keys,
/// with and without biases, tied and own heads.
const ROWS: [&str; 6] = [
    r#"{"model_type": "gpt2", "n_embd": 28, "n_head": 4, "n_inner": 40, "n_layer": 3, "n_positions": 40}"#,
    r#"{"model_type": "gpt2", "n_embd": 27, "n_head": 3, "n_layer": 3, "n_positions": 40, "tie_word_embeddings": false,
        "activation_function": "gelu"}"#,
    r#"{"model_type": "gpt_neox", "hidden_size": 24, "num_attention_heads": 3, "rotary_pct": 0.25}"#,
    r#"{"model_type": "gpt_neox", "hidden_size": 30, "num_attention_heads": 3, "rotary_pct": 0.4,
        "use_parallel_residual": false, "attention_bias": false, "tie_word_embeddings": true}"#,
    r#"{"model_type": "phi", "hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2}"#,
    r#"{"model_type": "phi", "hidden_size": 30, "num_attention_heads": 2, "partial_rotary_factor": 0.4,
        "hidden_act": "gelu"}"#,
];

fn configs() -> impl Iterator<Item = Config> {
    ROWS.iter().map(|text| {
        let mut json = serde_json::json!({
            "vocab_size": VOCABULARY, "intermediate_size": 40, "num_hidden_layers": 3, "max_position_embeddings": CONTEXT,
        });
        let row: serde_json::Value = serde_json::from_str(text).unwrap();
        for (key, value) in row.as_object().unwrap() {
            json[key] = value.clone();
        }
        let config = Config::from_json(&json).unwrap();
        assert_eq!(Config::from_json(&config.to_json()).unwrap(), config);
        config
    })
}

/// Every weight, gain and bias drawn: none may be lost or mistaken for another.
struct Drawn;

impl Weights for Drawn {
    fn matrix(&mut self, name: &str, [out, inp]: [usize; 2]) -> Result<Matrix, ModelError> {
        let size = 1.5 / (inp as f32).sqrt();
        Ok(Matrix::from_f32(Seed(4).at("weight", name).uniform(out * inp, size), [out, inp]).unwrap())
    }

    fn vector(&mut self, name: &str, width: usize) -> Result<Matrix, ModelError> {
        let middle = if name.ends_with(".bias") { 0.0 } else { 1.0 };
        let draws = Seed(4).at("vector", name).uniform(width, 0.5);
        Ok(Matrix::from_f32(draws.into_iter().map(|draw| draw + middle).collect(), [1, width]).unwrap())
    }

    fn finish(&mut self) -> Result<(), ModelError> {
        Ok(())
    }
}

fn drawn(config: Config) -> Decoder {
    Decoder::build(config, &mut Drawn, Widen::Once, &cpu()).unwrap()
}

fn tokens(count: usize, name: &str) -> Vec<u32> {
    let draws = Seed(5).at("tokens", name).uniform(count, 1.0);
    draws.into_iter().map(|u| ((u.abs() * VOCABULARY as f32) as u32).min(VOCABULARY as u32 - 1)).collect()
}

fn targets(count: usize) -> Targets {
    let ids = tokens(count, "targets").into_iter().enumerate();
    Targets { ids: ids.map(|(i, t)| if i % 5 == 0 { -1 } else { t as i32 }).collect(), weights: None }
}

/// Random adapters of rank 3 and scale 2 on every layer; their variables by name.
fn adapters(model: &mut Decoder) -> Vec<(String, Var)> {
    let mut variables = Vec::new();
    for (name, linear) in model.sites_mut() {
        let [out, inp] = linear.shape();
        let draw = |part: &str, count: usize| {
            Seed(7).at(&name, part).normal(count).into_iter().map(|value| 0.1 * value).collect()
        };
        let (left, right) = (draw("left", out * 3), draw("right", 3 * inp));
        let start = Start { left, right, core: None, rank: 3, offset: Offset::None };
        let device = cpu();
        let site = Site::alone(&name, linear.frozen().unwrap(), 3, 2.0, Seed(7), &device);
        let adapter = Lora::DEFAULT.build(&site, Some(start)).unwrap();
        variables.extend(adapter.trainable().into_iter().map(|(part, var)| (format!("{name}.{part}"), var)));
        linear.mount("a", adapter).unwrap();
    }
    variables
}

/// Two rows of eleven tokens.
fn batch() -> (Vec<u32>, Layout) {
    (tokens(22, "batch"), Layout::dense(2, 11))
}

/// The summed loss of a batch and the gradient of each variable.
fn gradients(
    model: &Decoder,
    variables: &[(String, Var)],
    (tokens, layout): (&[u32], &Layout),
    recompute: Recompute,
) -> (f64, Vec<Vec<f32>>) {
    let targets = targets(tokens.len());
    let mut found = vec![Vec::new(); variables.len()];
    let mut collect = |gradients: &mut lowrank_tensor::Gradients| {
        for ((_, variable), slot) in variables.iter().zip(&mut found) {
            let Some(gradient) = variable.take_gradient(gradients) else { continue };
            let values = to_rows(gradient);
            if slot.is_empty() {
                *slot = values;
            } else {
                // A tied embedding is met at both ends.
                slot.iter_mut().zip(values).for_each(|(sum, more)| *sum += more);
            }
        }
    };
    let passed = model.gradients(tokens, &targets, layout, recompute, false, &mut collect).unwrap();
    (passed.loss_sum, found)
}

fn relative(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    norm(&mut a.iter().zip(b).map(|(a, b)| f64::from(a - b))) / norm(&mut b.iter().map(|&b| f64::from(b)))
}

/// A model, its variables, and a step for finite differences.
type Trained = (Decoder, Vec<(String, Var)>, f32);

/// The variables of adapters on every layer, and those of a model that is trained whole.
fn trained(config: &Config) -> [Trained; 2] {
    let mut adapted = drawn(config.clone());
    let variables = adapters(&mut adapted);
    let mut whole = drawn(config.clone());
    let all = whole.train_all().unwrap();
    [(adapted, variables, 1e-3), (whole, all, 3e-4)]
}

#[test]
fn gradients_through_the_whole_model_equal_a_finite_difference() {
    // Parts are tested in f64 in `lowrank-tensor`; this is their composition, in f32.
    for config in configs() {
        for (model, variables, step) in trained(&config) {
            let (tokens, layout) = batch();
            let (_, found) = gradients(&model, &variables, (&tokens, &layout), Recompute::Nothing);
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
                let losses = model.log_likelihoods(&tokens, &targets(22).ids, &layout).unwrap();
                losses.iter().map(|&loss| f64::from(loss)).sum::<f64>()
            };
            let difference = (loss_at(1.0) - loss_at(-1.0)) / (2.0 * f64::from(step));
            assert!(
                (along - difference).abs() < 5e-3 * difference.abs().max(1.0),
                "{}: {along} {difference}",
                config.model_type
            );
        }
    }
}

#[test]
fn recomputing_blocks_gives_the_same_gradients_and_reaches_every_variable() {
    for config in configs() {
        for (model, variables, _) in trained(&config) {
            let (tokens, layout) = batch();
            let run = |recompute| gradients(&model, &variables, (&tokens, &layout), recompute);
            let ((loss, kept), (again, recomputed)) = (run(Recompute::Nothing), run(Recompute::Blocks));
            assert!((loss - again).abs() < 1e-6 * loss.abs(), "{loss} {again}");
            for ((name, _), (kept, recomputed)) in variables.iter().zip(kept.iter().zip(&recomputed)) {
                assert!(kept.iter().any(|&value| value != 0.0), "{name} has no gradient");
                assert!(relative(recomputed, kept) < 1e-5, "{name}");
            }
        }
    }
}

#[test]
fn the_whole_model_is_what_is_trained() {
    for config in configs() {
        let parameters = config.parameters();
        let mut model = drawn(config);
        let written: usize =
            model.named_weights().iter().map(|named| named.shape.iter().product::<usize>()).sum();
        assert_eq!(written, parameters);
        let biases: usize =
            model.sites().iter().filter_map(|(_, site)| site.bias()).map(|b| b.shape()[1]).sum();
        let all = model.train_all().unwrap();
        assert_eq!(all.iter().map(|(_, var)| var.values().len()).sum::<usize>(), parameters - biases);
    }
}

#[test]
fn the_cache_gives_the_logits_of_the_whole_row() {
    for config in configs() {
        let mut model = drawn(config);
        adapters(&mut model);
        let row = tokens(14, "cache");
        let whole = to_rows(model.logits(&row, &Layout::dense(1, 14)).unwrap());
        let mut cache = model.cache();
        let mut seen = 0;
        for piece in [5, 1, 1, 4, 1, 2] {
            let next = model.next_logits(&row[seen..seen + piece], &mut cache).unwrap();
            seen += piece;
            assert!(relative(&next, &whole[(seen - 1) * VOCABULARY..seen * VOCABULARY]) < 1e-5, "{seen}");
        }
        cache.rewind(6);
        let again = model.next_logits(&row[6..9], &mut cache).unwrap();
        assert!(relative(&again, &whole[8 * VOCABULARY..9 * VOCABULARY]) < 1e-5);
        // All places are filled, and the token behind the last is still chosen.
        let full = model.generate(&row[..4], 1000, &[], &Sampling::GREEDY, &mut |_| true).unwrap();
        assert_eq!(full.len(), CONTEXT - 4 + 1);
        assert!(model.logits(&tokens(CONTEXT + 1, "long"), &Layout::dense(1, CONTEXT + 1)).is_err());
    }
}

#[test]
fn packed_documents_do_not_see_each_other() {
    for config in configs() {
        let model = drawn(config);
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
}

/// The tensors as a checkpoint in memory; `name` may change or drop names.
fn checkpoint(all: &[Named], name: impl Fn(&str) -> String, more: &[(&str, Vec<usize>)]) -> SafetensorsFile {
    let bytes = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let mut tensors: Vec<(String, Vec<usize>, Vec<u8>)> = all
        .iter()
        .map(|named| (name(&named.name), named.shape.clone(), bytes(&named.values.to_f32())))
        .collect();
    tensors.extend(
        more.iter().map(|(name, shape)| {
            ((*name).to_owned(), shape.clone(), bytes(&vec![1.0; shape.iter().product()]))
        }),
    );
    let dtype = Dtype::Real(Format::F32);
    let entries: Vec<Entry<'_>> =
        tensors.iter().map(|(name, shape, bytes)| Entry { name, dtype, shape, bytes }).collect();
    SafetensorsFile::from_bytes(encode(&entries, &BTreeMap::new()).unwrap()).unwrap()
}

#[test]
fn what_is_written_is_read_again_as_the_same_model() {
    let logits = |model: &Decoder| to_rows(model.logits(&tokens(9, "row"), &Layout::dense(1, 9)).unwrap());
    for config in configs() {
        let model = drawn(config.clone());
        let all = model.named_weights();
        for widen in [Widen::Once, Widen::OnUse] {
            let file = checkpoint(&all, str::to_owned, &[]);
            let again = Decoder::from_checkpoint(config.clone(), Arc::new(file), widen, &cpu()).unwrap();
            assert_eq!(logits(&again), logits(&model), "{}", config.model_type);
        }
        // A tensor that has no place is not passed over; a missing one has a name.
        let read = |file| Decoder::from_checkpoint(config.clone(), Arc::new(file), Widen::OnUse, &cpu());
        let message =
            read(checkpoint(&all, str::to_owned, &[("model.extra", vec![2])])).err().unwrap().to_string();
        assert!(message.contains("model.extra"), "{message}");
        let last = &all[all.len() - 1].name;
        let message = read(checkpoint(&all[..all.len() - 1], str::to_owned, &[])).err().unwrap().to_string();
        assert!(message.contains(last), "{message}");
    }
}

#[test]
fn gpt2_is_read_with_and_without_its_prefix_and_written_as_conv1d() {
    let config = configs().next().unwrap();
    let model = drawn(config.clone());
    let all = model.named_weights();
    let shape = |name: &str| all.iter().find(|named| named.name == name).unwrap().shape.clone();
    assert_eq!(shape("transformer.h.0.attn.c_attn.weight"), [28, 84]);
    assert_eq!(shape("transformer.h.2.mlp.c_fc.weight"), [28, 40]);
    assert_eq!(shape("transformer.wpe.weight"), [CONTEXT, 28]);
    let bare = |name: &str| name.strip_prefix("transformer.").unwrap_or(name).to_owned();
    let masks = [
        ("h.0.attn.bias", vec![1, 1, 4, 4]),
        ("h.1.attn.masked_bias", vec![1]),
        ("lm_head.weight", vec![2, 2]),
    ];
    let file = checkpoint(&all, bare, &masks);
    let again = Decoder::from_checkpoint(config, Arc::new(file), Widen::Once, &cpu()).unwrap();
    let logits = |model: &Decoder| to_rows(model.logits(&tokens(9, "row"), &Layout::dense(1, 9)).unwrap());
    assert_eq!(logits(&again), logits(&model));
    assert_eq!(again.sites()[0].0, "transformer.h.0.attn.c_attn");
    assert_eq!(again.sites()[0].1.shape(), [84, 28]);
}

#[test]
fn one_projection_is_one_layer_and_heads_find_their_rows() {
    for config in configs() {
        let (family, hidden) = (config.family, config.hidden);
        let model = drawn(config);
        let names: Vec<String> = model.sites().into_iter().map(|(name, _)| name).collect();
        let fused = matches!(model.blocks[0].projection, Projection::Fused(..));
        assert_eq!(fused, family != Family::Phi);
        assert_eq!(model.blocks[0].linears().len(), family.linears().len());
        for (index, part) in family.linears().into_iter().enumerate() {
            assert!(names[index].ends_with(part), "{} {part}", names[index]);
        }
        if fused {
            assert_eq!(model.sites()[0].1.shape(), [3 * hidden, hidden]);
        }
    }
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    // Several tiles of every kernel: rows, columns, blocks of queries and keys.
    const TIME: usize = 370;
    for text in [
        r#"{"model_type": "gpt2", "n_embd": 304, "n_head": 8, "n_layer": 2, "n_positions": 400, "vocab_size": 50,
            "activation_function": "gelu"}"#,
        r#"{"model_type": "gpt_neox", "hidden_size": 320, "num_attention_heads": 8, "rotary_pct": 0.25, "vocab_size": 50,
            "intermediate_size": 400, "num_hidden_layers": 2, "max_position_embeddings": 400, "hidden_act": "gelu_new"}"#,
    ] {
        let config = Config::from_json(&serde_json::from_str(text).unwrap()).unwrap();
        let (tokens, layout) = (tokens(2 * TIME, "t"), Layout::dense(2, TIME));
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let [(model, variables, _), _] = trained(&config);
                gradients(&model, &variables, (&tokens, &layout), Recompute::Nothing)
            })
        };
        let one = run(1);
        assert!(one == run(2) && one == run(3), "{}", config.model_type);
    }
}

#[test]
fn llama_cpp_is_refused_by_name() {
    for config in configs() {
        let message = config.llama_cpp_base().unwrap_err().to_string();
        assert!(message.contains(&config.model_type) && message.contains("llama.cpp"), "{message}");
        let model = drawn(config);
        assert!(model.to_gguf("test", Format::F32, Vec::new()).is_err());
    }
}
