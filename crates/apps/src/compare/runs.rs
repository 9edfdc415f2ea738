//! The runs of a comparison: searching a rate, and training over the seeds; each from its file where it was done before.

use std::path::{Path, PathBuf};

use lowrank_record::Seed;
use lowrank_task::TokenizedQuestion;
use lowrank_train::Stopped;

use super::budget::{first_round, second_round};
use super::candidate::Candidate;
use super::options::Compare;
use super::search::{Chosen, search};
use super::store::{self, Finished, Tried};
use crate::adaptation::{Adaptation, Ended, Folder, Method, Prepared, RunSummary, start_path, train, trial};
use crate::subject::Subject;
use crate::{AppError, Progress};
use lowrank_command::Because;

/// The held-out data in two: one half chooses rates, the other is told of, so that no method is judged by what it was tuned
/// on.
pub(super) struct Halves<N: Subject> {
    choosing: Vec<N::Example>,
    judging: Vec<N::Example>,
}

impl<N: Subject> Halves<N> {
    /// Takes every other example, since neighbours of a text are alike.
    ///
    /// # Errors
    /// [`AppError::Usage`] where there are fewer than two.
    pub(super) fn of(prepared: &mut Prepared<N>) -> Result<Halves<N>, AppError> {
        let held_out = std::mem::take(&mut prepared.data.held_out);
        if held_out.len() < 2 {
            return Err(AppError::usage(format!(
                "a comparison needs at least 2 held-out examples, one to choose rates by and one to judge by, and has {}; \
                 give a larger --held-out, --held-out-data FILE, or shorter rows (--max-length)",
                held_out.len()
            )));
        }
        let (mut choosing, mut judging) = (Vec::new(), Vec::new());
        for (index, example) in held_out.into_iter().enumerate() {
            if index % 2 == 0 { judging.push(example) } else { choosing.push(example) }
        }
        let halves = Halves { choosing, judging };
        halves.choose_rates(prepared);
        Ok(halves)
    }

    pub(super) fn choose_rates(&self, prepared: &mut Prepared<N>) {
        prepared.data.held_out.clone_from(&self.choosing);
    }

    fn judge(&self, prepared: &mut Prepared<N>) {
        prepared.data.held_out.clone_from(&self.judging);
    }

    /// Of both.
    pub(super) fn hash(&self) -> String {
        format!("{} {}", N::hash(&self.choosing), N::hash(&self.judging))
    }
}

/// How a comparison runs its methods.
pub(super) struct Course<'a, N: Subject> {
    options: &'a Compare,
    ground: Adaptation,
    run: &'a Path,
    /// Steps of each run.
    pub(super) steps: u64,
    pub(super) halves: Halves<N>,
    questions: Option<Vec<TokenizedQuestion>>,
}

