//! Loss and accuracy, or correlation, of an encoder on labelled texts.

use lowrank_models::Encoder;
use lowrank_store::peft::AdapterFolder;
use lowrank_task::{Batching, Goal, SequenceBatch, sequences};
use lowrank_tensor::to_rows;

use super::{Evaluate, Evaluation, measured};
use crate::choices::TaskChoice;
use crate::data::labelled;
use crate::subject::Subject;
use crate::subject::encoder::{CLASSES, SequenceLaying, configuration, goal, hiding, length, model, purpose};
use crate::{AppError, Progress};
use lowrank_command::Because;

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
    let goal = goal(task);
    if options.dump_logits.is_some() && goal == Goal::Hidden {
        return Err(AppError::usage("--dump-logits writes the answers to whole texts, not hidden tokens"));
    }
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
    let max_length = length(&model, options.max_length)?;
    let (records, left_out) = labelled(file, options.limit, goal)?;
    let (examples, mut summary) =
        sequences(&records, &names, model.tokenizer()?, max_length).input(file.display())?;
    (summary.undecided, summary.without_text) = (left_out.undecided, left_out.without_text);
    for line in summary.to_string().lines() {
        progress.say(line);
    }
    let hiding = if goal == Goal::Hidden { Some(hiding(&model)?) } else { None };
    let pad = model.decoder.config.padding;
    let batching = Batching { batch: options.batch, time: summary.longest, packing: false, pad };
    let laying = SequenceLaying::new(batching, hiding);
    let answers = |rows: &SequenceBatch| {
        let answered = model.decoder.outputs(&Encoder::fed(rows).input).while_doing("running the model")?;
        Ok((answered.dims().to_vec(), to_rows(answered)))
    };
    measured(options, &model.decoder, &examples, laying, &answers, progress)
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
