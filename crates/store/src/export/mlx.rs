use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Value, json};

use super::{Reader, check_reader, fold, matrix, pad};
use crate::atomic::{Disk, Existing, write_folder_on};
use crate::peft::{AdapterConfig, AdapterFolder, CONFIG_NAME, Factor, PeftError, RANK, Targets, rank, short};
use crate::safetensors::SafetensorsFile;
use crate::safetensors::{Entry, write_to};
use crate::{Dtype, Format, StoreError, TensorSource, json as json_file};

/// File name of the tensors.
pub const MLX_TENSORS_NAME: &str = "adapters.safetensors";

/// Writes the layout of mlx-lm (`tuner/utils.py::load_adapters`, `tuner/lora.py`): y = x·Wᵀ + scale · (x·a)·b, so
/// `lora_a` is our right factor transposed, `[in, r]`, and `lora_b` our left transposed, `[r, out]`.
///
/// mlx-lm has one rank and one scale for all, so the adapter is padded and folded, and the scale is 1. Layers are
/// chosen by `keys` in every layer; those without factors get zeros there, which change nothing.
///
/// # Errors
/// [`StoreError::Export`] when mlx-lm would misread it, [`StoreError::Peft`], [`StoreError::Exists`],
/// [`StoreError::Io`].
pub fn write_mlx(
    disk: &Disk,
    path: &Path,
    existing: Existing,
    adapter: &AdapterFolder,
) -> Result<(), StoreError> {
    check_reader(Reader::Mlx, &adapter.config, &adapter.factors)
        .map_err(|cause| StoreError::Export { cause })?;
    let plain = pad(adapter)
        .and_then(|padded| fold(&padded))
        .map_err(|cause| StoreError::Peft { path: path.to_owned(), cause })?;
    let keys: BTreeSet<String> = plain.factors.iter().map(|factor| key(&factor.module)).collect();
    let config = json!({
        "fine_tune_type": "lora",
        // Zero and below mean every layer.
        "num_layers": -1,
        "lora_parameters": {"rank": plain.config.rank, "scale": 1.0, "dropout": plain.config.dropout, "keys": keys},
    });
    let mut tensors: BTreeMap<String, ([usize; 2], Vec<u8>)> = BTreeMap::new();
    for factor in &plain.factors {
        let Factor { module, output, input, rank, left, right, .. } = factor;
        tensors.insert(format!("{module}.lora_a"), ([*input, *rank], transposed(right, *rank, *input)));
        tensors.insert(format!("{module}.lora_b"), ([*rank, *output], transposed(left, *output, *rank)));
    }
    let entries: Vec<Entry<'_>> = tensors
        .iter()
        .map(|(name, (shape, bytes))| Entry { name, dtype: Dtype::Real(Format::F32), shape, bytes })
        .collect();
    let mut metadata = adapter.provenance.clone();
    metadata.insert("format".into(), "mlx".into());
    write_folder_on(disk, path, existing, |out| {
        out.file(CONFIG_NAME, |sink| sink.write_all(json_file::sorted_text(&config).as_bytes()))?;
        out.file(MLX_TENSORS_NAME, |sink| write_to(sink, &entries, &metadata))
    })
}

