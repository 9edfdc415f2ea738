//! Examples laid into rows and batches, in an order that seed and epoch fix.

use std::collections::BTreeSet;

use lowrank_record::Seed;

use crate::error::TaskError;
use crate::example::Example;

/// Target of a place that carries no loss.
pub const NO_TARGET: i32 = -100;

/// One batch, every field row-major `[batch, time]`.
///
/// A row holds one document after another and is filled up with padding. Attention must stay inside a document: place i may see
/// place j of its row when `starts[i] <= j <= i`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Token at each place.
    pub tokens: Vec<u32>,
    /// Token that is predicted from each place, the next one of the same document, or [`NO_TARGET`].
    pub targets: Vec<i32>,
    /// Place in the row where the document of this place begins. Padding: its own place.
    pub starts: Vec<u32>,
    /// Place in the document, from 0. Padding: 0.
    pub positions: Vec<u32>,
    /// What stands at each place.
    pub held: Vec<Held>,
    /// Rows.
    pub batch: usize,
    /// Places of a row.
    pub time: usize,
    /// Places that hold a token of an example; the others are padding.
    pub filled: usize,
}

/// What stands at a place of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// Nothing of an example.
    Padding,
    /// A token that is given: nothing is learned from predicting it.
    Given,
    /// A token that is predicted with loss, from the place before it.
    Learned,
}

impl Batch {
    /// How many places carry loss.
    #[must_use]
    pub fn loss_tokens(&self) -> usize {
        self.targets.iter().filter(|&&target| target != NO_TARGET).count()
    }
}

/// How examples are laid into batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batching {
    /// Rows of a batch; the last batch of an epoch may have fewer.
    pub batch: usize,
    /// Places of a row, at least as many as the longest example has tokens.
    pub time: usize,
    /// True: rows of `time` places hold as many whole examples as fit. False: one example a row, and a batch is as long as
    /// its longest example.
    pub packing: bool,
    /// Token at places that are not filled; see [`crate::Tokenizer::pad`].
    pub pad: u32,
}

/// The batches of one epoch: a pure function of examples, batching, seed and epoch, so an interrupted run goes on with
/// `batch(k)`.
///
/// With packing, examples come in random order and each goes into the row it leaves the least room in (best fit; a new row when
/// none has room). Rows then come in random order, since the first ones opened are the fullest.
#[derive(Debug, Clone)]
pub struct BatchPlan<'a> {
    examples: &'a [Example],
    batching: Batching,
    /// Examples of each row.
    rows: Vec<Vec<usize>>,
}

impl<'a> BatchPlan<'a> {
    /// The plan of one epoch, counted from 0; every epoch has its own order.
    ///
    /// # Errors
    /// [`TaskError::Setting`] for no rows or places, [`TaskError::NoRecords`] without examples,
    /// [`TaskError::RowTooShort`] (with its line) for an example longer than a row, [`TaskError::TokenTooLarge`].
    pub fn new(
        examples: &'a [Example],
        batching: Batching,
        seed: Seed,
        epoch: u64,
    ) -> Result<Self, TaskError> {
        check(examples, batching)?;
        let seed = seed.at("epoch", &epoch.to_string());
        let order = seed.at("order", "examples").permutation(examples.len());
        let rows = if batching.packing {
            let packed = pack(examples, &order, batching.time);
            let order = seed.at("order", "rows").permutation(packed.len());
            order.into_iter().map(|row| packed[row].clone()).collect()
        } else {
            order.into_iter().map(|index| vec![index]).collect()
        };
        Ok(BatchPlan { examples, batching, rows })
    }

    /// A plan in the order of the examples, one a row unless packed: for evaluation.
    ///
    /// # Errors
    /// As [`BatchPlan::new`].
    pub fn in_order(examples: &'a [Example], batching: Batching) -> Result<Self, TaskError> {
        check(examples, batching)?;
        let order: Vec<usize> = (0..examples.len()).collect();
        let rows = if batching.packing {
            pack(examples, &order, batching.time)
        } else {
            order.into_iter().map(|index| vec![index]).collect()
        };
        Ok(BatchPlan { examples, batching, rows })
    }

    /// How many batches the epoch has; never 0.
    #[must_use]
    pub fn batches(&self) -> usize {
        self.rows.len().div_ceil(self.batching.batch)
    }

