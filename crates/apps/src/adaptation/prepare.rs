//! Everything before the first step: model, data, plan, evidence, start.

use std::collections::BTreeMap;
use std::path::Path;

use lowrank_adapt::forms::Full;
use lowrank_adapt::{AdaptError, Allocator, Form, Linear, Offset, Weight};
use lowrank_attach::{
    Attached, Collected, Plan, Site, Targets as Chosen, Way, admits_passes, attach, attach_stored,
};
use lowrank_init::Initialiser;
use lowrank_models::{Decoder, Recompute};
use lowrank_record::{Need, Seed};
use lowrank_tensor::Matrix;

use super::evidence::Told;
use super::method::OWN_START;
use super::stored_start::{self, Kept};
use super::{Adaptation, Method, settings, total};
use crate::choices::{OffsetChoice, RecomputeChoice};
use crate::data::Data;
use crate::model::ADAPTER;
use crate::subject::{Opened, Subject};
use crate::typed::FORMS;
use crate::verify::{largest_difference, sample_logits};
use crate::{AppError, Model, Progress};
use lowrank_command::Because;

/// A model with its data and the layers to adapt.
pub(crate) struct Prepared<N: Subject = Decoder> {
    pub(crate) model: Model<N>,
    pub(crate) data: Data<N::Example, N::Summary>,
    pub(crate) plan: Plan,
    /// The layers that are trained whole beside the adapters.
    pub(crate) head: Plan,
    pub(crate) laying: N::Laying,
    pub(crate) recompute: Recompute,
    /// The weights that an offset inside the base replaced.
    originals: Vec<(String, Matrix)>,
}

/// A start on every layer.
pub(crate) struct Started {
    pub(crate) attached: Vec<Attached>,
    /// The layers that are trained whole beside them.
    pub(crate) head: Vec<Attached>,
    /// The layers with the ranks that the start gave them.
    pub(crate) plan: Plan,
    /// What collecting the evidence took.
    pub(crate) evidence: Told,
    /// The start's choices as they are in force.
    pub(crate) settings: Vec<(String, String)>,
    /// Largest difference that the start makes to sample logits.
    pub(crate) moved: f64,
    /// Seconds that were spent on finding that out.
    pub(crate) check_seconds: f64,
    /// What decides the numbers of a run from this start.
    pub(crate) identity: BTreeMap<String, String>,
}

