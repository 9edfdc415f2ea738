//! `lowrank study`: does a paper's claim hold? Each system's scaled-down experiment on our own starts, forms and trainer, judged
//! by a rule that is fixed before the numbers; and the same rule on the numbers of a finished comparison of a real model.

mod arm;
mod claim;
mod comparison;
mod eva;
mod experiment;
mod learning;
mod loldu;
mod lora_ga;
mod lora_sb;
mod nlora;
mod note;
mod outcome;
mod svfit;
mod teacher;
mod toy;

use std::fmt;
use std::path::PathBuf;

pub use arm::Part;
pub use claim::{Found, Judged, Measure, Role, Verdict};
pub use experiment::{Listed, Paper};
pub use outcome::{ArmRuns, Numbers, Series, Studied, Tried};
use serde::{Deserialize, Serialize};
pub use teacher::Size;

use crate::{AppError, Progress, output};
use claim::{Criterion, RULE, verdict};
use comparison::Comparison;
use experiment::{Experiment, QUICK, STUDIES};
use toy::Course;

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

/// What `lowrank study` gives.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum Outcome {
    /// Without a name: every study.
    List(Vec<Listed>),
    /// A finished one.
    Studied(Box<Studied>),
}

/// What a study would run.
#[derive(Debug, Clone, Serialize)]
pub struct Planned {
    /// The study.
    pub study: Listed,
    /// The problem.
    pub size: Size,
    /// The rates that are tried for each arm.
    pub rates: Vec<f64>,
    /// Runs in all, of the search and of the comparison.
    pub runs: u64,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Studied(studied) => studied.fmt(f),
            Outcome::List(all) => all.iter().try_for_each(|each| {
                let link = each.paper.map_or("", |paper| paper.link);
                writeln!(
                    f,
                    "{:<8} {}\n{:<8} asked: {}\n{:<8} {link}",
                    each.name, each.claim, "", each.question, ""
                )
            }),
        }
    }
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.study.name, self.study.question)?;
        writeln!(f, "arms: {}", self.study.arms.join("; "))?;
        for says in &self.study.statements {
            writeln!(f, "statement: {says}")?;
        }
        writeln!(f, "rule: {RULE}")?;
        write!(f, "{} runs of {} steps, at the rates {:?}", self.runs, self.size.steps, self.rates)
    }
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
        for (flag, number, least) in [
            ("--seeds", options.seeds, 1),
            ("--tuning-seeds", options.tuning_seeds, 1),
            ("--steps", options.steps, 8),
        ] {
            if number.is_some_and(|number| number < least) {
                return Err(AppError::usage(format!("{flag}: give at least {least}")));
            }
        }
        Ok(options)
    }

    fn experiment(&self) -> Result<Option<&'static Experiment>, AppError> {
        let Some(name) = &self.name else { return Ok(None) };
        let wanted = name.to_lowercase().replace('_', "-");
        let found = STUDIES.iter().find(|study| study.name == wanted);
        found.copied().map(Some).ok_or_else(|| {
            let known: Vec<&str> = STUDIES.iter().map(|study| study.name).collect();
            AppError::usage(format!("no study is called {name:?}; there are {}", known.join(", ")))
        })
    }

    /// What is run, of options that are resolved.
    fn course<'a>(&self, experiment: &'a Experiment) -> Course<'a> {
        let size = if self.quick { QUICK } else { experiment.size };
        let steps = self.steps.unwrap_or(size.steps);
        // Two rates from the middle are enough to see that the search works.
        let rates = match experiment.rates {
            [.., a, b, _, _] if self.quick => vec![*a, *b],
            all => all.to_vec(),
        };
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
    fn command(&self) -> String {
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

/// Runs a study, judges a comparison, or lists all studies.
///
/// # Errors
/// [`AppError::Usage`] for options and files that cannot be used; [`AppError::Failed`] for what went wrong, and when the user
/// stopped it.
pub fn study(options: &Study, progress: &mut dyn Progress) -> Result<Outcome, AppError> {
    let options = options.resolved()?;
    let Some(experiment) = options.experiment()? else {
        if options.verdict.is_some() {
            return Err(AppError::usage("--verdict: name the study whose statements are judged"));
        }
        return Ok(Outcome::List(STUDIES.iter().map(|study| Listed::from(*study)).collect()));
    };
    let run = match &options.run {
        Some(run) => Some(output::run_folder(Some(run), "study", options.overwrite, &["result.json"])?),
        None => None,
    };
    let (mut studied, recipe, command) = match &options.verdict {
        Some(path) => {
            let recipe = if run.is_some() { comparison::recipe(path)? } else { String::new() };
            let command = format!(
                "lowrank compare --recipe recipe.toml`, then `lowrank study {} --verdict compare.json",
                experiment.name
            );
            (of_comparison(experiment, &Comparison::read(path)?)?, recipe, command)
        }
        None => (of_toy(experiment, &options, progress)?, recipe(&options)?, options.command()),
    };
    studied.run.clone_from(&run);
    if let Some(run) = &run {
        note::write(run, &Studied { run: None, ..studied.clone() }, &recipe, &command)?;
    }
    Ok(Outcome::Studied(Box::new(studied)))
}

/// What [`study`] would run.
///
/// # Errors
/// [`AppError::Usage`] for options that it would refuse.
pub fn dry_run(options: &Study) -> Result<Planned, AppError> {
    let options = options.resolved()?;
    let experiment = options.experiment()?.ok_or_else(|| AppError::usage("name a study"))?;
    let Course { size, rates, tuning_seeds, seeds, .. } = options.course(experiment);
    let arms = experiment.arms.len() as u64;
    let fixed: usize = experiment.arms.iter().map(|arm| experiment.fixed_rates(arm.name).len()).sum();
    let runs = tuning_seeds * arms * rates.len() as u64 + seeds * (arms + fixed as u64);
    Ok(Planned { study: Listed::from(experiment), size, rates, runs })
}

/// The options as a recipe, every default filled in.
///
/// # Errors
/// As [`dry_run`].
pub fn recipe(options: &Study) -> Result<String, AppError> {
    crate::options::print(&Study { run: None, overwrite: false, ..options.resolved()? })
}

fn of_toy(
    experiment: &Experiment,
    options: &Study,
    progress: &mut dyn Progress,
) -> Result<Studied, AppError> {
    let course = options.course(experiment);
    let arms = course.run(progress)?;
    let Size { hidden, pretraining, pretraining_batch, steps, batch, train, test } = course.size;
    let [inputs, classes] = [teacher::INPUTS, teacher::CLASSES];
    let first_task: Vec<f64> =
        arms.iter().flat_map(|arm| &arm.tuned.runs).filter_map(|run| run.first_task).collect();
    let knows = first_task.iter().sum::<f64>() / first_task.len().max(1) as f64;
    let rates: Vec<String> = course.rates.iter().map(|rate| format!("{rate:.0e}")).collect();
    let ground = [
        (
            "problem",
            format!(
                "a perceptron {inputs}-{hidden}-{hidden}-{classes}, pretrained for {pretraining} steps of {pretraining_batch} rows on a \
                 teacher's classes ({knows:.2} right), learns those of that teacher and 1.5 times another from {train} rows; accuracy \
                 is of {test} others"
            ),
        ),
        (
            "runs",
            format!(
                "{steps} steps of {batch} rows, AdamW, cosine schedule after a short warm-up, no clipping, no weight decay"
            ),
        ),
        (
            "rates",
            format!(
                "{}; for each arm the one of the highest mean accuracy on {} other problem{}",
                rates.join(", "),
                course.tuning_seeds,
                if course.tuning_seeds == 1 { "" } else { "s" }
            ),
        ),
        (
            "seeds",
            format!("{} problems from seed {}, the same for all arms", course.seeds, course.first_seed),
        ),
    ];
    let mut not_shown: Vec<String> = experiment.not_shown.iter().map(|&text| text.to_owned()).collect();
    for arm in arms.iter().filter(|arm| arm.rate_at_the_end) {
        not_shown.push(format!(
            "The rate of {} is the smallest or largest that was tried: a better one may lie beyond.",
            arm.name
        ));
    }
    let ground = ground.map(|(name, value)| (name.to_owned(), value)).into();
    judged(experiment, experiment.criteria, arms, ground, not_shown, "a small network", options.quick)
}

fn of_comparison(experiment: &Experiment, comparison: &Comparison) -> Result<Studied, AppError> {
    let mut not_shown = vec![format!(
        "One model, one data set and runs of {} steps: nothing is said of others, nor of longer runs.",
        comparison.steps
    )];
    let arms = comparison.arms();
    for arm in arms.iter().filter(|arm| arm.rate_at_the_end) {
        not_shown.push(format!(
            "The rate of {} is the smallest or largest that was tried: a better one may lie beyond.",
            arm.name
        ));
    }
    let ground = [
        ("model", comparison.model.clone()),
        ("data", format!("hash {}", comparison.data_hash)),
        (
            "runs",
            format!(
                "{} steps, a rate searched for each method on one half of the held-out examples",
                comparison.steps
            ),
        ),
        ("seeds", format!("{}, batches and their order the same for all methods", comparison.seeds)),
    ];
    let ground = ground.map(|(name, value)| (name.to_owned(), value)).into();
    let place = comparison.model.clone();
    let mut studied = judged(experiment, experiment.real, arms, ground, not_shown, &place, false)?;
    studied.equal =
        format!("{}, as far as ranks allow; the number of trained values is in the table", comparison.equal);
    Ok(studied)
}

/// Judges the statements over what was run.
fn judged(
    experiment: &Experiment,
    criteria: &[Criterion],
    arms: Vec<ArmRuns>,
    ground: Vec<(String, String)>,
    mut not_shown: Vec<String>,
    place: &str,
    quick: bool,
) -> Result<Studied, AppError> {
    let statements: Vec<Judged> =
        criteria.iter().map(|criterion| criterion.judge(&|term| outcome::numbers(&arms, term))).collect();
    let Some((verdict, sentences)) = verdict(&statements) else {
        let missing: Vec<&str> = statements.iter().filter_map(|judged| judged.missing.as_deref()).collect();
        return Err(AppError::usage(format!(
            "no statement of {} can be judged: {}; the methods it speaks of are {}",
            experiment.name,
            missing.join("; "),
            Listed::from(experiment).methods.join(", ")
        )));
    };
    let title = format!("{} on {place}: {}", experiment.title, verdict.words());
    let mut studied = Studied {
        study: experiment.name,
        title: if quick { format!("{title} (quick: decides nothing)") } else { title },
        claim: experiment.claim,
        paper: experiment.paper(),
        question: experiment.question,
        equal: experiment.equal.to_owned(),
        ground,
        rule: RULE,
        quick,
        statements,
        verdict,
        sentences,
        arms,
        not_shown: Vec::new(),
        run: None,
    };
    if studied.is_open() {
        not_shown.push(
            "What is open or was not run is neither shown nor refuted: more seeds would tell.".to_owned(),
        );
    }
    studied.not_shown = not_shown;
    Ok(studied)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Silent;

    fn options(name: Option<&str>) -> Study {
        Study {
            name: name.map(str::to_owned),
            seeds: None,
            tuning_seeds: None,
            steps: None,
            seed: 0,
            quick: true,
            verdict: None,
            run: None,
            overwrite: false,
        }
    }

    #[test]
    fn every_study_runs_and_judges_what_it_said() {
        for study in STUDIES {
            let small = Study { seeds: Some(2), steps: Some(8), ..options(Some(study.name)) };
            let Outcome::Studied(studied) = super::study(&small, &mut Silent).unwrap() else {
                unreachable!()
            };
            assert_eq!(studied.arms.len(), study.arms.len() + 1, "{}", study.name);
            assert_eq!(studied.statements.len(), study.criteria.len());
            for judged in &studied.statements {
                assert!(judged.margin.is_some(), "{}: {} {:?}", study.name, judged.says, judged.missing);
            }
            for (arm, runs) in study.arms.iter().zip(&studied.arms[1..]) {
                assert_eq!(runs.tuned.runs.len(), 2, "{}", arm.name);
                assert!(runs.parameters > 0 && runs.tried.len() == 2, "{}", arm.name);
            }
            assert!(studied.quick && studied.title.contains("decides nothing"));
        }
    }

    #[test]
    fn the_same_seeds_give_the_same_numbers() {
        let small = Study { seeds: Some(2), steps: Some(8), ..options(Some("eva")) };
        let run = || serde_json::to_string(&super::study(&small, &mut Silent).unwrap()).unwrap();
        assert_eq!(run(), run());
    }

    #[test]
    fn what_cannot_be_studied_is_refused_by_name() {
        let refused = |options: Study| super::study(&options, &mut Silent).unwrap_err().to_string();
        assert!(refused(options(Some("evil"))).contains("lora-ga, lora-sb, eva, loldu, nlora, svfit"));
        assert!(refused(Study { seeds: Some(0), ..options(Some("eva")) }).contains("--seeds"));
        let judging = Study { verdict: Some("nowhere.json".into()), quick: false, ..options(Some("eva")) };
        assert!(refused(judging.clone()).contains("reading the comparison"));
        assert!(refused(Study { steps: Some(9), ..judging.clone() }).contains("--verdict runs nothing"));
        assert!(refused(Study { name: None, ..judging }).contains("name the study"));
        let Outcome::List(all) = super::study(&options(None), &mut Silent).unwrap() else { unreachable!() };
        assert_eq!(all.len(), STUDIES.len());
    }
}
