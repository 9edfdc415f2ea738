//! `lowrank inspect`: what an adapter, a model or a checkpoint holds, without computing with it. What lowrank would not
//! apply is shown all the same, with the reason.

mod shown;
mod typed;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use lowrank_linalg::{LowRank, effective_rank};
use lowrank_models::Config;
use lowrank_store::checkpoint::{self, Checkpoint};
use lowrank_store::export::{MLX_TENSORS_NAME, look_llama_cpp, read_mlx};
use lowrank_store::peft::{
    AdapterFolder, CONFIG_NAME, Factor, INITIAL_NAME, Kind, Matcher, TENSORS_NAME, kind_of,
};
use lowrank_store::{GgufFile, TensorSource, gguf, json, tensors};
use serde_json::Value;

use crate::AppError;
use crate::model::OFFSET;
use lowrank_command::Because;
use shown::{Cell, Facts, Table};

pub use shown::Inspected;

/// What to look at.
#[derive(Debug, Clone, clap::Args)]
pub struct Inspect {
    /// Adapter folder, model directory, GGUF or safetensors file, or checkpoint
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
    /// Show every tensor or layer, not only the sums
    #[arg(long)]
    pub all: bool,
}

/// Looks at a path; what it is decides its contents, not its name.
///
/// # Errors
/// [`AppError::Usage`] when nothing is there, or it is damaged, or nothing that is known.
pub fn inspect(options: &Inspect) -> Result<Inspected, AppError> {
    let path = &options.path;
    if !path.exists() {
        return Err(AppError::usage(format!("nothing at {}", path.display())));
    }
    let mut found = if path.join(CONFIG_NAME).is_file() {
        if path.join(MLX_TENSORS_NAME).is_file() && !path.join(TENSORS_NAME).exists() {
            of_adapter("LoRA adapter (mlx-lm)", &read_mlx(path).input("reading the adapter")?)?
        } else if kind_of(path).is_ok_and(|kind| kind != Kind::Lora) {
            typed::of(path)?
        } else {
            peft(path)?
        }
    } else if path.is_dir() {
        directory(path)?
    } else if gguf::is_gguf(path).input("reading the file")? {
        let file = GgufFile::open(path).input("reading the file")?;
        if file.str("general.type").is_ok_and(|kind| kind == "adapter") {
            llama_cpp(path)?
        } else {
            gguf_model(&file)?
        }
    } else {
        let source = tensors::open(path).input("reading the file")?;
        if checkpoint::is_checkpoint(source.metadata()) {
            of_checkpoint(&Checkpoint::load(path).input("reading the checkpoint")?)
        } else {
            plain(&*source)?
        }
    };
    found.all = options.all;
    Ok(found)
}

/// A PEFT folder, whether or not lowrank applies it.
fn peft(path: &Path) -> Result<Inspected, AppError> {
    let seen = AdapterFolder::look(path).input("reading the adapter")?;
    let dora = seen.folder.config.dora;
    let format = if dora { "DoRA adapter (PEFT folder)" } else { "LoRA adapter (PEFT folder)" };
    let mut found = of_adapter(format, &seen.folder)?;
    if dora {
        let why = "norm and effective rank are those of left·right inside the direction; the whole change needs the base, whose \
                   rows it scales";
        found.facts.add("spectrum_of_the_change", Cell::shown(Value::Null, why));
    }
    found.objections = seen.objections.iter().map(ToString::to_string).collect();
    let whole: Vec<&str> = seen.folder.whole.iter().map(|whole| whole.name.as_str()).collect();
    if !whole.is_empty() {
        found.objections.push(format!("it saves whole weights: {}", whole.join(", ")));
    }
    if seen.folder.provenance.contains_key(OFFSET) {
        found
            .objections
            .push("these factors belong on a changed base; apply the adapter around them".to_owned());
    }
    if !seen.folder.passed_over.is_empty() {
        found.facts.add("passed_over", seen.folder.passed_over.join(", "));
    }
    if path.join(INITIAL_NAME).is_dir() {
        found.facts.add("initial_factors", format!("in {INITIAL_NAME}/"));
    }
    Ok(found)
}

/// An adapter for llama.cpp. Rows of query and key stand in another order there, which no norm or spectrum sees.
fn llama_cpp(path: &Path) -> Result<Inspected, AppError> {
    let (architecture, adapter) = look_llama_cpp(path).input("reading the adapter")?;
    let mut found = of_adapter("LoRA adapter (GGUF for llama.cpp)", &adapter)?;
    found.facts.add("architecture", architecture);
    Ok(found)
}

