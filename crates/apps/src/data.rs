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
    let Dataset { mut examples, summary } = dataset(reading.data, reading, model)?;
    if reading.limit > 0 {
        examples.truncate(reading.limit);
    }
    let hash = hash(&examples);
    let (train, held_out) = match reading.held_out_data {
        Some(file) => (examples, dataset(Some(file), reading, model)?.examples),
        None if reading.held_out == 0.0 => (examples, Vec::new()),
        None => {
            let parts = split(examples, HeldOut::Fraction(reading.held_out), seed.at("data", "split"))
                .input("holding data out (--held-out 0 holds nothing out)")?;
            (parts.train, parts.held_out)
        }
    };
    Ok(Data { train, held_out, summary, hash })
}

/// One file as examples.
pub(crate) fn dataset(
    file: Option<&Path>,
    reading: &Reading<'_>,
    model: &Model,
) -> Result<Dataset, AppError> {
    let tokenizer = model.tokenizer()?;
    let Some(file) = file else {
        return tokenize_plain_text(embedded::TEXT, tokenizer, reading.layout.max_length)
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
                if reading.limit > 0 && lines.len() >= reading.limit {
                    break;
                }
            }
            let records = read_records(lines).input(&name)?;
            tokenize(&records, tokenizer, model.template.as_ref(), &reading.layout).input(&name)
        }
        "json" => {
            let task = json::read(file).input("reading the data")?;
            let records = BigBench::from_json(&task).input(&name)?.records;
            tokenize(&records, tokenizer, model.template.as_ref(), &reading.layout).input(&name)
        }
        _ => {
            let content = text::read(file).input("reading the data")?;
            tokenize_plain_text(&content, tokenizer, reading.layout.max_length).input(&name)
        }
    }
}

fn hash(examples: &[Example]) -> String {
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