impl<N: Subject> Prepared<N> {
    /// Opens and checks everything that the options name.
    ///
    /// # Errors
    /// [`AppError::Usage`] naming what cannot be used, of the ground or of a method.
    pub(crate) fn open(
        options: &Adaptation,
        methods: &[Method],
        progress: &mut dyn Progress,
    ) -> Result<Prepared<N>, AppError> {
        for method in methods {
            form(method)?;
        }
        check_numbers(options)?;
        let Opened { model, data, laying } = N::open(options, progress)?;
        let chosen = Chosen::parse(&options.targets, options.exclude.as_deref(), options.layers.as_deref());
        let mut plan = Plan::new(
            &model.decoder,
            &chosen.input("--targets")?,
            options.rank,
            options.alpha,
            options.rank_stabilised,
            &numbers(&options.rank_pattern, "--rank-pattern")?,
            &numbers(&options.alpha_pattern, "--alpha-pattern")?,
        )
        .input("the plan")?;
        let head = head_plan(&model.decoder);
        let taken = plan.sites.iter().find(|site| head.sites.iter().any(|whole| whole.name == site.name));
        if let Some(site) = taken.filter(|_| options.targets != "all-linear") {
            return Err(AppError::usage(format!(
                "--targets names {}, which is trained whole beside the adapters and takes none",
                site.name
            )));
        }
        plan.sites.retain(|site| !head.sites.iter().any(|whole| whole.name == site.name));
        let recompute =
            if options.recompute == RecomputeChoice::Blocks { Recompute::Blocks } else { Recompute::Nothing };
        let prepared = Prepared { model, data, plan, head, laying, recompute, originals: Vec::new() };
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
        let form = form(method)?;
        if !self.head.sites.is_empty() && FORMS.contains(&method.form.as_str()) {
            return Err(AppError::usage(format!(
                "--form {}: PEFT's own type of it is written without the head that is trained here; choose another form",
                method.form
            )));
        }
        let steps = settings::steps(self, options)?;
        allocator(&*form, &self.plan, steps).input(format!("--form {}", method.form))?;
        let Some(initialiser) = initialiser(method)? else { return Ok(()) };
        let way = Way { initialiser: Some(&*initialiser), form: &*form, offset: Offset::Shadow };
        way.check().input(&method.name)?;
        if initialiser.needs().contains(&Need::Gradient) {
            let batches = self.calibration(options, Seed(options.seed), 1)?.len();
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
    pub(crate) fn describe(&self, options: &Adaptation, methods: &[Method], progress: &mut dyn Progress) {
        for line in self.data.summary.to_string().lines() {
            progress.say(line);
        }
        if let Some(summary) = &self.data.held_out_summary {
            progress.say(&format!("held-out file: {}", N::held_out_line(summary)));
        }
        progress.say(&format!(
            "{} examples to train on, {} held out",
            self.data.train.len(),
            self.data.held_out.len()
        ));
        progress.say(&format!(
            "adapting {} layers at rank {}, alpha {}",
            self.plan.sites.len(),
            options.rank,
            options.alpha
        ));
        if !self.head.sites.is_empty() {
            let values = self.head_values();
            progress.say(&format!("and {} layers of the head whole: {values}", self.head.sites.len()));
        }
        for method in methods {
            // Of methods that were checked.
            if let Ok(parameters) = total(&self.plan, method) {
                progress.say(&format!("{}: {parameters} trainable parameters as planned", method.name));
            }
        }
    }

    /// Collects what the start needs and mounts it; from where it is kept if it is there, and kept there otherwise.
    pub(crate) fn start(
        &mut self,
        options: &Adaptation,
        method: &Method,
        kept: Option<&Path>,
        progress: &mut dyn Progress,
    ) -> Result<Started, AppError> {
        let name = method.name.as_str();
        let form = form(method)?;
        let initialiser = initialiser(method)?;
        let identity = settings::identity(self, options, method)?;
        let settings = initialiser.iter().flat_map(|initialiser| initialiser.settings());
        let settings = settings.map(|(key, value)| (key.to_owned(), value)).collect();
        // Shared with the model, which may be given others.
        self.originals = frozen(&self.model)?;
        self.model.decoder.draw_head(Seed(options.seed).at("head", "start"))?;
        let (begun, before) = (progress.now(), sample_logits(&self.model)?);
        let mut check_seconds = progress.now() - begun;
        let kept = kept.map(|path| Kept { path, identity: &identity });
        if let Some(kept) = kept.filter(|kept| kept.path.is_file()) {
            let (plan, starts) = stored_start::read(kept, &self.plan)?;
            let attached = attach_stored(&mut self.model.decoder, &plan, starts, &*form, ADAPTER)
                .input(format!("the stored start {}", kept.path.display()))?;
            let moved = largest_difference(&before, &sample_logits(&self.model)?);
            let (evidence, head) = (Told::default(), self.train_head(options)?);
            return Ok(Started { attached, head, plan, evidence, settings, moved, check_seconds, identity });
        }
        let seed = Seed(options.seed);
        let found = self.evidence(options, method, initialiser.as_deref(), progress)?;
        let plan = match (initialiser.as_deref(), &found.inputs) {
            (Some(initialiser), Some(inputs)) => {
                let plan = self.plan.redistributed(initialiser, inputs, seed.at("init", "ranks"));
                plan.while_doing(format!("giving out the ranks of {name}"))?
            }
            _ => self.chosen_plan(method)?,
        };
        if chooses_rank(method)? {
            let ranks = || plan.sites.iter().map(|site| site.rank);
            let (least, most) = (ranks().min().unwrap_or(0), ranks().max().unwrap_or(0));
            progress.say(&format!(
                "{name}: chose its ranks by the weights: {least} to {most} at {} layers",
                plan.sites.len()
            ));
        }
        let offset = if options.offset == OffsetChoice::Base { Offset::Base } else { Offset::Shadow };
        let way = Way { initialiser: initialiser.as_deref(), form: &*form, offset };
        let attached = attach(
            &mut self.model.decoder,
            &plan,
            way,
            found.collected(),
            seed.at("init", &method.init),
            ADAPTER,
        )
        .while_doing(format!("starting {name}"))?;
        warn(&attached, progress);
        if let Some(kept) = kept {
            stored_start::write(&self.model, &attached, kept)?;
        }
        let mounted = progress.now();
        let moved = largest_difference(&before, &sample_logits(&self.model)?);
        check_seconds += progress.now() - mounted;
        let (evidence, head) = (found.told, self.train_head(options)?);
        Ok(Started { attached, head, plan, evidence, settings, moved, check_seconds, identity })
    }

    /// Values of the head that are trained whole, biases included.
    pub(super) fn head_values(&self) -> usize {
        self.head.sites.iter().map(|site| site.shape[0] * (site.shape[1] + 1)).sum()
    }

    /// Makes the head trainable: a change of every entry, mounted beside the adapters and taken off with them.
    fn train_head(&mut self, options: &Adaptation) -> Result<Vec<Attached>, AppError> {
        if self.head.sites.is_empty() {
            return Ok(Vec::new());
        }
        let way = Way { initialiser: None, form: &Full { bias: true }, offset: Offset::None };
        let seed = Seed(options.seed).at("head", "change");
        let (model, none) = (&mut self.model.decoder, Collected::default());
        attach(model, &self.head, way, none, seed, ADAPTER).while_doing("the head")
    }

    /// The plan with the ranks that the start of a method chooses from the weights; the plan itself where it does not.
    ///
    /// # Errors
    /// [`AppError::Failed`] naming the layer whose rank cannot be chosen.
    pub(crate) fn chosen_plan(&self, method: &Method) -> Result<Plan, AppError> {
        match initialiser(method)? {
            Some(initialiser) => self
                .plan
                .chosen(&self.model.decoder, &*initialiser)
                .while_doing(format!("choosing the ranks of {}", method.name)),
            None => Ok(self.plan.clone()),
        }
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

/// The layers that are trained whole, as a plan; ranks and scales play no part.
fn head_plan<N: Subject>(model: &N) -> Plan {
    let names = model.head();
    let whole = model.sites().into_iter().filter(|(name, _)| names.contains(name));
    let site = |(name, linear): (String, &Linear)| Site {
        name,
        shape: linear.shape(),
        rank: 1,
        alpha: 1.0,
        scale: 1.0,
    };
    Plan { sites: whole.map(site).collect(), rank_stabilised: false }
}

fn frozen<N: Subject>(model: &Model<N>) -> Result<Vec<(String, Matrix)>, AppError> {
    let mut all = Vec::new();
    for (name, linear) in model.decoder.sites() {
        if let Weight::Frozen(matrix) = linear.weight() {
            all.push((name, matrix.clone()));
        }
    }
    Ok(all)
}

/// Whether the start of a method puts a weight of its own in the base's place.
///
/// # Errors
/// [`AppError::Usage`] for a start that is not known.
pub(crate) fn replaces_base(method: &Method) -> Result<bool, AppError> {
    Ok(initialiser(method)?.is_some_and(|initialiser| initialiser.replaces_base()))
}

/// Whether the start of a method chooses the rank of each layer itself.
///
/// # Errors
/// [`AppError::Usage`] for a start that is not known.
pub(crate) fn chooses_rank(method: &Method) -> Result<bool, AppError> {
    Ok(initialiser(method)?.is_some_and(|initialiser| initialiser.chooses_rank()))
}

/// Values that are trained.
pub(crate) fn parameters(started: &Started) -> usize {
    let values = |each: &Attached| -> usize {
        each.variables.iter().map(|(_, variable)| variable.shape().iter().product::<usize>()).sum()
    };
    started.attached.iter().chain(&started.head).map(values).sum()
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

/// The initialiser of a method, with its choices; `None` for a form that makes its own start.
///
/// # Errors
/// [`AppError::Usage`] naming the nearest known name.
pub(super) fn initialiser(method: &Method) -> Result<Option<Box<dyn Initialiser>>, AppError> {
    if method.init == OWN_START {
        return Ok(None);
    }
    lowrank_init::by_name(&method.init, &method.init_options).input("--init").map(Some)
}

/// The form of a method, with its choices.
///
/// # Errors
/// [`AppError::Usage`] for a form that is not known, or a choice that it does not have.
pub(super) fn form(method: &Method) -> Result<Box<dyn Form>, AppError> {
    lowrank_adapt::by_name(&method.form, &method.form_options).input("--form")
}

/// What the form decides over all layers of a plan together, while they train for so many steps.
pub(super) fn allocator(
    form: &dyn Form,
    plan: &Plan,
    steps: u64,
) -> Result<Option<Box<dyn Allocator>>, AdaptError> {
    let site = |site: &lowrank_attach::Site| [site.shape[0], site.rank, site.shape[1]];
    let sites: Vec<[usize; 3]> = plan.sites.iter().map(site).collect();
    form.allocator(&sites, usize::try_from(steps).unwrap_or(usize::MAX))
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
    if options.calibration_batch > 0 && options.calibration == 0 && options.calibration_tokens.is_none() {
        return refuse(
            &format!("--calibration-batch {}", options.calibration_batch),
            "the evidence is collected on the first steps' batches, of --batch rows; it belongs to --calibration N or \
             --calibration-tokens FILE",
        );
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
