//! Delayed match to sample: is the test stimulus that of five steps ago?
//!
//! neurogym's `DelayMatchSample-v0` with fixation 0, sample 100, delay 500, test 100 and decision 100 ms. Inputs `[fix, stim1, stim2]`.

use lowrank_record::Seed;
use rand::RngExt;

use super::{Batch, STEPS, Scored, Task, add_noise};

/// The task ("DMS" in the paper).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MatchToSample;

/// Step of the sample.
const SAMPLE: usize = 0;

/// Step of the test.
const TEST: usize = 6;

impl Task for MatchToSample {
    fn name(&self) -> &'static str {
        "DMS"
    }
    fn width(&self) -> usize {
        3
    }
    fn answers(&self) -> usize {
        3
    }

    fn batch(&self, trials: usize, seed: Seed) -> Batch {
        let mut rng = seed.rng();
        let mut batch = Batch::zeros(trials, STEPS, self.width(), Scored::All);
        for trial in 0..trials {
            let sample = rng.random_range(0..2_usize);
            let choice = rng.random_range(1..=2_usize);
            let test = if choice == 1 { sample } else { 1 - sample };
            (0..STEPS - 1).for_each(|step| batch.input(step, trial)[0] = 1.0);
            for (step, shown) in [(SAMPLE, sample), (TEST, test)] {
                let lines = batch.input(step, trial);
                // cos(θ − θ_shown)·0.5 + 0.5: 1 on the line that is shown, 0 on the other.
                lines[1 + shown] = 1.0;
                add_noise(&mut lines[1..], &mut rng);
            }
            batch.decide(trial, choice);
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_says_whether_the_lines_agree() {
        let trials = 500;
        let batch = MatchToSample.batch(trials, Seed(5));
        let mut matches = 0;
        for trial in 0..trials {
            let lines = |step: usize| &batch.inputs[(step * trials + trial) * 3..][..3];
            let shown = |step: usize| usize::from(lines(step)[2] > lines(step)[1]);
            // Five standard deviations of noise lie between the lines of a stimulus: 1 of 5 · 10¹¹ is read wrongly.
            let agree = shown(0) == shown(6);
            assert_eq!(batch.targets[7 * trials + trial], if agree { 1 } else { 2 });
            matches += usize::from(agree);
            assert!((1..6).all(|step| lines(step) == [1.0, 0.0, 0.0]) && lines(7) == [0.0; 3]);
        }
        assert!((200..300).contains(&matches), "{matches}");
    }
}
