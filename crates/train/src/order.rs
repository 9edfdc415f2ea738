//! Which examples a micro-batch holds: a pure function of seed, step and micro-batch, so that data order needs no
//! state in a checkpoint.
//!
//! Examples are counted through without a gap: micro-batch `j` of step `s` holds positions
//! `(s·accumulation + j)·batch ..+ batch`, position `p` is place `p mod n` of epoch `p div n`, and each epoch has a
//! permutation of its own. So every example is seen exactly once an epoch, also where `batch` does not divide `n`, and
//! the same examples are seen in the same order whatever the split of a step into micro-batches.

use lowrank_record::Seed;

use crate::TrainError;

/// The order of a run over `examples` examples.
#[derive(Debug, Clone)]
pub struct Order {
    seed: Seed,
    examples: usize,
    batch: usize,
    accumulation: u32,
    /// The epoch that `permutation` is of: only a cache, never an input.
    epoch: u64,
    permutation: Vec<usize>,
}

impl Order {
    /// The order for micro-batches of `batch` examples, `accumulation` of them a step.
    ///
    /// # Errors
    /// [`TrainError::Setting`] where there are no examples, or `batch` or `accumulation` is 0.
    pub fn new(seed: Seed, examples: usize, batch: usize, accumulation: u32) -> Result<Self, TrainError> {
        if examples == 0 {
            return Err(TrainError::setting("examples", 0, "at least 1; the data set is empty"));
        }
        if batch == 0 {
            return Err(TrainError::setting("batch", 0, "at least 1"));
        }
        if accumulation == 0 {
            return Err(TrainError::setting("accumulation", 0, "at least 1"));
        }
        let permutation = Self::permutation(seed, 0, examples);
        Ok(Order { seed, examples, batch, accumulation, epoch: 0, permutation })
    }

    /// The examples of micro-batch `micro` of step `step`, both from 0.
    pub fn micro(&mut self, step: u64, micro: u32) -> Vec<usize> {
        let examples = self.examples as u128;
        // u128: no product of two u64 counts overflows.
        let batches = u128::from(step) * u128::from(self.accumulation) + u128::from(micro);
        let start = batches * self.batch as u128;
        (0..self.batch as u128)
            .map(|offset| {
                let position = start + offset;
                let epoch = (position / examples) as u64;
                if epoch != self.epoch {
                    self.permutation = Self::permutation(self.seed, epoch, self.examples);
                    self.epoch = epoch;
                }
                self.permutation[(position % examples) as usize]
            })
            .collect()
    }

    /// How many epochs `steps` steps are, in part or whole.
    #[must_use]
    pub fn epochs(&self, steps: u64) -> f64 {
        steps as f64 * f64::from(self.accumulation) * self.batch as f64 / self.examples as f64
    }

    fn permutation(seed: Seed, epoch: u64, examples: usize) -> Vec<usize> {
        seed.at("data order", &epoch.to_string()).permutation(examples)
    }
}

#[cfg(test)]
mod tests {
    use super::Order;
    use lowrank_record::Seed;

    #[test]
    fn every_example_once_an_epoch_whatever_the_batch() {
        let mut order = Order::new(Seed(4), 10, 3, 2).unwrap();
        let seen: Vec<usize> = (0..10).flat_map(|j| order.micro(j / 2, (j % 2) as u32)).collect();
        assert_eq!(seen.len(), 30);
        for epoch in seen.chunks(10) {
            let mut sorted = epoch.to_vec();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..10).collect::<Vec<_>>());
        }
        assert_ne!(seen[..10], seen[10..20]);
        assert!((order.epochs(5) - 3.0).abs() < 1e-12);
    }

    #[test]
    fn any_step_can_be_asked_first() {
        let mut forward = Order::new(Seed(9), 7, 2, 3).unwrap();
        let all: Vec<_> = (0..30).map(|j| forward.micro(j / 3, (j % 3) as u32)).collect();
        for j in (0..30).rev() {
            let mut fresh = Order::new(Seed(9), 7, 2, 3).unwrap();
            assert_eq!(fresh.micro(j / 3, (j % 3) as u32), all[j as usize]);
        }
    }

    #[test]
    fn splitting_a_step_keeps_its_examples() {
        let mut whole = Order::new(Seed(2), 11, 6, 1).unwrap();
        let mut split = Order::new(Seed(2), 11, 2, 3).unwrap();
        for step in 0..9 {
            let parts: Vec<usize> = (0..3).flat_map(|j| split.micro(step, j)).collect();
            assert_eq!(whole.micro(step, 0), parts);
        }
    }

    #[test]
    fn nothing_to_order_is_refused() {
        for (examples, batch, accumulation) in [(0, 1, 1), (1, 0, 1), (1, 1, 0)] {
            Order::new(Seed(0), examples, batch, accumulation).unwrap_err();
        }
    }
}
