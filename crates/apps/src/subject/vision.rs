//! Vision transformers on images with classes.

use std::path::Path;
use std::sync::Arc;

use lowrank_models::vision::{Batch, Config, Images, Purpose};
use lowrank_models::{Network as _, Vision};
use lowrank_record::Seed;
use lowrank_store::{TensorSource, hash, json, tensors};
use lowrank_task::{
    Batching, Classes, EpochOrder, LabelledPicture, Pick, PictureBatch, Processor, Sample, TaskError,
};
use lowrank_tensor::ops::Targets;
use lowrank_tensor::{cpu, to_rows};
use lowrank_train::Failure;
use serde_json::Value;

use super::encoder::{CLASSES, best};
use super::{Epoch, Opened, Order, Score, Sides, Subject, summed};
use crate::choices::{FormatChoice, LossOn, RecomputeChoice, Shown, Widen};
use crate::data::{Data, HoldingOut};
use crate::ground::Adaptation;
use crate::pictures::{self, Pictures};
use crate::{AppError, Model, Progress};
use lowrank_command::Because;

/// An image of the data, and how the model looks at it.
#[derive(Clone)]
pub(crate) struct Seen {
    image: Arc<LabelledPicture>,
    eye: Arc<Eye>,
}

impl Sample for Seen {
    type Content = [u8];

    fn content(&self) -> &[u8] {
        &self.image.picture.pixels
    }
}

/// How a model looks at images.
struct Eye {
    processor: Processor,
    /// Values of a pixel.
    channels: usize,
    /// Tokens and patches that the network makes of one image.
    tokens: usize,
}

/// What was read.
pub(crate) struct PictureSummary {
    images: usize,
    found: usize,
    /// The classes in the order of the model's answers, and how many images each has.
    classes: Vec<(String, usize)>,
    sides: [usize; 2],
}

impl std::fmt::Display for PictureSummary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [height, width] = self.sides;
        write!(f, "data: {} of {} images, shown as {height} x {width}; ", self.images, self.found)?;
        let there: Vec<String> = self
            .classes
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(name, count)| format!("{name} {count}"))
            .collect();
        /// Classes that fit on a line or two.
        const SHOWN: usize = 20;
        write!(f, "{} classes: {}", there.len(), there[..there.len().min(SHOWN)].join(", "))?;
        if there.len() > SHOWN { write!(f, " …") } else { Ok(()) }
    }
}

/// The batches of an epoch.
struct Walk<'a> {
    examples: &'a [Seen],
    order: EpochOrder,
}

impl Epoch<Vec<Seen>> for Walk<'_> {
    fn batches(&self) -> usize {
        self.order.batches()
    }

    fn places(&self) -> Vec<usize> {
        let rows = (0..self.batches()).map(|index| self.order.samples(index).map_or(0, <[usize]>::len));
        let tokens = self.examples.first().map_or(0, |first| first.eye.tokens);
        rows.map(|rows| rows * tokens).collect()
    }

    fn batch(&self, index: usize) -> Result<Vec<Seen>, TaskError> {
        Ok(self.order.samples(index)?.iter().map(|&place| self.examples[place].clone()).collect())
    }
}

impl Subject for Vision {
    type Example = Seen;
    /// Not yet made inputs of, which take many times the memory.
    type Rows = Vec<Seen>;
    type Summary = PictureSummary;
    type Laying = Batching;

    fn open(options: &Adaptation, progress: &mut dyn Progress) -> Result<Opened<Vision>, AppError> {
        refuse(options)?;
        let (Some(path), Some(data)) = (&options.model, &options.data) else {
            return Err(AppError::usage(
                "--data is needed with --model: a folder of class folders, an IDX file, or a BIG-bench task of images",
            ));
        };
        let seed = Seed(options.seed);
        let folder = Folder::open(path)?;
        let Pictures { records, classes, found } =
            pictures::read(data, options.limit, &folder.processor, seed)?;
        let (purpose, names, numbers) = folder.head(&classes, seed.at("head", "start"));
        let model = folder.model(path, purpose, options.widen)?;
        progress.say(&Vision::introduce(&model));
        if let Purpose::Fresh { labels, .. } = purpose {
            progress.say(&format!(
                "the head is new, for {labels} classes: {} is drawn and trained whole",
                model.decoder.task_layers().join(" and ")
            ));
        }
        let all = seen(records, &numbers, &folder, &model)?;
        let hash = Vision::hash(&all);
        let counted = |examples: &[Seen], found: usize| {
            let mut counts = vec![0; names.names().len()];
            examples.iter().for_each(|each| counts[each.image.class] += 1);
            PictureSummary {
                images: examples.len(),
                found,
                classes: names.names().iter().cloned().zip(counts).collect(),
                sides: all_sides(examples).unwrap_or_default(),
            }
        };
        let summary = counted(&all, found);
        let tokens = all.first().map_or(1, |first| first.eye.tokens);
        let (train, held_out, held_out_summary) = match &options.held_out_data {
            None => {
                let holding = HoldingOut::by(options);
                let (train, held_out) = holding.of(all, None, Pick::Anywhere(holding.seed))?;
                (train, held_out, None)
            }
            Some(file) => {
                let at_most = options.eval_limit;
                let other = pictures::read(file, at_most, &folder.processor, seed.at("held-out", "sample"))?;
                let numbers = other.classes.in_model(&names).input(file.display())?;
                let held_out = seen(other.records, &numbers, &folder, &model)?;
                let summary = counted(&held_out, other.found);
                (all, held_out, Some(summary))
            }
        };
        let laying = Batching { batch: options.batch, time: tokens, packing: false, pad: 0 };
        let data = Data { train, held_out, summary, held_out_summary, hash };
        Ok(Opened { model, data, laying })
    }

