//! What the pass comes to: each layer and each method, in numbers.

use std::path::PathBuf;

use lowrank_attach::{Looked, Spectrum, Survey};
use lowrank_record::Value;
use serde::Serialize;

use super::options::{Advise, RanksBy};
use super::suggest::Suggested;
use crate::adaptation::{Method, Predicted, Prepared};
use crate::subject::Subject;

/// What `lowrank advise` found.
#[derive(Debug, Clone, Serialize)]
pub struct Advice {
    /// The model.
    pub model: String,
    /// Hash of its tensors.
    pub model_hash: String,
    /// Hash of the data.
    pub data_hash: String,
    /// Tokens whose inputs were looked at.
    pub tokens: usize,
    /// Tokens that carry loss.
    pub loss_tokens: f64,
    /// Mean loss on them, in the unit of the kind of network: nats per token of a decoder.
    pub loss: f64,
    /// The planned rank.
    pub rank: usize,
    /// The part that a suggested rank has to hold.
    pub share: f64,
    /// How many times its rank a layer may get.
    pub rho: f64,
    /// What written ranks go by.
    pub ranks_by: RanksBy,
    /// Parts of the whole, over all layers.
    pub summed: Summed,
    /// The methods, in the order in which they were asked.
    pub methods: Vec<MethodAdvice>,
    /// The layers, in the order of the model.
    pub sites: Vec<SiteAdvice>,
    /// What it comes to, in sentences.
    pub words: Vec<String>,
    /// The folder with the page.
    pub run: PathBuf,
    /// The recipe with the suggested ranks, where one was written.
    pub ranks_file: Option<PathBuf>,
    /// Seconds in all.
    pub seconds: f64,
}

/// Over all layers.
#[derive(Debug, Clone, Serialize)]
pub struct Summed {
    /// Part of the gradient's energy in each layer's first r directions.
    pub gradient_in_first: f64,
    /// The most of the gradient that a start of two trained factors of these ranks can see: its first 2r directions.
    pub most_seen: f64,
    /// Part of the inputs' variance about their mean in the first r components, averaged over layers.
    pub explained: f64,
    /// The same with the ranks given out anew by it.
    pub explained_anew: f64,
    /// Part of the gradient's energy in as many first directions as ranks given out anew by it.
    pub gradient_anew: f64,
    /// Effective rank of the weights, averaged over the layers of which it is known.
    pub weight_effective_rank: Option<f64>,
    /// Of the inputs.
    pub inputs_effective_rank: Option<f64>,
    /// Of the gradients.
    pub gradient_effective_rank: Option<f64>,
}

/// One method.
#[derive(Debug, Clone, Serialize)]
pub struct MethodAdvice {
    /// As it was asked for.
    pub name: String,
    /// Its start.
    pub init: String,
    /// Its form.
    pub form: String,
    /// The part of the gradient in the space that its trained values reach, over all layers; none for a form that does not tell.
    pub seen: Option<f64>,
    /// Cosine of a first step of gradient descent with the negative gradient, over all layers.
    pub cosine: Option<f64>,
    /// What part of what it looked at the start holds, averaged over layers, in its own words.
    pub captured: Option<(String, f64)>,
    /// Layers at which it cannot start on this batch.
    pub refused: usize,
    /// Why, at the first of them.
    pub why: Option<String>,
    /// What training would cost.
    pub predicted: Option<Predicted>,
}

/// One layer.
#[derive(Debug, Clone, Serialize)]
pub struct SiteAdvice {
    /// Its name.
    pub site: String,
    /// `[out, in]`.
    pub shape: [usize; 2],
    /// The planned rank.
    pub rank: usize,
    /// Of its weight.
    pub weight: SpectrumAdvice,
    /// Of its inputs about zero: of the second moment, by the roots of its eigenvalues.
    pub inputs: SpectrumAdvice,
    /// Of its gradient.
    pub gradient: SpectrumAdvice,
    /// Its part of the whole gradient's energy.
    pub gradient_part: f64,
    /// Part of the inputs' variance about their mean in the first r components.
    pub explained: f64,
    /// The smallest rank that holds the asked part of that variance; none where more components than were looked at.
    pub rank_for_inputs: Option<usize>,
    /// The same of the gradient's energy.
    pub rank_for_gradient: Option<usize>,
    /// Its rank when the sum of ranks is given out anew by the inputs' variance.
    pub anew_by_inputs: usize,
    /// By the gradient's energy.
    pub anew_by_gradient: usize,
    /// Part of its gradient that each method sees, in their order.
    pub seen: Vec<Option<f64>>,
    /// Cosine of each method's first step.
    pub cosine: Vec<Option<f64>>,
}

