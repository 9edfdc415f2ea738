//! `lowrank merge`: writes the model with an adapter inside its weights, and verifies what it wrote.

use std::fmt;
use std::path::{Path, PathBuf};

use lowrank_store::atomic::{self, Existing};
use lowrank_store::{Format, GgufFile};
use serde::Serialize;

use crate::error::Because;
use crate::model::{ADAPTER, NO_TOKENIZER, write_directory};
use crate::output::{DIRECTORY_FORMATS, GGUF_FORMATS, number_format, refuse_existing, verified};
use crate::verify::{TOLERANCE, largest_difference, sample_logits, size};
use crate::{AppError, Model, Progress, embedded};

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
    /// Largest difference of logits to accept, as a part of the largest logit; without it 1e-4 in F32, and what the
    /// rounding of the format explains otherwise
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
    /// Largest absolute logit, at least 1, to judge the differences by.
    pub largest_logit: f64,
}

impl fmt::Display for Merged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "merged {} layers into {} as {}", self.sites, self.out.display(), self.format)?;
        write!(
            f,
            "logits against base + adapter: merged in memory differ by at most {:.1e}, read back from disk by {:.1e} \
             (largest logit {:.1})",
            self.merged_difference, self.read_difference, self.largest_logit
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
    refuse_existing(&options.out, options.overwrite)?;
    let mut model = Model::open(options.model.as_deref(), lowrank_models::Widen::Once)?;
    let adapter = model.mount(&options.adapter)?;
    let expected = sample_logits(&model)?;
    for (name, linear) in model.decoder.sites_mut() {
        if linear.adapters().iter().any(|mounted| mounted.name == ADAPTER) {
            linear.merge(ADAPTER).while_doing(format!("merging {name}"))?;
        }
    }
    let merged_difference = largest_difference(&expected, &sample_logits(&model)?);
    progress.say(&format!("merged {} layers; writing {}", adapter.factors.len(), options.out.display()));
    verified(&options.out, |beside| {
        write(&model, beside, format)?;
        let read = Model::open(Some(beside), lowrank_models::Widen::Once)?;
        let merged = Merged {
            out: options.out.clone(),
            sites: adapter.factors.len(),
            format: format.to_string(),
            merged_difference,
            read_difference: largest_difference(&expected, &sample_logits(&read)?),
            largest_logit: size(&expected),
        };
        judge(&merged, options.tolerance.unwrap_or(tolerance(format)))?;
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

/// How far logits may move by the rounding of the weights: half a unit in the last place of a weight, times what a dozen
/// layers make of it.
fn tolerance(format: Format) -> f64 {
    match format {
        Format::F32 => TOLERANCE,
        Format::F16 => 1e-2,
        _ => 5e-2,
    }
}

fn judge(merged: &Merged, tolerance: f64) -> Result<(), AppError> {
    let allowed = tolerance * merged.largest_logit;
    let worst = merged.merged_difference.max(merged.read_difference);
    // NaN is not within anything.
    if !(merged.merged_difference <= allowed && merged.read_difference <= allowed) {
        return Err(AppError::failed(format!(
            "the merged model does not compute what base and adapter do: logits differ by {worst:.2e}, allowed are \
             {allowed:.2e}; nothing was written. In {} the change may drown in rounding: merge as F32, or raise --tolerance",
            merged.format
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(difference: f64) -> Merged {
        Merged {
            out: "m".into(),
            sites: 1,
            format: "BF16".into(),
            merged_difference: 0.0,
            read_difference: difference,
            largest_logit: 10.0,
        }
    }

    #[test]
    fn a_model_that_computes_something_else_is_refused() {
        assert!(judge(&merged(0.9e-3), 1e-4).is_ok());
        assert!(judge(&merged(1.1e-3), 1e-4).is_err());
        assert!(judge(&merged(f64::NAN), 1.0).is_err());
    }
}
