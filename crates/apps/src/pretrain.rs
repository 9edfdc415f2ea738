//! `lowrank pretrain`: trains a small decoder from random weights with the toolkit's own trainer. It made the decoder
//! inside this binary (`assets/README.md`).

use std::fmt;
use std::path::PathBuf;

use lowrank_models::{Config, Decoder, Recompute};
use lowrank_record::Seed;
use lowrank_store::{hash, json, text};
use lowrank_task::{Batching, Dataset, GgufVocabulary, HeldOut, Pick, Tokenizer, split, tokenize_plain_text};
use lowrank_tensor::cpu;
use lowrank_train::{AdamW, Group, Method, Schedule, Settings, Shape, Stopped};
use serde::{Deserialize, Serialize};

use crate::objective::{Trainable, Training};
use crate::output::{GGUF_FORMATS, number_format, refuse_existing};
use crate::training::{self, Told, checked};
use crate::{AppError, Progress, vocabulary};
use lowrank_command::Because;

/// A pretraining run. Each field is a flag and a key of the recipe file.
#[derive(Debug, Clone, PartialEq, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Pretrain {
    /// Plain text to train on
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<PathBuf>,
    /// Tokenizer: byte-level BPE as tokenizer.json
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<PathBuf>,
    /// Where the model goes, as GGUF
    #[arg(long, value_name = "FILE.gguf")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub out: Option<PathBuf>,
    /// Where metrics and checkpoints go
    #[arg(long, default_value = "run", value_name = "DIR")]
    pub run: PathBuf,
    /// Go on from the newest checkpoint in the run folder
    #[arg(long)]
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub resume: bool,
    /// Replace an output file that exists
    #[arg(long)]
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub overwrite: bool,
    /// Name written into the model
    #[arg(long, default_value = "lowrank-demo", value_name = "NAME")]
    pub name: String,
    /// Width of the hidden state
    #[arg(long, default_value_t = 192, value_name = "N")]
    pub hidden: usize,
    /// Width inside the feed-forward part
    #[arg(long, default_value_t = 512, value_name = "N")]
    pub intermediate: usize,
    /// Number of blocks
    #[arg(long, default_value_t = 6, value_name = "N")]
    pub layers: usize,
    /// Query heads
    #[arg(long, default_value_t = 6, value_name = "N")]
    pub heads: usize,
    /// Key and value heads
    #[arg(long, default_value_t = 2, value_name = "N")]
    pub kv_heads: usize,
    /// Tokens of a row, and the model's context
    #[arg(long, default_value_t = 256, value_name = "N")]
    pub context: usize,
    /// Rows of a step
    #[arg(long, default_value_t = 16, value_name = "N")]
    pub batch: usize,
    /// Optimiser steps
    #[arg(long, default_value_t = 1000, value_name = "N")]
    pub steps: u64,
    /// Learning rate at its top
    #[arg(long, default_value_t = 3e-3, value_name = "RATE")]
    pub rate: f64,
    /// Decoupled weight decay of the matrices
    #[arg(long, default_value_t = 0.1, value_name = "DECAY")]
    pub weight_decay: f64,
    /// Number format of the matrices in the file
    #[arg(long, default_value = "Q8_0", value_name = "FORMAT")]
    pub format: String,
    /// Seed of the weights and of the data order
    #[arg(long, default_value_t = 0, value_name = "SEED")]
    pub seed: u64,
}

/// What pretraining gave.
#[derive(Debug, Clone, Serialize)]
pub struct Pretrained {
    /// Values in the model.
    pub parameters: usize,
    /// Tokens read.
    pub tokens: u64,
    /// Mean loss of the last step, nats per token.
    pub loss: Option<f64>,
    /// Best held-out loss, nats per token.
    pub held_out_loss: Option<f64>,
    /// Bytes of the file.
    pub bytes: usize,
    /// Seconds in all.
    pub seconds: f64,
}

impl fmt::Display for Pretrained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let loss = |loss: Option<f64>| loss.map_or_else(|| "–".to_owned(), |loss| format!("{loss:.3}"));
        write!(
            f,
            "{} parameters, {} tokens, loss {} (held out {}), {} bytes, {:.0} s",
            self.parameters,
            self.tokens,
            loss(self.loss),
            loss(self.held_out_loss),
            self.bytes,
            self.seconds
        )
    }
}

impl Pretrain {
    fn config(&self, vocabulary: usize) -> Result<Config, AppError> {
        Config::from_json(&serde_json::json!({
            "model_type": "llama", "vocab_size": vocabulary, "hidden_size": self.hidden,
            "intermediate_size": self.intermediate, "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads, "num_key_value_heads": self.kv_heads, "rms_norm_eps": 1e-5,
            "rope_theta": 10_000.0, "max_position_embeddings": self.context, "tie_word_embeddings": true,
        }))
        .input("the model's shape")
    }

    fn tokenizer(&self) -> Result<(Tokenizer, GgufVocabulary), AppError> {
        let path = self.tokenizer.as_deref().ok_or_else(|| AppError::usage("--tokenizer FILE is needed"))?;
        let document = json::read(path).input("reading the tokenizer")?;
        let vocabulary = vocabulary::of_tokenizer_json(&document)?;
        let tokenizer = Tokenizer::from_gguf(&vocabulary).input(path.display())?;
        Ok((tokenizer, vocabulary))
    }

