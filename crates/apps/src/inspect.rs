//! `lowrank inspect`: what an adapter, a model or a checkpoint holds, without computing with it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use lowrank_linalg::{LowRank, effective_rank};
use lowrank_models::Config;
use lowrank_store::checkpoint::{self, Checkpoint};
use lowrank_store::peft::{AdapterFolder, CONFIG_NAME, INITIAL_NAME, Matcher};
use lowrank_store::{GgufFile, TensorSource, gguf, json, tensors};
use serde::Serialize;

use crate::AppError;
use crate::error::Because;

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

/// What was found.
#[derive(Debug, Clone, Serialize)]
pub struct Inspected {
    /// `adapter`, `model`, `checkpoint` or `tensors`.
    pub kind: &'static str,
    /// Named facts, in the order in which they are shown.
    pub facts: Vec<(String, String)>,
    /// What made it, where the file says.
    pub provenance: BTreeMap<String, String>,
    /// A table of layers or tensors.
    pub table: Rows,
    #[serde(skip)]
    all: bool,
}

/// A table.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Rows {
    /// Names of the columns.
    pub head: Vec<&'static str>,
    /// Cells, a row at a time.
    pub rows: Vec<Vec<String>>,
}

/// Rows shown unless all are asked for.
const SHOWN: usize = 12;

