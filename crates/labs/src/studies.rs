//! The laboratories' studies: what there is, what is asked of one, and the folder that it leaves.

use std::fmt;
use std::path::{Path, PathBuf};

use lowrank_command::page::Page;
use lowrank_command::{AppError, Because, Progress};
use serde::Serialize;
use serde_json::Value;

use crate::study::{Finished, Size};

/// What a study is, before it is run.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Listed {
    /// Its name on the command line.
    pub name: &'static str,
    /// What the paper says.
    pub claim: &'static str,
    /// What is asked.
    pub question: &'static str,
    /// The paper.
    pub link: &'static str,
    /// Problems that are run where nothing else is asked.
    pub seeds: u64,
    #[serde(skip)]
    run: Run,
}

/// Runs a study of so many problems from a first one.
type Run = fn(Size, &mut dyn Progress) -> Result<Finished, AppError>;

/// Every study.
pub const STUDIES: [Listed; 3] = [
    Listed {
        name: "subgm",
        claim: "sub-gradient descent from a small start recovers a low-rank matrix from grossly corrupted measurements, whatever its rank",
        question: "how does the error go with the start, the over-estimated rank, the measurements, the corruption and the noise?",
        link: "https://arxiv.org/abs/2202.08788",
        seeds: 4,
        run: crate::recovery::study::listed_subgm,
    },
    Listed {
        name: "sensing-gd",
        claim: "with more columns than the rank, gradient descent on XX' slows to 1/T^2 while FG' stays linear",
        question: "are the rates those of the theorems, and does one step of rebalancing make them independent of the start?",
        link: "https://arxiv.org/abs/2310.01769",
        seeds: 4,
        run: crate::recovery::study::listed_sensing_gd,
    },
    Listed {
        name: "rich-lazy",
        claim: "at one norm of the initial recurrent weights, a high rank learns lazily and a low rank richly",
        question: "is it so on three tasks, and is rank the cause?",
        link: "https://arxiv.org/abs/2310.08513",
        seeds: 10,
        run: crate::regimes::study::listed,
    },
];

/// The files of a study's folder.
const FILES: [&str; 4] = ["recipe.toml", "result.json", "NOTE.md", "report.html"];
/// More problems than this say nothing more.
const MOST_SEEDS: u64 = 10_000;

/// What is asked of a study.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// Its name.
    pub name: String,
    /// How many problems; `None` is the study's own number.
    pub seeds: Option<u64>,
    /// The first; the others follow it.
    pub seed: u64,
    /// Short runs that decide nothing.
    pub quick: bool,
    /// Where recipe, result, note and page go; without it the result is only shown.
    pub run: Option<PathBuf>,
    /// Whether a result in that folder is replaced.
    pub overwrite: bool,
}

/// A finished study, as a person and as a program reads it.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
pub struct Outcome {
    result: Value,
    #[serde(skip)]
    text: String,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Listed { name, claim, question, link, .. } = self;
        write!(f, "{name:<8} {claim}\n{:<8} asked: {question}\n{:<8} {link}", "", "")
    }
}

/// The study of a name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Listed> {
    let wanted = name.to_lowercase().replace('_', "-");
    STUDIES.iter().find(|study| study.name == wanted)
}

impl Asked {
    /// With the study's own number of problems where none was asked for.
    ///
    /// # Errors
    /// [`AppError::Usage`] for a study that is not known, and a number that cannot be.
    pub fn resolved(&self) -> Result<Asked, AppError> {
        let known = || STUDIES.map(|study| study.name).join(", ");
        let study = find(&self.name).ok_or_else(|| {
            AppError::usage(format!("no study is called {:?}; there are {}", self.name, known()))
        })?;
        let seeds = self.seeds.unwrap_or(if self.quick { 1 } else { study.seeds });
        if !(1..=MOST_SEEDS).contains(&seeds) {
            return Err(AppError::usage(format!("--seeds: give 1 to {MOST_SEEDS}")));
        }
        if self.seed.checked_add(seeds).is_none() {
            return Err(AppError::usage(format!(
                "--seed {}: there are no {seeds} numbers above it",
                self.seed
            )));
        }
        Ok(Asked { name: study.name.to_owned(), seeds: Some(seeds), ..self.clone() })
    }

