//! From the mounted adapter to a PEFT folder that loads on the unmodified base, verified by reading it back.

use std::path::Path;

use lowrank_adapt::Offset;
use lowrank_adapt::forms::Lora;
use lowrank_attach::{Attached, restore};
use lowrank_linalg::LowRank;
use lowrank_store::export::{fold, stack};
use lowrank_store::peft::{AdapterConfig, AdapterFolder, Factor, Matcher, Targets};
use lowrank_tensor::ops::Layout;
use lowrank_tensor::to_rows;

use super::outcome::RunSummary;
use super::prepare::{Prepared, Started};
use super::{Tune, existing};
use crate::error::Because;
use crate::model::ADAPTER;
use crate::{AppError, Model, Progress};

/// Logits of a re-read adapter may differ by this part of the largest logit: two more roundings in f32.
const TOLERANCE: f64 = 1e-4;

/// Writes the trained adapter; returns the largest difference of logits after reading it back.
pub(super) fn write(
    prepared: &mut Prepared,
    options: &Tune,
    summary: &RunSummary,
    out: &Path,
    progress: &mut dyn Progress,
) -> Result<f64, AppError> {
    let started = &summary.started;
    let folder = folder(prepared, options, &summary.init, started, Some(summary), progress)?;
    write_verified(prepared, options, folder, started, out)
}

/// Writes an adapter that was started but not trained, with the start's factors at its own rank in `initial/`.
pub(super) fn write_start(
    prepared: &mut Prepared,
    options: &Tune,
    started: &Started,
    out: &Path,
    progress: &mut dyn Progress,
) -> Result<f64, AppError> {
    // For an offset start the exact equivalent on the unmodified base is zero: what people go on from in Python are the
    // factors themselves, which PEFT reads as a plain adapter.
    let factors = started.attached.iter().map(|each| factor(each, &each.initial)).collect();
    let mut folder = AdapterFolder::new(config(prepared, options), factors);
    folder.provenance = provenance(prepared, options, &options.init, started, None);
    if started.attached.iter().any(|each| each.offset != Offset::None) {
        folder.provenance.insert(
            "lowrank.offset".to_owned(),
            "subtract scale·B·A from the base before training".to_owned(),
        );
        progress.say(
            "note: this start is not zero. Before training in Python subtract scale·B·A from the base weights (PEFT calls \
             it mutated init), and convert with this folder as the initial adapter when saving.",
        );
        let initial = started.attached.iter().map(|each| factor(each, &each.initial)).collect::<Vec<_>>();
        folder.write(out, existing(options)).map_err(written)?;
        let back = AdapterFolder::read(out).while_doing("reading the adapter back")?;
        let same = back.factors.iter().all(|read| {
            initial.iter().any(|first| {
                first.module == read.module && first.left == read.left && first.right == read.right
            })
        });
        return if same {
            Ok(0.0)
        } else {
            Err(AppError::failed("the adapter read back differs from the one written"))
        };
    }
    write_verified(prepared, options, folder, started, out)
}

/// The adapter that is exact on the unmodified base.
fn folder(
    prepared: &Prepared,
    options: &Tune,
    init: &str,
    started: &Started,
    summary: Option<&RunSummary>,
    progress: &mut dyn Progress,
) -> Result<AdapterFolder, AppError> {
    let values = |each: &Attached, wanted: &str| {
        let found = each.variables.iter().find(|(part, _)| *part == wanted);
        found.map(|(_, variable)| variable.values()).unwrap_or_default()
    };
    let factors = started
        .attached
        .iter()
        .map(|each| factor(each, &(values(each, "left"), values(each, "right"))))
        .collect();
    let mut folder = AdapterFolder::new(config(prepared, options), factors);
    if started.attached.iter().any(|each| each.offset != Offset::None) {
        let initial: Vec<Factor> = started.attached.iter().map(|each| factor(each, &each.initial)).collect();
        folder = stack(&folder, &initial).while_doing("taking the start back")?;
        if options.recompress {
            let (smaller, worst) = recompressed(&folder, started)?;
            folder = smaller;
            progress
                .say(&format!("recompressed to the rank of the start: relative error at most {worst:.2e}"));
        }
    }
    // Scale folded in: no reader can get α, its square root or a pattern wrong.
    let mut folder = fold(&folder).while_doing("folding the scale")?;
    folder.provenance = provenance(prepared, options, init, started, summary);
    Ok(folder)
}

fn factor(each: &Attached, (left, right): &(Vec<f32>, Vec<f32>)) -> Factor {
    let [out, inp] = each.site.shape;
    Factor::linear(&each.site.name, (out, inp, each.site.rank), left.clone(), right.clone())
}

/// The configuration of the factors as they are trained, before anything is converted.
fn config(prepared: &Prepared, options: &Tune) -> AdapterConfig {
    let plan = &prepared.plan;
    let targets = plan.sites.iter().map(|site| site.name.clone()).collect();
    let mut config = AdapterConfig::new(options.rank, options.alpha, Targets::List(targets));
    config.rank_stabilised = options.rank_stabilised;
    // One entry a layer, by its full name: no pattern can match more than was meant.
    let differs = plan.sites.iter().filter(|site| site.rank != options.rank);
    config.rank_pattern = differs.map(|site| (site.name.clone(), site.rank)).collect();
    let differs = plan.sites.iter().filter(|site| (site.alpha - options.alpha).abs() > 0.0);
    config.alpha_pattern = differs.map(|site| (site.name.clone(), site.alpha)).collect();
    config.task_type = Some("CAUSAL_LM".to_owned());
    config.base_model = prepared.model.path.as_ref().map(|path| path.display().to_string());
    config
}

