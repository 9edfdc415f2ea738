//! PEFT folders: one that PEFT wrote, and one kind of damage after the other.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use lowrank_store::atomic::{Disk, Existing};
use lowrank_store::peft::{
    AdapterConfig, AdapterFolder, Factor, Init, Matcher, PeftError as E, Place, Targets, Whole,
};
use lowrank_store::safetensors::{Entry, SafetensorsFile, write};
use lowrank_store::{Dtype, Format, StoreError, TensorSource, json};
use serde_json::{Value, json};

const Q: &str = "layers.0.q_proj";
const DOWN: &str = "layers.0.down_proj";
const PREFIX: &str = "base_model.model.";

/// As `peft/make.py`.
fn formula(count: usize) -> Vec<f32> {
    (0..count).map(|i| (i + 1) as f32 / 8.0 * if i % 3 == 2 { -1.0 } else { 1.0 }).collect()
}

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peft/plain")
}

type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

/// A folder that can be damaged and read.
struct Damaged {
    _keep: tempfile::TempDir,
    path: PathBuf,
    config: Value,
    tensors: Tensors,
}

impl Damaged {
    fn new() -> Damaged {
        let keep = tempfile::tempdir().unwrap();
        let path = keep.path().join("adapter");
        fs::create_dir(&path).unwrap();
        let config = json::read(&fixture().join("adapter_config.json")).unwrap();
        let file = SafetensorsFile::open(&fixture().join("adapter_model.safetensors")).unwrap();
        let tensors = file
            .names()
            .iter()
            .map(|name| {
                let info = file.info(name).unwrap();
                (name.clone(), (info.dtype, info.shape.clone(), file.bytes(name).unwrap().to_vec()))
            })
            .collect();
        Damaged { _keep: keep, path, config, tensors }
    }

    fn take(&mut self, name: &str) -> (Dtype, Vec<usize>, Vec<u8>) {
        self.tensors.remove(&format!("{PREFIX}{name}")).unwrap()
    }

    fn put(&mut self, name: &str, tensor: (Dtype, Vec<usize>, Vec<u8>)) {
        self.tensors.insert(name.to_owned(), tensor);
    }

    fn save(&self) {
        fs::write(self.path.join("adapter_config.json"), self.config.to_string()).unwrap();
        let entries: Vec<Entry<'_>> = self
            .tensors
            .iter()
            .map(|(name, (dtype, shape, bytes))| Entry { name, dtype: *dtype, shape, bytes })
            .collect();
        write(&Disk::real(), &self.path.join("adapter_model.safetensors"), &entries, &BTreeMap::new())
            .unwrap();
    }

    fn read(&self) -> Result<AdapterFolder, StoreError> {
        self.save();
        AdapterFolder::read(&self.path)
    }
}

fn cause(result: Result<AdapterFolder, StoreError>) -> E {
    match result {
        Err(StoreError::Peft { cause, .. }) => {
            assert!(!cause.to_string().is_empty());
            cause
        }
        other => panic!("{other:?}"),
    }
}

/// Applies one damage and gives the error it leads to.
fn after(damage: impl FnOnce(&mut Damaged)) -> E {
    let mut folder = Damaged::new();
    damage(&mut folder);
    cause(folder.read())
}

fn f32s(shape: &[usize]) -> (Dtype, Vec<usize>, Vec<u8>) {
    let values = formula(shape.iter().product());
    (Dtype::Real(Format::F32), shape.to_vec(), values.iter().flat_map(|v| v.to_le_bytes()).collect())
}

