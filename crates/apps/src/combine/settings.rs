//! The combination that was asked for, with the settings that it looks at.

use clap::ValueEnum;
use lowrank_linalg::LowRank;
use lowrank_linalg::combination::{self, Combination, Election, Settings};
use lowrank_record::Seed;

use super::Combine;
use super::gather::Site;
use crate::AppError;

/// What elects the sign of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SignChoice {
    /// The sum of the adapters' entries
    Total,
    /// The number of adapters of each sign
    Frequency,
}

/// Settings that were judged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chosen {
    density: Option<f64>,
    election: Election,
    pub(super) rank: Option<usize>,
    clamp: Option<f64>,
    seed: Seed,
}

/// The combination and its settings.
///
/// # Errors
/// [`AppError::Usage`] for an unknown name, a number of weights that is not that of the adapters, a setting that the combination
/// does not look at, or one that it needs and was not given.
pub(super) fn checked(options: &Combine) -> Result<(&'static dyn Combination, Chosen), AppError> {
    let name = options.how.to_lowercase().replace('_', "-");
    let Some(method) = combination::named(&name) else {
        let known: Vec<&str> = combination::ALL.iter().map(|method| method.card().name).collect();
        return Err(AppError::usage(format!("--how {}: known are {}", options.how, known.join(", "))));
    };
    let (adapters, weights) = (options.adapters.len(), options.weights.len());
    if adapters != weights {
        return Err(AppError::usage(format!(
            "--weights has {weights} numbers for {adapters} adapters; give one for each, in their order"
        )));
    }
    let looks_at = |name: &str| method.card().choices.iter().any(|choice| choice.name == name);
    for (setting, given) in [
        ("density", options.density.is_some()),
        ("sign", options.sign.is_some()),
        ("rank", options.rank.is_some()),
        ("clamp", options.clamp.is_some()),
        ("seed", options.seed.is_some()),
    ] {
        if given && !looks_at(setting) {
            let (with, like) = (method.card().name, takers(setting));
            return Err(AppError::usage(format!("--{setting} is nothing that {with} looks at; {like} do")));
        }
    }
    if looks_at("density") && options.density.is_none() {
        return Err(AppError::usage(format!(
            "{name} drops entries: give --density, the part of them to keep, above 0 and at most 1"
        )));
    }
    for (setting, rank) in [("rank", options.rank), ("recompress", options.recompress)] {
        if rank == Some(0) {
            return Err(AppError::usage(format!("--{setting} 0: give a rank of at least 1")));
        }
    }
    let election = match options.sign {
        Some(SignChoice::Frequency) => Election::Frequency,
        Some(SignChoice::Total) | None => Election::Total,
    };
    let Combine { density, rank, clamp, .. } = *options;
    let seed = Seed(options.seed.unwrap_or(0));
    Ok((method, Chosen { density, election, rank, clamp, seed }))
}

/// The combinations that look at a setting.
fn takers(setting: &str) -> String {
    let cards = combination::ALL.iter().map(|method| method.card());
    let names: Vec<&str> = cards
        .filter(|card| card.choices.iter().any(|choice| choice.name == setting))
        .map(|card| card.name)
        .collect();
    names.join(", ")
}

impl Chosen {
    /// Combines one layer.
    ///
    /// # Errors
    /// [`AppError::Usage`] naming the layer.
    pub(super) fn combine(&self, method: &dyn Combination, site: &Site) -> Result<LowRank, AppError> {
        let seed = self.seed.at("site", &site.module);
        let settings = Settings {
            density: self.density,
            election: self.election,
            rank: Some(self.rank.unwrap_or(site.largest_rank)),
            clamp: self.clamp,
            masks: &seed,
        };
        method
            .combine(&site.parts, &settings)
            .map_err(|error| AppError::usage(format!("combining {}: {error}", site.module)))
    }
}
