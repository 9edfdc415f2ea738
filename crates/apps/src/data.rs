//! From the user's data file to examples to train on and examples held out.

use std::path::Path;

use lowrank_record::Seed;
use lowrank_store::{json, jsonl, text};
use lowrank_task::{
    BigBench, Dataset, Example, Goal, HeldOut, Kind, Labelled, Layout, Pick, Records, Sample, Summary,
    label_by_answer, read_labelled, read_records, split, tokenize, tokenize_plain_text,
};

use crate::ground::Adaptation;
use crate::{AppError, Model, embedded};
use lowrank_command::Because;

/// Examples of a run.
pub struct Data<E = Example, S = Summary> {
    /// To train on.
    pub train: Vec<E>,
    /// To evaluate on; empty when nothing is held out.
    pub held_out: Vec<E>,
    /// What was read.
    pub summary: S,
    /// What was read of a file of held-out data, if there is one.
    pub held_out_summary: Option<S>,
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
    /// Examples to evaluate on at most; 0 is all that are held out.
    pub eval_limit: usize,
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
    let Dataset { examples, summary } = dataset(reading.data, &reading.layout, reading.limit, model)?;
    let hash = hash(&examples);
    let seed = seed.at("data", "split");
    // Neighbouring rows of one text tell of each other: there the end is held out.
    let pick = if summary.kind == Kind::PlainText { Pick::End } else { Pick::Anywhere(seed) };
    let share = HoldingOut { share: reading.held_out, at_most: reading.eval_limit, seed };
    let other =
        reading.held_out_data.map(|file| dataset(Some(file), &reading.layout, 0, model)).transpose()?;
    let (other, held_out_summary) = other.map(|other| (other.examples, other.summary)).unzip();
    let (train, held_out) = share.of(examples, other, pick)?;
    Ok(Data { train, held_out, summary, held_out_summary, hash })
}

/// What is held out of the data that were read.
pub(crate) struct HoldingOut {
    /// The share of the training data, from 0 to 0.9, where no other data are held out.
    pub(crate) share: f64,
    /// At most so many examples; 0 is all of the share.
    pub(crate) at_most: usize,
    /// Decides which.
    pub(crate) seed: Seed,
}

impl HoldingOut {
    /// As the options of a run say.
    pub(crate) fn by(options: &Adaptation) -> HoldingOut {
        let seed = Seed(options.seed).at("data", "split");
        HoldingOut { share: options.held_out, at_most: options.eval_limit, seed }
    }

    /// Examples to train on and held out: some of the others, where they were given.
    ///
    /// # Errors
    /// [`AppError::Usage`] for a share that cannot be, or that leaves nothing.
    pub(crate) fn of<S: Clone + Sample>(
        &self,
        examples: Vec<S>,
        others: Option<Vec<S>>,
        pick: Pick,
    ) -> Result<(Vec<S>, Vec<S>), AppError> {
        if !(0.0..=0.9).contains(&self.share) {
            return Err(AppError::usage(format!("--held-out {}: give a share from 0 to 0.9", self.share)));
        }
        let at_most = if self.at_most > 0 { self.at_most } else { usize::MAX };
        if let Some(others) = others {
            return Ok((examples, sample(others, at_most, self.seed)));
        }
        if self.share == 0.0 {
            return Ok((examples, Vec::new()));
        }
        let share = HeldOut::Share { share: self.share, at_most };
        let parts =
            split(examples, share, pick).input("holding data out (--held-out 0 holds nothing out)")?;
        Ok((parts.train, parts.held_out))
    }
}

/// At most so many examples, drawn from all over the file, in its order.
pub(crate) fn sample<S: Clone>(examples: Vec<S>, at_most: usize, seed: Seed) -> Vec<S> {
    if examples.len() <= at_most {
        return examples;
    }
    let mut chosen = seed.at("held-out", "sample").permutation(examples.len());
    chosen.truncate(at_most);
    chosen.sort_unstable();
    chosen.into_iter().map(|index| examples[index].clone()).collect()
}

/// One file as at most `limit` records, 0 for all (of a plain text: rows); `None` is the text inside this binary.
///
/// # Errors
/// [`AppError::Usage`] naming the file and the line.
pub(crate) fn dataset(
    file: Option<&Path>,
    layout: &Layout,
    limit: usize,
    model: &Model,
) -> Result<Dataset, AppError> {
    let (tokenizer, template) = (model.tokenizer()?, model.template.as_ref());
    let plain = |text: &str| tokenize_plain_text(text, tokenizer, layout.max_length, limit);
    let Some(file) = file else { return plain(embedded::TEXT).input("the text inside this binary") };
    let name = file.display();
    if !file.is_file() {
        return Err(AppError::usage(format!("no data file at {name}")));
    }
    let (records, undecided) = match extension(file) {
        "jsonl" | "ndjson" => (lines(file, limit)?, 0),
        "json" => document(file, limit)?,
        table @ ("csv" | "tsv" | "parquet" | "arrow" | "gz" | "zip" | "zst" | "xlsx") => {
            return Err(AppError::usage(format!(
                "{name}: .{table} files are not read; write one JSON object a line into a .jsonl file (text, \
                 prompt/completion, question/answer or messages)"
            )));
        }
        _ => {
            let content = text::read(file).input("reading the data")?;
            return plain(&content).input(&name);
        }
    };
    let mut dataset = tokenize(&records, tokenizer, template, layout).input(&name)?;
    dataset.summary.undecided = undecided;
    Ok(dataset)
}

