//! Damaged files, by the hundred: readers answer with a value or an error, never with a panic, and never allocate more
//! than a small multiple of the file.
//!
//! `LOWRANK_FUZZ_CASES` sets the number of cases for each kind of file (default 300). Every case comes from a seed, which
//! the message of a failure names.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use lowrank_record::Seed;
use lowrank_store::atomic::{Disk, Existing};
use lowrank_store::checkpoint::Checkpoint;
use lowrank_store::gguf::{self, Array, GgufFile, LlamaCppBase, Value};
use lowrank_store::peft::{AdapterConfig, AdapterFolder, Factor, Targets};
use lowrank_store::safetensors::{self, SafetensorsFile, ShardedModel};
use lowrank_store::{Dtype, Format, TensorSource, export};
use peak_alloc::PeakAlloc;
use proptest::prelude::*;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// The peak is the whole process's, so tests that look at it take turns.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes a sample when nobody is measuring.
fn made<T>(make: impl FnOnce() -> T) -> T {
    let _turn = turn();
    make()
}

fn cases() -> u64 {
    std::env::var("LOWRANK_FUZZ_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(300)
}

/// Cuts, flips, overwrites and splices; keeps most of the file, so that damage lies deep inside too.
fn damaged(valid: &[u8], seed: Seed) -> Vec<u8> {
    let draws = seed.permutation(1 << 12);
    let mut next = draws.into_iter();
    let mut draw = |below: usize| next.next().map_or(0, |d| d * 4093) % below.max(1);
    let mut bytes = valid.to_vec();
    for _ in 0..=draw(4) {
        let at = draw(bytes.len());
        let interesting: [&[u8]; 8] = [
            &[0; 8],
            &[255; 8],
            &[0, 0, 0, 0, 0, 0, 0, 128],
            b"\"",
            b"}",
            &[255, 255, 255, 127],
            &[1],
            b"9999999999",
        ];
        match draw(6) {
            0 => bytes.truncate(at),
            1 | 2 if !bytes.is_empty() => bytes[at] ^= 1 << draw(8),
            3 => {
                let new = interesting[draw(8)];
                for (old, &new) in bytes[at.min(valid.len())..].iter_mut().zip(new) {
                    *old = new;
                }
            }
            4 => {
                drop(bytes.splice(at..(at + draw(9)).min(bytes.len()), interesting[draw(8)].iter().copied()))
            }
            _ => {
                let from = draw(bytes.len());
                let part = bytes[from..(from + draw(64)).min(bytes.len())].to_vec();
                bytes.splice(at..at, part);
            }
        }
    }
    bytes
}

/// Memory that a reader may take whatever the size of the file.
const SMALL: usize = 64 << 10;
/// … where an adapter is checked: its patterns become regular expressions, each of at most a mebibyte.
const WITH_PATTERNS: usize = 4 << 20;

/// Reads every damaged file and holds the peak of memory against the size of the file.
fn check(kind: &str, valid: &[u8], slack: usize, read: impl Fn(&[u8]) -> bool) {
    let _turn = turn();
    assert!(read(valid), "{kind}: the sample itself is fine");
    let (mut read_anyway, cases) = (0, cases());
    for case in 0..cases {
        let bytes = damaged(valid, Seed(case).at("fuzz", kind));
        let before = MEMORY.current_usage();
        MEMORY.reset_peak_usage();
        read_anyway += u64::from(read(&bytes));
        let used = MEMORY.peak_usage().saturating_sub(before);
        let bound = 64 * bytes.len() + slack;
        assert!(used <= bound, "{kind}, case {case}: {used} bytes for a file of {}", bytes.len());
    }
    assert!(read_anyway < cases, "{kind}: no case did any damage");
}

fn sample_safetensors() -> Vec<u8> {
    let entry =
        |name, shape, bytes| safetensors::Entry { name, dtype: Dtype::Real(Format::F16), shape, bytes };
    let metadata =
        BTreeMap::from([("format".to_owned(), "pt".to_owned()), ("seed".to_owned(), "1".to_owned())]);
    let entries =
        [entry("model.a", &[2, 3], &[7; 12]), entry("model.b", &[1], &[9; 2]), entry("c", &[0, 4], &[])];
    safetensors::encode(&entries, &metadata).unwrap()
}

fn sample_gguf() -> Vec<u8> {
    let values: Vec<(String, Value)> = vec![
        ("general.architecture".into(), Value::String("llama".into())),
        ("general.alignment".into(), Value::U32(32)),
        ("tokens".into(), Value::Array(Array::String((0..20).map(|i| format!("token {i}")).collect()))),
        ("nested".into(), Value::Array(Array::Array(vec![Array::U16(vec![1, 2]), Array::Bool(vec![true])]))),
        ("scores".into(), Value::Array(Array::F32(vec![0.5; 9]))),
    ];
    let entries = [
        gguf::Entry { name: "blk.0.w", dtype: Dtype::Real(Format::Q4_K), shape: &[2, 256], bytes: &[3; 288] },
        gguf::Entry { name: "norm", dtype: Dtype::Real(Format::F32), shape: &[3], bytes: &[0; 12] },
    ];
    gguf::encode(&values, &entries).unwrap()
}

fn sample_checkpoint() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let state = Checkpoint {
        tensors: vec![("left".into(), vec![3, 2], vec![0.5; 6]), ("right".into(), vec![2, 1], vec![-1.0; 2])],
        integers: vec![("step".into(), vec![12])],
        json: serde_json::json!({"recipe": {"rank": 2, "rate": 1e-4}}),
    };
    state.save(&path).unwrap();
    fs::read(path).unwrap()
}

