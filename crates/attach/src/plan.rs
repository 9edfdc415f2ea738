//! What will be adapted, at which rank and scale: decided before anything is computed.

use lowrank_models::Network;
use lowrank_record::scale;
use lowrank_store::peft::pattern_key;

use crate::{AttachError, Targets};

/// One layer to adapt.
#[derive(Debug, Clone, PartialEq)]
pub struct Site {
    /// Its checkpoint name.
    pub name: String,
    /// `[out, in]`.
    pub shape: [usize; 2],
    /// Rank of the change.
    pub rank: usize,
    /// α of the change.
    pub alpha: f64,
    /// What the change is multiplied with.
    pub scale: f64,
}

impl Site {
    /// Values in both factors.
    #[must_use]
    pub fn parameters(&self) -> usize {
        self.rank * (self.shape[0] + self.shape[1])
    }
}

/// Every layer to adapt, in the order of the model.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The layers.
    pub sites: Vec<Site>,
    /// Whether the scale is α/√r instead of α/r.
    pub rank_stabilised: bool,
}

impl Plan {
    /// Chooses the layers and their ranks.
    ///
    /// `rank_pattern` and `alpha_pattern` are matched as PEFT does: the first pattern that matches the end of a name
    /// from a dot on wins.
    ///
    /// # Errors
    /// [`AttachError`] naming the target, pattern or rank that cannot be used.
    pub fn new<N: Network>(
        model: &N,
        targets: &Targets,
        rank: usize,
        alpha: f64,
        rank_stabilised: bool,
        rank_pattern: &[(String, usize)],
        alpha_pattern: &[(String, f64)],
    ) -> Result<Plan, AttachError> {
        let all = model.sites();
        let names: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
        let chosen = targets.select(&names)?;
        for (pattern, _) in rank_pattern {
            unmatched(pattern, &chosen)?;
        }
        for (pattern, _) in alpha_pattern {
            unmatched(pattern, &chosen)?;
        }
        let mut sites = Vec::with_capacity(chosen.len());
        for (name, linear) in all.iter().filter(|(name, _)| chosen.contains(&name.as_str())) {
            let [out, inp] = linear.shape();
            let rank = matched(rank_pattern, name)?.unwrap_or(rank);
            let alpha = matched(alpha_pattern, name)?.unwrap_or(alpha);
            let max = out.min(inp);
            if rank == 0 || rank > max {
                return Err(AttachError::Rank { site: name.clone(), rank, out, inp, max });
            }
            let scale = scale(alpha, rank, rank_stabilised);
            sites.push(Site { name: name.clone(), shape: [out, inp], rank, alpha, scale });
        }
        Ok(Plan { sites, rank_stabilised })
    }

    /// Trainable values of the plan.
    #[must_use]
    pub fn parameters(&self) -> usize {
        self.sites.iter().map(Site::parameters).sum()
    }
}

/// The value of the first pattern that matches, by PEFT's rule.
fn matched<T: Copy>(patterns: &[(String, T)], name: &str) -> Result<Option<T>, AttachError> {
    let found = pattern_key(patterns.iter().map(|(pattern, _)| pattern.as_str()), name)?;
    Ok(found.and_then(|key| patterns.iter().find(|(pattern, _)| pattern == key)).map(|(_, value)| *value))
}

/// A pattern that matches none of the chosen layers is a mistake.
fn unmatched(pattern: &str, chosen: &[&str]) -> Result<(), AttachError> {
    let one = [(pattern.to_owned(), ())];
    for name in chosen {
        if matched(&one, name)?.is_some() {
            return Ok(());
        }
    }
    Err(AttachError::Pattern {
        pattern: pattern.to_owned(),
        problem: "it matches no layer that is adapted".to_owned(),
    })
}
