//! What the commands that adapt a network need to know of its kind: how its model and data are opened, how examples become
//! batches, what is measured, and what of it is trained whole. A kind of network joins by a file and a line in [`kind`].

mod decoder;
pub(crate) mod encoder;
pub(crate) mod t5;
pub(crate) mod vision;

use std::path::Path;

use lowrank_models::{ModelError, Network, Passed};
use lowrank_record::Seed;
use lowrank_store::atomic::Existing;
use lowrank_store::json;
use lowrank_task::{Batching, TaskError, TokenizedQuestion};
use lowrank_train::Failure;
use serde::Serialize;

use crate::choices::{FormatChoice, Shown, TaskChoice};
use crate::data::Data;
use crate::ground::Adaptation;
use crate::{AppError, Model, Progress};
use lowrank_command::Because;

/// The batches of one epoch.
pub(crate) trait Epoch<R> {
    /// How many there are; never 0.
    fn batches(&self) -> usize;
    /// Places of each, padding included.
    fn places(&self) -> Vec<usize>;
    /// One of them, from 0.
    ///
    /// # Errors
    /// [`TaskError::NoSuchBatch`].
    fn batch(&self, index: usize) -> Result<R, TaskError>;
}

/// How examples are laid into batches.
pub(crate) trait Laying: Copy + std::fmt::Debug {
    /// Rows, places and padding.
    fn batching(&self) -> Batching;
    /// The same with another number of rows.
    fn with_rows(&self, rows: usize) -> Self;
}

/// In what order examples come.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Order {
    /// That of an epoch, drawn from a seed.
    Drawn(Seed, u64),
    /// That of the file, or any other that is the same each time: for evaluation.
    Fixed,
}

/// The sides of a network from which its memory and time are predicted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sides {
    /// Rows of the head for each token; 0 where it has none for each.
    pub(crate) vocabulary: usize,
    /// Width of the hidden state.
    pub(crate) hidden: usize,
    /// Width inside the feed-forward part.
    pub(crate) intermediate: usize,
    /// Blocks.
    pub(crate) layers: usize,
    /// Heads of queries.
    pub(crate) heads: usize,
    /// Width of a head.
    pub(crate) head_dim: usize,
    /// Heads of keys and values.
    pub(crate) kv_heads: usize,
}

/// What is told of answers beside their loss.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Score {
    /// `accuracy` or `correlation`.
    pub name: &'static str,
    /// The share that is right, or Pearson's coefficient.
    pub value: f64,
}

/// A model, its data, and how they are laid.
pub(crate) struct Opened<N: Subject> {
    pub(crate) model: Model<N>,
    pub(crate) data: Data<N::Example, N::Summary>,
    pub(crate) laying: N::Laying,
}

/// A network that can be adapted.
pub(crate) trait Subject: Network + Sized + 'static {
    /// What is learned from, one record of the data.
    type Example: Clone;
    /// Some examples side by side.
    type Rows;
    /// What is told of the data that were read.
    type Summary: std::fmt::Display;
    /// How examples become rows.
    type Laying: Laying;

    /// Opens model and data.
    ///
    /// # Errors
    /// [`AppError::Usage`] naming what cannot be used.
    fn open(options: &Adaptation, progress: &mut dyn Progress) -> Result<Opened<Self>, AppError>;

    /// The batches of some examples.
    ///
    /// # Errors
    /// What they cannot be laid for.
    fn epoch<'a>(
        examples: &'a [Self::Example],
        laying: Self::Laying,
        order: Order,
    ) -> Result<Box<dyn Epoch<Self::Rows> + 'a>, TaskError>;

    /// What the network is fed.
    fn fed(rows: &Self::Rows) -> Self::Batch;

    /// Which rows of each stream are let into statistics of inputs.
    fn shown(rows: &Self::Rows, shown: Shown) -> Vec<Vec<bool>>;

    /// Tokens of examples in some rows.
    fn filled(rows: &Self::Rows) -> usize;

    /// Summed loss of held-out rows and its weight.
    ///
    /// # Errors
    /// What the network says.
    fn evaluate_all(&self, held_out: &[Self::Rows]) -> Result<(f64, f64), Failure>;

    /// What is told of the answers to held-out rows beside the loss, if anything is.
    ///
    /// # Errors
    /// What the network says.
    fn score(&self, held_out: &[Self::Rows]) -> Result<Option<Score>, Failure> {
        let _ = held_out;
        Ok(None)
    }

    /// What the losses are measured in.
    fn unit(&self) -> &'static str {
        "nats per token"
    }

    /// Hash of examples in their order: what a run was trained on.
    fn hash(examples: &[Self::Example]) -> String;

    /// What was read of a file of held-out data, in a line.
    fn held_out_line(summary: &Self::Summary) -> String;

    /// The model in a line.
    fn introduce(model: &Model<Self>) -> String;

    /// Rows of token ids to collect evidence on.
    ///
    /// # Errors
    /// [`AppError::Usage`] where the file holds none, or the network takes none.
    fn token_rows(file: &Path, model: &Model<Self>) -> Result<Vec<Vec<u32>>, AppError> {
        let _ = model;
        Err(AppError::usage(format!(
            "--calibration-tokens {}: rows of tokens are for decoders; --calibration N draws records of the data",
            file.display()
        )))
    }

    /// Rows of token ids, laid.
    ///
    /// # Errors
    /// What they cannot be laid for.
    fn laid(rows: Vec<Vec<u32>>, laying: Self::Laying) -> Result<Vec<Self::Rows>, TaskError> {
        let _ = (rows, laying);
        Err(TaskError::NoRecords)
    }

    /// Multiple-choice questions as the model reads them.
    ///
    /// # Errors
    /// [`AppError::Usage`] naming the file and the line, or where the network answers none.
    fn questions(
        file: &Path,
        format: FormatChoice,
        model: &Model<Self>,
    ) -> Result<Vec<TokenizedQuestion>, AppError> {
        let _ = (format, model);
        Err(AppError::usage(format!("--questions {}: they are asked of decoders", file.display())))
    }

    /// Asks them; the share answered rightly.
    ///
    /// # Errors
    /// As asking.
    fn ask(
        questions: &[TokenizedQuestion],
        file: &Path,
        model: &Model<Self>,
        progress: &mut dyn Progress,
    ) -> Result<f64, AppError> {
        let _ = (questions, model, progress);
        Err(AppError::usage(format!("--questions {}: they are asked of decoders", file.display())))
    }

    /// Answers to a fixed input, which adapters are verified by.
    ///
    /// # Errors
    /// [`AppError::Failed`] with what the network says.
    fn sample(&self) -> Result<Vec<f32>, AppError>;

    /// Its sides.
    fn sides(&self) -> Sides;

    /// PEFT's `task_type`.
    fn peft_task(&self) -> Option<&'static str>;

    /// Whether the base stores weights `[in, out]`.
    fn is_transposed(&self) -> bool {
        false
    }

    /// What an adapter's provenance says of the data.
    fn provenance(data: &Data<Self::Example, Self::Summary>) -> Vec<(&'static str, String)>;

    /// The layers that are trained whole beside the adapters: PEFT's `modules_to_save`.
    fn head(&self) -> Vec<String> {
        Vec::new()
    }

    /// Draws what no file held anew.
    ///
    /// # Errors
    /// What the network says.
    fn draw_head(&mut self, seed: Seed) -> Result<(), AppError> {
        let _ = seed;
        Ok(())
    }

    /// Whether the base that a start leaves can be written, known before anything is computed.
    ///
    /// # Errors
    /// [`AppError::Usage`] where it cannot.
    fn admits_base(out: &Path) -> Result<(), AppError> {
        Err(AppError::usage(format!("--base-out {}: only the base of a decoder is written", out.display())))
    }

    /// Writes the base that a start left.
    ///
    /// # Errors
    /// As [`Subject::admits_base`]; [`AppError::Usage`] when the folder exists, [`AppError::Failed`] when it cannot be written.
    fn write_base(model: &Model<Self>, out: &Path, existing: Existing) -> Result<(), AppError> {
        let _ = (model, existing);
        Self::admits_base(out)
    }
}

