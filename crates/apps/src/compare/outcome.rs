//! What a comparison comes to, as numbers, as a table and as JSON.

use std::fmt;
use std::path::PathBuf;

use clap::ValueEnum as _;
use serde::Serialize;

use super::budget::duration;
use super::candidate::Candidate;
use super::options::{Compare, Equal};
use super::store::{Finished, Tried};
use super::verdict::{Score, Verdict, difference, verdict};
use crate::adaptation::{Cost, DryRun, Predicted, Prepared, mebibytes, table};
use crate::choices::TaskChoice;
use crate::subject::Subject;
use lowrank_command::Interval;
use lowrank_command::page::{dashed, wrapped};

/// One method, compared.
#[derive(Debug, Clone, Serialize)]
pub struct Entry {
    /// As it was listed.
    pub name: String,
    /// Its start.
    pub init: String,
    /// Its form.
    pub form: String,
    /// Smallest and largest rank of a layer.
    pub ranks: [usize; 2],
    /// Values that are trained.
    pub parameters: usize,
    /// Learning rate at the top of the schedule.
    pub rate: f64,
    /// Whether the rate was given, not searched.
    pub rate_given: bool,
    /// Whether the rate is the smallest or largest that was tried.
    pub rate_at_the_end: bool,
    /// The rates that were tried.
    pub tried: Vec<Tried>,
    /// Mean held-out loss over the seeds.
    pub held_out: Option<Interval>,
    /// Paired difference of the held-out loss to the first method: below zero is ahead. None for the first.
    pub difference: Option<Interval>,
    /// Mean of what is told beside the loss ([`Compared::measure`]): the share of questions, or of held-out records, answered rightly.
    pub accuracy: Option<Interval>,
    /// Paired difference of that to the first method: above zero is ahead.
    pub accuracy_difference: Option<Interval>,
    /// Seconds from nothing to the start, its evidence included.
    pub start_seconds: Option<f64>,
    /// Largest memory of the process while the evidence was collected, in bytes.
    pub evidence_peak_bytes: Option<u64>,
    /// Seconds of a step, averaged over the seeds.
    pub step_seconds: Option<f64>,
    /// Cosine of the first change with the negative full gradient, to first order, for plain gradient descent.
    pub first_step_cosine: Option<f64>,
    /// What part of what it looked at the start holds, in its own words.
    pub captured: Option<(String, f64)>,
    /// Effective rank of the learned change, averaged over layers and seeds.
    pub effective_rank: Option<f64>,
    /// Each seed's run.
    pub runs: Vec<Finished>,
}

