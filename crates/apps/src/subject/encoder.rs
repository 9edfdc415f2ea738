//! Encoders on labelled texts, and on texts of which tokens are hidden.

use std::path::Path;
use std::sync::Arc;

use lowrank_models::encoder::{Batch, Config, Input, Labels, Purpose};
use lowrank_models::{Encoder, Network as _};
use lowrank_record::Seed;
use lowrank_store::{TensorSource, hash, json, tensors};
use lowrank_task::{
    Answers, Batching, Goal, Hiding, Labelled, Pick, Sequence, SequenceBatch, SequencePlan, SequenceSummary,
    TaskError, Wanted, classes, sequences,
};
use lowrank_tensor::ops::Targets;
use lowrank_tensor::{cpu, to_rows};
use lowrank_train::Failure;
use serde_json::Value;

use super::{Epoch, Laying, Opened, Order, Score, Sides, Subject, summed};
use crate::choices::{FormatChoice, LossOn, RecomputeChoice, Shown, TaskChoice, Widen};
use crate::data::{Data, HoldingOut, labelled};
use crate::ground::Adaptation;
use crate::{AppError, Model, Progress};
use lowrank_command::Because;

/// Longest sequence where nothing else is asked: encoders are trained on no longer ones.
const LENGTH: usize = 512;

/// The classes of an adapter in order, in its provenance: a JSON list.
pub(crate) const CLASSES: &str = "lowrank.classes";

/// How sequences are laid.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SequenceLaying {
    batching: Batching,
    hiding: Option<Hiding>,
}

impl Laying for SequenceLaying {
    fn batching(&self) -> Batching {
        self.batching
    }

    fn with_rows(&self, rows: usize) -> SequenceLaying {
        SequenceLaying { batching: Batching { batch: rows, ..self.batching }, ..*self }
    }
}

impl Epoch<SequenceBatch> for SequencePlan<'_> {
    fn batches(&self) -> usize {
        SequencePlan::batches(self)
    }

    fn places(&self) -> Vec<usize> {
        SequencePlan::places(self)
    }

    fn batch(&self, index: usize) -> Result<SequenceBatch, TaskError> {
        SequencePlan::batch(self, index)
    }
}

impl Subject for Encoder {
    type Example = Sequence;
    type Rows = SequenceBatch;
    type Summary = SequenceSummary;
    type Laying = SequenceLaying;

    fn open(options: &Adaptation, progress: &mut dyn Progress) -> Result<Opened<Encoder>, AppError> {
        refuse(options)?;
        let (Some(path), Some(file)) = (&options.model, &options.data) else {
            return Err(AppError::usage(
                "--task needs an encoder and its data: give --model DIR and --data FILE",
            ));
        };
        let goal = options.task.map_or(Goal::Class, goal);
        let (config_json, config) = configuration(path)?;
        let (records, left_out) = labelled(file, options.limit, goal)?;
        let mut names =
            if goal == Goal::Class { classes(&records).input(file.display())? } else { Vec::new() };
        let purpose = purpose(goal, &config_json, &mut names, options.seed);
        let model = model(path, config, purpose, options.widen)?;
        progress.say(&Encoder::introduce(&model));
        if let Purpose::Fresh { labels, .. } = purpose {
            let of = if goal == Goal::Class { format!("{labels} classes") } else { "a number".to_owned() };
            progress.say(&format!(
                "the head is new, for {of}: {} are drawn and trained whole",
                model.decoder.task_layers().join(" and ")
            ));
        }
        let max_length = length(&model, options.max_length)?;
        let made = |records: &[Labelled], file: &Path| {
            sequences(records, &names, model.tokenizer()?, max_length).input(file.display())
        };
        let (all, mut summary) = made(&records, file)?;
        (summary.undecided, summary.without_text) = (left_out.undecided, left_out.without_text);
        let hash = Encoder::hash(&all);
        let (train, held_out, held_out_summary) = split(options, all, &|file| {
            let (records, _) = labelled(file, 0, goal)?;
            made(&records, file)
        })?;
        let hiding = match goal {
            Goal::Class | Goal::Number => None,
            Goal::Hidden => Some(hiding(&model)?),
        };
        let (batch, pad) = (options.batch, model.decoder.config.padding);
        let batching = Batching { batch, time: summary.longest, packing: false, pad };
        let data = Data { train, held_out, summary, held_out_summary, hash };
        Ok(Opened { model, data, laying: SequenceLaying { batching, hiding } })
    }

