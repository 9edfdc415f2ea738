//! A run under way, and one step of it: gradients, clipping, update, evaluation, metrics, in this order.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::accumulate::Accumulator;
use crate::checkpoint::{Fingerprint, State};
use crate::clip::{clip_factor, global_norm};
use crate::metrics::Line;
use crate::objective::{Failure, Objective, Parameter, Stepped};
use crate::observer::{Best, Event, Observer, Outcome, Resumed, Step, Stopped};
use crate::optimiser::{Optimiser, Update};
use crate::persist::{Files, fresh_folder};
use crate::trainer::{Place, Run};
use crate::{Settings, TrainError};

/// A run under way.
pub(crate) struct Session<'a> {
    pub(crate) objective: &'a mut dyn Objective,
    pub(crate) settings: &'a Settings,
    pub(crate) parameters: Vec<Parameter>,
    pub(crate) optimiser: Box<dyn Optimiser>,
    /// Counters; its tensors stay empty until it is saved.
    pub(crate) state: State,
    pub(crate) best_values: Option<Vec<Vec<f32>>>,
    pub(crate) files: Option<Files>,
    pub(crate) resumed: Option<Resumed>,
    /// The newest checkpoint and its step.
    pub(crate) saved: Option<(u64, PathBuf)>,
}

impl<'a> Session<'a> {
    pub(crate) fn start(
        objective: &'a mut dyn Objective,
        settings: &'a Settings,
        run: &Run,
        observer: &mut dyn Observer,
    ) -> Result<Self, TrainError> {
        let parameters = objective.parameters();
        check_parameters(&parameters)?;
        let sizes: Vec<usize> = parameters.iter().map(|parameter| parameter.value.len()).collect();
        let state = State { touched: vec![false; parameters.len()], ..State::default() };
        let optimiser = settings.optimiser.build(&sizes);
        let mut session = Session {
            objective,
            settings,
            parameters,
            optimiser,
            state,
            best_values: None,
            files: None,
            resumed: None,
            saved: None,
        };
        match &run.place {
            Place::Nowhere => {}
            Place::Fresh(folder) => {
                let log = fresh_folder(folder)?;
                let fingerprint = Fingerprint::new(settings, &run.identity);
                session.files = Some(Files { folder: folder.clone(), log, fingerprint });
            }
            Place::Resume(folder) => {
                session.resume(folder, Fingerprint::new(settings, &run.identity))?;
                if let Some(resumed) = &session.resumed {
                    observer.see(&Event::Resumed(resumed));
                }
            }
        }
        Ok(session)
    }

    /// One optimiser step.
    pub(crate) fn step(&mut self, observer: &mut dyn Observer) -> Result<(), TrainError> {
        let (index, step) = (self.state.step, self.state.step + 1);
        let mut sums = Accumulator::new(step);
        for micro in 0..self.settings.accumulation {
            let evaluated = self
                .objective
                .gradients(index, micro)
                .map_err(|source| TrainError::Objective { step, doing: "computing gradients", source })?;
            sums.add(micro, evaluated, &self.parameters)?;
        }
        let sums = sums.finish()?;
        let norm = self.norm(step, &sums.gradients, sums.weight)?;
        let factor = clip_factor(norm, self.settings.clip_norm);
        for (touched, gradient) in self.state.touched.iter_mut().zip(&sums.gradients) {
            *touched = *touched || gradient.iter().any(|&entry| entry != 0.0);
        }
        for (at, (parameter, gradient)) in self.parameters.iter_mut().zip(&sums.gradients).enumerate() {
            let update = Update {
                count: step,
                rate: self.settings.rate_of(parameter.group, index),
                decay: if parameter.decay { self.settings.weight_decay } else { 0.0 },
                scale: factor / sums.weight,
            };
            self.optimiser.update(at, &mut parameter.value, gradient, update);
        }
        let values = self.parameters.iter_mut().map(|parameter| parameter.value.as_mut_slice()).collect();
        let scale = factor / sums.weight;
        self.objective
            .after_step(Stepped { step, values, gradients: &sums.gradients, scale })
            .map_err(|source| TrainError::Objective { step, doing: "looking at the step", source })?;
        check_values(step, &self.parameters)?;
        self.assign("taking the new values")?;

        let loss = sums.loss_sum / sums.weight;
        self.state.step = step;
        self.state.tokens += sums.tokens;
        self.state.loss = Some(loss);
        let rate = self.settings.rate * self.settings.schedule.factor(index, self.settings.steps);
        observer.see(&Event::Step(Step {
            step,
            steps: self.settings.steps,
            loss,
            rate,
            norm,
            clipped: factor < 1.0,
            tokens: sums.tokens,
            total_tokens: self.state.tokens,
        }));
        let every = self.settings.eval_every;
        let due = every > 0 && (step.is_multiple_of(every) || step == self.settings.steps);
        let eval = if due { Some(self.evaluate(observer)?) } else { None };
        let tokens = Some(self.state.tokens);
        self.record(&Line { step, loss: Some(loss), rate: Some(rate), norm: Some(norm), tokens, eval })
    }

