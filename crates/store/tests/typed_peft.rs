//! Adapter folders that are no LoRA: what is written comes back, and each damage has its own error.

#![allow(clippy::unwrap_used, clippy::panic, reason = "clippy sees only the #[test] functions here as tests")]

#[path = "typed_peft/folders.rs"]
mod folders;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use lowrank_store::atomic::{Disk, Existing};
use lowrank_store::peft::{
    AdapterFolder, Blocks, Kind, PeftError as E, Settings, Targets, TypedFolder, TypedModule, TypedTensor,
    kind_of,
};
use lowrank_store::safetensors::{Entry, SafetensorsFile, write};
use lowrank_store::{Dtype, Format, StoreError, TensorSource, json};
use serde_json::{Value, json};

const PREFIX: &str = "base_model.model.";
const Q: &str = "model.layers.0.self_attn.q_proj";
const DOWN: &str = "model.layers.0.mlp.down_proj";
const FILES: [&str; 2] = ["adapter_config.json", "adapter_model.safetensors"];

fn named(name: &str) -> TypedFolder {
    folders::typed().into_iter().find(|(known, _)| *known == name).unwrap().1
}

/// A written folder that can be damaged and read.
struct Damaged {
    _keep: tempfile::TempDir,
    path: PathBuf,
    config: Value,
    tensors: BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>,
}

impl Damaged {
    fn of(name: &str) -> Damaged {
        let keep = tempfile::tempdir().unwrap();
        let path = keep.path().join("adapter");
        named(name).write(&path, Existing::Refuse).unwrap();
        let config = json::read(&path.join(FILES[0])).unwrap();
        let file = SafetensorsFile::open(&path.join(FILES[1])).unwrap();
        let entry = |name: &String| {
            let info = file.info(name).unwrap();
            (name.clone(), (info.dtype, info.shape.clone(), file.bytes(name).unwrap().to_vec()))
        };
        let tensors = file.names().iter().map(entry).collect();
        Damaged { _keep: keep, path, config, tensors }
    }

    fn put(&mut self, name: &str, shape: &[usize]) {
        let bytes = (0..shape.iter().product()).flat_map(|i: usize| (i as f32).to_le_bytes()).collect();
        self.tensors.insert(name.to_owned(), (Dtype::Real(Format::F32), shape.to_vec(), bytes));
    }

    fn take(&mut self, name: &str) {
        self.tensors.remove(name).unwrap_or_else(|| panic!("no {name}"));
    }

    fn read(&self) -> Result<TypedFolder, StoreError> {
        fs::write(self.path.join(FILES[0]), self.config.to_string()).unwrap();
        let entries: Vec<Entry<'_>> = self
            .tensors
            .iter()
            .map(|(name, (dtype, shape, bytes))| Entry { name, dtype: *dtype, shape, bytes })
            .collect();
        write(&Disk::real(), &self.path.join(FILES[1]), &entries, &BTreeMap::new()).unwrap();
        TypedFolder::read(&self.path)
    }
}

