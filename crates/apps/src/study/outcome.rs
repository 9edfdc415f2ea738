//! What a study comes to, as numbers, as a table and as JSON.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use super::arm::Part;
use super::claim::{At, Found, Judged, Measure, Role, Term, Verdict};
use super::experiment::Paper;
use lowrank_command::Interval;

/// A rate that was tried for an arm.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Tried {
    /// The rate at the top of the schedule.
    pub rate: f64,
    /// Mean accuracy over the tuning problems; a run that diverged counts as 0.
    pub accuracy: f64,
    /// Runs that diverged.
    pub diverged: u64,
}

/// What was measured of one run; nothing of one that diverged.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Numbers {
    /// The seed.
    pub seed: u64,
    /// Mean training loss of the steps around a quarter of the run, nats.
    pub early: Option<f64>,
    /// Loss behind the last step: of all training rows in a toy, of held-out examples on a real model; nats.
    pub last: Option<f64>,
    /// Share of the test rows, or of the questions, that are answered rightly.
    pub accuracy: Option<f64>,
    /// Norm of the first gradient of what is trained.
    pub first_norm: Option<f64>,
    /// Largest change of a logit at step 0.
    pub moved: Option<f64>,
    /// Accuracy on the task that the network was pretrained on, before it learns the new one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_task: Option<f64>,
}

impl Numbers {
    /// Of a run of which nothing is known.
    pub(super) fn none(seed: u64) -> Numbers {
        Numbers {
            seed,
            early: None,
            last: None,
            accuracy: None,
            first_norm: None,
            moved: None,
            first_task: None,
        }
    }

    pub(super) fn of(&self, measure: Measure) -> Option<f64> {
        match measure {
            Measure::Early => self.early,
            Measure::Last => self.last,
            Measure::Accuracy => self.accuracy,
            Measure::FirstNorm => self.first_norm,
        }
    }
}

/// The runs of an arm at one rate, a seed each.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Series {
    /// The rate at the top of the schedule.
    pub rate: f64,
    /// One a seed, in the order of the seeds.
    pub runs: Vec<Numbers>,
    /// Training loss of each step of each run, for the plots.
    #[serde(skip)]
    pub(super) curves: Vec<Vec<f64>>,
}

impl Series {
    pub(super) fn push(&mut self, numbers: Numbers, curve: Vec<f64>) {
        self.runs.push(numbers);
        self.curves.push(curve);
    }

    /// The mean over the seeds; none where a run lacks it.
    pub(super) fn mean(&self, measure: Measure) -> Option<Interval> {
        let values: Option<Vec<f64>> = self.runs.iter().map(|run| run.of(measure)).collect();
        Interval::of(&values?)
    }
}

/// One arm with everything that was run of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ArmRuns {
    /// Its name in the statements.
    pub name: String,
    /// What it is in the study.
    pub part: Part,
    /// Start and form with their choices.
    pub method: String,
    /// Values that are trained.
    pub parameters: usize,
    /// The rates that were tried.
    pub tried: Vec<Tried>,
    /// Whether the chosen rate is the smallest or largest that was tried.
    pub rate_at_the_end: bool,
    /// The runs at the chosen rate.
    pub tuned: Series,
    /// The runs at rates that all arms share.
    pub fixed: Vec<Series>,
}

/// The value of a term for each seed.
///
/// # Errors
/// Says which arm, rate or run is not there.
pub(super) fn numbers(arms: &[ArmRuns], term: &Term) -> Result<Vec<f64>, String> {
    let arm =
        arms.iter().find(|arm| arm.name == term.arm).ok_or_else(|| format!("{} was not run", term.arm))?;
    let series = match term.at {
        At::Tuned => Some(&arm.tuned),
        At::Rate(rate) => std::iter::once(&arm.tuned).chain(&arm.fixed).find(|series| series.rate == rate),
    };
    let series = series.ok_or_else(|| format!("{} was not run at that rate", term.arm))?;
    let value = |run: &Numbers| {
        run.of(term.measure).ok_or_else(|| format!("{} has no such number at seed {}", term.arm, run.seed))
    };
    series.runs.iter().map(value).collect()
}

