use std::path::Path;

use super::{Reader, Reason, Refusal, check_reader, fold, pad};
use crate::atomic::Disk;
use crate::gguf::{
    Entry, GgufFile, LlamaCppBase, Value, halves_to_pairs, hugging_face_name, llama_cpp_name,
    pairs_to_halves, write,
};
use crate::peft::{AdapterConfig, AdapterFolder, Factor, PeftError, Place, Targets};
use crate::{Dtype, Format, StoreError, TensorSource};

/// Architectures whose names are those above.
const ARCHITECTURES: [&str; 6] = ["llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3"];

/// Writes an adapter in the GGUF form that llama.cpp loads (`src/llama-adapter.cpp`): `X.lora_a` is our right factor,
/// `X.lora_b` our left, both F32, and `adapter.lora.alpha` is the rank, since the adapter is padded and folded.
///
/// For the `llama` architecture the rows of q_proj and k_proj are permuted in the base (`convert_hf_to_gguf.py`:
/// half-split to interleaved rotary pairs), and so are the rows of their left factors here.
///
/// # Errors
/// [`StoreError::Export`] with every reason why llama.cpp would misread it, [`StoreError::Io`].
pub fn write_llama_cpp(
    disk: &Disk,
    path: &Path,
    base: &LlamaCppBase,
    adapter: &AdapterFolder,
) -> Result<(), StoreError> {
    let plain = pad(adapter)
        .and_then(|padded| fold(&padded))
        .map_err(|cause| StoreError::Peft { path: path.to_owned(), cause })?;
    let refused = |cause| StoreError::Export { cause };
    check_reader(Reader::LlamaCpp, &plain.config, &plain.factors).map_err(refused)?;
    let tensors = tensors(base, &plain.factors)
        .map_err(|reasons| refused(Refusal { reader: Reader::LlamaCpp, reasons }))?;
    let text = |text: &str| Value::String(text.to_owned());
    let mut values = vec![
        ("general.type".to_owned(), text("adapter")),
        ("general.architecture".to_owned(), text(&base.architecture)),
        ("adapter.type".to_owned(), text("lora")),
        ("adapter.lora.alpha".to_owned(), Value::F32(plain.config.alpha as f32)),
    ];
    values.extend(adapter.provenance.iter().map(|(key, value)| (format!("lowrank.{key}"), text(value))));
    let entries: Vec<Entry<'_>> = tensors
        .iter()
        .map(|(name, shape, bytes)| Entry { name, dtype: Dtype::Real(Format::F32), shape, bytes })
        .collect();
    write(disk, path, &values, &entries)
}

/// Reads the GGUF form that llama.cpp loads, rows of query and key put back into Hugging Face's order.
///
/// # Errors
/// [`StoreError::Gguf`] or [`StoreError::Io`] for the file itself, [`StoreError::Peft`] for tensors that are not factors
/// of a module known here.
pub fn read_llama_cpp(path: &Path, base: &LlamaCppBase) -> Result<AdapterFolder, StoreError> {
    let wrong = |name: &str| StoreError::Peft {
        path: path.to_owned(),
        cause: PeftError::ExtraTensor { name: name.to_owned() },
    };
    let file = GgufFile::open(path)?;
    let alpha = f64::from(file.f32("adapter.lora.alpha")?);
    let mut factors = Vec::new();
    for name in file.names() {
        let Some(weight) = name.strip_suffix(".lora_a") else { continue };
        let module = hugging_face_name(weight).ok_or_else(|| wrong(name))?;
        let module = module.strip_suffix(".weight").ok_or_else(|| wrong(name))?;
        let second = format!("{weight}.lora_b");
        let (a, b) = (file.info(name)?.shape.clone(), file.info(&second)?.shape.clone());
        let (&[rank, input], &[output, other]) = (&a[..], &b[..]) else { return Err(wrong(name)) };
        let heads = base.reordered_heads(module);
        if other != rank || heads.is_some_and(|heads| heads == 0 || !output.is_multiple_of(2 * heads)) {
            return Err(wrong(name));
        }
        let mut left = file.widened(&second)?;
        if let Some(heads) = heads {
            left = pairs_to_halves(&left, rank, output / heads);
        }
        factors.push(Factor::linear(module, (output, input, rank), left, file.widened(name)?));
    }
    let rank = factors.first().map_or(1, |factor| factor.rank);
    let targets = Targets::List(factors.iter().map(|factor| factor.module.clone()).collect());
    Ok(AdapterFolder::new(AdapterConfig::new(rank, alpha, targets), factors))
}

type Tensor = (String, [usize; 2], Vec<u8>);

