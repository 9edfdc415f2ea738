//! What a run will cost, from the shapes and the rate of one measured product.

use std::fmt;

use lowrank_adapt::Offset;
use lowrank_attach::Plan;
use lowrank_init::Initialiser;
use lowrank_linalg::{from_rows, multiply};
use lowrank_record::{Promise, Seed};
use lowrank_train::Settings;
use serde::Serialize;

use super::evidence_cost::input_widths;
use super::memory::{Adapters, PROCESS};
use super::prepare::{Prepared, form, initialiser};
use super::work::{Added, Work};
use super::{Adaptation, Method, settings};
use crate::choices::OffsetChoice;
use crate::subject::{Order, Subject};
use crate::{AppError, Progress};
use lowrank_command::Because;

/// What `--dry-run` predicts.
#[derive(Debug, Clone, Serialize)]
pub struct DryRun {
    /// Layers that would be adapted, with their ranks: of the first method.
    pub sites: Vec<(String, usize)>,
    /// Trainable values of the first method.
    pub parameters: usize,
    /// Bytes of the model as it would be held.
    pub model_bytes: usize,
    /// Predicted largest memory of the process, over all methods.
    pub predicted_peak_bytes: usize,
    /// Steps.
    pub steps: u64,
    /// Places for tokens in a step, on average, padding included.
    pub tokens_per_step: usize,
    /// Floating-point operations of a step of the first method.
    pub flops_per_step: f64,
    /// Predicted seconds of evidence, steps and evaluations, at the rate of a product measured just now.
    pub predicted_seconds: f64,
    /// Each method by itself.
    pub methods: Vec<Predicted>,
}

/// What one method would cost.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Predicted {
    /// The method.
    pub name: String,
    /// Layers that get an adapter.
    pub layers: usize,
    /// Trainable values.
    pub parameters: usize,
    /// Largest memory of the process in training.
    pub training_bytes: usize,
    /// Largest memory while the evidence is collected; none for a start that needs none.
    pub evidence_bytes: Option<usize>,
    /// Seconds of collecting it.
    pub evidence_seconds: f64,
    /// Seconds of one step.
    pub step_seconds: f64,
    /// Seconds of steps and evaluations.
    pub training_seconds: f64,
}

impl fmt::Display for DryRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<56} rank", "layer")?;
        for (site, rank) in &self.sites {
            writeln!(f, "{site:<56} {rank:>4}")?;
        }
        writeln!(f, "{} layers, {} trainable parameters", self.sites.len(), self.parameters)?;
        writeln!(f, "model in memory   {:>9.1} MB", self.model_bytes as f64 / 1e6)?;
        writeln!(f, "predicted peak    {:>9.1} MB", self.predicted_peak_bytes as f64 / 1e6)?;
        writeln!(
            f,
            "steps             {:>9} of {} tokens, {:.1} GFLOP each",
            self.steps,
            self.tokens_per_step,
            self.flops_per_step / 1e9
        )?;
        write!(f, "predicted time    {:>9.0} s", self.predicted_seconds)?;
        if self.methods.len() > 1 {
            write!(f, "\n\n{}", table(&self.methods))?;
        }
        Ok(())
    }
}

/// A line for each method.
pub(crate) fn table(methods: &[Predicted]) -> String {
    let mut lines = format!(
        "{:<20} {:>10} {:>11} {:>11} {:>9} {:>8}\n",
        "predicted", "trained", "training", "evidence", "evidence", "step"
    );
    for each in methods {
        let megabytes = |bytes: usize| format!("{:.0} MB", bytes as f64 / 1e6);
        lines += &format!(
            "{:<20} {:>10} {:>11} {:>11} {:>7.1} s {:>6.2} s\n",
            each.name,
            each.parameters,
            megabytes(each.training_bytes),
            each.evidence_bytes.map_or_else(|| "–".to_owned(), megabytes),
            each.evidence_seconds,
            each.step_seconds
        );
    }
    lines.trim_end().to_owned()
}

/// Share of a product's rate that a whole step is taken to reach.
const STEP_RATE: f64 = 0.8;
/// f32 operations a second to assume where there is no clock: a modest core.
const RATE: f64 = 50e9;

/// f32 operations a second of a product on all threads: the best of a few.
fn rate(progress: &dyn Progress) -> Result<f64, AppError> {
    const SIDE: usize = 1024;
    let values = Seed(0).at("dry-run", "product").normal(SIDE * SIDE);
    let matrix = from_rows(&values, SIDE, SIDE).while_doing("measuring a product")?;
    let mut seconds = f64::INFINITY;
    for _ in 0..4 {
        let begun = progress.now();
        let product = multiply(matrix.as_ref(), matrix.as_ref());
        // Read, so that it is not left out.
        if product[(0, 0)].is_nan() {
            return Ok(RATE);
        }
        seconds = seconds.min(progress.now() - begun);
    }
    Ok(if seconds > 0.0 { 2.0 * (SIDE * SIDE * SIDE) as f64 / seconds } else { RATE })
}

