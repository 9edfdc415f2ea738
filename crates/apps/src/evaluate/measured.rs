//! What is measured of a network on examples: loss, score, and the answers themselves.

use std::path::Path;

use lowrank_store::{Dtype, Format, safetensors};

use super::{Evaluate, Evaluation};
use crate::choices::{FormatChoice, LossOn};
use crate::objective::in_order;
use crate::subject::Subject;
use crate::{AppError, Progress};
use lowrank_command::Because;

/// Answers of a network to some rows: their shape, rows first, and values.
type Answers = (Vec<usize>, Vec<f32>);

/// Refuses what is a decoder's alone, and to write answers over a file, before anything is read.
///
/// # Errors
/// [`AppError::Usage`] naming the flag or the file.
pub(super) fn admit(options: &Evaluate) -> Result<(), AppError> {
    let of_decoders = [
        ("--questions", options.questions.is_some()),
        ("--tokens", options.tokens.is_some()),
        ("--format", options.format != FormatChoice::Auto),
        ("--loss-on", options.loss_on != LossOn::Completion),
    ];
    if let Some((flag, _)) = of_decoders.iter().find(|(_, given)| *given) {
        return Err(AppError::usage(format!("{flag} is for decoders: give --data alone")));
    }
    refuse_written(options.dump_logits.as_deref())
}

/// Refuses to write answers over a file.
///
/// # Errors
/// [`AppError::Usage`] naming it.
pub(super) fn refuse_written(out: Option<&Path>) -> Result<(), AppError> {
    match out.filter(|out| out.exists()) {
        Some(out) => {
            Err(AppError::usage(format!("{} exists already; give --dump-logits another name", out.display())))
        }
        None => Ok(()),
    }
}

/// Loss and score of a network on examples in their order, and what it answers where that is asked for.
///
/// # Errors
/// [`AppError::Failed`] with what the network says.
pub(super) fn measured<N: Subject>(
    options: &Evaluate,
    network: &N,
    examples: &[N::Example],
    laying: N::Laying,
    answers: &dyn Fn(&N::Rows) -> Result<Answers, AppError>,
    progress: &mut dyn Progress,
) -> Result<Evaluation, AppError> {
    let rows = in_order::<N>(examples, laying).input("batching the data")?;
    progress.begin("evaluation", rows.len() as u64);
    let (mut loss, mut weight) = (0.0, 0.0);
    for (index, each) in rows.iter().enumerate() {
        let (of_batch, its_weight) =
            network.evaluate_all(std::slice::from_ref(each)).while_doing("running the model")?;
        loss += of_batch;
        weight += its_weight;
        progress.step(index as u64 + 1, "");
        if progress.stopping() {
            return Err(AppError::failed("stopped before everything was read"));
        }
    }
    progress.end();
    let mut found = Evaluation { loss: Some(loss / weight), ..Evaluation::default() };
    if network.unit() == "nats per token" {
        (found.perplexity, found.tokens) = (Some((loss / weight).exp()), Some(weight as u64));
    }
    found.score = network.score(&rows).while_doing("running the model")?;
    if let Some(out) = &options.dump_logits {
        let mut all = (Vec::new(), Vec::new());
        // One at a time: batches are sorted by length, and answers are told in the order of the data.
        let alone = |example| in_order::<N>(std::slice::from_ref(example), laying).input("batching the data");
        let each_alone = examples.iter().map(alone).collect::<Result<Vec<_>, _>>()?;
        for each in each_alone.iter().flatten() {
            let (shape, values) = answers(each)?;
            all.0 = match all.0.as_slice() {
                [] => shape,
                [before, sides @ ..] => [&[before + shape[0]], sides].concat(),
            };
            all.1.extend(values.into_iter().flat_map(f32::to_le_bytes));
        }
        dump(out, &all.0, &all.1)?;
        found.logits = Some(out.clone());
    }
    found.peak_bytes = progress.peak_memory();
    Ok(found)
}

/// Writes answers as the one tensor `logits` of a safetensors file.
///
/// # Errors
/// [`AppError::Failed`] when it cannot be written.
pub(super) fn dump(out: &Path, shape: &[usize], bytes: &[u8]) -> Result<(), AppError> {
    let entry = safetensors::Entry { name: "logits", dtype: Dtype::Real(Format::F32), shape, bytes };
    lowrank_store::atomic::write_file(out, |sink| safetensors::write_to(sink, &[entry], &Default::default()))
        .while_doing("writing the logits")
}