fn of_adapter(format: &str, adapter: &AdapterFolder) -> Result<Inspected, AppError> {
    let matcher = Matcher::new(&adapter.config).input("the adapter's configuration")?;
    let values = |f: &Factor| f.left.len() + f.right.len() + f.magnitude.as_ref().map_or(0, Vec::len);
    let parameters: usize = adapter.factors.iter().map(values).sum();
    let ranks: BTreeSet<usize> = adapter.factors.iter().map(|f| f.rank).collect();
    let mut facts = Facts::default();
    facts.add("format", format);
    facts.add("layers", adapter.factors.len());
    facts.add("ranks", ranks.into_iter().collect::<Vec<_>>());
    facts.add("alpha", adapter.config.alpha);
    facts.add("rank_stabilised", adapter.config.rank_stabilised);
    facts.add(
        "start",
        Cell::shown(
            adapter.config.init.text(),
            format!("init_lora_weights = {}", adapter.config.init.text()),
        ),
    );
    facts.add("parameters", parameters);
    facts.add("numbers", adapter.format.name());
    facts.add("stored", Cell::bytes(stored(parameters, adapter.format)));
    facts.add("memory_to_apply", Cell::bytes(4 * parameters));
    // Values, gradients and two moments; activations come on top.
    facts.add("memory_to_train_with_adamw", Cell::bytes(16 * parameters));
    if let Some(base) = &adapter.config.base_model {
        facts.add("base", base.as_str());
    }
    let columns = vec!["layer", "shape", "rank", "scale", "norm", "effective_rank"];
    let rows = adapter.factors.iter().map(|factor| row(factor, &matcher)).collect::<Result<Vec<_>, _>>()?;
    Ok(Inspected {
        kind: "adapter",
        facts,
        objections: Vec::new(),
        provenance: adapter.provenance.clone(),
        table: Table { columns, rows },
        all: false,
    })
}

/// One layer's change. A change that is not a number has no spectrum; the reason stands among the objections.
fn row(factor: &Factor, matcher: &Matcher<'_>) -> Result<Vec<Cell>, AppError> {
    let scale = matcher.scale(&factor.module);
    let mut row: Vec<Cell> = vec![
        factor.module.as_str().into(),
        shape(&[factor.output, factor.input]),
        factor.rank.into(),
        Cell::real(scale, 3),
    ];
    if factor.left.iter().chain(&factor.right).all(|value| value.is_finite()) {
        let change =
            LowRank::from_rows(&factor.left, &factor.right, factor.output, factor.input, factor.rank)
                .input(&factor.module)?
                .times(scale);
        let spectrum = change.factor().input(&factor.module)?;
        row.push(Cell::real(spectrum.energy().sqrt(), 4));
        row.push(Cell::real(effective_rank(&spectrum.values), 2));
    } else {
        row.extend([Cell::shown(Value::Null, "–"), Cell::shown(Value::Null, "–")]);
    }
    Ok(row)
}

fn shape(sides: &[usize]) -> Cell {
    Cell::shown(sides.to_vec(), format!("{sides:?}"))
}

fn stored(count: usize, format: lowrank_store::Format) -> usize {
    (count as f64 * format.bits_per_value() / 8.0) as usize
}

fn of_model(config: &Config) -> Facts {
    let mut facts = Facts::default();
    facts.add("architecture", config.model_type.as_str());
    facts.add("layers", config.layers);
    facts.add("hidden", config.hidden);
    facts.add("feed_forward", config.intermediate);
    facts.add("heads", config.heads);
    facts.add("head_size", config.head_dim);
    facts.add("heads_of_keys_and_values", config.kv_heads);
    facts.add("vocabulary", config.vocabulary);
    facts.add("context", config.context);
    let parameters = config.parameters();
    facts.add(
        "parameters",
        Cell::shown(parameters, format!("{parameters} ({:.1} M)", parameters as f64 / 1e6)),
    );
    facts.add("memory_as_f32", Cell::bytes(4 * parameters));
    facts
}

fn directory(path: &Path) -> Result<Inspected, AppError> {
    let source = tensors::open(path).input("reading the model")?;
    let mut found = plain(&*source)?;
    let config = path.join("config.json");
    if config.is_file() {
        let value = json::read(&config).input("reading the model")?;
        let mut facts = Facts::default();
        facts.add("format", "model (Hugging Face directory)");
        match Config::from_json(&value) {
            Ok(config) => facts.extend(of_model(&config)),
            // Other families can be looked at, only not run.
            Err(error) => found.objections.push(error.to_string()),
        }
        facts.extend(found.facts);
        found.facts = facts;
        found.kind = "model";
    }
    Ok(found)
}

fn gguf_model(file: &GgufFile) -> Result<Inspected, AppError> {
    let mut found = plain(file)?;
    let mut facts = Facts::default();
    facts.add("format", format!("GGUF, version {}", file.version()));
    if let Ok(name) = file.str("general.name") {
        facts.add("name", name);
    }
    match Config::from_gguf(file) {
        Ok(config) => {
            found.kind = "model";
            facts.extend(of_model(&config));
        }
        Err(error) => found.objections.push(error.to_string()),
    }
    facts.extend(found.facts);
    found.facts = facts;
    found.provenance.retain(|key, _| key.starts_with("lowrank."));
    Ok(found)
}

