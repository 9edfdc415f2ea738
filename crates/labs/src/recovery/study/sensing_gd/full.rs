//! The whole matrix is seen, 50 x 50, rank 3: powers and rates by form, columns and size of the start.

use lowrank_command::{AppError, Progress};
use lowrank_record::Seed;

use super::{Plan, RATIO, STEP, Way};
use crate::recovery::study::Size;
use crate::recovery::study::course::{across, grid, over_seeds};
use crate::recovery::study::fit::{self, Fit};
use crate::recovery::study::problem::{Followed, Truth};
use crate::recovery::study::statement::{Bound, Role, Statement, number};
use crate::recovery::study::studied::{Curve, Measured, Picture};
use crate::recovery::{Identity, Problem, RecoveryError};

pub(super) const N: usize = 50;
pub(super) const VALUES: [f64; 3] = [1.0, 0.8, 0.6];
/// Squared errors below are rounding.
const FLOOR: f64 = 1e-22;
/// The squared error whose first step is counted.
const GOAL: f64 = 1e-20;

/// One setting.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Setting {
    way: Way,
    k: usize,
    alpha: f64,
    steps: usize,
}

/// A run, and the smallest eigenvalue of `FᵀF − GᵀG` before and after it.
struct Run {
    followed: Followed,
    least: (f64, f64),
}

impl Run {
    fn new(setting: &Setting, seed: u64) -> Result<Run, RecoveryError> {
        let truth = Truth::new(N, &VALUES, Seed(seed))?;
        let all = Identity::new(N, N)?;
        let y = truth.observed(&all);
        let Setting { way, k, alpha, steps } = *setting;
        let followed = way.run(&all, &y, &truth, Plan { k, alpha, steps }, seed)?;
        let least = |values: Vec<f64>| values.first().copied().unwrap_or(f64::NAN);
        let start = way.start(&Problem::new(&all, &y)?, k, alpha, Seed(seed))?;
        let least = (least(start.imbalance()?), least(followed.solution.factors.imbalance()?));
        Ok(Run { followed, least })
    }

    /// The rate of the later half of the way down to rounding.
    fn rate(&self) -> Fit {
        let points: Vec<_> = self.followed.squares(0.0, FLOOR).collect();
        fit::rate(points[points.len() / 2..].iter().copied())
    }

    /// The rate from the change of balance down to 1e−16: that of the spare columns. Further down, what the signal's own directions
    /// had left at the change is seen, which has another rate.
    fn rate_behind(&self) -> Fit {
        fit::rate(self.followed.squares(super::CHANGE as f64, 1e-16))
    }

    fn reached(&self) -> f64 {
        self.followed.reached(GOAL.sqrt())
    }
}

pub(super) fn measured(size: Size, progress: &mut dyn Progress) -> Result<Measured, AppError> {
    let (columns, alphas, steps): (&[usize], &[f64], usize) =
        if size.quick { (&[5], &[0.5, 0.2], 5000) } else { (&[4, 5, 10], &[0.5, 0.2, 0.1, 0.05], 20_000) };
    let setting = |way, k, alpha, steps| Setting { way, k, alpha, steps };
    let mut settings = vec![setting(Way::Symmetric, 3, 0.5, 1000)];
    settings.extend(columns.iter().map(|&k| setting(Way::Symmetric, k, 0.5, steps)));
    settings.extend(alphas.iter().map(|&alpha| setting(Way::Asymmetric, 3, alpha, 2000)));
    for &k in columns {
        settings.extend(alphas.iter().map(|&alpha| setting(Way::Asymmetric, k, alpha, steps)));
        settings.extend(alphas.iter().map(|&alpha| setting(Way::Modified, k, alpha, 2000)));
    }
    let runs = over_seeds("descent on the whole matrix", size, &settings, progress, Run::new)?;
    let of = |way: Way, k: usize| -> Vec<&Vec<Run>> {
        settings.iter().zip(&runs).filter(|(s, _)| s.way == way && s.k == k).map(|(_, runs)| runs).collect()
    };
    let mut statements = exact(&of);
    for &k in columns {
        statements.extend(symmetric(k, steps, of(Way::Symmetric, k)));
        statements.extend(asymmetric(k, alphas, &of(Way::Asymmetric, k)));
        statements.extend(modified(k, &of(Way::Modified, k)));
    }
    let rate = |s: &Setting, run: &Run| if s.way == Way::Modified { run.rate_behind() } else { run.rate() };
    let grids = vec![grid(
        "The whole matrix, n = 50, r = 3",
        "Squared errors; the rate is −d ln e/dT of the later half of the way down to 1e−22, rebalanced from the change to 1e−16; steps to 1e−20, a dash where it was not reached; \
         the last two columns are of λ, the smallest eigenvalue of FᵀF − GᵀG at the start.",
        &[
            "form",
            "k",
            "α",
            "last error",
            "rate",
            "rate/α²",
            "R²",
            "steps to 1e−20",
            "rate/(2ηλ)",
            "λ at the end by λ",
        ],
        &settings,
        &runs,
        |s| vec![s.way.name().to_owned(), s.k.to_string(), s.alpha.to_string()],
        &[
            &|_, run| run.followed.last().powi(2),
            &|s, run| rate(s, run).slope,
            &|s, run| rate(s, run).slope / (s.alpha * s.alpha),
            &|s, run| rate(s, run).explained,
            &|_, run| run.reached(),
            &|s, run| {
                if s.way == Way::Asymmetric {
                    run.rate().slope / (2.0 * STEP * run.least.0)
                } else {
                    f64::NAN
                }
            },
            &|s, run| if s.way == Way::Asymmetric { run.least.1 / run.least.0 } else { f64::NAN },
        ],
    )];
    Ok(Measured { statements, grids, pictures: pictures(&settings, &runs, columns.len() / 2) })
}

