//! `lowrank eval`: perplexity, multiple choice, or the logits themselves, of a model with or without an adapter.

mod encoder;
mod measured;
mod t5;
mod vision;

use std::fmt;
use std::path::{Path, PathBuf};

use lowrank_eval::{MultipleChoice, Perplexity, perplexity};
use lowrank_task::{Batching, Layout};
use lowrank_tensor::to_rows;
use serde::Serialize;

use crate::choices::{FormatChoice, LossOn, TaskChoice, Widen};
use crate::data::{dataset, token_rows};
use crate::objective::batches;
use crate::subject::{Kind, Score, kind_of};
use crate::{AppError, Model, Progress, questions};
use lowrank_command::Because;
use measured::measured;

/// What to evaluate on.
#[derive(Debug, Clone, clap::Args)]
pub struct Evaluate {
    /// Model: a Hugging Face directory or a GGUF file; without it the small decoder inside this binary
    #[arg(long, value_name = "DIR|FILE")]
    pub model: Option<PathBuf>,
    /// What an encoder answers: a class, a number, or hidden tokens; without it the model is a decoder
    #[arg(long, value_name = "TASK", value_enum)]
    pub task: Option<TaskChoice>,
    /// Adapter folder to apply
    #[arg(long, value_name = "DIR")]
    pub adapter: Option<PathBuf>,
    /// Perplexity on this text: JSONL or plain text; without anything asked, the text inside this binary
    #[arg(long, value_name = "FILE")]
    pub data: Option<PathBuf>,
    /// Multiple choice on these questions: JSONL (question, choices, answer) or a BIG-bench task.json
    #[arg(long, value_name = "FILE")]
    pub questions: Option<PathBuf>,
    /// Rows of token ids, a JSON list of lists, for --dump-logits
    #[arg(long, value_name = "FILE.json", requires = "dump_logits")]
    pub tokens: Option<PathBuf>,
    /// Write the logits [rows, longest, vocabulary] of --tokens, shorter rows filled up with token 0 behind their end; with --task
    /// the answers [records, labels] to --data
    #[arg(long, value_name = "FILE.safetensors")]
    pub dump_logits: Option<PathBuf>,
    /// Use at most this many records or questions; 0 is all
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub limit: usize,
    /// Longest sequence in tokens; longer ones are cut; 0 is the model's context, at most 1024
    #[arg(long, default_value_t = 0, value_name = "TOKENS")]
    pub max_length: usize,
    /// Rows in one forward pass
    #[arg(long, default_value_t = 8, value_name = "N")]
    pub batch: usize,
    /// Whether prompts go through the model's chat template
    #[arg(long, default_value = "auto", value_enum)]
    pub format: FormatChoice,
    /// Which tokens are counted
    #[arg(long, default_value = "completion", value_enum)]
    pub loss_on: LossOn,
    /// Hold weights as f32 (once) or widen stored blocks in each product (on-use: less memory)
    #[arg(long, default_value = "once", value_enum)]
    pub widen: Widen,
}

/// What was measured; each part only where it was asked for.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Evaluation {
    /// Mean loss in the unit of the kind of network: nats per token of a decoder, per record or image, or squared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// Its exponential.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub perplexity: Option<f64>,
    /// Tokens counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// Multiple-choice questions asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub questions: Option<usize>,
    /// What is told of an encoder's answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<Score>,
    /// Share answered rightly.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
    /// Share answered rightly when probabilities are compared per byte.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy_per_byte: Option<f64>,
    /// Share that a random guess gets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chance: Option<f64>,
    /// Standard error of the accuracy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub standard_error: Option<f64>,
    /// The file of logits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logits: Option<PathBuf>,
    /// Largest memory of the process, in bytes, where the system tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_bytes: Option<u64>,
}

impl fmt::Display for Evaluation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Some(loss), None) = (self.loss, self.perplexity) {
            writeln!(f, "loss {loss:.4}")?;
        }
        if let Some(score) = &self.score {
            writeln!(f, "{} {:.4}", score.name, score.value)?;
        }
        if let (Some(loss), Some(perplexity), Some(tokens)) = (self.loss, self.perplexity, self.tokens) {
            writeln!(f, "perplexity {perplexity:.3} (loss {loss:.4} nats per token, {tokens} tokens)")?;
        }
        if let (Some(questions), Some(accuracy), Some(error)) =
            (self.questions, self.accuracy, self.standard_error)
        {
            writeln!(f, "accuracy {accuracy:.3} ± {error:.3} ({questions} questions, one standard error)")?;
        }
        if let (Some(accuracy), Some(chance)) = (self.accuracy_per_byte, self.chance) {
            writeln!(f, "accuracy {accuracy:.3} by probability per byte; guessing gives {chance:.3}")?;
        }
        if let Some(path) = &self.logits {
            writeln!(f, "logits: {}", path.display())?;
        }
        Ok(())
    }
}

