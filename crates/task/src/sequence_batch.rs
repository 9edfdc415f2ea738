//! Sequences laid into batches, in an order that seed and epoch fix: neighbours in length together, so that little is padding.

use lowrank_record::Seed;

use crate::batch::{Batching, NO_TARGET};
use crate::error::TaskError;
use crate::sequence::{Sequence, Wanted};

/// Share of the tokens of texts that are learned where tokens are hidden (Devlin et al., "BERT", 2019, section 3.1).
const LEARNED: f32 = 0.15;
/// … of those, the share that is replaced by the mask token, and, behind it, by any token; the others stand as they are.
const MASKED: f32 = 0.8;
const REPLACED: f32 = 0.9;
/// Batches among which sequences are sorted by length: within them the order of an epoch is by length, outside it is drawn.
const SORTED: usize = 16;

/// One batch, row-major `[batch, time]`.
#[derive(Debug, Clone, PartialEq)]
pub struct SequenceBatch {
    /// Token at each place.
    pub tokens: Vec<u32>,
    /// The text that each token is of.
    pub segments: Vec<u32>,
    /// Whether a token of a sequence stands there; the others are padding.
    pub visible: Vec<bool>,
    /// What should be answered.
    pub answers: Answers,
    /// Rows.
    pub batch: usize,
    /// Places of a row: those of the longest sequence.
    pub time: usize,
    /// Places that are no padding.
    pub filled: usize,
}

/// What should be answered.
#[derive(Debug, Clone, PartialEq)]
pub enum Answers {
    /// The class of each row.
    Classes(Vec<i32>),
    /// The number of each row.
    Numbers(Vec<f32>),
    /// The token at each place that is learned, [`NO_TARGET`] elsewhere.
    Tokens(Vec<i32>),
}

/// How tokens are hidden.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hiding {
    /// The token that stands for a hidden one.
    pub mask: u32,
    /// Tokens of the model, from which others are drawn.
    pub vocabulary: u32,
}

/// The batches of one epoch: a pure function of sequences, batching, seed and epoch.
#[derive(Debug, Clone)]
pub struct SequencePlan<'a> {
    sequences: &'a [Sequence],
    batching: Batching,
    hiding: Option<Hiding>,
    /// Where what is hidden is drawn.
    seed: Seed,
    /// The sequences of each batch.
    batches: Vec<Vec<usize>>,
}

impl<'a> SequencePlan<'a> {
    /// The plan of one epoch, counted from 0. Sequences come in a drawn order, are sorted by length within sixteen batches, and
    /// the batches come in a drawn order again.
    ///
    /// # Errors
    /// [`TaskError::Setting`] for batches of nothing, [`TaskError::NoRecords`] without sequences.
    pub fn new(
        sequences: &'a [Sequence],
        batching: Batching,
        hiding: Option<Hiding>,
        seed: Seed,
        epoch: u64,
    ) -> Result<Self, TaskError> {
        check(sequences, batching)?;
        let seed = seed.at("epoch", &epoch.to_string());
        let mut order = seed.at("order", "sequences").permutation(sequences.len());
        for part in order.chunks_mut(batching.batch.saturating_mul(SORTED)) {
            part.sort_by_key(|&index| sequences[index].tokens.len());
        }
        let cut: Vec<Vec<usize>> = order.chunks(batching.batch).map(<[usize]>::to_vec).collect();
        let order = seed.at("order", "batches").permutation(cut.len());
        let batches = order.into_iter().map(|batch| cut[batch].clone()).collect();
        Ok(SequencePlan { sequences, batching, hiding, seed: seed.at("hidden", "tokens"), batches })
    }

    /// All sequences by length, for evaluation; what is hidden is the same each time.
    ///
    /// # Errors
    /// As [`SequencePlan::new`].
    pub fn by_length(
        sequences: &'a [Sequence],
        batching: Batching,
        hiding: Option<Hiding>,
    ) -> Result<Self, TaskError> {
        check(sequences, batching)?;
        let mut order: Vec<usize> = (0..sequences.len()).collect();
        order.sort_by_key(|&index| sequences[index].tokens.len());
        let batches = order.chunks(batching.batch).map(<[usize]>::to_vec).collect();
        Ok(SequencePlan { sequences, batching, hiding, seed: Seed(0).at("hidden", "held out"), batches })
    }

    /// How many batches there are; never 0.
    #[must_use]
    pub fn batches(&self) -> usize {
        self.batches.len()
    }

    /// Places of each batch, padding included.
    #[must_use]
    pub fn places(&self) -> Vec<usize> {
        self.batches.iter().map(|rows| rows.len() * self.time(rows)).collect()
    }

    fn time(&self, rows: &[usize]) -> usize {
        rows.iter().map(|&row| self.sequences[row].tokens.len()).max().unwrap_or(0)
    }