    fn epoch<'a>(
        examples: &'a [Seen],
        laying: Batching,
        order: Order,
    ) -> Result<Box<dyn Epoch<Vec<Seen>> + 'a>, TaskError> {
        let order = match order {
            Order::Drawn(seed, epoch) => EpochOrder::shuffled(examples.len(), laying.batch, seed, epoch)?,
            Order::Fixed => EpochOrder::of_the_file(examples.len(), laying.batch)?,
        };
        Ok(Box::new(Walk { examples, order }))
    }

    fn fed(rows: &Vec<Seen>) -> Batch {
        let images: Vec<&LabelledPicture> = rows.iter().map(|each| &*each.image).collect();
        let made =
            rows.first().map(|first| PictureBatch::of(&images, &first.eye.processor, first.eye.channels));
        // Every image was checked when it was read. Were one not as it was, the network would refuse the empty batch by name.
        let empty = PictureBatch { pixels: Vec::new(), targets: Vec::new(), batch: 0, height: 0, width: 0 };
        let PictureBatch { pixels, targets, batch, height, width } =
            made.and_then(Result::ok).unwrap_or(empty);
        let images = Images { pixels, batch, height, width };
        Batch { images, targets: Targets { ids: targets.into(), weights: None } }
    }

    fn shown(_rows: &Vec<Seen>, _shown: Shown) -> Vec<Vec<bool>> {
        // There is no padding.
        Vec::new()
    }

    fn filled(rows: &Vec<Seen>) -> usize {
        rows.iter().map(|each| each.eye.tokens).sum()
    }

    fn evaluate_all(&self, held_out: &[Vec<Seen>]) -> Result<(f64, f64), Failure> {
        summed(held_out, |rows| self.evaluate(&Vision::fed(rows)))
    }

    fn score(&self, held_out: &[Vec<Seen>]) -> Result<Option<Score>, Failure> {
        let (mut right, mut count) = (0_usize, 0_usize);
        for rows in held_out {
            let batch = Vision::fed(rows);
            let logits = to_rows(self.outputs(&batch.images)?);
            let width = (logits.len() / rows.len().max(1)).max(1);
            for (logits, &class) in logits.chunks(width).zip(batch.targets.ids.iter()) {
                right += usize::from(usize::try_from(class) == Ok(best(logits)));
                count += 1;
            }
        }
        Ok((count > 0).then(|| Score { name: "accuracy", value: right as f64 / count as f64 }))
    }

    fn unit(&self) -> &'static str {
        "nats per image"
    }

    fn hash(examples: &[Seen]) -> String {
        pictures::hash(examples.iter().map(|each| &*each.image))
    }

    fn held_out_line(summary: &PictureSummary) -> String {
        format!("{} of {} images", summary.images, summary.found)
    }

    fn introduce(model: &Model<Vision>) -> String {
        let vision = &model.decoder;
        format!(
            "model: {} ({:?} of {} layers, {} linear, {:.0} MB in memory)",
            model.name,
            vision.config.family,
            vision.config.layers,
            vision.sites().len(),
            vision.bytes() as f64 / 1e6
        )
    }

    fn sample(&self) -> Result<Vec<f32>, AppError> {
        let ([height, width], batch) = (self.config.image, 2);
        let values = batch * self.config.channels * height * width;
        // All of [-1, 1], where normalised pixels lie, in no order that a patch would show.
        let pixels =
            (0..values).map(|index| (index * 7919 + 13) as u32 % 256).map(|value| value as f32 / 127.5 - 1.0);
        let images = Images { pixels: pixels.collect(), batch, height, width };
        Ok(to_rows(self.outputs(&images).while_doing("running the model")?))
    }

    fn sides(&self) -> Sides {
        let config = &self.config;
        Sides {
            vocabulary: 0,
            hidden: config.hidden,
            intermediate: config.intermediate,
            layers: config.layers,
            heads: config.heads,
            head_dim: config.hidden / config.heads,
            kv_heads: config.heads,
        }
    }

    fn peft_task(&self) -> Option<&'static str> {
        // PEFT has no name for the classification of images.
        None
    }

    fn provenance(data: &Data<Seen, PictureSummary>) -> Vec<(&'static str, String)> {
        let names: Vec<&str> = data.summary.classes.iter().map(|(name, _)| name.as_str()).collect();
        vec![(CLASSES, Value::from(names).to_string())]
    }

    fn head(&self) -> Vec<String> {
        self.task_layers()
    }

    fn draw_head(&mut self, seed: Seed) -> Result<(), AppError> {
        Vision::draw_head(self, seed).while_doing("drawing the head")
    }
}

