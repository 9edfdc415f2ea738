//! What the paper says, as sums of measured numbers, and the rule by which they are judged: fixed before any number is known.

use lowrank_command::Interval;
use lowrank_command::page::signed;
use serde::Serialize;

/// The rule, as it is told in front of the numbers.
pub(super) const RULE: &str = "Each statement is a number a seed, of runs that share the control matrix, the other weights, the batches and the \
     trials on which they are measured. It holds where the 95 % interval of its mean over the seeds (Student's t) lies above its bound, fails where \
     it lies below, and is open otherwise; a statement of equality holds where the interval lies within its bounds and fails where it lies \
     outside. Statements on the linear network have no noise: they hold where the largest deviation of all cases is within the bound. A run \
     that diverged takes its seed out of the statements that speak of it. The claim holds where all its statements hold, holds in part where \
     some do, is contradicted where none holds and one fails, and is not shown otherwise. Controls and asides do not decide.";

/// What a statement is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// A part of what is to be shown.
    Claim,
    /// Whether rank is the cause, and not another size of the start.
    Control,
    /// Worth knowing; decides nothing.
    Aside,
}

/// Where a number should lie.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bound {
    /// Its mean over the seeds above this.
    Above(f64),
    /// Its mean over the seeds between the negative and this.
    Within(f64),
    /// Each of the numbers at most this.
    AtMost(f64),
}

/// What became of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Found {
    /// It lies where it should.
    Holds,
    /// It may lie on both sides.
    Open,
    /// It lies where it should not.
    Fails,
    /// There are no numbers.
    NotRun,
}

/// A statement, judged.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Statement {
    /// What it is for.
    pub role: Role,
    /// What it says.
    pub says: String,
    /// Where its number should lie.
    pub bound: Bound,
    /// What became of it.
    pub found: Found,
    /// The mean and its interval over the seeds; of a statement without noise the largest number.
    pub value: Option<Interval>,
    /// Numbers that were there.
    pub count: usize,
    /// What a reader has to know beside it; empty where there is nothing.
    pub remark: String,
}

impl Statement {
    /// Judges the numbers, one a seed or one a case.
    pub(super) fn judge(role: Role, says: String, bound: Bound, numbers: &[f64]) -> Statement {
        let value = match bound {
            Bound::AtMost(_) => {
                numbers.iter().copied().max_by(f64::total_cmp).and_then(|most| Interval::of(&[most]))
            }
            _ => Interval::of(numbers),
        };
        let found = value.map_or(Found::NotRun, |value| {
            let ends = (value.low.unwrap_or(f64::NEG_INFINITY), value.high.unwrap_or(f64::INFINITY));
            let (inside, outside) = match bound {
                Bound::Above(least) => (ends.0 > least, ends.1 < least),
                Bound::Within(most) => (-most < ends.0 && ends.1 < most, ends.1 < -most || most < ends.0),
                Bound::AtMost(most) => (value.mean <= most, value.mean > most),
            };
            match (inside, outside) {
                (true, _) => Found::Holds,
                (_, true) => Found::Fails,
                _ => Found::Open,
            }
        });
        Statement { role, says, bound, found, value, count: numbers.len(), remark: String::new() }
    }

    /// With a remark.
    pub(super) fn remarked(self, remark: String) -> Statement {
        Statement { remark, ..self }
    }

    /// What the numbers came to: `+0.031 [+0.012, +0.050]`.
    #[must_use]
    pub fn numbers(&self) -> String {
        match (self.value, self.bound) {
            (Some(value), Bound::AtMost(_)) => format!("{:.1e}", value.mean),
            (Some(Interval { mean, low: Some(low), high: Some(high) }), _) => {
                format!("{} [{}, {}]", signed(mean, 3), signed(low, 3), signed(high, 3))
            }
            (Some(value), _) => format!("{}, one seed", signed(value.mean, 3)),
            (None, _) => "–".to_owned(),
        }
    }
}

impl Bound {
    /// As tables show it.
    #[must_use]
    pub fn words(self) -> String {
        match self {
            Bound::Above(least) => format!("> {least}"),
            Bound::Within(most) => format!("within ±{most}"),
            Bound::AtMost(most) => format!("≤ {most}"),
        }
    }
}

impl Role {
    /// As tables show it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Role::Claim => "claim",
            Role::Control => "control",
            Role::Aside => "aside",
        }
    }
}

impl Found {
    /// As tables show it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Found::Holds => "holds",
            Found::Open => "open",
            Found::Fails => "fails",
            Found::NotRun => "not run",
        }
    }
}

