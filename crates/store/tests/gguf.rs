//! GGUF: what is written is read, each damage has its own error.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail by panicking")]

use lowrank_store::gguf::{Array, Entry, GgufError as E, GgufFile, Value, encode};
use lowrank_store::{Dtype, Format, StoreError, TensorSource, tensors};

const F32: Dtype = Dtype::Real(Format::F32);

fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}

fn values() -> Vec<(String, Value)> {
    let list: Vec<(&str, Value)> = vec![
        ("general.architecture", text("llama")),
        ("a.u8", Value::U8(200)),
        ("a.i8", Value::I8(-3)),
        ("a.u16", Value::U16(60000)),
        ("a.i16", Value::I16(-300)),
        ("a.u32", Value::U32(4_000_000_000)),
        ("a.i32", Value::I32(-70000)),
        ("a.f32", Value::F32(1e-5)),
        ("a.bool", Value::Bool(true)),
        ("a.u64", Value::U64(u64::MAX)),
        ("a.i64", Value::I64(i64::MIN)),
        ("a.f64", Value::F64(0.1)),
        ("tokens", Value::Array(Array::String(vec!["a".into(), "größe".into(), String::new()]))),
        ("types", Value::Array(Array::I32(vec![1, -1]))),
        ("scores", Value::Array(Array::F32(vec![0.5]))),
        ("flags", Value::Array(Array::Bool(vec![true, false]))),
        ("nested", Value::Array(Array::Array(vec![Array::U16(vec![7]), Array::F64(vec![])]))),
    ];
    list.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn sample() -> Vec<u8> {
    let q8: Vec<u8> = (0..3 * 34).collect();
    let f32s: Vec<u8> = [1.0_f32, -2.0, 0.5].iter().flat_map(|value| value.to_le_bytes()).collect();
    let entries = [
        Entry { name: "w", dtype: Dtype::Real(Format::Q8_0), shape: &[3, 32], bytes: &q8 },
        Entry { name: "norm", dtype: F32, shape: &[3], bytes: &f32s },
    ];
    encode(&values(), &entries).unwrap()
}

fn damage(bytes: Vec<u8>) -> E {
    match GgufFile::from_bytes(bytes) {
        Err(StoreError::Gguf { cause, .. }) => {
            assert!(!cause.to_string().is_empty());
            cause
        }
        other => panic!("{other:?}"),
    }
}

/// A file from its raw parts.
fn raw(tensors: u64, values: u64, rest: &[&[u8]]) -> Vec<u8> {
    let mut bytes = b"GGUF\x03\0\0\0".to_vec();
    bytes.extend(tensors.to_le_bytes());
    bytes.extend(values.to_le_bytes());
    rest.iter().for_each(|part| bytes.extend(*part));
    bytes
}

fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

/// A row of the tensor table, sides as in the file.
fn row(name: &str, sides: &[u64], kind: u32, at: u64) -> Vec<u8> {
    let mut out = string(name);
    out.extend((sides.len() as u32).to_le_bytes());
    out.extend(sides.iter().flat_map(|side| side.to_le_bytes()));
    out.extend(kind.to_le_bytes());
    out.extend(at.to_le_bytes());
    out
}

#[test]
fn what_is_written_is_read() {
    let bytes = sample();
    let file = GgufFile::from_bytes(bytes.clone()).unwrap();
    assert_eq!(file.version(), 3);
    assert_eq!(file.values(), values());
    assert_eq!(file.file_order(), ["w", "norm"]);
    assert_eq!(file.names(), ["norm", "w"]);
    assert_eq!(file.info("w").unwrap().shape, [3, 32]);
    assert_eq!(file.bytes("w").unwrap(), (0..102).collect::<Vec<u8>>());
    assert_eq!(file.widened("norm").unwrap(), [1.0, -2.0, 0.5]);
    assert_eq!(file.metadata()["general.architecture"], "llama");
    // The sides are stored the other way round.
    let at = bytes.windows(9).position(|window| window == [1, 0, 0, 0, 0, 0, 0, 0, b'w']).unwrap() + 9;
    assert_eq!(bytes[at..at + 20], [&[2, 0, 0, 0][..], &32_u64.to_le_bytes(), &3_u64.to_le_bytes()].concat());
    let again: Vec<Entry<'_>> = file
        .file_order()
        .iter()
        .map(|name| {
            let info = file.info(name).unwrap();
            Entry { name, dtype: info.dtype, shape: &info.shape, bytes: file.bytes(name).unwrap() }
        })
        .collect();
    assert_eq!(encode(file.values(), &again).unwrap(), bytes, "read, then written, gives the same bytes");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, &bytes).unwrap();
    for path in [path.as_path(), folder.path()] {
        assert_eq!(tensors::open(path).unwrap().names(), ["norm", "w"]);
    }
}