/// A model's directory before its weights are read: what images become depends on it, and on them its head.
pub(crate) struct Folder {
    json: Value,
    config: Config,
    pub(crate) processor: Processor,
}

impl Folder {
    pub(crate) fn open(path: &Path) -> Result<Folder, AppError> {
        let name = path.display();
        let read = |file: &str, what: &str| {
            let file_path = path.join(file);
            if !file_path.is_file() {
                return Err(AppError::usage(format!("{name} holds no {file}, {what}")));
            }
            json::read(&file_path).input("reading the model")
        };
        let config_json = read("config.json", "which a vision transformer's directory has")?;
        let config = Config::from_json(&config_json).input(format!("{name}/config.json"))?;
        let what = "which says how images are resized and normalised; take that of the original model";
        let processor = Processor::from_json(&read("preprocessor_config.json", what)?).input(name)?;
        Ok(Folder { json: config_json, config, processor })
    }

    /// The names of the file's head, in the order of its answers; none without a head.
    pub(crate) fn classes(&self) -> Option<Classes> {
        if !matches!(Purpose::of(&self.json), Ok(Purpose::Classify)) {
            return None;
        }
        let named = |id: usize| self.json["id2label"][id.to_string()].as_str().map(str::to_owned);
        let name = |id: usize| named(id).unwrap_or_else(|| format!("LABEL_{id}"));
        Some(Classes::of_model((0..self.config.labels).map(name).collect()))
    }

    /// The head that is needed, its classes, and the number that each class of the data has in it: that of the file where it has
    /// them all, else a new one.
    fn head(&self, data: &Classes, seed: Seed) -> (Purpose, Classes, Vec<usize>) {
        if let Some(of_file) = self.classes()
            && let Ok(numbers) = data.in_model(&of_file)
        {
            let names = if of_file.are_nameless() { data.clone() } else { of_file };
            return (Purpose::Classify, names, numbers);
        }
        let labels = data.names().len();
        (Purpose::Fresh { labels, seed }, data.clone(), (0..labels).collect())
    }

    pub(crate) fn model(
        &self,
        path: &Path,
        purpose: Purpose,
        widen: Widen,
    ) -> Result<Model<Vision>, AppError> {
        let name = path.display().to_string();
        let source: Arc<dyn TensorSource> = Arc::from(tensors::open(path).input("reading the model")?);
        let hash = hash::of_tensors(&*source).input("hashing the model")?;
        let vision = Vision::from_checkpoint(self.config.clone(), source, purpose, widen.hold(), &cpu());
        Model::beside(vision.input(format!("the model {name}"))?, usize::MAX, path, &name, hash)
    }
}

/// The images with the classes' numbers in the model, every one of a size that the model takes.
pub(crate) fn seen(
    mut records: Vec<LabelledPicture>,
    numbers: &[usize],
    folder: &Folder,
    model: &Model<Vision>,
) -> Result<Vec<Seen>, AppError> {
    records.iter_mut().for_each(|each| each.class = numbers[each.class]);
    let config = &model.decoder.config;
    let images: Vec<&LabelledPicture> = records.iter().collect();
    let [height, width] =
        PictureBatch::sides(&images, &folder.processor, config.channels).input("reading the images")?;
    let tokens = config.tokens([height, width]).input("the size of the images")?;
    let eye = Arc::new(Eye { processor: folder.processor.clone(), channels: config.channels, tokens });
    Ok(records.into_iter().map(|image| Seen { image: Arc::new(image), eye: Arc::clone(&eye) }).collect())
}

/// Rows and columns of the inputs that checked images become.
fn all_sides(examples: &[Seen]) -> Option<[usize; 2]> {
    let first = examples.first()?;
    first.eye.processor.sides(&first.image.picture, first.eye.channels).ok()
}

/// Refuses what means nothing to a network that looks at images.
fn refuse(options: &Adaptation) -> Result<(), AppError> {
    let given = [
        ("--format", options.format != FormatChoice::Auto, "there are no prompts"),
        ("--loss-on", options.loss_on != LossOn::Completion, "nothing is written"),
        ("--shown learned", options.shown == Shown::Learned, "labels belong to whole images"),
        ("--calibration-tokens", options.calibration_tokens.is_some(), "give --calibration N"),
        ("--recompute blocks", options.recompute == RecomputeChoice::Blocks, "all activations are kept"),
        ("--max-length", options.max_length != 0, "preprocessor_config.json says the size"),
    ];
    match given.iter().find(|(_, given, _)| *given) {
        Some((flag, _, why)) => {
            Err(AppError::usage(format!("{flag} means nothing to a vision transformer: {why}")))
        }
        None => Ok(()),
    }
}
