//! `lowrank generate`: continues prompts, each with one of the adapters that were given or with none. The model is opened once, all
//! adapters are mounted once, and a prompt switches to its own.

mod requests;

use std::collections::BTreeMap;
use std::path::PathBuf;

use lowrank_attach::activate;
use lowrank_models::Sampling;
use lowrank_record::Seed;
use lowrank_task::{Format, Layout, LossOn as Learn, Record, end_of_turn, prompt};
use serde::Serialize;

use crate::choices::Widen;
use crate::model::PROMPT;
use crate::{AppError, Model, Progress};
use lowrank_command::Because;
use lowrank_command::options::key_value;
use requests::{Adapter, Adapters, Request};

/// What to continue and how.
#[derive(Debug, Clone, clap::Args)]
pub struct Generate {
    /// Model: a Hugging Face directory or a GGUF file; without it the small decoder inside this binary
    #[arg(long, value_name = "DIR|FILE")]
    pub model: Option<PathBuf>,
    /// Adapter folder to apply, by the name of the folder or the one before =; may be repeated
    #[arg(long, value_name = "[NAME=]DIR", value_parser = requests::adapter)]
    pub adapter: Vec<(String, PathBuf)>,
    /// Multiply the scale of an adapter by this, as NAME=FACTOR; may be repeated
    #[arg(long, value_name = "NAME=FACTOR", value_parser = key_value)]
    pub adapter_scale: Vec<(String, String)>,
    /// The text to continue, or the question to answer; may be repeated
    #[arg(long, value_name = "TEXT", required_unless_present = "prompts")]
    pub prompt: Vec<String>,
    /// The adapter of the prompts, or `none`: given once for all of --prompt, or once for each in their order; a single adapter
    /// need not be named
    #[arg(long = "use", value_name = "NAME")]
    pub uses: Vec<String>,
    /// More prompts, one JSON object a line: {"prompt": "…", "adapter": "NAME"}, or a JSON string
    #[arg(long, value_name = "FILE.jsonl")]
    pub prompts: Option<PathBuf>,
    /// How the prompt is written: through the chat template, or as it stands (raw), or as question and answer (plain)
    #[arg(long, default_value = "auto", value_enum)]
    pub format: PromptFormat,
    /// Most tokens to write
    #[arg(long, default_value_t = 128, value_name = "N")]
    pub max_tokens: usize,
    /// 0 always takes the likeliest token; larger values draw more freely
    #[arg(long, default_value_t = 0.0, value_name = "T")]
    pub temperature: f64,
    /// Draw among the K likeliest tokens only; 0 is no limit
    #[arg(long, default_value_t = 0, value_name = "K")]
    pub top_k: usize,
    /// Draw among the likeliest tokens that together have probability P
    #[arg(long, default_value_t = 1.0, value_name = "P")]
    pub top_p: f64,
    /// Seed of the draws
    #[arg(long, default_value_t = 0, value_name = "SEED")]
    pub seed: u64,
    /// Hold weights as f32 (once) or widen stored blocks in each product (on-use: less memory)
    #[arg(long, default_value = "once", value_enum)]
    pub widen: Widen,
}

/// How a prompt is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum PromptFormat {
    /// As the adapter was trained; without one, chat if the model has a template, raw otherwise.
    Auto,
    /// Through the chat template.
    Chat,
    /// As `Question: … Answer:`, the way question/answer data are trained on without a template.
    Plain,
    /// As it stands.
    Raw,
}

/// What was written.
#[derive(Debug, Clone, Serialize)]
pub struct Generated {
    /// The adapter that took part, by its name.
    pub adapter: Option<String>,
    /// The text.
    pub text: String,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens written.
    pub tokens: usize,
    /// Tokens written in a second, the reading of the prompt included; `None` where the clock stands still.
    pub tokens_per_second: Option<f64>,
}

/// What was written, one text a prompt, in their order.
#[derive(Debug, Clone)]
pub struct Generation {
    /// One a prompt.
    pub results: Vec<Generated>,
}

impl std::fmt::Display for Generation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let texts: Vec<&str> = self.results.iter().map(|result| result.text.as_str()).collect();
        f.write_str(&texts.join("\n"))
    }
}

/// One object for one prompt, a list for several.
impl Serialize for Generation {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.results.as_slice() {
            [only] => only.serialize(serializer),
            several => several.serialize(serializer),
        }
    }
}

