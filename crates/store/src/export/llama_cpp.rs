use std::path::Path;

use super::{Reader, Reason, Refusal, check_reader, fold, matrix, pad};
use crate::atomic::Disk;
use crate::gguf::{
    Entry, GgufError, GgufFile, LlamaCppBase, Value, halves_to_pairs, hugging_face_name, llama_cpp_name,
    pairs_to_halves, write,
};
use crate::peft::{AdapterConfig, AdapterFolder, Factor, PeftError, Place, Targets};
use crate::{Dtype, Format, StoreError, TensorSource};

/// Architectures whose names are those above.
const ARCHITECTURES: [&str; 6] = ["llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3"];

/// What our keys begin with.
const OURS: &str = "lowrank.";

const UNKNOWN_WEIGHT: &str = "it changes no weight of a decoder that is known here";

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
    values.extend(adapter.provenance.iter().map(|(key, value)| (provenance_key(key), text(value))));
    let entries: Vec<Entry<'_>> = tensors
        .iter()
        .map(|(name, shape, bytes)| Entry { name, dtype: Dtype::Real(Format::F32), shape, bytes })
        .collect();
    write(disk, path, &values, &entries)
}

/// A key of the provenance as GGUF keeps it: ours say whose they are.
fn provenance_key(key: &str) -> String {
    if key.starts_with(OURS) { key.to_owned() } else { format!("{OURS}{key}") }
}

/// Reads the GGUF form that llama.cpp loads, rows of query and key put back into Hugging Face's order.
///
/// # Errors
/// As [`look_llama_cpp`]; [`GgufError::WrongValue`] for an adapter of another architecture, and [`PeftError::Misshaped`]
/// for rows that are not the base's heads.
pub fn read_llama_cpp(path: &Path, base: &LlamaCppBase) -> Result<AdapterFolder, StoreError> {
    let (architecture, mut adapter) = look_llama_cpp(path)?;
    if architecture != base.architecture {
        let key = "general.architecture".to_owned();
        let cause = GgufError::WrongValue { key, found: architecture, wanted: base.architecture.clone() };
        return Err(StoreError::Gguf { path: path.to_owned(), cause });
    }
    for factor in &mut adapter.factors {
        let Some(heads) = base.reordered_heads(&factor.module) else { continue };
        if heads == 0 || !factor.output.is_multiple_of(2 * heads) {
            let name = llama_cpp_name(&format!("{}.weight", factor.module)).unwrap_or_default();
            let cause = PeftError::Misshaped {
                name: format!("{name}.lora_b"),
                shape: vec![factor.output, factor.rank],
                wanted: format!("a matrix of {heads} heads, each of an even number of rows,"),
            };
            return Err(StoreError::Peft { path: path.to_owned(), cause });
        }
        factor.left = pairs_to_halves(&factor.left, factor.rank, factor.output / heads);
    }
    Ok(adapter)
}

/// Reads the GGUF form that llama.cpp loads without knowing the base: its architecture, and the factors with the rows
/// of query and key in llama.cpp's order. For looking at, not for applying; ranks, norms and spectra are right.
///
/// llama.cpp scales each change by α / (rank of its tensors), or by 1 when α is 0; so does what is returned.
///
/// # Errors
/// [`StoreError::Gguf`] or [`StoreError::Io`] for the file itself, and when it says that it is no LoRA adapter;
/// [`StoreError::Peft`] for tensors that are not the factors of modules known here.
pub fn look_llama_cpp(path: &Path) -> Result<(String, AdapterFolder), StoreError> {
    let wrong = |cause| StoreError::Peft { path: path.to_owned(), cause };
    let file = GgufFile::open(path)?;
    for (key, wanted) in [("general.type", "adapter"), ("adapter.type", "lora")] {
        let found = file.str(key)?;
        if found != wanted {
            let (key, found, wanted) = (key.to_owned(), found.to_owned(), wanted.to_owned());
            let cause = GgufError::WrongValue { key, found, wanted };
            return Err(StoreError::Gguf { path: path.to_owned(), cause });
        }
    }
    let architecture = file.str("general.architecture")?.to_owned();
    let alpha = f64::from(file.f32("adapter.lora.alpha")?);
    if !alpha.is_finite() {
        let (key, found) = ("adapter.lora.alpha".to_owned(), alpha.to_string());
        let cause = GgufError::WrongValue { key, found, wanted: "a finite number".to_owned() };
        return Err(StoreError::Gguf { path: path.to_owned(), cause });
    }
    let mut factors = Vec::new();
    for name in file.names() {
        let info = file.info(name)?;
        let Dtype::Real(_) = info.dtype else {
            return Err(wrong(PeftError::Dtype { name: name.clone(), dtype: info.dtype.name() }));
        };
        let (weight, present, missing) = match (name.strip_suffix(".lora_a"), name.strip_suffix(".lora_b")) {
            (Some(weight), _) => (weight, "lora_a", "lora_b"),
            (_, Some(weight)) => (weight, "lora_b", "lora_a"),
            _ => return Err(wrong(PeftError::ExtraTensor { name: name.clone() })),
        };
        let module = hugging_face_name(weight)
            .and_then(|name| name.strip_suffix(".weight").map(str::to_owned))
            .ok_or_else(|| wrong(PeftError::Misnamed { name: name.clone(), why: UNKNOWN_WEIGHT }))?;
        let second = format!("{weight}.{missing}");
        if !file.contains(&second) {
            return Err(wrong(PeftError::MissingPartner { module, present, missing }));
        }
        // Both names of a pair come by; the first of them stands for it.
        if present == "lora_b" {
            continue;
        }
        let [rank, input] = matrix(name, &info.shape, [None, None]).map_err(wrong)?;
        let [output, left] = matrix(&second, &file.info(&second)?.shape, [None, None]).map_err(wrong)?;
        if left != rank {
            return Err(wrong(PeftError::RanksDisagree { module, left, right: rank }));
        }
        let (left, right) = (file.widened(&second)?, file.widened(name)?);
        factors.push(Factor::linear(&module, (output, input, rank), left, right));
    }
    let mut adapter = AdapterFolder::new(config(alpha, &factors), factors);
    let ours = file.metadata().iter().filter(|(key, _)| key.starts_with(OURS));
    adapter.provenance = ours.map(|(key, value)| (key.clone(), value.clone())).collect();
    adapter.check().map_err(wrong)?;
    Ok((architecture, adapter))
}