fn tensors(base: &LlamaCppBase, factors: &[Factor]) -> Result<Vec<Tensor>, Vec<Reason>> {
    let (mut tensors, mut reasons) = (Vec::new(), Vec::new());
    let mut no = |what: String, hint: &'static str| reasons.push(Reason { what, hint });
    const OTHER: &str = "write PEFT and use convert_lora_to_gguf.py";
    if !ARCHITECTURES.contains(&base.architecture.as_str()) {
        no(format!("architecture {:?} is not known here", base.architecture), OTHER);
    }
    for factor in factors {
        let name = llama_cpp_name(&format!("{}.weight", factor.module));
        let Some(name) = name.filter(|_| factor.place == Place::Linear) else {
            no(format!("module {:?} has no known name in GGUF", factor.module), OTHER);
            continue;
        };
        let left = match base.reordered_heads(&factor.module) {
            None => factor.left.clone(),
            Some(heads) if heads > 0 && factor.output.is_multiple_of(2 * heads) => {
                halves_to_pairs(&factor.left, factor.rank, factor.output / heads)
            }
            Some(heads) => {
                no(
                    format!("{} rows of {:?} are not {heads} heads", factor.output, factor.module),
                    "check the base's heads",
                );
                continue;
            }
        };
        let bytes = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
        tensors.push((format!("{name}.lora_a"), [factor.rank, factor.input], bytes(&factor.right)));
        tensors.push((format!("{name}.lora_b"), [factor.output, factor.rank], bytes(&left)));
    }
    if reasons.is_empty() { Ok(tensors) } else { Err(reasons) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::reshape::tests::{delta, factor, mixed};
    use super::{LlamaCppBase, read_llama_cpp, write_llama_cpp};
    use crate::atomic::Disk;
    use crate::gguf::GgufFile;
    use crate::peft::AdapterFolder;
    use crate::{StoreError, TensorSource};

    fn base(architecture: &str) -> LlamaCppBase {
        LlamaCppBase { architecture: architecture.into(), heads: 1, kv_heads: 1 }
    }

    /// scale · b · a, by llama.cpp's rule: alpha / (sides of b), row-major `[out, in]`.
    fn change(file: &GgufFile, name: &str) -> Vec<f64> {
        let (a, b) = (format!("{name}.lora_a"), format!("{name}.lora_b"));
        let (input, output) = (file.info(&a).unwrap().shape[1], file.info(&b).unwrap().shape[0]);
        let rank = file.info(&b).unwrap().shape[1];
        assert_eq!(file.info(&a).unwrap().shape[0], rank);
        let scale = f64::from(file.f32("adapter.lora.alpha").unwrap()) / rank as f64;
        let (a, b) = (file.widened(&a).unwrap(), file.widened(&b).unwrap());
        let at = |row: usize, column: usize| -> f64 {
            (0..rank).map(|k| f64::from(b[row * rank + k]) * f64::from(a[k * input + column])).sum()
        };
        (0..output * input).map(|i| scale * at(i / input, i % input)).collect()
    }

    #[test]
    fn llama_cpp_gets_the_same_change() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("adapter.gguf");
        let mut adapter = mixed(true);
        adapter.provenance = BTreeMap::from([("seed".to_owned(), "7".to_owned())]);
        for (architecture, order) in [("qwen2", [0, 1, 2, 3, 4, 5]), ("llama", [0, 3, 1, 4, 2, 5])] {
            write_llama_cpp(&Disk::real(), &path, &base(architecture), &adapter).unwrap();
            let file = GgufFile::open(&path).unwrap();
            assert_eq!(file.str("general.type").unwrap(), "adapter");
            assert_eq!(file.str("general.architecture").unwrap(), architecture);
            assert_eq!(file.str("adapter.type").unwrap(), "lora");
            assert_eq!(file.str("lowrank.seed").unwrap(), "7");
            let check = |name: &str, module: &str, order: &[usize], input: usize| {
                let (found, wanted) = (change(&file, name), delta(&adapter, module));
                for (new, &old) in order.iter().enumerate() {
                    for column in 0..input {
                        let (found, wanted) = (found[new * input + column], wanted[old * input + column]);
                        assert!(
                            (found - wanted).abs() < 1e-5 * (1.0 + wanted.abs()),
                            "{name}: {wanted}, {found}"
                        );
                    }
                }
            };
            let back = read_llama_cpp(&path, &base(architecture)).unwrap();
            for factor in &adapter.factors {
                let (found, wanted) = (delta(&back, &factor.module), delta(&adapter, &factor.module));
                assert!(found.iter().zip(&wanted).all(|(f, w)| (f - w).abs() < 1e-5 * (1.0 + w.abs())));
            }
            check("blk.0.attn_q.weight", "model.layers.0.self_attn.q_proj", &order, 4);
            check("blk.0.ffn_down.weight", "model.layers.0.mlp.down_proj", &[0, 1, 2, 3], 5);
        }
    }

    #[test]
    fn refuses_what_it_cannot_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("adapter.gguf");
        let mut adapter = mixed(false);
        adapter.factors.push(factor("model.layers.0.mlp.experts.q_proj", (2, 2, 2), 1));
        let refusal = |base: &LlamaCppBase, adapter: &AdapterFolder| match write_llama_cpp(
            &Disk::real(),
            &path,
            base,
            adapter,
        )
        .unwrap_err()
        {
            StoreError::Export { cause } => cause.to_string(),
            other => panic!("{other}"),
        };
        let text = refusal(&base("mamba"), &adapter);
        assert!(text.contains("mamba") && text.contains("experts"), "{text}");
        adapter.factors.pop();
        let four = LlamaCppBase { heads: 4, ..base("llama") };
        assert!(refusal(&four, &adapter).contains("not 4 heads"));
        assert!(!path.exists());
    }
}
