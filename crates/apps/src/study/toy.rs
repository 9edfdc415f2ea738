//! Runs the arms of a study on small problems: a rate for each on tuning problems, then the compared problems.

use lowrank_record::Seed;
use lowrank_train::{Event, Group, Run, Schedule, Settings, Shape, Stop, TrainError, train};

use super::arm::{Arm, Part};
use super::claim::BEFORE;
use super::experiment::Experiment;
use super::learning::Learning;
use super::outcome::{ArmRuns, Numbers, Series, Tried};
use super::teacher::{Problem, Size};
use crate::output::go_on;
use crate::{AppError, Progress};
use lowrank_command::Because;

/// What a run of a study is told.
pub(super) struct Course<'a> {
    pub(super) experiment: &'a Experiment,
    pub(super) size: Size,
    /// The rates that are tried, ascending.
    pub(super) rates: Vec<f64>,
    pub(super) tuning_seeds: u64,
    pub(super) seeds: u64,
    pub(super) first_seed: u64,
}

/// Warm-up, as in the authors' toys.
const WARMUP: u64 = 12;

/// The test rows on which the change of the function at step 0 is measured.
const PROBED: usize = 256;

/// A finished run.
struct Trained {
    numbers: Numbers,
    parameters: usize,
    /// Training loss of each step.
    curve: Vec<f64>,
}

impl Course<'_> {
    /// How many runs it takes, those that look for rates included.
    pub(super) fn runs(&self) -> u64 {
        let arms = self.experiment.arms;
        let fixed: usize = arms.iter().map(|arm| self.experiment.fixed_rates(arm.name).len()).sum();
        let tuning = self.tuning_seeds * (arms.len() * self.rates.len()) as u64;
        tuning + self.seeds * (arms.len() + fixed) as u64
    }

    /// Tunes and runs every arm; the first of what comes back is the network before it learns.
    pub(super) fn run(&self, progress: &mut dyn Progress) -> Result<Vec<ArmRuns>, AppError> {
        progress.begin(self.experiment.name, self.runs());
        let runs = self.run_all(progress);
        progress.end();
        runs
    }

    fn run_all(&self, progress: &mut dyn Progress) -> Result<Vec<ArmRuns>, AppError> {
        let mut done = 0;
        let mut all: Vec<ArmRuns> = Vec::new();
        let tried = self.tuned(&mut done, progress)?;
        for (arm, tried) in self.experiment.arms.iter().zip(tried) {
            all.push(ArmRuns::new(arm, tried, &self.experiment.fixed_rates(arm.name)));
        }
        let mut before = ArmRuns::before();
        for index in 0..self.seeds {
            let number = self.first_seed.wrapping_add(index);
            let seed = Seed(number).at("study", "compared");
            let problem = Problem::make(&self.size, seed)?;
            before.tuned.push(
                Numbers {
                    last: Some(problem.loss_before),
                    accuracy: Some(problem.before),
                    first_task: Some(problem.first_task),
                    ..Numbers::none(number)
                },
                Vec::new(),
            );
            for (arm, runs) in self.experiment.arms.iter().zip(&mut all) {
                let parameters = &mut runs.parameters;
                for series in std::iter::once(&mut runs.tuned).chain(&mut runs.fixed) {
                    go_on(progress)?;
                    let trained = self.trained(&problem, arm, series.rate, seed)?;
                    done += 1;
                    progress.step(done, arm.name);
                    match trained {
                        Some(trained) => {
                            *parameters = trained.parameters;
                            series.push(Numbers { seed: number, ..trained.numbers }, trained.curve);
                        }
                        None => series.push(Numbers::none(number), Vec::new()),
                    }
                }
            }
        }
        all.insert(0, before);
        Ok(all)
    }

    /// The mean accuracy of each arm at each rate, on problems that are none of the compared.
    fn tuned(&self, done: &mut u64, progress: &mut dyn Progress) -> Result<Vec<Vec<Tried>>, AppError> {
        let none = || self.rates.iter().map(|&rate| Tried { rate, accuracy: 0.0, diverged: 0 }).collect();
        let mut all: Vec<Vec<Tried>> = self.experiment.arms.iter().map(|_| none()).collect();
        for index in 0..self.tuning_seeds {
            let seed = Seed(self.first_seed).at("study tuning", &index.to_string());
            let problem = Problem::make(&self.size, seed)?;
            for (arm, tried) in self.experiment.arms.iter().zip(&mut all) {
                for tried in tried {
                    go_on(progress)?;
                    match self.trained(&problem, arm, tried.rate, seed)? {
                        Some(trained) => {
                            tried.accuracy +=
                                trained.numbers.accuracy.unwrap_or(0.0) / self.tuning_seeds as f64;
                        }
                        None => tried.diverged += 1,
                    }
                    *done += 1;
                    progress.step(*done, arm.name);
                }
            }
        }
        Ok(all)
    }

    fn settings(&self, rate: f64) -> Settings {
        Settings {
            steps: self.size.steps,
            rate,
            clip_norm: 0.0,
            schedule: Schedule {
                shape: Shape::Cosine,
                warmup_steps: WARMUP.min(self.size.steps / 4),
                ..Schedule::default()
            },
            checkpoint_every: 0,
            ..Settings::default()
        }
    }

    /// One run; `None` where it diverged.
    fn trained(
        &self,
        problem: &Problem,
        arm: &Arm,
        rate: f64,
        seed: Seed,
    ) -> Result<Option<Trained>, AppError> {
        let settings = self.settings(rate);
        let mut network = problem.network()?;
        let width = problem.test.inputs.len() / problem.test.len();
        let probe = &problem.test.inputs[..problem.test.len().min(PROBED) * width];
        let logits = |network: &lowrank_models::Mlp| {
            network.logits(probe).map(lowrank_tensor::to_rows).while_doing("probing the network")
        };
        let before = logits(&network)?;
        let variables = arm.mount(problem, &mut network, settings.rate_of(Group::Dense, 0), seed)?;
        let moved =
            logits(&network)?.iter().zip(&before).map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max);
        let parameters = variables.iter().map(|each| each.variable.shape().iter().product::<usize>()).sum();
        let order = order(problem.train.len(), &self.size, seed);
        let batch = |step: u64| {
            let at = usize::try_from(step).unwrap_or(0) * self.size.batch;
            Ok(problem.train.pick(&order[at..at + self.size.batch]))
        };
        let (mut curve, mut first_norm) = (Vec::new(), None);
        let mut watch = |event: &Event<'_>| {
            if let Event::Step(step) = event {
                curve.push(step.loss);
                first_norm = first_norm.or(Some(step.norm));
            }
        };
        let mut learning = Learning::new(&network, &variables, &batch);
        match train(&mut learning, &settings, &Run::default(), &mut watch, &Stop::default()) {
            Ok(_) => {}
            Err(
                TrainError::LossNotFinite { .. }
                | TrainError::GradientNotFinite { .. }
                | TrainError::GradientTooLarge { .. }
                | TrainError::ValueNotFinite { .. },
            ) => return Ok(None),
            Err(other) => return Err(other).while_doing(format!("training {}", arm.name)),
        }
        let last = network.loss(&problem.train).while_doing("testing")?;
        let accuracy = network.accuracy(&problem.test).while_doing("testing")?;
        let numbers = Numbers {
            early: Some(around_a_quarter(&curve)),
            last: Some(last),
            accuracy: Some(accuracy),
            first_norm,
            moved: Some(moved),
            ..Numbers::none(0)
        };
        Ok(last.is_finite().then_some(Trained { numbers, parameters, curve }))
    }
}