    /// As a recipe, every default filled in.
    ///
    /// # Errors
    /// As [`Asked::resolved`].
    pub fn recipe(&self) -> Result<String, AppError> {
        let Asked { name, seeds, seed, quick, .. } = self.resolved()?;
        let seeds = seeds.unwrap_or_default();
        let quick = if quick { "quick = true\n" } else { "" };
        Ok(format!("name = \"{name}\"\nseeds = {seeds}\nseed = {seed}\n{quick}"))
    }
}

/// Runs a study, and writes its folder where one is named.
///
/// # Errors
/// [`AppError::Usage`] for what cannot be asked; [`AppError::Failed`] for what went wrong, and when the user stopped it.
pub fn study(asked: &Asked, progress: &mut dyn Progress) -> Result<Outcome, AppError> {
    let (asked, recipe) = (asked.resolved()?, asked.recipe()?);
    let known = find(&asked.name).ok_or_else(|| AppError::failed("the study is gone"))?;
    if let Some(run) = asked.run.as_deref().filter(|run| !asked.overwrite && holds_a_result(run)) {
        return Err(AppError::usage(format!(
            "{} holds a result already: --overwrite replaces it, or give another --run",
            run.display()
        )));
    }
    let size = Size { seeds: asked.seeds.unwrap_or(known.seeds), first: asked.seed, quick: asked.quick };
    let found = (known.run)(size, progress)?;
    let command = format!(
        "lowrank study {} --seeds {} --seed {}{}",
        asked.name,
        size.seeds,
        size.first,
        if size.quick { " --quick" } else { "" }
    );
    let mut text = format!("{}\n\n{}\n\n", found.title, found.statements.join("\n"));
    found.sentences.iter().for_each(|sentence| {
        text.push_str(&lowrank_command::page::wrapped(sentence, 80));
        text.push('\n');
    });
    if let Some(run) = &asked.run {
        std::fs::create_dir_all(run).while_doing(format!("creating {}", run.display()))?;
        let page = Page { recipe: recipe.clone(), ..found.page }.html()?;
        let note = (found.note)(&command);
        for (name, text) in FILES.iter().zip([&recipe, &found.json, &note, &page]) {
            lowrank_store::text::write(&run.join(name), text).while_doing(format!("writing {name}"))?;
        }
        text.push_str(&format!("\nwritten: {}\n", run.display()));
    }
    let result = serde_json::from_str(&found.json).while_doing("reading the result again")?;
    Ok(Outcome { result, text })
}

fn holds_a_result(run: &Path) -> bool {
    FILES.iter().skip(1).any(|name| run.join(name).exists())
}

#[cfg(test)]
mod tests {
    use lowrank_command::Silent;

    use super::*;

    #[test]
    fn a_quick_study_leaves_its_folder_and_is_not_written_over() {
        let folder = tempfile::tempdir().unwrap();
        for listed in STUDIES {
            let run = folder.path().join(listed.name);
            let asked = Asked {
                name: listed.name.to_owned(),
                quick: true,
                run: Some(run.clone()),
                ..Asked::default()
            };
            let found = study(&asked, &mut Silent).unwrap();
            assert!(found.to_string().contains("decides nothing"), "{found}");
            for file in FILES {
                assert!(run.join(file).metadata().unwrap().len() > 20, "{} {file}", listed.name);
            }
            let note = std::fs::read_to_string(run.join("NOTE.md")).unwrap();
            assert!(note.contains(&format!("lowrank study {} --seeds 1 --seed 0 --quick", listed.name)));
            let again = study(&asked, &mut Silent).unwrap_err().to_string();
            assert!(again.contains("--overwrite"), "{again}");
        }
    }

    #[test]
    fn what_cannot_be_asked_is_refused_by_name() {
        let refused = |asked: Asked| study(&asked, &mut Silent).unwrap_err().to_string();
        let of = |name: &str| Asked { name: name.to_owned(), ..Asked::default() };
        assert!(refused(of("lazy-rich")).contains("rich-lazy"));
        assert!(refused(Asked { seeds: Some(0), ..of("rich-lazy") }).contains("--seeds"));
        assert!(refused(Asked { seed: u64::MAX, ..of("rich-lazy") }).contains("--seed"));
        let recipe = Asked { seed: 10, ..of("rich_lazy") }.recipe().unwrap();
        assert_eq!(recipe, "name = \"rich-lazy\"\nseeds = 10\nseed = 10\n");
    }
}
