//! One way of learning the new task: where it starts, how the change is parametrised, at which rank and scale.

use std::sync::{Arc, Mutex, PoisonError};

use lowrank_adapt::{Form, Offset, Start as FormStart};
use lowrank_init::{Base, Evidence, Gradient, Initialiser, Place, Site, most_rank, redistribute};
use lowrank_linalg::{from_rows, to_rows};
use lowrank_models::{Mlp, Network};
use lowrank_record::{Need, Seed};
use lowrank_tensor::ops::InputObserver;
use lowrank_train::Group;
use serde::Serialize;

use super::teacher::Problem;
use crate::AppError;
use crate::error::Because;
use crate::objective::Trainable;

/// Choices of a start or a form, by name.
pub(super) type Choices = &'static [(&'static str, &'static str)];

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

    fn built_form(&self) -> Result<Box<dyn Form>, AppError> {
        let (name, choices) = self.form;
        lowrank_adapt::by_name(name, choices.iter().copied()).while_doing(self.name)
    }

    /// Starts the change of every layer on the network of a problem and returns what is trained. `first_rate` is the
    /// learning rate of the first step.
    pub(super) fn mount(
        &self,
        problem: &Problem,
        network: &mut Mlp,
        first_rate: f64,
        seed: Seed,
    ) -> Result<Vec<Trainable>, AppError> {
        let (initialiser, form) = (self.initialiser()?, self.built_form()?);
        let sites: Vec<Site> = problem.weights.iter().map(|weight| self.site(weight.shape())).collect();
        let planned: Vec<usize> = sites.iter().map(|site| self.rank.min(site.out.min(site.inp))).collect();
        let seen = match &initialiser {
            Some(initialiser) => {
                Seen::of(initialiser.as_ref(), problem, &sites, &planned, first_rate, seed, self.name)?
            }
            None => Seen { starts: vec![None; sites.len()], ranks: planned },
        };
        let device = network.device().clone();
        let mut trained = Vec::new();
        let layers = network.sites_mut().into_iter().zip(&problem.weights);
        for ((layer, base), (start, rank)) in layers.zip(seen.starts.into_iter().zip(seen.ranks)) {
            // A layer that was given no rank has no adapter.
            if rank == 0 {
                continue;
            }
            let (name, linear) = layer;
            let seed = seed.at("form", &name);
            let at = lowrank_adapt::Site::alone(&name, base, rank, self.scale, seed, &device);
            let adapter = form.build(&at, start).while_doing(format!("starting {} at {name}", self.name))?;
            for (part, variable) in adapter.trainable() {
                let group = match part {
                    "left" => Group::Left,
                    "right" => Group::Right,
                    _ => Group::Dense,
                };
                trained.push(Trainable { name: format!("{name}.{part}"), group, decay: false, variable });
            }
            linear.mount("study", adapter).while_doing(format!("starting {} at {name}", self.name))?;
        }
        Ok(trained)
    }

    fn site(&self, [out, inp]: [usize; 2]) -> Site {
        Site { out, inp, scale: self.scale }
    }
}

/// Where each layer starts, and at which rank.
struct Seen {
    starts: Vec<Option<FormStart>>,
    ranks: Vec<usize>,
}