/// A finished study.
#[derive(Debug, Clone, Serialize)]
pub struct Studied {
    /// The system.
    pub study: &'static str,
    /// What the note is called.
    pub title: String,
    /// What the paper says.
    pub claim: &'static str,
    /// Where it says so.
    pub paper: Option<Paper>,
    /// What was asked.
    pub question: &'static str,
    /// What was equal, and why what was not was not.
    pub equal: String,
    /// Model, data, steps and seeds by name.
    pub ground: Vec<(String, String)>,
    /// The rule of the verdict, fixed before the numbers.
    pub rule: &'static str,
    /// Whether the numbers are of a run too short to decide anything.
    pub quick: bool,
    /// What became of each statement.
    pub statements: Vec<Judged>,
    /// What became of the claim.
    pub verdict: Verdict,
    /// The verdict in sentences.
    pub sentences: Vec<String>,
    /// Every arm.
    pub arms: Vec<ArmRuns>,
    /// What was not shown.
    pub not_shown: Vec<String>,
    /// Where it was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<PathBuf>,
}

/// A mean with half of its interval: `0.654 ± 0.012`.
pub(super) fn with_half(interval: Option<Interval>, digits: usize) -> String {
    match interval {
        None => "–".to_owned(),
        Some(Interval { mean, high: Some(high), .. }) => {
            format!("{mean:.digits$} ± {:.digits$}", high - mean)
        }
        Some(Interval { mean, .. }) => format!("{mean:.digits$}"),
    }
}

/// What a statement's sum came to: `+0.031 [+0.012, +0.050]`.
pub(super) fn margin(judged: &Judged) -> String {
    let bounds = judged.within.map_or_else(String::new, |bound| format!(", bounds ±{bound}"));
    match (&judged.margin, &judged.missing) {
        (Some(Interval { mean, low: Some(low), high: Some(high) }), _) => {
            format!("{mean:+.3} [{low:+.3}, {high:+.3}]{bounds}").replace('-', "−")
        }
        (Some(Interval { mean, .. }), _) => format!("{mean:+.3}{bounds}, one seed").replace('-', "−"),
        (None, Some(missing)) => missing.clone(),
        (None, None) => "–".to_owned(),
    }
}

impl Role {
    pub(super) fn word(self) -> &'static str {
        match self {
            Role::Claim => "claim",
            Role::Control => "control",
            Role::Aside => "aside",
        }
    }
}

impl fmt::Display for Studied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", self.title)?;
        writeln!(f, "the paper: {}", self.claim)?;
        writeln!(f, "equal:     {}", self.equal)?;
        for (name, value) in &self.ground {
            writeln!(f, "{name}: {value}")?;
        }
        writeln!(f, "rule:      {}\n", self.rule)?;
        writeln!(
            f,
            "{:<24} {:>8} {:>8} {:>15} {:>15} {:>15}",
            "", "trained", "rate", "early loss", "last loss", "accuracy"
        )?;
        for arm in &self.arms {
            let rate =
                if arm.tuned.rate > 0.0 { format!("{:.0e}", arm.tuned.rate) } else { "–".to_owned() };
            let end = if arm.rate_at_the_end { "*" } else { "" };
            writeln!(
                f,
                "{:<24} {:>8} {:>8} {:>15} {:>15} {:>15}",
                arm.name,
                arm.parameters,
                format!("{rate}{end}"),
                with_half(arm.tuned.mean(Measure::Early), 3),
                with_half(arm.tuned.mean(Measure::Last), 3),
                with_half(arm.tuned.mean(Measure::Accuracy), 3),
            )?;
        }
        if self.arms.iter().any(|arm| arm.rate_at_the_end) {
            writeln!(f, "* the end of the rates that were tried")?;
        }
        writeln!(f)?;
        for judged in &self.statements {
            writeln!(f, "{:<8} {:<8} {}", judged.found.word(), judged.role.word(), judged.says)?;
            writeln!(f, "{:<17} {}", "", margin(judged))?;
        }
        writeln!(f)?;
        for sentence in &self.sentences {
            writeln!(f, "{sentence}")?;
        }
        match &self.run {
            Some(run) => write!(f, "written: {}", run.display()),
            None => Ok(()),
        }
    }
}

impl Studied {
    /// Whether something of the claim was left open or not run.
    pub(super) fn is_open(&self) -> bool {
        self.statements
            .iter()
            .any(|judged| judged.role == Role::Claim && matches!(judged.found, Found::Open | Found::NotRun))
    }
}