fn extension(file: &Path) -> &str {
    file.extension().and_then(|extension| extension.to_str()).unwrap_or("")
}

/// The first `limit` records of a file with one a line; what follows is not read.
fn lines(file: &Path, limit: usize) -> Result<Records, AppError> {
    let mut lines = Vec::new();
    for line in jsonl::read(file).input("reading the data")? {
        lines.push(line.input("reading the data")?);
        if limit > 0 && lines.len() >= limit {
            break;
        }
    }
    read_records(lines).input(file.display())
}

/// The first `limit` records of a JSON document, a list of records or a BIG-bench task, and how many examples of the task
/// have no single best choice.
fn document(file: &Path, limit: usize) -> Result<(Records, usize), AppError> {
    let most = if limit > 0 { limit } else { usize::MAX };
    match json::read(file).input("reading the data")? {
        serde_json::Value::Array(list) => {
            let numbered = list.into_iter().take(most).enumerate().map(|(index, value)| (index + 1, value));
            Ok((read_records(numbered.collect::<Vec<_>>()).input(file.display())?, 0))
        }
        task => {
            let BigBench { mut records, undecided, .. } = BigBench::from_json(&task).input(file.display())?;
            records.records.truncate(most);
            Ok((records, undecided))
        }
    }
}

/// How many examples of a BIG-bench task were left out, and why.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LeftOut {
    /// Several of their choices are best.
    pub(crate) undecided: usize,
    /// Their text is empty.
    pub(crate) without_text: usize,
}

/// Takes the examples without a text out of a BIG-bench task: some published ones hold a few.
fn without_text(task: &mut serde_json::Value) -> usize {
    let Some(examples) = task.get_mut("examples").and_then(serde_json::Value::as_array_mut) else { return 0 };
    let before = examples.len();
    let blank = |example: &serde_json::Value| {
        example.get("input").and_then(serde_json::Value::as_str).is_some_and(|text| text.trim().is_empty())
    };
    examples.retain(|example| !blank(example));
    before - examples.len()
}

/// The first `limit` records of a file, 0 for all, for an encoder–decoder, and how many examples of a BIG-bench task have no
/// single best choice.
///
/// # Errors
/// [`AppError::Usage`] naming the file and the line.
pub(crate) fn pair_records(file: &Path, limit: usize) -> Result<(Records, usize), AppError> {
    let name = file.display();
    if !file.is_file() {
        return Err(AppError::usage(format!("no data file at {name}")));
    }
    match extension(file) {
        "jsonl" | "ndjson" => Ok((lines(file, limit)?, 0)),
        "json" => document(file, limit),
        other => Err(AppError::usage(format!(
            "{name}: .{other} files are not read for an encoder-decoder; write one JSON object a line into a .jsonl file \
             (prompt/completion or question/answer), or give a BIG-bench task.json"
        ))),
    }
}

/// The first `limit` records of a file as labelled texts, 0 for all, and how many examples of a BIG-bench task were left out. Of
/// such a task the prefix is left out too: it is the same for all.
///
/// # Errors
/// [`AppError::Usage`] naming the file and the line.
pub(crate) fn labelled(file: &Path, limit: usize, goal: Goal) -> Result<(Vec<Labelled>, LeftOut), AppError> {
    let name = file.display();
    if !file.is_file() {
        return Err(AppError::usage(format!("no data file at {name}")));
    }
    let most = if limit > 0 { limit } else { usize::MAX };
    match extension(file) {
        "jsonl" | "ndjson" => {
            let mut lines = Vec::new();
            for line in jsonl::read(file).input("reading the data")?.take(most) {
                lines.push(line.input("reading the data")?);
            }
            Ok((read_labelled(lines, goal).input(&name)?, LeftOut::default()))
        }
        "json" => match json::read(file).input("reading the data")? {
            serde_json::Value::Array(list) => {
                let numbered = list.into_iter().take(most).enumerate();
                let numbered = numbered.map(|(index, value)| (index + 1, value));
                Ok((read_labelled(numbered, goal).input(&name)?, LeftOut::default()))
            }
            mut task => {
                if let Some(task) = task.as_object_mut() {
                    task.remove("task_prefix");
                }
                let without_text = without_text(&mut task);
                let BigBench { mut records, undecided, .. } = BigBench::from_json(&task).input(&name)?;
                records.records.truncate(most);
                Ok((label_by_answer(records, goal).input(&name)?, LeftOut { undecided, without_text }))
            }
        },
        other => Err(AppError::usage(format!(
            "{name}: .{other} files are not read for an encoder; write one JSON object a line into a .jsonl file (text and label, \
             or two texts and label), or give a BIG-bench task.json"
        ))),
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
