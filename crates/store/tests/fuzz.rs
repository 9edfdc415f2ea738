//! Damaged files, by the hundred: readers answer with a value or an error, never with a panic, and never allocate more
//! than a small multiple of the file.
//!
//! `LOWRANK_FUZZ_CASES` sets the number of cases for each kind of file (default 300). Every case comes from a seed, which
//! the message of a failure names.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Mutex, MutexGuard, PoisonError};

use lowrank_record::Seed;
use lowrank_store::checkpoint::Checkpoint;
use lowrank_store::gguf::{self, Array, GgufFile, Value};
use lowrank_store::peft::{AdapterConfig, AdapterFolder, Factor, Targets};
use lowrank_store::safetensors::{self, SafetensorsFile};
use lowrank_store::{Dtype, Format, TensorSource, atomic::Existing};
use peak_alloc::PeakAlloc;
use proptest::prelude::*;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// The peak is the whole process's, so tests that look at it take turns.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
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

/// Reads every damaged file and holds the peak of memory against the size of the file.
fn check(kind: &str, valid: &[u8], read: impl Fn(&[u8]) -> bool) {
    let _turn = turn();
    assert!(read(valid), "{kind}: the sample itself is fine");
    let (mut read_anyway, cases) = (0, cases());
    for case in 0..cases {
        let bytes = damaged(valid, Seed(case).at("fuzz", kind));
        let before = MEMORY.current_usage();
        MEMORY.reset_peak_usage();
        read_anyway += u64::from(read(&bytes));
        let used = MEMORY.peak_usage().saturating_sub(before);
        let bound = 64 * bytes.len() + (4 << 20);
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
    check("safetensors", &sample_safetensors(), read_safetensors);
}

#[test]
fn damaged_gguf() {
    check("gguf", &sample_gguf(), read_gguf);
}

#[test]
fn damaged_checkpoints() {
    check("checkpoint", &sample_checkpoint(), |bytes| Checkpoint::decode(bytes).is_ok());
}

#[test]
fn damaged_adapters() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("adapter");
    let mut config = AdapterConfig::new(2, 3.0, Targets::Pattern(r".*\.(q|v)_proj".into()));
    config.rank_pattern = vec![("v_proj".into(), 1)];
    let factors = vec![
        Factor::linear("l.0.q_proj", (3, 4, 2), vec![0.5; 6], vec![1.5; 8]),
        Factor::linear("l.0.v_proj", (2, 2, 1), vec![0.1; 2], vec![0.2; 2]),
    ];
    AdapterFolder::new(config, factors).write(&path, Existing::Refuse).unwrap();
    for name in ["adapter_config.json", "adapter_model.safetensors"] {
        let file = path.join(name);
        let valid = fs::read(&file).unwrap();
        check(name, &valid, |bytes| {
            fs::write(&file, bytes).unwrap();
            AdapterFolder::read(&path).is_ok()
        });
        fs::write(&file, &valid).unwrap();
    }
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

    /// What was written is read, whatever the names and values.
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
}
