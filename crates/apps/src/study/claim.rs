//! What a paper says, as sums of measured numbers, and the rule by which they are judged: fixed before any number is known.

use serde::Serialize;

use lowrank_command::Interval;

/// The arm that stands for the network before it learns anything.
pub(super) const BEFORE: &str = "before";

/// The rule, as it is told in front of the numbers.
pub(super) const RULE: &str = "Each statement is a sum over runs that share a seed (problem, data and their order). It holds where the 95 % \
     interval of its mean over the seeds (Student's t) lies above zero, fails where it lies below, and is open otherwise; a statement of \
     equality holds where the interval lies within its bounds and fails where it lies outside. The claim holds where all its statements \
     hold, holds in part where some do, is contradicted where none holds and one fails, and is not shown otherwise. Controls have the \
     method's sizes and random directions; they and asides do not decide.";

/// What is measured of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Measure {
    /// Mean training loss of the steps around a quarter of the run, nats.
    Early,
    /// Loss behind the last step: of all training rows in a toy, of the held-out examples on a real model; nats.
    Last,
    /// Share of the test rows, or of the questions, that are answered rightly.
    Accuracy,
    /// Norm of the first gradient of what is trained.
    FirstNorm,
}

/// At which learning rate a run is meant.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum At {
    /// The one that was chosen for the arm on other seeds.
    Tuned,
    /// This one, for every arm.
    Rate(f64),
}

/// A number of each seed with its weight in a sum.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Term {
    pub(super) weight: f64,
    pub(super) arm: &'static str,
    pub(super) measure: Measure,
    pub(super) at: At,
}

/// An early loss at a rate that all arms share.
pub(super) const fn early(weight: f64, arm: &'static str, rate: f64) -> Term {
    Term { weight, arm, measure: Measure::Early, at: At::Rate(rate) }
}

/// A number at the arm's own rate.
pub(super) const fn tuned(weight: f64, arm: &'static str, measure: Measure) -> Term {
    Term { weight, arm, measure, at: At::Tuned }
}

/// The last loss at the arm's own rate.
pub(super) const fn last(weight: f64, arm: &'static str) -> Term {
    tuned(weight, arm, Measure::Last)
}

/// The accuracy at the arm's own rate.
pub(super) const fn accuracy(weight: f64, arm: &'static str) -> Term {
    tuned(weight, arm, Measure::Accuracy)
}

/// The accuracy at a rate that all arms share.
pub(super) const fn accuracy_at(weight: f64, arm: &'static str, rate: f64) -> Term {
    Term { weight, arm, measure: Measure::Accuracy, at: At::Rate(rate) }
}

/// What a statement is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// A part of the paper's claim.
    Claim,
    /// Whether directions are the cause, and not sizes.
    Control,
    /// Worth knowing; decides nothing.
    Aside,
}

/// Where a sum should lie.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Bound {
    /// Above this.
    Above(f64),
    /// Between its negative and this.
    Within(f64),
}

/// A statement that can be true or not.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Criterion {
    pub(super) role: Role,
    pub(super) says: &'static str,
    pub(super) terms: &'static [Term],
    pub(super) bound: Bound,
}

/// What became of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Found {
    /// The interval lies where it should.
    Holds,
    /// The interval lies on both sides.
    Open,
    /// The interval lies where it should not.
    Fails,
    /// A run that it speaks of is not there.
    NotRun,
}

impl Found {
    pub(super) fn word(self) -> &'static str {
        match self {
            Found::Holds => "holds",
            Found::Open => "open",
            Found::Fails => "fails",
            Found::NotRun => "not run",
        }
    }
}

/// A statement, judged.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Judged {
    /// What it is for.
    pub role: Role,
    /// The statement.
    pub says: &'static str,
    /// What became of it.
    pub found: Found,
    /// Mean and 95 % interval of its sum, less the bound it should lie above; of a statement of equality, of the sum.
    pub margin: Option<Interval>,
    /// The bounds of a statement of equality: its negative and this.
    pub within: Option<f64>,
    /// Why it was not judged.
    pub missing: Option<String>,
}

