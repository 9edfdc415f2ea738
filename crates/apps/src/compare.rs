//! `lowrank compare`: which method suits this model and these data? Each is tuned by the same search, trained on the same
//! batches over the same seeds, and compared by paired differences.

mod budget;
mod candidate;
mod options;
mod outcome;
mod report;
mod runs;
mod search;
mod store;
mod verdict;

use std::collections::BTreeMap;
use std::path::Path;

use lowrank_models::{Decoder, Encoder, T5, Vision};

pub use options::{Compare, Equal};
pub use outcome::{Compared, Entry, Planned};
pub use store::{Finished, Tried};

use crate::adaptation::{Cost, Prepared, energies, measure};
use crate::subject::{Kind, Subject, kind};
use crate::{AppError, Progress, adaptation, output};
use budget::{Work, duration};
use candidate::Candidate;
use lowrank_command::Because;
pub use lowrank_command::Interval;
use runs::{Course, Halves};
use store::Begun;

/// Compares methods and writes `compare.json` and `compare.html` into the run folder.
///
/// # Errors
/// [`AppError::Usage`] before anything was trained; [`AppError::Failed`] afterwards, and when the user stopped it: finished runs
/// are kept.
pub fn compare(options: &Compare, progress: &mut dyn Progress) -> Result<Compared, AppError> {
    let options = options.resolved()?;
    match kind(&options.adaptation())? {
        Kind::Decoder => compare_on::<Decoder>(&options, progress),
        Kind::Encoder => compare_on::<Encoder>(&options, progress),
        Kind::Vision => compare_on::<Vision>(&options, progress),
        Kind::T5 => compare_on::<T5>(&options, progress),
    }
}

fn compare_on<N: Subject>(options: &Compare, progress: &mut dyn Progress) -> Result<Compared, AppError> {
    let listed = candidate::listed(options)?;
    let run = output::run_folder(options.run.as_deref(), "compare", options.resume, &[store::PLAN])?;
    let begun_at = progress.now();
    let ground = options.adaptation();
    let mut prepared = Prepared::<N>::open(&ground, &[], progress)?;
    prepared.describe(&ground, &[], progress);
    let halves = Halves::of(&mut prepared)?;
    let candidates = candidate::planned(listed, options, &mut prepared, progress)?;
    let questions = match &options.questions {
        Some(file) => Some(N::questions(file, options.format, &prepared.model)?),
        None => None,
    };
    let facts = facts(options, &prepared, &halves)?;
    let before: Option<Begun> = if options.resume { store::read(&run.join(store::PLAN))? } else { None };
    if let Some(before) = &before {
        before.agrees(&facts, options.steps)?;
    }
    std::fs::create_dir_all(&run).while_doing(format!("creating {}", run.display()))?;
    let costs = before.as_ref().map(|before| before.costs.clone()).unwrap_or_default();
    let mut course = Course::new(options, ground, &run, halves, questions);
    let costs = measured(&mut course, &candidates, costs, &mut prepared, progress)?;
    let steps = match (before.map(|before| before.steps).or(options.steps), options.seconds()?) {
        (Some(steps), _) => steps,
        (None, Some(seconds)) => {
            let told = options.budget.as_deref().unwrap_or_default();
            budget::steps(&work(options, &candidates, &costs), seconds, progress.now() - begun_at, told)?
        }
        (None, None) => return Err(AppError::usage("give --budget or --steps")),
    };
    course.steps = steps;
    store::write(&run.join(store::PLAN), &Begun { facts, steps, costs: costs.clone() })?;
    let recipe = lowrank_command::options::print(options)?;
    lowrank_store::text::write(&run.join("recipe.toml"), &recipe).while_doing("writing the recipe")?;
    tell(options, &candidates, &costs, steps, progress);

    let mut candidates = candidates;
    let mut tried: Vec<(Vec<Tried>, bool)> = Vec::with_capacity(candidates.len());
    for candidate in &mut candidates {
        tried.push(course.tune(candidate, &mut prepared, progress)?);
    }
    let mut finished: Vec<Vec<Finished>> = vec![Vec::new(); candidates.len()];
    // Seed by seed, so that what is finished when it is stopped is paired.
    for seed in 0..u64::from(options.seeds) {
        for (candidate, runs) in candidates.iter().zip(&mut finished) {
            runs.push(course.train(candidate, options.seed.wrapping_add(seed), &mut prepared, progress)?);
        }
    }
    let all = candidates.iter().zip(tried).zip(finished);
    let entries = all.map(|((candidate, (tried, at_the_end)), finished)| {
        let cost = costs.get(candidate.name()).cloned();
        Entry::new(candidate, cost, tried, at_the_end, finished)
    });
    let compared =
        Compared::new(options, &prepared, steps, entries.collect(), run.clone(), progress.now() - begun_at);
    store::write(&run.join("compare.json"), &compared)?;
    let page = report::page(&prepared, options, &compared, &recipe).html()?;
    lowrank_store::text::write(&run.join("compare.html"), &page).while_doing("writing the page")?;
    Ok(compared)
}

/// What [`compare`] would run, and about how long it would take; little is computed, as in [`crate::tune::dry_run`].
///
/// # Errors
/// [`AppError::Usage`] for options, model and data that it would refuse.
pub fn dry_run(options: &Compare, progress: &mut dyn Progress) -> Result<Planned, AppError> {
    let options = options.resolved()?;
    match kind(&options.adaptation())? {
        Kind::Decoder => planned_on::<Decoder>(&options, progress),
        Kind::Encoder => planned_on::<Encoder>(&options, progress),
        Kind::Vision => planned_on::<Vision>(&options, progress),
        Kind::T5 => planned_on::<T5>(&options, progress),
    }
}