    /// Batch `index`, from 0.
    ///
    /// # Errors
    /// [`TaskError::NoSuchBatch`].
    pub fn batch(&self, index: usize) -> Result<SequenceBatch, TaskError> {
        let count = self.batches.len();
        let rows = self.batches.get(index).ok_or(TaskError::NoSuchBatch { index, batches: count })?;
        let time = self.time(rows);
        let places = rows.len() * time;
        let mut batch = SequenceBatch {
            tokens: Vec::with_capacity(places),
            segments: Vec::with_capacity(places),
            visible: Vec::with_capacity(places),
            answers: Answers::Tokens(Vec::new()),
            batch: rows.len(),
            time,
            filled: 0,
        };
        let (mut classes, mut numbers, mut targets) = (Vec::new(), Vec::new(), Vec::new());
        for &row in rows {
            let sequence = &self.sequences[row];
            let length = sequence.tokens.len();
            batch.tokens.extend(&sequence.tokens);
            batch.tokens.resize(batch.tokens.len() + time - length, self.batching.pad);
            batch.segments.extend(&sequence.segments);
            batch.segments.resize(batch.segments.len() + time - length, 0);
            batch.visible.extend((0..time).map(|at| at < length));
            batch.filled += length;
            match (sequence.answer, self.hiding) {
                (Wanted::Class(class), _) => classes.push(i32::try_from(class).unwrap_or(NO_TARGET)),
                (Wanted::Number(number), _) => numbers.push(number),
                (Wanted::Hidden, None) => targets.extend(std::iter::repeat_n(NO_TARGET, time)),
                (Wanted::Hidden, Some(hiding)) => {
                    let start = batch.tokens.len() - time;
                    let of_row = &mut batch.tokens[start..start + length];
                    targets.extend(hide(of_row, sequence, hiding, self.seed.at("row", &row.to_string())));
                    targets.extend(std::iter::repeat_n(NO_TARGET, time - length));
                }
            }
        }
        batch.answers = match (classes.is_empty(), numbers.is_empty()) {
            (false, _) => Answers::Classes(classes),
            (true, false) => Answers::Numbers(numbers),
            (true, true) => Answers::Tokens(targets),
        };
        Ok(batch)
    }
}

/// Hides some of the tokens of a text, at least one; returns what stood there, at the places that are learned.
fn hide(tokens: &mut [u32], sequence: &Sequence, hiding: Hiding, seed: Seed) -> Vec<i32> {
    let count = tokens.len();
    // Uniform on [0, 1).
    let draws = |name: &str| -> Vec<f32> {
        seed.at("draw", name).uniform(count, 1.0).into_iter().map(|draw| 0.5 * (draw + 1.0)).collect()
    };
    let (chosen, how, other) = (draws("chosen"), draws("how"), draws("other"));
    let mut learned: Vec<bool> = (0..count).map(|at| !sequence.special[at] && chosen[at] < LEARNED).collect();
    if !learned.contains(&true) {
        let lowest = (0..count).filter(|&at| !sequence.special[at]);
        if let Some(at) = lowest.min_by(|&a, &b| chosen[a].total_cmp(&chosen[b])) {
            learned[at] = true;
        }
    }
    let mut targets = vec![NO_TARGET; count];
    for at in (0..count).filter(|&at| learned[at]) {
        targets[at] = i32::try_from(tokens[at]).unwrap_or(NO_TARGET);
        if how[at] < MASKED {
            tokens[at] = hiding.mask;
        } else if how[at] < REPLACED {
            tokens[at] =
                ((other[at] * hiding.vocabulary as f32) as u32).min(hiding.vocabulary.saturating_sub(1));
        }
    }
    targets
}

