//! Which linear layers are meant: `all-linear`, names and dotted suffixes, or a regular expression, with excludes and
//! block ranges; each as PEFT means them.

use std::ops::RangeInclusive;

use lowrank_models::is_head;
use lowrank_store::peft::{full_match, is_end};
use regex::Regex;

use crate::AttachError;

/// A choice of linear layers by their checkpoint names.
#[derive(Debug, Clone, Default)]
pub struct Targets {
    include: Selector,
    exclude: Option<Selector>,
    layers: Option<Vec<RangeInclusive<usize>>>,
}

#[derive(Debug, Clone, Default)]
enum Selector {
    /// Every linear layer but the head.
    #[default]
    AllLinear,
    /// Exact names or dotted suffixes.
    Suffixes(Vec<String>),
    /// The whole name matches.
    Pattern(Regex),
}

impl Selector {
    fn parse(text: &str) -> Result<Selector, AttachError> {
        let text = text.trim();
        if text == "all-linear" {
            return Ok(Selector::AllLinear);
        }
        if let Some(pattern) = text.strip_prefix('/').and_then(|rest| rest.strip_suffix('/')) {
            // PEFT takes a full match.
            return Ok(Selector::Pattern(full_match(pattern)?));
        }
        Ok(Selector::Suffixes(
            text.split(',').map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect(),
        ))
    }

    fn matches(&self, name: &str) -> bool {
        match self {
            Selector::AllLinear => !is_head(name),
            Selector::Suffixes(suffixes) => suffixes.iter().any(|suffix| is_end(suffix, name)),
            Selector::Pattern(pattern) => pattern.is_match(name),
        }
    }
}

impl Targets {
    /// Parses what the user typed: targets, excludes, and block ranges such as `0-3,8`.
    ///
    /// # Errors
    /// [`AttachError::Regex`] or [`AttachError::Layers`].
    pub fn parse(include: &str, exclude: Option<&str>, layers: Option<&str>) -> Result<Targets, AttachError> {
        Ok(Targets {
            include: Selector::parse(include)?,
            exclude: exclude.map(Selector::parse).transpose()?,
            layers: layers.map(ranges).transpose()?,
        })
    }

    /// The names that are meant, in the order of `names`.
    ///
    /// # Errors
    /// [`AttachError::NoMatch`] when a part of the targets matches nothing (a misspelt name would silently adapt less),
    /// [`AttachError::Layers`] for a block that does not exist, [`AttachError::NothingLeft`], and
    /// [`AttachError::Narrowed`] when a part of the targets is left with nothing.
    pub fn select<'a>(&self, names: &[&'a str]) -> Result<Vec<&'a str>, AttachError> {
        self.include.check(names)?;
        if let Some(exclude) = &self.exclude {
            exclude.check(names)?;
        }
        let blocks = names.iter().filter_map(|name| block(name)).max().map_or(0, |last| last + 1);
        for range in self.layers.iter().flatten() {
            if *range.end() >= blocks {
                let problem = format!("the model has blocks 0 to {}", blocks.saturating_sub(1));
                return Err(AttachError::Layers {
                    text: format!("{}-{}", range.start(), range.end()),
                    problem,
                });
            }
        }
        let within = |name: &str| match (&self.layers, block(name)) {
            (None, _) => true,
            (Some(ranges), Some(block)) => ranges.iter().any(|range| range.contains(&block)),
            (Some(_), None) => false,
        };
        let excluded = |name: &str| self.exclude.as_ref().is_some_and(|exclude| exclude.matches(name));
        let chosen: Vec<&str> = names
            .iter()
            .copied()
            .filter(|name| self.include.matches(name) && !excluded(name) && within(name))
            .collect();
        if chosen.is_empty() {
            return Err(AttachError::NothingLeft);
        }
        match self.include.unmatched(&chosen) {
            Some(target) => Err(AttachError::Narrowed { target }),
            None => Ok(chosen),
        }
    }
}

impl Selector {
    /// The first part that matches nothing.
    fn unmatched(&self, names: &[&str]) -> Option<String> {
        match self {
            Selector::AllLinear => None,
            Selector::Suffixes(suffixes) if suffixes.is_empty() => Some(String::new()),
            Selector::Suffixes(suffixes) => {
                suffixes.iter().find(|suffix| !names.iter().any(|name| is_end(suffix, name))).cloned()
            }
            Selector::Pattern(pattern) => {
                (!names.iter().any(|name| pattern.is_match(name))).then(|| pattern.as_str().to_owned())
            }
        }
    }

