//! Ranks given out anew: the same sum, where it holds most.

use lowrank_attach::{Looked, Plan, Survey};
use lowrank_init::{Place, most_rank, redistribute};

use super::options::{Advise, RanksBy};
use crate::AppError;
use lowrank_command::Because;

/// A rank for each layer of the plan, in its order; 0 is no adapter.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Suggested {
    /// By the part of its inputs' variance that each component holds, as EVA.
    pub(super) by_inputs: Vec<usize>,
    /// By the part of the whole gradient's energy that each direction holds.
    pub(super) by_gradient: Vec<usize>,
}

impl Suggested {
    /// From what was looked at. Ties go by component and then by the model's order.
    ///
    /// # Errors
    /// [`AppError::Failed`] for a spectrum that is none.
    pub(super) fn of(survey: &Survey, rho: f64) -> Result<Suggested, AppError> {
        let places: Vec<Place> = survey
            .sites
            .iter()
            .enumerate()
            .map(|(group, looked)| {
                let [out, inp] = looked.site.shape;
                let planned = looked.site.rank;
                // Layers that share their inputs have the same parts, each by itself.
                Place { group, planned, most: most_rank(rho, planned, out.min(inp)) }
            })
            .collect();
        let inputs: Vec<Vec<f64>> = survey.sites.iter().map(|looked| (*looked.explained).clone()).collect();
        let all: f64 = survey.sites.iter().map(|looked| looked.gradient.energy).sum();
        let part = |value: &f64| value * value / all.max(f64::MIN_POSITIVE);
        let parts = |looked: &Looked| looked.gradient.values.iter().map(part).collect::<Vec<f64>>();
        let gradients: Vec<Vec<f64>> = survey.sites.iter().map(parts).collect();
        let given = |parts: &[Vec<f64>]| redistribute(parts, &places).while_doing("giving out ranks");
        Ok(Suggested { by_inputs: given(&inputs)?, by_gradient: given(&gradients)? })
    }

    /// Those that are asked for.
    pub(super) fn by(&self, by: RanksBy) -> &[usize] {
        match by {
            RanksBy::Inputs => &self.by_inputs,
            RanksBy::Gradient => &self.by_gradient,
        }
    }
}

/// A recipe that gives `lowrank tune` these ranks, each layer with the scale that it was planned with.
pub(super) fn recipe(options: &Advise, plan: &Plan, ranks: &[usize]) -> String {
    let given = plan.with_ranks(ranks);
    let by = match options.ranks_by {
        RanksBy::Inputs => "the variance of inputs",
        RanksBy::Gradient => "the energy of the gradient",
    };
    let mut text = format!(
        "# Ranks by {by}, each at most {} times {}; use it as in: lowrank tune --recipe FILE\nrank = {}\nalpha = {:?}\n",
        options.rho, options.rank, options.rank, options.alpha
    );
    if options.rank_stabilised {
        text += "rank-stabilised = true\n";
    }
    if given.sites.len() == plan.sites.len() {
        text += &format!("targets = {:?}\n", options.targets);
        if let Some(exclude) = &options.exclude {
            text += &format!("exclude = {exclude:?}\n");
        }
        if let Some(layers) = &options.layers {
            text += &format!("layers = {layers:?}\n");
        }
    } else {
        // Some layers get none: those that do are named.
        let names: Vec<&str> = given.sites.iter().map(|site| site.name.as_str()).collect();
        text += &format!("targets = {:?}\n", names.join(","));
    }
    let moved = || given.sites.iter().filter(|site| site.rank != options.rank);
    if moved().next().is_some() {
        text += "\n[rank-pattern]\n";
        text.extend(moved().map(|site| format!("{:?} = {}\n", site.name, site.rank)));
        text += "\n[alpha-pattern]\n";
        text.extend(moved().map(|site| format!("{:?} = {:?}\n", site.name, site.alpha)));
    }
    text
}
