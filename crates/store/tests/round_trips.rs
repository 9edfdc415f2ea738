//! What is written is read, whatever the names, shapes and values: one law a format, over random contents.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use lowrank_store::atomic::{Disk, Existing};
use lowrank_store::checkpoint::Checkpoint;
use lowrank_store::gguf::{self, Array, GgufFile, LlamaCppBase, Value};
use lowrank_store::peft::{AdapterConfig, AdapterFolder, Factor, Matcher, Targets, Whole};
use lowrank_store::safetensors::{self, SafetensorsFile, ShardedModel};
use lowrank_store::{Dtype, Format, TensorSource, export, hash, json, jsonl};
use proptest::prelude::*;
use proptest::strategy::Union;

/// Cases a law.
const CASES: u32 = 64;

fn config() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(CASES) }
}

/// A tensor: type, sides, bytes. Block formats only where they are asked for.
type Tensor = (Dtype, Vec<usize>, Vec<u8>);

fn tensor(dtypes: &'static [Dtype], sides: std::ops::Range<usize>) -> impl Strategy<Value = Tensor> {
    (prop::sample::select(dtypes), prop::collection::vec(0..4_usize, sides)).prop_flat_map(
        |(dtype, mut sides)| {
            if let Some(last) = sides.last_mut() {
                *last *= dtype.block().0;
            }
            let bytes = dtype.bytes_of(&sides).unwrap();
            prop::collection::vec(any::<u8>(), bytes).prop_map(move |bytes| (dtype, sides.clone(), bytes))
        },
    )
}

const PLAIN: [Dtype; 8] = [
    Dtype::Real(Format::F64),
    Dtype::Real(Format::F32),
    Dtype::Real(Format::F16),
    Dtype::Real(Format::BF16),
    Dtype::U8,
    Dtype::I16,
    Dtype::U64,
    Dtype::Bool,
];

const GGML: [Dtype; 8] = [
    Dtype::Real(Format::F32),
    Dtype::Real(Format::BF16),
    Dtype::Real(Format::Q8_0),
    Dtype::Real(Format::Q4_0),
    Dtype::Real(Format::Q4_1),
    Dtype::Real(Format::Q4_K),
    Dtype::Real(Format::Q6_K),
    Dtype::I32,
];

/// Any text but the one name that safetensors keeps for itself.
fn name() -> impl Strategy<Value = String> {
    ".{1,12}".prop_filter("reserved", |name| name != "__metadata__")
}

fn tensors(
    dtypes: &'static [Dtype],
    sides: std::ops::Range<usize>,
) -> impl Strategy<Value = BTreeMap<String, Tensor>> {
    prop::collection::btree_map(name(), tensor(dtypes, sides), 0..6)
}

/// Every tensor is what it was, and no other is there.
fn same(source: &dyn TensorSource, tensors: &BTreeMap<String, Tensor>) -> Result<(), TestCaseError> {
    prop_assert_eq!(source.names(), tensors.keys().cloned().collect::<Vec<_>>());
    for (name, (dtype, sides, bytes)) in tensors {
        let info = source.info(name).unwrap();
        prop_assert_eq!((info.dtype, &info.shape), (*dtype, sides));
        prop_assert_eq!(source.bytes(name).unwrap(), bytes);
    }
    Ok(())
}

fn safetensors_of(tensors: &BTreeMap<String, Tensor>, metadata: &BTreeMap<String, String>) -> Vec<u8> {
    let entries: Vec<safetensors::Entry<'_>> = tensors
        .iter()
        .map(|(name, (dtype, shape, bytes))| safetensors::Entry { name, dtype: *dtype, shape, bytes })
        .collect();
    safetensors::encode(&entries, metadata).unwrap()
}

fn gguf_of(values: &[(String, Value)], tensors: &BTreeMap<String, Tensor>) -> Vec<u8> {
    let entries: Vec<gguf::Entry<'_>> = tensors
        .iter()
        .map(|(name, (dtype, shape, bytes))| gguf::Entry { name, dtype: *dtype, shape, bytes })
        .collect();
    gguf::encode(values, &entries).unwrap()
}

/// Not NaN, so that what comes back can be compared.
fn real() -> impl Strategy<Value = f32> {
    any::<f32>().prop_filter("a number", |value| !value.is_nan())
}

