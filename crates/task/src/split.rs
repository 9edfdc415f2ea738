//! A part of the examples held out for evaluation.

use lowrank_record::Seed;

use crate::error::TaskError;
use crate::example::Example;

/// How much is held out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum HeldOut {
    /// A share of the examples, above 0 and below 1, rounded up to whole examples.
    Fraction(f64),
    /// A number of examples.
    Count(usize),
}

/// Examples to train on and examples held out, each in file order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// To train on.
    pub train: Vec<Example>,
    /// To evaluate on.
    pub held_out: Vec<Example>,
}

/// Draws the held-out examples. The same examples and seed give the same split.
///
/// # Errors
/// [`TaskError::Setting`] for a fraction not between 0 and 1, [`TaskError::Split`] when either side would be empty.
pub fn split(examples: Vec<Example>, held_out: HeldOut, seed: Seed) -> Result<Split, TaskError> {
    let count = match held_out {
        HeldOut::Count(count) => count,
        // Without the small number, 0.1 of 30 in floating point would round up to 4.
        HeldOut::Fraction(share) if share > 0.0 && share < 1.0 => {
            (share * examples.len() as f64 - 1e-9).ceil() as usize
        }
        HeldOut::Fraction(share) => {
            let expected = "above 0 and below 1";
            return Err(TaskError::Setting { setting: "held_out", value: share.to_string(), expected });
        }
    };
    if count == 0 || count >= examples.len() {
        return Err(TaskError::Split { held_out: count, examples: examples.len() });
    }
    let mut out = vec![false; examples.len()];
    for &index in seed.at("split", "held_out").permutation(examples.len()).iter().take(count) {
        out[index] = true;
    }
    let mut sides = Split { train: Vec::new(), held_out: Vec::new() };
    for (example, out) in examples.into_iter().zip(out) {
        if out { sides.held_out.push(example) } else { sides.train.push(example) }
    }
    Ok(sides)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn examples(count: usize) -> Vec<Example> {
        (1..=count)
            .map(|line| Example { tokens: vec![1, 2], loss: vec![false, true], next: None, line })
            .collect()
    }

    fn lines(examples: &[Example]) -> Vec<usize> {
        examples.iter().map(|example| example.line).collect()
    }

    #[test]
    fn each_example_is_on_one_side() {
        for (held_out, count) in
            [(HeldOut::Count(7), 7), (HeldOut::Fraction(0.1), 3), (HeldOut::Fraction(0.01), 1)]
        {
            let sides = split(examples(30), held_out, Seed(5)).unwrap();
            assert_eq!(sides.held_out.len(), count, "{held_out:?}");
            let mut all = [lines(&sides.train), lines(&sides.held_out)].concat();
            assert!(lines(&sides.train).is_sorted() && lines(&sides.held_out).is_sorted());
            all.sort_unstable();
            assert_eq!(all, (1..=30).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_seed_decides() {
        let drawn = |seed| lines(&split(examples(100), HeldOut::Count(10), Seed(seed)).unwrap().held_out);
        assert_eq!(drawn(1), drawn(1));
        assert_ne!(drawn(1), drawn(2));
        assert_ne!(drawn(1), (1..=10).collect::<Vec<_>>());
    }

    #[test]
    fn an_empty_side_is_refused() {
        for held_out in [HeldOut::Count(0), HeldOut::Count(3), HeldOut::Fraction(0.9)] {
            assert!(
                matches!(split(examples(3), held_out, Seed(1)), Err(TaskError::Split { .. })),
                "{held_out:?}"
            );
        }
        for share in [0.0, 1.0, f64::NAN, -1.0] {
            let refused = split(examples(3), HeldOut::Fraction(share), Seed(1));
            assert!(matches!(refused, Err(TaskError::Setting { .. })), "{share}");
        }
    }
}
