//! Loss of an encoder–decoder on prompts and answers.

use std::path::Path;

use lowrank_models::T5;
use lowrank_store::peft::AdapterFolder;
use lowrank_task::{Batching, PairBatch, tokenize_pairs};
use lowrank_tensor::to_rows;

use super::{Evaluate, Evaluation, measured};
use crate::data::pair_records;
use crate::subject::Subject;
use crate::subject::t5::{LENGTH, PairLaying, open};
use crate::{AppError, Progress};
use lowrank_command::Because;

pub(super) fn evaluate(
    options: &Evaluate,
    path: &Path,
    progress: &mut dyn Progress,
) -> Result<Evaluation, AppError> {
    let Some(file) = &options.data else {
        return Err(AppError::usage(
            "--data FILE is needed: prompts with completions, or questions with answers",
        ));
    };
    let mut model = open(path, options.widen)?;
    if let Some(folder) = &options.adapter {
        let adapter = AdapterFolder::read(folder).input("reading the adapter")?;
        model.check_use(&adapter, folder)?;
        model.apply(&adapter).input(format!("the adapter {}", folder.display()))?;
    }
    let (records, undecided) = pair_records(file, options.limit)?;
    let max_length = if options.max_length > 0 { options.max_length } else { LENGTH };
    let mut read = tokenize_pairs(&records, model.tokenizer()?, max_length).input(file.display())?;
    read.summary.undecided = undecided;
    for line in read.summary.to_string().lines() {
        progress.say(line);
    }
    let longest =
        |side: &dyn Fn(&lowrank_task::Example) -> usize| read.examples.iter().map(side).max().unwrap_or(0);
    let answer = longest(&|example| example.tokens.len() - example.prompt().len());
    let pad = model.tokenizer()?.pad();
    let batching = Batching { batch: options.batch, time: read.summary.longest, packing: false, pad };
    let laying = PairLaying::new(batching, model.decoder.config.start);
    let logits = |rows: &PairBatch| {
        let batch = T5::fed(rows);
        let logits = model.decoder.logits(&batch.source, &batch.tokens).while_doing("running the model")?;
        let vocabulary = logits.dims()[1];
        // Rows of one length over all batches, filled up with zeros behind their end.
        let mut filled = Vec::with_capacity(rows.batch * answer * vocabulary);
        for row in to_rows(logits).chunks(rows.time * vocabulary) {
            filled.extend(row);
            filled.extend(vec![0.0; (answer - rows.time) * vocabulary]);
        }
        Ok((vec![rows.batch, answer, vocabulary], filled))
    };
    measured(options, &model.decoder, &read.examples, laying, &logits, progress)
}
