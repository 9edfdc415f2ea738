//! One pass in which every layer is looked at, with what each method would start with.

use std::collections::BTreeMap;

use faer::Mat;
use lowrank_adapt::Linear;
use lowrank_attach::{Candidate, Survey, Wanted, fed, survey};
use lowrank_record::Seed;
use lowrank_train::Group;

use super::prepare::{Prepared, form, initialiser};
use super::{Adaptation, Method, settings};
use crate::AppError;
use crate::subject::Subject;
use lowrank_command::Because;

/// The shorter side up to which whole spectra are computed: a tenth of a second each at most.
pub(crate) const WHOLE_SPECTRA: usize = 640;

impl<N: Subject> Prepared<N> {
    /// Looks at every layer on the batch of the first step, or on the records that the options draw, all in one pass. Starts are
    /// those that a run with these options would have on that evidence.
    ///
    /// # Errors
    /// [`AppError::Usage`] for text that cannot be used, naming the layer.
    pub(crate) fn survey(
        &mut self,
        options: &Adaptation,
        methods: &[Method],
        rho: f64,
    ) -> Result<Survey, AppError> {
        let seed = Seed(options.seed);
        let in_one_pass = Adaptation { calibration_batch: options.calibration, ..options.clone() };
        let batches = self.shown(&in_one_pass, seed, 1)?;
        let [batch] = &batches[..] else {
            return Err(AppError::usage("there is no text to look at: --calibration draws none"));
        };
        let mut candidates = Vec::with_capacity(methods.len());
        for method in methods {
            candidates.push(Candidate {
                initialiser: initialiser(method)?,
                form: form(method)?,
                seed: seed.at("init", &method.init),
                first_rate: settings::of(self, options, method.rate)?.rate_of(Group::Dense, 0),
            });
        }
        let wanted = Wanted { candidates, whole_up_to: WHOLE_SPECTRA, rho };
        survey(&mut self.model.decoder, &self.plan, batch, self.recompute, wanted, seed)
            .input("looking at the layers")
    }

    /// What each layer of the plan is fed by the calibration records, the first `most` tokens of it, as the network stands.
    ///
    /// # Errors
    /// [`AppError::Usage`] for text that cannot be shown.
    pub(crate) fn fed(
        &mut self,
        options: &Adaptation,
        most: usize,
    ) -> Result<BTreeMap<String, Mat<f32>>, AppError> {
        let in_one_pass = Adaptation { calibration_batch: options.calibration, ..options.clone() };
        let batches = self.shown(&in_one_pass, Seed(options.seed), 1)?;
        let batch = batches.first().ok_or_else(|| AppError::usage("there is no text to show the network"))?;
        fed(&mut self.model.decoder, &self.plan, batch, most).while_doing("showing the network its data")
    }

    /// `‖W‖_F` of each layer of the plan, by name.
    ///
    /// # Errors
    /// [`AppError::Failed`] naming a layer without a weight of its own.
    pub(crate) fn weight_norms(&self) -> Result<BTreeMap<String, f64>, AppError> {
        let norm = |(name, linear): (String, &Linear)| {
            let values = linear.frozen().while_doing(&name)?.to_f32();
            let energy: f64 = values.iter().map(|&value| f64::from(value) * f64::from(value)).sum();
            Ok((name, energy.sqrt()))
        };
        let of_plan = |name: &String| self.plan.sites.iter().any(|site| site.name == *name);
        let sites = self.model.decoder.sites().into_iter();
        sites.filter(|(name, _)| of_plan(name)).map(norm).collect()
    }
}
