//! Gradient accumulation, weighted by loss tokens: with sums `Lⱼ`, weights `wⱼ` and gradients `gⱼ = ∇Lⱼ` of the
//! micro-batches of a step, the step's gradient is `Σ gⱼ / Σ wⱼ`, that of the mean loss over all its tokens.
//!
//! A mean of the micro-batches' means would be `(1/k)·Σ gⱼ/wⱼ`, which is another number wherever the weights differ.

use crate::TrainError;
use crate::objective::{Evaluated, Parameter};

/// Sums over the micro-batches of one step.
pub(crate) struct Accumulator {
    /// The step, from 1, for errors.
    step: u64,
    sums: Option<Evaluated>,
}

impl Accumulator {
    pub(crate) fn new(step: u64) -> Self {
        Accumulator { step, sums: None }
    }

    /// Adds a micro-batch.
    ///
    /// Gradients add up in f32: they are f32 sums over many more tokens already than there are micro-batches, and the
    /// first is taken over as it is, so that a step of one micro-batch costs neither memory nor time.
    pub(crate) fn add(
        &mut self,
        micro: u32,
        new: Evaluated,
        parameters: &[Parameter],
    ) -> Result<(), TrainError> {
        let step = self.step;
        if !new.loss_sum.is_finite() {
            return Err(TrainError::LossNotFinite { step, micro, loss: new.loss_sum });
        }
        if !(new.weight.is_finite() && new.weight >= 0.0) {
            return Err(TrainError::Weight { step, weight: new.weight });
        }
        if new.gradients.len() != parameters.len() {
            let (got, want) = (new.gradients.len(), parameters.len());
            return Err(TrainError::GradientCount { step, got, want });
        }
        for (gradient, Parameter { name, shape, value, .. }) in new.gradients.iter().zip(parameters) {
            if gradient.len() != value.len() {
                let (name, got) = (name.clone(), gradient.len());
                return Err(TrainError::Size { what: "gradient", name, shape: *shape, got });
            }
        }
        let Some(sums) = &mut self.sums else {
            self.sums = Some(new);
            return Ok(());
        };
        sums.loss_sum += new.loss_sum;
        sums.weight += new.weight;
        sums.tokens += new.tokens;
        for (sum, gradient) in sums.gradients.iter_mut().zip(&new.gradients) {
            for (sum, &entry) in sum.iter_mut().zip(gradient) {
                *sum += entry;
            }
        }
        Ok(())
    }

    /// The sums of the step; its weight is above 0.
    pub(crate) fn finish(self) -> Result<Evaluated, TrainError> {
        match self.sums {
            Some(sums) if sums.weight > 0.0 && sums.weight.is_finite() => Ok(sums),
            other => {
                Err(TrainError::Weight { step: self.step, weight: other.map_or(0.0, |sums| sums.weight) })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Accumulator;
    use crate::TrainError;
    use crate::objective::{Evaluated, Group, Parameter};

    fn parameters() -> Vec<Parameter> {
        let (name, value) = ("q.left".to_owned(), vec![0.0; 2]);
        vec![Parameter { name, shape: [2, 1], group: Group::Left, decay: true, value }]
    }

    fn part(loss_sum: f64, weight: f64, gradient: &[f32]) -> Evaluated {
        Evaluated { loss_sum, weight, tokens: 5, gradients: vec![gradient.to_vec()] }
    }

    #[test]
    fn sums_are_sums() {
        let mut sums = Accumulator::new(3);
        for (micro, new) in
            [part(6.0, 3.0, &[1.0, -2.0]), part(0.0, 0.0, &[0.0, 0.0]), part(1.0, 1.0, &[4.0, 0.5])]
                .into_iter()
                .enumerate()
        {
            sums.add(micro as u32, new, &parameters()).unwrap();
        }
        let sums = sums.finish().unwrap();
        assert_eq!((sums.loss_sum, sums.weight, sums.tokens), (7.0, 4.0, 15));
        assert_eq!(sums.gradients, [vec![5.0, -1.5]]);
    }

    #[test]
    fn what_has_no_mean_is_refused() {
        let add = |new: Evaluated| Accumulator::new(3).add(1, new, &parameters()).unwrap_err();
        assert!(matches!(
            add(part(f64::NAN, 1.0, &[0.0; 2])),
            TrainError::LossNotFinite { step: 3, micro: 1, .. }
        ));
        assert!(matches!(add(part(1.0, -1.0, &[0.0; 2])), TrainError::Weight { step: 3, .. }));
        assert!(matches!(add(part(1.0, 1.0, &[0.0; 3])), TrainError::Size { what: "gradient", got: 3, .. }));
        let none = Evaluated { gradients: vec![], ..part(1.0, 1.0, &[]) };
        assert!(matches!(add(none), TrainError::GradientCount { got: 0, want: 1, .. }));
        let mut empty = Accumulator::new(3);
        empty.add(0, part(0.0, 0.0, &[0.0; 2]), &parameters()).unwrap();
        assert!(matches!(empty.finish(), Err(TrainError::Weight { step: 3, .. })));
    }
}