#[test]
fn values_are_typed() {
    let file = GgufFile::from_bytes(sample()).unwrap();
    assert_eq!(file.u32("a.u32").unwrap(), 4_000_000_000);
    assert_eq!(file.u32("a.u8").unwrap(), 200);
    assert_eq!(file.f32("a.f32").unwrap(), 1e-5);
    assert!(file.bool("a.bool").unwrap());
    assert_eq!(file.str("general.architecture").unwrap(), "llama");
    assert_eq!(file.strings("tokens").unwrap()[1], "größe");
    assert_eq!(file.i32s("types").unwrap(), [1, -1]);
    assert_eq!(file.f32s("scores").unwrap(), [0.5]);
    let cause = |error: StoreError| match error {
        StoreError::Gguf { cause, .. } => cause,
        other => panic!("{other}"),
    };
    let missing = E::MissingKey { key: "llama.block_count".into() };
    assert_eq!(cause(file.u32("llama.block_count").unwrap_err()), missing);
    let wrong = |key: &str, found, wanted| E::WrongType { key: key.into(), found, wanted };
    assert_eq!(cause(file.u32("a.i32").unwrap_err()), wrong("a.i32", "i32", "a count below 2^32"));
    assert_eq!(cause(file.str("a.f32").unwrap_err()), wrong("a.f32", "f32", "text"));
    assert_eq!(cause(file.strings("types").unwrap_err()), wrong("types", "an array", "an array of text"));
}

#[test]
fn damaged_heads_have_their_own_errors() {
    assert_eq!(damage(b"GG".to_vec()), E::BadMagic { found: b"GG".to_vec() });
    assert_eq!(damage(b"GGML....".to_vec()), E::BadMagic { found: b"GGML".to_vec() });
    assert_eq!(damage(b"GGUF\x01\0\0\0".to_vec()), E::BadVersion { version: 1 });
    assert_eq!(damage(b"GGUF\0\0\0\x03".to_vec()), E::BigEndian);
    assert_eq!(
        damage(b"GGUF\x03\0".to_vec()),
        E::CutOff { what: "the version".into(), at: 4, needed: 4, left: 2 }
    );
    let count = |what: &str, declared, left| E::CountTooLarge { what: what.into(), declared, left };
    assert_eq!(damage(raw(u64::MAX, 0, &[])), count("the number of tensors", u64::MAX, 8));
    assert_eq!(damage(raw(0, 9, &[&[0; 20]])), count("the number of values", 9, 20));
}

#[test]
fn damaged_values_have_their_own_errors() {
    let key = string("k");
    let with = |kind: u32, rest: &[u8]| damage(raw(0, 1, &[&key, &kind.to_le_bytes(), rest]));
    let k = || "k".to_owned();
    let long = E::StringTooLong { what: "a key".into(), at: 24, declared: 1 << 40, left: 20 };
    assert_eq!(damage(raw(0, 1, &[&(1_u64 << 40).to_le_bytes(), &[0; 20]])), long);
    let bad = E::NotUtf8 { what: "a key".into(), at: 33 };
    assert_eq!(damage(raw(0, 1, &[&2_u64.to_le_bytes(), b"a\xff", &[0; 9]])), bad);
    assert_eq!(with(13, &[0; 8]), E::UnknownValueType { key: k(), id: 13 });
    assert_eq!(with(7, &[2]), E::BadBool { key: k(), found: 2 });
    assert_eq!(with(12, &[0; 5]), E::CutOff { what: k(), at: 37, needed: 8, left: 5 });
    let long = E::StringTooLong { what: k(), at: 37, declared: 3, left: 2 };
    assert_eq!(with(8, &[&3_u64.to_le_bytes()[..], b"ab"].concat()), long);
    let array = |kind: u32, count: u64, rest: &[u8]| {
        with(9, &[&kind.to_le_bytes()[..], &count.to_le_bytes(), rest].concat())
    };
    let count = |declared, left| E::CountTooLarge { what: k(), declared, left };
    assert_eq!(array(4, 1 << 60, &[0; 8]), count(1 << 60, 8));
    assert_eq!(array(8, 2, &[0; 15]), count(2, 15));
    assert_eq!(array(9, 1, &[0; 11]), count(1, 11));
    assert_eq!(array(7, 1, &[9]), E::BadBool { key: k(), found: 9 });
    assert_eq!(array(99, 1, &[9]), E::UnknownValueType { key: k(), id: 99 });
    let deep: Vec<u8> = [&9_u32.to_le_bytes()[..], &1_u64.to_le_bytes()].concat().repeat(5000);
    assert_eq!(with(9, &deep), E::NestedTooDeep { key: k(), limit: 4 });
    let pair = [&key[..], &[0, 0, 0, 0], &[1]].concat();
    assert_eq!(damage(raw(0, 2, &[&pair, &pair])), E::DuplicateKey { key: k() });
    let alignment = |kind: u32, value: u32| {
        let key = string("general.alignment");
        damage(raw(0, 1, &[&key, &kind.to_le_bytes(), &value.to_le_bytes()]))
    };
    assert_eq!(alignment(4, 24), E::BadAlignment { found: 24 });
    assert_eq!(alignment(4, 0), E::BadAlignment { found: 0 });
    let wrong = E::WrongType { key: "general.alignment".into(), found: "i32", wanted: "u32" };
    assert_eq!(alignment(5, 32), wrong);
}