/// Continues the prompts one after another; `each` is handed the texts as they come, with a line end between two.
///
/// # Errors
/// [`AppError::Usage`] for a model, adapter or prompt that cannot be used: a prompt longer than the context is named
/// with both lengths, an adapter that was not given with the nearest that was.
pub fn generate(
    options: &Generate,
    progress: &mut dyn Progress,
    each: &mut dyn FnMut(&str),
) -> Result<Generation, AppError> {
    check(options)?;
    let adapters = Adapters::of(options)?;
    let requests = requests::of(options, &adapters)?;
    let mut model = Model::open(options.model.as_deref(), options.widen.hold())?;
    let mut trained: BTreeMap<String, String> = BTreeMap::new();
    for Adapter { name, folder, times } in &adapters.0 {
        let mounted = model.mount_as(folder, name, *times)?;
        trained.extend(mounted.provenance.get(PROMPT).map(|format| (name.clone(), format.clone())));
    }
    // All of them before the first is run: a prompt that cannot be read should not come after an hour.
    let mut prompts = Vec::with_capacity(requests.len());
    for Request { prompt, adapter, place } in &requests {
        let trained = adapter.as_ref().and_then(|name| trained.get(name));
        let format = options.format.decided(trained.map(String::as_str), &model);
        let tokens = prompt_tokens(prompt, format, &model, place)?;
        let context = model.decoder.config.context;
        if tokens.len() >= context {
            return Err(AppError::usage(format!(
                "{place}: the prompt has {} tokens, the model's context is {context}: shorten the prompt",
                tokens.len()
            )));
        }
        prompts.push((tokens, format, adapter));
    }
    let mut results = Vec::with_capacity(prompts.len());
    for (index, (tokens, format, adapter)) in prompts.iter().enumerate() {
        if progress.stopping() {
            break;
        }
        if index > 0 {
            each("\n");
        }
        if prompts.len() > 1 {
            let with = adapter.as_deref().unwrap_or("no adapter");
            progress.say(&format!("prompt {} of {}, {with}", index + 1, prompts.len()));
        }
        activate(&mut model.decoder, adapter.as_deref()).while_doing("switching adapters")?;
        let generated = one(options, &model, tokens, *format, progress, each)?;
        results.push(Generated { adapter: (*adapter).clone(), ..generated });
    }
    Ok(Generation { results })
}

/// Continues one prompt with what is active.
fn one(
    options: &Generate,
    model: &Model,
    tokens: &[u32],
    format: PromptFormat,
    progress: &mut dyn Progress,
    each: &mut dyn FnMut(&str),
) -> Result<Generated, AppError> {
    let tokenizer = model.tokenizer()?;
    let mut ends = tokenizer.eos().to_vec();
    if let (PromptFormat::Chat, Some(template)) = (format, &model.template) {
        // What chat training teaches to write behind an answer, where the model's own list lacks it.
        ends.extend(end_of_turn(tokenizer, template).input("the model's chat template")?);
    }
    let sampling = Sampling {
        temperature: options.temperature,
        top_k: options.top_k,
        top_p: options.top_p,
        seed: Seed(options.seed),
    };
    let begun = progress.now();
    let mut stream = tokenizer.stream(false);
    let (mut text, mut undecodable) = (String::new(), None);
    let written = model.decoder.generate(tokens, options.max_tokens, &ends, &sampling, &mut |token| {
        match stream.push(token) {
            Ok(piece) => {
                each(&piece);
                text.push_str(&piece);
            }
            Err(error) => undecodable = Some(error),
        }
        undecodable.is_none() && !progress.stopping()
    });
    let written = written.while_doing("generating")?;
    if let Some(error) = undecodable {
        return Err(AppError::failed(format!("decoding what was generated: {error}")));
    }
    let rest = stream.finish().while_doing("decoding what was generated")?;
    each(&rest);
    text.push_str(&rest);
    let seconds = progress.now() - begun;
    Ok(Generated {
        adapter: None,
        text,
        prompt_tokens: tokens.len(),
        tokens: written.len(),
        tokens_per_second: (seconds > 0.0).then(|| written.len() as f64 / seconds),
    })
}

fn check(options: &Generate) -> Result<(), AppError> {
    if !(options.temperature.is_finite() && options.temperature >= 0.0) {
        return Err(AppError::usage(format!("--temperature {}: give 0 or more", options.temperature)));
    }
    if !(options.top_p > 0.0 && options.top_p <= 1.0) {
        return Err(AppError::usage(format!(
            "--top-p {}: give a probability above 0, at most 1",
            options.top_p
        )));
    }
    Ok(())
}

impl PromptFormat {
    /// What `auto` means here: as the adapter's records say it was `trained`, if they do.
    fn decided(self, trained: Option<&str>, model: &Model) -> PromptFormat {
        if self != PromptFormat::Auto {
            return self;
        }
        let known = trained.and_then(|name| <PromptFormat as clap::ValueEnum>::from_str(name, false).ok());
        known.filter(|format| *format != PromptFormat::Auto).unwrap_or(match model.template {
            Some(_) => PromptFormat::Chat,
            None => PromptFormat::Raw,
        })
    }
}

fn prompt_tokens(text: &str, format: PromptFormat, model: &Model, place: &str) -> Result<Vec<u32>, AppError> {
    let tokenizer = model.tokenizer()?;
    let format = match format {
        PromptFormat::Auto | PromptFormat::Raw => {
            let mut tokens = tokenizer.around().0.to_vec();
            tokens.extend(tokenizer.encode(text, false).input(place)?);
            if tokens.is_empty() {
                return Err(AppError::usage(format!("{place} is empty: give a text to continue")));
            }
            return Ok(tokens);
        }
        PromptFormat::Chat => Format::Chat,
        PromptFormat::Plain => Format::Plain,
    };
    // The answer is only there to make a whole record: the prompt ends before it.
    let record = Record::QuestionAnswer { question: text.to_owned(), answer: "-".to_owned() };
    let layout = Layout { format, loss_on: Learn::Answers, max_length: usize::MAX };
    let tokens = prompt(&record, tokenizer, model.template.as_ref(), &layout).input(place)?;
    Ok(tokens.unwrap_or_default())
}