impl Entry {
    /// What was run of a method.
    pub(super) fn new(
        candidate: &Candidate,
        cost: Option<Cost>,
        tried: Vec<Tried>,
        at_the_end: bool,
        runs: Vec<Finished>,
    ) -> Entry {
        let ranks = || candidate.plan.sites.iter().map(|site| site.rank);
        let held_out: Vec<f64> = runs.iter().map(|run| run.held_out).collect();
        let mean = |value: &dyn Fn(&Finished) -> Option<f64>| {
            let values: Vec<f64> = runs.iter().filter_map(value).collect();
            (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
        };
        let accuracy: Vec<f64> = runs.iter().filter_map(|run| run.accuracy).collect();
        Entry {
            name: candidate.name().to_owned(),
            init: candidate.method.init.clone(),
            form: candidate.method.form.clone(),
            ranks: [ranks().min().unwrap_or(0), ranks().max().unwrap_or(0)],
            parameters: cost.as_ref().map_or(0, |cost| cost.parameters),
            rate: candidate.method.rate,
            rate_given: candidate.fixed,
            rate_at_the_end: at_the_end,
            tried,
            held_out: Interval::of(&held_out),
            difference: None,
            accuracy: Interval::of(&accuracy),
            accuracy_difference: None,
            start_seconds: cost.as_ref().map(|cost| cost.start_seconds),
            evidence_peak_bytes: cost.as_ref().and_then(|cost| cost.evidence_peak_bytes),
            step_seconds: mean(&|run| run.step_seconds).or(cost.as_ref().map(|cost| cost.step_seconds)),
            first_step_cosine: cost.as_ref().and_then(|cost| cost.alignment),
            captured: cost.and_then(|cost| cost.captured),
            effective_rank: mean(&|run| run.effective_rank),
            runs,
        }
    }

    fn losses(&self) -> Vec<f64> {
        self.runs.iter().map(|run| run.held_out).collect()
    }
}

/// What `lowrank compare` did.
#[derive(Debug, Clone, Serialize)]
pub struct Compared {
    /// The model.
    pub model: String,
    /// Hash of its tensors.
    pub model_hash: String,
    /// Hash of the data.
    pub data_hash: String,
    /// What was made equal.
    pub equal: Equal,
    /// Steps of each run.
    pub steps: u64,
    /// Runs of each method.
    pub seeds: u32,
    /// What the losses are measured in.
    pub unit: &'static str,
    /// What is told beside the loss: `accuracy` or `correlation`.
    pub measure: &'static str,
    /// The methods, in the order in which they were listed.
    pub methods: Vec<Entry>,
    /// What it comes to, in sentences.
    pub verdict: Vec<String>,
    /// The method that is recommended.
    pub recommended: String,
    /// The command that trains it.
    pub command: String,
    /// The run folder, with `compare.html` and `compare.json`.
    pub run: PathBuf,
    /// Seconds in all, of this call.
    pub seconds: f64,
}

impl Compared {
    /// Pairs the methods with the first and judges them.
    pub(super) fn new<N: Subject>(
        options: &Compare,
        prepared: &Prepared<N>,
        steps: u64,
        mut methods: Vec<Entry>,
        run: PathBuf,
        seconds: f64,
    ) -> Compared {
        let first: Option<Entry> = methods.first().cloned();
        if let Some(first) = first {
            let right = |entry: &Entry| entry.runs.iter().filter_map(|run| run.accuracy).collect::<Vec<_>>();
            for entry in methods.iter_mut().skip(1) {
                entry.difference = difference(&entry.losses(), &first.losses());
                entry.accuracy_difference = difference(&right(entry), &right(&first));
            }
        }
        let scores: Vec<Score<'_>> = methods
            .iter()
            .map(|entry| Score {
                name: &entry.name,
                losses: entry.losses(),
                at_the_end: entry.rate_at_the_end,
            })
            .collect();
        let Verdict { sentences, recommended } = verdict(&scores);
        let recommended = methods.get(recommended);
        Compared {
            model: prepared.model.name.clone(),
            model_hash: prepared.model.hash.clone(),
            data_hash: prepared.data.hash.clone(),
            equal: options.equal,
            unit: prepared.model.decoder.unit(),
            measure: if options.task == Some(TaskChoice::Regression) { "correlation" } else { "accuracy" },
            steps,
            seeds: options.seeds,
            verdict: sentences,
            recommended: recommended.map(|entry| entry.name.clone()).unwrap_or_default(),
            command: recommended.map(|entry| command(options, entry)).unwrap_or_default(),
            methods,
            run,
            seconds,
        }
    }
}

/// The command that trains a method as it was compared, but for the number of steps.
fn command(options: &Compare, entry: &Entry) -> String {
    let mut words = vec!["lowrank tune".to_owned()];
    let files = [("--model", &options.model), ("--data", &options.data)];
    for (flag, file) in files {
        words.extend(file.as_ref().map(|file| format!("{flag} {}", file.display())));
    }
    let method = entry.name.split('@').next().unwrap_or_default();
    words.extend(
        options
            .task
            .and_then(|task| task.to_possible_value())
            .map(|task| format!("--task {}", task.get_name())),
    );
    words.push(format!("--method {method} --rate {:.1e} --rank {}", entry.rate, entry.ranks[1]));
    words.push(format!("--alpha {}", options.alpha * entry.ranks[1] as f64 / options.rank as f64));
    words.join(" ")
}

/// What a comparison would run.
#[derive(Debug, Clone, Serialize)]
pub struct Planned {
    /// Each method with its ranks.
    pub methods: Vec<(String, String)>,
    /// What each would cost.
    pub predicted: Vec<Predicted>,
    /// What is made equal.
    pub equal: Equal,
    /// Runs of each method.
    pub seeds: u32,
    /// Rates of the search.
    pub rates: usize,
    /// Steps of each run; none where a budget chooses them.
    pub steps: Option<u64>,
    /// The budget.
    pub budget: Option<String>,
    /// Predicted largest memory of the process.
    pub predicted_peak_bytes: usize,
    /// Predicted seconds of the compared runs; none where a budget chooses.
    pub predicted_seconds: Option<f64>,
}

impl Planned {
    pub(super) fn new(options: &Compare, candidates: &[Candidate], one: &DryRun) -> Planned {
        Planned {
            methods: candidates.iter().map(|each| (each.name().to_owned(), each.ranks())).collect(),
            predicted: one.methods.clone(),
            equal: options.equal,
            seeds: options.seeds,
            rates: options.rates,
            steps: options.steps,
            budget: options.budget.clone(),
            predicted_peak_bytes: one.predicted_peak_bytes,
            predicted_seconds: options.steps.map(|_| one.predicted_seconds * f64::from(options.seeds)),
        }
    }
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<24} rank", "method")?;
        for (name, ranks) in &self.methods {
            writeln!(f, "{name:<24} {ranks}")?;
        }
        writeln!(f, "\n{}\n", table(&self.predicted))?;
        let steps = match (self.steps, &self.budget) {
            (Some(steps), _) => format!("{steps} steps"),
            (None, Some(budget)) => format!("as many steps as fit into {budget}"),
            (None, None) => String::new(),
        };
        writeln!(f, "{} seeds of {steps}, {} rates to search", self.seeds, self.rates)?;
        write!(f, "predicted peak    {:>9.1} MB", self.predicted_peak_bytes as f64 / 1e6)?;
        if let Some(seconds) = self.predicted_seconds {
            write!(f, "\npredicted time    {:>9} and the search", duration(seconds))?;
        }
        Ok(())
    }
}

