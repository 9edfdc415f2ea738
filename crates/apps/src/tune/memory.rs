//! What a run will cost, from the shapes and the rate of one measured product.

use lowrank_adapt::Weight;
use lowrank_linalg::{from_rows, multiply};
use lowrank_models::Recompute;
use lowrank_record::Seed;

use super::outcome::DryRun;
use super::prepare::Prepared;
use super::{Tune, settings};
use crate::error::Because;
use crate::{AppError, Progress};

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

/// Counts flops and bytes of a step and predicts the process's largest memory, and the time of all steps of all starts; of a
/// start alone, which trains nothing, the time of one pass.
pub(super) fn predict(
    prepared: &Prepared,
    options: &Tune,
    train: bool,
    progress: &dyn Progress,
) -> Result<DryRun, AppError> {
    let config = &prepared.model.decoder.config;
    let tokens = prepared.batching.batch * prepared.batching.time;
    let sites = prepared.model.decoder.sites();
    let linear: usize = sites.iter().map(|(_, site)| site.shape().iter().product::<usize>()).sum();
    let head = config.vocabulary * config.hidden;
    // Frozen weights cost one product forward and one backward; recomputation repeats the forward of the blocks.
    let products = if prepared.recompute == Recompute::Blocks { 3.0 } else { 2.0 };
    let matrices = 2.0 * tokens as f64 * (products * linear as f64 + 2.0 * head as f64);
    let low_rank = 6.0 * tokens as f64 * prepared.plan.parameters() as f64;
    let attention = 14.0 / 2.0
        * (tokens * prepared.batching.time * config.heads * config.head_dim * config.layers) as f64;
    let flops = matrices + low_rank + attention;
    // Values that the backward finds: for each token and block the states before the norms and linears.
    let kv = config.kv_heads * config.head_dim;
    let block = 5 * config.hidden + 4 * config.heads * config.head_dim + 4 * kv + 3 * config.intermediate;
    let kept = match prepared.recompute {
        Recompute::Nothing => config.layers * block,
        Recompute::Blocks => config.layers * config.hidden + block,
    };
    let chunk = (6 << 20).min(tokens * config.vocabulary);
    let widest = sites.iter().map(|(_, site)| match site.weight() {
        // A stored weight is widened into a buffer while it is used.
        Weight::Frozen(matrix) if matrix.bytes() < 4 * matrix.shape().iter().product::<usize>() => {
            matrix.shape().iter().product::<usize>()
        }
        _ => 0,
    });
    let widest = widest.max().unwrap_or(0);
    let optimiser = 6 * prepared.plan.parameters();
    let floats = tokens * kept + chunk + 4 * tokens * config.intermediate + widest + optimiser;
    let model_bytes = prepared.model.decoder.bytes();
    let steps = if train { settings::steps(prepared, options)? } else { 0 };
    let passes = if train { steps * (1 + options.compare.len() as u64) } else { 1 };
    let per_step = flops * f64::from(options.accumulate);
    Ok(DryRun {
        sites: prepared.plan.sites.iter().map(|site| (site.name.clone(), site.rank)).collect(),
        parameters: prepared.plan.parameters(),
        model_bytes,
        predicted_peak_bytes: model_bytes + 4 * floats + PROCESS,
        steps,
        tokens_per_step: tokens * options.accumulate as usize,
        flops_per_step: per_step,
        predicted_seconds: passes as f64 * per_step / (STEP_RATE * rate(progress)?),
    })
}

/// Code, tokenizer and data of a small run, in bytes.
const PROCESS: usize = 60_000_000;