impl Criterion {
    /// Judges it: `numbers` gives a term's value for each seed, or says why there is none.
    pub(super) fn judge(&self, numbers: &dyn Fn(&Term) -> Result<Vec<f64>, String>) -> Judged {
        let (role, says) = (self.role, self.says);
        let within = if let Bound::Within(bound) = self.bound { Some(bound) } else { None };
        let (found, margin, missing) = match self.sums(numbers) {
            Err(missing) => (Found::NotRun, None, Some(missing)),
            Ok(sums) => {
                let margin = Interval::of(&sums);
                (margin.map_or(Found::NotRun, |margin| self.found(&margin)), margin, None)
            }
        };
        Judged { role, says, found, margin, within, missing }
    }

    /// The sum of each seed, less the bound it should lie above.
    fn sums(&self, numbers: &dyn Fn(&Term) -> Result<Vec<f64>, String>) -> Result<Vec<f64>, String> {
        let less = if let Bound::Above(bound) = self.bound { bound } else { 0.0 };
        let mut sums: Option<Vec<f64>> = None;
        for term in self.terms {
            let values = numbers(term)?;
            let sums = sums.get_or_insert_with(|| vec![-less; values.len()]);
            if values.len() != sums.len() {
                return Err(format!("{} has {} seeds, another arm {}", term.arm, values.len(), sums.len()));
            }
            sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += term.weight * value);
        }
        sums.filter(|sums| !sums.is_empty()).ok_or_else(|| "no seed was run".to_owned())
    }

    fn found(&self, margin: &Interval) -> Found {
        let (Some(low), Some(high)) = (margin.low, margin.high) else { return Found::Open };
        let (inside, outside) = match self.bound {
            Bound::Above(_) => (low > 0.0, high < 0.0),
            Bound::Within(bound) => (-bound < low && high < bound, high < -bound || bound < low),
        };
        match (inside, outside) {
            (true, _) => Found::Holds,
            (_, true) => Found::Fails,
            _ => Found::Open,
        }
    }
}

/// What became of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// All its statements hold.
    Holds,
    /// Some hold.
    InPart,
    /// None holds, and one fails.
    Contradicted,
    /// None holds, and none fails.
    NotShown,
}

impl Verdict {
    /// As a title says it.
    pub(super) fn words(self) -> &'static str {
        match self {
            Verdict::Holds => "the claim holds",
            Verdict::InPart => "the claim holds in part",
            Verdict::Contradicted => "the claim is contradicted",
            Verdict::NotShown => "the claim is not shown",
        }
    }
}

/// The verdict over the statements that were judged, and what there is to say of it; none where no part of the claim was.
pub(super) fn verdict(judged: &[Judged]) -> Option<(Verdict, Vec<String>)> {
    let of = |role: Role, found: Found| {
        judged.iter().filter(|each| each.role == role && each.found == found).count()
    };
    let claim = |found| of(Role::Claim, found);
    let [holds, open, fails] = [Found::Holds, Found::Open, Found::Fails].map(claim);
    let all = holds + open + fails;
    let verdict = match (holds, fails) {
        _ if all == 0 => return None,
        (holds, _) if holds == all => Verdict::Holds,
        (1.., _) => Verdict::InPart,
        (0, 1..) => Verdict::Contradicted,
        (0, 0) => Verdict::NotShown,
    };
    let missing = of(Role::Claim, Found::NotRun);
    let run = if missing > 0 { " that were run" } else { "" };
    let mut sentences = vec![format!(
        "Of the claim's {all} statements{run} {holds} hold, {fails} fail and {open} are open: {}.",
        verdict.words()
    )];
    let control = |found| of(Role::Control, found);
    let [holds, open, fails] = [Found::Holds, Found::Open, Found::Fails].map(control);
    sentences.push(
        match (holds, open, fails) {
            (0, 0, 0) => "No control was run: whether directions or sizes are the cause is not known.",
            (_, 0, 0) => "The control with random directions is behind: directions matter, not sizes alone.",
            (0, _, _) => {
                "The control with random directions is not behind by more than noise: that directions matter is not shown."
            }
            _ => "The control with random directions is behind in a part of its statements only.",
        }
        .to_owned(),
    );
    if missing > 0 {
        sentences.push(format!("Not run, and so not judged: {missing} of the claim's statements."));
    }
    if all > 1 {
        sentences.push(
            "Each interval is of its statement alone; of twenty such, one is wrong by chance.".to_owned(),
        );
    }
    Some((verdict, sentences))
}