/// A count in few letters.
pub(super) fn compact(count: usize) -> String {
    match count as f64 {
        count if count >= 1e9 => format!("{:.2}G", count / 1e9),
        count if count >= 1e7 => format!("{:.1}M", count / 1e6),
        count if count >= 1e6 => format!("{:.2}M", count / 1e6),
        count => format!("{count}"),
    }
}

/// A difference with its interval: `-0.0136 [-0.0302,+0.0030]`.
pub(super) fn with_interval(difference: Option<Interval>) -> String {
    match difference {
        None => String::new(),
        Some(Interval { mean, low: Some(low), high: Some(high) }) => {
            format!("{mean:+.4} [{low:+.4},{high:+.4}]")
        }
        Some(Interval { mean, .. }) => format!("{mean:+.4}"),
    }
}

/// A name in sixteen letters.
fn short(name: &str) -> String {
    if name.chars().count() <= 16 {
        return name.to_owned();
    }
    name.chars().take(15).chain(['…']).collect()
}

impl fmt::Display for Compared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = self.methods.first().map_or("", |first| &first.name);
        let to = short(&format!("to {first}"));
        writeln!(
            f,
            "{:<16} {:>7} {:>6} {:>7} {:>25} {:>6} {:>7}",
            "method",
            "trained",
            "rate",
            "loss",
            format!("{to}, 95 %"),
            "start",
            "ms/step"
        )?;
        for entry in &self.methods {
            writeln!(
                f,
                "{:<16} {:>7} {:>6.1e} {:>7} {:>25} {:>6} {:>7}",
                short(&entry.name),
                compact(entry.parameters),
                entry.rate,
                dashed(entry.held_out.map(|loss| loss.mean), 4),
                with_interval(entry.difference),
                entry.start_seconds.map_or_else(|| "–".to_owned(), |seconds| format!("{seconds:.1} s")),
                dashed(entry.step_seconds.map(|seconds| 1e3 * seconds), 0),
            )?;
        }
        writeln!(
            f,
            "\n{:<16} {:>10} {:>9} {:>9} {:>13} {:>11} {:>8}",
            "", "first step", "captured", "eff. rank", "evidence peak", self.measure, "rank"
        )?;
        for entry in &self.methods {
            let [least, most] = entry.ranks;
            writeln!(
                f,
                "{:<16} {:>10} {:>9} {:>9} {:>13} {:>11} {:>8}",
                short(&entry.name),
                dashed(entry.first_step_cosine, 3),
                dashed(entry.captured.as_ref().map(|(_, value)| *value), 3),
                dashed(entry.effective_rank, 2),
                mebibytes(entry.evidence_peak_bytes),
                dashed(entry.accuracy.map(|right| right.mean), 3),
                if least == most { most.to_string() } else { format!("{least}–{most}") },
            )?;
        }
        writeln!(f)?;
        for sentence in &self.verdict {
            writeln!(f, "{}", wrapped(sentence, 80))?;
        }
        writeln!(f, "\nto train it: {}", self.command)?;
        write!(
            f,
            "page: {} ({} steps, {} seeds, {} in all)",
            self.run.join("compare.html").display(),
            self.steps,
            self.seeds,
            duration(self.seconds)
        )
    }
}
