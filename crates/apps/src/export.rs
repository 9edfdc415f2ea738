//! `lowrank export`: rewrites an adapter for one reader, or says what that reader would misread; verifies what it wrote.

use std::fmt;
use std::path::{Path, PathBuf};

use lowrank_store::atomic::{Disk, Existing};
use lowrank_store::export::{
    Note, Reader, check_reader, fold, pad, read_llama_cpp, read_mlx, stack, write_llama_cpp, write_mlx,
};
use lowrank_store::peft::AdapterFolder;
use serde::Serialize;

use crate::error::Because;
use crate::output::{refuse_existing, verified};
use crate::recompress::recompress;
use crate::verify::{TOLERANCE, largest_difference, sample_logits, size};
use crate::{AppError, Model, Progress};

/// What to export, for whom, and where to.
#[derive(Debug, Clone, clap::Args)]
pub struct Export {
    /// Adapter folder
    #[arg(long, value_name = "DIR")]
    pub adapter: PathBuf,
    /// The reader: peft, vllm, llama.cpp, mistral.rs or mlx
    #[arg(long = "for", default_value = "peft", value_name = "READER")]
    pub reader: String,
    /// The model that the adapter is for, to verify the result on; without it the small decoder inside this binary
    #[arg(long, value_name = "DIR|FILE")]
    pub model: Option<PathBuf>,
    /// Where the result goes: a folder, for llama.cpp a file.gguf
    #[arg(long, value_name = "DIR|FILE.gguf")]
    pub out: PathBuf,
    /// The factors that the training began with, for adapters trained on a changed base (PiSSA, LoRA-GA in Python)
    #[arg(long, value_name = "DIR")]
    pub initial: Option<PathBuf>,
    /// Cut every change back to this rank by SVD; the relative error is shown
    #[arg(long, value_name = "R")]
    pub recompress: Option<usize>,
    /// Replace the output if it exists
    #[arg(long)]
    pub overwrite: bool,
}

/// What was exported.
#[derive(Debug, Clone, Serialize)]
pub struct Exported {
    /// Where it went.
    pub out: PathBuf,
    /// For whom.
    pub reader: &'static str,
    /// Layers with a change.
    pub sites: usize,
    /// Largest rank of a change.
    pub rank: usize,
    /// Largest relative error of a recompressed change; `None` when the export is exact.
    pub recompression_error: Option<f64>,
    /// Largest difference of logits between the adapter as it was and the result read back from disk.
    pub read_difference: f64,
    /// What the user of the reader should know.
    pub notes: Vec<String>,
}

impl fmt::Display for Exported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        let (out, reader) = (self.out.display(), self.reader);
        writeln!(f, "{} layers, rank at most {}, for {reader}: {out}", self.sites, self.rank)?;
        if let Some(error) = self.recompression_error {
            writeln!(f, "recompressed: relative error of a change at most {error:.2e}")?;
        }
        write!(f, "read back from disk: logits differ by at most {:.1e}", self.read_difference)
    }
}

/// Rewrites, writes, reads back and compares.
///
/// # Errors
/// [`AppError::Usage`] with every reason why the reader would misread the adapter; [`AppError::Failed`] when what was
/// written computes something else, in which case nothing is left under the output's name.
pub fn export(options: &Export, progress: &mut dyn Progress) -> Result<Exported, AppError> {
    let reader = Reader::named(&options.reader).ok_or_else(|| {
        let known: Vec<&str> = Reader::ALL.iter().map(|reader| reader.name()).collect();
        AppError::usage(format!("--for {}: known readers are {}", options.reader, known.join(", ")))
    })?;
    if options.recompress == Some(0) {
        return Err(AppError::usage("--recompress 0: give a rank of at least 1"));
    }
    refuse_existing(&options.out, options.overwrite)?;
    let adapter = read(options)?;
    let mut model = Model::open(options.model.as_deref(), lowrank_models::Widen::Once)?;
    model.check(&adapter, &options.adapter)?;
    model.apply(&adapter).input("the adapter")?;
    let expected = sample_logits(&model)?;
    model.unmount()?;

    let mut plain = plain(&adapter, reader).input("the adapter")?;
    let mut recompression_error = None;
    if let Some(rank) = options.recompress {
        let (smaller, worst) = recompress(&plain, &|_| Some(rank))?;
        (plain, recompression_error) = (smaller, Some(worst));
    }
    let notes = check_reader(reader, &plain.config, &plain.factors)
        .map_err(|refusal| AppError::usage(refusal.to_string()))?;
    progress.say(&format!("writing {} for {}", options.out.display(), reader.name()));
    verified(&options.out, |beside| {
        let read = write(&plain, reader, &model, beside)?;
        model.apply(&read).input("the adapter")?;
        let difference = largest_difference(&expected, &sample_logits(&model)?);
        let allowed = TOLERANCE * size(&expected);
        // NaN is not within anything; a recompressed change differs by what was printed.
        if difference.is_nan() || (difference > allowed && recompression_error.is_none()) {
            return Err(AppError::failed(format!(
                "what was written does not compute what the adapter does: logits differ by {difference:.2e}, allowed are \
                 {allowed:.2e}; nothing is kept"
            )));
        }
        Ok(Exported {
            out: options.out.clone(),
            reader: reader.name(),
            sites: plain.factors.len(),
            rank: plain.factors.iter().map(|factor| factor.rank).max().unwrap_or(0),
            recompression_error,
            read_difference: difference,
            notes: notes.into_iter().map(|Note(note)| note).collect(),
        })
    })
}

/// The adapter for the untouched base.
fn read(options: &Export) -> Result<AdapterFolder, AppError> {
    let Some(initial) = &options.initial else {
        return AdapterFolder::read(&options.adapter).input("reading the adapter");
    };
    if let Ok(trained) = AdapterFolder::read(&options.adapter) {
        // Trained from our `initial/` folder, whose configuration does not name the start.
        let initial = AdapterFolder::read(initial).input("reading the initial adapter")?;
        let mut stacked = stack(&trained, &initial.factors).input("taking the start back")?;
        stacked.provenance.remove(crate::model::OFFSET);
        return Ok(stacked);
    }
    AdapterFolder::read_with_initial(&options.adapter, initial).input("reading the adapter")
}

/// The scale folded in, and for readers with one rank for all also padded.
fn plain(adapter: &AdapterFolder, reader: Reader) -> Result<AdapterFolder, lowrank_store::peft::PeftError> {
    match reader {
        Reader::Peft | Reader::MistralRs => fold(adapter),
        Reader::Vllm | Reader::LlamaCpp | Reader::Mlx => pad(adapter).and_then(|padded| fold(&padded)),
    }
}

/// Writes in the reader's layout and reads that back.
fn write(
    plain: &AdapterFolder,
    reader: Reader,
    model: &Model,
    out: &Path,
) -> Result<AdapterFolder, AppError> {
    let disk = Disk::real();
    match reader {
        Reader::LlamaCpp => {
            let base = model.decoder.config.llama_cpp_base();
            write_llama_cpp(&disk, out, &base, plain).while_doing("writing the export")?;
            read_llama_cpp(out, &base).while_doing("reading the export back")
        }
        Reader::Mlx => {
            write_mlx(&disk, out, Existing::Refuse, plain).while_doing("writing the export")?;
            read_mlx(out).while_doing("reading the export back")
        }
        Reader::Peft | Reader::Vllm | Reader::MistralRs => {
            plain.write(out, Existing::Refuse).while_doing("writing the export")?;
            AdapterFolder::read(out).while_doing("reading the export back")
        }
    }
}