#[test]
fn what_peft_wrote_is_read_and_written_again_byte_for_byte() {
    let adapter = AdapterFolder::read(&fixture()).unwrap();
    let modules: Vec<&str> = adapter.factors.iter().map(|factor| factor.module.as_str()).collect();
    assert_eq!(modules, ["embed", DOWN, Q]);
    let down = adapter.factor(DOWN).unwrap();
    assert_eq!((down.output, down.input, down.rank, down.place), (4, 5, 3, Place::Linear));
    assert_eq!((&down.left, &down.right), (&formula(12), &formula(15)));
    let embed = adapter.factor("embed").unwrap();
    assert_eq!((embed.output, embed.input, embed.rank, embed.place), (4, 7, 2, Place::Embedding));
    let matcher = Matcher::new(&adapter.config).unwrap();
    assert_eq!(matcher.scale(Q), 5.0 / 2.0_f64.sqrt());
    assert_eq!(matcher.scale(DOWN), 5.0 / 3.0_f64.sqrt());
    assert!(adapter.config.unknown_keys().is_empty());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("again");
    adapter.write(&path, Existing::Refuse).unwrap();
    for name in ["adapter_config.json", "adapter_model.safetensors"] {
        let (ours, theirs) = (fs::read(path.join(name)).unwrap(), fs::read(fixture().join(name)).unwrap());
        assert_eq!(String::from_utf8_lossy(&ours), String::from_utf8_lossy(&theirs), "{name}");
    }
}

#[test]
fn every_format_and_part_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = AdapterConfig::new(2, 3.5, Targets::Pattern(r"layers\.\d+\.(q_proj|down_proj)".into()));
    config.rank_pattern = vec![("down_proj".into(), 3)];
    config.dora = true;
    config.left_bias = true;
    config.modules_to_save = vec!["lm_head".into()];
    let factor = |module: &str, sides: (usize, usize, usize)| Factor {
        magnitude: Some(formula(sides.0)),
        bias: Some(formula(sides.0)),
        ..Factor::linear(module, sides, formula(sides.0 * sides.2), formula(sides.2 * sides.1))
    };
    let mut adapter = AdapterFolder::new(config, vec![factor(DOWN, (4, 5, 3)), factor(Q, (6, 4, 2))]);
    adapter.whole = vec![Whole { name: "lm_head.weight".into(), shape: vec![3, 2], values: formula(6) }];
    adapter.provenance = BTreeMap::from([("seed".into(), "7".into()), ("base".into(), "abc".into())]);
    for format in [Format::F32, Format::F16, Format::BF16] {
        adapter.format = format;
        let (first, second) =
            (folder.path().join(format.name()), folder.path().join(format!("{format} again")));
        adapter.write(&first, Existing::Refuse).unwrap();
        let read = AdapterFolder::read(&first).unwrap();
        assert_eq!(read, adapter, "{format}: the values are exact in every format");
        read.write(&second, Existing::Refuse).unwrap();
        for name in ["adapter_config.json", "adapter_model.safetensors"] {
            assert_eq!(fs::read(first.join(name)).unwrap(), fs::read(second.join(name)).unwrap());
        }
        // Room for half of it: the folder is as it was, byte for byte.
        let before = fs::read(first.join("adapter_model.safetensors")).unwrap();
        adapter.write_on(&Disk::with_room(1500), &first, Existing::Overwrite).unwrap_err();
        assert_eq!(fs::read(first.join("adapter_model.safetensors")).unwrap(), before);
        assert!(matches!(adapter.write(&first, Existing::Refuse), Err(StoreError::Exists { .. })));
    }
    let mut wide = Damaged::new();
    let (_, shape, bytes) = wide.take(&format!("{Q}.lora_A.weight"));
    let doubles =
        bytes.as_chunks::<4>().0.iter().flat_map(|b| f64::from(f32::from_le_bytes(*b)).to_le_bytes());
    wide.put(&format!("{PREFIX}{Q}.lora_A.weight"), (Dtype::Real(Format::F64), shape, doubles.collect()));
    let read = wide.read().unwrap();
    assert_eq!((read.format, &read.factor(Q).unwrap().right), (Format::F32, &formula(8)));
}

