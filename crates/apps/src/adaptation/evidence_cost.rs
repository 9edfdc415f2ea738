//! What collecting the evidence of a start takes, from shapes.

use lowrank_attach::Plan;
use lowrank_init::{Initialiser, Statistic};
use lowrank_record::{Need, Seed};

use super::memory::{floats, passing};
use super::prepare::{Prepared, initialiser};
use super::work::Work;
use super::{Adaptation, Method};
use crate::subject::Subject;
use crate::{AppError, Progress};
use lowrank_command::Because;

/// What collecting evidence takes.
#[derive(Default)]
pub(super) struct EvidenceCost {
    /// Floating-point operations.
    pub(super) flops: f64,
    /// Bytes besides model and process, where anything is collected.
    pub(super) bytes: Option<usize>,
}

impl<N: Subject> Prepared<N> {
    /// The plan as the start of the method leaves it.
    ///
    /// # Errors
    /// As collecting inputs and giving out ranks.
    pub(super) fn as_started(
        &mut self,
        options: &Adaptation,
        method: &Method,
        (plan, given): (&Plan, Option<&Plan>),
        progress: &mut dyn Progress,
    ) -> Result<Plan, AppError> {
        let Some(init) = initialiser(method)? else { return Ok(plan.clone()) };
        let chosen = plan.chosen(&self.model.decoder, &*init);
        let plan = &chosen.while_doing(format!("choosing the ranks of {}", method.name))?;
        // At ρ = 1 every site keeps its rank.
        if init.redistributes().is_none_or(|rho| rho <= 1.0) {
            return Ok(plan.clone());
        }
        if let Some(given) = given {
            return Ok(given.clone());
        }
        progress.say(&format!("{}: looking at inputs, by which it gives out its ranks", method.name));
        let before = std::mem::replace(&mut self.plan, plan.clone());
        let inputs = self.inputs(options, &*init, Seed(options.seed));
        let plan = std::mem::replace(&mut self.plan, before);
        let seed = Seed(options.seed).at("init", "ranks");
        plan.redistributed(&*init, &inputs?, seed)
            .while_doing(format!("giving out the ranks of {}", method.name))
    }

    /// What the evidence of a start takes on the layers of a plan, whose distinct inputs have these widths.
    ///
    /// # Errors
    /// [`AppError::Usage`] for calibration text that cannot be read.
    pub(super) fn evidence_cost(
        &self,
        options: &Adaptation,
        init: Option<&dyn Initialiser>,
        plan: &Plan,
        work: &Work,
        widths: &[usize],
        usual: f64,
    ) -> Result<EvidenceCost, AppError> {
        let mut cost = EvidenceCost::default();
        let Some(init) = init else { return Ok(cost) };
        let needs = init.needs();
        let shown = |usual: usize| self.calibration(options, Seed(options.seed), usual);
        // Of text other than the training's, rows may be longer or shorter.
        let tokens = |batches: &[N::Rows]| {
            let all: usize = batches.iter().map(|batch| N::filled(batch)).sum();
            if batches.is_empty() { usual } else { all as f64 / batches.len() as f64 }
        };
        let mut bytes = 0;
        if needs.contains(&Need::Gradient) {
            let batches = shown(1)?;
            let tokens = tokens(&batches);
            cost.flops += work.gradients(plan, &|rank| init.leading(rank), batches.len(), tokens);
            let held: usize = plan
                .sites
                .iter()
                .map(|site| {
                    let ([out, inp], leading) = (site.shape, init.leading(site.rank));
                    let columns = leading.sketch.width(leading.count, out.min(inp));
                    // Factors that are kept; of several batches also sums in f64.
                    if batches.len() > 1 {
                        12 * columns * (out + inp)
                    } else {
                        4 * leading.count * (out + inp)
                    }
                })
                .sum();
            // One gradient at a time is formed, mapped, and decomposed.
            let largest = plan.sites.iter().map(|site| site.shape[0] * site.shape[1]).max().unwrap_or(0);
            bytes = bytes.max(held + 16 * largest + 4 * floats(self, tokens as usize));
        }
        if needs.contains(&Need::Inputs) {
            let batches = self.input_batches(options)?;
            let rank = plan.sites.iter().map(|site| plan.largest_rank(init, site)).max().unwrap_or(1);
            let asked = init.inputs(rank);
            let exact = if asked.statistic == Statistic::Moments { usize::MAX } else { asked.exact_up_to };
            let tokens = tokens(&shown(1)?);
            cost.flops += work.inputs(widths, exact, asked.count, batches, tokens);
            let held = |&width: &usize| {
                let exact = width <= exact;
                8 * width * if exact { width } else { 2 * asked.count.min(width) }
            };
            let widest = widths.iter().copied().max().unwrap_or(0);
            let at_a_time = 8 * widest * (widest + 1024) + 4 * passing(self, tokens as usize);
            bytes = bytes.max(widths.iter().map(held).sum::<usize>() + at_a_time);
        }
        cost.bytes = (bytes > 0).then_some(bytes);
        Ok(cost)
    }
}

/// The width of each distinct input of the plan's layers: layers that share theirs count once, as a pass over one example tells.
pub(super) fn input_widths<N: Subject>(prepared: &mut Prepared<N>) -> Result<Vec<usize>, AppError> {
    let groups = prepared.input_groups()?;
    let count = groups.values().max().map_or(0, |last| last + 1);
    let mut widths = vec![0; count];
    for site in &prepared.plan.sites {
        if let Some(&group) = groups.get(&site.name) {
            widths[group] = site.shape[1];
        }
    }
    Ok(widths)
}
