//! T5 on prompts and answers.

use std::path::Path;
use std::sync::Arc;

use lowrank_models::t5::{Batch, Config, Source};
use lowrank_models::{Network as _, T5};
use lowrank_store::{TensorSource, hash, json, tensors};
use lowrank_task::{
    Batching, Dataset, EpochOrder, Example, PairBatch, Pick, Summary, TaskError, tokenize_pairs,
};
use lowrank_tensor::ops::Targets;
use lowrank_tensor::{cpu, to_rows};
use lowrank_train::Failure;

use super::{Epoch, Laying, Opened, Order, Sides, Subject, summed};
use crate::choices::{FormatChoice, LossOn, RecomputeChoice, Shown, Widen};
use crate::data::{self, Data, HoldingOut, pair_records};
use crate::ground::Adaptation;
use crate::{AppError, Model, Progress};
use lowrank_command::Because;

/// Longest text of a side where nothing else is asked: T5 was trained on no longer ones.
pub(crate) const LENGTH: usize = 512;

/// How pairs are laid.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PairLaying {
    batching: Batching,
    /// What a decoder begins with.
    start: u32,
}

impl PairLaying {
    pub(crate) fn new(batching: Batching, start: u32) -> PairLaying {
        PairLaying { batching, start }
    }
}

impl Laying for PairLaying {
    fn batching(&self) -> Batching {
        self.batching
    }

    fn with_rows(&self, rows: usize) -> PairLaying {
        PairLaying { batching: Batching { batch: rows, ..self.batching }, ..*self }
    }
}

/// The batches of an epoch.
struct Walk<'a> {
    examples: &'a [Example],
    order: EpochOrder,
    laying: PairLaying,
}

impl Walk<'_> {
    fn rows(&self, index: usize) -> Result<Vec<&Example>, TaskError> {
        Ok(self.order.samples(index)?.iter().map(|&place| &self.examples[place]).collect())
    }
}

impl Epoch<PairBatch> for Walk<'_> {
    fn batches(&self) -> usize {
        self.order.batches()
    }

    fn places(&self) -> Vec<usize> {
        let longest = |rows: &[&Example], side: &dyn Fn(&Example) -> usize| {
            rows.iter().map(|example| side(example)).max().unwrap_or(0)
        };
        let places = |rows: Vec<&Example>| {
            let source = longest(&rows, &|example| example.prompt().len());
            let answer = longest(&rows, &|example| example.tokens.len() - example.prompt().len());
            rows.len() * (source + answer)
        };
        (0..self.batches()).map(|index| self.rows(index).map_or(0, places)).collect()
    }

    fn batch(&self, index: usize) -> Result<PairBatch, TaskError> {
        PairBatch::of(&self.rows(index)?, self.laying.start, self.laying.batching.pad)
    }
}

impl Subject for T5 {
    type Example = Example;
    type Rows = PairBatch;
    type Summary = Summary;
    type Laying = PairLaying;

    fn open(options: &Adaptation, progress: &mut dyn Progress) -> Result<Opened<T5>, AppError> {
        refuse(options)?;
        let (Some(path), Some(file)) = (&options.model, &options.data) else {
            return Err(AppError::usage(
                "--data FILE is needed with --model: what should the adapter learn?",
            ));
        };
        let model = open(path, options.widen)?;
        progress.say(&T5::introduce(&model));
        let max_length = if options.max_length > 0 { options.max_length } else { LENGTH };
        let read = |file: &Path, limit: usize| -> Result<Dataset, AppError> {
            let (records, undecided) = pair_records(file, limit)?;
            let mut data = tokenize_pairs(&records, model.tokenizer()?, max_length).input(file.display())?;
            data.summary.undecided = undecided;
            Ok(data)
        };
        let Dataset { examples, summary } = read(file, options.limit)?;
        let hash = data::hash(&examples);
        let other = options.held_out_data.as_ref().map(|file| read(file, 0)).transpose()?;
        let (other, held_out_summary) = other.map(|other| (other.examples, other.summary)).unzip();
        let holding = HoldingOut::by(options);
        let (train, held_out) = holding.of(examples, other, Pick::Anywhere(holding.seed))?;
        let pad = model.tokenizer()?.pad();
        let batching = Batching { batch: options.batch, time: summary.longest, packing: false, pad };
        let laying = PairLaying { batching, start: model.decoder.config.start };
        let data = Data { train, held_out, summary, held_out_summary, hash };
        Ok(Opened { model, data, laying })
    }