impl<'a, N: Subject> Course<'a, N> {
    pub(super) fn new(
        options: &'a Compare,
        ground: Adaptation,
        run: &'a Path,
        halves: Halves<N>,
        questions: Option<Vec<TokenizedQuestion>>,
    ) -> Course<'a, N> {
        Course { options, ground, run, steps: 1, halves, questions }
    }

    /// The ground with a seed that none of the compared runs has.
    pub(super) fn tuning_ground(&self, index: u32) -> Adaptation {
        let seed = Seed(self.options.seed).at("compare", &format!("tuning {index}")).0;
        Adaptation { seed, ..self.ground.clone() }
    }

    /// Where the start of a tuning seed is kept: it is the same for every rate.
    ///
    /// # Errors
    /// [`AppError::Failed`] when its folder cannot be made.
    pub(super) fn tuning_start(&self, candidate: &Candidate, index: u32) -> Result<PathBuf, AppError> {
        let folder = store::folder(self.run, candidate.name()).join(format!("tuning-{index}"));
        std::fs::create_dir_all(&folder).while_doing(format!("creating {}", folder.display()))?;
        Ok(start_path(&folder))
    }

    /// Finds the method's rate, which it then has; returns what was tried, and whether the best lies at the end of that.
    ///
    /// # Errors
    /// As the runs.
    pub(super) fn tune(
        &self,
        candidate: &mut Candidate,
        prepared: &mut Prepared<N>,
        progress: &mut dyn Progress,
    ) -> Result<(Vec<Tried>, bool), AppError> {
        if candidate.fixed {
            return Ok((Vec::new(), false));
        }
        let folder = store::folder(self.run, candidate.name());
        let path = folder.join("tuning.json");
        let mut known: Vec<Tried> = store::read(&path)?.unwrap_or_default();
        let mut used: Vec<Tried> = Vec::new();
        self.halves.choose_rates(prepared);
        prepared.plan = candidate.plan.clone();
        let name = candidate.name().to_owned();
        let mut loss = |rate: f64, second: bool| -> Result<Option<f64>, AppError> {
            let steps = if second { second_round(self.steps) } else { first_round(self.steps) };
            let mut sum = Some(0.0);
            for index in 0..self.options.tuning_seeds {
                let ground = Adaptation { steps: Some(steps), ..self.tuning_ground(index) };
                let same = |tried: &&Tried| {
                    (tried.seed, tried.steps) == (ground.seed, steps)
                        && tried.rate.to_bits() == rate.to_bits()
                };
                let tried = match known.iter().find(same) {
                    Some(tried) => tried.clone(),
                    None => {
                        let method = Method { rate, ..candidate.method.clone() };
                        let tried = self.try_rate(candidate, &method, &ground, index, prepared, progress)?;
                        known.push(tried.clone());
                        store::write(&path, &known)?;
                        tried
                    }
                };
                sum = sum.zip(tried.loss).map(|(sum, loss)| sum + loss);
                used.push(tried);
            }
            Ok(sum.map(|sum| sum / f64::from(self.options.tuning_seeds)))
        };
        let Chosen { rate, at_the_end } = search(&name, candidate.rates, self.options.rates, &mut loss)?;
        for index in 0..self.options.tuning_seeds {
            remove(&self.tuning_start(candidate, index)?);
        }
        candidate.method.rate = rate;
        progress.say(&format!("{name}: rate {rate:.1e}"));
        Ok((used, at_the_end))
    }

    fn try_rate(
        &self,
        candidate: &Candidate,
        method: &Method,
        ground: &Adaptation,
        index: u32,
        prepared: &mut Prepared<N>,
        progress: &mut dyn Progress,
    ) -> Result<Tried, AppError> {
        let (rate, steps) = (method.rate, ground.steps.unwrap_or(1));
        let start = self.tuning_start(candidate, index)?;
        let mut muted = Muted::new(progress, format!(" at {rate:.1e}"));
        let ended = trial(prepared, ground, method, &start, &mut muted)?;
        let loss = match ended {
            Ended::Loss(loss) => Some(loss),
            Ended::Diverged => None,
            Ended::Stopped => return Err(super::stopped(self.run)),
        };
        let found = loss.map_or_else(|| "no number".to_owned(), |loss| format!("{loss:.4}"));
        progress.say(&format!("{}: rate {rate:.1e}, {steps} steps: {found}", method.name));
        Ok(Tried { seed: ground.seed, steps, rate, loss })
    }

    /// Trains the method with one seed, or reads what it came to.
    ///
    /// # Errors
    /// As training; [`AppError::Usage`] for a run in the folder that is another one.
    pub(super) fn train(
        &self,
        candidate: &Candidate,
        seed: u64,
        prepared: &mut Prepared<N>,
        progress: &mut dyn Progress,
    ) -> Result<Finished, AppError> {
        let folder = store::folder(self.run, candidate.name()).join(format!("seed-{seed}"));
        let path = folder.join("result.json");
        let method = &candidate.method;
        if let Some(found) = store::read::<Finished>(&path)? {
            if found.rate == method.rate && found.steps == self.steps && found.method == described(method) {
                return Ok(found);
            }
            return Err(AppError::usage(format!(
                "{} is of {} at rate {:e} over {} steps, not of {} at {:e} over {}; start a new comparison with another --run",
                path.display(),
                found.method,
                found.rate,
                found.steps,
                described(method),
                method.rate,
                self.steps
            )));
        }
        self.halves.judge(prepared);
        prepared.plan = candidate.plan.clone();
        let ground = Adaptation {
            seed,
            steps: Some(self.steps),
            eval_every: (self.steps / 4).max(1),
            ..self.ground.clone()
        };
        let at = Folder { path: &folder, resume: folder.exists(), begun: progress.now() };
        let mut muted = Muted::new(progress, format!(" seed {seed}"));
        let summary = train(prepared, &ground, method, at, &mut muted)?;
        if summary.stopped == Stopped::Interrupted {
            return Err(super::stopped(self.run));
        }
        let accuracy = match (&self.questions, &self.options.questions) {
            (Some(asked), Some(file)) => {
                let share = N::ask(asked, file, &prepared.model, &mut muted);
                Some(share.map_err(
                    |error| {
                        if progress.stopping() { super::stopped(self.run) } else { error }
                    },
                )?)
            }
            _ => summary.score.map(|score| score.value),
        };
        prepared.clear()?;
        let finished = finished(seed, self.steps, method, &summary, accuracy)?;
        store::write(&path, &finished)?;
        // The run is over: what it would have gone on from is of no more use.
        remove(&start_path(&folder));
        for (_, checkpoint) in lowrank_train::checkpoints(&folder).while_doing("looking for checkpoints")? {
            remove(&checkpoint);
        }
        progress.say(&format!("{} with seed {seed}: held-out loss {:.4}", method.name, finished.held_out));
        Ok(finished)
    }
}

