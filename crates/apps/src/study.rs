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
mod options;
mod outcome;
mod svfit;
mod teacher;
mod toy;

use std::fmt;
use std::path::Path;

pub use arm::Part;
pub use claim::{Found, Judged, Measure, Role, Verdict};
pub use experiment::{Listed, Paper};
pub use options::Study;
pub use outcome::{ArmRuns, Numbers, Series, Studied, Tried};
use serde::Serialize;
pub use teacher::Size;

use crate::{AppError, Progress};
use claim::{Criterion, RULE, verdict};
use comparison::Comparison;
use experiment::{Experiment, STUDIES};

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
    let run = options.run.clone();
    if let Some(run) = run.as_deref().filter(|run| !options.overwrite && holds_a_result(run)) {
        return Err(AppError::usage(format!(
            "{} holds a result already: --overwrite replaces it, or give another --run",
            run.display()
        )));
    }
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

fn holds_a_result(run: &Path) -> bool {
    note::FILES.iter().skip(1).any(|name| run.join(name).exists())
}

/// What [`study`] would run.
///
/// # Errors
/// [`AppError::Usage`] for options that it would refuse.
pub fn dry_run(options: &Study) -> Result<Planned, AppError> {
    let options = options.resolved()?;
    let experiment = options.experiment()?.ok_or_else(|| AppError::usage("name a study"))?;
    if options.verdict.is_some() {
        return Err(AppError::usage("--verdict runs nothing, so there is nothing for --dry-run to plan"));
    }
    let course = options.course(experiment);
    let runs = course.runs();
    Ok(Planned { study: Listed::from(experiment), size: course.size, rates: course.rates, runs })
}

/// The options as a recipe, every default filled in.
///
/// # Errors
/// As [`dry_run`].
pub fn recipe(options: &Study) -> Result<String, AppError> {
    lowrank_command::options::print(&Study { run: None, overwrite: false, ..options.resolved()? })
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
    let not_shown: Vec<String> = experiment.not_shown.iter().map(|&text| text.to_owned()).collect();
    let ground = ground.map(|(name, value)| (name.to_owned(), value)).into();
    judged(experiment, experiment.criteria, arms, ground, not_shown, "a small network", options.quick)
}

fn of_comparison(experiment: &Experiment, comparison: &Comparison) -> Result<Studied, AppError> {
    let not_shown = vec![format!(
        "One model, one data set and runs of {} steps: nothing is said of others, nor of longer runs.",
        comparison.steps
    )];
    // A comparison may hold methods that others are judged by.
    let spoken_of = Listed::from(experiment).methods;
    let arms = comparison.arms().into_iter().filter(|arm| spoken_of.contains(&arm.name.as_str())).collect();
    let ground = [
        ("model", comparison.model_name()),
        ("data", format!("hash {}", comparison.data_hash)),
        ("runs", format!("{} steps; {}", comparison.steps, comparison.rates())),
        ("seeds", format!("{}, batches and their order the same for all methods", comparison.seeds)),
    ];
    let ground = ground.map(|(name, value)| (name.to_owned(), value)).into();
    let place = comparison.model_name();
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
    for arm in arms.iter().filter(|arm| arm.rate_at_the_end) {
        not_shown.push(format!(
            "The rate of {} is the smallest or largest that was tried: a better one may lie beyond.",
            arm.name
        ));
    }
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
        assert!(refused(Study { seeds: Some(u64::MAX), ..options(Some("eva")) }).contains("--seeds: give 1"));
        let judging = Study { verdict: Some("nowhere.json".into()), quick: false, ..options(Some("eva")) };
        assert!(refused(judging.clone()).contains("reading the comparison"));
        assert!(refused(Study { steps: Some(9), ..judging.clone() }).contains("--verdict runs nothing"));
        assert!(refused(Study { seed: 9, ..judging.clone() }).contains("--seed is of a study that runs"));
        assert!(dry_run(&judging).unwrap_err().to_string().contains("--dry-run"));
        assert!(refused(Study { name: None, ..judging }).contains("name the study"));
        let Outcome::List(all) = super::study(&options(None), &mut Silent).unwrap() else { unreachable!() };
        assert_eq!(all.len(), STUDIES.len());
    }
}