    fn epoch<'a>(
        examples: &'a [Example],
        laying: PairLaying,
        order: Order,
    ) -> Result<Box<dyn Epoch<PairBatch> + 'a>, TaskError> {
        let batch = laying.batching.batch;
        let order = match order {
            Order::Drawn(seed, epoch) => EpochOrder::shuffled(examples.len(), batch, seed, epoch)?,
            Order::Fixed => EpochOrder::of_the_file(examples.len(), batch)?,
        };
        Ok(Box::new(Walk { examples, order, laying }))
    }

    fn fed(rows: &PairBatch) -> Batch {
        let source = Source {
            tokens: rows.source.clone(),
            // Without padding attention needs no marks.
            visible: rows.visible.contains(&false).then(|| rows.visible.clone()),
            batch: rows.batch,
            time: rows.source_time,
        };
        let targets = Targets { ids: rows.targets.clone().into(), weights: None };
        Batch { source, tokens: rows.tokens.clone(), targets }
    }

    fn shown(rows: &PairBatch, _shown: Shown) -> Vec<Vec<bool>> {
        vec![rows.visible.clone(), rows.targets.iter().map(|&target| target >= 0).collect()]
    }

    fn filled(rows: &PairBatch) -> usize {
        rows.filled
    }

    fn evaluate_all(&self, held_out: &[PairBatch]) -> Result<(f64, f64), Failure> {
        summed(held_out, |rows| self.evaluate(&T5::fed(rows)))
    }

    fn hash(examples: &[Example]) -> String {
        data::hash(examples)
    }

    fn held_out_line(summary: &Summary) -> String {
        format!("{} pairs, {} truncated", summary.read, summary.truncated)
    }

    fn introduce(model: &Model<T5>) -> String {
        let t5 = &model.decoder;
        format!(
            "model: {} (T5 of {} and {} layers, {} linear, {:.0} MB in memory)",
            model.name,
            t5.config.encoder_layers,
            t5.config.decoder_layers,
            t5.sites().len(),
            t5.bytes() as f64 / 1e6
        )
    }

    fn sample(&self) -> Result<Vec<f32>, AppError> {
        let token = |index: usize| ((index * 7919 + 13) % self.config.vocabulary) as u32;
        let (batch, time, answer) = (2, 16, 8);
        let source = Source { tokens: (0..batch * time).map(token).collect(), visible: None, batch, time };
        let tokens: Vec<u32> = (0..batch * answer)
            .map(|index| if index % answer == 0 { self.config.start } else { token(index + 5) })
            .collect();
        Ok(to_rows(self.logits(&source, &tokens).while_doing("running the model")?))
    }

    fn sides(&self) -> Sides {
        let config = &self.config;
        Sides {
            vocabulary: config.vocabulary,
            hidden: config.hidden,
            intermediate: config.intermediate,
            layers: config.encoder_layers + config.decoder_layers,
            heads: config.heads,
            head_dim: config.head_dim,
            kv_heads: config.heads,
        }
    }

    fn peft_task(&self) -> Option<&'static str> {
        Some("SEQ_2_SEQ_LM")
    }

    fn provenance(_data: &Data) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}

/// The model of a directory with its tokenizer.
///
/// # Errors
/// [`AppError::Usage`] with what is missing or damaged.
pub(crate) fn open(path: &Path, widen: Widen) -> Result<Model<T5>, AppError> {
    let name = path.display().to_string();
    let json = json::read(&path.join("config.json")).input("reading the model")?;
    let config = Config::from_json(&json).input(format!("{name}/config.json"))?;
    let source: Arc<dyn TensorSource> = Arc::from(tensors::open(path).input("reading the model")?);
    let hash = hash::of_tensors(&*source).input("hashing the model")?;
    let t5 = T5::from_checkpoint(config, source, widen.hold(), &cpu());
    let t5 = t5.input(format!("the model {name}"))?;
    let rows = t5.config.vocabulary;
    Model::beside(t5, rows, path, &name, hash)
}

/// Refuses what means nothing to an encoder–decoder.
fn refuse(options: &Adaptation) -> Result<(), AppError> {
    let given = [
        ("--format", options.format != FormatChoice::Auto, "prompts are taken as they are"),
        ("--loss-on", options.loss_on != LossOn::Completion, "the answer is what it learns"),
        ("--shown learned", options.shown == Shown::Learned, "the encoder is fed nothing that is learned"),
        ("--calibration-tokens", options.calibration_tokens.is_some(), "give --calibration N"),
        ("--recompute blocks", options.recompute == RecomputeChoice::Blocks, "all activations are kept"),
    ];
    match given.iter().find(|(_, given, _)| *given) {
        Some((flag, _, why)) => {
            Err(AppError::usage(format!("{flag} means nothing to an encoder-decoder: {why}")))
        }
        None => Ok(()),
    }
}
