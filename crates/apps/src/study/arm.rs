//! One way of learning the new task: where it starts, how the change is parametrised, at which rank and scale.

use lowrank_adapt::Offset;
use lowrank_attach::{Attached, Calibration, Collected, Plan, Site, Way, attach, collect, collect_inputs};
use lowrank_init::Initialiser;
use lowrank_models::{Mlp, Network, Recompute, Rows};
use lowrank_record::{Need, Seed};
use lowrank_train::Group;
use serde::Serialize;

use super::teacher::Problem;
use crate::AppError;
use crate::objective::Trainable;
use lowrank_command::Because;

/// Choices of a start or a form, by name.
pub(super) type Choices = &'static [(&'static str, &'static str)];

/// Rows from which a gradient is taken as evidence.
const GRADIENT_ROWS: usize = 256;
/// Rows of which the inputs of layers are looked at.
const INPUT_ROWS: usize = 2048;

/// What an arm is in its study.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// It is compared.
    Compared,
    /// It has a method's sizes and random directions.
    Control,
    /// It has another number of trained values, and is there to be measured against.
    Reference,
}

/// One way of learning the new task.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arm {
    pub(super) name: &'static str,
    pub(super) part: Part,
    /// The initialiser with its choices; none for a form that makes its own start.
    pub(super) start: Option<(&'static str, Choices)>,
    /// The form with its choices.
    pub(super) form: (&'static str, Choices),
    /// The rank; a layer whose shorter side is less takes that.
    pub(super) rank: usize,
    /// What the change is multiplied with.
    pub(super) scale: f64,
}

impl Arm {
    /// A start with two trained factors.
    pub(super) const fn lora(
        name: &'static str,
        init: &'static str,
        choices: Choices,
        rank: usize,
        scale: f64,
    ) -> Arm {
        Arm { name, part: Part::Compared, start: Some((init, choices)), form: ("lora", &[]), rank, scale }
    }

    /// Full fine-tuning of every weight.
    pub(super) const FULL: Arm =
        Arm { name: "full", part: Part::Reference, start: None, form: ("full", &[]), rank: 1, scale: 1.0 };

    /// The same in another form.
    pub(super) const fn form(mut self, form: &'static str, choices: Choices) -> Arm {
        self.form = (form, choices);
        self
    }

    /// The same as another part of the study.
    pub(super) const fn part(mut self, part: Part) -> Arm {
        self.part = part;
        self
    }

    fn initialiser(&self) -> Result<Option<Box<dyn Initialiser>>, AppError> {
        let Some((name, choices)) = self.start else { return Ok(None) };
        lowrank_init::by_name(name, choices.iter().copied()).map(Some).while_doing(self.name)
    }

    /// Every layer at the rank and scale of the arm.
    fn plan(&self, network: &Mlp) -> Plan {
        let site = |(name, shape): (String, [usize; 2])| {
            let rank = self.rank.min(shape[0]).min(shape[1]);
            Site { name, shape, rank, alpha: self.scale * rank as f64, scale: self.scale }
        };
        let layers = network.sites().into_iter().map(|(name, layer)| (name, layer.shape()));
        Plan { sites: layers.map(site).collect(), rank_stabilised: false }
    }

    /// Starts the change of every layer on the network of a problem, with evidence from the first rows to learn from, and
    /// returns what is trained. `first_rate` is the learning rate of the first step.
    pub(super) fn mount(
        &self,
        problem: &Problem,
        network: &mut Mlp,
        first_rate: f64,
        seed: Seed,
    ) -> Result<Vec<Trainable>, AppError> {
        let initialiser = self.initialiser()?;
        let (name, choices) = self.form;
        let form = lowrank_adapt::by_name(name, choices.iter().copied()).while_doing(self.name)?;
        let doing = || format!("starting {}", self.name);
        let mut plan = self.plan(network);
        let needs = initialiser.as_ref().map(|initialiser| initialiser.needs()).unwrap_or_default();
        let (mut gradients, mut inputs) = (None, None);
        if let Some(initialiser) = &initialiser {
            if needs.contains(&Need::Gradient) {
                let shown = [shown(problem, GRADIENT_ROWS)];
                let leading = |rank: usize| initialiser.leading(rank);
                let found = collect(
                    network,
                    &plan,
                    &shown,
                    Recompute::Nothing,
                    &leading,
                    seed.at("study", "gradient"),
                );
                gradients = Some(found.while_doing(doing())?);
            }
            if needs.contains(&Need::Inputs) {
                let rank = |site: &Site| plan.largest_rank(initialiser.as_ref(), site);
                let wanted = initialiser.inputs(plan.sites.iter().map(rank).max().unwrap_or(1));
                let shown = [shown(problem, INPUT_ROWS)];
                let found = collect_inputs(network, &plan, &shown, wanted, &rank, seed.at("study", "inputs"));
                let found = found.while_doing(doing())?;
                plan = plan
                    .redistributed(initialiser.as_ref(), &found, seed.at("study", "ranks"))
                    .while_doing(doing())?;
                inputs = Some(found);
            }
        }
        let collected = Collected {
            gradients: gradients.as_ref(),
            inputs: inputs.as_ref(),
            first_rate: Some(first_rate),
        };
        let way = Way { initialiser: initialiser.as_deref(), form: &*form, offset: Offset::Shadow };
        let attached =
            attach(network, &plan, way, collected, seed.at("study", "start"), "study").while_doing(doing())?;
        Ok(attached.iter().flat_map(trainables).collect())
    }
}

/// The first rows to learn from, as evidence is collected on them.
fn shown(problem: &Problem, rows: usize) -> Calibration<Rows> {
    let first: Vec<usize> = (0..problem.train.len().min(rows)).collect();
    Calibration { batch: problem.train.pick(&first), shown: Vec::new() }
}

fn trainables(attached: &Attached) -> impl Iterator<Item = Trainable> {
    attached.variables.iter().map(|(part, variable)| {
        let group = match *part {
            "left" => Group::Left,
            "right" => Group::Right,
            _ => Group::Dense,
        };
        let name = format!("{}.{part}", attached.site.name);
        Trainable { name, group, decay: false, variable: variable.clone() }
    })
}
