//! A part of the examples held out for evaluation.

use std::collections::BTreeMap;

use lowrank_record::Seed;

use crate::error::TaskError;
use crate::example::Example;

/// How much is held out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum HeldOut {
    /// A share of the examples, above 0 and below 1, rounded up to whole examples, and at most `at_most` of them: what would
    /// not be evaluated on is trained on.
    Share {
        /// The share.
        share: f64,
        /// The most examples.
        at_most: usize,
    },
    /// A number of examples.
    Count(usize),
}

/// Which examples are held out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pick {
    /// Any, drawn by the seed; equal examples go to the same side.
    Anywhere(Seed),
    /// The last ones: rows of one text, whose neighbours would tell too much of each other.
    End,
}

/// What can be held out.
pub trait Sample {
    /// What it holds.
    type Content: Ord + ?Sized;

    /// What it holds; samples of equal content are copies of each other.
    fn content(&self) -> &Self::Content;
}

impl Sample for Example {
    type Content = [u32];

    fn content(&self) -> &[u32] {
        &self.tokens
    }
}

/// Examples to train on and examples held out, each in file order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split<T = Example> {
    /// To train on.
    pub train: Vec<T>,
    /// To evaluate on.
    pub held_out: Vec<T>,
}

/// Holds examples out. The same examples and seed give the same split.
///
/// Examples with the same content are not told apart: a copy of a held-out example is held out too, beyond the number that was
/// asked for where there are copies.
///
/// # Errors
/// [`TaskError::Setting`] for a share not between 0 and 1, [`TaskError::Split`] when either side would be empty.
pub fn split<T: Sample>(examples: Vec<T>, held_out: HeldOut, pick: Pick) -> Result<Split<T>, TaskError> {
    let count = match held_out {
        HeldOut::Count(count) => count,
        // Without the small number, 0.1 of 30 in floating point would round up to 4.
        HeldOut::Share { share, at_most } if share > 0.0 && share < 1.0 => {
            ((share * examples.len() as f64 - 1e-9).ceil() as usize).min(at_most)
        }
        HeldOut::Share { share, .. } => {
            let expected = "above 0 and below 1";
            return Err(TaskError::Setting { setting: "held_out", value: share.to_string(), expected });
        }
    };
    if count == 0 || count >= examples.len() {
        return Err(TaskError::Split { held_out: count, examples: examples.len() });
    }
    let out = match pick {
        Pick::Anywhere(seed) => drawn(&examples, count, seed),
        Pick::End => (0..examples.len()).map(|index| index >= examples.len() - count).collect(),
    };
    let mut sides = Split { train: Vec::new(), held_out: Vec::new() };
    for (example, out) in examples.into_iter().zip(out) {
        if out { sides.held_out.push(example) } else { sides.train.push(example) }
    }
    if sides.train.is_empty() {
        // All are copies of one.
        return Err(TaskError::Split { held_out: sides.held_out.len(), examples: sides.held_out.len() });
    }
    Ok(sides)
}

/// Whether each example is held out: `count` of them drawn, with their copies.
fn drawn<T: Sample>(examples: &[T], count: usize, seed: Seed) -> Vec<bool> {
    let mut copies: BTreeMap<&T::Content, Vec<usize>> = BTreeMap::new();
    for (index, example) in examples.iter().enumerate() {
        copies.entry(example.content()).or_default().push(index);
    }
    let (mut out, mut held) = (vec![false; examples.len()], 0);
    for index in seed.at("split", "held_out").permutation(examples.len()) {
        if held >= count {
            break;
        }
        if !out[index] {
            let same = &copies[examples[index].content()];
            same.iter().for_each(|&copy| out[copy] = true);
            held += same.len();
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each with a token of its own.
    fn examples(count: usize) -> Vec<Example> {
        (1..=count)
            .map(|line| Example { tokens: vec![1, line as u32], loss: vec![false, true], next: None, line })
            .collect()
    }

    fn lines(examples: &[Example]) -> Vec<usize> {
        examples.iter().map(|example| example.line).collect()
    }

    fn share(share: f64) -> HeldOut {
        HeldOut::Share { share, at_most: usize::MAX }
    }

    #[test]
    fn each_example_is_on_one_side() {
        let capped = HeldOut::Share { share: 0.5, at_most: 4 };
        for (held_out, count) in [(HeldOut::Count(7), 7), (share(0.1), 3), (share(0.01), 1), (capped, 4)] {
            for pick in [Pick::Anywhere(Seed(5)), Pick::End] {
                let sides = split(examples(30), held_out, pick).unwrap();
                assert_eq!(sides.held_out.len(), count, "{held_out:?}");
                let mut all = [lines(&sides.train), lines(&sides.held_out)].concat();
                assert!(lines(&sides.train).is_sorted() && lines(&sides.held_out).is_sorted());
                all.sort_unstable();
                assert_eq!(all, (1..=30).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn the_seed_decides() {
        let drawn = |seed| {
            lines(&split(examples(100), HeldOut::Count(10), Pick::Anywhere(Seed(seed))).unwrap().held_out)
        };
        assert_eq!(drawn(1), drawn(1));
        assert_ne!(drawn(1), drawn(2));
        // From all over the file, which may be sorted.
        assert!(drawn(1).iter().any(|&line| line <= 33) && drawn(1).iter().any(|&line| line > 66));
    }

    #[test]
    fn the_end_of_a_text_is_its_last_rows() {
        assert_eq!(lines(&split(examples(9), HeldOut::Count(3), Pick::End).unwrap().held_out), [7, 8, 9]);
    }

    #[test]
    fn copies_are_on_the_same_side() {
        let mut all = examples(40);
        for (index, example) in all.iter_mut().enumerate() {
            example.tokens[1] = (index % 10) as u32;
        }
        let sides = split(all, HeldOut::Count(6), Pick::Anywhere(Seed(3))).unwrap();
        assert_eq!(sides.held_out.len(), 8, "two texts in four copies");
        let held = |example: &Example| sides.held_out.iter().any(|other| other.tokens == example.tokens);
        assert!(!sides.train.iter().any(held));
    }

    #[test]
    fn an_empty_side_is_refused() {
        let pick = Pick::Anywhere(Seed(1));
        for held_out in [HeldOut::Count(0), HeldOut::Count(3), share(0.9)] {
            assert!(
                matches!(split(examples(3), held_out, pick), Err(TaskError::Split { .. })),
                "{held_out:?}"
            );
        }
        let mut copies = examples(5);
        copies.iter_mut().for_each(|example| example.tokens[1] = 7);
        assert!(matches!(split(copies, HeldOut::Count(1), pick), Err(TaskError::Split { held_out: 5, .. })));
        for wrong in [0.0, 1.0, f64::NAN, -1.0] {
            let refused = split(examples(3), share(wrong), pick);
            assert!(matches!(refused, Err(TaskError::Setting { .. })), "{wrong}");
        }
    }
}
