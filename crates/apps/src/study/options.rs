//! Everything that a study can be told.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::experiment::{Experiment, QUICK, STUDIES};
use super::teacher::Size;
use super::toy::Course;
use crate::AppError;

/// More problems than this say nothing more.
const MOST_SEEDS: u64 = 10_000;

/// More steps than this are no toy.
const MOST_STEPS: u64 = 10_000_000;

/// A study. Each field is a flag and a key of the recipe file.
#[derive(Debug, Clone, PartialEq, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Study {
    /// Which study; without it all are listed
    #[arg(value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Compared problems, each with its own network, task, rows and draws [default: 10, with --quick 3]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seeds: Option<u64>,
    /// Problems on which each arm's rate is chosen; they are none of those compared [default: 2, with --quick 1]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tuning_seeds: Option<u64>,
    /// Optimiser steps of each run [default: the study's]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    /// The first seed; the others follow it
    #[arg(long, default_value_t = 0, value_name = "SEED")]
    #[serde(default)]
    pub seed: u64,
    /// A small problem and two rates, in seconds: to see that everything works, it decides nothing
    #[arg(long)]
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub quick: bool,
    /// Run nothing: judge the numbers of a finished `lowrank compare` of a real model by the study's statements
    #[arg(long, value_name = "compare.json")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<PathBuf>,
    /// Where recipe, result, note and page go; without it the result is only shown
    #[arg(long, value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<PathBuf>,
    /// Replace the result that the run folder holds
    #[arg(long)]
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub overwrite: bool,
}

impl Study {
    /// With every default filled in.
    ///
    /// # Errors
    /// [`AppError::Usage`] for numbers that cannot be, and flags that do not go together.
    pub fn resolved(&self) -> Result<Study, AppError> {
        let mut options = self.clone();
        if options.verdict.is_some() {
            let runs = [
                ("--seeds", options.seeds.is_some()),
                ("--tuning-seeds", options.tuning_seeds.is_some()),
                ("--steps", options.steps.is_some()),
                ("--seed", options.seed != 0),
                ("--quick", options.quick),
            ];
            if let Some((flag, _)) = runs.iter().find(|(_, given)| *given) {
                return Err(AppError::usage(format!(
                    "{flag} is of a study that runs; --verdict runs nothing"
                )));
            }
            return Ok(options);
        }
        let Some(experiment) = options.experiment()? else { return Ok(options) };
        let size = if options.quick { QUICK } else { experiment.size };
        let [seeds, tuning] = if options.quick { [3, 1] } else { [10, 2] };
        options.seeds = options.seeds.or(Some(seeds));
        options.tuning_seeds = options.tuning_seeds.or(Some(tuning));
        options.steps = options.steps.or(Some(size.steps));
        for (flag, number, range) in [
            ("--seeds", options.seeds, 1..=MOST_SEEDS),
            ("--tuning-seeds", options.tuning_seeds, 1..=MOST_SEEDS),
            ("--steps", options.steps, 8..=MOST_STEPS),
        ] {
            if number.is_some_and(|number| !range.contains(&number)) {
                let (least, most) = (range.start(), range.end());
                return Err(AppError::usage(format!("{flag}: give {least} to {most}")));
            }
        }
        Ok(options)
    }

    /// The study that is meant; none where none is named.
    pub(super) fn experiment(&self) -> Result<Option<&'static Experiment>, AppError> {
        let Some(name) = &self.name else { return Ok(None) };
        let wanted = name.to_lowercase().replace('_', "-");
        let found = STUDIES.iter().find(|study| study.name == wanted);
        found.copied().map(Some).ok_or_else(|| {
            let known: Vec<&str> = STUDIES.iter().map(|study| study.name).collect();
            AppError::usage(format!("no study is called {name:?}; there are {}", known.join(", ")))
        })
    }

    /// What is run, of options that are resolved.
    pub(super) fn course<'a>(&self, experiment: &'a Experiment) -> Course<'a> {
        let size = if self.quick { QUICK } else { experiment.size };
        let steps = self.steps.unwrap_or(size.steps);
        // Two rates from the middle are enough to see that the search works.
        let middle = experiment.rates.len().saturating_sub(1) / 2;
        let quick = experiment.rates.get(middle.saturating_sub(1)..=middle).unwrap_or(experiment.rates);
        let rates = if self.quick { quick } else { experiment.rates }.to_vec();
        Course {
            experiment,
            size: Size { steps, ..size },
            rates,
            tuning_seeds: self.tuning_seeds.unwrap_or(1),
            seeds: self.seeds.unwrap_or(1),
            first_seed: self.seed,
        }
    }

    /// The command that runs it again.
    pub(super) fn command(&self) -> String {
        let mut words = vec![format!("lowrank study {}", self.name.as_deref().unwrap_or_default())];
        let numbers = [
            ("--seeds", self.seeds),
            ("--tuning-seeds", self.tuning_seeds),
            ("--steps", self.steps),
            ("--seed", Some(self.seed).filter(|seed| *seed > 0)),
        ];
        words.extend(self.quick.then(|| "--quick".to_owned()));
        words.extend(numbers.iter().filter_map(|(flag, number)| Some(format!("{flag} {}", (*number)?))));
        words.join(" ")
    }
}
