//! Loss and accuracy of a vision transformer on images with classes.

use std::path::Path;

use lowrank_models::Vision;
use lowrank_models::vision::{Purpose, names};
use lowrank_record::Seed;
use lowrank_store::peft::{AdapterFolder, Targets};
use lowrank_task::{Batching, Classes};
use lowrank_tensor::to_rows;

use super::{Evaluate, Evaluation, measured};
use crate::pictures::{self, Pictures};
use crate::subject::Subject;
use crate::subject::encoder::CLASSES;
use crate::subject::vision::{Folder, Seen, seen};
use crate::{AppError, Progress};
use lowrank_command::Because;

pub(super) fn evaluate(
    options: &Evaluate,
    path: &Path,
    progress: &mut dyn Progress,
) -> Result<Evaluation, AppError> {
    let Some(data) = &options.data else {
        return Err(AppError::usage(
            "--data is needed: a folder of class folders, an IDX file, or a BIG-bench task of images",
        ));
    };
    let folder = Folder::open(path)?;
    let adapter =
        options.adapter.as_deref().map(AdapterFolder::read).transpose().input("reading the adapter")?;
    let (purpose, classes) = head(&folder, adapter.as_ref(), path)?;
    let mut model = folder.model(path, purpose, options.widen)?;
    if let (Some(adapter), Some(place)) = (adapter, &options.adapter) {
        model.check_use(&adapter, place)?;
        let adapter = of_version_5(adapter, &model.decoder, place)?;
        model.apply(&adapter).input(format!("the adapter {}", place.display()))?;
    }
    let read = pictures::read(data, options.limit, &folder.processor, Seed(0))?;
    let Pictures { records, classes: of_data, found: _ } = read;
    let numbers = of_data.in_model(&classes).input(data.display())?;
    let examples: Vec<Seen> = seen(records, &numbers, &folder, &model)?;
    let batching = Batching { batch: options.batch, time: 1, packing: false, pad: 0 };
    let logits = |rows: &Vec<Seen>| {
        let answered = model.decoder.outputs(&Vision::fed(rows).images).while_doing("running the model")?;
        let classes = answered.dims()[1];
        Ok((vec![rows.len(), classes], to_rows(answered)))
    };
    measured(options, &model.decoder, &examples, batching, &logits, progress)
}

/// The head to build and its classes: what the adapter stores whole takes the place of its weights.
fn head(
    folder: &Folder,
    adapter: Option<&AdapterFolder>,
    path: &Path,
) -> Result<(Purpose, Classes), AppError> {
    let of_file = folder.classes();
    let whole = adapter
        .and_then(|adapter| adapter.whole.iter().find(|each| each.name.ends_with("classifier.weight")));
    let Some(whole) = whole else {
        let classes = of_file.ok_or_else(|| {
            AppError::usage(format!(
                "{} has no head for images of classes; give --adapter DIR with one that was trained",
                path.display()
            ))
        })?;
        return Ok((Purpose::Classify, classes));
    };
    let labels = whole.shape.first().copied().unwrap_or(0);
    let purpose = match &of_file {
        Some(classes) if classes.names().len() == labels => Purpose::Classify,
        _ => Purpose::Fresh { labels, seed: Seed(0) },
    };
    let told = adapter.and_then(|adapter| adapter.provenance.get(CLASSES));
    let names = match (told, of_file) {
        (Some(told), _) => serde_json::from_str(told).input("the classes of the adapter")?,
        (None, Some(classes)) if classes.names().len() == labels => classes.names().to_vec(),
        (None, _) => {
            return Err(AppError::usage(format!(
                "the adapter has a head of {labels} classes and does not say which (lowrank.classes)"
            )));
        }
    };
    if names.len() != labels {
        return Err(AppError::usage(format!(
            "the adapter names {} classes, and its head has {labels}",
            names.len()
        )));
    }
    Ok((purpose, Classes::of_model(names)))
}

/// An adapter with today's names of the layers, where it was made with `transformers` 4.
fn of_version_5(mut adapter: AdapterFolder, model: &Vision, place: &Path) -> Result<AdapterFolder, AppError> {
    let mut renamed = false;
    for factor in &mut adapter.factors {
        // DINOv2's feed-forward layers have kept their names.
        let today = names::of_version_5(model.config.family, &factor.module);
        if let Some(name) = today.filter(|name| *name != factor.module) {
            factor.module = name;
            renamed = true;
        }
    }
    if !renamed {
        return Ok(adapter);
    }
    if !adapter.config.rank_pattern.is_empty() || !adapter.config.alpha_pattern.is_empty() {
        return Err(AppError::usage(format!(
            "the adapter {} names layers as transformers 4 did, in its rank_pattern or alpha_pattern too, which are not translated; \
             save it again with transformers 5",
            place.display()
        )));
    }
    adapter.config.targets =
        Targets::List(adapter.factors.iter().map(|factor| factor.module.clone()).collect());
    Ok(adapter)
}
