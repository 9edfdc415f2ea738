//! What the result is worth: how far it is from the weighted sum of the changes, in numbers and in logits.

use lowrank_adapt::forms::Lora;
use lowrank_attach::restore;
use lowrank_linalg::LowRank;
use lowrank_linalg::combination::{Settings, named};
use lowrank_record::Seed;
use lowrank_store::peft::{AdapterFolder, Matcher};
use serde::Serialize;

use super::Combine;
use super::gather::{Gathered, Site};
use crate::verify::{allowed, largest_difference, logits_with, sample_logits};
use crate::{AppError, Model};
use lowrank_command::Because;

/// What rounding of the factors to f32 may do to an exact combination, as a part of the sum of the changes' sizes.
const ROUNDING: f64 = 1e-5;

/// Squares of the distance from the weighted sum and of the sum, over the layers so far.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct FromSum {
    distance: f64,
    sum: f64,
}

impl FromSum {
    /// Adds a layer.
    ///
    /// # Errors
    /// [`AppError::Failed`] when an exact combination is not the sum.
    pub(super) fn add(&mut self, how: &str, site: &Site, combined: &LowRank) -> Result<(), AppError> {
        let doing = || format!("comparing {} with the sum", site.module);
        let sum = side_by_side(site)?;
        let distance = sum.add(&combined.times(-1.0)).and_then(|gap| gap.norm()).while_doing(doing())?;
        if how == "cat" {
            let mut sizes = 0.0;
            for part in &site.parts {
                sizes += (part.weight * part.scale).abs() * part.factors.norm().while_doing(doing())?;
            }
            if distance.is_nan() || distance > ROUNDING * sizes {
                return Err(AppError::failed(format!(
                    "{}: the combined change is {distance:.2e} from the sum of the changes, {:.2e} are allowed; nothing was written",
                    site.module,
                    ROUNDING * sizes
                )));
            }
        }
        self.distance += distance * distance;
        self.sum += sum.norm().while_doing(doing())?.powi(2);
        Ok(())
    }

    /// Of a whole adapter of scale 1, whose factors are those of the sites.
    ///
    /// # Errors
    /// [`AppError::Failed`] when factors hold NaN.
    pub(super) fn of(sites: &[Site], folder: &AdapterFolder) -> Result<FromSum, AppError> {
        let mut all = FromSum::default();
        for site in sites {
            let Some(factor) = folder.factor(&site.module) else { continue };
            let change =
                LowRank::from_rows(&factor.left, &factor.right, factor.output, factor.input, factor.rank)
                    .while_doing(&site.module)?;
            all.add("recompressed", site, &change)?;
        }
        Ok(all)
    }

    /// The distance as a part of the sum; `None` when the sum is zero.
    pub(super) fn relative(&self) -> Option<f64> {
        (self.sum > 0.0).then(|| (self.distance / self.sum).sqrt())
    }
}

fn side_by_side(site: &Site) -> Result<LowRank, AppError> {
    let cat = named("cat").ok_or_else(|| AppError::failed("the catalogue has no cat"))?;
    cat.combine(&site.parts, &Settings::new(&Seed(0))).while_doing(&site.module)
}

/// What was seen of the logits.
#[derive(Debug, Clone, Serialize)]
pub struct Logits {
    /// Largest difference that the result makes to the base.
    pub effect: f64,
    /// Largest difference between the result and all adapters at once, each with its weight.
    pub from_sum: f64,
    /// Largest difference between the result in memory and read back from disk.
    pub read_difference: f64,
}

/// The base, with the logits that the result is held to.
pub(super) struct Bench {
    model: Model,
    base: Vec<f32>,
    /// Of all adapters at once.
    sum: Vec<f32>,
    /// Of the result in memory.
    made: Vec<f32>,
}

impl Bench {
    /// Opens the base, if one was named.
    ///
    /// # Errors
    /// [`AppError::Usage`] for a model that is none or that an adapter was not made for.
    pub(super) fn open(
        options: &Combine,
        gathered: &[Gathered],
        folder: &AdapterFolder,
    ) -> Result<Option<Bench>, AppError> {
        let Some(path) = options.model.as_deref() else { return Ok(None) };
        let mut model = Model::open(Some(path), lowrank_models::Widen::Once)?;
        for (one, path) in gathered.iter().zip(&options.adapters) {
            model.check(&one.folder, path)?;
        }
        let base = sample_logits(&model)?;
        let sum = all_at_once(&mut model, gathered, options)?;
        let made = logits_with(&mut model, folder)?;
        Ok(Some(Bench { model, base, sum, made }))
    }

    /// Compares what was read back.
    ///
    /// # Errors
    /// [`AppError::Failed`] when it computes something else than what was made, or an exact combination something else than
    /// all adapters at once.
    pub(super) fn compare(&mut self, read: &AdapterFolder, exact: bool) -> Result<Logits, AppError> {
        let found = logits_with(&mut self.model, read)?;
        let logits = Logits {
            effect: largest_difference(&self.base, &found),
            from_sum: largest_difference(&self.sum, &found),
            read_difference: largest_difference(&self.made, &found),
        };
        let mut limits = vec![(logits.read_difference, allowed(&self.base, &self.made), "what was made")];
        if exact {
            limits.push((logits.from_sum, allowed(&self.base, &self.sum), "all adapters at once"));
        }
        for (difference, allowed, what) in limits {
            // NaN is not within anything.
            if difference.is_nan() || difference > allowed {
                return Err(AppError::failed(format!(
                    "the result does not compute what {what} does: logits differ by {difference:.2e}, allowed are {allowed:.2e}; \
                     nothing is kept"
                )));
            }
        }
        Ok(logits)
    }
}

/// Logits with every adapter mounted beside the others, its weight in its scale; all are taken off again.
fn all_at_once(model: &mut Model, gathered: &[Gathered], options: &Combine) -> Result<Vec<f32>, AppError> {
    let names: Vec<String> = (1..=gathered.len()).map(|number| format!("adapter {number}")).collect();
    for ((one, path), name) in gathered.iter().zip(&options.adapters).zip(&names) {
        let matcher = Matcher::new(&one.folder.config).input("the adapter")?;
        let scale = |site: &str| one.weight * matcher.scale(site);
        restore(&mut model.decoder, &one.folder.factors, &scale, &Lora::DEFAULT, name)
            .input(format!("the adapter {}", path.display()))?;
    }
    let logits = sample_logits(model)?;
    for (site, linear) in model.decoder.sites_mut() {
        for name in &names {
            if linear.adapters().iter().any(|mounted| mounted.name == *name) {
                linear.unmount(name).while_doing(&site)?;
            }
        }
    }
    Ok(logits)
}