/// What a spectrum says.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct SpectrumAdvice {
    /// Exponential of the spectrum's entropy; none for a matrix whose values are not all computed.
    pub effective_rank: Option<f64>,
    /// `Σσ²/σ₁²`.
    pub stable_rank: f64,
    /// `(Σσ²)²/Σσ⁴`; none for a matrix whose values are not all computed.
    pub participation: Option<f64>,
    /// Part of `Σσ²` in the first r values.
    pub in_first: f64,
    /// `√Σσ²`.
    pub norm: f64,
}

impl SpectrumAdvice {
    fn of(spectrum: &Spectrum, rank: usize) -> SpectrumAdvice {
        SpectrumAdvice {
            effective_rank: spectrum.effective_rank(),
            stable_rank: spectrum.stable_rank(),
            participation: spectrum.participation(),
            in_first: spectrum.share(rank),
            norm: spectrum.energy.sqrt(),
        }
    }
}

/// `part/whole`; 0 of nothing.
fn part(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { (part / whole).min(1.0) } else { 0.0 }
}

/// The mean of what is known.
fn mean(values: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    let known: Vec<f64> = values.flatten().collect();
    (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64)
}

fn explained(looked: &Looked, rank: usize) -> f64 {
    looked.explained.iter().take(rank).sum::<f64>().min(1.0)
}

/// The smallest count of leading parts that holds the share.
pub(super) fn rank_for(parts: &[f64], share: f64) -> Option<usize> {
    let mut held = 0.0;
    parts
        .iter()
        .position(|part| {
            held += part;
            held >= share
        })
        .map(|index| index + 1)
}

impl Advice {
    /// Puts together what was looked at; the words and the files come later.
    pub(super) fn new<N: Subject>(
        options: &Advise,
        prepared: &Prepared<N>,
        methods: &[Method],
        survey: &Survey,
        suggested: &Suggested,
        predicted: Vec<Predicted>,
        run: PathBuf,
    ) -> Advice {
        let all: f64 = survey.sites.iter().map(|looked| looked.gradient.energy).sum();
        let sites: Vec<SiteAdvice> = survey
            .sites
            .iter()
            .zip(suggested.by_inputs.iter().zip(&suggested.by_gradient))
            .map(|(looked, (&by_inputs, &by_gradient))| site(looked, options, all, by_inputs, by_gradient))
            .collect();
        let over = |value: &dyn Fn(&Looked) -> f64| survey.sites.iter().map(value).sum::<f64>();
        let count = survey.sites.len().max(1) as f64;
        let anew = |ranks: &[usize], value: &dyn Fn(&Looked, usize) -> f64| {
            survey.sites.iter().zip(ranks).map(|(looked, &rank)| value(looked, rank)).sum::<f64>()
        };
        let first = |looked: &Looked, rank: usize| looked.gradient.energy * looked.gradient.share(rank);
        let summed = Summed {
            gradient_in_first: part(over(&|looked| first(looked, looked.site.rank)), all),
            most_seen: part(over(&|looked| first(looked, 2 * looked.site.rank)), all),
            explained: over(&|looked| explained(looked, looked.site.rank)) / count,
            explained_anew: anew(&suggested.by_inputs, &explained) / count,
            gradient_anew: part(anew(&suggested.by_gradient, &first), all),
            weight_effective_rank: mean(sites.iter().map(|site| site.weight.effective_rank)),
            inputs_effective_rank: mean(sites.iter().map(|site| site.inputs.effective_rank)),
            gradient_effective_rank: mean(sites.iter().map(|site| site.gradient.effective_rank)),
        };
        let mut predicted = predicted.into_iter();
        let methods = methods.iter().enumerate();
        let methods =
            methods.map(|(index, each)| method(index, each, survey, all, predicted.next())).collect();
        Advice {
            model: prepared.model.name.clone(),
            model_hash: prepared.model.hash.clone(),
            data_hash: N::hash(&prepared.data.train),
            tokens: survey.tokens,
            loss_tokens: survey.weight,
            loss: survey.loss,
            rank: options.rank,
            share: options.share,
            rho: options.rho,
            ranks_by: options.ranks_by,
            summed,
            methods,
            sites,
            words: Vec::new(),
            run,
            ranks_file: None,
            seconds: 0.0,
        }
    }
}

