//! `lowrank merge`: writes the model with an adapter inside its weights, and verifies what it wrote.

use std::fmt;
use std::path::{Path, PathBuf};

use lowrank_store::atomic::{self, Existing};
use lowrank_store::{Format, GgufFile};
use serde::Serialize;

use crate::model::{ADAPTER, NO_TOKENIZER, directory_files, write_directory};
use crate::output::{
    DIRECTORY_FORMATS, GGUF_FORMATS, Writes, admit, existing, go_on, number_format, verified,
};
use crate::verify::{allowed, largest_difference, sample_logits, size};
use crate::{AppError, Model, Progress, embedded};
use lowrank_command::Because;

/// What to merge and where to.
#[derive(Debug, Clone, clap::Args)]
pub struct Merge {
    /// Model: a Hugging Face directory or a GGUF file; without it the small decoder inside this binary
    #[arg(long, value_name = "DIR|FILE")]
    pub model: Option<PathBuf>,
    /// Adapter folder to merge
    #[arg(long, value_name = "DIR")]
    pub adapter: PathBuf,
    /// Where the merged model goes: a folder in Hugging Face's layout, or a file.gguf when the model is one
    #[arg(long, value_name = "DIR|FILE.gguf")]
    pub out: PathBuf,
    /// Number format of the merged weights: F32, F16 or BF16, in GGUF also Q8_0; anything but F32 rounds the change
    #[arg(long, default_value = "F32", value_name = "FORMAT")]
    pub format: String,
    /// Largest difference of logits to accept, as a part of the largest logit; without it at most 1e-4 in F32, less for
    /// an adapter that does little, and what the rounding of the format explains otherwise
    #[arg(long, value_name = "PART")]
    pub tolerance: Option<f64>,
    /// Replace the output if it exists
    #[arg(long)]
    pub overwrite: bool,
}

/// What was merged.
#[derive(Debug, Clone, Serialize)]
pub struct Merged {
    /// Where it went.
    pub out: PathBuf,
    /// Layers that had a change.
    pub sites: usize,
    /// Number format of the weights.
    pub format: String,
    /// Largest difference of logits between base with adapter and merged weights in memory.
    pub merged_difference: f64,
    /// Largest difference of logits between base with adapter and the model read back from disk.
    pub read_difference: f64,
    /// Largest difference of logits that the adapter makes to the base.
    pub effect: f64,
    /// Largest absolute logit, at least 1, to judge the differences by.
    pub largest_logit: f64,
}

impl fmt::Display for Merged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "merged {} layers into {} as {}", self.sites, self.out.display(), self.format)?;
        write!(
            f,
            "logits against base + adapter: merged in memory differ by at most {:.1e}, read back from disk by {:.1e} \
             (the adapter moves them by {:.1e}, the largest is {:.1})",
            self.merged_difference, self.read_difference, self.effect, self.largest_logit
        )
    }
}

/// Merges, writes, reads back and compares.
///
/// # Errors
/// [`AppError::Usage`] for input that cannot be used; [`AppError::Failed`] when the merged model computes something
/// else than base and adapter, in which case nothing is left under the output's name.
pub fn merge(options: &Merge, progress: &mut dyn Progress) -> Result<Merged, AppError> {
    let format = checked_format(options)?;
    let files = directory_files(options.model.as_deref());
    let writes = if is_gguf(&options.out) { Writes::File } else { Writes::Folder(&files) };
    admit(&options.out, options.overwrite, writes)?;
    let mut model = Model::open(options.model.as_deref(), lowrank_models::Widen::Once)?;
    let base = sample_logits(&model)?;
    let adapter = model.mount(&options.adapter)?;
    let expected = sample_logits(&model)?;
    let size = size(&expected);
    let limits = Limits::of(options, format, allowed(&base, &expected), size);
    for (name, linear) in model.decoder.sites_mut() {
        if linear.adapters().iter().any(|mounted| mounted.name == ADAPTER) {
            linear.merge(ADAPTER).while_doing(format!("merging {name}"))?;
        }
    }
    let merged_difference = largest_difference(&expected, &sample_logits(&model)?);
    go_on(progress)?;
    progress.say(&format!("merged {} layers; writing {}", adapter.layers, options.out.display()));
    verified(&options.out, existing(options.overwrite), |beside| {
        write(&model, beside, format)?;
        go_on(progress)?;
        let read = Model::open(Some(beside), lowrank_models::Widen::Once)?;
        let merged = Merged {
            out: options.out.clone(),
            sites: adapter.layers,
            format: format.to_string(),
            merged_difference,
            read_difference: largest_difference(&expected, &sample_logits(&read)?),
            effect: largest_difference(&base, &expected),
            largest_logit: size,
        };
        judge(&merged, limits)?;
        if merged.read_difference > merged.effect {
            progress.say(&format!(
                "warning: rounding to {format} moves the logits by more than the adapter does; merge as F32 to keep its \
                 change"
            ));
        }
        if !is_gguf(&options.out) && !model.is_directory() {
            progress.say(NO_TOKENIZER);
        }
        Ok(merged)
    })
}

