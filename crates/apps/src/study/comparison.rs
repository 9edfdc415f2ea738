//! The same rule on a real model: reads the `compare.json` of a finished comparison.

use std::path::Path;

use serde::Deserialize;

use super::arm::Part;
use super::outcome::{ArmRuns, Numbers, Series};
use super::toy::around_a_quarter;
use crate::AppError;
use lowrank_command::Because;

/// What is read of `compare.json`; the rest of it plays no part.
#[derive(Debug, Deserialize)]
pub(super) struct Comparison {
    model: String,
    #[serde(default)]
    pub(super) data_hash: String,
    pub(super) equal: String,
    pub(super) steps: u64,
    pub(super) seeds: u64,
    methods: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
struct Entry {
    name: String,
    init: String,
    form: String,
    ranks: [usize; 2],
    parameters: usize,
    rate: f64,
    rate_at_the_end: bool,
    #[serde(default)]
    rate_given: bool,
    runs: Vec<Finished>,
}

#[derive(Debug, Deserialize)]
struct Finished {
    seed: u64,
    held_out: f64,
    #[serde(default)]
    accuracy: Option<f64>,
    #[serde(default)]
    training_curve: Vec<(u64, f64)>,
}

/// Keys of a comparison's recipe that name places of one machine: only the last part of each is kept.
const PLACES: [&str; 4] = ["model", "data", "held-out-data", "questions"];

impl Comparison {
    /// Reads the file.
    ///
    /// # Errors
    /// [`AppError::Usage`] for a file that is not a comparison's.
    pub(super) fn read(path: &Path) -> Result<Comparison, AppError> {
        let value = lowrank_store::json::read(path).input("reading the comparison")?;
        serde_json::from_value(value)
            .input(format!("{}: not the compare.json of a finished `lowrank compare`", path.display()))
    }

    /// The model without the place where it lay: that is of one machine.
    pub(super) fn model_name(&self) -> String {
        let name = Path::new(&self.model).file_name();
        name.map_or_else(|| self.model.clone(), |name| name.to_string_lossy().into_owned())
    }

    /// Where the rates come from, in words.
    pub(super) fn rates(&self) -> &'static str {
        if self.methods.iter().all(|entry| entry.rate_given) {
            "the rates were given, not searched"
        } else {
            "a rate searched for each method on one half of the held-out examples"
        }
    }

    /// The methods as arms: `NAME@RATE` joins the runs of NAME at a rate of its own.
    pub(super) fn arms(&self) -> Vec<ArmRuns> {
        let mut arms: Vec<ArmRuns> = Vec::new();
        let (given, searched): (Vec<&Entry>, Vec<&Entry>) =
            self.methods.iter().partition(|entry| entry.name.contains('@'));
        for entry in searched.into_iter().chain(given) {
            let name = entry.name.split('@').next().unwrap_or_default();
            let series = Series {
                rate: entry.rate,
                runs: entry.runs.iter().map(Finished::numbers).collect(),
                curves: entry.runs.iter().map(Finished::curve).collect(),
            };
            match arms.iter_mut().find(|arm| arm.name == name) {
                Some(arm) => arm.fixed.push(series),
                None => arms.push(ArmRuns {
                    name: name.to_owned(),
                    part: if name.ends_with("control") { Part::Control } else { Part::Compared },
                    method: format!("{} × {}, rank {}", entry.init, entry.form, ranks(entry.ranks)),
                    parameters: entry.parameters,
                    tried: Vec::new(),
                    rate_at_the_end: entry.rate_at_the_end,
                    tuned: series,
                    fixed: Vec::new(),
                }),
            }
        }
        arms
    }
}

impl Finished {
    fn curve(&self) -> Vec<f64> {
        self.training_curve.iter().map(|point| point.1).collect()
    }

    fn numbers(&self) -> Numbers {
        let curve = self.curve();
        Numbers {
            early: (!curve.is_empty()).then(|| around_a_quarter(&curve)),
            last: Some(self.held_out),
            accuracy: self.accuracy,
            ..Numbers::none(self.seed)
        }
    }
}

fn ranks([least, most]: [usize; 2]) -> String {
    if least == most { most.to_string() } else { format!("{least} to {most}") }
}

/// The recipe beside a comparison, without the places of the machine that it ran on.
///
/// # Errors
/// [`AppError::Usage`] where it cannot be read.
pub(super) fn recipe(comparison: &Path) -> Result<String, AppError> {
    let path = comparison.with_file_name("recipe.toml");
    let text =
        lowrank_store::text::read(&path).input("the comparison's recipe, which is written beside it")?;
    let mut table: toml::Table = text.parse().input(path.display())?;
    table.remove("run");
    table.remove("resume");
    for key in PLACES {
        if let Some(toml::Value::String(place)) = table.get_mut(key)
            && let Some(last) = Path::new(place.as_str()).file_name()
        {
            *place = last.to_string_lossy().into_owned();
        }
    }
    toml::to_string(&table).while_doing("writing the recipe")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(methods: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("compare.json");
        let text = format!(
            r#"{{"model": "m", "equal": "parameters", "steps": 40, "seeds": 2, "verdict": ["x"], "methods": [{methods}]}}"#
        );
        std::fs::write(&path, text).unwrap();
        (folder, path)
    }

    fn method(name: &str, rate: f64, losses: [f64; 2]) -> String {
        let run = |seed: usize| {
            format!(
                r#"{{"seed": {seed}, "held_out": {}, "training_curve": [[1, 3.0], [2, 2.0]]}}"#,
                losses[seed]
            )
        };
        format!(
            r#"{{"name": "{name}", "init": "i", "form": "lora", "ranks": [2, 8], "parameters": 12, "rate": {rate},
               "rate_at_the_end": false, "runs": [{}, {}]}}"#,
            run(0),
            run(1)
        )
    }

    #[test]
    fn a_given_rate_joins_its_method() {
        let methods = [method("eva@1e-3", 1e-3, [4.0, 5.0]), method("eva", 1e-2, [2.0, 3.0])].join(", ");
        let (_folder, path) = written(&methods);
        let arms = Comparison::read(&path).unwrap().arms();
        assert_eq!((arms.len(), arms[0].method.as_str()), (1, "i × lora, rank 2 to 8"));
        assert_eq!(arms[0].tuned.runs[1].last, Some(3.0));
        assert_eq!((arms[0].fixed[0].rate, arms[0].fixed[0].runs[0].last), (1e-3, Some(4.0)));
        assert_eq!((arms[0].tuned.runs[0].early, arms[0].tuned.runs[0].accuracy), (Some(3.0), None));
    }

    #[test]
    fn places_of_a_machine_are_left_out_of_the_recipe() {
        let (folder, path) = written("");
        std::fs::write(
            folder.path().join("recipe.toml"),
            "model = \"/somewhere/deep/minilm\"\nrun = \"/elsewhere\"\nsteps = 4\n",
        )
        .unwrap();
        assert_eq!(recipe(&path).unwrap(), "model = \"minilm\"\nsteps = 4\n");
    }

    #[test]
    fn another_file_is_refused() {
        let (_folder, path) = written("");
        std::fs::write(&path, "{\"steps\": 3}").unwrap();
        let message = Comparison::read(&path).unwrap_err().to_string();
        assert!(message.contains("not the compare.json") && message.contains("model"), "{message}");
    }
}