#[test]
fn what_peft_would_pass_over_is_an_error() {
    let q = |part: &str| format!("{Q}.{part}");
    let module = || Q.to_owned();
    let name = |end: &str| format!("{PREFIX}{Q}.{end}");
    let error = after(|f| drop(f.take(&q("lora_B.weight"))));
    assert_eq!(
        error,
        E::MissingPartner { module: module(), present: "lora_A.weight", missing: "lora_B.weight" }
    );
    let error = after(|f| drop(f.take("embed.lora_embedding_A")));
    let (present, missing) = ("lora_embedding_B", "lora_embedding_A");
    assert_eq!(error, E::MissingPartner { module: "embed".into(), present, missing });
    let error = after(|f| {
        f.take(&q("lora_A.weight"));
        f.take(&q("lora_B.weight"));
    });
    assert_eq!(error, E::TargetWithoutFactors { target: "q_proj".into() });
    assert_eq!(after(|f| f.tensors.clear()), E::Empty);
    let extra = |end: &str| after(|f| f.put(&name(end), f32s(&[6])));
    assert_eq!(extra("weight"), E::ExtraTensor { name: name("weight") });
    assert_eq!(extra("lora_magnitude_vector"), E::ExtraTensor { name: name("lora_magnitude_vector") });
    assert_eq!(extra("lora_B.bias"), E::ExtraTensor { name: name("lora_B.bias") });
    for wrong in [name("lora_A.default.weight"), name("lora_a.weight"), q("lora_A.weight")] {
        let error = after(|f| f.put(&wrong, f32s(&[2, 4])));
        assert!(matches!(&error, E::Misnamed { name, .. } if *name == wrong), "{error}");
    }
    let error = after(|f| {
        f.put("base_model.model.k_proj.lora_A.weight", f32s(&[2, 4]));
        f.put("base_model.model.k_proj.lora_B.weight", f32s(&[6, 2]));
    });
    assert_eq!(error, E::NotATarget { module: "k_proj".into() });
    let reshape = |end: &'static str, shape: &'static [usize]| after(move |f| f.put(&name(end), f32s(shape)));
    let wanted = "[out, r], a matrix,".to_owned();
    let error = E::Misshaped { name: name("lora_B.weight"), shape: vec![12], wanted };
    assert_eq!(reshape("lora_B.weight", &[12]), error);
    let error = E::RanksDisagree { module: module(), left: 6, right: 2 };
    assert_eq!(reshape("lora_B.weight", &[2, 6]), error, "transposed");
    let error = after(|f| f.config["r"] = json!(4));
    assert_eq!(error, E::RankDiffers { module: "embed".into(), found: 2, expected: 4 });
    let error = after(|f| f.config["rank_pattern"] = json!({}));
    assert_eq!(error, E::RankDiffers { module: DOWN.into(), found: 3, expected: 2 });
    let error = after(|f| {
        let (_, shape, bytes) = f.take(&q("lora_A.weight"));
        f.put(&name("lora_A.weight"), (Dtype::I32, shape, bytes));
    });
    assert_eq!(error, E::Dtype { name: name("lora_A.weight"), dtype: "I32" });
    let error = after(|f| {
        let (dtype, shape, mut bytes) = f.take(&q("lora_A.weight"));
        bytes[12..16].copy_from_slice(&f32::NEG_INFINITY.to_le_bytes());
        f.put(&name("lora_A.weight"), (dtype, shape, bytes));
    });
    assert_eq!(error, E::NotFinite { name: name("lora_A.weight"), index: 3, value: f32::NEG_INFINITY });
    let error = after(|f| f.config["use_dora"] = json!(true));
    let (what, key) = ("lora_magnitude_vector", "use_dora");
    assert_eq!(error, E::MissingPart { module: "embed".into(), what, key });
    assert_eq!(after(|f| f.config["bias"] = json!("all")), E::Unsupported { key: "bias" });
    let mut frozen = Damaged::new();
    frozen.put("base_model.model.embed.base_layer.weight", f32s(&[7, 4]));
    assert_eq!(frozen.read().unwrap().passed_over, ["base_model.model.embed.base_layer.weight"]);
    let stray = "base_model.model.wpe.base_layer.weight";
    let error = after(|f| f.put(stray, f32s(&[7, 4])));
    assert_eq!(error, E::ExtraTensor { name: stray.into() }, "a frozen weight of a module without factors");
    let error = after(|f| f.config["modules_to_save"] = json!(["lm_head"]));
    assert_eq!(error, E::SavedWithoutTensor { module: "lm_head".into() });
    let pickle = Damaged::new();
    pickle.save();
    let tensors = pickle.path.join("adapter_model.safetensors");
    fs::rename(&tensors, pickle.path.join("adapter_model.bin")).unwrap();
    assert_eq!(cause(AdapterFolder::read(&pickle.path)), E::Pickle);
}

