//! What a run will cost, from the shapes and the rate of one measured product.

use std::fmt;

use lowrank_adapt::Weight;
use lowrank_linalg::{from_rows, multiply};
use lowrank_models::Recompute;
use lowrank_record::{Need, Seed};
use lowrank_train::Settings;
use serde::Serialize;

use super::prepare::{Prepared, initialiser};
use super::{Adaptation, Method, settings};
use crate::error::Because;
use crate::subject::{Laying as _, Order, Subject};
use crate::{AppError, Progress};

/// What `--dry-run` predicts.
#[derive(Debug, Clone, Serialize)]
pub struct DryRun {
    /// Layers that would be adapted, with their ranks.
    pub sites: Vec<(String, usize)>,
    /// Trainable values.
    pub parameters: usize,
    /// Bytes of the model as it would be held.
    pub model_bytes: usize,
    /// Predicted largest memory of the process.
    pub predicted_peak_bytes: usize,
    /// Steps.
    pub steps: u64,
    /// Places for tokens in a step, on average, padding included.
    pub tokens_per_step: usize,
    /// Floating-point operations of a step.
    pub flops_per_step: f64,
    /// Predicted seconds of evidence, steps and evaluations, at the rate of a product measured just now.
    pub predicted_seconds: f64,
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
        write!(f, "predicted time    {:>9.0} s", self.predicted_seconds)
    }
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

/// Floating-point operations of passes over a model's layers, for rows of `time` tokens.
struct Flops {
    /// Values in the linear layers.
    linear: f64,
    /// Values in the head.
    head: f64,
    /// Values in the low-rank factors.
    low_rank: f64,
    /// Causal attention, for each token and pass over the scores' products.
    attention: f64,
    /// Products with each frozen weight in a step: one more where blocks are computed again.
    products: f64,
}

impl Flops {
    fn of<N: Subject>(prepared: &Prepared<N>) -> Flops {
        let sides = prepared.model.decoder.sides();
        let values = |shape: [usize; 2]| shape.iter().product::<usize>() as f64;
        Flops {
            linear: prepared.model.decoder.sites().iter().map(|(_, site)| values(site.shape())).sum(),
            head: (sides.vocabulary * sides.hidden) as f64,
            low_rank: prepared.plan.parameters() as f64,
            // Half of the scores are seen.
            attention: (prepared.laying.batching().time * sides.heads * sides.head_dim * sides.layers) as f64,
            products: if prepared.recompute == Recompute::Blocks { 3.0 } else { 2.0 },
        }
    }

    /// Forward and backward. Frozen weights have no gradient of their own; attention computes its scores again.
    fn step(&self, tokens: f64) -> f64 {
        let frozen = 2.0 * (self.products * self.linear + 2.0 * self.head);
        tokens * (frozen + 6.0 * self.low_rank + 7.0 * self.attention)
    }

    /// Forward alone.
    fn evaluation(&self, tokens: f64) -> f64 {
        tokens * (2.0 * (self.linear + self.head + self.low_rank) + 2.0 * self.attention)
    }

    /// A step's passes without adapters, and six thin products with each gradient, formed or not, as is cheaper.
    fn evidence<N: Subject>(&self, prepared: &Prepared<N>, tokens: f64) -> f64 {
        let thin = |site: &lowrank_attach::Site| {
            let [out, inp] = site.shape.map(|side| side as f64);
            let columns = (4 * site.rank).min(site.shape[0].min(site.shape[1])) as f64;
            let formed = 2.0 * tokens * out * inp + 12.0 * columns * out * inp;
            formed.min(12.0 * tokens * columns * (out + inp))
        };
        self.step(tokens) + prepared.plan.sites.iter().map(thin).sum::<f64>()
    }
}

/// Counts flops and bytes of a step and predicts the process's largest memory, and the time of everything that is computed: of
/// a start alone its evidence, of a run also the steps and evaluations of all its starts.
pub(crate) fn predict<N: Subject>(
    prepared: &Prepared<N>,
    options: &Adaptation,
    methods: &[Method],
    train: bool,
    progress: &dyn Progress,
) -> Result<DryRun, AppError> {
    let flops = Flops::of(prepared);
    let order = Order::Drawn(settings::data_order(options), 0);
    let plan = N::epoch(&prepared.data.train, prepared.laying, order);
    let places = plan.input("batching the data")?.places();
    let mean = places.iter().sum::<usize>() as f64 / places.len() as f64;
    let per_step = flops.step(mean) * f64::from(options.accumulate);
    let (mut all, mut steps) = (0.0, 0);
    for method in methods {
        let needs = initialiser(method)?.map(|initialiser| initialiser.needs()).unwrap_or_default();
        if needs.contains(&Need::Gradient) {
            all += flops.evidence(prepared, mean);
        }
        if needs.contains(&Need::Inputs) {
            all += prepared.input_batches(options)? as f64 * flops.evaluation(mean);
        }
        if train {
            let settings = settings::of(prepared, options, method.rate)?;
            steps = settings.steps;
            all += steps as f64 * per_step;
            all += evaluations(&settings) * flops.evaluation(held_out_places(prepared)? as f64);
        }
    }
    let model_bytes = prepared.model.decoder.bytes();
    let largest = places.into_iter().max().unwrap_or(0);
    Ok(DryRun {
        sites: prepared.plan.sites.iter().map(|site| (site.name.clone(), site.rank)).collect(),
        parameters: prepared.plan.parameters(),
        model_bytes,
        predicted_peak_bytes: model_bytes + 4 * floats(prepared, largest) + PROCESS,
        steps,
        tokens_per_step: (mean * f64::from(options.accumulate)).round() as usize,
        flops_per_step: per_step,
        predicted_seconds: all / (STEP_RATE * rate(progress)?),
    })
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

/// Numbers that a step of `tokens` keeps besides the model.
fn floats<N: Subject>(prepared: &Prepared<N>, tokens: usize) -> usize {
    let config = prepared.model.decoder.sides();
    // Values that the backward finds: for each token and block the states before the norms and linears.
    let kv = config.kv_heads * config.head_dim;
    let block = 5 * config.hidden + 4 * config.heads * config.head_dim + 4 * kv + 3 * config.intermediate;
    let kept = match prepared.recompute {
        Recompute::Nothing => config.layers * block,
        Recompute::Blocks => config.layers * config.hidden + block,
    };
    let chunk = (6 << 20).min(tokens * config.vocabulary);
    let sites = prepared.model.decoder.sites();
    let widest = sites.iter().map(|(_, site)| match site.weight() {
        // A stored weight is widened into a buffer while it is used.
        Weight::Frozen(matrix) if matrix.bytes() < 4 * matrix.shape().iter().product::<usize>() => {
            matrix.shape().iter().product::<usize>()
        }
        _ => 0,
    });
    let optimiser = 6 * prepared.plan.parameters();
    tokens * kept + chunk + 4 * tokens * config.intermediate + widest.max().unwrap_or(0) + optimiser
}

/// Code, tokenizer and data of a small run, in bytes.
const PROCESS: usize = 20_000_000;
