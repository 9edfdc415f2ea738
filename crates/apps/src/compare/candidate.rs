//! What is compared: each name with its method, its plan, and the rates that are tried.

use lowrank_attach::Plan;

use super::options::{Compare, Equal};
use crate::adaptation::{Method, Prepared, chooses_rank, equal_parameters, total};
use crate::subject::Subject;
use crate::{AppError, Progress, recipes};

/// One method of a comparison.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    /// The method, at its rate once that is known.
    pub(super) method: Method,
    /// Whether the rate was given and is not searched.
    pub(super) fixed: bool,
    /// Smallest and largest rate to try first.
    pub(super) rates: [f64; 2],
    /// Layers, ranks and scales.
    pub(super) plan: Plan,
}

impl Candidate {
    /// What tables and folders call it: as it was listed.
    pub(super) fn name(&self) -> &str {
        &self.method.name
    }

    /// Its ranks in words: one, or the smallest and the largest.
    pub(super) fn ranks(&self) -> String {
        let ranks = || self.plan.sites.iter().map(|site| site.rank);
        match (ranks().min(), ranks().max()) {
            (Some(least), Some(most)) if least == most => least.to_string(),
            (Some(least), Some(most)) => format!("{least} to {most}"),
            _ => "none".to_owned(),
        }
    }
}

/// A listed method before the model is known.
#[derive(Debug, Clone)]
pub(super) struct Listed {
    method: Method,
    fixed: bool,
    rates: [f64; 2],
}

/// Reads the list of methods.
///
/// # Errors
/// [`AppError::Usage`] for a name that is not known, a rate that is none, or a method that is there twice.
pub(super) fn listed(options: &Compare) -> Result<Vec<Listed>, AppError> {
    if options.methods.len() == 1 {
        return Err(AppError::usage(format!(
            "--methods {}: a comparison needs at least two methods, separated by commas",
            options.methods[0]
        )));
    }
    let mut all: Vec<Listed> = Vec::new();
    for entry in &options.methods {
        let entry = entry.trim();
        let (name, rate) = match entry.split_once('@') {
            Some((name, rate)) => (name, Some(parse_rate(entry, rate)?)),
            None => (entry, None),
        };
        let composed = recipes::named(name)?;
        let rate_of = if options.rates == 1 { Some(composed.rate()) } else { None };
        let rates = composed.rates;
        let method = Method::of(entry, composed, rate.or(rate_of).unwrap_or(rates[0]));
        let fixed = rate.is_some();
        let same = |other: &&Listed| other.fixed == fixed && other.method.does_the_same(&method);
        if let Some(other) = all.iter().find(same) {
            let other = &other.method.name;
            return Err(AppError::usage(format!(
                "--methods: {entry} is there twice{}; each method is trained once a seed",
                if *other == method.name { String::new() } else { format!(", as {other} and as {entry}") }
            )));
        }
        all.push(Listed { method, fixed: fixed || rate_of.is_some(), rates });
    }
    Ok(all)
}

fn parse_rate(entry: &str, rate: &str) -> Result<f64, AppError> {
    let refused = || AppError::usage(format!("--methods {entry}: \"{rate}\" is not a learning rate"));
    let rate: f64 = rate.parse().map_err(|_| refused())?;
    if rate.is_finite() && rate > 0.0 { Ok(rate) } else { Err(refused()) }
}

/// Gives each method its plan and checks that every layer can be started.
///
/// # Errors
/// [`AppError::Usage`] naming the method and the layer.
pub(super) fn planned<N: Subject>(
    listed: Vec<Listed>,
    options: &Compare,
    prepared: &mut Prepared<N>,
    progress: &mut dyn Progress,
) -> Result<Vec<Candidate>, AppError> {
    let ground = options.adaptation();
    let planned = prepared.plan.clone();
    let Some(reference) = listed.first().map(|first| first.method.clone()) else { return Ok(Vec::new()) };
    // The first may choose its ranks; the others then get as many values as those train.
    let whole = match options.equal {
        Equal::Rank => planned.clone(),
        Equal::Parameters => prepared.chosen_plan(&reference)?,
    };
    let mut candidates = Vec::with_capacity(listed.len());
    for Listed { method, fixed, rates } in listed {
        let plan = match options.equal {
            Equal::Rank => prepared.chosen_plan(&method)?,
            Equal::Parameters if candidates.is_empty() => whole.clone(),
            Equal::Parameters if chooses_rank(&method)? => return Err(chooses_itself(&method)),
            Equal::Parameters => equal_parameters(&whole, &method, &reference)?,
        };
        prepared.plan = plan;
        prepared.admit(&ground, &method)?;
        let plan = std::mem::replace(&mut prepared.plan, planned.clone());
        candidates.push(Candidate { method, fixed, rates, plan });
    }
    if options.equal == Equal::Parameters {
        let wanted = total(&whole, &reference)?;
        for candidate in &candidates {
            let values = total(&candidate.plan, &candidate.method)?;
            let off = 100.0 * (values as f64 / wanted as f64 - 1.0);
            let off = if values == wanted { String::new() } else { format!(" ({off:+.1} %)") };
            progress.say(&format!(
                "{}: rank {}, {values} trainable parameters{off}",
                candidate.name(),
                candidate.ranks()
            ));
        }
    }
    Ok(candidates)
}

/// A method whose number of values its weights decide cannot be given another's.
fn chooses_itself(method: &Method) -> AppError {
    AppError::usage(format!(
        "--equal parameters: {} chooses the rank of each layer by its weight, so it cannot be given the values of another method; \
         list it first, choose its rank = fixed, or compare at --equal rank",
        method.name
    ))
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, Command, FromArgMatches as _};

    use super::*;

    fn refused(methods: &str) -> String {
        let command = Compare::augment_args(Command::new("compare"));
        let matches = command.try_get_matches_from(["compare", "--methods", methods]).unwrap();
        listed(&Compare::from_arg_matches(&matches).unwrap()).map(|_| ()).unwrap_err().to_string()
    }

    #[test]
    fn a_method_under_two_names_is_one_method() {
        assert!(refused("lora,pissa,lora").contains("lora is there twice"));
        assert!(refused("lora,kaiming+lora").contains("as lora and as kaiming+lora"));
        assert!(refused("lora@1e-3,lora@1e-3").contains("twice"));
        assert!(refused("lora").contains("at least two methods"));
        assert!(refused("lora,pissa@fast").contains("\"fast\" is not a learning rate"));
        assert!(refused("lora,pissa@-1").contains("not a learning rate"));
        let command = Compare::augment_args(Command::new("compare"));
        let matches = command.try_get_matches_from(["compare", "--methods", "lora,lora@1e-3"]).unwrap();
        let both = listed(&Compare::from_arg_matches(&matches).unwrap()).unwrap();
        assert_eq!(both.iter().map(|each| each.fixed).collect::<Vec<_>>(), [false, true]);
    }
}