#[cfg(test)]
mod tests {
    use super::*;

    const AHEAD: Criterion = Criterion {
        role: Role::Claim,
        says: "a is below b by a tenth",
        terms: &[last(1.0, "b"), last(-1.0, "a")],
        bound: Bound::Above(0.1),
    };

    fn judge(criterion: &Criterion, a: &[f64], b: &[f64]) -> Judged {
        criterion.judge(&|term| Ok(if term.arm == "a" { a } else { b }.to_vec()))
    }

    #[test]
    fn a_statement_holds_fails_or_is_open_by_its_interval() {
        // Seeds differ by far more than the arms, which pairing takes out.
        let b = [3.0, 5.0, 4.0];
        for (a, found) in [
            ([2.79, 4.8, 3.81], Found::Holds),
            ([2.99, 4.98, 4.0], Found::Fails),
            ([2.6, 5.2, 3.9], Found::Open),
        ] {
            assert_eq!(judge(&AHEAD, &a, &b).found, found, "{a:?}");
        }
        let judged = judge(&AHEAD, &[2.79, 4.8, 3.81], &b);
        assert!((judged.margin.unwrap().mean - 0.1).abs() < 1e-12);
        assert_eq!(judge(&AHEAD, &[1.0], &[2.0]).found, Found::Open, "one seed tells nothing of noise");
    }

    #[test]
    fn equality_needs_an_interval_within_its_bounds() {
        let same = Criterion { bound: Bound::Within(0.1), ..AHEAD };
        let b = [3.0, 5.0, 4.0];
        assert_eq!(judge(&same, &[3.01, 5.02, 4.0], &b).found, Found::Holds);
        assert_eq!(judge(&same, &[3.0, 5.3, 3.7], &b).found, Found::Open);
        assert_eq!(judge(&same, &[4.0, 6.01, 5.0], &b).found, Found::Fails);
    }

    #[test]
    fn what_was_not_run_is_not_judged() {
        let judged = AHEAD.judge(&|term| Err(format!("{} was not run", term.arm)));
        assert_eq!((judged.found, judged.missing.as_deref()), (Found::NotRun, Some("b was not run")));
        assert_eq!(verdict(&[judged]), None);
        let judged = AHEAD.judge(&|term| Ok(vec![1.0; if term.arm == "a" { 2 } else { 3 }]));
        assert_eq!(judged.found, Found::NotRun);
    }

    #[test]
    fn the_verdict_is_the_rules() {
        let of = |role: Role, found: Found| Judged { role, found, ..judge(&AHEAD, &[1.0], &[1.0]) };
        let claims = |found: &[Found]| {
            let judged: Vec<Judged> = found.iter().map(|&found| of(Role::Claim, found)).collect();
            verdict(&judged).unwrap().0
        };
        assert_eq!(claims(&[Found::Holds, Found::Holds]), Verdict::Holds);
        assert_eq!(claims(&[Found::Holds, Found::NotRun]), Verdict::Holds);
        assert_eq!(claims(&[Found::Holds, Found::Fails]), Verdict::InPart);
        assert_eq!(claims(&[Found::Open, Found::Fails]), Verdict::Contradicted);
        assert_eq!(claims(&[Found::Open, Found::Open]), Verdict::NotShown);
        let (found, sentences) =
            verdict(&[of(Role::Claim, Found::Holds), of(Role::Control, Found::Fails)]).unwrap();
        assert_eq!(found, Verdict::Holds, "a control does not decide");
        assert!(sentences[1].contains("is not shown"), "{sentences:?}");
        let (_, sentences) =
            verdict(&[of(Role::Claim, Found::Holds), of(Role::Control, Found::Holds)]).unwrap();
        assert!(sentences[1].contains("directions matter, not sizes"), "{sentences:?}");
    }
}
