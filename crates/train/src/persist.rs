//! What a run keeps between processes: its folder, its state in checkpoints, and how it is taken up again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::TrainError;
use crate::checkpoint::{self, Fingerprint, Named, State};
use crate::metrics::{Log, METRICS_FILE};
use crate::objective::Parameter;
use crate::observer::{Event, Observer, Resumed};
use crate::session::Session;

/// Before the names of what the objective remembers.
const ROW: &str = "row.";

/// The open files of a run.
pub(crate) struct Files {
    pub(crate) folder: PathBuf,
    pub(crate) log: Log,
    pub(crate) fingerprint: Fingerprint,
}

impl Session<'_> {
    pub(crate) fn resume(&mut self, folder: &Path, fingerprint: Fingerprint) -> Result<(), TrainError> {
        let expected: Vec<_> = self.parameters.iter().map(|p| (p.name.clone(), p.shape)).collect();
        let found = checkpoint::load(folder, &fingerprint, &expected)?;
        let step = found.as_ref().map(|(state, _)| state.step);
        let mut resumed = Resumed { step: 0, path: None, skipped: Vec::new(), missing_metrics: 0 };
        if let Some((state, from)) = found {
            resumed = from;
            self.saved = resumed.path.clone().map(|path| (state.step, path));
            self.put_back(state)?;
        }
        // Last, because it cuts: a run that is refused leaves its folder as it was.
        let (log, missing_metrics) = Log::resume(folder, step)?;
        self.resumed = Some(Resumed { missing_metrics, ..resumed });
        self.files = Some(Files { folder: folder.to_owned(), log, fingerprint });
        Ok(())
    }

    /// The inverse of [`Session::snapshot`].
    fn put_back(&mut self, mut state: State) -> Result<(), TrainError> {
        let path = self.saved.as_ref().map(|(_, path)| path.clone()).unwrap_or_default();
        let mut tensors: BTreeMap<String, Vec<f32>> =
            state.tensors.drain(..).map(|(name, _, numbers)| (name, numbers)).collect();
        let mut take = |prefix: &str, parameter: &Parameter| {
            let name = format!("{prefix}.{}", parameter.name);
            match tensors.remove(&name) {
                Some(numbers) if numbers.len() == parameter.value.len() => Ok(numbers),
                other => Err(TrainError::Differs {
                    path: path.clone(),
                    field: format!("size of tensor `{name}`"),
                    saved: other.map_or("absent".to_owned(), |numbers| numbers.len().to_string()),
                    now: parameter.value.len().to_string(),
                }),
            }
        };
        for (buffer, vectors) in self.optimiser.buffers() {
            for (vector, parameter) in vectors.iter_mut().zip(&self.parameters) {
                *vector = take(buffer, parameter)?;
            }
        }
        if self.settings.restore_best && state.best.is_some() {
            self.best_values = Some(
                self.parameters.iter().map(|parameter| take("best", parameter)).collect::<Result<_, _>>()?,
            );
        }
        for parameter in &mut self.parameters {
            parameter.value = take("value", parameter)?;
        }
        let rows = tensors.iter_mut().filter_map(|(name, numbers)| {
            Some((name.strip_prefix(ROW)?.to_owned(), std::mem::take(numbers)))
        });
        self.objective.put_back(rows.collect()).map_err(|source| TrainError::Objective {
            step: state.step,
            doing: "putting back what it remembers",
            source,
        })?;
        if state.touched.len() != self.parameters.len() {
            return Err(TrainError::Differs {
                path,
                field: "number of trainable tensors".to_owned(),
                saved: state.touched.len().to_string(),
                now: self.parameters.len().to_string(),
            });
        }
        self.state = state;
        self.assign("putting back the checkpoint's values")
    }

    /// Saves the state of the present step, once; step 0 is what a run without checkpoints starts from anyway.
    pub(crate) fn save(&mut self, observer: &mut dyn Observer) -> Result<(), TrainError> {
        let step = self.state.step;
        if self.files.is_none() || step == 0 || self.saved.as_ref().is_some_and(|(saved, _)| *saved == step) {
            return Ok(());
        }
        let state = self.snapshot();
        let Some(files) = &self.files else { return Ok(()) };
        files.log.sync()?;
        let path = checkpoint::save(&files.folder, state, &files.fingerprint, self.settings.keep_last)?;
        observer.see(&Event::CheckpointSaved { step, path: &path });
        self.saved = Some((step, path));
        Ok(())
    }

    pub(crate) fn snapshot(&mut self) -> State {
        let parameters = &self.parameters;
        let named = |prefix: &str, vectors: &[Vec<f32>]| -> Vec<Named> {
            let pairs = parameters.iter().zip(vectors);
            pairs.map(|(p, vector)| (format!("{prefix}.{}", p.name), p.shape, vector.clone())).collect()
        };
        let mut tensors: Vec<Named> =
            parameters.iter().map(|p| (format!("value.{}", p.name), p.shape, p.value.clone())).collect();
        for (buffer, vectors) in self.optimiser.buffers() {
            tensors.extend(named(buffer, vectors));
        }
        if let Some(best) = &self.best_values {
            tensors.extend(named("best", best));
        }
        let rows = self.objective.rows().into_iter();
        tensors.extend(rows.map(|(name, numbers)| (format!("{ROW}{name}"), [1, numbers.len()], numbers)));
        State { tensors, ..self.state.clone() }
    }
}

/// Creates the folder and its metrics, or says which run is in the way.
pub(crate) fn fresh_folder(folder: &Path) -> Result<Log, TrainError> {
    std::fs::create_dir_all(folder).map_err(|source| TrainError::Io {
        path: folder.to_owned(),
        doing: "creating the folder",
        source: source.into(),
    })?;
    let old = checkpoint::checkpoints(folder)?.into_iter().next().map(|(_, path)| path);
    let metrics = Some(folder.join(METRICS_FILE)).filter(|path| path.exists());
    if let Some(found) = old.or(metrics) {
        let found = found.file_name().unwrap_or_default().to_string_lossy().into_owned();
        return Err(TrainError::FolderInUse { folder: folder.to_owned(), found });
    }
    Log::fresh(folder)
}