    fn epoch<'a>(
        examples: &'a [Sequence],
        laying: SequenceLaying,
        order: Order,
    ) -> Result<Box<dyn Epoch<SequenceBatch> + 'a>, TaskError> {
        let SequenceLaying { batching, hiding } = laying;
        Ok(Box::new(match order {
            Order::Drawn(seed, epoch) => SequencePlan::new(examples, batching, hiding, seed, epoch)?,
            Order::Fixed => SequencePlan::by_length(examples, batching, hiding)?,
        }))
    }

    fn fed(rows: &SequenceBatch) -> Batch {
        let input = Input {
            tokens: rows.tokens.clone(),
            segments: rows.segments.contains(&1).then(|| rows.segments.clone()),
            // Without padding attention needs no marks.
            visible: rows.visible.contains(&false).then(|| rows.visible.clone()),
            batch: rows.batch,
            time: rows.time,
        };
        let targets = |ids: &[i32]| Targets { ids: ids.into(), weights: None };
        let labels = match &rows.answers {
            Answers::Classes(classes) => Labels::Classes(targets(classes)),
            Answers::Numbers(numbers) => Labels::Values(numbers.clone()),
            Answers::Tokens(tokens) => Labels::Tokens(targets(tokens)),
        };
        Batch { input, labels }
    }

    fn shown(rows: &SequenceBatch, _shown: Shown) -> Vec<Vec<bool>> {
        vec![rows.visible.clone()]
    }

    fn filled(rows: &SequenceBatch) -> usize {
        rows.filled
    }

    fn evaluate_all(&self, held_out: &[SequenceBatch]) -> Result<(f64, f64), Failure> {
        summed(held_out, |rows| self.evaluate(&Encoder::fed(rows)))
    }

    fn score(&self, held_out: &[SequenceBatch]) -> Result<Option<Score>, Failure> {
        let (mut right, mut count) = (0_usize, 0_usize);
        let (mut answered, mut wanted) = (Vec::new(), Vec::new());
        for rows in held_out {
            match &rows.answers {
                Answers::Tokens(_) => return Ok(None),
                Answers::Classes(classes) => {
                    let logits = to_rows(self.outputs(&Encoder::fed(rows).input)?);
                    let width = logits.len() / classes.len().max(1);
                    for (logits, &class) in logits.chunks(width.max(1)).zip(classes) {
                        right += usize::from(usize::try_from(class) == Ok(best(logits)));
                        count += 1;
                    }
                }
                Answers::Numbers(numbers) => {
                    answered.extend(to_rows(self.outputs(&Encoder::fed(rows).input)?));
                    wanted.extend(numbers);
                }
            }
        }
        Ok(match (count, wanted.len()) {
            (0, 0) => None,
            (0, _) => Some(Score { name: "correlation", value: pearson(&answered, &wanted) }),
            (count, _) => Some(Score { name: "accuracy", value: right as f64 / count as f64 }),
        })
    }

    fn unit(&self) -> &'static str {
        match self.labels() {
            0 => "nats per hidden token",
            1 => "squared error",
            _ => "nats per record",
        }
    }

    fn hash(examples: &[Sequence]) -> String {
        let mut bytes = Vec::new();
        for example in examples {
            for (token, segment) in example.tokens.iter().zip(&example.segments) {
                bytes.extend(token.to_le_bytes());
                bytes.push(u8::from(*segment > 0));
            }
            match example.answer {
                Wanted::Class(class) => bytes.extend(class.to_le_bytes()),
                Wanted::Number(number) => bytes.extend(number.to_le_bytes()),
                Wanted::Hidden => {}
            }
            bytes.push(0xff);
        }
        hash::of_bytes(&bytes)
    }

    fn held_out_line(summary: &SequenceSummary) -> String {
        format!("{} records, {} truncated", summary.read, summary.truncated)
    }

    fn introduce(model: &Model<Encoder>) -> String {
        let encoder = &model.decoder;
        format!(
            "model: {} (encoder of {} layers, {} linear, {:.0} MB in memory)",
            model.name,
            encoder.config.layers,
            encoder.sites().len(),
            encoder.bytes() as f64 / 1e6
        )
    }

    fn sample(&self) -> Result<Vec<f32>, AppError> {
        let time = 16.min(self.config.context());
        let usable = self.config.vocabulary;
        let mut tokens: Vec<u32> = (0..2 * time).map(|index| ((index * 7919 + 13) % usable) as u32).collect();
        // RoBERTa gives padding tokens another position.
        for token in tokens.iter_mut().filter(|token| **token == self.config.padding) {
            *token = ((*token as usize + 1) % usable) as u32;
        }
        let input = Input { tokens, segments: None, visible: None, batch: 2, time };
        Ok(to_rows(self.outputs(&input).while_doing("running the model")?))
    }

    fn sides(&self) -> Sides {
        let config = &self.config;
        Sides {
            vocabulary: if self.labels() == 0 { config.vocabulary } else { 0 },
            hidden: config.hidden,
            intermediate: config.intermediate,
            layers: config.layers,
            heads: config.heads,
            head_dim: config.hidden / config.heads,
            kv_heads: config.heads,
        }
    }

    fn peft_task(&self) -> Option<&'static str> {
        (self.labels() > 0).then_some("SEQ_CLS")
    }

    fn provenance(data: &Data<Sequence, SequenceSummary>) -> Vec<(&'static str, String)> {
        let names: Vec<&str> = data.summary.classes.iter().map(|(name, _)| name.as_str()).collect();
        if names.is_empty() { Vec::new() } else { vec![(CLASSES, Value::from(names).to_string())] }
    }

    fn head(&self) -> Vec<String> {
        self.task_layers()
    }

    fn draw_head(&mut self, seed: Seed) -> Result<(), AppError> {
        Encoder::draw_head(self, seed).while_doing("drawing the head")
    }
}