    /// The text, and as rows of the context's length.
    fn text(&self, tokenizer: &Tokenizer) -> Result<(String, Dataset), AppError> {
        let path = self.data.as_deref().ok_or_else(|| AppError::usage("--data FILE is needed"))?;
        let content = text::read(path).input("reading the data")?;
        let dataset = tokenize_plain_text(&content, tokenizer, self.context, 0).input(path.display())?;
        Ok((content, dataset))
    }
}

/// What a dry run tells.
#[derive(Debug, Clone, Serialize)]
pub struct Planned {
    /// Values in the model.
    pub parameters: usize,
    /// Tokens in the text.
    pub text_tokens: usize,
    /// Steps.
    pub steps: u64,
    /// Tokens that all steps read.
    pub tokens: u64,
    /// Floating-point operations of all steps.
    pub flops: f64,
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} parameters, {} tokens of text", self.parameters, self.text_tokens)?;
        write!(f, "{} steps, {} tokens, {:.1} TFLOP", self.steps, self.tokens, self.flops / 1e12)
    }
}

/// What a run would do.
///
/// # Errors
/// [`AppError::Usage`] when the options do not make a model, or the data cannot be read.
pub fn dry_run(options: &Pretrain) -> Result<Planned, AppError> {
    let (tokenizer, _) = options.tokenizer()?;
    let config = options.config(tokenizer.vocabulary_size())?;
    let text_tokens = options.text(&tokenizer)?.1.summary.tokens;
    let tokens = options.steps * (options.batch * options.context) as u64;
    let (parameters, steps) = (config.parameters(), options.steps);
    // Two operations a value and token forward, four backward; attention is small beside that in models of this size.
    Ok(Planned { parameters, text_tokens, steps, tokens, flops: 6.0 * parameters as f64 * tokens as f64 })
}

/// Trains from random weights and writes a GGUF file with its tokenizer inside.
///
/// # Errors
/// [`AppError`] with what cannot be used or went wrong.
pub fn pretrain(options: &Pretrain, progress: &mut dyn Progress) -> Result<Pretrained, AppError> {
    let out = options.out.as_deref().ok_or_else(|| AppError::usage("--out FILE.gguf is needed"))?;
    let format = number_format(&options.format, &GGUF_FORMATS)?;
    refuse_existing(out, options.overwrite)?;
    let (tokenizer, vocabulary) = options.tokenizer()?;
    let seed = Seed(options.seed);
    let mut decoder =
        Decoder::random(options.config(tokenizer.vocabulary_size())?, seed.at("pretrain", "weights"), &cpu())
            .input("the model's shape")?;
    let parameters = decoder.config.parameters();
    let variables = decoder.train_all().while_doing("preparing the weights")?;
    let variables: Vec<Trainable> = variables
        .into_iter()
        .map(|(name, variable)| {
            // Gains are not decayed: shrinking them shrinks the residual stream, not the function class.
            let decay = variable.shape()[0] > 1;
            Trainable { name, group: Group::Dense, decay, variable }
        })
        .collect();
    let (content, dataset) = options.text(&tokenizer)?;
    progress.say(&format!("{parameters} parameters, {} tokens of text", dataset.summary.tokens));
    let anywhere = Pick::Anywhere(seed.at("data", "split"));
    let parts = split(dataset.examples, HeldOut::Count(64), anywhere).input("holding data out")?;
    let batching =
        Batching { batch: options.batch, time: options.context, packing: false, pad: tokenizer.pad() };
    let settings = Settings {
        steps: options.steps,
        rate: options.rate,
        weight_decay: options.weight_decay,
        optimiser: Method::AdamW(AdamW { beta2: 0.95, ..AdamW::default() }),
        schedule: Schedule { shape: Shape::Cosine, warmup_ratio: 0.05, floor: 0.05, ..Schedule::default() },
        eval_every: (options.steps / 10).max(1),
        checkpoint_every: (options.steps / 10).max(1),
        seed,
        ..Settings::default()
    };
    checked(settings.check())?;
    let mut training = Training::new(
        &decoder,
        variables,
        &parts.train,
        &parts.held_out,
        batching,
        1,
        Recompute::Nothing,
        seed.at("data", "order"),
    )
    .input("batching the data")?;
    let identity = [
        ("data", hash::of_bytes(content.as_bytes())),
        ("tokenizer", hash::of_bytes(format!("{vocabulary:?}").as_bytes())),
        ("model", decoder.config.to_json().to_string()),
        ("batch", options.batch.to_string()),
    ];
    let identity = identity.map(|(key, value)| (key.to_owned(), value)).into();
    let start = progress.now();
    let told = Told { label: "pretraining", folder: &options.run, resume: options.resume, identity };
    let (outcome, _) = training::run(&mut training, &settings, told, progress)?;
    if outcome.stopped == Stopped::Interrupted {
        let again = "the same command with --resume goes on from there";
        return Err(AppError::failed(format!("stopped at step {}; {again}", outcome.steps)));
    }
    let values = vocabulary::to_gguf(vocabulary);
    let bytes = decoder.to_gguf(&options.name, format, values).while_doing("writing the model")?;
    lowrank_store::atomic::write_file(out, |sink| sink.write_all(&bytes)).while_doing("writing the model")?;
    Ok(Pretrained {
        parameters,
        tokens: outcome.tokens,
        loss: outcome.loss,
        held_out_loss: outcome.best.map(|best| best.loss),
        bytes: bytes.len(),
        seconds: progress.now() - start,
    })
}
