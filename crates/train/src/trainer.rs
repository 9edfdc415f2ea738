//! The loop. What a step does is in `session`, what is kept between processes in `persist`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::metrics::Line;
use crate::objective::Objective;
use crate::observer::{Observer, Outcome, Stop, Stopped};
use crate::session::Session;
use crate::{Settings, TrainError};

/// Where a run keeps its files, and what it is besides its settings.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Run {
    /// Where its files are kept.
    pub place: Place,
    /// What else decides its numbers, by names that the caller chooses: hashes of model, data, start. A checkpoint is
    /// resumed only where all of them agree.
    pub identity: BTreeMap<String, String>,
}

/// Where a run keeps `metrics.jsonl` and its checkpoints.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Place {
    /// Nowhere: no files, no resume.
    #[default]
    Nowhere,
    /// In a folder that holds no run yet; it is created where it does not exist.
    Fresh(PathBuf),
    /// In a folder that holds a run, which is taken up at its newest readable checkpoint; from the beginning where it
    /// was interrupted before the first.
    Resume(PathBuf),
}

/// Trains `objective` until the steps are done, the held-out loss no longer falls, or `stop` is requested.
///
/// A run that is interrupted, by request, by an error or by the end of its process, and then resumed gives the bits of
/// one that never was: values, checkpoints and `metrics.jsonl`.
///
/// A checkpoint is saved every `checkpoint_every` steps and where the run stops, but never after an error: the last
/// good one stays.
///
/// # Errors
/// See [`TrainError`]; each names the step and, where there is one, the parameter or file.
pub fn train(
    objective: &mut dyn Objective,
    settings: &Settings,
    run: &Run,
    observer: &mut dyn Observer,
    stop: &Stop,
) -> Result<Outcome, TrainError> {
    settings.check()?;
    let mut session = Session::start(objective, settings, run, observer)?;
    if session.state.step == 0 && settings.eval_every > 0 {
        let eval = session.evaluate(observer)?;
        session.record(&Line { step: 0, eval: Some(eval), ..Line::default() })?;
    }
    let stopped = loop {
        if session.state.step >= settings.steps {
            break Stopped::Finished;
        }
        if settings.early_stop.is_some_and(|early| session.state.stale >= early.patience) {
            break Stopped::Early;
        }
        if stop.requested() {
            break Stopped::Interrupted;
        }
        session.step(observer)?;
        if settings.checkpoint_every > 0 && session.state.step.is_multiple_of(settings.checkpoint_every) {
            session.save(observer)?;
        }
    };
    session.save(observer)?;
    session.finish(stopped, observer)
}
