//! `lowrank combine`: makes one adapter of several that are for one base, and verifies what it wrote.

mod assemble;
mod gather;
mod judge;
mod settings;

use std::fmt;
use std::path::PathBuf;

use lowrank_store::atomic::Existing;
use lowrank_store::peft::AdapterFolder;
use serde::Serialize;

use crate::output::{ADAPTER_FILES, Writes, admit, existing, go_on, verified};
use crate::recompress::recompress;
use crate::{AppError, Progress};
use lowrank_command::Because;

pub use settings::SignChoice;

/// What to combine, how, and where to.
#[derive(Debug, Clone, clap::Args)]
pub struct Combine {
    /// Adapter folders, two or more, all for one base
    #[arg(value_name = "DIR", required = true, num_args = 2..)]
    pub adapters: Vec<PathBuf>,
    /// How much each counts, in their order; a negative weight takes a change away
    #[arg(long, value_name = "W,W,...", value_delimiter = ',', required = true, allow_hyphen_values = true)]
    pub weights: Vec<f64>,
    /// The combination, as `lowrank list` shows them; PEFT's spelling (ties_svd) is understood too
    #[arg(long, default_value = "cat", value_name = "NAME")]
    pub how: String,
    /// Part of the entries to keep, above 0 and at most 1, for combinations that drop entries
    #[arg(long, value_name = "PART")]
    pub density: Option<f64>,
    /// What elects the sign of an entry; without it total
    #[arg(long, value_name = "BY")]
    pub sign: Option<SignChoice>,
    /// Rank of the result of svd and of names that end in -svd; without it the largest rank of the adapters
    #[arg(long, value_name = "R")]
    pub rank: Option<usize>,
    /// Clamp the factors of svd and of names that end in -svd at this quantile of their entries, such as 0.99
    #[arg(long, value_name = "Q")]
    pub clamp: Option<f64>,
    /// What random masks are drawn from; without it 0
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Cut every change back to this rank by SVD; the relative error is shown
    #[arg(long, value_name = "R")]
    pub recompress: Option<usize>,
    /// The base, a Hugging Face directory or a GGUF file: compares logits of the result with those of all adapters at once
    #[arg(long, value_name = "DIR|FILE")]
    pub model: Option<PathBuf>,
    /// Where the result goes: a PEFT folder
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Replace the output if it exists
    #[arg(long)]
    pub overwrite: bool,
}

/// What was combined.
#[derive(Debug, Clone, Serialize)]
pub struct Combined {
    /// Where it went.
    pub out: PathBuf,
    /// The combination.
    pub how: &'static str,
    /// How many adapters went in.
    pub adapters: usize,
    /// Layers with a change.
    pub sites: usize,
    /// Largest rank of a change.
    pub rank: usize,
    /// `‖result − Σ weight·change‖` as a part of `‖Σ weight·change‖`, over all layers; `None` when the sum is zero.
    pub from_sum: Option<f64>,
    /// Largest relative error of a recompressed change; `None` when none was.
    pub recompression_error: Option<f64>,
    /// With a model: what was seen of the logits.
    pub logits: Option<judge::Logits>,
    /// What the user should know.
    pub notes: Vec<String>,
}

impl fmt::Display for Combined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        writeln!(
            f,
            "{} adapters combined by {}: {} layers, rank at most {}, in {}",
            self.adapters,
            self.how,
            self.sites,
            self.rank,
            self.out.display()
        )?;
        if let Some(error) = self.recompression_error {
            writeln!(f, "recompressed: relative error of a change at most {error:.2e}")?;
        }
        match self.from_sum {
            Some(part) => write!(f, "distance from the weighted sum of the changes: {part:.1e} of it")?,
            None => write!(f, "the weighted sum of the changes is zero")?,
        }
        if let Some(judge::Logits { effect, from_sum, read_difference }) = &self.logits {
            write!(
                f,
                "\nlogits: the result moves them by {effect:.1e}, and differs from all adapters at once by {from_sum:.1e}; read \
                 back from disk by {read_difference:.1e}"
            )?;
        }
        Ok(())
    }
}

/// Combines, writes, reads back and compares.
///
/// # Errors
/// [`AppError::Usage`] for adapters that do not belong together or hold what no combination can take, and for settings that
/// the combination does not look at; [`AppError::Failed`] when what was written is not what was made.
pub fn combine(options: &Combine, progress: &mut dyn Progress) -> Result<Combined, AppError> {
    let (method, chosen) = settings::checked(options)?;
    admit(&options.out, options.overwrite, Writes::Folder(&ADAPTER_FILES))?;
    let (gathered, mut notes) = gather::read(options)?;
    let sites = gather::sites(&gathered)?;
    progress.begin("combining layers", sites.len() as u64);
    let mut factors = Vec::new();
    let mut measured = judge::FromSum::default();
    for (done, site) in sites.iter().enumerate() {
        go_on(progress)?;
        let combined = chosen.combine(method, site)?;
        measured.add(method.card().name, site, &combined)?;
        factors.push(site.factor(&combined));
        progress.step(done as u64 + 1, &site.module);
    }
    progress.end();
    let mut folder = assemble::folder(options, method.card().name, &gathered, factors)?;
    let mut recompression_error = None;
    if let Some(rank) = options.recompress {
        let (smaller, worst) = recompress(&folder, &|_| Some(rank))?;
        measured = judge::FromSum::of(&sites, &smaller)?;
        (folder, recompression_error) = (smaller, Some(worst));
    }
    if options.model.is_none() {
        notes.push("without --model the result was read back, and not run".to_owned());
    }
    let mut bench = judge::Bench::open(options, &gathered, &folder)?;
    let exact = method.card().name == "cat" && options.recompress.is_none();
    go_on(progress)?;
    progress.say(&format!("writing {}", options.out.display()));
    verified(&options.out, existing(options.overwrite), |beside| {
        folder.write(beside, Existing::Refuse).while_doing("writing the result")?;
        let read = AdapterFolder::read(beside).while_doing("reading the result back")?;
        if read.factors != folder.factors {
            return Err(AppError::failed(
                "the result read back is not the one that was made; nothing is kept",
            ));
        }
        Ok(Combined {
            out: options.out.clone(),
            how: method.card().name,
            adapters: gathered.len(),
            sites: folder.factors.len(),
            rank: folder.factors.iter().map(|factor| factor.rank).max().unwrap_or(0),
            from_sum: measured.relative(),
            recompression_error,
            logits: bench.as_mut().map(|bench| bench.compare(&read, exact)).transpose()?,
            notes,
        })
    })
}