fn of_checkpoint(checkpoint: &Checkpoint) -> Inspected {
    let count: usize = checkpoint.tensors.iter().map(|(_, _, values)| values.len()).sum();
    let layers = layers(checkpoint);
    let ranks: BTreeSet<usize> = layers.values().map(|&(_, rank)| rank).collect();
    let mut facts = Facts::default();
    facts.add("format", "checkpoint");
    for counter in ["step", "tokens"] {
        if let Some((_, values)) = checkpoint.integers.iter().find(|(name, _)| name == counter)
            && let &[value] = values.as_slice()
        {
            facts.add(if counter == "step" { "steps_done" } else { "tokens_read" }, value);
        }
    }
    facts.add("layers", layers.len());
    facts.add("ranks", ranks.into_iter().collect::<Vec<_>>());
    facts.add("tensors", checkpoint.tensors.len());
    facts.add("values", count);
    facts.add("stored", Cell::bytes(4 * count));
    let rows = layers
        .iter()
        .map(|(layer, &(sides, rank))| vec![(*layer).into(), shape(&sides), rank.into()])
        .collect();
    let mut table = Table { columns: vec!["layer", "shape", "rank"], rows };
    if layers.is_empty() {
        // Not factors: a model being pretrained.
        table.columns = vec!["tensor", "shape"];
        let rows = checkpoint.tensors.iter().map(|(name, sides, _)| vec![name.as_str().into(), shape(sides)]);
        table.rows = rows.collect();
    }
    let provenance = provenance(&checkpoint.json);
    Inspected { kind: "checkpoint", facts, objections: Vec::new(), provenance, table, all: false }
}

/// The layers of which both factors are there, with sides and rank. Those in training stand under `value.`, beside the
/// optimiser's buffers for them.
fn layers(checkpoint: &Checkpoint) -> BTreeMap<&str, ([usize; 2], usize)> {
    let in_training = checkpoint.tensors.iter().any(|(name, _, _)| name.starts_with("value."));
    let prefix = if in_training { "value." } else { "" };
    let sides: BTreeMap<&str, &[usize]> = checkpoint
        .tensors
        .iter()
        .filter_map(|(name, sides, _)| Some((name.strip_prefix(prefix)?, sides.as_slice())))
        .collect();
    let mut layers = BTreeMap::new();
    for (name, left) in &sides {
        let Some(layer) = name.strip_suffix(".left") else { continue };
        let right = sides.get(format!("{layer}.right").as_str());
        if let (&[out, rank], Some(&&[other, inp])) = (*left, right)
            && rank == other
        {
            layers.insert(layer, ([out, inp], rank));
        }
    }
    layers
}

/// What the run says of itself: settings and identity, one line each.
fn provenance(json: &Value) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut lines = BTreeMap::new();
    for (key, value) in json.as_object().into_iter().flatten() {
        match value.as_object() {
            Some(part) => {
                lines.extend(part.iter().map(|(inner, value)| (format!("{key}.{inner}"), text(value))));
            }
            None => {
                lines.insert(key.clone(), text(value));
            }
        }
    }
    lines
}

fn plain(source: &dyn TensorSource) -> Result<Inspected, AppError> {
    let (mut rows, mut bytes, mut count) = (Vec::new(), 0, 0);
    let mut formats: BTreeMap<&str, usize> = BTreeMap::new();
    for name in source.names() {
        let info = source.info(name).input("reading the tensors")?;
        let size = source.bytes(name).input("reading the tensors")?.len();
        (bytes, count) = (bytes + size, count + info.count());
        *formats.entry(info.dtype.name()).or_default() += info.count();
        rows.push(vec![
            name.as_str().into(),
            info.dtype.name().into(),
            shape(&info.shape),
            Cell::bytes(size),
        ]);
    }
    let mut shares: Vec<(&str, usize)> = formats.iter().map(|(name, values)| (*name, *values)).collect();
    shares.sort_by_key(|(_, values)| std::cmp::Reverse(*values));
    let shares: Vec<String> = shares
        .iter()
        .map(|(name, values)| format!("{name} {:.1} %", 100.0 * *values as f64 / count.max(1) as f64))
        .collect();
    let mut facts = Facts::default();
    facts.add("tensors", source.names().len());
    facts.add("values", count);
    facts.add("stored", Cell::bytes(bytes));
    let formats: serde_json::Map<String, Value> =
        formats.into_iter().map(|(name, values)| (name.to_owned(), values.into())).collect();
    facts.add("numbers", Cell::shown(formats, shares.join(", ")));
    let table = Table { columns: vec!["tensor", "numbers", "shape", "bytes"], rows };
    let provenance = source.metadata().clone();
    Ok(Inspected { kind: "tensors", facts, objections: Vec::new(), provenance, table, all: false })
}