fn array() -> impl Strategy<Value = Array> {
    use prop::collection::vec;
    let leaf = Union::new([
        vec(any::<u8>(), 0..5).prop_map(Array::U8).boxed(),
        vec(any::<i8>(), 0..5).prop_map(Array::I8).boxed(),
        vec(any::<u16>(), 0..5).prop_map(Array::U16).boxed(),
        vec(any::<i16>(), 0..5).prop_map(Array::I16).boxed(),
        vec(any::<u32>(), 0..5).prop_map(Array::U32).boxed(),
        vec(any::<i32>(), 0..5).prop_map(Array::I32).boxed(),
        vec(any::<u64>(), 0..5).prop_map(Array::U64).boxed(),
        vec(any::<i64>(), 0..5).prop_map(Array::I64).boxed(),
        vec(real(), 0..5).prop_map(Array::F32).boxed(),
        vec(real().prop_map(f64::from), 0..5).prop_map(Array::F64).boxed(),
        vec(any::<bool>(), 0..5).prop_map(Array::Bool).boxed(),
        vec(".{0,8}", 0..5).prop_map(Array::String).boxed(),
    ]);
    // Arrays of arrays; the reader goes four deep.
    leaf.prop_recursive(3, 12, 3, |inner| prop::collection::vec(inner, 0..3).prop_map(Array::Array))
}

fn value() -> impl Strategy<Value = Value> {
    Union::new([
        any::<u8>().prop_map(Value::U8).boxed(),
        any::<i8>().prop_map(Value::I8).boxed(),
        any::<u16>().prop_map(Value::U16).boxed(),
        any::<i16>().prop_map(Value::I16).boxed(),
        any::<u32>().prop_map(Value::U32).boxed(),
        any::<i32>().prop_map(Value::I32).boxed(),
        any::<u64>().prop_map(Value::U64).boxed(),
        any::<i64>().prop_map(Value::I64).boxed(),
        real().prop_map(Value::F32).boxed(),
        real().prop_map(|value| Value::F64(value.into())).boxed(),
        any::<bool>().prop_map(Value::Bool).boxed(),
        ".{0,20}".prop_map(Value::String).boxed(),
        array().prop_map(Value::Array).boxed(),
    ])
}

/// Scale, factors and whole weight of an adapter whose modules have ranks of their own.
fn adapter() -> impl Strategy<Value = AdapterFolder> {
    let sides = (1..5_usize, 1..5_usize, 1..4_usize);
    let modules = prop::collection::vec((sides, any::<u64>()), 1..5);
    let formats = prop::sample::select(vec![Format::F32, Format::F16, Format::BF16]);
    let provenance = prop::collection::btree_map("[a-z.]{1,6}x", ".{0,12}", 0..3);
    let kinds = (any::<bool>(), any::<bool>(), any::<bool>());
    (modules, 0.1_f64..9.0, formats, provenance, kinds).prop_map(
        |(modules, alpha, format, provenance, (rank_stabilised, dora, whole))| {
            // Of eighths, which every format holds.
            let values = |seed: u64, count: usize| {
                let draw = |at: usize| (seed.wrapping_mul(at as u64 * 2 + 3) % 65) as f32 / 8.0 - 4.0;
                (0..count).map(draw).collect::<Vec<f32>>()
            };
            let factors: Vec<Factor> = modules
                .iter()
                .enumerate()
                .map(|(at, &((output, input, rank), seed))| Factor {
                    magnitude: dora.then(|| values(seed, output)),
                    ..Factor::linear(
                        &format!("model.layers.{at}.self_attn.q_proj"),
                        (output, input, rank),
                        values(seed, output * rank),
                        values(!seed, rank * input),
                    )
                })
                .collect();
            let targets = Targets::List(factors.iter().map(|factor| factor.module.clone()).collect());
            let mut config = AdapterConfig::new(factors[0].rank, alpha, targets);
            config.rank_pattern = factors.iter().map(|f| (f.module.clone(), f.rank)).collect();
            (config.rank_stabilised, config.dora) = (rank_stabilised, dora);
            let mut adapter = AdapterFolder::new(config, factors);
            if whole {
                adapter.config.modules_to_save = vec!["lm_head".to_owned()];
                let (name, shape) = ("lm_head.weight".to_owned(), vec![2, 3]);
                adapter.whole.push(Whole { name, shape, values: values(alpha.to_bits(), 6) });
            }
            (adapter.format, adapter.provenance) = (format, provenance);
            adapter
        },
    )
}

