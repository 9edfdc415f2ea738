//! `lowrank list` and `lowrank explain`: every start, form, optimiser and combination, from their cards.

use std::fmt;

use lowrank_linalg::combination;
use lowrank_record::{Card, Choice, Kind, Need, Source};
use lowrank_train::OptimiserCard;
use serde::Serialize;

use crate::{AppError, recipes};

/// One method: a card, of whichever catalogue.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// The catalogue: `start`, `form`, `optimiser` or `combination`.
    pub kind: &'static str,
    /// The name typed by the user.
    pub name: &'static str,
    /// The method in one sentence.
    pub summary: &'static str,
    /// Where it was published.
    pub source: Source,
    /// The choices it takes.
    pub choices: &'static [Choice],
    /// Where we differ, and what it does not do.
    pub notes: &'static [&'static str],
    card: Option<&'static Card>,
}

impl From<&'static Card> for Entry {
    fn from(card: &'static Card) -> Entry {
        let kind = match card.kind {
            Kind::Initialiser => "start",
            Kind::Form => "form",
            Kind::Model => "model",
            Kind::Task => "task",
            Kind::Combination => "combination",
        };
        let Card { name, summary, source, choices, notes, .. } = *card;
        // Combinations work on finished adapters: there is no step 0 to promise anything of.
        let card = (card.kind != Kind::Combination).then_some(card);
        Entry { kind, name, summary, source, choices, notes, card }
    }
}

impl From<&'static OptimiserCard> for Entry {
    fn from(card: &'static OptimiserCard) -> Entry {
        let OptimiserCard { name, summary, source, choices, notes } = *card;
        Entry { kind: "optimiser", name, summary, source, choices, notes, card: None }
    }
}

/// Every method, in the order in which catalogues are walked.
#[must_use]
pub fn entries() -> Vec<Entry> {
    let starts = lowrank_init::ALL.iter().map(|start| Entry::from(start.card()));
    let forms = lowrank_adapt::ALL.iter().map(|form| Entry::from(form.card()));
    let optimisers = lowrank_train::ALL.iter().map(|card| Entry::from(*card));
    let combinations = combination::ALL.iter().map(|method| Entry::from(method.card()));
    starts.chain(forms).chain(optimisers).chain(combinations).collect()
}

/// Names with their summaries.
#[derive(Debug, Clone, Serialize)]
pub struct List {
    /// Each method.
    pub methods: Vec<Listed>,
}

/// One line of the list.
#[derive(Debug, Clone, Serialize)]
pub struct Listed {
    /// The catalogue: `start`, `form`, `optimiser`, `combination`, or `method` for a start and a form under one name.
    pub kind: &'static str,
    /// The name typed by the user.
    pub name: &'static str,
    /// The method in one sentence.
    pub summary: String,
}

/// Every start, form, optimiser and method.
#[must_use]
pub fn list() -> List {
    let listed =
        |entry: &Entry| Listed { kind: entry.kind, name: entry.name, summary: entry.summary.to_owned() };
    let recipe =
        |recipe: &recipes::Recipe| Listed { kind: "method", name: recipe.name, summary: recipe.summary() };
    List { methods: entries().iter().map(listed).chain(recipes::ALL.iter().map(recipe)).collect() }
}

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut before = "";
        for Listed { kind, name, summary } in &self.methods {
            if *kind != before {
                let use_of = if *kind == "method" { " (--method NAME; a start and a form)" } else { "" };
                writeln!(f, "{}{kind}s{use_of}", if before.is_empty() { "" } else { "\n" })?;
                before = kind;
            }
            write_wrapped(f, &format!("  {name:<16} "), summary)?;
        }
        write!(f, "\n`lowrank explain NAME` tells formula, source, choices and where we differ")
    }
}

/// One method, explained.
#[derive(Debug, Clone, Serialize)]
pub struct Explanation {
    /// The catalogue.
    pub kind: &'static str,
    /// The name.
    pub name: &'static str,
    /// The method in one sentence.
    pub summary: &'static str,
    /// Authors, title, year, link.
    pub source: String,
    /// What it must be shown.
    pub needs: Vec<String>,
    /// What it promises of the function at step 0.
    pub promise: Option<String>,
    /// What may be chosen.
    pub choices: Vec<Choosable>,
    /// Where we differ, and what it does not do.
    pub notes: Vec<&'static str>,
    /// What `--method` makes of the name, where it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
}

/// A choice of a method.
#[derive(Debug, Clone, Serialize)]
pub struct Choosable {
    /// Its name.
    pub name: &'static str,
    /// Its value where none is given.
    pub default: &'static str,
    /// The values it takes.
    pub values: &'static str,
    /// What it does.
    pub meaning: &'static str,
}

