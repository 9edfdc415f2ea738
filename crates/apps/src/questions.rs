//! Multiple-choice questions from a file, asked of a model.

use std::path::Path;

use lowrank_eval::{MultipleChoice, multiple_choice};
use lowrank_store::{json, jsonl};
use lowrank_task::{BigBench, Question, TokenizedQuestion, read_questions};

use crate::choices::FormatChoice;
use crate::{AppError, Model, Progress};
use lowrank_command::Because;

/// The first `limit` questions of a file, 0 for all, as the model reads them.
///
/// # Errors
/// [`AppError::Usage`] naming the file and the line.
pub(crate) fn read(
    file: &Path,
    limit: usize,
    format: FormatChoice,
    model: &Model,
) -> Result<Vec<TokenizedQuestion>, AppError> {
    let mut questions = of_file(file)?;
    if limit > 0 {
        questions.truncate(limit);
    }
    let (tokenizer, template) = (model.tokenizer()?, model.template.as_ref());
    questions
        .iter()
        .map(|question| question.tokenize(tokenizer, template, format.format()))
        .collect::<Result<_, _>>()
        .input(file.display())
}

/// Asks every question.
///
/// # Errors
/// [`AppError::Usage`] for questions that the model cannot read, or none; [`AppError::Failed`] when the user stopped it: a
/// figure of a part of the questions would look like one of all.
pub(crate) fn ask(
    questions: &[TokenizedQuestion],
    file: &Path,
    model: &Model,
    progress: &mut dyn Progress,
) -> Result<MultipleChoice, AppError> {
    progress.begin("questions", questions.len() as u64);
    let shares = multiple_choice(&model.decoder, questions, &mut |done| {
        progress.step(done as u64, "");
        !progress.stopping()
    });
    progress.end();
    if progress.stopping() {
        return Err(AppError::failed("stopped before everything was read"));
    }
    shares.input(file.display())?.ok_or_else(|| AppError::usage(format!("{}: no questions", file.display())))
}

fn of_file(file: &Path) -> Result<Vec<Question>, AppError> {
    if !file.is_file() {
        return Err(AppError::usage(format!("no file of questions at {}", file.display())));
    }
    if file.extension().is_some_and(|extension| extension == "json") {
        let task = json::read(file).input("reading the questions")?;
        let questions = BigBench::from_json(&task).input(file.display())?.questions;
        if questions.is_empty() {
            return Err(AppError::usage(format!(
                "{}: no example has choices of which one is best",
                file.display()
            )));
        }
        return Ok(questions);
    }
    let lines: Vec<_> = jsonl::read(file)
        .input("reading the questions")?
        .collect::<Result<_, _>>()
        .input("reading the questions")?;
    read_questions(lines).input(file.display())
}
