//! What a start is shown: gradients, inputs and the first rate, collected on calibration text.

use std::collections::BTreeMap;

use lowrank_attach::{Calibration, Collected, Gradients, InputStatistics, collect, collect_inputs};
use lowrank_init::{Initialiser, InputsWanted, Leading, Statistic};
use lowrank_record::{Need, Seed};
use lowrank_train::Group;

use super::prepare::Prepared;
use super::{Adaptation, Method, settings};
use crate::choices::Shown;
use crate::objective::in_order;
use crate::subject::{Laying as _, Order, Subject};
use crate::{AppError, Progress};
use lowrank_command::Because;

/// Batches of the training to come of which inputs are looked at where nothing else is asked: statistics of inputs have more
/// directions than one batch has tokens to tell of.
const INPUT_BATCHES: usize = 16;

/// What collecting took.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Told {
    /// Largest memory of the process meanwhile, where the system tells; `None` where nothing was collected.
    pub(crate) peak: Option<u64>,
    /// Seconds.
    pub(crate) seconds: f64,
}

/// What was collected.
#[derive(Default)]
pub(super) struct Found {
    pub(super) gradients: Option<Gradients>,
    pub(super) inputs: Option<InputStatistics>,
    pub(super) first_rate: Option<f64>,
    pub(super) told: Told,
}

impl Found {
    pub(super) fn collected(&self) -> Collected<'_> {
        Collected {
            gradients: self.gradients.as_ref(),
            inputs: self.inputs.as_ref(),
            first_rate: self.first_rate,
        }
    }
}

impl<N: Subject> Prepared<N> {
    /// Collects what the start of a method needs.
    pub(super) fn evidence(
        &mut self,
        options: &Adaptation,
        method: &Method,
        initialiser: Option<&dyn Initialiser>,
        progress: &mut dyn Progress,
    ) -> Result<Found, AppError> {
        let mut found = Found::default();
        let Some(initialiser) = initialiser else { return Ok(found) };
        let settings = settings::of(self, options, method.rate)?;
        found.first_rate = Some(settings.rate_of(Group::Dense, 0));
        let needs = initialiser.needs();
        let (seed, begun) = (Seed(options.seed), progress.now());
        let (name, layers) = (&method.name, self.plan.sites.len());
        progress.reset_peak();
        if needs.contains(&Need::Gradient) {
            progress.say(&format!("{name}: collecting the gradients of {layers} layers"));
            found.gradients = Some(self.gradients(options, &|rank| initialiser.leading(rank), seed)?);
        }
        if needs.contains(&Need::Inputs) {
            let inputs = self.inputs(options, initialiser, seed)?;
            progress.say(&format!(
                "{name}: looked at what {layers} layers are fed, {} tokens in {} batches{}",
                inputs.tokens,
                inputs.batches,
                if inputs.settled { "" } else { "; not settled: --calibration N shows it more" }
            ));
            found.inputs = Some(inputs);
        }
        if found.gradients.is_some() || found.inputs.is_some() {
            found.told = Told { peak: progress.peak_memory(), seconds: progress.now() - begun };
        }
        Ok(found)
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
        let calibration = self.shown(options, seed, 1)?;
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

    /// Statistics of what each layer is fed: in the batches of the first steps, or in what the options name.
    ///
    /// # Errors
    /// [`AppError::Usage`] for calibration text that cannot be read.
    pub(crate) fn inputs(
        &mut self,
        options: &Adaptation,
        initialiser: &dyn Initialiser,
        seed: Seed,
    ) -> Result<InputStatistics, AppError> {
        let calibration = self.shown(options, seed, INPUT_BATCHES)?;
        let plan = &self.plan;
        let most = plan.sites.iter().map(|site| plan.largest_rank(initialiser, site)).max().unwrap_or(1);
        collect_inputs(
            &mut self.model.decoder,
            plan,
            &calibration,
            initialiser.inputs(most),
            &|site| plan.largest_rank(initialiser, site),
            seed.at("init", "evidence"),
        )
        .input("collecting inputs")
    }

    /// The layers that share their inputs, as a pass over one example tells: the same number for each of them.
    ///
    /// # Errors
    /// [`AppError::Usage`] naming the layer that was not reached.
    pub(super) fn input_groups(&mut self) -> Result<BTreeMap<String, usize>, AppError> {
        let first = &self.data.train[..self.data.train.len().min(1)];
        let rows = in_order::<N>(first, self.laying.with_rows(1)).input("batching an example")?;
        let one = |rows: &N::Rows| Calibration { shown: N::shown(rows, Shown::All), batch: N::fed(rows) };
        let one: Vec<_> = rows.iter().map(one).collect();
        // Components without moments: nothing of the size of width by width is made.
        let wanted = InputsWanted {
            statistic: Statistic::Components,
            exact_up_to: 0,
            count: 1,
            most_batches: 1,
            ..InputsWanted::moments()
        };
        let found = collect_inputs(&mut self.model.decoder, &self.plan, &one, wanted, &|_| 1, Seed(0));
        Ok(found.input("looking at which layers share their inputs")?.groups)
    }

    /// How many batches a start from inputs looks at, at least.
    ///
    /// # Errors
    /// [`AppError::Usage`] for calibration text that cannot be read.
    pub(super) fn input_batches(&self, options: &Adaptation) -> Result<usize, AppError> {
        Ok(self.calibration(options, Seed(options.seed), INPUT_BATCHES)?.len())
    }

    /// The calibration batches as evidence is collected on them.
    pub(super) fn shown(
        &self,
        options: &Adaptation,
        seed: Seed,
        usual: usize,
    ) -> Result<Vec<Calibration<N::Batch>>, AppError> {
        let one = |rows: &N::Rows| Calibration { shown: N::shown(rows, options.shown), batch: N::fed(rows) };
        Ok(self.calibration(options, seed, usual)?.iter().map(one).collect())
    }

    /// The batches on which evidence is collected: those of the first steps, `usual` of them, or what the options name.
    ///
    /// # Errors
    /// [`AppError::Usage`] for calibration text that cannot be read.
    pub(super) fn calibration(
        &self,
        options: &Adaptation,
        seed: Seed,
        usual: usize,
    ) -> Result<Vec<N::Rows>, AppError> {
        let rows = if options.calibration_batch > 0 { options.calibration_batch } else { options.batch };
        let laying = self.laying.with_rows(rows);
        let train = &self.data.train;
        let found = if let Some(file) = &options.calibration_tokens {
            N::laid(N::token_rows(file, &self.model)?, laying)
        } else if options.calibration > 0 {
            let order = seed.at("calibration", "order").permutation(train.len());
            let chosen: Vec<N::Example> =
                order.into_iter().take(options.calibration).map(|index| train[index].clone()).collect();
            in_order::<N>(&chosen, laying)
        } else {
            // The first steps see them next: no more memory than one of them, and nothing that training would not see.
            N::epoch(train, self.laying, Order::Drawn(settings::data_order(options), 0))
                .and_then(|plan| (0..plan.batches().min(usual)).map(|index| plan.batch(index)).collect())
        };
        found.input("batching the calibration text")
    }
}