/// What a run is of, in words.
fn described(method: &Method) -> String {
    let options = |options: &std::collections::BTreeMap<String, String>| -> String {
        options.iter().map(|(key, value)| format!(" {key}={value}")).collect()
    };
    format!(
        "{}{} + {}{}",
        method.init,
        options(&method.init_options),
        method.form,
        options(&method.form_options)
    )
}

fn finished(
    seed: u64,
    steps: u64,
    method: &Method,
    summary: &RunSummary,
    accuracy: Option<f64>,
) -> Result<Finished, AppError> {
    let told = |loss: Option<f64>| loss.ok_or_else(|| AppError::failed("the run has no held-out loss"));
    let ranks: Vec<f64> = summary.changes.iter().map(|change| change.effective_rank).collect();
    let of = |value: &dyn Fn(&lowrank_train::metrics::Line) -> Option<f64>| -> Vec<(u64, f64)> {
        summary.curve.iter().filter_map(|line| Some((line.step, value(line)?))).collect()
    };
    let first = summary.times.first().copied();
    let step_seconds = summary.times.last().zip(first).and_then(|(&(last, seconds), (step, before))| {
        // The first step of a process also warms it up.
        (last > step).then(|| (seconds - before) / (last - step) as f64)
    });
    Ok(Finished {
        seed,
        rate: method.rate,
        steps,
        method: described(method),
        held_out: told(summary.held_out_after)?,
        held_out_before: told(summary.held_out_before)?,
        last_loss: summary.last_loss,
        accuracy,
        step_seconds,
        start_seconds: summary.seconds_to_start,
        training_peak_bytes: summary.training_peak_bytes,
        effective_rank: (!ranks.is_empty()).then(|| ranks.iter().sum::<f64>() / ranks.len() as f64),
        held_out_curve: of(&|line| line.eval),
        training_curve: of(&|line| line.loss),
    })
}

/// What is left over is no error.
pub(super) fn remove(path: &Path) {
    let _ = std::fs::remove_file(path);
}

/// The progress of one of many runs: its bar with a label that says which, and warnings alone.
pub(super) struct Muted<'a> {
    inner: &'a mut dyn Progress,
    behind: String,
}

impl<'a> Muted<'a> {
    pub(super) fn new(inner: &'a mut dyn Progress, behind: String) -> Muted<'a> {
        Muted { inner, behind }
    }
}

impl Progress for Muted<'_> {
    fn say(&mut self, line: &str) {
        if line.starts_with("warning") {
            self.inner.say(line);
        }
    }
    fn begin(&mut self, label: &str, total: u64) {
        self.inner.begin(&format!("{label}{}", self.behind), total);
    }
    fn step(&mut self, done: u64, note: &str) {
        self.inner.step(done, note);
    }
    fn end(&mut self) {
        self.inner.end();
    }
    fn now(&self) -> f64 {
        self.inner.now()
    }
    fn peak_memory(&self) -> Option<u64> {
        self.inner.peak_memory()
    }
    fn reset_peak(&mut self) {
        self.inner.reset_peak();
    }
    fn stopping(&self) -> bool {
        self.inner.stopping()
    }
}
