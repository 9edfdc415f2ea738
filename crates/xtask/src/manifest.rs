//! What a `Cargo.toml` says about dependencies.

use std::fs;
use std::path::{Path, PathBuf};

/// One crate's manifest, reduced to the packages it names.
pub struct Manifest {
    /// Where it was read, for messages.
    pub path: PathBuf,
    /// The folder's name under `crates/`: the crate's short name.
    pub name: String,
    /// Packages under `[dependencies]` and `[build-dependencies]`, also those of a target.
    pub normal: Vec<String>,
    /// Packages under `[dev-dependencies]`, also those of a target.
    pub dev: Vec<String>,
}

impl Manifest {
    /// Parses the text of `crates/NAME/Cargo.toml`.
    pub fn parse(path: &Path, name: &str, text: &str) -> Result<Self, String> {
        let table = parse(path, text)?;
        let mut found = Self { path: path.to_path_buf(), name: name.to_owned(), normal: vec![], dev: vec![] };
        found.collect(&table);
        if let Some(targets) = table.get("target").and_then(toml::Value::as_table) {
            for target in targets.values().filter_map(toml::Value::as_table) {
                found.collect(target);
            }
        }
        Ok(found)
    }

    fn collect(&mut self, table: &toml::Table) {
        self.normal.extend(packages(table, "dependencies"));
        self.normal.extend(packages(table, "build-dependencies"));
        self.dev.extend(packages(table, "dev-dependencies"));
    }

    /// Every package named, of whatever kind.
    pub fn all(&self) -> impl Iterator<Item = &String> {
        self.normal.iter().chain(&self.dev)
    }
}

/// All manifests under `crates/`, by name.
pub fn read_crates(root: &Path) -> Result<Vec<Manifest>, String> {
    let folder = root.join("crates");
    let entries = fs::read_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut manifests = vec![];
    for entry in entries.flatten() {
        let path = entry.path().join("Cargo.toml");
        if let Ok(text) = fs::read_to_string(&path) {
            let shown = path.strip_prefix(root).unwrap_or(&path);
            manifests.push(Manifest::parse(shown, &entry.file_name().to_string_lossy(), &text)?);
        }
    }
    manifests.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(manifests)
}

/// The packages of `[workspace.dependencies]`.
pub fn workspace_packages(path: &Path, text: &str) -> Result<Vec<String>, String> {
    let table = parse(path, text)?;
    let workspace = table.get("workspace").and_then(toml::Value::as_table);
    Ok(workspace.map(|w| packages(w, "dependencies")).unwrap_or_default())
}

fn parse(path: &Path, text: &str) -> Result<toml::Table, String> {
    text.parse().map_err(|e| format!("{}: {e}", path.display()))
}

/// Package names of one section; `alias = { package = "real" }` counts as `real`.
fn packages(table: &toml::Table, section: &str) -> Vec<String> {
    let entries = table.get(section).and_then(toml::Value::as_table);
    entries
        .into_iter()
        .flatten()
        .map(|(key, value)| {
            let renamed = value.as_table().and_then(|t| t.get("package")).and_then(toml::Value::as_str);
            renamed.unwrap_or(key).to_owned()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_targets_and_renames_are_read() {
        let text = r#"
            [dependencies]
            serde = "1"
            engine = { package = "burn-core", version = "1" }
            [dev-dependencies]
            lowrank-init = { workspace = true }
            [target.'cfg(unix)'.build-dependencies]
            cc = "1"
        "#;
        let found = Manifest::parse(Path::new("crates/a/Cargo.toml"), "a", text).unwrap();
        assert_eq!(found.normal, ["burn-core", "serde", "cc"]);
        assert_eq!(found.dev, ["lowrank-init"]);
    }

    #[test]
    fn workspace_dependencies_are_read() {
        let found =
            workspace_packages(Path::new("Cargo.toml"), "[workspace.dependencies]\nrayon = '1'").unwrap();
        assert_eq!(found, ["rayon"]);
    }

    #[test]
    fn a_broken_manifest_names_its_file() {
        let message = Manifest::parse(Path::new("crates/a/Cargo.toml"), "a", "[dependencies").err().unwrap();
        assert!(message.contains("crates/a/Cargo.toml"), "{message}");
    }
}
