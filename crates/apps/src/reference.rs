//! `lowrank reference`: the reference pages, written from the cards, so that no page can say something else.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::AppError;
use crate::catalogue::{Explanation, entries};

/// Where the pages go.
#[derive(Debug, Clone, clap::Args)]
pub struct Reference {
    /// The folder of the pages
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
    /// Compare instead of writing; fails when a page differs, is missing or is left over
    #[arg(long)]
    pub check: bool,
}

/// What was done.
#[derive(Debug, Clone, Serialize)]
pub struct Pages {
    /// Pages in the folder.
    pub pages: usize,
    /// Whether they were only compared.
    pub checked: bool,
}

impl std::fmt::Display for Pages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} pages {}", self.pages, if self.checked { "are what the cards say" } else { "written" })
    }
}

/// Writes or compares every page.
///
/// # Errors
/// [`AppError::Failed`] naming the pages that differ, or what cannot be written.
pub fn reference(options: &Reference) -> Result<Pages, AppError> {
    let pages = pages();
    let left_over = left_over(&options.folder, &pages);
    if !options.check {
        std::fs::create_dir_all(&options.folder)
            .map_err(|error| AppError::failed(format!("creating {}: {error}", options.folder.display())))?;
        for (name, content) in &pages {
            let path = options.folder.join(name);
            lowrank_store::text::write(&path, content)
                .map_err(|error| AppError::failed(error.to_string()))?;
        }
    }
    let differs = |name: &String, content: &String| {
        lowrank_store::text::read(&options.folder.join(name)).ok().as_ref() != Some(content)
    };
    let mut wrong: Vec<String> =
        pages.iter().filter(|(name, content)| differs(name, content)).map(|(name, _)| name.clone()).collect();
    wrong.extend(left_over.into_iter().map(|name| format!("{name} (no method has this page: delete it)")));
    if !wrong.is_empty() {
        let folder = options.folder.display();
        return Err(AppError::failed(format!("{folder} is not what the cards say: {}", wrong.join(", "))));
    }
    Ok(Pages { pages: pages.len(), checked: options.check })
}

/// Pages of methods that are no more.
fn left_over(folder: &Path, pages: &BTreeMap<String, String>) -> Vec<String> {
    let Ok(found) = std::fs::read_dir(folder) else { return Vec::new() };
    let names = found.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut left: Vec<String> =
        names.filter(|name| name.ends_with(".md") && !pages.contains_key(name)).collect();
    left.sort();
    left
}

/// File name and content of every page.
fn pages() -> BTreeMap<String, String> {
    let mut pages = BTreeMap::new();
    let mut index = String::from(
        "# Reference\n\nGenerated from the cards in the code by `cargo xtask docs --write`; not edited by hand.\n",
    );
    let mut before = "";
    for entry in entries() {
        if entry.kind != before {
            before = entry.kind;
            let _ = write!(index, "\n## {}s\n\n", capital(entry.kind));
        }
        let _ = writeln!(index, "* [{}]({}.md): {}", entry.name, entry.name, entry.summary);
        pages.insert(format!("{}.md", entry.name), page(&Explanation::from(&entry)));
    }
    pages.insert("README.md".to_owned(), index);
    pages
}

fn page(method: &Explanation) -> String {
    let mut out = format!(
        "# {}\n\n{}: {}\n\n**Source.** {}\n",
        method.name,
        capital(method.kind),
        method.summary,
        method.source
    );
    if !method.needs.is_empty() {
        let _ = write!(out, "\n**Needs.** {}\n", method.needs.join(", "));
    }
    if let Some(promise) = &method.promise {
        let _ = write!(out, "\n**At step 0.** {promise}\n");
    }
    if !method.choices.is_empty() {
        out.push_str("\n| choice | default | values | meaning |\n| --- | --- | --- | --- |\n");
    }
    for choice in &method.choices {
        let cells = [choice.name, choice.default, choice.values, choice.meaning];
        let cells = cells.map(|cell| cell.replace('|', "\\|"));
        let _ = writeln!(out, "| `{}` | `{}` | {} | {} |", cells[0], cells[1], cells[2], cells[3]);
    }
    if !method.notes.is_empty() {
        out.push_str("\n**Notes.**\n\n");
    }
    for note in &method.notes {
        let _ = writeln!(out, "* {note}");
    }
    out
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_missing_or_left_over_page_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let write = Reference { folder: folder.path().join("reference"), check: false };
        let check = Reference { check: true, ..write.clone() };
        assert!(reference(&check).is_err());
        assert_eq!(reference(&write).unwrap().pages, entries().len() + 1);
        assert!(reference(&check).unwrap().checked);
        std::fs::write(write.folder.join("pissa.md"), "else").unwrap();
        std::fs::write(write.folder.join("gone.md"), "old").unwrap();
        let message = reference(&check).unwrap_err().to_string();
        assert!(message.contains("pissa.md") && message.contains("gone.md"), "{message}");
    }
}
