//! The success criteria of the specification (section 5), with what else is worth asking of the same runs.

use super::arm::{Arm, Kind, STRUCTURED, Size};
use super::statement::{Bound, Role, Statement};
use super::{Series, TASKS};
use crate::regimes::Trained;
use crate::regimes::connectivity::Norm;

/// By how much the kernel of the whole control is more aligned than that of rank 1.
const KERNEL_MARGIN: f64 = 0.12;

/// How much the final losses of all ranks may differ from that of the control.
const LOSS_MARGIN: f64 = 0.1;

/// How many times the loss of one of two starts may be that of the other before a comparison of them is remarked on.
const EQUAL_LOSS: f64 = 1.5;

type Measure = fn(&Trained) -> f64;

fn kernel(run: &Trained) -> f64 {
    run.last().map_or(f64::NAN, |last| last.kernel_alignment)
}

fn representation(run: &Trained) -> f64 {
    run.last().map_or(f64::NAN, |last| last.representation_alignment)
}

fn centred(run: &Trained) -> f64 {
    run.last().map_or(f64::NAN, |last| last.centred_alignment)
}

fn change(run: &Trained) -> f64 {
    run.last().map_or(f64::NAN, |last| last.weight_change)
}

fn loss(run: &Trained) -> f64 {
    run.loss
}

fn accuracy(run: &Trained) -> f64 {
    run.accuracy
}

pub(super) fn find<'a>(series: &'a [Series], arm: Arm, task: &str) -> Option<&'a Series> {
    series.iter().find(|each| each.arm == arm && each.task == task)
}

/// `combine(first, second)` of each seed on which both were run.
fn paired(
    series: &[Series],
    task: &str,
    arms: [Arm; 2],
    measure: Measure,
    combine: fn(f64, f64) -> f64,
) -> Vec<Option<f64>> {
    let [Some(first), Some(second)] = arms.map(|arm| find(series, arm, task)) else { return Vec::new() };
    let both = first.runs.iter().zip(&second.runs);
    both.map(|(a, b)| Some(combine(measure(a.as_ref()?), measure(b.as_ref()?)))).collect()
}

fn differences(series: &[Series], task: &str, arms: [Arm; 2], measure: Measure) -> Vec<f64> {
    paired(series, task, arms, measure, |a, b| a - b).into_iter().flatten().collect()
}

/// What to know of a comparison of starts of which one learned less: mean losses more than half apart. Empty where they learned alike.
fn unequal_loss(series: &[Series], task: &str, arms: [Arm; 2]) -> String {
    let mean = |pick: fn(f64, f64) -> f64| {
        let losses: Vec<f64> = paired(series, task, arms, loss, pick).into_iter().flatten().collect();
        losses.iter().sum::<f64>() / losses.len().max(1) as f64
    };
    let (first, second) = (mean(|a, _| a), mean(|_, b| b));
    let (less, more) = if first < second { (first, second) } else { (second, first) };
    if more > EQUAL_LOSS * less {
        format!("not at an equal loss: {first:.4} against {second:.4}")
    } else {
        String::new()
    }
}