fn site(looked: &Looked, options: &Advise, all: f64, by_inputs: usize, by_gradient: usize) -> SiteAdvice {
    let rank = looked.site.rank;
    let energy = looked.gradient.energy;
    let followed = |index: usize| {
        let tried = looked.candidates.get(index)?.as_ref().ok()?;
        tried.followed
    };
    let indices = || 0..looked.candidates.len();
    let cosine = |index| {
        let found = followed(index)?;
        let size = (found.moved * energy).sqrt();
        (size > 0.0).then(|| found.inner / size)
    };
    SiteAdvice {
        site: looked.site.name.clone(),
        shape: looked.site.shape,
        rank,
        weight: SpectrumAdvice::of(&looked.weight, rank),
        inputs: SpectrumAdvice::of(&looked.inputs, rank),
        gradient: SpectrumAdvice::of(&looked.gradient, rank),
        gradient_part: part(energy, all),
        explained: explained(looked, rank),
        rank_for_inputs: rank_for(&looked.explained, options.share),
        rank_for_gradient: looked.gradient.rank_for(options.share),
        anew_by_inputs: by_inputs,
        anew_by_gradient: by_gradient,
        seen: indices().map(|index| followed(index).map(|found| part(found.seen, energy))).collect(),
        cosine: indices().map(cosine).collect(),
    }
}

fn method(
    index: usize,
    method: &Method,
    survey: &Survey,
    all: f64,
    predicted: Option<Predicted>,
) -> MethodAdvice {
    let tried = || survey.sites.iter().filter_map(|looked| looked.candidates.get(index));
    let mut refused = tried().filter_map(|tried| tried.as_ref().err());
    let why = refused.next().cloned();
    let refused = usize::from(why.is_some()) + refused.count();
    // A form that tells of one layer tells of all.
    let told: Vec<_> = tried().filter_map(|tried| tried.as_ref().ok()?.followed).collect();
    let sum = |value: &dyn Fn(&lowrank_attach::Followed) -> f64| told.iter().map(value).sum::<f64>();
    let size = (sum(&|found| found.moved) * all).sqrt();
    let reports = || tried().filter_map(|tried| tried.as_ref().ok()).map(|tried| &tried.report);
    MethodAdvice {
        name: method.name.clone(),
        init: method.init.clone(),
        form: method.form.clone(),
        seen: (!told.is_empty()).then(|| part(sum(&|found| found.seen), all)),
        cosine: (size > 0.0).then(|| sum(&|found| found.inner) / size),
        captured: captured(&mut reports().flat_map(|report| report.iter())),
        refused,
        why,
        predicted,
    }
}

/// The first fact that speaks of energy or variance, averaged over the layers that state it.
fn captured<'a>(facts: &mut dyn Iterator<Item = (&'a str, &'a Value)>) -> Option<(String, f64)> {
    let speaks = |name: &str| ["energy", "variance", "captured"].iter().any(|word| name.contains(word));
    let mut found: Option<(&str, f64, f64)> = None;
    for (name, value) in facts {
        let Value::Number(value) = value else { continue };
        match &mut found {
            None if speaks(name) => found = Some((name, *value, 1.0)),
            Some((first, sum, count)) if *first == name => {
                *sum += value;
                *count += 1.0;
            }
            _ => {}
        }
    }
    found.map(|(name, sum, count)| (name.to_owned(), sum / count))
}