/// With as many columns as the rank.
fn exact<'a>(of: &impl Fn(Way, usize) -> Vec<&'a Vec<Run>>) -> Vec<Statement> {
    let symmetric = across(&of(Way::Symmetric, 3), |runs| runs[0].followed.last().powi(2));
    let asymmetric = across(&of(Way::Asymmetric, 3), |runs| {
        fit::ratio(&runs.iter().map(|run| run.reached()).collect::<Vec<_>>())
    });
    vec![
        Statement::new(
            Role::Claim,
            "X·Xᵀ with k = r converges linearly: squared error after 1000 steps",
            "linear; 1e−29 (specification)",
            Bound::AtMost(1e-20),
            symmetric,
        ),
        Statement::new(
            Role::Claim,
            "F·Gᵀ with k = r does not depend on α: steps to 1e−20, most by least over α",
            "no dependence; 1.5 over α from 0.1 to 1 (specification)",
            Bound::AtMost(2.0),
            asymmetric,
        ),
    ]
}

fn symmetric(k: usize, steps: usize, runs: Vec<&Vec<Run>>) -> Vec<Statement> {
    let slope = across(&runs, |runs| fit::power(runs[0].followed.squares(steps as f64 / 10.0, 0.0)).slope);
    let spare = (k - VALUES.len()) as f64;
    let constant =
        across(&runs, |runs| runs[0].followed.last().powi(2) * (2.0 * STEP * steps as f64).powi(2) / spare);
    vec![
        Statement::new(
            Role::Claim,
            format!("X·Xᵀ, k = {k}: the power of T in the squared error over the last decade of steps"),
            "−2 (Ω(1/T²)); −1.993 (specification)",
            Bound::Between(-2.05, -1.9),
            slope,
        ),
        Statement::new(
            Role::Claim,
            format!("X·Xᵀ, k = {k}: squared error by (k − r)/(2ηT)²"),
            "1, within 3 % (specification)",
            Bound::Between(0.97, 1.03),
            constant,
        ),
    ]
}

fn asymmetric(k: usize, alphas: &[f64], runs: &[&Vec<Run>]) -> Vec<Statement> {
    let rates = |runs: &[&Run]| -> Vec<f64> { runs.iter().map(|run| run.rate().slope).collect() };
    let least = |values: Vec<f64>| values.into_iter().fold(f64::INFINITY, f64::min);
    let power = across(runs, |runs| fit::power(alphas.iter().copied().zip(rates(runs))).slope);
    let constant = across(runs, |runs| {
        fit::ratio(
            &alphas.iter().zip(rates(runs)).map(|(alpha, rate)| rate / (alpha * alpha)).collect::<Vec<_>>(),
        )
    });
    let explained = across(runs, |runs| least(runs.iter().map(|run| run.rate().explained).collect()));
    let bound = across(runs, |runs| {
        least(runs.iter().map(|run| run.rate().slope / (2.0 * STEP * run.least.0)).collect())
    });
    let conserved = across(runs, |runs| {
        runs.iter().map(|run| (run.least.1 / run.least.0 - 1.0).abs()).fold(0.0, f64::max)
    });
    let says = |text: &str| format!("F·Gᵀ, k = {k}: {text}");
    vec![
        Statement::new(
            Role::Claim,
            says("the power of α in the rate"),
            "2 (exp(−Θ(α²T)))",
            Bound::Between(1.7, 2.3),
            power,
        ),
        Statement::new(
            Role::Claim,
            says("rate/α², largest by smallest over α"),
            "within 2.5 (specification)",
            Bound::AtMost(2.5),
            constant,
        ),
        Statement::new(
            Role::Claim,
            says("a straight line of ln e against T: the least R² over α"),
            "above 0.99 (specification)",
            Bound::AtLeast(0.99),
            explained,
        ),
        Statement::new(
            Role::Aside,
            says("rate by 2ηλ, λ the smallest eigenvalue of FᵀF − GᵀG at the start: the least over α"),
            "at least 1; 1.3 to 3.1 (specification)",
            Bound::AtLeast(1.0),
            bound,
        ),
        Statement::new(
            Role::Aside,
            says("how far λ moves over the run, as a part of it: the most over α"),
            "conserved to 3 % (specification)",
            Bound::AtMost(0.05),
            conserved,
        ),
    ]
}