impl fmt::Display for Inspected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wide = self.facts.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        for (name, value) in &self.facts {
            writeln!(f, "{name:<wide$}  {value}")?;
        }
        if !self.provenance.is_empty() {
            writeln!(f, "\nmade by")?;
            let wide = self.provenance.keys().map(String::len).max().unwrap_or(0);
            for (key, value) in &self.provenance {
                writeln!(f, "  {key:<wide$}  {value}")?;
            }
        }
        let Rows { head, rows } = &self.table;
        if rows.is_empty() {
            return Ok(());
        }
        let shown = if self.all { rows.len() } else { rows.len().min(SHOWN) };
        let cells = || rows[..shown].iter().map(|row| row.iter().map(String::as_str).collect::<Vec<_>>());
        let mut widths: Vec<usize> = head.iter().map(|name| name.len()).collect();
        for row in cells() {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        writeln!(f)?;
        for row in std::iter::once(head.clone()).chain(cells()) {
            let line: Vec<String> = row
                .iter()
                .zip(&widths)
                .enumerate()
                .map(
                    |(column, (cell, &wide))| {
                        if column == 0 { format!("{cell:<wide$}") } else { format!("{cell:>wide$}") }
                    },
                )
                .collect();
            writeln!(f, "{}", line.join("  ").trim_end())?;
        }
        if shown < rows.len() {
            writeln!(f, "… and {} more (--all shows them)", rows.len() - shown)?;
        }
        Ok(())
    }
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
        adapter(path)?
    } else if path.is_dir() {
        directory(path)?
    } else if gguf::is_gguf(path).input("reading the file")? {
        gguf_model(&GgufFile::open(path).input("reading the file")?)?
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

fn fact(name: &str, value: impl fmt::Display) -> (String, String) {
    (name.to_owned(), value.to_string())
}

fn megabytes(bytes: usize) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

fn adapter(path: &Path) -> Result<Inspected, AppError> {
    let adapter = AdapterFolder::read(path).input("reading the adapter")?;
    let matcher = Matcher::new(&adapter.config).input("the adapter's configuration")?;
    let parameters: usize = adapter.factors.iter().map(|f| f.left.len() + f.right.len()).sum();
    let ranks: std::collections::BTreeSet<usize> = adapter.factors.iter().map(|f| f.rank).collect();
    let ranks: Vec<String> = ranks.iter().map(ToString::to_string).collect();
    let mut facts = vec![
        fact("kind", "LoRA adapter (PEFT folder)"),
        fact("layers", adapter.factors.len()),
        fact("ranks", ranks.join(", ")),
        fact("alpha", adapter.config.alpha),
        fact("rank-stabilised", if adapter.config.rank_stabilised { "yes" } else { "no" }),
        fact("start", format!("init_lora_weights = {}", adapter.config.init.text())),
        fact("parameters", parameters),
        fact("numbers", format!("{}, {}", adapter.format, megabytes(stored(parameters, adapter.format)))),
        fact("memory to apply it", megabytes(4 * parameters)),
        fact("memory to train it", format!("{} with AdamW, activations aside", megabytes(16 * parameters))),
    ];
    if let Some(base) = &adapter.config.base_model {
        facts.push(fact("base", base));
    }
    if path.join(INITIAL_NAME).is_dir() {
        facts.push(fact("initial factors", format!("in {INITIAL_NAME}/")));
    }
    if let Some(key) = adapter.config.unsupported() {
        facts.push(fact("not applied by lowrank", key));
    }
    let mut rows = Vec::new();
    for factor in &adapter.factors {
        let change =
            LowRank::from_rows(&factor.left, &factor.right, factor.output, factor.input, factor.rank)
                .input(&factor.module)?
                .times(matcher.scale(&factor.module));
        let spectrum = change.factor().input(&factor.module)?;
        rows.push(vec![
            factor.module.clone(),
            format!("[{}, {}]", factor.output, factor.input),
            factor.rank.to_string(),
            format!("{:.3}", matcher.scale(&factor.module)),
            format!("{:.4}", spectrum.energy().sqrt()),
            format!("{:.2}", effective_rank(&spectrum.values)),
        ]);
    }
    let head = vec!["layer", "shape", "rank", "scale", "norm of the change", "effective rank"];
    Ok(Inspected {
        kind: "adapter",
        facts,
        provenance: adapter.provenance,
        table: Rows { head, rows },
        all: false,
    })
}

fn stored(count: usize, format: lowrank_store::Format) -> usize {
    (count as f64 * format.bits_per_value() / 8.0) as usize
}

fn of_model(config: &Config) -> Vec<(String, String)> {
    vec![
        fact("architecture", &config.model_type),
        fact("layers", config.layers),
        fact("hidden, feed-forward", format!("{}, {}", config.hidden, config.intermediate)),
        fact(
            "heads",
            format!("{} of {}, {} for keys and values", config.heads, config.head_dim, config.kv_heads),
        ),
        fact("vocabulary", config.vocabulary),
        fact("context", config.context),
        fact("parameters", format!("{} ({:.1} M)", config.parameters(), config.parameters() as f64 / 1e6)),
        fact("memory as f32", megabytes(4 * config.parameters())),
    ]
}

fn directory(path: &Path) -> Result<Inspected, AppError> {
    let source = tensors::open(path).input("reading the model")?;
    let mut found = plain(&*source)?;
    let config = path.join("config.json");
    if config.is_file() {
        let value = json::read(&config).input("reading the model")?;
        let mut facts = vec![fact("kind", "model (Hugging Face directory)")];
        match Config::from_json(&value) {
            Ok(config) => facts.extend(of_model(&config)),
            // Other families can be looked at, only not run.
            Err(error) => facts.push(fact("not run by lowrank", error)),
        }
        facts.append(&mut found.facts.split_off(1));
        found.facts = facts;
        found.kind = "model";
    }
    Ok(found)
}

fn gguf_model(file: &GgufFile) -> Result<Inspected, AppError> {
    let mut found = plain(file)?;
    let mut facts = vec![fact("kind", format!("GGUF, version {}", file.version()))];
    if let Ok(name) = file.str("general.name") {
        facts.push(fact("name", name));
    }
    match Config::from_gguf(file) {
        Ok(config) => {
            found.kind = "model";
            facts.extend(of_model(&config));
        }
        Err(error) => facts.push(fact("not run by lowrank", error)),
    }
    facts.append(&mut found.facts.split_off(1));
    found.facts = facts;
    found.provenance.retain(|key, _| key.starts_with("lowrank."));
    Ok(found)
}

fn of_checkpoint(checkpoint: &Checkpoint) -> Inspected {
    let count: usize = checkpoint.tensors.iter().map(|(_, _, values)| values.len()).sum();
    let mut facts =
        vec![fact("kind", "checkpoint"), fact("tensors", checkpoint.tensors.len()), fact("values", count)];
    if let Some(object) = checkpoint.json.as_object() {
        let simple = object.iter().filter(|(_, value)| !value.is_object() && !value.is_array());
        facts.extend(simple.map(|(key, value)| fact(key, value)));
    }
    let rows =
        checkpoint.tensors.iter().map(|(name, shape, _)| vec![name.clone(), format!("{shape:?}")]).collect();
    let table = Rows { head: vec!["tensor", "shape"], rows };
    Inspected { kind: "checkpoint", facts, provenance: BTreeMap::new(), table, all: false }
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
            name.clone(),
            info.dtype.name().to_owned(),
            format!("{:?}", info.shape),
            megabytes(size),
        ]);
    }
    let mut formats: Vec<(&str, usize)> = formats.into_iter().collect();
    formats.sort_by_key(|(_, values)| std::cmp::Reverse(*values));
    let formats: Vec<String> = formats
        .iter()
        .map(|(name, values)| format!("{name} {:.1} %", 100.0 * *values as f64 / count.max(1) as f64))
        .collect();
    let facts = vec![
        fact("kind", "tensors"),
        fact("tensors", source.names().len()),
        fact("values", count),
        fact("stored", format!("{} ({})", megabytes(bytes), formats.join(", "))),
    ];
    let table = Rows { head: vec!["tensor", "numbers", "shape", "size"], rows };
    Ok(Inspected { kind: "tensors", facts, provenance: source.metadata().clone(), table, all: false })
}