    /// Every part must match something.
    fn check(&self, names: &[&str]) -> Result<(), AttachError> {
        let Some(target) = self.unmatched(names) else { return Ok(()) };
        let mut known: Vec<&str> = names.iter().filter_map(|name| name.rsplit('.').next()).collect();
        known.sort_unstable();
        known.dedup();
        let near = known.iter().map(|name| (strsim::damerau_levenshtein(&target, name), *name)).min();
        let hint = match near {
            Some((distance, name)) if distance <= 3 => format!("; did you mean \"{name}\"?"),
            _ => String::new(),
        };
        Err(AttachError::NoMatch { target, known: known.join(", "), hint })
    }
}

/// The block number in a name: `model.layers.7.mlp.up_proj` is in block 7.
fn block(name: &str) -> Option<usize> {
    name.split('.').find_map(|part| part.parse().ok())
}

fn ranges(text: &str) -> Result<Vec<RangeInclusive<usize>>, AttachError> {
    let bad = |problem: &str| AttachError::Layers { text: text.to_owned(), problem: problem.to_owned() };
    let number = |text: &str| {
        text.trim().parse::<usize>().map_err(|_| bad("write block numbers and ranges, as in 0-3,8"))
    };
    text.split(',')
        .map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let range = number(first)?..=number(last)?;
            if range.is_empty() {
                Err(bad("a range runs from the lower to the higher block"))
            } else {
                Ok(range)
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::Targets;

    const NAMES: [&str; 6] = [
        "model.layers.0.self_attn.q_proj",
        "model.layers.0.mlp.up_proj",
        "model.layers.1.self_attn.q_proj",
        "model.layers.1.mlp.up_proj",
        "model.layers.11.mlp.up_proj",
        "lm_head",
    ];

    fn select(
        include: &str,
        exclude: Option<&str>,
        layers: Option<&str>,
    ) -> Result<Vec<&'static str>, String> {
        let targets = Targets::parse(include, exclude, layers).map_err(|error| error.to_string())?;
        targets.select(&NAMES).map_err(|error| error.to_string())
    }

    #[test]
    fn all_linear_leaves_the_head_out() {
        assert_eq!(select("all-linear", None, None).unwrap().len(), 5);
        assert_eq!(select("lm_head,q_proj", None, None).unwrap().len(), 3);
        // GPT-NeoX calls its head otherwise.
        let all = Targets::parse("all-linear", None, None).unwrap();
        let chosen = all.select(&["gpt_neox.layers.0.attention.dense", "embed_out"]).unwrap();
        assert_eq!(chosen, ["gpt_neox.layers.0.attention.dense"]);
    }

    #[test]
    fn suffixes_are_dotted_and_patterns_match_the_whole_name() {
        assert_eq!(select("mlp.up_proj", None, None).unwrap().len(), 3);
        assert!(select("proj", None, None).unwrap_err().contains("matches no linear layer"));
        assert_eq!(select(r"/.*\.1\.mlp\..*/", None, None).unwrap(), ["model.layers.1.mlp.up_proj"]);
        assert!(select("/mlp/", None, None).unwrap_err().contains("matches no linear layer"));
        // No pattern by itself, though it would be one between parentheses.
        assert!(select("/.*q_proj)|(?:.*mlp.*/", None, None).unwrap_err().contains("q_proj)|(?:"));
    }

    #[test]
    fn excludes_and_block_ranges_narrow() {
        assert_eq!(select("all-linear", Some("q_proj"), Some("0-1")).unwrap(), [NAMES[1], NAMES[3]]);
        assert_eq!(select("all-linear", None, Some("11")).unwrap(), [NAMES[4]]);
        assert!(select("all-linear", None, Some("3-12")).unwrap_err().contains("blocks 0 to 11"));
        assert!(select("all-linear", None, Some("3-x")).unwrap_err().contains("0-3,8"));
        assert!(select("q_proj", Some("q_proj"), None).unwrap_err().contains("no layer is left"));
        // The head is in no block, so a choice of blocks leaves it out: named, it must not go silently.
        for (targets, exclude, layers) in
            [("lm_head,q_proj", None, Some("0-1")), ("lm_head,q_proj", Some("lm_head"), None)]
        {
            let refused = select(targets, exclude, layers).unwrap_err();
            assert!(refused.contains("\"lm_head\" is left without a layer"), "{refused}");
        }
    }

    #[test]
    fn a_misspelt_target_names_its_neighbour() {
        assert!(select("q_proj,up_prj", None, None).unwrap_err().contains("did you mean \"up_proj\""));
    }
}