fn is_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
}

fn checked_format(options: &Merge) -> Result<Format, AppError> {
    if is_gguf(&options.out) && options.model.as_deref().is_some_and(Path::is_dir) {
        return Err(AppError::usage(
            "--out FILE.gguf is for models that are GGUF: merge into a folder and convert it by llama.cpp's \
             convert_hf_to_gguf.py, which also converts the tokenizer",
        ));
    }
    number_format(&options.format, if is_gguf(&options.out) { &GGUF_FORMATS } else { &DIRECTORY_FORMATS })
}

fn write(model: &Model, out: &Path, format: Format) -> Result<(), AppError> {
    if !is_gguf(out) {
        return write_directory(model, out, format, Existing::Refuse);
    }
    let source = match &model.path {
        Some(path) => GgufFile::open(path),
        None => GgufFile::from_bytes(embedded::MODEL),
    };
    let source = source.input("reading the model")?;
    let tokenizer: Vec<_> =
        source.values().iter().filter(|(key, _)| key.starts_with("tokenizer.")).cloned().collect();
    let name = source.str("general.name").unwrap_or("merged").to_owned();
    let bytes = model.decoder.to_gguf(&name, format, tokenizer).while_doing("writing the merged model")?;
    atomic::write_file(out, |sink| sink.write_all(&bytes)).while_doing("writing the merged model")
}

/// How far the logits may be from those of base and adapter.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// In memory, where nothing but f32 rounds.
    merged: f64,
    /// After writing in the format and reading back.
    read: f64,
}

impl Limits {
    /// `exact` is what f32 may do to logits of this `size`.
    fn of(options: &Merge, format: Format, exact: f64, size: f64) -> Limits {
        // Half a unit in the last place of a weight, times what a dozen layers make of it.
        let rounded = match format {
            Format::F32 => exact,
            Format::F16 => 1e-2 * size,
            _ => 5e-2 * size,
        };
        match options.tolerance {
            Some(part) => Limits { merged: part * size, read: part * size },
            None => Limits { merged: exact, read: rounded },
        }
    }
}

fn judge(merged: &Merged, limits: Limits) -> Result<(), AppError> {
    let differences = [(merged.merged_difference, limits.merged), (merged.read_difference, limits.read)];
    for (difference, allowed) in differences {
        // NaN is not within anything.
        if difference.is_nan() || difference > allowed {
            return Err(AppError::failed(format!(
                "the merged model does not compute what base and adapter do: logits differ by {difference:.2e}, allowed are \
                 {allowed:.2e}; nothing was written. In {} the change may drown in rounding: merge as F32, or raise --tolerance",
                merged.format
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(in_memory: f64, read: f64) -> Merged {
        Merged {
            out: "m".into(),
            sites: 1,
            format: "BF16".into(),
            merged_difference: in_memory,
            read_difference: read,
            effect: 1.0,
            largest_logit: 10.0,
        }
    }

    #[test]
    fn a_model_that_computes_something_else_is_refused() {
        let limits = Limits { merged: 1e-4, read: 1e-3 };
        assert!(judge(&merged(0.9e-4, 0.9e-3), limits).is_ok());
        assert!(
            judge(&merged(1.1e-4, 0.9e-3), limits).is_err(),
            "rounding of the file excuses nothing in memory"
        );
        assert!(judge(&merged(0.9e-4, 1.1e-3), limits).is_err());
        let any = Limits { merged: f64::INFINITY, read: f64::INFINITY };
        assert!(judge(&merged(0.0, f64::NAN), any).is_err() && judge(&merged(f64::NAN, 0.0), any).is_err());
    }
}
