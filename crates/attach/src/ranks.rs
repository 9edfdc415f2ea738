//! Ranks given out anew: a plan's budget of ranks, spent where the evidence says that it explains most.

use lowrank_init::{Evidence, Initialiser, Place, Site as InitSite, alpha_after, most_rank, redistribute};
use lowrank_record::{Seed, scale};

use crate::{AttachError, InputStatistics, Plan, Site};

/// The largest rank that a site of a plan can come to have with this start: what its evidence must be enough for.
#[must_use]
pub fn largest_rank(initialiser: &dyn Initialiser, site: &Site) -> usize {
    let shorter = site.shape[0].min(site.shape[1]);
    match initialiser.redistributes() {
        Some(rho) => most_rank(rho, site.rank, shorter),
        None => site.rank,
    }
}

impl Plan {
    /// The plan with the ranks that the start gives its sites, the scale of each as it was; the plan itself for a start that
    /// leaves ranks alone. Sites that get no rank are left out: they have no adapter.
    ///
    /// # Errors
    /// [`AttachError::Init`] naming the site whose ratios cannot be had, [`AttachError::NoRanks`] where no site keeps one.
    pub fn redistributed(
        &self,
        initialiser: &dyn Initialiser,
        inputs: &InputStatistics,
        seed: Seed,
    ) -> Result<Plan, AttachError> {
        if initialiser.redistributes().is_none() {
            return Ok(self.clone());
        }
        let mut ratios: Vec<Vec<f64>> = vec![Vec::new(); inputs.collected.len()];
        let mut places = Vec::with_capacity(self.sites.len());
        for site in &self.sites {
            let failed = |source| AttachError::Init { site: site.name.clone(), source };
            let (Some(&group), Some(shown)) = (inputs.groups.get(&site.name), inputs.of(&site.name)) else {
                return Err(AttachError::NotReached { site: site.name.clone() });
            };
            let most = largest_rank(initialiser, site);
            let [out, inp] = site.shape;
            let seen = Evidence::of(InitSite { out, inp, scale: site.scale }).with_inputs(shown);
            // The sites of a group have the same ratios; the one that may take most of them says how many there are.
            if most > ratios[group].len() {
                let found = initialiser.ratios(&seen, most, seed.at("ratios", &site.name)).map_err(failed)?;
                if found.len() > ratios[group].len() {
                    ratios[group] = found;
                }
            }
            places.push(Place { group, planned: site.rank, most });
        }
        let ranks = redistribute(&ratios, &places).map_err(|source| {
            let site = self.sites.first().map_or_else(String::new, |site| site.name.clone());
            AttachError::Init { site, source }
        })?;
        let plan = self.with_ranks(&ranks);
        if plan.sites.is_empty() {
            return Err(AttachError::NoRanks { init: initialiser.card().name });
        }
        Ok(plan)
    }

    /// The plan with these ranks, one for each of its sites; the scale of each stays as it was, and those of rank 0 are left out.
    #[must_use]
    pub fn with_ranks(&self, ranks: &[usize]) -> Plan {
        let given = self.sites.iter().zip(ranks).filter(|(_, rank)| **rank > 0);
        let sites = given.map(|(site, &rank)| {
            let alpha = alpha_after(site.alpha, site.rank, rank, self.rank_stabilised);
            Site { rank, alpha, scale: scale(alpha, rank, self.rank_stabilised), ..site.clone() }
        });
        Plan { sites: sites.collect(), rank_stabilised: self.rank_stabilised }
    }
}