fn modified(k: usize, runs: &[&Vec<Run>]) -> Vec<Statement> {
    let steps =
        across(runs, |runs| fit::relative_spread(&runs.iter().map(|run| run.reached()).collect::<Vec<_>>()));
    let rates = across(runs, |runs| {
        fit::relative_spread(&runs.iter().map(|run| run.rate_behind().slope).collect::<Vec<_>>())
    });
    let says = |text: &str| format!("F·Gᵀ rebalanced once, k = {k}: {text}");
    vec![
        Statement::new(
            Role::Claim,
            says("steps to 1e−20, most less least over α by their mean"),
            "no dependence on α; below 15 % (specification)",
            Bound::AtMost(0.15),
            steps,
        ),
        Statement::new(
            Role::Claim,
            says("the rate from the change down to 1e−16, largest less smallest over α by their mean"),
            "no dependence on α; at most 20 %",
            Bound::AtMost(0.2),
            rates,
        ),
    ]
}

/// The curves of the first problem; `middle` picks the number of columns.
fn pictures(settings: &[Setting], runs: &[Vec<Run>], middle: usize) -> Vec<Picture> {
    let columns: Vec<usize> = settings.iter().filter(|s| s.way == Way::Modified).map(|s| s.k).collect();
    let mut columns = columns;
    columns.dedup();
    let k = columns.get(middle).copied().unwrap_or(0);
    let curve = |name: String, run: &Run, most: f64| Curve {
        name,
        points: run
            .followed
            .drawn(|step, error| (if step <= most { step } else { f64::NAN }, 2.0 * error.log10())),
    };
    let pick =
        |keep: &dyn Fn(&Setting) -> bool, name: &dyn Fn(&Setting) -> String, most: f64| -> Vec<Curve> {
            let chosen = settings.iter().zip(runs).filter(|(s, _)| keep(s));
            chosen.filter_map(|(s, runs)| Some(curve(name(s), runs.first()?, most))).collect()
        };
    let picture = |caption: String, x: &str, curves| Picture {
        caption,
        x: x.to_owned(),
        y: "log₁₀ of the squared error".to_owned(),
        curves,
    };
    let same = |s: &Setting| s.k == k && s.alpha == 0.5;
    let by_power = settings.iter().zip(runs).filter(|(s, _)| s.way == Way::Symmetric && s.k > VALUES.len());
    let powers = by_power.filter_map(|(s, runs)| {
        let points = runs.first()?.followed.drawn(|step, error| (step.log10(), 2.0 * error.log10()));
        Some(Curve { name: format!("k = {}", s.k), points })
    });
    let sizes = |way: Way| {
        pick(
            &|s| s.way == way && s.k == k,
            &|s| format!("α = {}", number(s.alpha)),
            if way == Way::Modified { 900.0 } else { f64::INFINITY },
        )
    };
    vec![
        picture(
            format!("The three ways at k = {k}, α = 0.5, G at {RATIO:.2} of F"),
            "step",
            pick(&same, &|s| s.way.name().to_owned(), 2500.0),
        ),
        picture("X·Xᵀ with too many columns: a power of T".to_owned(), "log₁₀ of the step", powers.collect()),
        picture(format!("F·Gᵀ at k = {k}: the rate goes with α²"), "step", sizes(Way::Asymmetric)),
        picture(
            format!("F·Gᵀ rebalanced at step {}, k = {k}: the rate does not know α", super::CHANGE),
            "step",
            sizes(Way::Modified),
        ),
    ]
}