/// Which rows each step takes: one permutation after another, the same for every arm.
fn order(rows: usize, size: &Size, seed: Seed) -> Vec<usize> {
    let wanted = usize::try_from(size.steps).unwrap_or(usize::MAX) * size.batch;
    let epochs = 0..wanted.div_ceil(rows.max(1));
    epochs.flat_map(|epoch| seed.at("order", &epoch.to_string()).permutation(rows)).take(wanted).collect()
}

/// The mean loss of the steps around a quarter of the run: 90 to 110 of 400.
pub(super) fn around_a_quarter(curve: &[f64]) -> f64 {
    let n = curve.len();
    let (from, to) = (9 * n / 40, (11 * n).div_ceil(40).min(n));
    let window = curve.get(from..to.max(from + 1)).unwrap_or(curve);
    window.iter().sum::<f64>() / window.len().max(1) as f64
}

impl ArmRuns {
    /// An arm at the best of its rates, with nothing run yet.
    fn new(arm: &Arm, tried: Vec<Tried>, fixed: &[f64]) -> ArmRuns {
        let best = (0..tried.len())
            .rev()
            .max_by(|&a, &b| tried[a].accuracy.total_cmp(&tried[b].accuracy))
            .unwrap_or(0);
        let own = |rate: f64| Series { rate, runs: Vec::new(), curves: Vec::new() };
        let choices = |pairs: &[(&str, &str)]| -> String {
            pairs.iter().map(|(name, value)| format!(", {name} = {value}")).collect()
        };
        let start = arm.start.map_or_else(String::new, |(name, with)| format!("{name}{} × ", choices(with)));
        ArmRuns {
            name: arm.name.to_owned(),
            part: arm.part,
            method: format!("{start}{}{}", arm.form.0, choices(arm.form.1)),
            parameters: 0,
            rate_at_the_end: best == 0 || best + 1 == tried.len(),
            tuned: own(tried.get(best).map_or(0.0, |tried| tried.rate)),
            fixed: fixed.iter().map(|&rate| own(rate)).collect(),
            tried,
        }
    }