fn provenance(
    prepared: &Prepared,
    options: &Tune,
    init: &str,
    started: &Started,
    summary: Option<&RunSummary>,
) -> std::collections::BTreeMap<String, String> {
    let choices: Vec<String> = started.settings.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let mut facts = vec![
        ("lowrank.version", env!("CARGO_PKG_VERSION").to_owned()),
        ("lowrank.base_hash", prepared.model.hash.clone()),
        ("lowrank.data_hash", prepared.data.hash.clone()),
        ("lowrank.init", init.to_owned()),
        ("lowrank.init_options", choices.join(" ")),
        ("lowrank.form", options.form.clone()),
        ("lowrank.rank", options.rank.to_string()),
        ("lowrank.seed", options.seed.to_string()),
    ];
    facts.extend(summary.map(|summary| ("lowrank.steps", summary.steps.to_string())));
    facts.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// Every change cut back to the rank it was trained at; returns the largest relative error as well.
fn recompressed(folder: &AdapterFolder, started: &Started) -> Result<(AdapterFolder, f64), AppError> {
    let folder = fold(folder).while_doing("folding the scale")?;
    let mut out = folder.clone();
    let mut worst = 0.0_f64;
    out.factors.clear();
    for factor in &folder.factors {
        let site = started.attached.iter().find(|each| each.site.name == factor.module);
        let rank = site.map_or(factor.rank, |each| each.site.rank);
        let change =
            LowRank::from_rows(&factor.left, &factor.right, factor.output, factor.input, factor.rank)
                .while_doing(&factor.module)?;
        let norm = change.norm().while_doing(&factor.module)?;
        let (cut, error) = change.truncate(rank).while_doing(&factor.module)?;
        worst = worst.max(if norm > 0.0 { error / norm } else { 0.0 });
        let (left, right) = cut.to_rows();
        out.factors.push(Factor::linear(&factor.module, (factor.output, factor.input, rank), left, right));
    }
    let rank = out.factors.iter().map(|factor| factor.rank).max().unwrap_or(1);
    out.config.rank = rank;
    out.config.alpha = rank as f64;
    let differs = out.factors.iter().filter(|factor| factor.rank != rank);
    out.config.rank_pattern = differs.map(|factor| (factor.module.clone(), factor.rank)).collect();
    out.config.alpha_pattern =
        out.config.rank_pattern.iter().map(|(name, rank)| (name.clone(), *rank as f64)).collect();
    Ok((out, worst))
}

/// Writes, reads back, mounts what was read on the unmodified base and compares logits on sample tokens.
fn write_verified(
    prepared: &mut Prepared,
    options: &Tune,
    folder: AdapterFolder,
    started: &Started,
    out: &Path,
) -> Result<f64, AppError> {
    let before = sample_logits(&prepared.model)?;
    folder.write(out, existing(options)).map_err(written)?;
    let read = AdapterFolder::read(out).while_doing("reading the adapter back")?;
    prepared.clear()?;
    let matcher = Matcher::new(&read.config).while_doing("reading the adapter back")?;
    restore(&mut prepared.model.decoder, &read.factors, &|site| matcher.scale(site), &Lora, ADAPTER)
        .while_doing("mounting the adapter that was read back")?;
    let after = sample_logits(&prepared.model)?;
    let difference = largest_difference(&before, &after);
    let size = before.iter().map(|&logit| f64::from(logit).abs()).fold(1.0, f64::max);
    let approximate = options.recompress && started.attached.iter().any(|each| each.offset != Offset::None);
    if difference.is_nan() || (difference > TOLERANCE * size && !approximate) {
        return Err(AppError::failed(format!(
            "{} gives other logits than the trained adapter: they differ by {difference:.2e}; it is kept for inspection",
            out.display()
        )));
    }
    Ok(difference)
}

fn written(error: lowrank_store::StoreError) -> AppError {
    AppError::failed(format!("writing the adapter: {error}"))
}

/// Logits of a fixed sequence, spread over the vocabulary.
pub(crate) fn sample_logits(model: &Model) -> Result<Vec<f32>, AppError> {
    let config = &model.decoder.config;
    let time = 16.min(config.context);
    let tokens: Vec<u32> =
        (0..2 * time).map(|index| ((index * 7919 + 13) % config.vocabulary) as u32).collect();
    let logits = model.decoder.logits(&tokens, &Layout::dense(2, time)).while_doing("running the model")?;
    Ok(to_rows(logits))
}

/// The largest absolute difference; NaN if one of them is not a number.
pub(crate) fn largest_difference(a: &[f32], b: &[f32]) -> f64 {
    let differences = a.iter().zip(b).map(|(&a, &b)| (f64::from(a) - f64::from(b)).abs());
    differences.fold(0.0, |most, next| if next.is_nan() || most.is_nan() { f64::NAN } else { most.max(next) })
}

#[cfg(test)]
mod tests {
    use super::largest_difference;

    #[test]
    fn a_difference_that_is_not_a_number_is_not_hidden() {
        assert_eq!(largest_difference(&[1.0, 2.0], &[1.5, 2.0]), 0.5);
        assert!(largest_difference(&[1.0, f32::NAN, 0.0], &[1.0, 2.0, 3.0]).is_nan());
    }
}
