//! Small rooms: no Rust file past 500 lines, no name that says nothing.

use std::fs;
use std::path::{Path, PathBuf};

const LIMIT: usize = 500;
/// A file or folder whose name has one of these words holds whatever did not find its room.
const EMPTY_NAMES: [&str; 8] =
    ["util", "utils", "helper", "helpers", "common", "misc", "manager", "managers"];
/// Folders of the repository that hold sources of ours.
const SOURCES: [&str; 5] = ["crates", "fuzz", "tests", "benches", "assets"];
/// Folders that tools fill.
const GENERATED: [&str; 5] = ["target", ".venv", "__pycache__", "corpus", "artifacts"];

/// Lists what breaks the rules and fails if there is any.
pub fn run(root: &Path) -> Result<(), String> {
    let mut found = vec![];
    let mut count = 0;
    for folder in SOURCES {
        for path in files(&root.join(folder), &["rs", "py", "sh"]) {
            count += 1;
            let shown = path.strip_prefix(root).unwrap_or(&path);
            if let Some(word) = empty_name(shown) {
                found
                    .push(format!("{}: `{word}` says nothing; name it after what it holds", shown.display()));
            }
            if path.extension().is_some_and(|e| e == "rs") {
                let lines = fs::read_to_string(&path)
                    .map_err(|e| format!("{}: {e}", path.display()))?
                    .lines()
                    .count();
                if lines > LIMIT {
                    found.push(format!("{}: {lines} lines, the limit is {LIMIT}; split it", shown.display()));
                }
            }
        }
    }
    if found.is_empty() {
        println!("sizes: {count} files, none past {LIMIT} lines");
        return Ok(());
    }
    Err(found.join("\n"))
}

/// The first word in the path that says nothing.
fn empty_name(path: &Path) -> Option<&'static str> {
    let parts = path.components().map(|part| part.as_os_str().to_string_lossy().into_owned());
    parts
        .flat_map(|part| {
            let stem = part.split('.').next().unwrap_or_default().to_lowercase();
            stem.split(['_', '-']).map(str::to_owned).collect::<Vec<_>>()
        })
        .find_map(|word| EMPTY_NAMES.iter().copied().find(|empty| *empty == word))
}

/// Files below `folder` with one of the extensions, sorted; nothing if there is no such folder.
pub fn files(folder: &Path, extensions: &[&str]) -> Vec<PathBuf> {
    let mut found = vec![];
    let mut open = vec![folder.to_path_buf()];
    while let Some(at) = open.pop() {
        for entry in fs::read_dir(&at).into_iter().flatten().flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            if path.is_dir() {
                if !GENERATED.iter().any(|g| name == *g) {
                    open.push(path);
                }
            } else if extensions.iter().any(|e| path.extension().is_some_and(|x| x == *e)) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(file: &str, lines: usize) -> Result<(), String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "//\n".repeat(lines)).unwrap();
        run(dir.path())
    }

    #[test]
    fn the_limit_is_the_last_length_that_passes() {
        assert!(check("crates/a/src/lib.rs", 500).is_ok());
        let message = check("crates/a/src/lib.rs", 501).unwrap_err();
        assert!(message.contains("501 lines"), "{message}");
    }

    #[test]
    fn names_that_say_nothing_are_found_in_files_and_folders() {
        for file in [
            "crates/a/src/utils.rs",
            "crates/a/src/common/x.rs",
            "tests/string_helpers.py",
            "crates/misc/src/lib.rs",
        ] {
            assert!(check(file, 1).unwrap_err().contains("says nothing"), "{file}");
        }
        assert!(check("crates/a/src/community.rs", 1).is_ok());
    }

    #[test]
    fn generated_folders_are_skipped() {
        assert!(check("fuzz/target/debug/x.rs", 900).is_ok());
    }
}
