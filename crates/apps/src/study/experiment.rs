//! What a study is made of: constants, one set for each system.

use lowrank_record::Source;
use serde::Serialize;

use super::arm::Arm;
use super::claim::{At, Criterion};
use super::teacher::Size;
use super::{eva, loldu, lora_ga, lora_sb, nlora, svfit};

/// Every study, in the order in which they are listed.
pub(super) static STUDIES: &[&Experiment] =
    &[&lora_ga::STUDY, &lora_sb::STUDY, &eva::STUDY, &loldu::STUDY, &nlora::STUDY, &svfit::STUDY];

/// The question of one system, scaled down and on real models.
pub(super) struct Experiment {
    /// The system, and the initialiser whose card names the source.
    pub(super) name: &'static str,
    /// As a title says it.
    pub(super) title: &'static str,
    /// What the paper says.
    pub(super) claim: &'static str,
    /// What is asked here.
    pub(super) question: &'static str,
    /// What is equal among the arms, and why what is not is not.
    pub(super) equal: &'static str,
    /// The problem.
    pub(super) size: Size,
    /// The rates that are tried for each arm, ascending.
    pub(super) rates: &'static [f64],
    /// What is compared.
    pub(super) arms: &'static [Arm],
    /// The claim on the small problem.
    pub(super) criteria: &'static [Criterion],
    /// The claim on a real model: arms are methods of `lowrank compare`.
    pub(super) real: &'static [Criterion],
    /// What the small problem does not say.
    pub(super) not_shown: &'static [&'static str],
}

/// The problem of LoRA-GA, LoRA-SB and EVA: 64-256-256-16.
pub(super) const WIDE: Size = Size {
    hidden: 256,
    pretraining: 1500,
    pretraining_batch: 256,
    steps: 400,
    batch: 64,
    train: 4096,
    test: 4096,
};

/// The problem of LoLDU, NLoRA and SVFit: 64-128-128-16.
pub(super) const NARROW: Size = Size { hidden: 128, steps: 300, ..WIDE };

/// A problem of seconds, to see that everything runs; it decides nothing.
pub(super) const QUICK: Size =
    Size { hidden: 32, pretraining: 80, pretraining_batch: 64, steps: 24, batch: 32, train: 512, test: 512 };

/// Half decades.
pub(super) const RATES: &[f64] = &[1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1];

impl Experiment {
    /// Where the claim was made, from the card of the start.
    pub(super) fn paper(&self) -> Option<Paper> {
        let start = lowrank_init::ALL.iter().find(|start| start.card().name == self.name)?;
        let Source { authors, title, year, link } = start.card().source;
        Some(Paper { authors, title, year, link })
    }

    /// The rates that an arm is run at beside its own, because a statement speaks of them, ascending.
    pub(super) fn fixed_rates(&self, arm: &str) -> Vec<f64> {
        let terms = self.criteria.iter().flat_map(|criterion| criterion.terms);
        let mut rates: Vec<f64> = terms
            .filter(|term| term.arm == arm)
            .filter_map(|term| if let At::Rate(rate) = term.at { Some(rate) } else { None })
            .collect();
        rates.sort_by(f64::total_cmp);
        rates.dedup();
        rates
    }
}

/// The publication that makes a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Paper {
    /// Its authors.
    pub authors: &'static str,
    /// Its title.
    pub title: &'static str,
    /// The year.
    pub year: u16,
    /// Where it is.
    pub link: &'static str,
}

/// A study in the list.
#[derive(Debug, Clone, Serialize)]
pub struct Listed {
    /// The name typed by the user.
    pub name: &'static str,
    /// What the paper says.
    pub claim: &'static str,
    /// What is asked here.
    pub question: &'static str,
    /// Where the paper is.
    pub paper: Option<Paper>,
    /// What is compared on the small problem.
    pub arms: Vec<&'static str>,
    /// The statements that decide, on the small problem.
    pub statements: Vec<&'static str>,
    /// The methods of `lowrank compare` that the verdict on a real model speaks of.
    pub methods: Vec<&'static str>,
}

impl From<&Experiment> for Listed {
    fn from(experiment: &Experiment) -> Listed {
        let mut methods: Vec<&'static str> = Vec::new();
        for term in experiment.real.iter().flat_map(|criterion| criterion.terms) {
            if !methods.contains(&term.arm) {
                methods.push(term.arm);
            }
        }
        Listed {
            name: experiment.name,
            claim: experiment.claim,
            question: experiment.question,
            paper: experiment.paper(),
            arms: experiment.arms.iter().map(|arm| arm.name).collect(),
            statements: experiment.criteria.iter().map(|criterion| criterion.says).collect(),
            methods,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::arm::Part;
    use super::super::claim::{BEFORE, Bound, Measure, Role};
    use super::*;
    use crate::recipes;

    #[test]
    fn every_study_is_whole() {
        let names: BTreeSet<&str> = STUDIES.iter().map(|study| study.name).collect();
        assert_eq!(names.len(), STUDIES.len(), "a name is there twice");
        for study in STUDIES {
            let name = study.name;
            assert!(study.paper().is_some(), "{name} is no initialiser");
            assert!(study.rates.is_sorted() && study.rates.len() > 1, "{name}");
            assert!(!study.not_shown.is_empty(), "{name}");
            let arms: BTreeSet<&str> = study.arms.iter().map(|arm| arm.name).collect();
            assert_eq!(arms.len(), study.arms.len(), "{name}: an arm is there twice");
            assert!(study.arms.iter().any(|arm| arm.part == Part::Control), "{name} has no control");
            for criteria in [study.criteria, study.real] {
                let has = |role: Role| criteria.iter().any(|criterion| criterion.role == role);
                assert!(has(Role::Claim) && has(Role::Control), "{name}");
                for criterion in criteria {
                    assert!(!criterion.terms.is_empty(), "{name}: {}", criterion.says);
                    if let Bound::Within(bound) = criterion.bound {
                        assert!(bound > 0.0, "{name}: {}", criterion.says);
                    }
                }
            }
            for term in study.criteria.iter().flat_map(|criterion| criterion.terms) {
                assert!(arms.contains(term.arm) || term.arm == BEFORE, "{name}: {}", term.arm);
            }
            for term in study.real.iter().flat_map(|criterion| criterion.terms) {
                recipes::named(term.arm).unwrap();
                let known = matches!(term.measure, Measure::Early | Measure::Last | Measure::Accuracy);
                assert!(known && term.at == At::Tuned, "{name}: what compare.json does not have");
            }
        }
    }

    #[test]
    fn arms_are_run_at_the_rates_that_statements_speak_of() {
        assert_eq!(lora_ga::STUDY.fixed_rates("lora-ga"), [3e-4, 1e-3]);
        assert!(lora_ga::STUDY.fixed_rates("pissa").is_empty());
    }
}
