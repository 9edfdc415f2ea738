//! Everything before the first step: model, data, plan, evidence, start.

use std::collections::BTreeMap;
use std::path::Path;

use lowrank_adapt::{Form, Offset, Weight};
use lowrank_attach::{
    Attached, Calibration, Gradients, Plan, Targets as Chosen, admits_passes, attach, attach_stored, collect,
};
use lowrank_eval::layout;
use lowrank_init::{Initialiser, Leading};
use lowrank_models::Recompute;
use lowrank_record::{Need, Seed};
use lowrank_task::{Batch, BatchPlan, Batching, Example, Layout};
use lowrank_tensor::Matrix;
use lowrank_tensor::ops::Targets;

use super::stored_start::{self, Kept};
use super::{Adaptation, Method, settings};
use crate::choices::{OffsetChoice, RecomputeChoice};
use crate::data::{Data, Reading, read, token_rows};
use crate::error::Because;
use crate::model::ADAPTER;
use crate::objective::batches;
use crate::verify::{largest_difference, sample_logits};
use crate::{AppError, Model, Progress};

/// A model with its data and the layers to adapt.
pub(crate) struct Prepared {
    pub(crate) model: Model,
    pub(crate) data: Data,
    pub(crate) plan: Plan,
    pub(crate) batching: Batching,
    pub(crate) recompute: Recompute,
    /// The weights that an offset inside the base replaced.
    originals: Vec<(String, Matrix)>,
}

/// A start on every layer.
pub(crate) struct Started {
    pub(crate) attached: Vec<Attached>,
    /// Largest memory of the evidence pass, where the system tells.
    pub(crate) evidence_peak: Option<u64>,
    /// The start's choices as they are in force.
    pub(crate) settings: Vec<(String, String)>,
    /// Largest difference that the start makes to sample logits.
    pub(crate) moved: f64,
    /// What decides the numbers of a run from this start.
    pub(crate) identity: BTreeMap<String, String>,
}

impl Prepared {
    /// Opens and checks everything that the options name.
    ///
    /// # Errors
    /// [`AppError::Usage`] naming what cannot be used, of the ground or of a method.
    pub(crate) fn open(
        options: &Adaptation,
        methods: &[Method],
        progress: &mut dyn Progress,
    ) -> Result<Prepared, AppError> {
        for method in methods {
            form(method)?;
        }
        check_numbers(options)?;
        if options.model.is_some() && options.data.is_none() {
            return Err(AppError::usage(
                "--data FILE is needed with --model: what should the adapter learn?",
            ));
        }
        let model = Model::open(options.model.as_deref(), options.widen.hold())?;
        progress.say(&format!(
            "model: {} ({} layers, {:.1} M parameters, {:.0} MB in memory)",
            model.name,
            model.decoder.config.layers,
            model.decoder.config.parameters() as f64 / 1e6,
            model.decoder.bytes() as f64 / 1e6
        ));
        let chosen = Chosen::parse(&options.targets, options.exclude.as_deref(), options.layers.as_deref());
        let plan = Plan::new(
            &model.decoder,
            &chosen.input("--targets")?,
            options.rank,
            options.alpha,
            options.rank_stabilised,
            &numbers(&options.rank_pattern, "--rank-pattern")?,
            &numbers(&options.alpha_pattern, "--alpha-pattern")?,
        )
        .input("the plan")?;
        let max_length = model.length(options.max_length)?;
        let reading = Reading {
            data: options.data.as_deref(),
            held_out_data: options.held_out_data.as_deref(),
            held_out: options.held_out,
            eval_limit: options.eval_limit,
            limit: options.limit,
            layout: Layout { format: options.format.format(), loss_on: options.loss_on.learn(), max_length },
        };
        let data = read(&reading, &model, Seed(options.seed))?;
        let longest =
            data.train.iter().chain(&data.held_out).map(|example| example.tokens.len()).max().unwrap_or(2);
        // Rows are as long as the longest record unless packing can fill longer ones.
        let time = if options.packing { max_length.min(longest.max(256)) } else { longest };
        let batching =
            Batching { batch: options.batch, time, packing: options.packing, pad: model.tokenizer()?.pad() };
        let recompute =
            if options.recompute == RecomputeChoice::Blocks { Recompute::Blocks } else { Recompute::Nothing };
        let prepared = Prepared { model, data, plan, batching, recompute, originals: Vec::new() };
        for method in methods {
            prepared.admit(options, method)?;
            settings::of(&prepared, options, method.rate)?;
        }
        Ok(prepared)
    }