fn cause<T>(result: Result<T, StoreError>) -> E {
    match result {
        Err(StoreError::Peft { cause, .. }) => {
            assert!(!cause.to_string().is_empty());
            cause
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("nothing was found wrong"),
    }
}

/// Applies one damage to an adapter of this name and gives the error it leads to.
fn after(name: &str, damage: impl FnOnce(&mut Damaged)) -> E {
    let mut folder = Damaged::of(name);
    damage(&mut folder);
    cause(folder.read())
}

/// The error of another shape for one tensor of `q_proj`.
fn reshaped(name: &str, end: &str, shape: &[usize]) -> String {
    let full = format!("{PREFIX}{Q}{end}");
    let error = after(name, |folder| folder.put(&full, shape));
    assert!(
        matches!(&error, E::Misshaped { name, shape: found, .. } if *name == full && found == shape),
        "{name}, {end}, {shape:?}: {error}"
    );
    error.to_string()
}

fn same_files(a: &Path, b: &Path) {
    for file in FILES {
        assert_eq!(fs::read(a.join(file)).unwrap(), fs::read(b.join(file)).unwrap(), "{file}");
    }
}

#[test]
fn saved_loaded_and_saved_again_are_the_same_bytes() {
    let keep = tempfile::tempdir().unwrap();
    let mut kinds = Vec::new();
    for (name, mut folder) in folders::typed() {
        for format in [Format::F32, Format::BF16, Format::F16] {
            let path = |end: &str| keep.path().join(format!("{name}-{format}{end}"));
            folder.format = format;
            folder.write(&path(""), Existing::Refuse).unwrap();
            let read = TypedFolder::read(&path("")).unwrap_or_else(|error| panic!("{name}: {error}"));
            if format == Format::F32 {
                assert_eq!(read, folder, "{name}");
            }
            assert_eq!(kind_of(&path("")).unwrap(), folder.kind());
            read.write(&path(" again"), Existing::Refuse).unwrap();
            same_files(&path(""), &path(" again"));
            // Room for half of it: the folder is as it was.
            folder.write_on(&Disk::with_room(900), &path(""), Existing::Overwrite).unwrap_err();
            same_files(&path(""), &path(" again"));
        }
        let lora = AdapterFolder::read(&keep.path().join(format!("{name}-F32")));
        assert!(matches!(cause(lora), E::NotLora { .. }), "{name} is no LoRA");
        kinds.push(folder.kind());
    }
    assert!(Kind::ALL.iter().all(|kind| *kind == Kind::Lora || kinds.contains(kind)), "{kinds:?}");
    let dora = keep.path().join("dora");
    folders::dora().write(&dora, Existing::Refuse).unwrap();
    assert_eq!(kind_of(&dora).unwrap(), Kind::Lora);
    assert_eq!(AdapterFolder::read(&dora).unwrap(), folders::dora());
    assert_eq!(cause(TypedFolder::read(&dora)), E::IsLora);
}

#[test]
fn every_missing_tensor_is_told() {
    for (name, folder) in folders::typed() {
        let tensors = &folder.module(Q).unwrap().tensors;
        for tensor in tensors {
            let (_, end) = folder.kind().parts().iter().find(|(part, _)| *part == tensor.part).unwrap();
            let full = format!("{PREFIX}{Q}{end}");
            if tensors.len() == 1 {
                // The module is gone with it, which a name that stands for several layers cannot show; its full name does.
                let error = after(name, |folder| {
                    folder.take(&full);
                    let sites = folders::sites();
                    folder.config["target_modules"] =
                        json!(sites.iter().map(|site| &site.0).collect::<Vec<_>>());
                });
                assert_eq!(error, E::TargetWithoutFactors { target: Q.into() }, "{name}");
            } else {
                let error = after(name, |folder| folder.take(&full));
                assert_eq!(error, E::MissingTensor { name: full }, "{name}");
            }
        }
    }
}

#[test]
fn names_that_peft_would_pass_over_are_errors() {
    for (name, folder) in folders::typed() {
        let (_, end) = folder.kind().parts()[0];
        let misnamed = |wrong: &str| {
            let error = after(name, |folder| folder.put(wrong, &[2, 2]));
            assert!(matches!(&error, E::Misnamed { name, .. } if name == wrong), "{name}, {wrong}: {error}");
        };
        misnamed(&format!("{Q}{end}"));
        let stem = end.strip_suffix(".weight").unwrap_or(end);
        misnamed(&format!("{PREFIX}{Q}{stem}.default"));
        for extra in [format!("{PREFIX}{Q}.weight"), "base_model.something".to_owned()] {
            let error = after(name, |folder| folder.put(&extra, &[2, 2]));
            assert_eq!(error, E::ExtraTensor { name: extra.clone() }, "{name}");
        }
        let elsewhere = format!("{PREFIX}model.layers.0.mlp.up_proj{end}");
        let error = after(name, |folder| folder.put(&elsewhere, &[2, 2]));
        assert_eq!(error, E::NotATarget { module: "model.layers.0.mlp.up_proj".into() }, "{name}");
        assert_eq!(after(name, |folder| folder.tensors.clear()), E::Empty);
        let without = |folder: &mut Damaged| folder.tensors.retain(|name, _| !name.contains("k_proj"));
        assert_eq!(after(name, without), E::TargetWithoutFactors { target: "k_proj".into() });
    }
}

#[test]
fn numbers_that_are_none_are_told() {
    for (name, folder) in folders::typed() {
        let (_, end) = folder
            .kind()
            .parts()
            .iter()
            .find(|(part, _)| folder.module(Q).unwrap().tensor(part).is_some())
            .unwrap();
        let full = format!("{PREFIX}{Q}{end}");
        let error = after(name, |folder| {
            folder.tensors.get_mut(&full).unwrap().2[4..8].copy_from_slice(&f32::INFINITY.to_le_bytes());
        });
        assert_eq!(error, E::NotFinite { name: full.clone(), index: 1, value: f32::INFINITY }, "{name}");
        let error = after(name, |folder| folder.tensors.get_mut(&full).unwrap().0 = Dtype::I32);
        assert_eq!(error, E::Dtype { name: full, dtype: "I32" }, "{name}");
    }
    let pickle = Damaged::of("ia3");
    fs::rename(pickle.path.join(FILES[1]), pickle.path.join("adapter_model.bin")).unwrap();
    assert_eq!(cause(TypedFolder::read(&pickle.path)), E::Pickle);
}

#[test]
fn each_kind_has_its_shapes() {
    // Feedforward modules have factors on the input, others on the output.
    assert!(reshaped("ia3", ".ia3_l", &[1, 64]).contains("[out, 1]"));
    let down = format!("{PREFIX}{DOWN}.ia3_l");
    let error = after("ia3", |folder| folder.put(&down, &[64, 1]));
    assert!(error.to_string().contains("[1, in]"), "{error}");
    assert!(reshaped("loha", ".hada_w1_a", &[3, 64]).contains("[out, 3]"));
    assert!(reshaped("loha", ".hada_w2_a", &[60, 3]).contains("[64, 3]"));
    assert!(reshaped("loha", ".hada_w2_b", &[3, 60]).contains("[3, 64]"));
    reshaped("loha", ".hada_w1_b", &[3, 64, 1]);
    assert!(reshaped("lokr", ".lokr_w1", &[16, 8]).contains("decompose_factor"));
    reshaped("oft", ".oft_R.weight", &[8, 29]);
    assert!(reshaped("oft", ".oft_R.weight", &[8, 15]).contains("size 8"));
    assert!(reshaped("oft-shared", ".oft_R.weight", &[2, 120]).contains("[1, "));
    reshaped("boft", ".boft_R", &[2, 16, 4, 4]);
    reshaped("boft", ".boft_R", &[1, 16, 4, 8]);
    assert!(reshaped("boft", ".boft_s", &[64]).contains("[out, 1]"));
    reshaped("vera", ".vera_lambda_b", &[64, 1]);
    assert!(reshaped("vera", ".vera_lambda_d", &[64]).contains("[5]"));
    assert!(reshaped("adalora", ".lora_E", &[6, 1]).contains("[4, 1]"), "two directions are gone");
    assert!(reshaped("adalora", ".lora_A", &[64, 4]).contains("[4, in]"));
    for (part, shape, wanted) in [("vera_A", [112, 5], "[5, widest in]"), ("vera_B", [32, 5], "[64, 5]")] {
        let error = after("vera", |folder| folder.put(&format!("base_model.{part}"), &shape));
        assert!(error.to_string().contains(wanted), "{error}");
        let missing = after("vera", |folder| folder.take(&format!("base_model.{part}")));
        assert_eq!(missing, E::MissingTensor { name: format!("base_model.{part}") });
    }
}

#[test]
fn a_kronecker_factor_is_whole_or_a_product() {
    let name = |end: &str| format!("{PREFIX}{Q}.lokr_{end}");
    let error = after("lokr", |folder| folder.put(&name("w1_a"), &[8, 4]));
    assert_eq!(error, E::ExtraTensor { name: name("w1_a") });
    // At this rank PEFT keeps w2 whole, and would pass over its factors.
    let error = after("lokr", |folder| {
        folder.take(&name("w2"));
        folder.put(&name("w2_a"), &[8, 4]);
        folder.put(&name("w2_b"), &[4, 8]);
    });
    assert_eq!(error, E::ExtraTensor { name: name("w2_a") });
    let error = after("lokr-both", |folder| {
        folder.take(&name("w1_a"));
        folder.take(&name("w1_b"));
        folder.put(&name("w1"), &[8, 8]);
    });
    assert_eq!(error, E::ExtraTensor { name: name("w1") });
}

#[test]
fn every_key_is_known_and_of_its_kind() {
    let with = |name: &str, key: &str, value: Value| after(name, |folder| folder.config[key] = value);
    for (name, folder) in folders::typed() {
        let unknown = E::UnknownKey { kind: folder.kind().name(), key: "lora_alhpa".into() };
        assert_eq!(with(name, "lora_alhpa", json!(1)), unknown);
        let saved = with(name, "modules_to_save", json!(["lm_head"]));
        assert_eq!(saved, E::Unsupported { key: "modules_to_save" });
        let missing = |key: &'static str| {
            let error = after(name, |folder| {
                folder.config.as_object_mut().unwrap().remove(key).unwrap_or_else(|| panic!("{name}: {key}"));
            });
            assert_eq!(error, E::MissingKey { key }, "{name}");
        };
        missing("target_modules");
        missing("peft_type");
        match folder.kind() {
            Kind::Ia3 => missing("feedforward_modules"),
            Kind::Loha | Kind::Lokr => ["r", "alpha"].into_iter().for_each(missing),
            Kind::Oft => missing("oft_block_size"),
            Kind::Boft => ["boft_block_size", "boft_block_num"].into_iter().for_each(missing),
            Kind::Vera => missing("r"),
            Kind::Adalora => ["init_r", "lora_alpha", "total_step"].into_iter().for_each(missing),
            Kind::Lora => {}
        }
    }
    assert_eq!(with("ia3", "peft_type", json!("VBLORA")), E::UnknownKind { found: "VBLORA".into() });
    assert_eq!(with("ia3", "peft_type", json!("LORA")), E::IsLora);
    for (name, key) in
        [("vera", "exclude_modules"), ("ia3", "layers_to_transform"), ("loha", "fan_in_fan_out")]
    {
        assert!(matches!(with(name, key, json!(["a"])), E::UnknownKey { .. }), "{name} has no {key}");
    }
    assert_eq!(with("vera", "save_projection", json!(false)), E::NoProjection);
    let both = E::EitherOr { first: "oft_block_size", second: "r" };
    assert_eq!(with("oft", "r", json!(4)), both);
    assert_eq!(with("oft", "oft_block_size", json!(0)), both);
    let both = E::EitherOr { first: "boft_block_size", second: "boft_block_num" };
    assert_eq!(with("boft", "boft_block_num", json!(4)), both);
    for name in ["oft", "boft", "vera", "adalora"] {
        assert_eq!(with(name, "bias", json!("all")), E::Unsupported { key: "bias" });
    }
    for key in ["use_dora", "lora_bias", "layer_replication", "target_parameters"] {
        assert_eq!(with("adalora", key, json!([1])), E::Unsupported { key });
    }
    assert!(matches!(with("adalora", "total_step", json!(7)), E::WrongType { key: "total_step", .. }));
    assert!(matches!(with("adalora", "lora_alpha", json!(0)), E::WrongType { key: "lora_alpha", .. }));
    assert!(matches!(with("loha", "r", json!(0)), E::WrongType { key: "r", .. }));
    let choice = json!({format!("{Q}.lora_E"): [true, false]});
    let bad = E::BadChoice { module: Q.into(), found: 2, expected: 6 };
    assert_eq!(with("adalora", "rank_pattern", choice), bad);
    let choice = json!({"model.layers.9.q_proj.lora_E": [true, true, true, true, true, true]});
    let error = after("adalora", |folder| {
        folder.config["rank_pattern"]["model.layers.9.q_proj.lora_E"] =
            choice["model.layers.9.q_proj.lora_E"].clone();
    });
    assert_eq!(error, E::ChoiceWithoutModule { module: "model.layers.9.q_proj".into() });
    assert!(matches!(with("adalora", "rank_pattern", json!({"q_proj": 3})), E::WrongType { .. }));
}

