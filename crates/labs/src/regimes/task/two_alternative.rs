//! Two-alternative forced choice: which of two noisy lines is the stronger on average?
//!
//! neurogym's `PerceptualDecisionMaking-v0` with fixation 0, stimulus 700, delay 0 and decision 100 ms. Inputs `[fix, stim1, stim2]`.

use lowrank_record::Seed;
use rand::RngExt;

use super::{Batch, STEPS, Scored, Task, add_noise};

/// Strengths of the evidence, per cent; 0 leaves nothing to know, so accuracy ends near 0.87.
const COHERENCES: [f64; 5] = [0.0, 6.4, 12.8, 25.6, 51.2];

/// The task ("2AF" in the paper).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TwoAlternative;

impl Task for TwoAlternative {
    fn name(&self) -> &'static str {
        "2AF"
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
            let coherence = COHERENCES[rng.random_range(0..COHERENCES.len())];
            let choice = rng.random_range(0..2_usize);
            for step in 0..STEPS - 1 {
                let lines = batch.input(step, trial);
                lines[0] = 1.0;
                for (index, line) in lines[1..].iter_mut().enumerate() {
                    // cos(θ − θ_choice): 1 on the chosen line, −1 on the other.
                    let cosine = if index == choice { 1.0 } else { -1.0 };
                    *line = cosine * coherence / 200.0 + 0.5;
                }
                add_noise(&mut lines[1..], &mut rng);
            }
            batch.decide(trial, 1 + choice);
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chosen_line_is_the_stronger_by_the_mean_coherence() {
        let trials = 4000;
        let batch = TwoAlternative.batch(trials, Seed(1));
        let (mut difference, mut noise) = (0.0, 0.0);
        for trial in 0..trials {
            let choice = batch.targets[7 * trials + trial] - 1;
            let at = |step: usize, line: usize| batch.inputs[(step * trials + trial) * 3 + 1 + line];
            difference += (0..7).map(|step| at(step, choice) - at(step, 1 - choice)).sum::<f64>() / 7.0;
            // Two steps differ by their noise alone.
            noise += (at(0, 0) - at(1, 0)).powi(2) / 2.0;
            assert!((0..3).all(|line| batch.inputs[(7 * trials + trial) * 3 + line] == 0.0));
            assert!((0..7).all(|step| batch.targets[step * trials + trial] == 0));
            assert!((0..7).all(|step| batch.inputs[(step * trials + trial) * 3] == 1.0));
        }
        // Mean coherence 19.2 %; its standard deviation 18.4 % over 4000 trials gives 0.003.
        assert!((difference / trials as f64 - 0.192).abs() < 0.012);
        assert!((noise / trials as f64 - 0.01).abs() < 0.001);
        assert_eq!(batch, TwoAlternative.batch(trials, Seed(1)));
        assert_ne!(batch, TwoAlternative.batch(trials, Seed(2)));
    }
}
