//! The adapters, and what each does to every layer; refuses what does not belong together or would be left out.

use std::collections::BTreeMap;
use std::path::Path;

use lowrank_linalg::LowRank;
use lowrank_linalg::combination::Part;
use lowrank_store::peft::{AdapterFolder, Factor, Matcher, Place};

use super::Combine;
use crate::AppError;
use crate::model::{BASE_HASH, OFFSET};
use lowrank_command::Because;

/// One adapter that was read, and how much it counts.
pub(super) struct Gathered {
    pub folder: AdapterFolder,
    pub weight: f64,
}

/// One layer, with the changes of the adapters that have one.
pub(super) struct Site {
    /// Path of the module.
    pub module: String,
    /// Linear or embedding.
    pub place: Place,
    /// One a changing adapter, in their order.
    pub parts: Vec<Part>,
    /// The largest rank of all adapters, here or elsewhere: PEFT's default for what SVD cuts.
    pub largest_rank: usize,
}

impl Site {
    /// The combined change as factors of the layer.
    pub(super) fn factor(&self, combined: &LowRank) -> Factor {
        let (output, input) = combined.shape();
        let (left, right) = combined.to_rows();
        Factor {
            place: self.place,
            ..Factor::linear(&self.module, (output, input, combined.rank()), left, right)
        }
    }
}

/// Reads every adapter, with notes on what was taken on trust.
///
/// # Errors
/// [`AppError::Usage`] naming the adapter and what is in the way.
pub(super) fn read(options: &Combine) -> Result<(Vec<Gathered>, Vec<String>), AppError> {
    let mut gathered = Vec::new();
    for (path, &weight) in options.adapters.iter().zip(&options.weights) {
        if !weight.is_finite() {
            return Err(AppError::usage(format!("--weights {weight}: give finite numbers")));
        }
        let folder = AdapterFolder::read(path).input("reading an adapter")?;
        plain_factors(&folder, path)?;
        gathered.push(Gathered { folder, weight });
    }
    let notes = one_base(&gathered, options)?;
    Ok((gathered, notes))
}

/// Refuses what a combination of factors would leave out.
fn plain_factors(folder: &AdapterFolder, path: &Path) -> Result<(), AppError> {
    let config = &folder.config;
    let whole: Vec<&str> = folder.whole.iter().map(|whole| whole.name.as_str()).collect();
    let (problem, advice) = if config.dora {
        ("use_dora: its magnitudes belong to one direction, and cannot be added", "merge it into its base")
    } else if config.left_bias {
        ("lora_bias: combinations work on factors and would leave the biases out", "train it without")
    } else if !whole.is_empty() {
        (
            "modules_to_save: whole weights cannot be combined as changes",
            "train it without, or merge it into its base",
        )
    } else if folder.provenance.contains_key(OFFSET) {
        (
            "the factors that a training began with, which belong on a changed base",
            "give the adapter folder around it",
        )
    } else {
        return Ok(());
    };
    let names = if whole.is_empty() { String::new() } else { format!(" ({})", whole.join(", ")) };
    Err(AppError::usage(format!("{} holds {problem}{names}; {advice}", path.display())))
}

/// Refuses adapters of different bases: by the hash where adapters tell it, else by the name unless the base itself is given.
fn one_base(gathered: &[Gathered], options: &Combine) -> Result<Vec<String>, AppError> {
    let paths = || options.adapters.iter().map(|path| path.display());
    let hash = |one: &Gathered| one.folder.provenance.get(BASE_HASH).cloned();
    let hashes: Vec<(String, String)> =
        gathered.iter().zip(paths()).filter_map(|(one, path)| Some((path.to_string(), hash(one)?))).collect();
    if let Some([(a, first), (b, other)]) = hashes
        .iter()
        .zip(&hashes[1.min(hashes.len())..])
        .find_map(|(a, b)| (a.1 != b.1).then(|| [a.clone(), b.clone()]))
    {
        return Err(AppError::usage(format!(
            "{a} and {b} were made for different bases, of hash {first} and {other}; changes of different weights do not add up"
        )));
    }
    let mut named = gathered
        .iter()
        .zip(paths())
        .filter_map(|(one, path)| Some((path, one.folder.config.base_model.as_ref()?)));
    let mut notes = Vec::new();
    if hashes.len() < gathered.len() {
        if let Some((a, first)) = named.next()
            && let Some((b, other)) = named.find(|(_, name)| *name != first)
            && options.model.is_none()
        {
            return Err(AppError::usage(format!(
                "{a} names the base {first:?}, {b} names {other:?}, and not every adapter tells its base's hash; give --model with the \
                 base that all are for"
            )));
        }
        notes.push(
            "not every adapter tells the hash of its base; that they are for one base is taken on trust"
                .to_owned(),
        );
    }
    let stored = |one: &Gathered| one.folder.config.fan_in_fan_out;
    if gathered.iter().any(|one| stored(one) != stored(&gathered[0])) {
        return Err(AppError::usage(
            "fan_in_fan_out is true in one adapter and false in another; of one base it cannot be both",
        ));
    }
    Ok(notes)
}

/// Every layer that an adapter changes, sorted by module.
///
/// # Errors
/// [`AppError::Usage`] where one adapter takes a module for an embedding and another for a linear layer.
pub(super) fn sites(gathered: &[Gathered]) -> Result<Vec<Site>, AppError> {
    let largest = |one: &Gathered| one.folder.factors.iter().map(|factor| factor.rank).max();
    let largest_rank = gathered.iter().filter_map(largest).max().unwrap_or(1);
    let mut sites: BTreeMap<&str, Site> = BTreeMap::new();
    for Gathered { folder, weight } in gathered {
        let matcher = Matcher::new(&folder.config).input("the adapter")?;
        for factor in &folder.factors {
            let Factor { module, place, output, input, rank, left, right, .. } = factor;
            let site = sites.entry(module).or_insert_with(|| Site {
                module: module.clone(),
                place: *place,
                parts: Vec::new(),
                largest_rank,
            });
            if site.place != *place {
                return Err(AppError::usage(format!(
                    "{module} is an embedding in one adapter and a linear layer in another; they are for different bases"
                )));
            }
            let factors = LowRank::from_rows(left, right, *output, *input, *rank).input(module)?;
            site.parts.push(Part { factors, scale: matcher.scale(module), weight: *weight });
        }
    }
    Ok(sites.into_values().collect())
}
