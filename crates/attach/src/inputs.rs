//! Evidence from what layers are fed: statistics of each distinct input, of forward passes alone.
//!
//! Layers that are fed the same tensor one after another (query, key and value; gate and up) are one group with one
//! statistic: they are told by the memory they are shown, not by a hash of every number (PEFT) that two layers could share by
//! chance. No activation outlives its layer's turn.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use faer::{Mat, MatRef};
use lowrank_init::{CollectedInputs, Inputs, InputsCollector, InputsWanted};
use lowrank_linalg::LinalgError;
use lowrank_models::Network;
use lowrank_record::Seed;
use lowrank_tensor::ops::InputObserver;
use rayon::prelude::*;

use crate::{AttachError, Calibration, Plan, Site};

/// Statistics of what the sites of a plan are fed.
#[derive(Debug, Clone, PartialEq)]
pub struct InputStatistics {
    /// The group of each site, by site name.
    pub groups: BTreeMap<String, usize>,
    /// What was collected, one a group.
    pub collected: Vec<CollectedInputs>,
    /// Batches that were run.
    pub batches: usize,
    /// Tokens that were let in.
    pub tokens: u64,
    /// Whether every group that is shown by its components had settled; `false` where all batches, and the most that the start
    /// looks at, ended first. Moments are exact for what they saw.
    pub settled: bool,
}

impl InputStatistics {
    /// What a site is fed.
    #[must_use]
    pub fn of(&self, site: &str) -> Option<Inputs<'_>> {
        self.groups.get(site).and_then(|&group| self.collected.get(group)).map(CollectedInputs::inputs)
    }
}

/// One distinct input.
struct Group {
    collector: InputsCollector,
    /// The largest rank of its sites.
    rank: usize,
    /// Whether it is shown by its moments, which see each batch once and never settle.
    exact: bool,
}

impl Group {
    /// Whether the next batch, of which this many are behind, is of use to it: of text with so many batches. Moments see each
    /// batch once; components are looked for until they have settled, and not given up before all batches were seen.
    fn waits(&self, run: usize, batches: usize) -> bool {
        if self.exact || run < batches {
            return run < batches && !self.collector.has_settled(self.rank);
        }
        !self.collector.is_done(self.rank)
    }
}

/// The layer that was shown last.
struct Last {
    group: usize,
    /// Where its inputs lie in memory, and the first of them: another tensor may come to lie where one was dropped.
    place: (usize, usize),
    first: Vec<u32>,
}

/// What all sites of a pass share. The layers of a model run one after another.
struct Listening {
    groups: Vec<Group>,
    /// The group of each site, found in the first pass.
    group_of: Vec<Option<usize>>,
    last: Option<Last>,
    /// The rows that are let in, of each stream of the network.
    shown: Vec<Vec<bool>>,
    failed: Option<(usize, LinalgError)>,
}

/// One site's ear.
struct Ear {
    site: usize,
    stream: usize,
    inp: usize,
    wanted: InputsWanted,
    rank: usize,
    seed: Seed,
    listening: Arc<Mutex<Listening>>,
}

fn lock(listening: &Mutex<Listening>) -> MutexGuard<'_, Listening> {
    listening.lock().unwrap_or_else(PoisonError::into_inner)
}

impl InputObserver for Ear {
    fn observe_inputs(&self, inputs: &[f32], n: usize) {
        let mut listening = lock(&self.listening);
        if listening.failed.is_some() {
            return;
        }
        if let Err(error) = self.take(&mut listening, inputs, n) {
            listening.failed = Some((self.site, error));
        }
    }
}

impl Ear {
    fn take(&self, listening: &mut Listening, inputs: &[f32], n: usize) -> Result<(), LinalgError> {
        let place = (inputs.as_ptr() as usize, inputs.len());
        let first: Vec<u32> = inputs.iter().take(2 * self.inp).map(|value| value.to_bits()).collect();
        let same = listening.last.take().filter(|last| last.place == place && last.first == first);
        let known = listening.group_of[self.site];
        let (group, is_new) = match (known, &same) {
            // The one before has taken these rows already.
            (_, Some(last)) if known.is_none_or(|known| known == last.group) => (last.group, false),
            (Some(group), _) => (group, true),
            (None, _) => {
                let collector = self.wanted.collector(self.inp, self.seed)?;
                let exact = self.wanted.is_exact(self.inp);
                listening.groups.push(Group { collector, rank: 0, exact });
                (listening.groups.len() - 1, true)
            }
        };
        listening.group_of[self.site] = Some(group);
        listening.last = Some(Last { group, place, first });
        let state = &mut listening.groups[group];
        state.rank = state.rank.max(self.rank);
        if is_new {
            state.collector.absorb(picked(inputs, n, self.inp, listening.shown.get(self.stream)).as_ref())?;
        }
        Ok(())
    }
}