#[test]
fn what_cannot_be_applied_can_be_looked_at() {
    assert_eq!(AdapterFolder::look(&fixture()).unwrap().objections, []);
    let mut raw = Damaged::new();
    raw.config["init_lora_weights"] = json!("pissa");
    raw.config["bias"] = json!("all");
    raw.put(&format!("{PREFIX}{Q}.extra"), f32s(&[2]));
    raw.take(&format!("{DOWN}.lora_A.weight"));
    raw.save();
    let seen = AdapterFolder::look(&raw.path).unwrap();
    let modules: Vec<&str> = seen.folder.factors.iter().map(|factor| factor.module.as_str()).collect();
    assert_eq!(modules, ["embed", Q], "what is whole is shown");
    assert_eq!(
        seen.objections,
        [
            E::Unsupported { key: "bias" },
            E::ExtraTensor { name: format!("{PREFIX}{Q}.extra") },
            E::MissingPartner { module: DOWN.into(), present: "lora_B.weight", missing: "lora_A.weight" },
            E::TargetWithoutFactors { target: "down_proj".into() },
            E::RawOffset { init: "pissa".into() },
        ]
    );
    assert_eq!(cause(AdapterFolder::read(&raw.path)), seen.objections[0]);
}

#[test]
fn factors_of_a_changed_base_need_their_beginning() {
    let mut trained = Damaged::new();
    trained.config["init_lora_weights"] = json!("pissa");
    assert_eq!(cause(trained.read()), E::RawOffset { init: "pissa".into() });
    let initial = Damaged::new();
    initial.save();
    let plain = AdapterFolder::read_with_initial(&trained.path, &initial.path).unwrap();
    assert_eq!((&plain.config.init, plain.config.rank), (&Init::Plain(true), 4));
    let q = plain.factor(Q).unwrap();
    assert_eq!((q.rank, q.left[0], q.left[2]), (4, 0.125, -0.125), "trained as it began: the change is zero");
    let error = cause(AdapterFolder::read_with_initial(&initial.path, &initial.path));
    assert_eq!(error, E::NeedlessInitial { init: "true".into() });
    let mut louder = Damaged::new();
    louder.config["lora_alpha"] = json!(10);
    louder.save();
    let error = cause(AdapterFolder::read_with_initial(&trained.path, &louder.path));
    assert!(matches!(error, E::InitialScale { .. }), "{error}");
    trained.config["init_lora_weights"] = json!("loftq");
    assert_eq!(cause(trained.read()), E::RawLoftq);
    assert_eq!(cause(AdapterFolder::read_with_initial(&trained.path, &initial.path)), E::RawLoftq);
}

#[test]
fn writing_refuses_what_reading_would() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out");
    let adapter = AdapterFolder::read(&fixture()).unwrap();
    let refused = |change: &dyn Fn(&mut AdapterFolder)| {
        let mut adapter = adapter.clone();
        change(&mut adapter);
        let error = cause(adapter.write(&path, Existing::Refuse).map(|()| adapter));
        assert!(!path.exists());
        error
    };
    let same = |f: &mut AdapterFolder| f.factors.push(f.factors[0].clone());
    assert_eq!(refused(&same), E::DuplicateModule { module: "embed".into() });
    assert!(matches!(refused(&|f| f.factors[1].left.truncate(3)), E::Misshaped { .. }));
    assert!(matches!(refused(&|f| f.factors[1].left[0] = f32::NAN), E::NotFinite { index: 0, .. }));
    let reserved = |f: &mut AdapterFolder| drop(f.provenance.insert("format".into(), "x".into()));
    assert_eq!(refused(&reserved), E::ReservedProvenance);
    let large = |f: &mut AdapterFolder| {
        f.format = Format::F16;
        f.factors[1].left[0] = 1e6;
    };
    assert!(matches!(refused(&large), E::Narrow { .. }));
    // Given in this order, the first key wins; sorted, as PEFT writes, the second would.
    let order = |f: &mut AdapterFolder| {
        f.config.alpha_pattern = vec![("q_proj".into(), 1.0), (".*q_proj".into(), 2.0)]
    };
    assert_eq!(refused(&order), E::PatternOrder { module: Q.into() });
    let whole = Whole { name: "lm_head.weight".into(), shape: vec![1], values: vec![1.0] };
    assert_eq!(refused(&|f| f.whole.push(whole.clone())), E::BadWhole { name: "lm_head.weight".into() });
}