#[test]
fn damaged_tables_have_their_own_errors() {
    let w = || "w".to_owned();
    /// Pads the table to the data, which are `data` bytes.
    fn file(rows: &[Vec<u8>], data: usize) -> Vec<u8> {
        let mut bytes = raw(rows.len() as u64, 0, &[&rows.concat()]);
        bytes.resize(bytes.len().next_multiple_of(32) + data, 0);
        bytes
    }
    assert!(GgufFile::from_bytes(file(&[row("w", &[32, 2], 8, 0)], 68)).is_ok());
    assert_eq!(damage(file(&[row("w", &[], 0, 0)], 4)), E::BadSides { name: w(), found: 0 });
    assert_eq!(damage(file(&[row("w", &[1; 5], 0, 0)], 4)), E::BadSides { name: w(), found: 5 });
    assert_eq!(damage(file(&[row("w", &[1], 5, 0)], 4)), E::UnknownTensorType { name: w(), id: 5 });
    assert_eq!(damage(file(&[row("w", &[32], 6, 0)], 22)), E::UnreadTensorType { name: w(), kind: "Q5_0" });
    assert_eq!(
        damage(file(&[row("w", &[48, 2], 8, 0)], 102)),
        E::RowNotBlocks { name: w(), row: 48, block: 32 }
    );
    let error = E::ShapeOverflow { name: w(), shape: vec![1 << 40, 1 << 40] };
    assert_eq!(damage(file(&[row("w", &[1 << 40, 1 << 40], 0, 0)], 4)), error);
    let error = E::OutsideFile { name: w(), begin: 0, size: 68, end: 67 };
    assert_eq!(damage(file(&[row("w", &[32, 2], 8, 0)], 67)), error);
    let error = E::OutsideFile { name: w(), begin: u64::MAX, size: 4, end: 4 };
    assert_eq!(damage(file(&[row("w", &[1], 0, u64::MAX)], 4)), error);
    let two = |at| file(&[row("v", &[1], 0, 0), row("w", &[1], 0, at)], 68);
    assert_eq!(damage(two(0)), E::WrongOffset { name: w(), begin: 0, expected: 32 });
    assert_eq!(damage(two(64)), E::WrongOffset { name: w(), begin: 64, expected: 32 });
    let error = E::TrailingBytes { extra: 29 };
    assert_eq!(damage(file(&[row("w", &[1], 0, 0)], 33)), error);
    let same = file(&[row("w", &[1], 0, 0), row("w", &[1], 0, 32)], 36);
    assert_eq!(damage(same), E::DuplicateName { name: w() });
}

#[test]
fn every_cut_is_noticed() {
    let bytes = sample();
    // All but the padding of the last tensor.
    for len in 0..bytes.len() - 20 {
        damage(bytes[..len].to_vec());
    }
}

#[test]
fn refuses_what_it_could_not_read_back() {
    let entry =
        |dtype, shape: &'static [usize], bytes: &'static [u8]| Entry { name: "w", dtype, shape, bytes };
    let one = entry(F32, &[1], &[0; 4]);
    let w = || "w".to_owned();
    assert_eq!(encode(&[], &[one, one]), Err(E::DuplicateName { name: w() }));
    let pair = ("k".to_owned(), Value::U8(1));
    assert_eq!(encode(&[pair.clone(), pair], &[]), Err(E::DuplicateKey { key: "k".into() }));
    let error = E::WrongBytes { name: w(), dtype: "F32", shape: vec![2], found: 4 };
    assert_eq!(encode(&[], &[entry(F32, &[2], &[0; 4])]), Err(error));
    assert_eq!(encode(&[], &[entry(F32, &[], &[0; 4])]), Err(E::BadSides { name: w(), found: 0 }));
    let q4 = Dtype::Real(Format::Q4_0);
    assert_eq!(
        encode(&[], &[entry(q4, &[48], &[0; 27])]),
        Err(E::RowNotBlocks { name: w(), row: 48, block: 32 })
    );
    assert_eq!(
        encode(&[], &[entry(Dtype::Bool, &[1], &[0])]),
        Err(E::NoSuchType { name: w(), dtype: "BOOL" })
    );
    let bad = [("general.alignment".to_owned(), Value::U32(3))];
    assert_eq!(encode(&bad, &[]), Err(E::BadAlignment { found: 3 }));
}
