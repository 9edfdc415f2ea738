//! The study `rich-lazy`: does a low effective rank of the initial recurrent weights make learning richer, at one norm of these weights?
//!
//! Three tasks, four ranks, the same under two other norms (the confound that reviewers of the paper named), aligned starts and starts with
//! structure; and the linear network against its closed forms. What would decide was written down before the numbers, in the specification.

mod arm;
mod criteria;
mod note;
mod page;
mod statement;
mod theory;

pub use arm::{Arm, Kind, Size};
pub use note::{json, note};
pub use page::page;
pub use statement::{Bound, Found, Role, Statement, Verdict};
pub use theory::Case;

use faer::Mat;
use lowrank_command::{AppError, Because, Progress};
use lowrank_record::Seed;
use rayon::iter::{IntoParallelIterator, IntoParallelRefIterator, ParallelIterator};
use serde::Serialize;

use crate::study::Finished;

use super::connectivity::gaussian;
use super::task::{Context, MatchToSample, TwoAlternative};
use super::{Probes, RegimeError, Task, Trained, Training, course};

/// The tasks.
const TASKS: [&dyn Task; 3] = [&TwoAlternative, &MatchToSample, &Context];

/// All runs of a start on a task.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Series {
    /// The start.
    pub arm: Arm,
    /// Its name.
    pub name: String,
    /// The task.
    pub task: &'static str,
    /// One a seed, in the order of the seeds; nothing where the run diverged or the start has no such norm.
    pub runs: Vec<Option<Trained>>,
}

/// A finished study.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Studied {
    /// What the note is called.
    pub title: String,
    /// What the paper says.
    pub claim: &'static str,
    /// Where it says so.
    pub paper: &'static str,
    /// Size of the experiment.
    pub size: Size,
    /// The rule of the verdict, fixed before the numbers.
    pub rule: &'static str,
    /// What became of each statement.
    pub statements: Vec<Statement>,
    /// What became of the claim.
    pub verdict: Verdict,
    /// The verdict in sentences.
    pub sentences: Vec<String>,
    /// The linear network.
    pub theory: Vec<Case>,
    /// The recurrent networks.
    pub series: Vec<Series>,
    /// What was not shown.
    pub not_shown: Vec<String>,
}

/// Runs the study: the courses of a seed in parallel, seeds one after another; the same numbers on any number of threads.
///
/// # Errors
/// [`AppError::Usage`] for a size that cannot be; [`AppError::Failed`] for what went wrong, and when the user stopped it.
pub fn study(size: &Size, progress: &mut dyn Progress) -> Result<Studied, AppError> {
    check(size)?;
    let (theory, theorems) = theory::theory(Seed(size.first_seed)).while_doing("the linear network")?;
    let arms = size.arms();
    let mut series: Vec<Series> = TASKS
        .iter()
        .flat_map(|task| arms.iter().map(|arm| (task.name(), *arm)))
        .map(|(task, arm)| Series { arm, name: arm.name(), task, runs: Vec::new() })
        .collect();
    progress.begin("seeds", size.seeds);
    for index in 0..size.seeds {
        if progress.stopping() {
            return Err(AppError::failed(format!(
                "stopped after {index} of {} seeds; nothing was written",
                size.seeds
            )));
        }
        let runs = of_seed(size, &arms, Seed(size.first_seed + index)).while_doing("training")?;
        series.iter_mut().zip(runs).for_each(|(series, run)| series.runs.push(run));
        progress.step(index + 1, "");
    }
    progress.end();
    let mut statements = theorems;
    statements.extend(criteria::statements(size, &series));
    let (verdict, sentences) = statement::verdict(&statements);
    let title = format!("Rank and regime in small recurrent networks: {}", verdict.words());
    let not_shown = not_shown(size, &series);
    Ok(Studied {
        title: if size.quick { format!("{title} (quick: decides nothing)") } else { title },
        claim: "At one Frobenius norm of the initial recurrent weights a high effective rank gives lazier learning and a low one richer learning, on \
                average over tasks; a low rank that is aligned with the task can be lazy too.",
        paper: "Liu, Baratin, Cornford, Mihalas, Shea-Brown, Lajoie, \"How connectivity structure shapes rich and lazy learning in neural circuits\", \
                ICLR 2024, <https://arxiv.org/abs/2310.08513>",
        size: size.clone(),
        rule: statement::RULE,
        statements,
        verdict,
        sentences,
        theory,
        series,
        not_shown,
    })
}

/// The study as the laboratories' list runs it.
///
/// # Errors
/// As [`study`].
pub(crate) fn listed(asked: crate::study::Size, progress: &mut dyn Progress) -> Result<Finished, AppError> {
    let whole = if asked.quick { Size::quick() } else { Size::full() };
    let size = Size { seeds: asked.seeds, first_seed: asked.first, ..whole };
    let studied = study(&size, progress)?;
    let line = |each: &Statement| {
        format!("{:<7} {:<7} {}: {}", each.found.word(), each.role.word(), each.says, each.numbers())
    };
    Ok(Finished {
        json: json(&studied)?,
        title: studied.title.clone(),
        statements: studied.statements.iter().map(line).collect(),
        sentences: studied.sentences.clone(),
        page: page(&studied),
        note: Box::new(move |command| note(&studied, command)),
    })
}