    /// Refuses a start that one of the layers cannot have, before anything is computed.
    ///
    /// # Errors
    /// [`AppError::Usage`] naming the layer.
    pub(crate) fn admit(&self, options: &Adaptation, method: &Method) -> Result<(), AppError> {
        let initialiser = initialiser(method)?;
        if initialiser.needs().contains(&Need::Gradient) {
            let batches = self.calibration(options, Seed(options.seed))?.len();
            for site in &self.plan.sites {
                admits_passes(&initialiser.leading(site.rank), batches).input(&site.name)?;
            }
        }
        for site in &self.plan.sites {
            let [out, inp] = site.shape;
            let shape = lowrank_init::Site { out, inp, scale: site.scale };
            initialiser.admits(shape, site.rank).input(&site.name)?;
        }
        Ok(())
    }

    /// Shows what was read and what will be adapted.
    pub(crate) fn describe(&self, options: &Adaptation, progress: &mut dyn Progress) {
        for line in self.data.summary.to_string().lines() {
            progress.say(line);
        }
        if let Some(summary) = &self.data.held_out_summary {
            let (read, truncated, dropped) = (summary.read, summary.truncated, summary.dropped);
            progress.say(&format!(
                "held-out file: {read} records, {truncated} truncated, {dropped} dropped with nothing left to learn"
            ));
        }
        progress.say(&format!(
            "{} examples to train on, {} held out",
            self.data.train.len(),
            self.data.held_out.len()
        ));
        progress.say(&format!(
            "adapting {} layers at rank {}, alpha {}: {} trainable parameters",
            self.plan.sites.len(),
            options.rank,
            options.alpha,
            self.plan.parameters()
        ));
    }

    /// Collects what the start needs and mounts it; from where it is kept if it is there, and kept there otherwise.
    pub(crate) fn start(
        &mut self,
        options: &Adaptation,
        method: &Method,
        kept: Option<&Path>,
        progress: &mut dyn Progress,
    ) -> Result<Started, AppError> {
        let name = method.init.as_str();
        let initialiser = initialiser(method)?;
        let form = form(method)?;
        let identity = settings::identity(self, options, method)?;
        let settings =
            initialiser.settings().into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        let before = sample_logits(&self.model)?;
        if options.offset == OffsetChoice::Base {
            self.originals = frozen(&self.model)?;
        }
        let kept = kept.map(|path| Kept { path, identity: &identity });
        if let Some(kept) = kept.filter(|kept| kept.path.is_file()) {
            let starts = stored_start::read(kept, &self.plan)?;
            let attached = attach_stored(&mut self.model.decoder, &self.plan, starts, form, ADAPTER)
                .input(format!("the stored start {}", kept.path.display()))?;
            let moved = largest_difference(&before, &sample_logits(&self.model)?);
            return Ok(Started { attached, evidence_peak: None, settings, moved, identity });
        }
        let seed = Seed(options.seed);
        let (mut gradients, mut evidence_peak) = (None, None);
        if initialiser.needs().contains(&Need::Gradient) {
            progress.say(&format!("{name}: collecting the gradients of {} layers", self.plan.sites.len()));
            progress.reset_peak();
            gradients = Some(self.gradients(options, &|rank| initialiser.leading(rank), seed)?);
            evidence_peak = progress.peak_memory();
        }
        let offset = if options.offset == OffsetChoice::Base { Offset::Base } else { Offset::Shadow };
        let attached = attach(
            &mut self.model.decoder,
            &self.plan,
            &*initialiser,
            form,
            offset,
            gradients.as_ref(),
            seed.at("init", name),
            ADAPTER,
        )
        .while_doing(format!("starting {name}"))?;
        warn(&attached, progress);
        if let Some(kept) = kept {
            stored_start::write(&attached, kept)?;
        }
        let moved = largest_difference(&before, &sample_logits(&self.model)?);
        Ok(Started { attached, evidence_peak, settings, moved, identity })
    }

    /// The leading factors of the gradient of each layer: of the first step's batch, or of what the options name.
    ///
    /// # Errors
    /// [`AppError::Usage`] for calibration text that cannot be read.
    pub(crate) fn gradients(
        &mut self,
        options: &Adaptation,
        leading: &dyn Fn(usize) -> Leading,
        seed: Seed,
    ) -> Result<Gradients, AppError> {
        let calibration: Vec<Calibration> = self
            .calibration(options, seed)?
            .into_iter()
            .map(|batch| Calibration {
                layout: layout(&batch),
                targets: Targets { ids: batch.targets.into(), weights: None },
                tokens: batch.tokens,
            })
            .collect();
        collect(
            &mut self.model.decoder,
            &self.plan,
            &calibration,
            self.recompute,
            leading,
            seed.at("init", "evidence"),
        )
        .input("collecting gradients")
    }