/// Reads the layout of mlx-lm, as strictly as PEFT's: every tensor is half of a pair of the one rank, and every module
/// has a key. One rank and one scale for all; layers whose change is zero are kept.
///
/// # Errors
/// [`StoreError::Io`], [`StoreError::Json`], [`StoreError::Safetensors`] for the files themselves;
/// [`StoreError::Peft`] for a configuration or tensors that are not mlx-lm's, or say different things.
pub fn read_mlx(path: &Path) -> Result<AdapterFolder, StoreError> {
    let wrong = |cause| StoreError::Peft { path: path.to_owned(), cause };
    let Parameters { rank, scale, keys } =
        parameters(&json_file::read(&path.join(CONFIG_NAME))?).map_err(wrong)?;
    let file = SafetensorsFile::open(&path.join(MLX_TENSORS_NAME))?;
    let mut factors = Vec::new();
    for name in file.names() {
        let info = file.info(name)?;
        let Dtype::Real(_) = info.dtype else {
            return Err(wrong(PeftError::Dtype { name: name.clone(), dtype: info.dtype.name() }));
        };
        let (module, present, missing) = match (name.strip_suffix(".lora_a"), name.strip_suffix(".lora_b")) {
            (Some(module), _) => (module, "lora_a", "lora_b"),
            (_, Some(module)) => (module, "lora_b", "lora_a"),
            _ => return Err(wrong(PeftError::ExtraTensor { name: name.clone() })),
        };
        let second = format!("{module}.{missing}");
        if !file.contains(&second) {
            return Err(wrong(PeftError::MissingPartner { module: module.to_owned(), present, missing }));
        }
        // Both names of a pair come by; the first of them stands for it.
        if present == "lora_b" {
            continue;
        }
        if keys.as_ref().is_some_and(|keys| !keys.contains(&key(module))) {
            return Err(wrong(PeftError::NotATarget { module: module.to_owned() }));
        }
        let [input, _] = matrix(name, &info.shape, [None, Some(rank)]).map_err(wrong)?;
        let [_, output] = matrix(&second, &file.info(&second)?.shape, [Some(rank), None]).map_err(wrong)?;
        let left = transpose(&file.widened(&second)?, rank, output);
        let right = transpose(&file.widened(name)?, input, rank);
        factors.push(Factor::linear(module, (output, input, rank), left, right));
    }
    if let Some(target) =
        keys.iter().flatten().find(|target| !factors.iter().any(|factor| key(&factor.module) == **target))
    {
        return Err(wrong(PeftError::TargetWithoutFactors { target: target.clone() }));
    }
    let targets = Targets::List(factors.iter().map(|factor| factor.module.clone()).collect());
    let mut adapter = AdapterFolder::new(AdapterConfig::new(rank, scale * rank as f64, targets), factors);
    adapter.provenance = file.metadata().clone();
    adapter.provenance.remove("format");
    adapter.check().map_err(wrong)?;
    Ok(adapter)
}

/// What mlx-lm's configuration says of the factors.
struct Parameters {
    rank: usize,
    scale: f64,
    /// The layers by their paths inside a block; `None` when mlx-lm is to choose them.
    keys: Option<Vec<String>>,
}

fn parameters(config: &Value) -> Result<Parameters, PeftError> {
    let wrong = |key, found: &Value, wanted| PeftError::WrongType { key, found: short(found), wanted };
    let (kind, parameters) = (&config["fine_tune_type"], &config["lora_parameters"]);
    // Older ones did not say it.
    if !kind.is_null() && kind != "lora" {
        return Err(wrong("fine_tune_type", kind, "\"lora\""));
    }
    let found = &parameters["rank"];
    let rank = rank(found).ok_or_else(|| wrong("lora_parameters.rank", found, RANK))?;
    let found = &parameters["scale"];
    let scale = found.as_f64().ok_or_else(|| wrong("lora_parameters.scale", found, "a number"))?;
    let found = &parameters["keys"];
    let text = |key: &Value| key.as_str().map(str::to_owned);
    let texts = || found.as_array()?.iter().map(text).collect::<Option<Vec<String>>>();
    let keys = match found {
        Value::Null => None,
        _ => Some(texts().ok_or_else(|| wrong("lora_parameters.keys", found, "a list of texts"))?),
    };
    Ok(Parameters { rank, scale, keys })
}

/// The transpose of a row-major matrix.
fn transpose(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    (0..columns).flat_map(|column| (0..rows).map(move |row| values[row * columns + column])).collect()
}

/// Inside a layer, the path from the layer on; elsewhere the whole path.
fn key(module: &str) -> String {
    let parts: Vec<&str> = module.split('.').collect();
    let number = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    match parts.iter().position(number) {
        Some(at) if at + 1 < parts.len() => parts[at + 1..].join("."),
        _ => module.to_owned(),
    }
}

