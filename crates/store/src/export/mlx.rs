use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::json;

use super::{Reader, check_reader, fold, pad};
use crate::atomic::{Disk, Existing, write_folder_on};
use crate::peft::{AdapterConfig, AdapterFolder, CONFIG_NAME, Factor, PeftError, Targets};
use crate::safetensors::SafetensorsFile;
use crate::safetensors::{Entry, write_to};
use crate::{Dtype, Format, StoreError, TensorSource, json as json_file};

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
        out.file("adapters.safetensors", |sink| write_to(sink, &entries, &metadata))
    })
}

/// Reads the layout of mlx-lm: one rank and one scale for all; layers whose change is zero are kept.
///
/// # Errors
/// [`StoreError::Io`], [`StoreError::Json`], [`StoreError::Safetensors`] for the files themselves;
/// [`StoreError::Peft`] for a configuration or tensors that are not mlx-lm's.
pub fn read_mlx(path: &Path) -> Result<AdapterFolder, StoreError> {
    let wrong = |cause| StoreError::Peft { path: path.to_owned(), cause };
    let config = json_file::read(&path.join(CONFIG_NAME))?;
    let parameters = &config["lora_parameters"];
    let missing = |key: &'static str| wrong(PeftError::MissingKey { key });
    let rank = parameters["rank"].as_u64().ok_or_else(|| missing("lora_parameters.rank"))? as usize;
    let scale = parameters["scale"].as_f64().ok_or_else(|| missing("lora_parameters.scale"))?;
    let file = SafetensorsFile::open(&path.join("adapters.safetensors"))?;
    let mut factors = Vec::new();
    for name in file.names() {
        let Some(module) = name.strip_suffix(".lora_a") else { continue };
        let second = format!("{module}.lora_b");
        let (a, b) = (file.info(name)?.shape.clone(), file.info(&second)?.shape.clone());
        let (&[input, r], &[r2, output]) = (&a[..], &b[..]) else {
            return Err(wrong(PeftError::ExtraTensor { name: name.clone() }));
        };
        if r != rank || r2 != rank {
            return Err(wrong(PeftError::ExtraTensor { name: name.clone() }));
        }
        let left = transpose(&file.widened(&second)?, rank, output);
        let right = transpose(&file.widened(name)?, input, rank);
        factors.push(Factor::linear(module, (output, input, rank), left, right));
    }
    let targets = Targets::List(factors.iter().map(|factor| factor.module.clone()).collect());
    let mut adapter = AdapterFolder::new(AdapterConfig::new(rank, scale * rank as f64, targets), factors);
    adapter.provenance = file.metadata().clone();
    adapter.provenance.remove("format");
    Ok(adapter)
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
    use super::super::reshape::tests::{delta, mixed};
    use super::{key, read_mlx, write_mlx};
    use crate::atomic::{Disk, Existing};
    use crate::safetensors::SafetensorsFile;
    use crate::{StoreError, TensorSource, json};

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

    #[test]
    fn keys_are_relative_to_the_layer() {
        assert_eq!(key("model.layers.12.self_attn.q_proj"), "self_attn.q_proj");
        assert_eq!(key("model.layers.3.mlp.experts.7.w1"), "mlp.experts.7.w1");
        assert_eq!(key("lm_head"), "lm_head");
    }
}