    /// The batches on which gradients are collected.
    fn calibration(&self, options: &Adaptation, seed: Seed) -> Result<Vec<Batch>, AppError> {
        let rows = if options.calibration_batch > 0 { options.calibration_batch } else { options.batch };
        let batching = Batching { batch: rows, ..self.batching };
        let train = &self.data.train;
        let found = if let Some(file) = &options.calibration_tokens {
            let rows: Vec<Example> = token_rows(file, &self.model)?.into_iter().map(whole_row).collect();
            let time = rows.iter().map(|row| row.tokens.len()).max().unwrap_or(2);
            batches(&rows, Batching { time, packing: false, ..batching })
        } else if options.calibration > 0 {
            let order = seed.at("calibration", "order").permutation(train.len());
            let chosen: Vec<Example> =
                order.into_iter().take(options.calibration).map(|index| train[index].clone()).collect();
            batches(&chosen, batching)
        } else {
            // The first step sees it next: no more memory than that step, and nothing that training would not see.
            BatchPlan::new(train, self.batching, settings::data_order(options), 0)
                .and_then(|plan| plan.batch(0))
                .map(|batch| vec![batch])
        };
        found.input("batching the calibration text")
    }

    /// Takes every adapter off and puts replaced weights back.
    pub(crate) fn clear(&mut self) -> Result<(), AppError> {
        self.model.unmount()?;
        let mut originals: BTreeMap<String, Matrix> =
            std::mem::take(&mut self.originals).into_iter().collect();
        for (name, linear) in self.model.decoder.sites_mut() {
            if let Some(original) = originals.remove(&name) {
                linear.replace_weight(original).while_doing(&name)?;
            }
        }
        Ok(())
    }
}

/// A row of which every token behind the first carries loss.
fn whole_row(tokens: Vec<u32>) -> Example {
    let loss = (0..tokens.len()).map(|index| index > 0).collect();
    Example { tokens, loss, next: None, line: 0 }
}

fn frozen(model: &Model) -> Result<Vec<(String, Matrix)>, AppError> {
    let mut all = Vec::new();
    for (name, linear) in model.decoder.sites() {
        if let Weight::Frozen(matrix) = linear.weight() {
            all.push((name, matrix.clone()));
        }
    }
    Ok(all)
}

/// Repeats what starts warn of, once each with the number of layers.
fn warn(attached: &[Attached], progress: &mut dyn Progress) {
    let mut warnings: BTreeMap<String, usize> = BTreeMap::new();
    for warning in attached.iter().filter_map(|each| each.report.get("warning")) {
        *warnings.entry(warning.to_string()).or_default() += 1;
    }
    for (warning, count) in warnings {
        progress.say(&format!("warning at {count} layers: {warning}"));
    }
}

/// The initialiser of a method, with its choices.
///
/// # Errors
/// [`AppError::Usage`] naming the nearest known name.
pub(super) fn initialiser(method: &Method) -> Result<Box<dyn Initialiser>, AppError> {
    lowrank_init::by_name(&method.init, &method.init_options).input("--init")
}

/// The form of a method, with its choices.
///
/// # Errors
/// [`AppError::Usage`] for a form that is not known, or a choice that it does not have.
fn form(method: &Method) -> Result<&'static dyn Form, AppError> {
    let name = &method.form;
    let form = lowrank_adapt::by_name(name).ok_or_else(|| {
        let known: Vec<&str> = lowrank_adapt::ALL.iter().map(|form| form.card().name).collect();
        AppError::usage(format!("--form {name}: known forms are {}", known.join(", ")))
    })?;
    // No form has choices yet; the first that does is built from them here.
    match method.form_options.keys().next() {
        Some(key) => Err(AppError::usage(format!("--form-option {key}: the form {name} has no choices"))),
        None => Ok(form),
    }
}

fn check_numbers(options: &Adaptation) -> Result<(), AppError> {
    let refuse = |flag: &str, hint: &str| Err(AppError::usage(format!("{flag}: {hint}")));
    if options.rank == 0 {
        return refuse("--rank 0", "a change of rank 0 is no change; give at least 1");
    }
    if !(options.alpha.is_finite() && options.alpha > 0.0) {
        return refuse(&format!("--alpha {}", options.alpha), "give a positive number");
    }
    if options.batch == 0 || options.accumulate == 0 {
        return refuse("--batch and --accumulate", "give at least 1");
    }
    if options.steps == Some(0) || !(options.epochs.is_finite() && options.epochs > 0.0) {
        return refuse(
            "--steps and --epochs",
            "give a positive number, or use `lowrank init` to start without training",
        );
    }
    Ok(())
}

fn numbers<T: std::str::FromStr>(
    pairs: &[(String, String)],
    flag: &str,
) -> Result<Vec<(String, T)>, AppError> {
    pairs
        .iter()
        .map(|(pattern, value)| match value.parse() {
            Ok(value) => Ok((pattern.clone(), value)),
            Err(_) => Err(AppError::usage(format!(
                "{flag} {pattern}={value}: \"{value}\" is not a number of the right kind"
            ))),
        })
        .collect()
}
