//! The state of a run in one file, `checkpoint-000123.safetensors`: values, optimiser state, counters, and what the
//! run is (settings and identity), so that another run cannot be continued by mistake.
//!
//! Written beside and renamed by `store`: a file of this name is whole, unless the disk damaged it later.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lowrank_store::checkpoint::Checkpoint;
use serde_json::{Map, Value, json};

use crate::observer::{Best, Resumed, Skipped};
use crate::{Settings, TrainError};

/// Version of the layout below; a checkpoint of another version is refused by name.
const FORMAT: &str = "lowrank-train 1";

/// What decides a run's numbers, as text: settings by field, and the caller's identity (data, model, start, ...).
pub(crate) struct Fingerprint {
    settings: BTreeMap<String, String>,
    identity: BTreeMap<String, String>,
}

/// A named tensor of the state: name in the file, shape, numbers.
pub(crate) type Named = (String, [usize; 2], Vec<f32>);

/// Everything that a run carries from one step to the next.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct State {
    /// Steps done.
    pub(crate) step: u64,
    /// Tokens read.
    pub(crate) tokens: u64,
    /// Mean loss of the last step.
    pub(crate) loss: Option<f64>,
    /// The best evaluation.
    pub(crate) best: Option<Best>,
    /// Evaluations since the best.
    pub(crate) stale: u32,
    /// Which parameters ever had a gradient other than zero.
    pub(crate) touched: Vec<bool>,
    /// Values, optimiser buffers and best values, by name.
    pub(crate) tensors: Vec<Named>,
}

impl Fingerprint {
    pub(crate) fn new(settings: &Settings, identity: &BTreeMap<String, String>) -> Self {
        Fingerprint { settings: settings.fields(), identity: identity.clone() }
    }

    fn to_json(&self) -> Value {
        json!({ "format": FORMAT, "settings": self.settings, "identity": self.identity })
    }

    /// Refuses a checkpoint of another run, naming the first field that differs.
    fn compare(&self, path: &Path, saved: &Value) -> Result<(), TrainError> {
        let differs = |field: &str, saved: &str, now: &str| TrainError::Differs {
            path: path.to_owned(),
            field: field.to_owned(),
            saved: saved.to_owned(),
            now: now.to_owned(),
        };
        let format = saved["format"].as_str().unwrap_or("unknown");
        if format != FORMAT {
            return Err(differs("format", format, FORMAT));
        }
        let empty = Map::new();
        for (part, now) in [("settings", &self.settings), ("identity", &self.identity)] {
            let saved = saved[part].as_object().unwrap_or(&empty);
            let names: std::collections::BTreeSet<&String> = saved.keys().chain(now.keys()).collect();
            for name in names {
                let saved = saved.get(name).and_then(Value::as_str).unwrap_or("absent");
                let now = now.get(name).map_or("absent", String::as_str);
                if saved != now {
                    return Err(differs(name, saved, now));
                }
            }
        }
        Ok(())
    }
}

/// The checkpoints of a folder, newest first: steps done, and the file.
///
/// # Errors
/// [`TrainError::Io`] where the folder cannot be listed.
pub fn checkpoints(folder: &Path) -> Result<Vec<(u64, PathBuf)>, TrainError> {
    let fail = |source: std::io::Error| TrainError::Io {
        path: folder.to_owned(),
        doing: "listing checkpoints",
        source: source.into(),
    };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        let name = entry.map_err(fail)?.file_name();
        // The name must be the one we would give: leftovers of a killed write (`….tmp`) are no checkpoints.
        if let Some(step) = name.to_str().and_then(step_of)
            && name.to_str() == Some(&file_name(step))
        {
            found.push((step, folder.join(name)));
        }
    }
    found.sort_unstable_by(|a, b| b.cmp(a));
    Ok(found)
}

fn file_name(step: u64) -> String {
    format!("checkpoint-{step:06}.safetensors")
}

fn step_of(name: &str) -> Option<u64> {
    name.strip_prefix("checkpoint-")?.strip_suffix(".safetensors")?.parse().ok()
}

/// Saves the state, then removes checkpoints beyond the `keep_last` newest (0 keeps all).
pub(crate) fn save(
    folder: &Path,
    state: State,
    fingerprint: &Fingerprint,
    keep_last: u32,
) -> Result<PathBuf, TrainError> {
    let step = state.step;
    let path = folder.join(file_name(step));
    pack(state, fingerprint)
        .save(&path)
        .map_err(|source| TrainError::Save { step, source: source.into() })?;
    if keep_last > 0 {
        // Only after the new one is safe. Files of later steps are left by a run that fell back to an older
        // checkpoint; they are written anew when those steps are reached, and must not count as the newest.
        let older = checkpoints(folder)?.into_iter().filter(|(other, _)| *other <= step);
        for (_, old) in older.skip(keep_last as usize) {
            std::fs::remove_file(&old).map_err(|source| TrainError::Io {
                path: old,
                doing: "removing an old checkpoint",
                source: source.into(),
            })?;
        }
    }
    Ok(path)
}

