//! Ranks that the start decides: chosen from each layer's weight, or a plan's budget of ranks spent where the evidence says
//! that it explains most.

use std::collections::BTreeMap;

use faer::MatRef;
use lowrank_adapt::Linear;
use lowrank_init::{Evidence, Initialiser, Place, Site as InitSite, alpha_after, most_rank, redistribute};
use lowrank_models::Network;
use lowrank_record::{Need, Seed, scale};
use rayon::prelude::*;

use crate::start::frozen;
use crate::{AttachError, InputStatistics, Plan, Site};

impl Plan {
    /// The largest rank that a site of the plan can come to have with this start, which is what its evidence must be enough for: ρ
    /// times its own, no more than the shorter side of its weight and than all ranks of the plan together.
    #[must_use]
    pub fn largest_rank(&self, initialiser: &dyn Initialiser, site: &Site) -> usize {
        let shorter = site.shape[0].min(site.shape[1]);
        let budget: usize = self.sites.iter().map(|site| site.rank).sum();
        match initialiser.redistributes() {
            Some(rho) => most_rank(rho, site.rank, shorter.min(budget)),
            None => site.rank,
        }
    }

    /// The plan with the ranks that the start chooses from the weights, the scale of each as it was; the plan itself for a start
    /// that leaves ranks alone.
    ///
    /// # Errors
    /// [`AttachError::Init`] naming the layer whose rank cannot be had, [`AttachError::UnknownSite`] and
    /// [`AttachError::SiteShape`] for a plan of another model.
    pub fn chosen<N: Network>(&self, model: &N, initialiser: &dyn Initialiser) -> Result<Plan, AttachError> {
        if !initialiser.chooses_rank() {
            return Ok(self.clone());
        }
        let layers: BTreeMap<String, &Linear> = model.sites().into_iter().collect();
        let choose = |site: &Site| {
            let [out, inp] = site.shape;
            let weight = frozen(&layers, site)?;
            let values = initialiser.needs().contains(&Need::Weight).then(|| weight.to_f32());
            let mut seen = Evidence::of(InitSite { out, inp, scale: site.scale });
            if let Some(values) = &values {
                seen = seen.with_weight(MatRef::from_row_major_slice(values, out, inp));
            }
            let failed = |source| AttachError::Init { site: site.name.clone(), source };
            Ok(self.at_rank(site, initialiser.chosen_rank(&seen, site.rank).map_err(failed)?))
        };
        let sites = self.sites.par_iter().map(choose).collect::<Result<Vec<Site>, AttachError>>()?;
        Ok(Plan { sites, rank_stabilised: self.rank_stabilised })
    }

    /// The site with another rank; its alpha moves with it, so that its scale stays.
    fn at_rank(&self, site: &Site, rank: usize) -> Site {
        let alpha = alpha_after(site.alpha, site.rank, rank, self.rank_stabilised);
        let scale = scale(alpha, rank, self.rank_stabilised);
        Site { rank, alpha, scale, ..site.clone() }
    }

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
            let most = self.largest_rank(initialiser, site);
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
        let sites = given.map(|(site, &rank)| self.at_rank(site, rank));
        Plan { sites: sites.collect(), rank_stabilised: self.rank_stabilised }
    }
}