fn check(sequences: &[Sequence], batching: Batching) -> Result<(), TaskError> {
    if batching.batch == 0 {
        let expected = "at least 1";
        return Err(TaskError::Setting { setting: "batch", value: "0".to_owned(), expected });
    }
    if sequences.is_empty() { Err(TaskError::NoRecords) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequences(wanted: &dyn Fn(usize) -> Wanted) -> Vec<Sequence> {
        let one = |index: usize| {
            let length = 4 + index * 7 % 13;
            Sequence {
                tokens: (0..length).map(|at| 10 + ((at * 3 + index) % 20) as u32).collect(),
                segments: (0..length).map(|at| u32::from(2 * at > length)).collect(),
                special: (0..length).map(|at| at == 0 || at + 1 == length).collect(),
                answer: wanted(index),
                line: index + 1,
            }
        };
        (0..75).map(one).collect()
    }

    const BATCHING: Batching = Batching { batch: 4, time: 32, packing: false, pad: 0 };

    #[test]
    fn each_sequence_is_met_once_an_epoch_beside_others_of_its_length() {
        let all = sequences(&|index| Wanted::Number(index as f32));
        let met = |seed: u64, epoch: u64| {
            let plan = SequencePlan::new(&all, BATCHING, None, Seed(seed), epoch).unwrap();
            assert_eq!(plan.batches(), 19);
            let batches: Vec<SequenceBatch> = (0..19).map(|index| plan.batch(index).unwrap()).collect();
            assert_eq!(plan.places(), batches.iter().map(|batch| batch.tokens.len()).collect::<Vec<_>>());
            batches
        };
        let batches = met(1, 0);
        let number = |batch: &SequenceBatch| match &batch.answers {
            Answers::Numbers(numbers) => numbers.clone(),
            other => panic!("{other:?}"),
        };
        let mut numbers: Vec<f32> = batches.iter().flat_map(number).collect();
        let order = numbers.clone();
        numbers.sort_by(f32::total_cmp);
        assert_eq!(numbers, (0..75).map(|index| index as f32).collect::<Vec<_>>());
        for batch in &batches {
            for (row, number) in number(batch).into_iter().enumerate() {
                let sequence = &all[number as usize];
                let length = sequence.tokens.len();
                let row = row * batch.time..(row + 1) * batch.time;
                assert_eq!(batch.tokens[row.clone()][..length], sequence.tokens);
                assert!(batch.tokens[row.clone()][length..].iter().all(|&token| token == 0));
                assert_eq!(batch.segments[row.clone()][..length], sequence.segments);
                let seen = batch.visible[row].iter().filter(|&&seen| seen).count();
                assert_eq!(seen, length);
            }
        }
        // One place in eight at most is padding; in a drawn order it is one in three.
        let (places, filled) = batches
            .iter()
            .fold((0, 0), |(places, filled), batch| (places + batch.tokens.len(), filled + batch.filled));
        assert!(8 * (places - filled) < places, "{places} {filled}");
        assert!(met(1, 0) == batches && met(1, 1) != batches && met(2, 0) != batches);
        assert!(order.windows(2).any(|pair| pair[0] > pair[1]), "the order is drawn");
    }

    #[test]
    fn hidden_tokens_are_learned_and_special_ones_never() {
        let all = sequences(&|_| Wanted::Hidden);
        let hiding = Some(Hiding { mask: 9, vocabulary: 40 });
        let plan = SequencePlan::new(&all, BATCHING, hiding, Seed(3), 0).unwrap();
        let (mut learned, mut masked, mut same, mut texts) = (0, 0, 0, 0);
        for index in 0..plan.batches() {
            let batch = plan.batch(index).unwrap();
            let Answers::Tokens(targets) = &batch.answers else { panic!("{:?}", batch.answers) };
            assert_eq!(targets.len(), batch.tokens.len());
            for (row, &sequence) in plan.batches[index].iter().enumerate() {
                let sequence = &all[sequence];
                let at = |place: usize| row * batch.time + place;
                assert!((0..batch.time).any(|place| targets[at(place)] != NO_TARGET), "nothing is learned");
                for place in 0..batch.time {
                    let Some(&token) = sequence.tokens.get(place) else {
                        assert_eq!(targets[at(place)], NO_TARGET);
                        continue;
                    };
                    texts += usize::from(!sequence.special[place]);
                    if targets[at(place)] == NO_TARGET {
                        assert_eq!(batch.tokens[at(place)], token);
                        continue;
                    }
                    assert!(!sequence.special[place] && targets[at(place)] == token as i32);
                    learned += 1;
                    masked += usize::from(batch.tokens[at(place)] == 9);
                    same += usize::from(batch.tokens[at(place)] == token);
                }
            }
        }
        let share = learned as f64 / texts as f64;
        // Of some 600 tokens, and one at least of each of 75 short texts.
        assert!((0.1..0.3).contains(&share), "{share}");
        assert!(
            (0.65..0.95).contains(&(masked as f64 / learned as f64)) && same > 0,
            "{masked} {same} {learned}"
        );
        let held_out = || SequencePlan::by_length(&all, BATCHING, hiding).unwrap().batch(3).unwrap();
        assert!(held_out() == held_out());
    }

    #[test]
    fn nothing_to_lay_is_refused() {
        let all = sequences(&|_| Wanted::Class(1));
        let none = SequencePlan::by_length(&[], BATCHING, None).unwrap_err();
        assert!(matches!(none, TaskError::NoRecords));
        let empty = Batching { batch: 0, ..BATCHING };
        assert!(SequencePlan::new(&all, empty, None, Seed(1), 0).is_err());
        let plan = SequencePlan::by_length(&all, BATCHING, None).unwrap();
        assert!(matches!(plan.batch(19), Err(TaskError::NoSuchBatch { index: 19, batches: 19 })));
    }
}