    /// The network before it learns anything.
    fn before() -> ArmRuns {
        ArmRuns {
            name: BEFORE.to_owned(),
            part: Part::Reference,
            method: "the pretrained network".to_owned(),
            parameters: 0,
            rate_at_the_end: false,
            tuned: Series { rate: 0.0, runs: Vec::new(), curves: Vec::new() },
            fixed: Vec::new(),
            tried: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::experiment::QUICK;
    use super::super::{eva, lora_ga, nlora};
    use super::*;

    fn course(experiment: &Experiment) -> Course<'_> {
        Course { experiment, size: QUICK, rates: vec![1e-3, 1e-2], tuning_seeds: 1, seeds: 1, first_seed: 3 }
    }

    /// Each arm's run at this rate on one problem, and the loss of the network before.
    fn runs(experiment: &Experiment, rate: f64) -> (Vec<(&'static str, Trained)>, f64) {
        let course = course(experiment);
        let seed = Seed(11);
        let problem = Problem::make(&course.size, seed).unwrap();
        let run = |arm: &Arm| (arm.name, course.trained(&problem, arm, rate, seed).unwrap().unwrap());
        (experiment.arms.iter().map(run).collect(), problem.loss_before)
    }

    fn of<'a>(runs: &'a [(&'static str, Trained)], name: &str) -> &'a Trained {
        &runs.iter().find(|(arm, _)| *arm == name).unwrap().1
    }

    #[test]
    fn lora_ga_leaves_the_function_alone_and_has_the_larger_gradient() {
        let (runs, before) = runs(&lora_ga::STUDY, 1e-2);
        for name in ["lora", "lora-ga", "lora-ga-control", "pissa"] {
            assert!(of(&runs, name).numbers.moved.unwrap() < 1e-3, "{name} moves the function at step 0");
            assert_eq!(of(&runs, name).parameters, of(&runs, "lora").parameters, "{name}");
        }
        // The gradient of a factor is the gradient along the other: leading directions catch more of it than random ones.
        let norm = |name: &str| of(&runs, name).numbers.first_norm.unwrap();
        assert!(norm("lora-ga") > norm("lora-ga-control"), "{} {}", norm("lora-ga"), norm("lora-ga-control"));
        for (name, run) in &runs {
            let last = run.numbers.last.unwrap();
            assert!(last < 0.95 * before, "{name} learns: {before} to {last}");
        }
    }

    #[test]
    fn eva_has_the_gradient_that_principal_components_give_and_keeps_its_budget() {
        let (runs, _) = runs(&eva::STUDY, 1e-3);
        let norm = |name: &str| of(&runs, name).numbers.first_norm.unwrap();
        // Eigenvalues 1/i: the leading 8 of 64 hold more than half of the inputs, random ones an eighth.
        assert!(norm("eva") > 1.4 * norm("eva-control"), "{} {}", norm("eva"), norm("eva-control"));
        assert_eq!(of(&runs, "eva").numbers.moved, Some(0.0));
        assert_eq!(of(&runs, "eva").parameters, of(&runs, "lora").parameters);
    }

    #[test]
    fn a_start_that_is_not_taken_back_moves_the_function() {
        let (runs, _) = runs(&nlora::STUDY, 1e-3);
        let moved = |name: &str| of(&runs, name).numbers.moved.unwrap();
        assert!(
            moved("nlora, released") > 0.1 && moved("nlora") < 1e-3,
            "{} {}",
            moved("nlora, released"),
            moved("nlora")
        );
    }

    #[test]
    fn steps_take_every_row_before_any_again() {
        let size = Size { steps: 5, batch: 4, ..QUICK };
        let order = order(10, &size, Seed(1));
        let mut first = order[..10].to_vec();
        first.sort_unstable();
        assert_eq!((order.len(), first), (20, (0..10).collect::<Vec<_>>()));
        let curve: Vec<f64> = (0..400).map(f64::from).collect();
        assert!((around_a_quarter(&curve) - 99.5).abs() < 1e-9, "steps 90 to 109 from 0");
        assert!(around_a_quarter(&[2.0]) == 2.0 && around_a_quarter(&[1.0, 3.0]) > 0.0);
    }

    #[test]
    fn the_best_rate_is_taken_and_the_smaller_of_equals() {
        let tried = |accuracy: f64, rate: f64| Tried { rate, accuracy, diverged: 0 };
        let of = |all: Vec<Tried>| ArmRuns::new(&Arm::FULL, all, &[]);
        let found = of(vec![tried(0.1, 1.0), tried(0.3, 2.0), tried(0.3, 3.0), tried(0.2, 4.0)]);
        assert!(found.tuned.rate == 2.0 && !found.rate_at_the_end);
        assert!(of(vec![tried(0.1, 1.0), tried(0.3, 2.0)]).rate_at_the_end);
    }
}