impl Seen {
    fn of(
        initialiser: &dyn Initialiser,
        problem: &Problem,
        sites: &[Site],
        planned: &[usize],
        first_rate: f64,
        seed: Seed,
        name: &str,
    ) -> Result<Seen, AppError> {
        let doing = || format!("starting {name}");
        let shorter = |site: &Site| site.out.min(site.inp);
        let rho = initialiser.redistributes();
        let most = |site: &Site, rank: usize| rho.map_or(rank, |rho| most_rank(rho, rank, shorter(site)));
        let most: Vec<usize> = sites.iter().zip(planned).map(|(site, &rank)| most(site, rank)).collect();
        let widest = most.iter().copied().max().unwrap_or(1);
        let mut collected = Vec::new();
        if initialiser.needs().contains(&Need::Inputs) {
            for (inputs, site) in layer_inputs(problem)?.iter().zip(sites) {
                let wanted = initialiser.inputs(widest);
                let mut collector = wanted.collector(site.inp, seed.at("inputs", "")).while_doing(doing())?;
                let rows = from_rows(inputs, inputs.len() / site.inp, site.inp).while_doing(doing())?;
                collector.absorb(rows.as_ref()).while_doing(doing())?;
                collected.push(collector.finish().while_doing(doing())?);
            }
        }
        let (mut weights, mut gradients) = (Vec::new(), Vec::new());
        for ((site, weight), gradient) in sites.iter().zip(&problem.weights).zip(&problem.gradients) {
            weights.push(from_rows(&weight.to_f32(), site.out, site.inp).while_doing(doing())?);
            gradients.push(from_rows(gradient, site.out, site.inp).while_doing(doing())?);
        }
        let evidence = |at: usize| {
            let seen = Evidence::of(sites[at])
                .with_weight(weights[at].as_ref())
                .with_gradient(Gradient::Exact(gradients[at].as_ref()))
                .with_rate(first_rate);
            match collected.get(at) {
                Some(collected) => seen.with_inputs(collected.inputs()),
                None => seen,
            }
        };
        let mut ranks = planned.to_vec();
        if rho.is_some() {
            let mut ratios = Vec::with_capacity(sites.len());
            for (at, &most) in most.iter().enumerate() {
                let found = initialiser.ratios(&evidence(at), most, seed.at("ratios", &at.to_string()));
                ratios.push(found.while_doing(doing())?);
            }
            let place = |(at, &most): (usize, &usize)| Place { group: at, planned: planned[at], most };
            let places: Vec<Place> = most.iter().enumerate().map(place).collect();
            ranks = redistribute(&ratios, &places).while_doing(doing())?;
        }
        let mut starts = Vec::with_capacity(sites.len());
        for (at, &rank) in ranks.iter().enumerate() {
            if rank == 0 {
                starts.push(None);
                continue;
            }
            let start = initialiser.start(&evidence(at), rank, seed.at("start", &at.to_string()));
            let start = start.while_doing(doing())?;
            let offset = match start.base {
                Base::Keep => Offset::None,
                Base::Subtract => Offset::Shadow,
                Base::Replace(_) => {
                    return Err(AppError::failed(format!(
                        "{name} brings a base of its own: no study has that"
                    )));
                }
            };
            let (left, right) = start.delta.to_rows();
            let core = start.core.as_ref().map(|core| to_rows(core.as_ref()));
            starts.push(Some(FormStart { left, right, core, rank, offset }));
        }
        Ok(Seen { starts, ranks })
    }
}

/// The most rows of which the inputs of layers are looked at.
const SHOWN: usize = 2048;

/// What each layer of the pretrained network is fed, `[n, in]`, on the first rows to learn from.
fn layer_inputs(problem: &Problem) -> Result<Vec<Vec<f32>>, AppError> {
    let mut network = problem.network()?;
    let ears: Vec<Arc<Ear>> = problem.weights.iter().map(|_| Arc::new(Ear::default())).collect();
    for ((_, linear), ear) in network.sites_mut().into_iter().zip(&ears) {
        linear.observe_inputs(Some(Arc::clone(ear) as Arc<dyn InputObserver>));
    }
    let shown = problem.train.pick(&(0..problem.train.len().min(SHOWN)).collect::<Vec<_>>());
    network.logits(&shown.inputs).while_doing("looking at the inputs of layers")?;
    let heard = |ear: &Arc<Ear>| ear.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok(ears.iter().map(heard).collect())
}

/// Keeps what a layer is fed.
#[derive(Default)]
struct Ear(Mutex<Vec<f32>>);

impl InputObserver for Ear {
    fn observe_inputs(&self, inputs: &[f32], _: usize) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(inputs);
    }
}
