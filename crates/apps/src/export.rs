//! `lowrank export`: rewrites an adapter for one reader, or says what that reader would misread; verifies what it wrote.

use std::fmt;
use std::path::{Path, PathBuf};

use lowrank_store::atomic::{Disk, Existing};
use lowrank_store::export::{
    Note, Reader, check_reader, fold, pad, read_llama_cpp, read_mlx, stack, write_llama_cpp, write_mlx,
};
use lowrank_store::peft::AdapterFolder;
use serde::Serialize;

use crate::model::{BASE_HASH, OFFSET};
use crate::output::{ADAPTER_FILES, MLX_FILES, Writes, admit, existing, go_on, verified};
use crate::recompress::recompress;
use crate::verify::{allowed, largest_difference, logits_with, sample_logits};
use crate::{AppError, Model, Progress};
use lowrank_command::Because;

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
    /// Cut every change back to this rank by SVD; the relative error and what it does to the logits are shown
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
    /// Largest difference of logits that the adapter as it was makes to the model.
    pub effect: f64,
    /// Largest relative error of a recompressed change; `None` when the export is exact.
    pub recompression_error: Option<f64>,
    /// Largest difference of logits between the adapter as it was and the recompressed one; `None` when the export is
    /// exact.
    pub recompression_difference: Option<f64>,
    /// Largest difference of logits between what was to be written (the adapter as it was, or recompressed) and the
    /// result read back from disk.
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
        if let (Some(error), Some(difference)) = (self.recompression_error, self.recompression_difference) {
            writeln!(
                f,
                "recompressed: relative error of a change at most {error:.2e}, logits differ from the original adapter's \
                 by at most {difference:.1e}"
            )?;
        }
        write!(
            f,
            "read back from disk: logits differ by at most {:.1e} (the adapter moves them by {:.1e})",
            self.read_difference, self.effect
        )
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
    admit(&options.out, options.overwrite, writes(reader))?;
    let adapter = read(options)?;
    let (smaller, recompression_error) = match options.recompress {
        Some(rank) => {
            let (smaller, worst) = recompress(&adapter, &|_| Some(rank))?;
            (smaller, Some(worst))
        }
        None => (adapter.clone(), None),
    };
    let plain = plain(&smaller, reader).input("the adapter")?;
    // Before the model is opened: what the reader cannot do, no model can mend.
    let mut notes = check_reader(reader, &plain.config, &plain.factors)
        .map_err(|refusal| AppError::usage(refusal.to_string()))?;
    notes.extend(
        adapter
            .passed_over
            .iter()
            .map(|name| Note(format!("{name} was passed over: a frozen weight that the base has too"))),
    );

    let mut model = Model::open(options.model.as_deref(), lowrank_models::Widen::Once)?;
    tied_head(reader, &adapter, &model)?;
    if reader == Reader::LlamaCpp {
        // Refused before anything is computed.
        model.decoder.config.llama_cpp_base().input("--for llama.cpp")?;
    }
    model.check(&adapter, &options.adapter)?;
    let base = sample_logits(&model)?;
    model.apply(&adapter).input("the adapter")?;
    let original = sample_logits(&model)?;
    model.unmount()?;
    let mut expected = original.clone();
    if recompression_error.is_some() {
        expected = logits_with(&mut model, &smaller)?;
    }
    go_on(progress)?;
    progress.say(&format!("writing {} for {}", options.out.display(), reader.name()));
    verified(&options.out, existing(options.overwrite), |beside| {
        let read = write(&plain, reader, &model, beside)?;
        go_on(progress)?;
        let difference = largest_difference(&expected, &logits_with(&mut model, &read)?);
        let allowed = allowed(&base, &expected);
        // NaN is not within anything.
        if difference.is_nan() || difference > allowed {
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
            effect: largest_difference(&base, &original),
            recompression_error,
            recompression_difference: recompression_error.map(|_| largest_difference(&original, &expected)),
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
    let seen = AdapterFolder::look(&options.adapter).input("reading the adapter")?;
    let mut plain = if seen.folder.config.init.changes_base() {
        AdapterFolder::read_with_initial(&options.adapter, initial).input("reading the adapter")?
    } else {
        take_back(options, initial)?
    };
    plain.provenance.remove(OFFSET);
    // What was trained names the changed base.
    plain.config.base_model = options.model.as_ref().map(|path| path.display().to_string());
    Ok(plain)
}

/// The adapter of a training that went on from our `initial/` folder, whose configuration does not name the start.
fn take_back(options: &Export, initial: &Path) -> Result<AdapterFolder, AppError> {
    let trained = AdapterFolder::read(&options.adapter).input("reading the adapter")?;
    let first = AdapterFolder::read(initial).input("reading the initial adapter")?;
    if !first.provenance.contains_key(OFFSET) {
        return Err(AppError::usage(format!(
            "--initial {}: these factors do not say that they began a training on a changed base, as `lowrank init` writes \
             them into initial/; there is nothing to take back",
            initial.display()
        )));
    }
    if trained.provenance.contains_key(BASE_HASH) && !trained.provenance.contains_key(OFFSET) {
        return Err(AppError::usage(format!(
            "{} was written for the unmodified base: its start is taken back already, and must not be a second time; drop \
             --initial",
            options.adapter.display()
        )));
    }
    stack(&trained, &first).input("taking the start back")
}

/// llama.cpp refuses a changed head that is the embedding.
fn tied_head(reader: Reader, adapter: &AdapterFolder, model: &Model) -> Result<(), AppError> {
    if reader == Reader::LlamaCpp && model.decoder.config.tied && adapter.factor("lm_head").is_some() {
        return Err(AppError::usage(format!(
            "llama.cpp would not read this adapter rightly: lm_head has factors, but {} ties its head to the embedding \
             (exclude lm_head from the targets)",
            model.name
        )));
    }
    Ok(())
}

/// What the reader's layout is made of.
fn writes(reader: Reader) -> Writes<'static> {
    match reader {
        Reader::LlamaCpp => Writes::File,
        Reader::Mlx => Writes::Folder(&MLX_FILES),
        Reader::Peft | Reader::Vllm | Reader::MistralRs => Writes::Folder(&ADAPTER_FILES),
    }
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
            let base = model.decoder.config.llama_cpp_base().while_doing("writing the export")?;
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
