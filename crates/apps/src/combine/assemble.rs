//! The configuration and the provenance of the result.

use std::collections::BTreeMap;

use lowrank_store::peft::{AdapterConfig, AdapterFolder, Factor, Targets};

use super::Combine;
use super::gather::Gathered;
use crate::model::{BASE_HASH, PROMPT};
use lowrank_command::Because;

use crate::AppError;

/// The result at scale 1, for every module that one of the adapters changes.
pub(super) fn folder(
    options: &Combine,
    how: &'static str,
    gathered: &[Gathered],
    factors: Vec<Factor>,
) -> Result<AdapterFolder, AppError> {
    let configs: Vec<&AdapterConfig> = gathered.iter().map(|one| &one.folder.config).collect();
    let rank = factors.iter().map(|factor| factor.rank).max().unwrap_or(1);
    let mut config = AdapterConfig::new(rank, rank as f64, Targets::List(Vec::new()));
    match shared(&configs) {
        Some((targets, from)) => {
            config.targets = targets;
            config.exclude.clone_from(&from.exclude);
            config.layers.clone_from(&from.layers);
            config.layers_pattern.clone_from(&from.layers_pattern);
        }
        None => config.targets = Targets::List(factors.iter().map(|factor| factor.module.clone()).collect()),
    }
    // One entry a layer, by its full name: no pattern can match more than was meant.
    let differs = factors.iter().filter(|factor| factor.rank != rank);
    config.rank_pattern = differs.map(|factor| (factor.module.clone(), factor.rank)).collect();
    config.alpha_pattern =
        config.rank_pattern.iter().map(|(name, rank)| (name.clone(), *rank as f64)).collect();
    config.fan_in_fan_out = configs.iter().any(|config| config.fan_in_fan_out);
    config.task_type = configs.iter().find_map(|config| config.task_type.clone());
    config.base_model = match &options.model {
        Some(path) => Some(path.display().to_string()),
        None => configs.iter().find_map(|config| config.base_model.clone()),
    };
    let mut folder = AdapterFolder::new(config, factors);
    folder.provenance = provenance(options, how, gathered);
    folder.check().while_doing("the combined adapter")?;
    Ok(folder)
}

/// Targets for all modules where the adapters' own words still say exactly which are meant: all alike, or lists that nothing
/// narrows. Otherwise the modules are listed by their full names.
fn shared<'a>(configs: &[&'a AdapterConfig]) -> Option<(Targets, &'a AdapterConfig)> {
    let first = *configs.first()?;
    let narrowing = |config: &AdapterConfig| {
        (config.exclude.clone(), config.layers.clone(), config.layers_pattern.clone())
    };
    if configs.iter().any(|config| narrowing(config) != narrowing(first)) {
        return None;
    }
    if configs.iter().all(|config| config.targets == first.targets) {
        return Some((first.targets.clone(), first));
    }
    if first.exclude.is_some() || first.layers.is_some() {
        return None;
    }
    let mut all = Vec::new();
    for config in configs {
        let Targets::List(list) = &config.targets else { return None };
        all.extend(list.iter().cloned());
    }
    all.sort_unstable();
    all.dedup();
    Some((Targets::List(all), first))
}

/// What made it; of what the adapters say, only what all of them say that say anything.
fn provenance(options: &Combine, how: &'static str, gathered: &[Gathered]) -> BTreeMap<String, String> {
    let weights: Vec<String> = options.weights.iter().map(f64::to_string).collect();
    let mut facts = BTreeMap::from([
        ("lowrank.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        ("lowrank.combination".to_owned(), how.to_owned()),
        ("lowrank.weights".to_owned(), weights.join(",")),
    ]);
    if let Some(density) = options.density {
        facts.insert("lowrank.density".to_owned(), density.to_string());
    }
    if let Some(seed) = options.seed {
        facts.insert("lowrank.seed".to_owned(), seed.to_string());
    }
    // The hash of those that tell it: they agree, or nothing would be combined.
    let told = |key: &'static str| gathered.iter().filter_map(move |one| one.folder.provenance.get(key));
    facts.extend(told(BASE_HASH).next().map(|hash| (BASE_HASH.to_owned(), hash.clone())));
    if let Some(prompt) = told(PROMPT).next()
        && told(PROMPT).filter(|other| *other == prompt).count() == gathered.len()
    {
        facts.insert(PROMPT.to_owned(), prompt.clone());
    }
    facts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_stay_in_words_where_these_mean_the_same() {
        let list = |names: &[&str]| Targets::List(names.iter().map(|&name| name.to_owned()).collect());
        let config = |targets| AdapterConfig::new(2, 2.0, targets);
        let (q, k) = (config(list(&["q_proj"])), config(list(&["k_proj", "q_proj"])));
        assert_eq!(shared(&[&q, &k]).unwrap().0, list(&["k_proj", "q_proj"]));
        let all = config(Targets::Pattern("all-linear".to_owned()));
        assert_eq!(shared(&[&all, &all.clone()]).unwrap().0, all.targets);
        assert!(shared(&[&q, &all]).is_none(), "a list and a pattern");
        let mut first = q.clone();
        first.layers = Some(vec![0]);
        assert!(shared(&[&first, &q]).is_none(), "the other adapter has layers that these would leave out");
        assert!(shared(&[&first, &first.clone()]).is_some());
        let mut second = k;
        second.layers = Some(vec![0]);
        assert!(shared(&[&first, &second]).is_none());
    }
}