/// The bytes of the transpose of a row-major matrix.
fn transposed(values: &[f32], rows: usize, columns: usize) -> Vec<u8> {
    transpose(values, rows, columns).into_iter().flat_map(f32::to_le_bytes).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::Value;

    use super::super::reshape::tests::{delta, mixed};
    use super::{MLX_TENSORS_NAME, RANK, key, read_mlx, write_mlx};
    use crate::atomic::{Disk, Existing};
    use crate::peft::PeftError as E;
    use crate::safetensors::{Entry, SafetensorsFile};
    use crate::{Dtype, StoreError, TensorSource, json};

    #[test]
    fn mlx_gets_the_same_change() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mlx");
        let adapter = mixed(true);
        write_mlx(&Disk::real(), &path, Existing::Refuse, &adapter).unwrap();
        let config = json::read(&path.join("adapter_config.json")).unwrap();
        assert_eq!(
            config["lora_parameters"]["keys"],
            serde_json::json!(["mlp.down_proj", "self_attn.q_proj"])
        );
        assert_eq!(config["lora_parameters"]["rank"], 3);
        let file = SafetensorsFile::open(&path.join("adapters.safetensors")).unwrap();
        for factor in &adapter.factors {
            let (a, b) = (format!("{}.lora_a", factor.module), format!("{}.lora_b", factor.module));
            assert_eq!(file.info(&a).unwrap().shape, [factor.input, 3]);
            let (a, b) = (file.widened(&a).unwrap(), file.widened(&b).unwrap());
            let wanted = delta(&adapter, &factor.module);
            for row in 0..factor.output {
                for column in 0..factor.input {
                    let found: f64 = (0..3)
                        .map(|k| f64::from(a[column * 3 + k]) * f64::from(b[k * factor.output + row]))
                        .sum();
                    let wanted = wanted[row * factor.input + column];
                    assert!((found - wanted).abs() < 1e-5 * (1.0 + wanted.abs()), "{wanted} became {found}");
                }
            }
        }
        let back = read_mlx(&path).unwrap();
        for factor in &adapter.factors {
            let (found, wanted) = (delta(&back, &factor.module), delta(&adapter, &factor.module));
            assert!(found.iter().zip(&wanted).all(|(f, w)| (f - w).abs() < 1e-5 * (1.0 + w.abs())));
        }
        let mut dora = adapter;
        dora.config.dora = true;
        let error = write_mlx(&Disk::real(), &path, Existing::Overwrite, &dora).unwrap_err();
        assert!(matches!(error, StoreError::Export { .. }), "{error}");
    }

    /// One damage to what was written, and the error that it leads to.
    fn after(damage: impl FnOnce(&mut Value, &mut BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>)) -> E {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mlx");
        write_mlx(&Disk::real(), &path, Existing::Refuse, &mixed(false)).unwrap();
        let (config_path, tensors_path) = (path.join("adapter_config.json"), path.join(MLX_TENSORS_NAME));
        let mut config = json::read(&config_path).unwrap();
        let file = SafetensorsFile::open(&tensors_path).unwrap();
        let mut tensors = BTreeMap::new();
        for name in file.names() {
            let info = file.info(name).unwrap();
            let tensor = (info.dtype, info.shape.clone(), file.bytes(name).unwrap().to_vec());
            tensors.insert(name.clone(), tensor);
        }
        damage(&mut config, &mut tensors);
        std::fs::write(&config_path, config.to_string()).unwrap();
        let entries: Vec<Entry<'_>> = tensors
            .iter()
            .map(|(name, (dtype, shape, bytes))| Entry { name, dtype: *dtype, shape, bytes })
            .collect();
        crate::safetensors::write(&Disk::real(), &tensors_path, &entries, &BTreeMap::new()).unwrap();
        match read_mlx(&path) {
            Err(StoreError::Peft { cause, .. }) => {
                assert!(!cause.to_string().is_empty());
                cause
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_damage_has_its_own_error() {
        const Q: &str = "model.layers.0.self_attn.q_proj";
        let (a, b) = (format!("{Q}.lora_a"), format!("{Q}.lora_b"));
        let config = |change: fn(&mut Value)| after(|config, _| change(config));
        let wrong = |key, found: &str, wanted| E::WrongType { key, found: found.into(), wanted };
        let dora = config(|c| c["fine_tune_type"] = "dora".into());
        assert_eq!(dora, wrong("fine_tune_type", "\"dora\"", "\"lora\""));
        for rank in [Value::Null, 0.into(), 2.5.into(), u64::MAX.into()] {
            let found = after(|c, _| c["lora_parameters"]["rank"] = rank.clone());
            assert_eq!(found, wrong("lora_parameters.rank", &rank.to_string(), RANK));
        }
        let scale = config(|c| c["lora_parameters"]["scale"] = "1".into());
        assert_eq!(scale, wrong("lora_parameters.scale", "\"1\"", "a number"));
        let keys = config(|c| c["lora_parameters"]["keys"] = "all".into());
        assert_eq!(keys, wrong("lora_parameters.keys", "\"all\"", "a list of texts"));
        let keys = config(|c| c["lora_parameters"]["keys"] = serde_json::json!(["mlp.down_proj"]));
        assert_eq!(keys, E::NotATarget { module: Q.into() });
        let keys =
            config(|c| c["lora_parameters"]["keys"].as_array_mut().unwrap().push("mlp.up_proj".into()));
        assert_eq!(keys, E::TargetWithoutFactors { target: "mlp.up_proj".into() });
        let (module, whole) = (|| Q.to_owned(), "model.norm.weight".to_owned());
        let partner = |present, missing| E::MissingPartner { module: module(), present, missing };
        assert_eq!(after(|_, t| drop(t.remove(&b))), partner("lora_a", "lora_b"));
        assert_eq!(after(|_, t| drop(t.remove(&a))), partner("lora_b", "lora_a"));
        let extra = after(|_, t| drop(t.insert(whole.clone(), (Dtype::U8, vec![0], vec![]))));
        assert_eq!(extra, E::Dtype { name: whole.clone(), dtype: "U8" });
        let extra = after(|_, t| drop(t.insert(whole.clone(), t[&a].clone())));
        assert_eq!(extra, E::ExtraTensor { name: whole });
        let reshaped =
            |name: &str, shape: [usize; 2]| after(|_, t| t.get_mut(name).unwrap().1 = shape.into());
        let shaped = |name: &str, shape: [usize; 2], wanted: &str| E::Misshaped {
            name: name.into(),
            shape: shape.into(),
            wanted: wanted.into(),
        };
        assert_eq!(reshaped(&a, [3, 4]), shaped(&a, [3, 4], "a matrix with 3 columns"));
        assert_eq!(reshaped(&b, [6, 3]), shaped(&b, [6, 3], "a matrix with 3 rows"));
        let none = after(|_, t| drop(t.insert(a.clone(), (t[&a].0, vec![0, 3], vec![]))));
        assert_eq!(none, shaped(&a, [0, 3], "a matrix with 3 columns"));
        let infinite = after(|_, t| t.get_mut(&b).unwrap().2[..4].copy_from_slice(&f32::NAN.to_le_bytes()));
        assert!(matches!(infinite, E::NotFinite { .. }), "{infinite}");
        let empty = after(|c, t| {
            c["lora_parameters"]["keys"] = Value::Null;
            t.clear();
        });
        assert_eq!(empty, E::Empty);
    }

    #[test]
    fn keys_are_relative_to_the_layer() {
        assert_eq!(key("model.layers.12.self_attn.q_proj"), "self_attn.q_proj");
        assert_eq!(key("model.layers.3.mlp.experts.7.w1"), "mlp.experts.7.w1");
        assert_eq!(key("lm_head"), "lm_head");
    }
}