/// The losses of rows, summed, and their weight.
///
/// # Errors
/// What the network says of the first rows that it cannot take.
fn summed<R>(rows: &[R], passed: impl Fn(&R) -> Result<Passed, ModelError>) -> Result<(f64, f64), Failure> {
    let (mut loss, mut weight) = (0.0, 0.0);
    for rows in rows {
        let one = passed(rows)?;
        loss += one.loss_sum;
        weight += one.weight;
    }
    Ok((loss, weight))
}

/// The kinds of networks that commands adapt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Writes text.
    Decoder,
    /// Reads text.
    Encoder,
    /// Looks at images.
    Vision,
    /// Reads one text and writes another.
    T5,
}

/// The kind of network that a task, or a model's directory, is for.
///
/// # Errors
/// [`AppError::Usage`] for an encoder without a task, and for a task that is not the model's.
pub(crate) fn kind(options: &Adaptation) -> Result<Kind, AppError> {
    let model_type = options.model.as_deref().map(model_type).transpose()?.flatten();
    let of_directory = model_type.as_deref().and_then(kind_of_type);
    match (options.task, of_directory) {
        (Some(_), Some(Kind::Vision | Kind::T5)) => Err(AppError::usage(format!(
            "--task is for encoders; the model is of type {}, and its data say what it learns",
            model_type.unwrap_or_default()
        ))),
        (Some(_), _) => Ok(Kind::Encoder),
        (None, Some(Kind::Encoder)) => Err(AppError::usage(format!(
            "the model is an encoder ({}): say what it should learn with --task {}",
            model_type.unwrap_or_default(),
            TaskChoice::NAMES.join("|")
        ))),
        (None, found) => Ok(found.unwrap_or(Kind::Decoder)),
    }
}

/// The kind of network in a directory, beside the decoders; `None` for those and for files.
///
/// # Errors
/// [`AppError::Usage`] for a `config.json` that cannot be read.
pub(crate) fn kind_of(model: &Path) -> Result<Option<Kind>, AppError> {
    Ok(model_type(model)?.as_deref().and_then(kind_of_type))
}

/// The type in the `config.json` of a directory, if there is one.
fn model_type(model: &Path) -> Result<Option<String>, AppError> {
    let config = model.join("config.json");
    if !config.is_file() {
        return Ok(None);
    }
    let config = json::read(&config).input("reading the model")?;
    Ok(config["model_type"].as_str().map(str::to_owned))
}

/// Whose type this is, beside the decoders.
fn kind_of_type(model_type: &str) -> Option<Kind> {
    let kinds = [
        (lowrank_models::encoder::config::MODEL_TYPES, Kind::Encoder),
        (lowrank_models::vision::config::MODEL_TYPES, Kind::Vision),
        (lowrank_models::t5::config::MODEL_TYPES, Kind::T5),
    ];
    kinds.into_iter().find(|(types, _)| types.contains(&model_type)).map(|(_, kind)| kind)
}
