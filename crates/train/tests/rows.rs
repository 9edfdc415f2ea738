//! An objective that remembers something from step to step and changes values: checkpoints keep what it remembers.

#![allow(clippy::unwrap_used, reason = "a test may unwrap")]

mod regression;

use std::path::Path;

use lowrank_train::{
    Evaluated, Evaluation, Failure, Objective, Outcome, Parameter, Place, Row, Run, Settings, Stepped, Stop,
    TrainError, checkpoints, train,
};
use regression::Regression;

/// Sets the entry of the bias to zero that has mattered least so far, from the third step on.
struct Masking {
    inner: Regression,
    mattered: Vec<f32>,
}

impl Objective for Masking {
    fn parameters(&self) -> Vec<Parameter> {
        self.inner.parameters()
    }

    fn assign(&mut self, index: usize, value: &[f32]) -> Result<(), Failure> {
        self.inner.assign(index, value)
    }

    fn gradients(&mut self, step: u64, micro: u32) -> Result<Evaluated, Failure> {
        self.inner.gradients(step, micro)
    }

    fn evaluate(&mut self) -> Result<Evaluation, Failure> {
        self.inner.evaluate()
    }

    fn after_step(&mut self, mut step: Stepped<'_>) -> Result<(), Failure> {
        let bias = &mut step.values[2];
        self.mattered.resize(bias.len(), 0.0);
        for ((mattered, value), gradient) in self.mattered.iter_mut().zip(&**bias).zip(&step.gradients[2]) {
            *mattered = 0.7 * *mattered + (f64::from(value * gradient) * step.scale).abs() as f32;
        }
        if step.step > 2 {
            let least = (0..bias.len()).min_by(|&a, &b| self.mattered[a].total_cmp(&self.mattered[b]));
            bias[least.unwrap()] = 0.0;
        }
        Ok(())
    }

    fn rows(&self) -> Vec<Row> {
        vec![("mattered".to_owned(), self.mattered.clone())]
    }

    fn put_back(&mut self, rows: Vec<Row>) -> Result<(), Failure> {
        let [(name, values)] = <[Row; 1]>::try_from(rows).map_err(|_| "not its own rows")?;
        assert_eq!(name, "mattered");
        self.mattered = values;
        Ok(())
    }
}

const STEPS: u64 = 6;

fn settings() -> Settings {
    Settings { steps: STEPS, accumulation: 2, rate: 0.03, checkpoint_every: 2, ..Settings::default() }
}

fn run(place: Place, dies_at: Option<u64>) -> (Result<Outcome, TrainError>, Masking) {
    let mut inner = Regression::new(11, 3, 2);
    inner.dies_at = dies_at;
    let mut objective = Masking { inner, mattered: Vec::new() };
    let outcome =
        train(&mut objective, &settings(), &Run { place, ..Run::default() }, &mut (), &Stop::default());
    (outcome, objective)
}

#[test]
fn what_is_remembered_is_in_the_checkpoint_and_a_resumed_run_ends_as_one_that_was_never_interrupted() {
    let newest = |folder: &Path| std::fs::read(&checkpoints(folder).unwrap()[0].1).unwrap();
    let whole = tempfile::tempdir().unwrap();
    let (outcome, objective) = run(Place::Fresh(whole.path().to_owned()), None);
    outcome.unwrap();
    assert_eq!(objective.parameters()[2].value.iter().filter(|value| **value == 0.0).count(), 1);
    for dies_at in 1..STEPS {
        let folder = tempfile::tempdir().unwrap();
        run(Place::Fresh(folder.path().to_owned()), Some(dies_at)).0.unwrap_err();
        let (outcome, resumed) = run(Place::Resume(folder.path().to_owned()), None);
        outcome.unwrap();
        assert_eq!(resumed.inner.bits(), objective.inner.bits(), "{dies_at}");
        assert_eq!(resumed.mattered, objective.mattered);
        assert!(newest(folder.path()) == newest(whole.path()));
    }
}

#[test]
fn an_objective_that_remembers_nothing_refuses_what_another_remembered() {
    let folder = tempfile::tempdir().unwrap();
    run(Place::Fresh(folder.path().to_owned()), Some(4)).0.unwrap_err();
    let place = Place::Resume(folder.path().to_owned());
    let mut plain = Regression::new(11, 3, 2);
    let refused = train(&mut plain, &settings(), &Run { place, ..Run::default() }, &mut (), &Stop::default())
        .unwrap_err();
    assert!(refused.to_string().contains("the checkpoint holds mattered"), "{refused}");
}