/// What became of the claim.
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
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Verdict::Holds => "the claim holds",
            Verdict::InPart => "the claim holds in part",
            Verdict::Contradicted => "the claim is contradicted",
            Verdict::NotShown => "the claim is not shown",
        }
    }
}

/// The verdict, and what there is to say of it.
pub(super) fn verdict(statements: &[Statement]) -> (Verdict, Vec<String>) {
    let count = |role: Role, found: Found| {
        statements.iter().filter(|each| each.role == role && each.found == found).count()
    };
    let of =
        |role: Role| [Found::Holds, Found::Fails, Found::Open, Found::NotRun].map(|found| count(role, found));
    let [holds, fails, open, missing] = of(Role::Claim);
    let verdict = match (holds, fails) {
        (1.., 0) if open + missing == 0 => Verdict::Holds,
        (1.., _) => Verdict::InPart,
        (0, 1..) => Verdict::Contradicted,
        (0, 0) => Verdict::NotShown,
    };
    let all = holds + fails + open + missing;
    let not_run = if missing > 0 { format!(", {missing} could not be judged") } else { String::new() };
    let mut sentences = vec![format!(
        "Of the claim's {all} statements {holds} hold, {fails} fail and {open} are open{not_run}: {}.",
        verdict.words()
    )];
    let [holds, fails, open, missing] = of(Role::Control);
    sentences.push(format!(
        "Of {} statements at an equal first singular value or spectral radius {holds} hold, {fails} fail, {open} are open and {missing} could not be \
         judged. Where they do not hold, it is not shown that rank is the cause: at one Frobenius norm a low rank has a larger first singular \
         value.",
        holds + fails + open + missing
    ));
    let unequal = statements.iter().filter(|each| !each.remark.is_empty()).count();
    if unequal > 0 {
        sentences.push(format!(
            "{unequal} statements, remarked as such, compare networks that did not learn equally well: one that learned little is lazy for that reason, \
             one that died has no kernel left."
        ));
    }
    sentences
        .push("Each interval is of its statement alone; of twenty such, one is wrong by chance.".to_owned());
    (verdict, sentences)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(bound: Bound, numbers: &[f64]) -> Found {
        Statement::judge(Role::Claim, String::new(), bound, numbers).found
    }

    #[test]
    fn numbers_are_judged_by_their_interval() {
        assert_eq!(found(Bound::Above(0.1), &[0.2, 0.21, 0.19]), Found::Holds);
        assert_eq!(found(Bound::Above(0.1), &[0.05, 0.06, 0.05]), Found::Fails);
        assert_eq!(found(Bound::Above(0.1), &[0.05, 0.6, 0.05]), Found::Open);
        assert_eq!(found(Bound::Above(0.1), &[0.6]), Found::Open, "one seed tells nothing of noise");
        assert_eq!(found(Bound::Above(0.1), &[]), Found::NotRun);
        assert_eq!(found(Bound::Within(0.1), &[0.01, 0.02, 0.03]), Found::Holds);
        assert_eq!(found(Bound::Within(0.1), &[-0.5, -0.51, -0.52]), Found::Fails);
        assert_eq!(found(Bound::AtMost(0.005), &[0.001, 0.004]), Found::Holds);
        assert_eq!(found(Bound::AtMost(0.005), &[0.001, 0.006]), Found::Fails);
    }

    #[test]
    fn the_verdict_is_the_rules() {
        let of =
            |role: Role, numbers: &[f64]| Statement::judge(role, String::new(), Bound::Above(0.0), numbers);
        let (yes, no, open) = ([1.0, 1.1], [-1.0, -1.1], [1.0, -1.0]);
        let claims = |all: &[&[f64]]| {
            let all: Vec<Statement> = all.iter().map(|numbers| of(Role::Claim, numbers)).collect();
            verdict(&all).0
        };
        assert_eq!(claims(&[&yes, &yes]), Verdict::Holds);
        assert_eq!(claims(&[&yes, &open]), Verdict::InPart);
        assert_eq!(claims(&[&yes, &[]]), Verdict::InPart);
        assert_eq!(claims(&[&no, &open]), Verdict::Contradicted);
        assert_eq!(claims(&[&open]), Verdict::NotShown);
        let (found, _) = verdict(&[of(Role::Claim, &yes), of(Role::Control, &no)]);
        assert_eq!(found, Verdict::Holds, "a control does not decide");
    }
}