/// scale · left · right of every module, in f64, row-major.
fn changes(adapter: &AdapterFolder) -> BTreeMap<String, Vec<f64>> {
    let matcher = Matcher::new(&adapter.config).unwrap();
    let change = |f: &Factor| {
        let entry = |row: usize, column: usize| {
            let left = &f.left[row * f.rank..(row + 1) * f.rank];
            let right = f.right.iter().skip(column).step_by(f.input);
            left.iter().zip(right).map(|(l, r)| f64::from(*l) * f64::from(*r)).sum::<f64>()
        };
        let scale = matcher.scale(&f.module);
        (0..f.output * f.input).map(|at| scale * entry(at / f.input, at % f.input)).collect()
    };
    adapter.factors.iter().map(|factor| (factor.module.clone(), change(factor))).collect()
}

fn same_changes(a: &AdapterFolder, b: &AdapterFolder) -> Result<(), TestCaseError> {
    let (a, b) = (changes(a), changes(b));
    prop_assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    for (x, y) in a.values().flatten().zip(b.values().flatten()) {
        // One rounding to f32 of each factor's numbers; the products are of at most three terms below 16.
        prop_assert!((x - y).abs() <= 1e-4 * (1.0 + x.abs()), "{} became {}", x, y);
    }
    Ok(())
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries.map(|e| (e.file_name().into_string().unwrap(), fs::read(e.path()).unwrap())).collect()
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn safetensors_come_back(
        tensors in tensors(&PLAIN, 0..4),
        metadata in prop::collection::btree_map(".{0,8}", ".{0,8}", 0..4),
    ) {
        let bytes = safetensors_of(&tensors, &metadata);
        let file = SafetensorsFile::from_bytes(bytes.clone()).unwrap();
        same(&file, &tensors)?;
        prop_assert_eq!(file.metadata(), &metadata);
        prop_assert_eq!(safetensors_of(&tensors, file.metadata()), bytes, "the same content, the same bytes");
    }

    #[test]
    fn gguf_comes_back(
        values in prop::collection::btree_map("[a-z.]{1,8}", value(), 0..8),
        tensors in tensors(&GGML, 1..5),
        alignment in prop::option::of(0..8_u32),
    ) {
        let mut values: Vec<(String, Value)> = values.into_iter().collect();
        values.extend(alignment.map(|power| ("general.alignment".to_owned(), Value::U32(1 << power))));
        let bytes = gguf_of(&values, &tensors);
        let file = GgufFile::from_bytes(bytes.clone()).unwrap();
        same(&file, &tensors)?;
        prop_assert_eq!(file.values(), &values);
        prop_assert_eq!(gguf_of(file.values(), &tensors), bytes);
    }

    #[test]
    fn checkpoints_come_back(
        names in prop::collection::btree_set(".{1,12}", 1..6),
        values in prop::collection::vec(any::<f32>().prop_filter("a number", |v| !v.is_nan()), 0..20),
        counts in prop::collection::vec(any::<u64>(), 0..9),
        text in ".{0,40}",
        number in any::<f64>().prop_filter("JSON has no others", |v| v.is_finite()),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let tensors = names.into_iter().map(|name| (name, vec![values.len()], values.clone())).collect();
        let state = Checkpoint {
            tensors,
            integers: vec![("a count longer than those names".into(), counts)],
            json: serde_json::json!({"text": text, "number": number}),
        };
        state.save(&path).unwrap();
        let bytes = fs::read(&path).unwrap();
        let read = Checkpoint::load(&path).unwrap();
        prop_assert_eq!(&read, &state);
        read.save(&path).unwrap();
        prop_assert_eq!(fs::read(&path).unwrap(), bytes);
    }

    #[test]
    fn adapters_come_back(adapter in adapter()) {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (folder.path().join("1"), folder.path().join("2"));
        adapter.write(&first, Existing::Refuse).unwrap();
        let read = AdapterFolder::read(&first).unwrap();
        // Written sorted, as PEFT does.
        let mut sorted = adapter.clone();
        sorted.config.rank_pattern.sort();
        sorted.config.other = read.config.other.clone();
        prop_assert_eq!(&read, &sorted);
        read.write(&second, Existing::Refuse).unwrap();
        prop_assert_eq!(files(&first), files(&second));
    }

    #[test]
    fn adapters_for_other_readers_come_back(adapter in adapter()) {
        prop_assume!(!adapter.config.dora && adapter.whole.is_empty());
        let folder = tempfile::tempdir().unwrap();
        let (mlx, gguf) = (folder.path().join("mlx"), folder.path().join("adapter.gguf"));
        export::write_mlx(&Disk::real(), &mlx, Existing::Refuse, &adapter).unwrap();
        same_changes(&adapter, &export::read_mlx(&mlx).unwrap())?;
        let base = LlamaCppBase { architecture: "qwen2".into(), heads: 1, kv_heads: 1 };
        export::write_llama_cpp(&Disk::real(), &gguf, &base, &adapter).unwrap();
        let back = export::read_llama_cpp(&gguf, &base).unwrap();
        same_changes(&adapter, &back)?;
        prop_assert_eq!(back.provenance.len(), adapter.provenance.len());
        same_changes(&adapter, &export::fold(&adapter).unwrap())?;
        same_changes(&adapter, &export::pad(&adapter).unwrap())?;
    }

    #[test]
    fn a_model_in_shards_is_the_model_in_one_file(
        tensors in prop::collection::btree_map(name(), tensor(&PLAIN, 0..3), 1..8),
        shards in prop::collection::vec(0..3_u8, 8),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let mut parts: BTreeMap<String, BTreeMap<String, Tensor>> = BTreeMap::new();
        let mut map = serde_json::Map::new();
        for ((name, tensor), shard) in tensors.iter().zip(shards) {
            let file = format!("model-{shard}.safetensors");
            map.insert(name.clone(), file.clone().into());
            parts.entry(file).or_default().insert(name.clone(), tensor.clone());
        }
        for (file, part) in &parts {
            fs::write(folder.path().join(file), safetensors_of(part, &BTreeMap::new())).unwrap();
        }
        let index = serde_json::json!({"metadata": {"total_size": 1}, "weight_map": map});
        fs::write(folder.path().join(safetensors::INDEX_NAME), index.to_string()).unwrap();
        let model = ShardedModel::open(folder.path()).unwrap();
        same(&model, &tensors)?;
        let whole = SafetensorsFile::from_bytes(safetensors_of(&tensors, &BTreeMap::new())).unwrap();
        prop_assert_eq!(hash::of_tensors(&model).unwrap(), hash::of_tensors(&whole).unwrap());
    }

    #[test]
    fn json_and_lines_of_it_come_back(values in prop::collection::vec(any_json(), 0..5), blanks in 0..3_usize) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data.jsonl");
        let lines: Vec<String> = values.iter().map(|value| format!("{value}\n{}", "\n".repeat(blanks))).collect();
        fs::write(&path, lines.concat()).unwrap();
        let read: Vec<_> = jsonl::read(&path).unwrap().collect::<Result<_, _>>().unwrap();
        let wanted: Vec<_> =
            values.iter().enumerate().map(|(at, value)| (at * (blanks + 1) + 1, value.clone())).collect();
        prop_assert_eq!(read, wanted);
        for value in values {
            fs::write(&path, json::sorted_text(&value)).unwrap();
            let read = json::read(&path).unwrap();
            prop_assert_eq!(json::sorted_text(&read), json::sorted_text(&value));
        }
    }
}

fn any_json() -> impl Strategy<Value = serde_json::Value> {
    use serde_json::Value;
    let leaf = Union::new([
        Just(Value::Null).boxed(),
        any::<bool>().prop_map(Value::from).boxed(),
        any::<i64>().prop_map(Value::from).boxed(),
        any::<u64>().prop_map(Value::from).boxed(),
        any::<f64>().prop_filter("JSON has no others", |v| v.is_finite()).prop_map(Value::from).boxed(),
        ".{0,10}".prop_map(Value::from).boxed(),
    ]);
    leaf.prop_recursive(3, 16, 4, |inner| {
        let list = prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from);
        let object = prop::collection::btree_map(".{0,6}", inner, 0..4)
            .prop_map(|entries| Value::Object(entries.into_iter().collect()));
        Union::new([list.boxed(), object.boxed()])
    })
}