fn check(size: &Size) -> Result<(), AppError> {
    let bad = |text: String| Err(AppError::usage(text));
    if size.seeds == 0 || size.iterations < 2 || size.trials == 0 {
        return bad("give at least one seed, two iterations and one trial".to_owned());
    }
    if size.units < 4 {
        return bad(format!("{} units are too few for an aligned start of rank 4", size.units));
    }
    match size.ranks.iter().find(|&&rank| rank == 0 || rank > size.units) {
        Some(rank) => bad(format!("rank {rank}: give ranks from 1 to the {} units", size.units)),
        None if !size.ranks.contains(&1) || !size.ranks.contains(&size.units) => bad(format!(
            "the statements compare rank 1 with all {} units: give both among the ranks",
            size.units
        )),
        None => Ok(()),
    }
}

/// Every arm on every task with this seed, task by task.
fn of_seed(size: &Size, arms: &[Arm], seed: Seed) -> Result<Vec<Option<Trained>>, RegimeError> {
    let aligned = |arm: &Arm| matches!(arm.kind, Kind::Aligned(_));
    let pairs: Vec<(usize, usize)> =
        (0..TASKS.len()).flat_map(|task| (0..arms.len()).map(move |arm| (task, arm))).collect();
    let mut runs: Vec<Option<Trained>> = pairs
        .par_iter()
        .map(
            |&(task, arm)| {
                if aligned(&arms[arm]) { Ok(None) } else { run(size, TASKS[task], &arms[arm], None, seed) }
            },
        )
        .collect::<Result<_, _>>()?;
    // The first arm is the control, from whose change aligned starts are made.
    let learned: Vec<Option<Mat<f64>>> =
        (0..TASKS.len()).map(|task| runs[task * arms.len()].as_ref().map(|run| run.change.clone())).collect();
    let late: Vec<usize> = (0..pairs.len()).filter(|&at| aligned(&arms[pairs[at].1])).collect();
    let found: Vec<Option<Trained>> = late
        .clone()
        .into_par_iter()
        .map(|at| match &learned[pairs[at].0] {
            None => Ok(None),
            learned => run(size, TASKS[pairs[at].0], &arms[pairs[at].1], learned.as_ref(), seed),
        })
        .collect::<Result<_, _>>()?;
    late.into_iter().zip(found).for_each(|(at, run)| runs[at] = run);
    Ok(runs)
}

/// One run; nothing where it diverged or the start has no such norm.
fn run(
    size: &Size,
    task: &dyn Task,
    arm: &Arm,
    learned: Option<&Mat<f64>>,
    seed: Seed,
) -> Result<Option<Trained>, RegimeError> {
    let seed = seed.at("rich-lazy", task.name());
    let control = gaussian(size.units, size.gain, seed);
    let training =
        Training { rate: size.rate, iterations: size.iterations, trials: size.trials, ..Training::default() };
    let probes = Probes::paper(size.iterations);
    let probes = if size.quick { Probes { kernel_trials: 8, test_trials: 200, ..probes } } else { probes };
    let found = arm
        .weights(control.as_ref(), learned, seed)
        .and_then(|weights| course(task, weights, 1.0, &training, &probes, seed));
    match found {
        Ok(trained) => Ok(Some(trained)),
        Err(RegimeError::Diverged { .. } | RegimeError::NoNorm { .. }) => Ok(None),
        Err(other) => Err(other),
    }
}

fn not_shown(size: &Size, series: &[Series]) -> Vec<String> {
    let mut all = vec![
        format!(
            "{} units, {} batches and one rate; the paper has 300 units and 10 000 batches at the rate 0.003.",
            size.units, size.iterations
        ),
        "Row-wise images and connectivity from electron microscopy or tables of cell types were not run here: they need data of the caller.".to_owned(),
        "Only the recurrent weights enter the kernel and the weight change, as in the paper; input and readout weights are trained as well and can carry \
         a task."
            .to_owned(),
        "Signs and structure hold at the start only; training is free to change them.".to_owned(),
        "Starts with structure are compared at an equal spectral radius alone: at an equal Frobenius norm those with an outlier (Soules, Dale with \
         excitation ahead, chains) have radii of 3 to 8 and kill the network in its first batches, as a first run showed."
            .to_owned(),
    ];
    for each in series {
        let lost = each.runs.iter().filter(|run| run.is_none()).count();
        if lost > 0 {
            let (name, task, seeds) = (&each.name, each.task, each.runs.len());
            all.push(format!(
                "{name} on {task}: {lost} of {seeds} runs diverged, or had no such norm, and are left out."
            ));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use lowrank_command::Silent;

    #[test]
    fn the_quick_study_runs_repeats_itself_and_makes_a_page() {
        let size = Size { iterations: 60, ..Size::quick() };
        let studied = study(&size, &mut Silent).unwrap();
        assert_eq!(studied.series.len(), 3 * size.arms().len());
        assert!(studied.series.iter().all(|series| series.runs.len() == 2));
        assert!(studied.statements.iter().filter(|each| each.role == Role::Claim).count() == 12);
        assert!(studied.statements[..2].iter().all(|theorem| theorem.found == Found::Holds));
        assert!(studied.title.contains("decides nothing"));
        let html = page(&studied).html().unwrap();
        assert!(html.contains("Kernel alignment") && html.contains("<svg"));
        assert!(note(&studied, "lowrank study rich-lazy --quick").contains("## Statements"));
        let again = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let again = again.install(|| study(&size, &mut Silent)).unwrap();
        assert!(again == studied, "the same numbers on any number of threads");
    }

    #[test]
    fn sizes_that_cannot_be_judged_are_refused() {
        let refused = |size: Size| study(&size, &mut Silent).unwrap_err().to_string();
        assert!(refused(Size { ranks: vec![0, 24], ..Size::quick() }).contains("rank 0"));
        assert!(refused(Size { ranks: vec![1, 4], ..Size::quick() }).contains("give both"));
        assert!(refused(Size { seeds: 0, ..Size::quick() }).contains("at least one seed"));
    }
}