/// Explains one method.
///
/// # Errors
/// [`AppError::Usage`] naming the nearest known name.
pub fn explain(name: &str) -> Result<Explanation, AppError> {
    let entries = entries();
    let wanted = name.to_lowercase().replace('_', "-");
    let recipe = recipes::ALL.iter().find(|recipe| recipe.name == wanted);
    let method = recipe.map(recipes::Recipe::summary);
    // A method without a start or form of its own name is explained by its start.
    let part = recipe.map_or(&*wanted, |recipe| recipe.init);
    let found = entries.iter().find(|entry| entry.name == wanted);
    let found = found.or_else(|| entries.iter().find(|entry| entry.name == part)).ok_or_else(|| {
        let near =
            entries.iter().map(|entry| (strsim::damerau_levenshtein(&wanted, entry.name), entry.name)).min();
        let hint = match near {
            Some((distance, name)) if distance <= 3 => format!("; did you mean {name}?"),
            _ => "; `lowrank list` shows every name".to_owned(),
        };
        AppError::usage(format!("no start, form, optimiser or combination is called {name}{hint}"))
    })?;
    Ok(Explanation { method, ..Explanation::from(found) })
}

impl From<&Entry> for Explanation {
    fn from(entry: &Entry) -> Explanation {
        Explanation {
            kind: entry.kind,
            name: entry.name,
            summary: entry.summary,
            source: entry.source.to_string(),
            needs: entry
                .card
                .map(|card| card.needs.iter().map(Need::to_string).collect())
                .unwrap_or_default(),
            promise: entry.card.map(|card| card.promise.to_string()),
            choices: entry.choices.iter().map(Choosable::from).collect(),
            notes: entry.notes.to_vec(),
            method: None,
        }
    }
}

impl From<&Choice> for Choosable {
    fn from(choice: &Choice) -> Choosable {
        let Choice { name, default, values, meaning } = *choice;
        Choosable { name, default, values, meaning }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} ({})\n", self.name, self.kind)?;
        write_wrapped(f, "  ", self.summary)?;
        writeln!(f)?;
        write_wrapped(f, "source   ", &self.source)?;
        if let Some(method) = &self.method {
            write_wrapped(f, "--method ", method)?;
        }
        if !self.needs.is_empty() {
            writeln!(f, "needs    {}", self.needs.join(", "))?;
        }
        if let Some(promise) = &self.promise {
            write_wrapped(f, "step 0   ", promise)?;
        }
        if !self.choices.is_empty() {
            writeln!(f, "\nchoices")?;
        }
        for Choosable { name, default, values, meaning } in &self.choices {
            writeln!(f, "  {name} = {default}   ({values})")?;
            write_wrapped(f, "      ", meaning)?;
        }
        if !self.notes.is_empty() {
            writeln!(f, "\nnotes")?;
        }
        for note in &self.notes {
            write_wrapped(f, "  * ", note)?;
        }
        Ok(())
    }
}

/// Widest line on a terminal.
const WIDTH: usize = 80;

/// Words broken at the width of a terminal; later lines are indented by the width of `lead`.
fn write_wrapped(f: &mut fmt::Formatter<'_>, lead: &str, text: &str) -> fmt::Result {
    let indent = lead.chars().count();
    write!(f, "{lead}")?;
    let mut column = indent;
    for word in text.split_whitespace() {
        let width = word.chars().count();
        if column > indent && column + 1 + width > WIDTH {
            write!(f, "\n{:indent$}", "")?;
            column = indent;
        }
        let gap = if column > indent { " " } else { "" };
        write!(f, "{gap}{word}")?;
        column += gap.len() + width;
    }
    writeln!(f)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_explained_and_fits_a_terminal() {
        let entries = entries();
        for entry in &entries {
            let text = explain(entry.name).unwrap().to_string();
            assert!(text.contains(entry.source.title.split_whitespace().next().unwrap()), "{text}");
            let link = |line: &str| line.contains("http");
            let long = text.lines().find(|line| line.chars().count() > WIDTH && !link(line));
            assert_eq!(long, None);
        }
        let names: std::collections::BTreeSet<_> = entries.iter().map(|entry| entry.name).collect();
        assert_eq!(names.len(), entries.len(), "two methods share a name");
        assert!(list().to_string().lines().all(|line| line.chars().count() <= WIDTH));
    }

    #[test]
    fn an_unknown_name_names_its_neighbour() {
        let message = explain("lora_gaa").unwrap_err().to_string();
        assert!(message.contains("lora-ga"), "{message}");
    }
}
