//! The batches of an epoch of samples that stand alone: images, and pairs of texts.

use lowrank_record::Seed;

use crate::error::TaskError;

/// Which samples are in which batch: a pure function of their number, the batch, seed and epoch, so an interrupted run goes on
/// with `samples(k)`. The last batch may have fewer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochOrder {
    places: Vec<usize>,
    batch: usize,
}

impl EpochOrder {
    /// The order of one epoch, counted from 0, that of [`crate::BatchPlan`] without packing; every epoch has its own.
    ///
    /// # Errors
    /// [`TaskError::NoRecords`] for no samples, [`TaskError::Setting`] for no rows.
    pub fn shuffled(samples: usize, batch: usize, seed: Seed, epoch: u64) -> Result<EpochOrder, TaskError> {
        let seed = seed.at("epoch", &epoch.to_string());
        EpochOrder::of(seed.at("order", "examples").permutation(samples), batch)
    }

    /// The order of the file: for evaluation.
    ///
    /// # Errors
    /// As [`EpochOrder::shuffled`].
    pub fn of_the_file(samples: usize, batch: usize) -> Result<EpochOrder, TaskError> {
        EpochOrder::of((0..samples).collect(), batch)
    }

    fn of(places: Vec<usize>, batch: usize) -> Result<EpochOrder, TaskError> {
        match (places.is_empty(), batch) {
            (true, _) => Err(TaskError::NoRecords),
            (_, 0) => {
                Err(TaskError::Setting { setting: "batch", value: "0".to_owned(), expected: "at least 1" })
            }
            _ => Ok(EpochOrder { places, batch }),
        }
    }

    /// How many batches the epoch has; never 0.
    #[must_use]
    pub fn batches(&self) -> usize {
        self.places.len().div_ceil(self.batch)
    }

    /// The samples of batch `index`, from 0.
    ///
    /// # Errors
    /// [`TaskError::NoSuchBatch`].
    pub fn samples(&self, index: usize) -> Result<&[usize], TaskError> {
        let batches = self.batches();
        self.places.chunks(self.batch).nth(index).ok_or(TaskError::NoSuchBatch { index, batches })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BatchPlan, Batching, Example};

    #[test]
    fn each_sample_comes_once_an_epoch_and_as_texts_do() {
        let examples: Vec<Example> = (0..10)
            .map(|line| Example { tokens: vec![1, 2], loss: vec![false, true], next: None, line })
            .collect();
        let batching = Batching { batch: 4, time: 2, packing: false, pad: 0 };
        for epoch in 0..3 {
            let order = EpochOrder::shuffled(10, 4, Seed(3), epoch).unwrap();
            let plan = BatchPlan::new(&examples, batching, Seed(3), epoch).unwrap();
            let mut all = Vec::new();
            for index in 0..order.batches() {
                let rows: Vec<usize> = plan.rows(index).unwrap().concat();
                assert_eq!(order.samples(index).unwrap(), rows);
                all.extend(rows);
            }
            all.sort_unstable();
            assert_eq!(all, (0..10).collect::<Vec<_>>());
        }
        assert_ne!(EpochOrder::shuffled(10, 4, Seed(3), 0), EpochOrder::shuffled(10, 4, Seed(3), 1));
        assert_eq!(EpochOrder::of_the_file(3, 2).unwrap().samples(1).unwrap(), [2]);
    }

    #[test]
    fn nothing_to_walk_through_is_refused() {
        assert!(matches!(EpochOrder::of_the_file(0, 2), Err(TaskError::NoRecords)));
        assert!(matches!(EpochOrder::of_the_file(2, 0), Err(TaskError::Setting { .. })));
        let past = EpochOrder::of_the_file(3, 2).unwrap();
        assert!(matches!(past.samples(2), Err(TaskError::NoSuchBatch { index: 2, batches: 2 })));
    }
}