/// The largest of some logits; the first of a tie.
pub(super) fn best(logits: &[f32]) -> usize {
    let mut best = 0;
    for (index, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = index;
        }
    }
    best
}

/// Pearson's coefficient; 0 where one side does not vary.
fn pearson(a: &[f32], b: &[f32]) -> f64 {
    let count = a.len().min(b.len()).max(1) as f64;
    let mean = |values: &[f32]| values.iter().map(|&value| f64::from(value)).sum::<f64>() / count;
    let (mean_a, mean_b) = (mean(a), mean(b));
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (&a, &b) in a.iter().zip(b) {
        let (a, b) = (f64::from(a) - mean_a, f64::from(b) - mean_b);
        ab += a * b;
        aa += a * a;
        bb += b * b;
    }
    let size = (aa * bb).sqrt();
    if size > 0.0 { ab / size } else { 0.0 }
}

/// The longest sequence to use: as asked, or the context, at most 512 tokens, when 0 is asked.
///
/// # Errors
/// [`AppError::Usage`] when the context is shorter.
pub(crate) fn length(model: &Model<Encoder>, asked: usize) -> Result<usize, AppError> {
    let context = model.decoder.config.context();
    if asked > context {
        return Err(AppError::usage(format!(
            "--max-length {asked}: the model's context is {context} tokens"
        )));
    }
    Ok(if asked == 0 { context.min(LENGTH) } else { asked })
}

/// What is learned in a task.
pub(crate) fn goal(task: TaskChoice) -> Goal {
    match task {
        TaskChoice::Classification => Goal::Class,
        TaskChoice::Regression => Goal::Number,
        TaskChoice::MaskedLm => Goal::Hidden,
    }
}

impl SequenceLaying {
    pub(crate) fn new(batching: Batching, hiding: Option<Hiding>) -> SequenceLaying {
        SequenceLaying { batching, hiding }
    }
}

/// Refuses what means nothing to an encoder.
fn refuse(options: &Adaptation) -> Result<(), AppError> {
    let given = [
        ("--format", options.format != FormatChoice::Auto, "there are no prompts"),
        ("--loss-on", options.loss_on != LossOn::Completion, "nothing is written"),
        ("--shown learned", options.shown == Shown::Learned, "labels belong to whole texts"),
        ("--calibration-tokens", options.calibration_tokens.is_some(), "give --calibration N"),
        ("--recompute blocks", options.recompute == RecomputeChoice::Blocks, "all activations are kept"),
    ];
    match given.iter().find(|(_, given, _)| *given) {
        Some((flag, _, why)) => Err(AppError::usage(format!("{flag} means nothing to an encoder: {why}"))),
        None => Ok(()),
    }
}

pub(crate) fn configuration(path: &Path) -> Result<(Value, Config), AppError> {
    let name = path.display();
    let file = path.join("config.json");
    if !file.is_file() {
        return Err(AppError::usage(format!(
            "{name} holds no config.json; --task needs the Hugging Face directory of an encoder"
        )));
    }
    let json = json::read(&file).input("reading the model")?;
    let config = Config::from_json(&json).input(format!("{name}/config.json"))?;
    Ok((json, config))
}