/// A method on the layers and ranks that it is planned with.
pub(crate) struct Planned<'a> {
    /// The method.
    pub(crate) method: &'a Method,
    /// Its layers.
    pub(crate) plan: &'a Plan,
    /// Its layers with the ranks that a start gives out anew by inputs, where they are known already.
    pub(crate) given: Option<&'a Plan>,
}

/// Counts flops and bytes of a step and predicts the process's largest memory, and the time of everything that is computed: of
/// a start alone its evidence, of a run also the steps and evaluations of all its starts.
///
/// A start that gives ranks out anew is shown the inputs that it goes by: without them the ranks are not known.
///
/// # Errors
/// [`AppError::Usage`] as opening the data; [`AppError::Failed`] where ranks cannot be given out.
pub(crate) fn predict<N: Subject>(
    prepared: &mut Prepared<N>,
    options: &Adaptation,
    methods: &[Planned<'_>],
    train: bool,
    progress: &mut dyn Progress,
) -> Result<DryRun, AppError> {
    let order = Order::Drawn(settings::data_order(options), 0);
    let places = N::epoch(&prepared.data.train, prepared.laying, order).input("batching the data")?.places();
    let mean = places.iter().sum::<usize>() as f64 / places.len().max(1) as f64;
    let largest = places.into_iter().max().unwrap_or(0);
    let rate = STEP_RATE * rate(progress)?;
    let work = Work::of(prepared);
    let widths = input_widths(prepared)?;
    let model_bytes = prepared.model.decoder.bytes();
    let (mut predicted, mut steps, mut sites, mut flops) = (Vec::new(), 0, Vec::new(), 0.0);
    for Planned { method, plan, given } in methods {
        let (form, init) = (form(method)?, initialiser(method)?);
        let plan = prepared.as_started(options, method, (plan, *given), progress)?;
        let (form, init) = (&*form, init.as_deref());
        let offset = offset(options, init);
        let added = Added::of(form, &plan, offset);
        let one = prepared.evidence_cost(options, init, &plan, &work, &widths, mean)?;
        let per_step = work.step(mean, added) * f64::from(options.accumulate);
        let mut training = 0.0;
        if train {
            let settings = settings::of(prepared, options, method.rate)?;
            steps = settings.steps;
            training += steps as f64 * per_step;
            training += evaluations(&settings) * work.evaluation(held_out_places(prepared)? as f64, added);
        }
        if predicted.is_empty() {
            sites = plan.sites.iter().map(|site| (site.name.clone(), site.rank)).collect();
            flops = per_step;
        }
        let adapters = Adapters::of(form, &plan, offset);
        predicted.push(Predicted {
            name: method.name.clone(),
            layers: plan.sites.len(),
            parameters: adapters.trained + prepared.head_values(),
            training_bytes: model_bytes + PROCESS + 4 * adapters.floats(prepared, &widths, largest),
            evidence_bytes: one.bytes.map(|bytes| model_bytes + PROCESS + bytes),
            evidence_seconds: one.flops / rate,
            step_seconds: per_step / rate,
            training_seconds: training / rate,
        });
    }
    let peak = |each: &Predicted| {
        let training = if train { each.training_bytes } else { 0 };
        training.max(each.evidence_bytes.unwrap_or(model_bytes + PROCESS))
    };
    Ok(DryRun {
        sites,
        parameters: predicted.first().map_or(0, |first| first.parameters),
        model_bytes,
        predicted_peak_bytes: predicted.iter().map(peak).max().unwrap_or(0),
        steps,
        tokens_per_step: (mean * f64::from(options.accumulate)).round() as usize,
        flops_per_step: flops,
        predicted_seconds: predicted.iter().map(|each| each.evidence_seconds + each.training_seconds).sum(),
        methods: predicted,
    })
}

/// How a start of this kind is taken back.
fn offset(options: &Adaptation, init: Option<&dyn Initialiser>) -> Offset {
    match init {
        // Starts that are zero, and those that bring their base, need no taking back.
        None => Offset::None,
        Some(init) if init.promise() == Promise::Zero || init.replaces_base() => Offset::None,
        Some(_) if options.offset == OffsetChoice::Base => Offset::Base,
        Some(_) => Offset::Shadow,
    }
}

/// How often the held-out examples are evaluated: before, during and after.
fn evaluations(settings: &Settings) -> f64 {
    if settings.eval_every == 0 {
        return 0.0;
    }
    1.0 + settings.steps.div_ceil(settings.eval_every) as f64
}

fn held_out_places<N: Subject>(prepared: &Prepared<N>) -> Result<usize, AppError> {
    if prepared.data.held_out.is_empty() {
        return Ok(0);
    }
    let plan = N::epoch(&prepared.data.held_out, prepared.laying, Order::Fixed);
    Ok(plan.input("batching the held-out data")?.places().iter().sum())
}
