//! From the user's data file to examples to train on and examples held out.

use std::path::Path;

use lowrank_record::Seed;
use lowrank_store::{json, jsonl, text};
use lowrank_task::{
    BigBench, Dataset, Example, HeldOut, Layout, Summary, read_records, split, tokenize, tokenize_plain_text,
};

use crate::error::Because;
use crate::{AppError, Model, embedded};

/// Examples of a run.
pub struct Data {
    /// To train on.
    pub train: Vec<Example>,
    /// To evaluate on; empty when nothing is held out.
    pub held_out: Vec<Example>,
    /// What was read.
    pub summary: Summary,
    /// Hash of the examples in order, for resuming and for the adapter's records.
    pub hash: String,
}

/// What to read and how.
#[derive(Debug, Clone, Copy)]
pub struct Reading<'a> {
    /// The data file; `None` is the text inside this binary.
    pub data: Option<&'a Path>,
    /// Held-out data, if it has a file of its own.
    pub held_out_data: Option<&'a Path>,
    /// Share held out otherwise; 0 holds nothing out.
    pub held_out: f64,
    /// Records to use; 0 is all.
    pub limit: usize,
    /// How records become text.
    pub layout: Layout,
}

/// Reads and tokenises the data and splits it.
///
/// # Errors
/// [`AppError::Usage`] naming the file and the line.
pub fn read(reading: &Reading<'_>, model: &Model, seed: Seed) -> Result<Data, AppError> {
    if !(0.0..=0.9).contains(&reading.held_out) {
        return Err(AppError::usage(format!("--held-out {}: give a share from 0 to 0.9", reading.held_out)));
    }
    let Dataset { examples, summary } = dataset(reading.data, &reading.layout, reading.limit, model)?;
    let hash = hash(&examples);
    let (train, held_out) = match reading.held_out_data {
        Some(file) => (examples, dataset(Some(file), &reading.layout, 0, model)?.examples),
        None if reading.held_out == 0.0 => (examples, Vec::new()),
        None => {
            let parts = split(examples, HeldOut::Fraction(reading.held_out), seed.at("data", "split"))
                .input("holding data out (--held-out 0 holds nothing out)")?;
            (parts.train, parts.held_out)
        }
    };
    Ok(Data { train, held_out, summary, hash })
}

/// One file as at most `limit` examples, 0 for all; `None` is the text inside this binary.
///
/// # Errors
/// [`AppError::Usage`] naming the file and the line.
pub(crate) fn dataset(
    file: Option<&Path>,
    layout: &Layout,
    limit: usize,
    model: &Model,
) -> Result<Dataset, AppError> {
    let mut read = whole(file, layout, limit, model)?;
    if limit > 0 {
        read.examples.truncate(limit);
    }
    Ok(read)
}

/// A file, of which records behind the first `limit` are not read where they stand line by line.
fn whole(file: Option<&Path>, layout: &Layout, limit: usize, model: &Model) -> Result<Dataset, AppError> {
    let tokenizer = model.tokenizer()?;
    let Some(file) = file else {
        return tokenize_plain_text(embedded::TEXT, tokenizer, layout.max_length)
            .input("the text inside this binary");
    };
    let name = file.display();
    if !file.is_file() {
        return Err(AppError::usage(format!("no data file at {name}")));
    }
    let extension = file.extension().and_then(|extension| extension.to_str()).unwrap_or("");
    match extension {
        "jsonl" | "ndjson" => {
            let mut lines = Vec::new();
            for line in jsonl::read(file).input("reading the data")? {
                lines.push(line.input("reading the data")?);
                if limit > 0 && lines.len() >= limit {
                    break;
                }
            }
            let records = read_records(lines).input(&name)?;
            tokenize(&records, tokenizer, model.template.as_ref(), layout).input(&name)
        }
        "json" => {
            let task = json::read(file).input("reading the data")?;
            let records = BigBench::from_json(&task).input(&name)?.records;
            tokenize(&records, tokenizer, model.template.as_ref(), layout).input(&name)
        }
        _ => {
            let content = text::read(file).input("reading the data")?;
            tokenize_plain_text(&content, tokenizer, layout.max_length).input(&name)
        }
    }
}

/// Rows of token ids.
///
/// # Errors
/// [`AppError::Usage`] when the file is not a list of non-empty lists of token ids of the model.
pub(crate) fn token_rows(file: &Path, model: &Model) -> Result<Vec<Vec<u32>>, AppError> {
    let name = file.display();
    let value = json::read(file).input("reading the token rows")?;
    let rows: Vec<Vec<u32>> = serde_json::from_value(value)
        .map_err(|error| AppError::usage(format!("{name}: not a list of lists of token ids: {error}")))?;
    if rows.is_empty() {
        return Err(AppError::usage(format!("{name}: no rows")));
    }
    let vocabulary = model.decoder.config.vocabulary;
    for (index, row) in rows.iter().enumerate() {
        if row.is_empty() {
            return Err(AppError::usage(format!("{name}: row {index} is empty")));
        }
        if let Some(token) = row.iter().find(|&&token| token as usize >= vocabulary) {
            return Err(AppError::usage(format!(
                "{name}: row {index} holds token {token}, the model has {vocabulary}"
            )));
        }
    }
    Ok(rows)
}

/// Hash of examples in their order: what a run was trained on.
pub(crate) fn hash(examples: &[Example]) -> String {
    let mut bytes = Vec::new();
    for example in examples {
        for (token, learned) in example.tokens.iter().zip(&example.loss) {
            bytes.extend(token.to_le_bytes());
            bytes.push(u8::from(*learned));
        }
        bytes.push(0xff);
    }
    lowrank_store::hash::of_bytes(&bytes)
}
