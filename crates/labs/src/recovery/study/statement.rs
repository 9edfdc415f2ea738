//! Statements that can be true or not, and the rule by which they are judged.

use serde::Serialize;

/// The rule, as it is told in front of the numbers.
pub(super) const RULE: &str = "Each statement is one number of each problem (its matrix, measurements and start drawn from a seed) and a bound that was \
     fixed before the numbers, from the specification. It holds where the number lies within the bound on every problem, fails where it does on \
     none, and is mixed otherwise. The claim holds where all its statements hold, holds in part where some hold or are mixed, and is \
     contradicted where all fail. Asides do not decide.";

/// What a statement is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// A part of the paper's claim.
    Claim,
    /// Worth knowing; decides nothing.
    Aside,
}

/// Where a number should lie.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bound {
    /// Between these, both included.
    Between(f64, f64),
    /// At most this.
    AtMost(f64),
    /// At least this.
    AtLeast(f64),
}

/// What became of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Found {
    /// Within the bound on every problem.
    Holds,
    /// On some.
    Mixed,
    /// On none.
    Fails,
}

/// A statement, judged.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Statement {
    /// What it is for.
    pub role: Role,
    /// The statement, with the number that is meant.
    pub says: String,
    /// What the paper says, or what the specification measured.
    pub expected: &'static str,
    /// Where the number should lie.
    pub bound: Bound,
    /// The number of each problem, in the order of the seeds.
    pub values: Vec<f64>,
    /// What became of it.
    pub found: Found,
}

impl Bound {
    /// Whether a number lies within; what is no number does not.
    #[must_use]
    pub fn admits(self, value: f64) -> bool {
        match self {
            Bound::Between(low, high) => value >= low && value <= high,
            Bound::AtMost(high) => value <= high,
            Bound::AtLeast(low) => value >= low,
        }
    }

    /// As a table says it.
    #[must_use]
    pub fn words(self) -> String {
        match self {
            Bound::Between(low, high) => format!("{} to {}", number(low), number(high)),
            Bound::AtMost(high) => format!("≤ {}", number(high)),
            Bound::AtLeast(low) => format!("≥ {}", number(low)),
        }
    }
}

impl Statement {
    /// Judges one number of each problem.
    pub(super) fn new(
        role: Role,
        says: impl Into<String>,
        expected: &'static str,
        bound: Bound,
        values: Vec<f64>,
    ) -> Statement {
        let within = values.iter().filter(|&&value| bound.admits(value)).count();
        let found = match within {
            0 => Found::Fails,
            _ if within == values.len() => Found::Holds,
            _ => Found::Mixed,
        };
        Statement { role, says: says.into(), expected, bound, values, found }
    }

    /// Median, and the least and largest of several: `−1.993 [−1.995, −1.991]`.
    #[must_use]
    pub fn measured(&self) -> String {
        spread(&self.values)
    }
}

impl Found {
    /// As a table says it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Found::Holds => "holds",
            Found::Mixed => "mixed",
            Found::Fails => "fails",
        }
    }
}

/// What became of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// All its statements hold.
    Holds,
    /// Some do, or do on some problems.
    InPart,
    /// None does on any.
    Contradicted,
}

impl Verdict {
    /// Over the statements of the claim.
    pub(super) fn of(statements: &[Statement]) -> Verdict {
        let claim = || statements.iter().filter(|statement| statement.role == Role::Claim);
        if claim().all(|statement| statement.found == Found::Holds) {
            Verdict::Holds
        } else if claim().all(|statement| statement.found == Found::Fails) {
            Verdict::Contradicted
        } else {
            Verdict::InPart
        }
    }

    /// As a title says it.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Verdict::Holds => "the claim holds",
            Verdict::InPart => "the claim holds in part",
            Verdict::Contradicted => "the claim is contradicted",
        }
    }
}

/// The middle of the values, of an even number the lower middle: a value that was measured.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
}

/// Median, least and largest of the values that are numbers, and how many those are where some are none; a dash where all are.
pub(super) fn spread(values: &[f64]) -> String {
    let numbers: Vec<f64> = values.iter().copied().filter(|value| !value.is_nan()).collect();
    if numbers.is_empty() {
        return "–".to_owned();
    }
    let least = numbers.iter().copied().fold(f64::INFINITY, f64::min);
    let most = numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut text = number(median(&numbers));
    if least < most {
        text += &format!(" [{}, {}]", number(least), number(most));
    }
    if numbers.len() < values.len() {
        text += &format!(" ({} of {})", numbers.len(), values.len());
    }
    text
}

/// Three digits, in powers of ten where that is shorter.
pub(super) fn number(value: f64) -> String {
    let size = value.abs();
    let text = if value == 0.0 {
        "0".to_owned()
    } else if (1e-2..1e5).contains(&size) {
        let digits = (2 - size.log10().floor() as i32).clamp(0, 4) as usize;
        format!("{value:.digits$}")
    } else {
        format!("{value:.1e}")
    };
    text.replace('-', "−")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statement(values: &[f64]) -> Statement {
        Statement::new(Role::Claim, "x", "1", Bound::Between(0.9, 1.1), values.to_vec())
    }

    #[test]
    fn statements_and_claims_are_judged_by_the_rule() {
        assert_eq!(statement(&[0.9, 1.1]).found, Found::Holds);
        assert_eq!(statement(&[0.9, 1.2]).found, Found::Mixed);
        assert_eq!(statement(&[f64::NAN, 1.2]).found, Found::Fails);
        let (holds, mixed, fails) = (statement(&[1.0]), statement(&[1.0, 2.0]), statement(&[2.0]));
        let aside = Statement { role: Role::Aside, ..fails.clone() };
        assert_eq!(Verdict::of(&[holds.clone(), aside]), Verdict::Holds);
        assert_eq!(Verdict::of(&[mixed.clone(), fails.clone()]), Verdict::InPart);
        assert_eq!(Verdict::of(&[holds, mixed]), Verdict::InPart);
        assert_eq!(Verdict::of(&[fails]), Verdict::Contradicted);
    }

    #[test]
    fn numbers_read_as_they_are() {
        assert_eq!(
            [number(-1.9934), number(2.5e-9), number(643.0), number(0.0)],
            ["−1.99", "2.5e−9", "643", "0"]
        );
        assert_eq!(spread(&[3.0, 1.0, 2.0]), "2.00 [1.00, 3.00]");
        assert_eq!([spread(&[f64::NAN]), spread(&[f64::NAN, 2.0])], ["–", "2.00 (1 of 2)"]);
        assert_eq!(median(&[4.0, 1.0]), 1.0);
        assert_eq!(Bound::AtMost(0.5).words(), "≤ 0.500");
    }
}