fn planned_on<N: Subject>(options: &Compare, progress: &mut dyn Progress) -> Result<Planned, AppError> {
    let (mut prepared, candidates) = checked::<N>(options, progress)?;
    let methods: Vec<adaptation::Planned<'_>> = candidates
        .iter()
        .map(|each| adaptation::Planned { method: &each.method, plan: &each.plan, given: None })
        .collect();
    let one = adaptation::Adaptation { steps: Some(options.steps.unwrap_or(1)), ..options.adaptation() };
    let predicted = adaptation::predict(&mut prepared, &one, &methods, true, progress)?;
    Ok(Planned::new(options, &candidates, &predicted))
}

/// Everything that is refused before anything is computed.
fn checked<N: Subject>(
    options: &Compare,
    progress: &mut dyn Progress,
) -> Result<(Prepared<N>, Vec<Candidate>), AppError> {
    let listed = candidate::listed(options)?;
    let ground = options.adaptation();
    let mut prepared = Prepared::<N>::open(&ground, &[], progress)?;
    prepared.describe(&ground, &[], progress);
    Halves::of(&mut prepared)?;
    let candidates = candidate::planned(listed, options, &mut prepared, progress)?;
    Ok((prepared, candidates))
}

/// The options as a recipe, checked against model and data, every default filled in.
///
/// # Errors
/// As [`dry_run`].
pub fn recipe(options: &Compare, progress: &mut dyn Progress) -> Result<String, AppError> {
    let options = options.resolved()?;
    match kind(&options.adaptation())? {
        Kind::Decoder => drop(checked::<Decoder>(&options, progress)?),
        Kind::Encoder => drop(checked::<Encoder>(&options, progress)?),
        Kind::Vision => drop(checked::<Vision>(&options, progress)?),
        Kind::T5 => drop(checked::<T5>(&options, progress)?),
    }
    lowrank_command::options::print(&options)
}

/// What decides every run's numbers besides method, seed and steps.
fn facts<N: Subject>(
    options: &Compare,
    prepared: &Prepared<N>,
    halves: &Halves<N>,
) -> Result<BTreeMap<String, String>, AppError> {
    let mut facts: BTreeMap<String, String> = options.facts()?.into_iter().collect();
    facts.insert("the model's hash".to_owned(), prepared.model.hash.clone());
    facts.insert("the training data's hash".to_owned(), N::hash(&prepared.data.train));
    facts.insert("the held-out data's hash".to_owned(), halves.hash());
    Ok(facts)
}

/// Measures the methods of which no cost is known yet.
fn measured<N: Subject>(
    course: &mut Course<'_, N>,
    candidates: &[Candidate],
    mut costs: BTreeMap<String, Cost>,
    prepared: &mut Prepared<N>,
    progress: &mut dyn Progress,
) -> Result<BTreeMap<String, Cost>, AppError> {
    let unknown: Vec<&Candidate> =
        candidates.iter().filter(|candidate| !costs.contains_key(candidate.name())).collect();
    if unknown.is_empty() {
        return Ok(costs);
    }
    progress.say(&format!("measuring one step of {} methods", unknown.len()));
    let ground = course.tuning_ground(0);
    course.halves.choose_rates(prepared);
    let energies = energies(prepared, &ground)?;
    for candidate in unknown {
        output::go_on(progress)?;
        prepared.plan = candidate.plan.clone();
        let start = course.tuning_start(candidate, 0)?;
        // One that a stopped comparison left would be read, and its time not measured.
        runs::remove(&start);
        let mut muted = runs::Muted::new(progress, String::new());
        let cost = measure(prepared, &ground, &candidate.method, &start, &energies, &mut muted)?;
        costs.insert(candidate.name().to_owned(), cost);
    }
    Ok(costs)
}

fn work<'a>(options: &Compare, candidates: &[Candidate], costs: &'a BTreeMap<String, Cost>) -> Vec<Work<'a>> {
    let of = |candidate: &Candidate| {
        Some(Work {
            cost: costs.get(candidate.name())?,
            rates: if candidate.fixed { 0 } else { options.rates },
            tuning_seeds: options.tuning_seeds,
            seeds: options.seeds,
        })
    };
    candidates.iter().filter_map(of).collect()
}

/// What was measured and what follows from it, before anything is trained.
fn tell(
    options: &Compare,
    candidates: &[Candidate],
    costs: &BTreeMap<String, Cost>,
    steps: u64,
    progress: &mut dyn Progress,
) {
    for candidate in candidates {
        let Some(cost) = costs.get(candidate.name()) else { continue };
        progress.say(&format!(
            "{}: started in {:.1} s, {:.0} ms a step",
            candidate.name(),
            cost.start_seconds,
            1e3 * cost.step_seconds
        ));
    }
    let searched = candidates.iter().filter(|candidate| !candidate.fixed).count();
    let all = budget::seconds(&work(options, candidates, costs), steps);
    let search = match searched {
        0 => "at the rates given".to_owned(),
        _ => format!(
            "after a search over {} rates in runs of {} and {} steps",
            options.rates,
            budget::first_round(steps),
            budget::second_round(steps)
        ),
    };
    progress.say(&format!(
        "{} methods × {} seeds × {steps} steps, {search}: about {} if nothing is kept from before",
        candidates.len(),
        options.seeds,
        duration(all)
    ));
}

/// How to go on with a comparison that was stopped.
fn stopped(run: &Path) -> AppError {
    AppError::failed(format!(
        "stopped; what is finished is kept, and the same command with --resume --run {} goes on",
        run.display()
    ))
}