#[test]
fn a_module_of_which_no_direction_is_left_is_stored() {
    let mut folder = named("adalora");
    let Settings::Adalora { kept, .. } = &mut folder.config.settings else { panic!() };
    kept.push((DOWN.to_owned(), vec![false; 6]));
    let module = folder.modules.iter_mut().find(|module| module.module == DOWN).unwrap();
    module.tensors = vec![
        TypedTensor::new("right", &[0, 112], vec![]),
        TypedTensor::new("left", &[64, 0], vec![]),
        TypedTensor::new("values", &[0, 1], vec![]),
    ];
    let keep = tempfile::tempdir().unwrap();
    let path = keep.path().join("pruned");
    folder.write(&path, Existing::Refuse).unwrap();
    let read = TypedFolder::read(&path).unwrap();
    assert_eq!(read.module(DOWN).unwrap().tensor("left").unwrap().shape, [64, 0]);
}

#[test]
fn writing_refuses_what_reading_would() {
    let keep = tempfile::tempdir().unwrap();
    let path = keep.path().join("out");
    let refused = |name: &str, change: &dyn Fn(&mut TypedFolder)| {
        let mut folder = named(name);
        change(&mut folder);
        let error = cause(folder.write(&path, Existing::Refuse));
        assert!(!path.exists());
        error
    };
    let twice = |folder: &mut TypedFolder| folder.modules.push(folder.modules[0].clone());
    assert_eq!(refused("ia3", &twice), E::DuplicateModule { module: DOWN.into() });
    let nan = |folder: &mut TypedFolder| folder.modules[0].tensors[0].values[3] = f32::NAN;
    assert!(matches!(refused("vera", &nan), E::NotFinite { index: 3, .. }));
    let short = |folder: &mut TypedFolder| folder.modules[0].tensors[0].values.truncate(3);
    assert!(matches!(refused("boft", &short), E::Misshaped { .. }));
    let part = |folder: &mut TypedFolder| folder.modules[0].tensors[0].part = "w3".into();
    assert_eq!(refused("loha", &part), E::UnknownPart { kind: "LOHA", part: "w3".into() });
    let again = |folder: &mut TypedFolder| {
        let TypedModule { tensors, .. } = &mut folder.modules[0];
        tensors.push(tensors[0].clone());
    };
    assert!(matches!(refused("loha", &again), E::ExtraTensor { .. }));
    let shared = |folder: &mut TypedFolder| folder.shared.push(TypedTensor::new("vera_A", &[1], vec![1.0]));
    assert_eq!(refused("ia3", &shared), E::UnknownPart { kind: "IA3", part: "vera_A".into() });
    assert!(matches!(refused("vera", &shared), E::ExtraTensor { .. }));
    let exclude = |folder: &mut TypedFolder| folder.config.exclude = Some(Targets::Pattern("x".into()));
    assert!(matches!(refused("vera", &exclude), E::UnknownKey { .. }));
    let blocks = |folder: &mut TypedFolder| {
        folder.config.settings = Settings::Boft { blocks: Blocks::Size(0), factors: 1 };
    };
    assert!(matches!(refused("boft", &blocks), E::EitherOr { .. }));
    let reserved = |folder: &mut TypedFolder| drop(folder.provenance.insert("format".into(), "x".into()));
    assert_eq!(refused("oft", &reserved), E::ReservedProvenance);
    // Given in this order, the first key wins; sorted, as PEFT writes, the second would.
    let order = |folder: &mut TypedFolder| {
        let Settings::Loha { alpha_pattern, .. } = &mut folder.config.settings else { panic!() };
        *alpha_pattern = vec![("q_proj".into(), 1.0), (".*q_proj".into(), 2.0)];
    };
    assert_eq!(refused("loha", &order), E::PatternOrder { module: Q.into() });
}
