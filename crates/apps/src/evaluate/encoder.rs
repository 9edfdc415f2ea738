//! Loss and accuracy, or correlation, of an encoder on labelled texts.

use lowrank_models::Encoder;
use lowrank_store::peft::AdapterFolder;
use lowrank_store::{Dtype, Format, safetensors};
use lowrank_task::{Batching, Goal, sequences};
use lowrank_tensor::to_rows;

use super::{Evaluate, Evaluation};
use crate::choices::TaskChoice;
use crate::data::labelled;
use crate::objective::in_order;
use crate::subject::Subject;
use crate::subject::encoder::{CLASSES, SequenceLaying, configuration, goal, hiding, model, purpose};
use crate::{AppError, Model, Progress};
use lowrank_command::Because;

/// Longest sequence where nothing else is asked.
const LENGTH: usize = 512;

pub(super) fn evaluate(
    options: &Evaluate,
    task: TaskChoice,
    progress: &mut dyn Progress,
) -> Result<Evaluation, AppError> {
    let (Some(path), Some(file)) = (&options.model, &options.data) else {
        return Err(AppError::usage(
            "--task needs an encoder and its data: give --model DIR and --data FILE",
        ));
    };
    if options.questions.is_some() || options.tokens.is_some() {
        return Err(AppError::usage(
            "--questions and --tokens are for decoders: give --data FILE with --task",
        ));
    }
    let goal = goal(task);
    let (config_json, config) = configuration(path)?;
    let adapter =
        options.adapter.as_deref().map(AdapterFolder::read).transpose().input("reading the adapter")?;
    let mut names = match (goal, &adapter) {
        (Goal::Class, Some(adapter)) => classes_of(adapter)?,
        (Goal::Class, None) => of_model(&config_json)?,
        (Goal::Number | Goal::Hidden, _) => Vec::new(),
    };
    let order = names.clone();
    let purpose = purpose(goal, &config_json, &mut names, 0);
    if adapter.as_ref().is_none_or(|adapter| adapter.whole.is_empty())
        && matches!(purpose, lowrank_models::encoder::Purpose::Fresh { .. })
    {
        return Err(AppError::usage(format!(
            "{} has no head for this task; give --adapter DIR with one that was trained",
            path.display()
        )));
    }
    let mut model = model(path, config, purpose, options.widen)?;
    if let (Some(adapter), Some(folder)) = (&adapter, &options.adapter) {
        model.check_use(adapter, folder)?;
        model.apply(adapter).input(format!("the adapter {}", folder.display()))?;
        // What the adapter was trained to answer, in its order.
        names = order;
    }
    let context = model.decoder.config.context();
    let max_length =
        if options.max_length == 0 { context.min(LENGTH) } else { options.max_length.min(context) };
    let (records, _) = labelled(file, options.limit, goal)?;
    let (examples, summary) =
        sequences(&records, &names, model.tokenizer()?, max_length).input(file.display())?;
    for line in summary.to_string().lines() {
        progress.say(line);
    }
    let hiding = if goal == Goal::Hidden { Some(hiding(&model)?) } else { None };
    let pad = model.decoder.config.padding;
    let batching = Batching { batch: options.batch, time: summary.longest, packing: false, pad };
    let laying = SequenceLaying::new(batching, hiding);
    let rows = in_order::<Encoder>(&examples, laying).input("batching the data")?;
    let (loss, weight) = model.decoder.evaluate_all(&rows).while_doing("evaluating")?;
    let mut found = Evaluation {
        loss: Some(loss / weight),
        score: model.decoder.score(&rows).while_doing("evaluating")?,
        ..Evaluation::default()
    };
    if let Some(out) = &options.dump_logits {
        if goal == Goal::Hidden {
            return Err(AppError::usage(
                "--dump-logits writes the answers to whole texts, not hidden tokens",
            ));
        }
        dump(&model, &examples, laying, out)?;
        found.logits = Some(out.clone());
    }
    found.peak_bytes = progress.peak_memory();
    Ok(found)
}

/// The classes that an adapter was trained on, in order.
fn classes_of(adapter: &AdapterFolder) -> Result<Vec<String>, AppError> {
    let told = adapter.provenance.get(CLASSES).and_then(|classes| serde_json::from_str(classes).ok());
    told.ok_or_else(|| {
        AppError::usage("the adapter does not say which classes it was trained on; was it written by `lowrank tune --task`?")
    })
}

/// The classes of a model with a head, in order.
fn of_model(config: &serde_json::Value) -> Result<Vec<String>, AppError> {
    let labels = config["id2label"].as_object();
    let name = |id: usize| config["id2label"][id.to_string()].as_str().map(str::to_owned);
    labels.and_then(|labels| (0..labels.len()).map(name).collect()).ok_or_else(|| {
        AppError::usage("the model names no classes (id2label in config.json); give --adapter DIR")
    })
}

/// Answers `[records, labels]` in the order of the file.
fn dump(
    model: &Model<Encoder>,
    examples: &[lowrank_task::Sequence],
    laying: SequenceLaying,
    out: &std::path::Path,
) -> Result<(), AppError> {
    let mut answers = Vec::new();
    for example in examples {
        for rows in in_order::<Encoder>(std::slice::from_ref(example), laying).input("batching the data")? {
            let outputs =
                model.decoder.outputs(&Encoder::fed(&rows).input).while_doing("running the model")?;
            answers.extend(to_rows(outputs));
        }
    }
    let shape = [examples.len(), answers.len() / examples.len().max(1)];
    let bytes: Vec<u8> = answers.into_iter().flat_map(f32::to_le_bytes).collect();
    let entry =
        safetensors::Entry { name: "logits", dtype: Dtype::Real(Format::F32), shape: &shape, bytes: &bytes };
    lowrank_store::atomic::write_file(out, |sink| safetensors::write_to(sink, &[entry], &Default::default()))
        .while_doing("writing the logits")
}