    /// The norm of the mean gradient; an error where it has no use.
    fn norm(&self, step: u64, gradients: &[Vec<f32>], weight: f64) -> Result<f64, TrainError> {
        let norm = global_norm(gradients) / weight;
        if !norm.is_finite() {
            for (parameter, gradient) in self.parameters.iter().zip(gradients) {
                if let Some((entry, value)) = first_not_finite(gradient) {
                    let name = parameter.name.clone();
                    return Err(TrainError::GradientNotFinite { step, name, entry, value });
                }
            }
        }
        // The optimisers square entries in f32; past this the second moment would be infinite for ever and the
        // parameter would stand still without a word.
        let limit = f64::from(f32::MAX).sqrt();
        if norm * clip_factor(norm, self.settings.clip_norm) >= limit {
            return Err(TrainError::GradientTooLarge { step, norm, limit });
        }
        Ok(norm)
    }

    /// The mean held-out loss, noted as the best where it is.
    pub(crate) fn evaluate(&mut self, observer: &mut dyn Observer) -> Result<f64, TrainError> {
        let step = self.state.step;
        let held_out = self.objective.evaluate().map_err(|source| TrainError::Objective {
            step,
            doing: "evaluating",
            source,
        })?;
        let loss = held_out.loss_sum / held_out.weight;
        if !(loss.is_finite() && held_out.weight > 0.0) {
            let (loss_sum, weight) = (held_out.loss_sum, held_out.weight);
            return Err(TrainError::Evaluation { step, loss_sum, weight });
        }
        let margin = self.settings.early_stop.map_or(0.0, |early| early.min_improvement);
        let improved = self.state.best.is_none_or(|best| loss < best.loss - margin);
        if improved {
            self.state.best = Some(Best { step, loss });
            self.state.stale = 0;
            if self.settings.restore_best {
                self.best_values = Some(self.parameters.iter().map(|p| p.value.clone()).collect());
            }
        } else {
            self.state.stale = self.state.stale.saturating_add(1);
        }
        observer.see(&Event::Evaluated { step, loss, improved });
        Ok(loss)
    }

    pub(crate) fn record(&mut self, line: &Line) -> Result<(), TrainError> {
        self.files.as_mut().map_or(Ok(()), |files| files.log.append(line))
    }

    pub(crate) fn finish(
        mut self,
        stopped: Stopped,
        observer: &mut dyn Observer,
    ) -> Result<Outcome, TrainError> {
        let mut values_of = self.state.step;
        if let (Some(best), Some(values)) = (self.state.best, self.best_values.take())
            && stopped != Stopped::Interrupted
            && best.step != self.state.step
        {
            for (parameter, value) in self.parameters.iter_mut().zip(values) {
                parameter.value = value;
            }
            self.assign("restoring the best values")?;
            values_of = best.step;
        }
        observer.see(&Event::Stopped { step: self.state.step, reason: stopped });
        let untouched = self.parameters.iter().zip(&self.state.touched);
        Ok(Outcome {
            stopped,
            steps: self.state.step,
            tokens: self.state.tokens,
            loss: self.state.loss,
            best: self.state.best,
            values_of,
            resumed: self.resumed,
            checkpoint: self.saved.map(|(_, path)| path),
            untouched: untouched.filter(|(_, touched)| !**touched).map(|(p, _)| p.name.clone()).collect(),
        })
    }

    /// Hands the values to the objective.
    pub(crate) fn assign(&mut self, doing: &'static str) -> Result<(), TrainError> {
        for (index, parameter) in self.parameters.iter().enumerate() {
            let done: Result<(), Failure> = self.objective.assign(index, &parameter.value);
            done.map_err(|source| TrainError::Objective { step: self.state.step, doing, source })?;
        }
        Ok(())
    }
}

fn check_parameters(parameters: &[Parameter]) -> Result<(), TrainError> {
    if parameters.is_empty() {
        return Err(TrainError::NothingToTrain);
    }
    let mut names = BTreeSet::new();
    for Parameter { name, shape, value, .. } in parameters {
        if !names.insert(name) {
            return Err(TrainError::SameName { name: name.clone() });
        }
        if shape[0].checked_mul(shape[1]) != Some(value.len()) {
            return Err(TrainError::Size {
                what: "value",
                name: name.clone(),
                shape: *shape,
                got: value.len(),
            });
        }
    }
    check_values(0, parameters)
}

fn check_values(step: u64, parameters: &[Parameter]) -> Result<(), TrainError> {
    for parameter in parameters {
        if let Some((entry, value)) = first_not_finite(&parameter.value) {
            return Err(TrainError::ValueNotFinite { step, name: parameter.name.clone(), entry, value });
        }
    }
    Ok(())
}

fn first_not_finite(numbers: &[f32]) -> Option<(usize, f32)> {
    numbers.iter().copied().enumerate().find(|(_, number)| !number.is_finite())
}