/// The newest checkpoint that can be read, with those that could not; none where the folder holds none.
///
/// `expected` are the names and shapes of the values that this run's parameters have.
pub(crate) fn load(
    folder: &Path,
    fingerprint: &Fingerprint,
    expected: &[(String, [usize; 2])],
) -> Result<Option<(State, Resumed)>, TrainError> {
    let found = checkpoints(folder)?;
    let mut skipped: Vec<Skipped> = Vec::new();
    for (step, path) in &found {
        let read = match Checkpoint::load(path) {
            Ok(file) => {
                fingerprint.compare(path, &file.json)?;
                unpack(file, *step)
            }
            Err(error) => Err(without(path, &error.to_string())),
        };
        match read {
            Ok(state) => {
                compare_values(path, &state, expected)?;
                let resumed = Resumed { step: *step, path: Some(path.clone()), skipped, missing_metrics: 0 };
                return Ok(Some((state, resumed)));
            }
            Err(reason) => skipped.push(Skipped { path: path.clone(), reason }),
        }
    }
    match skipped.into_iter().next() {
        None => Ok(None),
        Some(newest) => Err(TrainError::NoneReadable {
            folder: folder.to_owned(),
            count: found.len(),
            newest: format!(
                "{}: {}",
                newest.path.file_name().unwrap_or_default().to_string_lossy(),
                newest.reason
            ),
        }),
    }
}

/// A reason without the file's name, which is told beside it.
fn without(path: &Path, reason: &str) -> String {
    reason.strip_prefix(&format!("{}: ", path.display())).unwrap_or(reason).to_owned()
}

/// Refuses a checkpoint whose trainable tensors are not this run's.
fn compare_values(path: &Path, state: &State, expected: &[(String, [usize; 2])]) -> Result<(), TrainError> {
    let saved: BTreeMap<&str, [usize; 2]> = state
        .tensors
        .iter()
        .filter_map(|(name, shape, _)| Some((name.strip_prefix("value.")?, *shape)))
        .collect();
    let now: BTreeMap<&str, [usize; 2]> =
        expected.iter().map(|(name, shape)| (name.as_str(), *shape)).collect();
    let text = |shape: Option<&[usize; 2]>| shape.map_or("absent".to_owned(), |[r, c]| format!("{r}×{c}"));
    for name in saved.keys().chain(now.keys()) {
        if saved.get(name) != now.get(name) {
            return Err(TrainError::Differs {
                path: path.to_owned(),
                field: format!("shape of tensor `{name}`"),
                saved: text(saved.get(name)),
                now: text(now.get(name)),
            });
        }
    }
    Ok(())
}

/// Numbers go as integers (floats by their bits): JSON may change the last bit of a float.
fn pack(state: State, fingerprint: &Fingerprint) -> Checkpoint {
    let best = state.best.map_or(Vec::new(), |best| vec![best.step, best.loss.to_bits()]);
    let integers = [
        ("step", vec![state.step]),
        ("tokens", vec![state.tokens]),
        ("loss", state.loss.map(f64::to_bits).into_iter().collect()),
        ("best", best),
        ("stale", vec![u64::from(state.stale)]),
        ("touched", state.touched.iter().map(|&touched| u64::from(touched)).collect()),
    ];
    Checkpoint {
        tensors: state
            .tensors
            .into_iter()
            .map(|(name, shape, numbers)| (name, shape.to_vec(), numbers))
            .collect(),
        integers: integers.into_iter().map(|(name, numbers)| (name.to_owned(), numbers)).collect(),
        json: fingerprint.to_json(),
    }
}

/// The state in a file named for `step`, or what is wrong with it.
fn unpack(file: Checkpoint, step: u64) -> Result<State, String> {
    let integers = |name: &str| {
        let entry = file.integers.iter().find(|(other, _)| other == name);
        entry.map(|(_, numbers)| numbers.as_slice()).ok_or_else(|| format!("it holds no `{name}`"))
    };
    let one = |name: &str| match integers(name)? {
        [number] => Ok(*number),
        other => Err(format!("`{name}` holds {} numbers, not 1", other.len())),
    };
    if one("step")? != step {
        return Err(format!("it is of step {}, its name says {step}", one("step")?));
    }
    let loss = match integers("loss")? {
        [] => None,
        [bits] => Some(f64::from_bits(*bits)),
        other => return Err(format!("`loss` holds {} numbers", other.len())),
    };
    let best = match integers("best")? {
        [] => None,
        [step, bits] => Some(Best { step: *step, loss: f64::from_bits(*bits) }),
        other => return Err(format!("`best` holds {} numbers", other.len())),
    };
    let stale = u32::try_from(one("stale")?).map_err(|error| format!("`stale`: {error}"))?;
    let touched = integers("touched")?.iter().map(|&touched| touched != 0).collect();
    let tokens = one("tokens")?;
    let mut tensors = Vec::with_capacity(file.tensors.len());
    for (name, shape, numbers) in file.tensors {
        let &[rows, columns] = shape.as_slice() else {
            return Err(format!("tensor `{name}` has {} axes, not 2", shape.len()));
        };
        tensors.push((name, [rows, columns], numbers));
    }
    Ok(State { step, tokens, loss, best, stale, touched, tensors })
}
