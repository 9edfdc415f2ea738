//! `lowrank advise`: what one calibration pass tells of a model and its data before anything is trained: spectra, how much of the
//! gradient each start can follow, ranks, and what training would cost.

mod advice;
mod options;
mod report;
mod suggest;
mod table;
mod words;

pub use advice::{Advice, MethodAdvice, SiteAdvice, SpectrumAdvice, Summed};
pub use options::{Advise, RanksBy};

use lowrank_models::{Decoder, Encoder, T5, Vision};

use crate::adaptation::{self, Planned, Prepared};
use crate::output::{self, Writes};
use crate::subject::{Kind, Subject, kind};
use crate::{AppError, Progress};
use lowrank_command::Because;
use suggest::Suggested;

/// The numbers, in the run folder.
const NUMBERS: &str = "advise.json";

/// Looks at every layer in one pass and writes `advise.json` and `advise.html` into the run folder.
///
/// # Errors
/// [`AppError::Usage`] for options, model and data that cannot be used; [`AppError::Failed`] afterwards.
pub fn advise(options: &Advise, progress: &mut dyn Progress) -> Result<Advice, AppError> {
    options.checked()?;
    match kind(&options.adaptation())? {
        Kind::Decoder => advise_on::<Decoder>(options, progress),
        Kind::Encoder => advise_on::<Encoder>(options, progress),
        Kind::Vision => advise_on::<Vision>(options, progress),
        Kind::T5 => advise_on::<T5>(options, progress),
    }
}

fn advise_on<N: Subject>(options: &Advise, progress: &mut dyn Progress) -> Result<Advice, AppError> {
    let begun = progress.now();
    let (ground, methods) = (options.adaptation(), options.asked()?);
    let run = output::run_folder(options.run.as_deref(), "advise", false, &[NUMBERS])?;
    if let Some(file) = &options.write_ranks {
        output::admit(file, false, Writes::File)?;
    }
    let mut prepared = Prepared::<N>::open(&ground, &methods, progress)?;
    prepared.describe(&ground, &methods, progress);
    progress.say(&format!("looking at {} layers in one pass", prepared.plan.sites.len()));
    let shown = adaptation::Adaptation { calibration: options.calibration, ..ground.clone() };
    let survey = prepared.survey(&shown, &methods, options.rho)?;
    output::go_on(progress)?;
    let suggested = Suggested::of(&survey, options.rho)?;
    let plan = prepared.plan.clone();
    let given = plan.with_ranks(&suggested.by_inputs);
    // A start that gives out ranks by inputs is predicted with the ranks that these inputs give.
    let planned = |method| Planned { method, plan: &plan, given: Some(&given) };
    let planned: Vec<Planned<'_>> = methods.iter().map(planned).collect();
    let predicted = adaptation::predict(&mut prepared, &ground, &planned, true, progress)?;
    std::fs::create_dir_all(&run).while_doing(format!("creating {}", run.display()))?;
    let mut advice =
        Advice::new(options, &prepared, &methods, &survey, &suggested, predicted.methods, run.clone());
    advice.words = words::words(&advice);
    if let Some(file) = &options.write_ranks {
        let recipe = suggest::recipe(options, &plan, suggested.by(options.ranks_by));
        lowrank_store::text::write(file, &recipe).while_doing("writing the ranks")?;
        advice.ranks_file = Some(file.clone());
    }
    advice.seconds = progress.now() - begun;
    let text = serde_json::to_string_pretty(&advice).while_doing("writing the advice")?;
    lowrank_store::text::write(&run.join(NUMBERS), &(text + "\n")).while_doing("writing the advice")?;
    let page = report::page(&prepared, options, &advice).html()?;
    lowrank_store::text::write(&run.join("advise.html"), &page).while_doing("writing the page")?;
    Ok(advice)
}