/// The rows that are let in: all of them where nothing says otherwise.
fn picked(inputs: &[f32], n: usize, inp: usize, shown: Option<&Vec<bool>>) -> Mat<f32> {
    let all = MatRef::from_row_major_slice(inputs, n, inp);
    let is_in = |row: usize| shown.is_none_or(|shown| shown.get(row).copied().unwrap_or(false));
    let rows: Vec<usize> = (0..n).filter(|&row| is_in(row)).collect();
    Mat::from_fn(rows.len(), inp, |i, j| all[(rows[i], j)])
}

/// Runs the model forward over the calibration batches, again from the first where they end before components have settled,
/// until every group has what the start asks. `wanted` is the same for all sites, with the largest count of components that any
/// of them may need; `rank(site)` is how many of them have to settle there.
///
/// # Errors
/// [`AttachError`] naming the site, or what the model says.
pub fn collect_inputs<N: Network>(
    model: &mut N,
    plan: &Plan,
    batches: &[Calibration<N::Batch>],
    wanted: InputsWanted,
    rank: &dyn Fn(&Site) -> usize,
    seed: Seed,
) -> Result<InputStatistics, AttachError> {
    if batches.is_empty() {
        return Err(AttachError::NoInputs);
    }
    if !batches.iter().any(|batch| batch.shown.iter().all(|stream| stream.contains(&true))) {
        return Err(AttachError::NothingShown);
    }
    let listening = Arc::new(Mutex::new(Listening {
        groups: Vec::new(),
        group_of: vec![None; plan.sites.len()],
        last: None,
        shown: Vec::new(),
        failed: None,
    }));
    let mut ears: BTreeMap<&str, Arc<dyn InputObserver>> = BTreeMap::new();
    for (index, site) in plan.sites.iter().enumerate() {
        let ear = Ear {
            site: index,
            stream: model.stream(&site.name),
            inp: site.shape[1],
            wanted,
            rank: rank(site),
            seed: seed.at("inputs", &site.name),
            listening: Arc::clone(&listening),
        };
        ears.insert(&site.name, Arc::new(ear));
    }
    let outcome = listen(model, plan, &ears, &listening, batches);
    for (_, linear) in model.sites_mut() {
        linear.observe_inputs(None);
    }
    let run = outcome?;
    drop(ears);
    let mut listening = lock(&listening);
    let settled = listening.groups.iter().all(|group| group.exact || group.collector.has_settled(group.rank));
    let tokens = listening.groups.iter().map(|group| group.collector.rows()).max().unwrap_or(0);
    let mut groups = BTreeMap::new();
    for (site, group) in plan.sites.iter().zip(&listening.group_of) {
        let group = group.ok_or_else(|| AttachError::NotReached { site: site.name.clone() })?;
        groups.insert(site.name.clone(), group);
    }
    let finish = |(index, group): (usize, Group)| {
        let owner = groups.iter().find(|(_, of)| **of == index).map_or("", |(name, _)| name.as_str());
        group.collector.finish().map_err(AttachError::inputs(owner))
    };
    // A group at a time on each thread; the order is that of the groups.
    let collected = std::mem::take(&mut listening.groups).into_par_iter().enumerate().map(finish);
    let collected = collected.collect::<Result<_, AttachError>>()?;
    Ok(InputStatistics { groups, collected, batches: run, tokens, settled })
}

/// The passes; returns how many batches were run.
fn listen<N: Network>(
    model: &mut N,
    plan: &Plan,
    ears: &BTreeMap<&str, Arc<dyn InputObserver>>,
    listening: &Mutex<Listening>,
    batches: &[Calibration<N::Batch>],
) -> Result<usize, AttachError> {
    let mut run = 0;
    loop {
        // A layer whose group has enough is not asked again, and no block behind the last one asked is run.
        let mut waiting = false;
        for (name, linear) in model.sites_mut() {
            let index = plan.sites.iter().position(|site| site.name == name);
            let needed = index.is_some_and(|index| {
                let listening = lock(listening);
                let group = listening.group_of[index].map(|group| &listening.groups[group]);
                group.is_none_or(|group| group.waits(run, batches.len()))
            });
            waiting |= needed;
            linear.observe_inputs(ears.get(name.as_str()).filter(|_| needed).map(Arc::clone));
        }
        if !waiting {
            return Ok(run);
        }
        let batch = &batches[run % batches.len()];
        {
            let mut listening = lock(listening);
            listening.shown.clone_from(&batch.shown);
            listening.last = None;
        }
        model.show_inputs(&batch.batch)?;
        if let Some((site, error)) = lock(listening).failed.take() {
            let name = plan.sites.get(site).map_or("", |site| site.name.as_str());
            return Err(AttachError::inputs(name)(error));
        }
        run += 1;
    }
}