/// Measures what the options ask for.
///
/// # Errors
/// [`AppError::Usage`] for input that cannot be used, naming file and line.
pub fn evaluate(options: &Evaluate, progress: &mut dyn Progress) -> Result<Evaluation, AppError> {
    if options.batch == 0 {
        return Err(AppError::usage("--batch 0: give at least 1"));
    }
    if let Some(task) = options.task {
        measured::admit(options)?;
        return encoder::evaluate(options, task, progress);
    }
    if let Some(path) = &options.model {
        match kind_of(path)? {
            Some(Kind::Vision) => {
                measured::admit(options)?;
                return vision::evaluate(options, path, progress);
            }
            Some(Kind::T5) => {
                measured::admit(options)?;
                return t5::evaluate(options, path, progress);
            }
            _ => {}
        }
    }
    if options.dump_logits.is_some() && options.tokens.is_none() {
        return Err(AppError::usage(
            "--dump-logits needs --tokens FILE.json: the rows whose logits are written",
        ));
    }
    let nothing_asked = options.questions.is_none() && options.tokens.is_none() && options.data.is_none();
    if nothing_asked && options.model.is_some() {
        return Err(AppError::usage(
            "say on what to evaluate: --data, --questions, or --tokens with --dump-logits",
        ));
    }
    measured::refuse_written(options.dump_logits.as_deref())?;
    let mut model = Model::open(options.model.as_deref(), options.widen.hold())?;
    if let Some(folder) = &options.adapter {
        model.mount(folder)?;
    }
    let mut found = Evaluation::default();
    if let (Some(tokens), Some(out)) = (&options.tokens, &options.dump_logits) {
        dump_logits(&model, tokens, out, options.batch)?;
        found.logits = Some(out.clone());
    }
    if options.data.is_some() || nothing_asked {
        let Perplexity { loss, perplexity, tokens } = on_text(options, &model, progress)?;
        (found.loss, found.perplexity, found.tokens) = (Some(loss), Some(perplexity), Some(tokens));
    }
    if let Some(file) = &options.questions {
        let shares = on_questions(options, file, &model, progress)?;
        found.questions = Some(shares.questions);
        (found.accuracy, found.accuracy_per_byte) = (Some(shares.accuracy), Some(shares.accuracy_per_byte));
        (found.chance, found.standard_error) = (Some(shares.chance), Some(shares.standard_error));
    }
    found.peak_bytes = progress.peak_memory();
    Ok(found)
}

fn on_text(options: &Evaluate, model: &Model, progress: &mut dyn Progress) -> Result<Perplexity, AppError> {
    let max_length = model.length(options.max_length)?;
    let layout = Layout { format: options.format.format(), loss_on: options.loss_on.learn(), max_length };
    let read = dataset(options.data.as_deref(), &layout, options.limit, model)?;
    for line in read.summary.to_string().lines() {
        progress.say(line);
    }
    let longest = read.examples.iter().map(|example| example.tokens.len()).max().unwrap_or(2);
    let time = max_length.min(longest.max(256));
    let batching = Batching { batch: options.batch, time, packing: true, pad: model.tokenizer()?.pad() };
    let batches = batches(&read.examples, batching).input("batching the data")?;
    progress.begin("perplexity", batches.len() as u64);
    let measured = perplexity(&model.decoder, &batches, &mut |done| {
        progress.step(done as u64, "");
        !progress.stopping()
    });
    progress.end();
    finished(progress)?;
    measured
        .input("the data")?
        .ok_or_else(|| AppError::usage("no token of the data carries loss; try --loss-on all"))
}

fn on_questions(
    options: &Evaluate,
    file: &Path,
    model: &Model,
    progress: &mut dyn Progress,
) -> Result<MultipleChoice, AppError> {
    let questions = questions::read(file, options.limit, options.format, model)?;
    questions::ask(&questions, file, model, progress)
}

/// A figure of a part of the data would look like one of the whole.
fn finished(progress: &dyn Progress) -> Result<(), AppError> {
    if progress.stopping() { Err(AppError::failed("stopped before everything was read")) } else { Ok(()) }
}

fn dump_logits(model: &Model, tokens: &Path, out: &Path, batch: usize) -> Result<(), AppError> {
    let rows = token_rows(tokens, model)?;
    let longest = rows.iter().map(Vec::len).max().unwrap_or(1);
    let vocabulary = model.decoder.config.vocabulary;
    let mut bytes = Vec::with_capacity(rows.len() * longest * vocabulary * 4);
    for rows in rows.chunks(batch) {
        let mut filled = Vec::with_capacity(rows.len() * longest);
        for row in rows {
            filled.extend(row);
            filled.resize(filled.len() + longest - row.len(), 0);
        }
        let layout = lowrank_tensor::ops::Layout::dense(rows.len(), longest);
        let logits = to_rows(model.decoder.logits(&filled, &layout).input(tokens.display())?);
        bytes.extend(logits.into_iter().flat_map(f32::to_le_bytes));
    }
    measured::dump(out, &[rows.len(), longest, vocabulary], &bytes)
}