/// Reads all that a source offers.
fn exhaust(source: &dyn TensorSource) -> bool {
    for name in source.names() {
        let info = source.info(name).unwrap();
        assert_eq!(info.dtype.bytes_of(&info.shape), Some(source.bytes(name).unwrap().len()), "{name}");
        if matches!(info.dtype, Dtype::Real(_)) {
            source.widened(name).unwrap();
        }
    }
    true
}

fn read_safetensors(bytes: &[u8]) -> bool {
    SafetensorsFile::from_bytes(bytes.to_vec()).is_ok_and(|file| exhaust(&file))
}

fn read_gguf(bytes: &[u8]) -> bool {
    GgufFile::from_bytes(bytes.to_vec()).is_ok_and(|file| exhaust(&file))
}

#[test]
fn damaged_safetensors() {
    check("safetensors", &made(sample_safetensors), SMALL, read_safetensors);
}

#[test]
fn damaged_gguf() {
    check("gguf", &made(sample_gguf), SMALL, read_gguf);
}

#[test]
fn damaged_checkpoints() {
    check("checkpoint", &made(sample_checkpoint), SMALL, |bytes| Checkpoint::decode(bytes).is_ok());
}

/// Damages each file of a folder in turn, the others being whole.
fn check_files(kind: &str, folder: &Path, slack: usize, read: impl Fn(&Path) -> bool) {
    let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    for name in names {
        let file = folder.join(&name);
        let valid = fs::read(&file).unwrap();
        check(&format!("{kind} {}", name.display()), &valid, slack, |bytes| {
            fs::write(&file, bytes).unwrap();
            read(folder)
        });
        fs::write(&file, &valid).unwrap();
    }
}

fn sample_adapter() -> AdapterFolder {
    let mut config = AdapterConfig::new(2, 3.0, Targets::Pattern(r".*\.(q|v)_proj".into()));
    config.rank_pattern = vec![("v_proj".into(), 1)];
    let factors = vec![
        Factor::linear("model.layers.0.self_attn.q_proj", (4, 4, 2), vec![0.5; 8], vec![1.5; 8]),
        Factor::linear("model.layers.0.self_attn.v_proj", (2, 2, 1), vec![0.1; 2], vec![0.2; 2]),
    ];
    AdapterFolder::new(config, factors)
}

#[test]
fn damaged_adapters() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("adapter");
    made(|| sample_adapter().write(&path, Existing::Refuse)).unwrap();
    check_files("peft", &path, WITH_PATTERNS, |path| {
        // Looking at it finds no less than reading does.
        let (read, seen) = (AdapterFolder::read(path), AdapterFolder::look(path));
        assert_eq!(read.is_ok(), seen.is_ok_and(|seen| seen.objections.is_empty()));
        read.is_ok()
    });
}

#[test]
fn damaged_adapters_of_other_readers() {
    let folder = tempfile::tempdir().unwrap();
    let (mlx, gguf) = (folder.path().join("mlx"), folder.path().join("gguf"));
    made(|| export::write_mlx(&Disk::real(), &mlx, Existing::Refuse, &sample_adapter())).unwrap();
    check_files("mlx", &mlx, WITH_PATTERNS, |path| export::read_mlx(path).is_ok());
    fs::create_dir(&gguf).unwrap();
    let base = LlamaCppBase { architecture: "llama".into(), heads: 2, kv_heads: 1 };
    let file = |folder: &Path| folder.join("adapter.gguf");
    made(|| export::write_llama_cpp(&Disk::real(), &file(&gguf), &base, &sample_adapter())).unwrap();
    check_files("llama.cpp", &gguf, WITH_PATTERNS, |path| export::read_llama_cpp(&file(path), &base).is_ok());
}

#[test]
fn damaged_models_in_shards() {
    let folder = tempfile::tempdir().unwrap();
    let shard = |name: &str, tensors: &[&str]| {
        let dtype = Dtype::Real(Format::F16);
        let entries: Vec<_> = tensors
            .iter()
            .map(|name| safetensors::Entry { name, dtype, shape: &[2], bytes: &[1; 4] })
            .collect();
        fs::write(folder.path().join(name), safetensors::encode(&entries, &BTreeMap::new()).unwrap())
            .unwrap();
    };
    shard("1.safetensors", &["model.a", "model.c"]);
    shard("2.safetensors", &["model.b"]);
    let index = r#"{"metadata":{"total_size":12},"weight_map":{"model.a":"1.safetensors","model.b":"2.safetensors","model.c":"1.safetensors"}}"#;
    fs::write(folder.path().join(safetensors::INDEX_NAME), index).unwrap();
    check_files("shards", folder.path(), SMALL, |path| {
        ShardedModel::open(path).is_ok_and(|file| exhaust(&file))
    });
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    /// Bytes without any sense, also behind a good beginning.
    #[test]
    fn random_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300), length in 0_u64..400) {
        let _turn = turn();
        let gguf = [b"GGUF\x03\0\0\0", bytes.as_slice()].concat();
        let header = [&length.to_le_bytes()[..], bytes.as_slice()].concat();
        MEMORY.reset_peak_usage();
        let before = MEMORY.current_usage();
        for bytes in [&bytes, &gguf, &header] {
            read_safetensors(bytes);
            read_gguf(bytes);
            let _ = Checkpoint::decode(bytes);
        }
        prop_assert!(MEMORY.peak_usage().saturating_sub(before) < 1 << 20);
    }
}