/// A configuration that scales each change as llama.cpp does.
fn config(alpha: f64, factors: &[Factor]) -> AdapterConfig {
    let rank = factors.first().map_or(1, |factor| factor.rank);
    let targets = Targets::List(factors.iter().map(|factor| factor.module.clone()).collect());
    let scaled = |rank: usize| if alpha == 0.0 { rank as f64 } else { alpha };
    let mut config = AdapterConfig::new(rank, scaled(rank), targets);
    let others = || factors.iter().filter(|factor| factor.rank != rank);
    config.rank_pattern = others().map(|factor| (factor.module.clone(), factor.rank)).collect();
    if alpha == 0.0 {
        config.alpha_pattern = others().map(|factor| (factor.module.clone(), scaled(factor.rank))).collect();
    }
    config
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
    use super::super::reshape::tests::{delta, factor, mixed};
    use super::{LlamaCppBase, read_llama_cpp, write_llama_cpp};
    use crate::atomic::Disk;
    use crate::gguf::{Entry, GgufError as G, GgufFile, Value, write};
    use crate::peft::{AdapterFolder, Matcher, PeftError as P};
    use crate::{Dtype, Format, StoreError, TensorSource};

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
        let made = [("lowrank.seed", "7"), ("note", "mine")];
        adapter.provenance = made.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        for (architecture, order) in [("qwen2", [0, 1, 2, 3, 4, 5]), ("llama", [0, 3, 1, 4, 2, 5])] {
            write_llama_cpp(&Disk::real(), &path, &base(architecture), &adapter).unwrap();
            let file = GgufFile::open(&path).unwrap();
            assert_eq!(file.str("general.type").unwrap(), "adapter");
            assert_eq!(file.str("general.architecture").unwrap(), architecture);
            assert_eq!(file.str("adapter.type").unwrap(), "lora");
            let ours: Vec<&str> =
                file.metadata().keys().map(String::as_str).filter(|key| key.starts_with("lowrank")).collect();
            assert_eq!(ours, ["lowrank.note", "lowrank.seed"]);
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
            assert_eq!(back.provenance["lowrank.seed"], "7");
            for factor in &adapter.factors {
                let (found, wanted) = (delta(&back, &factor.module), delta(&adapter, &factor.module));
                assert!(found.iter().zip(&wanted).all(|(f, w)| (f - w).abs() < 1e-5 * (1.0 + w.abs())));
            }
            check("blk.0.attn_q.weight", "model.layers.0.self_attn.q_proj", &order, 4);
            check("blk.0.ffn_down.weight", "model.layers.0.mlp.down_proj", &[0, 1, 2, 3], 5);
        }
    }

    /// A file of one module and what is changed in it.
    struct Sample {
        values: Vec<(String, Value)>,
        tensors: Vec<(String, Vec<usize>, Vec<f32>)>,
    }

    impl Sample {
        fn new() -> Sample {
            let text = |text: &str| Value::String(text.to_owned());
            let values = vec![
                ("general.type".to_owned(), text("adapter")),
                ("general.architecture".to_owned(), text("llama")),
                ("adapter.type".to_owned(), text("lora")),
                ("adapter.lora.alpha".to_owned(), Value::F32(3.0)),
            ];
            let tensors = vec![
                ("blk.0.attn_q.weight.lora_a".to_owned(), vec![2, 4], vec![0.5; 8]),
                ("blk.0.attn_q.weight.lora_b".to_owned(), vec![6, 2], vec![0.25; 12]),
                ("blk.0.ffn_up.weight.lora_a".to_owned(), vec![1, 4], vec![0.5; 4]),
                ("blk.0.ffn_up.weight.lora_b".to_owned(), vec![5, 1], vec![0.25; 5]),
            ];
            Sample { values, tensors }
        }

        fn read(&self) -> Result<AdapterFolder, StoreError> {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("adapter.gguf");
            let bytes: Vec<Vec<u8>> = self
                .tensors
                .iter()
                .map(|(_, _, v)| v.iter().flat_map(|v| v.to_le_bytes()).collect())
                .collect();
            let entries: Vec<Entry<'_>> = self
                .tensors
                .iter()
                .zip(&bytes)
                .map(|((name, shape, _), bytes)| Entry {
                    name,
                    dtype: Dtype::Real(Format::F32),
                    shape,
                    bytes,
                })
                .collect();
            write(&Disk::real(), &path, &self.values, &entries).unwrap();
            read_llama_cpp(&path, &base("llama"))
        }
    }

    #[test]
    fn every_tensor_is_scaled_by_its_own_rank() {
        let mut sample = Sample::new();
        let scales = |sample: &Sample| {
            let adapter = sample.read().unwrap();
            let matcher = Matcher::new(&adapter.config).unwrap();
            ["self_attn.q_proj", "mlp.up_proj"].map(|part| matcher.scale(&format!("model.layers.0.{part}")))
        };
        assert_eq!(scales(&sample), [1.5, 3.0]);
        sample.values[3].1 = Value::F32(0.0);
        assert_eq!(scales(&sample), [1.0, 1.0], "as llama.cpp does without an alpha");
    }

    #[test]
    fn each_damage_has_its_own_error() {
        let after = |damage: &dyn Fn(&mut Sample)| {
            let mut sample = Sample::new();
            damage(&mut sample);
            sample.read().unwrap_err()
        };
        let value = |at: usize, new: Value| match after(&|sample| sample.values[at].1 = new.clone()) {
            StoreError::Gguf { cause, .. } => cause,
            other => panic!("{other}"),
        };
        let text = |text: &str| Value::String(text.to_owned());
        let wrong = |key: &str, found: &str, wanted: &str| G::WrongValue {
            key: key.into(),
            found: found.into(),
            wanted: wanted.into(),
        };
        assert_eq!(value(0, text("model")), wrong("general.type", "model", "adapter"));
        assert_eq!(value(1, text("qwen2")), wrong("general.architecture", "qwen2", "llama"));
        assert_eq!(value(2, text("alora")), wrong("adapter.type", "alora", "lora"));
        assert_eq!(value(3, Value::F32(f32::NAN)), wrong("adapter.lora.alpha", "NaN", "a finite number"));
        assert!(matches!(value(3, Value::U8(3)), G::WrongType { .. }));
        let missing = after(&|sample| drop(sample.values.remove(0)));
        assert!(matches!(missing, StoreError::Gguf { cause: G::MissingKey { .. }, .. }), "{missing}");
        let tensors = |damage: &dyn Fn(&mut Sample)| match after(damage) {
            StoreError::Peft { cause, .. } => cause,
            other => panic!("{other}"),
        };
        let module = || "model.layers.0.self_attn.q_proj".to_owned();
        let alone = |at: usize| tensors(&|sample| drop(sample.tensors.remove(at)));
        let partner = |present, missing| P::MissingPartner { module: module(), present, missing };
        assert_eq!(alone(1), partner("lora_a", "lora_b"));
        assert_eq!(alone(0), partner("lora_b", "lora_a"));
        let with = |name: &str| tensors(&|sample| sample.tensors.push((name.to_owned(), vec![1], vec![0.0])));
        assert_eq!(with("output_norm.weight"), P::ExtraTensor { name: "output_norm.weight".into() });
        for name in ["blk.0.attn_qkv.weight.lora_a", "blk.0.attn_q.bias.lora_a"] {
            let error = with(name);
            assert!(matches!(&error, P::Misnamed { name: found, .. } if found == name), "{error}");
        }
        let reshaped = |at: usize, shape: &[usize]| {
            tensors(&|sample| {
                let (_, old, values) = &mut sample.tensors[at];
                *old = shape.to_vec();
                values.resize(shape.iter().product(), 0.0);
            })
        };
        let error = reshaped(0, &[4, 2]);
        assert_eq!(error, P::RanksDisagree { module: module(), left: 2, right: 4 });
        for shape in [&[8][..], &[0, 4], &[2, 2, 2]] {
            let error = reshaped(0, shape);
            assert!(matches!(error, P::Misshaped { .. }), "{error}");
        }
        let error = reshaped(1, &[7, 2]);
        assert!(error.to_string().contains("1 heads"), "{error}");
        let error = tensors(&|sample| sample.tensors[2].2[1] = f32::INFINITY);
        assert!(matches!(error, P::NotFinite { index: 1, .. }), "{error}");
        assert_eq!(tensors(&|sample| sample.tensors.clear()), P::Empty);
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