    /// Places of the batches of the epoch, padding included.
    #[must_use]
    pub fn places(&self) -> Vec<usize> {
        self.rows.chunks(self.batching.batch).map(|rows| rows.len() * self.time(rows)).collect()
    }

    /// Places of a row in a batch of these rows.
    fn time(&self, rows: &[Vec<usize>]) -> usize {
        if self.batching.packing {
            return self.batching.time;
        }
        rows.iter().map(|row| self.filled(row)).max().unwrap_or(0)
    }

    /// Tokens of a row.
    fn filled(&self, row: &[usize]) -> usize {
        row.iter().map(|&example| self.examples[example].tokens.len()).sum()
    }

    /// The examples of each row of a batch, by index, in the order they stand in the row.
    ///
    /// # Errors
    /// [`TaskError::NoSuchBatch`].
    pub fn rows(&self, index: usize) -> Result<&[Vec<usize>], TaskError> {
        let batches = self.rows.chunks(self.batching.batch);
        let count = batches.len();
        batches.into_iter().nth(index).ok_or(TaskError::NoSuchBatch { index, batches: count })
    }

    /// Batch `index` of the epoch, from 0.
    ///
    /// # Errors
    /// [`TaskError::NoSuchBatch`].
    pub fn batch(&self, index: usize) -> Result<Batch, TaskError> {
        let rows = self.rows(index)?;
        let time = self.time(rows);
        let places = rows.len() * time;
        let mut batch = Batch {
            tokens: vec![self.batching.pad; places],
            targets: vec![NO_TARGET; places],
            starts: (0..places).map(|place| (place % time) as u32).collect(),
            positions: vec![0; places],
            held: vec![Held::Padding; places],
            batch: rows.len(),
            time,
            filled: rows.iter().map(|row| self.filled(row)).sum(),
        };
        for (row, examples) in rows.iter().enumerate() {
            let mut start = 0;
            for &example in examples {
                let example = &self.examples[example];
                lay(&mut batch, row * time, start, example);
                start += example.tokens.len();
            }
        }
        Ok(batch)
    }
}

/// Writes one document into a row, from `start` on.
fn lay(batch: &mut Batch, row: usize, start: usize, example: &Example) {
    let count = example.tokens.len();
    for at in 0..count {
        let place = row + start + at;
        batch.tokens[place] = example.tokens[at];
        batch.starts[place] = start as u32;
        batch.positions[place] = at as u32;
        batch.held[place] = if at > 0 && example.loss[at] { Held::Learned } else { Held::Given };
        let learned = at + 1 < count && example.loss[at + 1];
        let target =
            if learned { Some(example.tokens[at + 1]) } else { example.next.filter(|_| at + 1 == count) };
        // `check` has refused tokens that do not fit.
        batch.targets[place] = target.map_or(NO_TARGET, |token| token as i32);
    }
}

fn check(examples: &[Example], batching: Batching) -> Result<(), TaskError> {
    for (setting, value) in [("batch", batching.batch), ("time", batching.time)] {
        if value == 0 || u32::try_from(value).is_err() {
            let expected = "at least 1 and below 2^32";
            return Err(TaskError::Setting { setting, value: value.to_string(), expected });
        }
    }
    if examples.is_empty() {
        return Err(TaskError::NoRecords);
    }
    for example in examples {
        let (length, time) = (example.tokens.len(), batching.time);
        if length > time {
            return Err(TaskError::RowTooShort { length, time }.at(example.line));
        }
        if let Some(&token) =
            example.tokens.iter().chain(&example.next).find(|&&token| i32::try_from(token).is_err())
        {
            return Err(TaskError::TokenTooLarge { token }.at(example.line));
        }
    }
    Ok(())
}

/// Best fit of the examples, in the given order, into rows of `time` places.
fn pack(examples: &[Example], order: &[usize], time: usize) -> Vec<Vec<usize>> {
    let mut rows: Vec<Vec<usize>> = Vec::new();
    // Room that is left, with its row; ties go to the row opened first.
    let mut room: BTreeSet<(usize, usize)> = BTreeSet::new();
    for &index in order {
        let length = examples[index].tokens.len();
        let fitting = room.range((length, 0)..).next().copied();
        let (left, row) = match fitting {
            Some(place) => {
                room.remove(&place);
                place
            }
            None => {
                rows.push(Vec::new());
                (time, rows.len() - 1)
            }
        };
        rows[row].push(index);
        room.insert((left - length, row));
    }
    rows
}

#[cfg(test)]
mod tests;
