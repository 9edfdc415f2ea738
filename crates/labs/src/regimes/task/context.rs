//! Context-dependent decision: of two modalities, report the sign of the one that is cued.
//!
//! neurogym's `ContextDecisionMaking-v0` with fixation 0, stimulus 200, delay 500 and decision 100 ms. Inputs
//! `[fix, m1a, m1b, m2a, m2b, ctx1, ctx2]`.

use lowrank_record::Seed;
use rand::RngExt;

use super::{Batch, STEPS, Scored, Task, add_noise};

/// Strengths of the evidence, per cent.
const COHERENCES: [f64; 3] = [5.0, 15.0, 50.0];

/// Steps of the stimulus.
const STIMULUS: usize = 2;

/// The task ("CXT" in the paper).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context;

impl Task for Context {
    fn name(&self) -> &'static str {
        "CXT"
    }
    fn width(&self) -> usize {
        7
    }
    fn answers(&self) -> usize {
        3
    }

    fn batch(&self, trials: usize, seed: Seed) -> Batch {
        let mut rng = seed.rng();
        let mut batch = Batch::zeros(trials, STEPS, self.width(), Scored::All);
        for trial in 0..trials {
            let cued = rng.random_range(0..2_usize);
            let choices = [0, 1].map(|_| rng.random_range(1..=2_usize));
            let strengths = [0, 1].map(|_| COHERENCES[rng.random_range(0..COHERENCES.len())]);
            for step in 0..STEPS {
                let lines = batch.input(step, trial);
                lines[0] = if step < STEPS - 1 { 1.0 } else { 0.0 };
                lines[5 + cued] = 1.0;
                if step < STIMULUS {
                    for (modality, (strength, choice)) in strengths.iter().zip(choices).enumerate() {
                        let signed = if choice == 1 { *strength } else { -strength };
                        lines[1 + 2 * modality] = (1.0 + signed / 100.0) / 2.0;
                        lines[2 + 2 * modality] = (1.0 - signed / 100.0) / 2.0;
                    }
                    add_noise(lines, &mut rng);
                }
            }
            batch.decide(trial, choices[cued]);
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_the_sign_of_the_cued_modality() {
        let trials = 6000;
        let batch = Context.batch(trials, Seed(2));
        let (mut cued, mut other) = (0.0, 0.0);
        for trial in 0..trials {
            let lines = |step: usize| &batch.inputs[(step * trials + trial) * 7..][..7];
            let shown = usize::from(lines(7)[6] == 1.0);
            assert_eq!(lines(7)[5] + lines(7)[6], 1.0);
            assert!(lines(7)[0] == 0.0 && (2..7).all(|step| lines(step)[..5] == [1.0, 0.0, 0.0, 0.0, 0.0]));
            let sign = if batch.targets[7 * trials + trial] == 1 { 1.0 } else { -1.0 };
            let evidence = |modality: usize| lines(0)[1 + 2 * modality] - lines(0)[2 + 2 * modality];
            cued += sign * evidence(shown);
            other += sign * evidence(1 - shown);
        }
        // Mean coherence 23.3 %; its deviation with the noise, 0.24, over 6000 trials gives 0.003.
        assert!((cued / trials as f64 - 0.2333).abs() < 0.013, "{cued}");
        assert!((other / trials as f64).abs() < 0.018, "{other}");
    }
}