/// The head that is needed: that of the file where it answers the same, else a new one. Classes take the order of the file.
pub(crate) fn purpose(goal: Goal, config: &Value, classes: &mut Vec<String>, seed: u64) -> Purpose {
    let is_classifier = matches!(Purpose::of(config), Ok(Purpose::Classify));
    let seed = Seed(seed).at("head", "start");
    let count = config["id2label"].as_object().map_or(0, serde_json::Map::len);
    match goal {
        Goal::Hidden => Purpose::MaskedLanguage,
        Goal::Number if is_classifier && count == 1 => Purpose::Classify,
        Goal::Number => Purpose::Fresh { labels: 1, seed },
        Goal::Class => {
            let named = |id: usize| config["id2label"][id.to_string()].as_str().map(str::to_owned);
            let of_file: Option<Vec<String>> = (0..classes.len()).map(named).collect();
            let same = |of_file: &Vec<String>| {
                let mut sorted = [of_file.clone(), classes.clone()];
                sorted.iter_mut().for_each(|names| names.sort());
                sorted[0] == sorted[1] && count == classes.len()
            };
            match of_file.filter(|of_file| is_classifier && same(of_file)) {
                Some(of_file) => {
                    *classes = of_file;
                    Purpose::Classify
                }
                None => Purpose::Fresh { labels: classes.len(), seed },
            }
        }
    }
}

pub(crate) fn model(
    path: &Path,
    config: Config,
    purpose: Purpose,
    widen: Widen,
) -> Result<Model<Encoder>, AppError> {
    let name = path.display().to_string();
    let source: Arc<dyn TensorSource> = Arc::from(tensors::open(path).input("reading the model")?);
    let hash = hash::of_tensors(&*source).input("hashing the model")?;
    let encoder = Encoder::from_checkpoint(config, source, purpose, widen.hold(), &cpu());
    let encoder = encoder.input(format!("the model {name}"))?;
    let rows = encoder.config.vocabulary;
    Model::beside(encoder, rows, path, &name, hash)
}

/// What stands for hidden tokens.
pub(crate) fn hiding(model: &Model<Encoder>) -> Result<Hiding, AppError> {
    let tokenizer = model.tokenizer()?;
    let mask = ["[MASK]", "<mask>"].into_iter().find_map(|name| tokenizer.token_id(name));
    let mask = mask.ok_or_else(|| {
        AppError::usage(format!(
            "the tokenizer of {} has no [MASK] or <mask>, which --task masked-lm needs",
            model.name
        ))
    })?;
    // Rows of the embedding that no token has are not drawn.
    Ok(Hiding { mask, vocabulary: tokenizer.vocabulary_size() as u32 })
}

/// What was made of a file.
type Read = (Vec<Sequence>, SequenceSummary);

/// Examples to train on and held out, and what was read of a file of held-out data.
type Parts = (Vec<Sequence>, Vec<Sequence>, Option<SequenceSummary>);

fn split(
    options: &Adaptation,
    all: Vec<Sequence>,
    read: &dyn Fn(&Path) -> Result<Read, AppError>,
) -> Result<Parts, AppError> {
    let (other, summary) = options.held_out_data.as_deref().map(read).transpose()?.unzip();
    let holding = HoldingOut::by(options);
    let (train, held_out) = holding.of(all, other, Pick::Anywhere(holding.seed))?;
    Ok((train, held_out, summary))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_coefficient_of_correlation_is_that_of_the_definition() {
        // numpy 2: np.corrcoef([1, 2, 4, 8], [3, 1, 4, 1])[0, 1]
        assert!((pearson(&[1.0, 2.0, 4.0, 8.0], &[3.0, 1.0, 4.0, 1.0]) - -0.340_975).abs() < 1e-5);
        assert!((pearson(&[1.0, 2.0, 3.0], &[-2.0, -4.0, -6.0]) + 1.0).abs() < 1e-12);
        assert_eq!(pearson(&[1.0, 1.0], &[0.0, 5.0]), 0.0);
    }

    #[test]
    fn a_head_of_the_file_is_kept_where_it_tells_the_same_classes() {
        let json = serde_json::json!({"architectures": ["BertForSequenceClassification"],
            "id2label": {"0": "no", "1": "yes"}});
        let mut classes = vec!["yes".to_owned(), "no".to_owned()];
        assert_eq!(purpose(Goal::Class, &json, &mut classes, 1), Purpose::Classify);
        assert_eq!(classes, ["no", "yes"], "in the order of the file");
        classes.push("perhaps".to_owned());
        assert!(matches!(purpose(Goal::Class, &json, &mut classes, 1), Purpose::Fresh { labels: 3, .. }));
        assert!(matches!(purpose(Goal::Number, &json, &mut classes, 1), Purpose::Fresh { labels: 1, .. }));
    }
}
