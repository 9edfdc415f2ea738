//! `lowrank regime`: did an adapter learn richly or lazily? Of a run of `lowrank tune`, layer by layer: how many directions its start and
//! its learned change have, how far the weight moved, whether the change stayed in the span of its start, and how much what the layer
//! is fed turned.
//!
//! Source of the measures: Liu et al., "How connectivity structure shapes rich and lazy learning in neural circuits", 2024, which uses them on
//! recurrent weights (`lowrank study rich-lazy`). Here the change is that of one layer, and the tangent kernel, which needs a backward pass for
//! each token and class, is left out.

mod options;
mod report;
mod site;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use lowrank_linalg::LowRank;
use lowrank_models::{Decoder, Encoder, T5, Vision};
use lowrank_store::peft::{AdapterFolder, INITIAL_NAME, Kind as PeftKind, kind_of};
use serde::Serialize;

pub use options::Regime;
pub use site::SiteRegime;

use crate::adaptation::{Adaptation, Method, Prepared};
use crate::subject::{Kind, Subject, kind};
use crate::tune::Tune;
use crate::{AppError, Progress};
use lowrank_command::Because;
use lowrank_command::page::{dashed, wrapped};

/// The numbers, in the run folder.
const NUMBERS: &str = "regime.json";
/// The page, in the run folder.
const PAGE: &str = "regime.html";

/// What is found of a run.
#[derive(Debug, Clone, Serialize)]
pub struct Found {
    /// Name of the model.
    pub model: String,
    /// The start.
    pub init: String,
    /// The adapter that was looked at.
    pub adapter: PathBuf,
    /// Tokens (or patches) whose way through the network was compared.
    pub tokens: usize,
    /// Each layer, in the order of the network.
    pub sites: Vec<SiteRegime>,
    /// What it comes to.
    pub words: Vec<String>,
    /// The page.
    pub report: PathBuf,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let longest = self.sites.iter().map(|site| site.name.len()).max().unwrap_or(0).max(5);
        writeln!(
            f,
            "{:<longest$} {:>9} {:>11} {:>12} {:>10} {:>10}",
            "layer", "moved", "of rank", "start's span", "inputs", "centred"
        )?;
        for site in &self.sites {
            writeln!(
                f,
                "{:<longest$} {:>8.3}% {:>11.1} {:>12} {:>10.4} {:>10.4}",
                site.name,
                100.0 * site.relative_change,
                site.change.effective_rank,
                dashed(site.right_overlap, 3),
                site.input_alignment,
                site.centred_alignment,
            )?;
        }
        for line in &self.words {
            writeln!(f, "{}", wrapped(line, 80))?;
        }
        write!(f, "report: {}", self.report.display())
    }
}

/// Looks at a finished run and writes `regime.json` and `regime.html` into its folder.
///
/// # Errors
/// [`AppError::Usage`] for a folder without a run, a model or data that are gone, and an adapter without factors.
pub fn regime(options: &Regime, progress: &mut dyn Progress) -> Result<Found, AppError> {
    options.check()?;
    let tune = options.tuned()?;
    match kind(&tune.adaptation())? {
        Kind::Decoder => regime_on::<Decoder>(options, &tune, progress),
        Kind::Encoder => regime_on::<Encoder>(options, &tune, progress),
        Kind::Vision => regime_on::<Vision>(options, &tune, progress),
        Kind::T5 => regime_on::<T5>(options, &tune, progress),
    }
}

fn regime_on<N: Subject>(
    options: &Regime,
    tune: &Tune,
    progress: &mut dyn Progress,
) -> Result<Found, AppError> {
    let (ground, methods) = (tune.adaptation(), tune.methods()?);
    let folder = options.adapter_of(tune);
    let [adapter, start] = folders(&folder)?;
    let adapter = adapter.ok_or_else(|| AppError::usage(format!("no adapter at {}", folder.display())))?;
    let ground = Adaptation { calibration: options.calibration, calibration_batch: 0, ..ground };
    let own: Vec<Method> = methods.into_iter().take(1).collect();
    let mut prepared = Prepared::<N>::open(&ground, &own, progress)?;
    prepared.model.check_use(&adapter, &folder)?;
    progress.say(&format!("comparing what {} layers are fed before and after", adapter.factors.len()));
    let before = prepared.fed(&ground, options.tokens)?;
    let weights = prepared.weight_norms()?;
    prepared.model.apply(&adapter).input(format!("the adapter {}", folder.display()))?;
    let after = prepared.fed(&ground, options.tokens)?;
    let (changes, starts) =
        (changes(&adapter)?, start.as_ref().map(changes).transpose()?.unwrap_or_default());
    let mut sites = Vec::new();
    for site in &prepared.plan.sites {
        let name = &site.name;
        let Some(change) = changes.get(name) else { continue };
        let seen = before.get(name).zip(after.get(name)).zip(weights.get(name));
        let ((before, after), weight) = seen.ok_or_else(|| {
            AppError::failed(format!("{name} is a layer of the adapter and was not reached"))
        })?;
        let of = site::Seen { change, start: starts.get(name), weight: *weight, before, after };
        sites.push(of.measured(name).while_doing(name)?);
    }
    if sites.is_empty() {
        return Err(AppError::usage(format!(
            "{} changes none of the layers that the run adapts",
            folder.display()
        )));
    }
    let words = report::words(&sites);
    let tokens = before.values().map(|rows| rows.nrows()).max().unwrap_or(0);
    let init = own.first().map(|method| method.name.clone()).unwrap_or_default();
    let report = options.run.join(PAGE);
    let model = prepared.model.name.clone();
    let found = Found { model, init, adapter: folder, tokens, sites, words, report: report.clone() };
    let numbers = serde_json::to_string_pretty(&found).while_doing("writing the numbers")?;
    write(&options.run.join(NUMBERS), &(numbers + "\n"))?;
    write(&report, &report::page(&found).html()?)?;
    Ok(found)
}

/// The adapter and the factors that it began with, where they are there.
fn folders(folder: &Path) -> Result<[Option<AdapterFolder>; 2], AppError> {
    let initial = folder.join(INITIAL_NAME);
    let read = |path: &Path| -> Result<Option<AdapterFolder>, AppError> {
        if !path.is_dir() {
            return Ok(None);
        }
        let kind = kind_of(path).input("reading the adapter")?;
        if kind != PeftKind::Lora {
            return Err(AppError::usage(format!(
                "{} is no LoRA adapter: its change has no factors to look at; train it with --peft-type lora",
                path.display()
            )));
        }
        let folder = AdapterFolder::read(path).input("reading the adapter")?;
        if folder.config.dora {
            return Err(AppError::usage(format!(
                "{} is a DoRA adapter: its change of a weight has no thin factors to look at",
                path.display()
            )));
        }
        Ok(Some(folder))
    };
    Ok([read(folder)?, read(&initial)?])
}

/// The change of each layer with its scale in it, by name.
fn changes(folder: &AdapterFolder) -> Result<BTreeMap<String, LowRank>, AppError> {
    let folded = lowrank_store::export::fold(folder).while_doing("folding the scale")?;
    let change = |factor: &lowrank_store::peft::Factor| {
        let change =
            LowRank::from_rows(&factor.left, &factor.right, factor.output, factor.input, factor.rank);
        Ok((factor.module.clone(), change.while_doing(&factor.module)?))
    };
    folded.factors.iter().map(change).collect()
}

fn write(path: &Path, text: &str) -> Result<(), AppError> {
    lowrank_store::text::write(path, text).while_doing(format!("writing {}", path.display()))
}