/// Everything that is judged of the recurrent networks.
pub(super) fn statements(size: &Size, series: &[Series]) -> Vec<Statement> {
    let (whole, one) = (Arm::rank(size.units), Arm::rank(1));
    let at = |kind: Kind, norm: Norm| Arm { kind, norm };
    let mut all = Vec::new();
    let names = TASKS.map(|task| task.name());
    for task in names {
        let more =
            |first: Arm, second: Arm, measure: Measure| differences(series, task, [first, second], measure);
        let mut say = |role: Role, says: String, bound: Bound, numbers: &[f64]| {
            all.push(Statement::judge(role, format!("{task}: {says}"), bound, numbers));
        };
        let above = Bound::Above(0.0);
        say(
            Role::Claim,
            format!(
                "the kernel of the whole rank is more aligned with its start than that of rank 1, by {KERNEL_MARGIN}"
            ),
            Bound::Above(KERNEL_MARGIN),
            &more(whole, one, kernel),
        );
        say(
            Role::Claim,
            "the representation of the whole rank is more aligned with its start than that of rank 1"
                .to_owned(),
            above,
            &more(whole, one, representation),
        );
        say(
            Role::Claim,
            "the final loss of every rank is that of the whole rank, to 10 % (the rank that is furthest off)"
                .to_owned(),
            Bound::Within(LOSS_MARGIN),
            &furthest_loss(size, series, task),
        );
        say(
            Role::Aside,
            "about the mean over trials too, the representation of the whole rank is the more aligned one"
                .to_owned(),
            above,
            &more(whole, one, centred),
        );
        say(Role::Aside, "the weights change more at rank 1".to_owned(), above, &more(one, whole, change));
        say(
            Role::Aside,
            "the share of right answers at rank 1 is that at the whole rank, to 0.02".to_owned(),
            Bound::Within(0.02),
            &more(one, whole, accuracy),
        );
        let mut compare = |role: Role, says: String, first: Arm, second: Arm| {
            let numbers = differences(series, task, [first, second], kernel);
            let judged = Statement::judge(role, format!("{task}: {says}"), above, &numbers);
            all.push(judged.remarked(unequal_loss(series, task, [first, second])));
        };
        for norm in [Norm::TopSingularValue, Norm::SpectralRadius] {
            let says = format!(
                "at an equal {} the kernel of the whole rank is more aligned than that of rank 1",
                norm.words()
            );
            compare(Role::Control, says, whole, at(Kind::Truncated(1), norm));
        }
        for rank in [1, 4] {
            let says = format!(
                "a start of rank {rank} along what the task teaches is lazier in its kernel than rank {rank} of the control"
            );
            compare(Role::Aside, says, at(Kind::Aligned(rank), Norm::Frobenius), Arm::rank(rank));
        }
        for kind in STRUCTURED {
            let arm = at(kind, Norm::SpectralRadius);
            let says = format!(
                "the kernel of the control is more aligned than that of the start \"{}\"",
                arm.name()
            );
            compare(Role::Aside, says, whole, arm);
        }
    }
    all.push(Statement::judge(
        Role::Claim,
        "all tasks: the weights change more at rank 1 than at the whole rank, on average over the tasks"
            .to_owned(),
        Bound::Above(0.0),
        &mean_over_tasks(series, [one, whole], change, &names),
    ));
    all.sort_by_key(|statement| match statement.role {
        Role::Claim => 0,
        Role::Control => 1,
        Role::Aside => 2,
    });
    all
}

/// The difference of each seed, averaged over the tasks; seeds on which all were run.
fn mean_over_tasks(series: &[Series], arms: [Arm; 2], measure: Measure, tasks: &[&str]) -> Vec<f64> {
    let each: Vec<Vec<Option<f64>>> =
        tasks.iter().map(|task| paired(series, task, arms, measure, |a, b| a - b)).collect();
    let seeds = each.iter().map(Vec::len).min().unwrap_or(0);
    let mean = |seed: usize| {
        let numbers: Option<Vec<f64>> = each.iter().map(|task| task[seed]).collect();
        numbers.map(|numbers| numbers.iter().sum::<f64>() / numbers.len() as f64)
    };
    (0..seeds).filter_map(mean).collect()
}

/// `loss/loss of the whole rank − 1` of each seed, of the rank whose mean is furthest from 0.
fn furthest_loss(size: &Size, series: &[Series], task: &str) -> Vec<f64> {
    let relative = |rank: &usize| -> Vec<f64> {
        let arms = [Arm::rank(*rank), Arm::rank(size.units)];
        paired(series, task, arms, loss, |a, b| a / b - 1.0).into_iter().flatten().collect()
    };
    let mean = |numbers: &[f64]| (numbers.iter().sum::<f64>() / numbers.len().max(1) as f64).abs();
    let cut = size.ranks.iter().filter(|&&rank| rank < size.units).map(relative);
    cut.max_by(|a, b| mean(a).total_cmp(&mean(b))).unwrap_or_default()
}
