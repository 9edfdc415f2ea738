//! One-way arrows: the manifests may name only what `docs/architecture.md` allows.
//!
//! The list is the fenced block with the info string `arrows`, a line per crate, short names:
//!
//! ```text
//! record
//! adapt -> record tensor      # after the arrow: every crate of ours its manifest may name
//! apps/tune -> report         # a folder of `apps` or `labs` may use these folders beside it
//! ```
//!
//! * A dependency of ours that is not listed is an error; so are an arrow that no manifest has, a crate without a line
//!   and a line without a crate.
//! * The members of `apps` and `labs` are their folders, and the files that have a line (`apps/merge ->`).
//! * Dev-dependencies may name only what the crate reaches through the list, so tests too look downward.
//! * The list has no cycles, and never joins `apps` and `labs`.
//! * The tensor engine (`burn*`) is named by `crates/tensor` alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::manifest::{self, Manifest};

const PREFIX: &str = "lowrank-";
const ENGINE: &str = "burn";
const ENGINE_DOOR: &str = "tensor";
const SIBLINGS: [&str; 2] = ["apps", "labs"];
const LIST: &str = "docs/architecture.md";

/// From a crate (or `crate/folder`) to what it may name.
type Arrows = BTreeMap<String, BTreeSet<String>>;

/// Reads the list and the manifests and reports every violation.
pub fn run(root: &Path) -> Result<(), String> {
    let path = root.join(LIST);
    let page =
        fs::read_to_string(&path).map_err(|e| format!("{LIST}: {e}; it holds the list of allowed arrows"))?;
    let arrows = parse(&page)?;
    let manifests = manifest::read_crates(root)?;
    let workspace = fs::read_to_string(root.join("Cargo.toml")).map_err(|e| format!("Cargo.toml: {e}"))?;
    let shared = manifest::workspace_packages(Path::new("Cargo.toml"), &workspace)?;

    let mut found = violations(&arrows, &manifests, &shared);
    found.extend(unused(&arrows, &manifests));
    for name in SIBLINGS {
        found.extend(sibling_imports(&arrows, name, &root.join("crates").join(name).join("src")));
    }
    if found.is_empty() {
        println!("arrows: {} crates, all within the list", manifests.len());
        return Ok(());
    }
    Err(found.join("\n"))
}

/// The arrows of the page's fenced block.
fn parse(page: &str) -> Result<Arrows, String> {
    let mut lines = page.lines();
    if !lines.by_ref().any(|line| line.trim() == "```arrows") {
        return Err(format!("{LIST} has no fenced block with the info string `arrows`"));
    }
    let mut arrows = Arrows::new();
    for line in lines.take_while(|line| line.trim() != "```") {
        let rule = line.split('#').next().unwrap_or_default().trim();
        if rule.is_empty() {
            continue;
        }
        let (from, to) = rule.split_once("->").unwrap_or((rule, ""));
        let from = from.trim();
        if from.is_empty() || from.contains(char::is_whitespace) {
            return Err(format!("{LIST}: `{rule}` is not `crate -> crate crate …`"));
        }
        let to = to.split_whitespace().map(str::to_owned).collect();
        if arrows.insert(from.to_owned(), to).is_some() {
            return Err(format!("{LIST}: `{from}` has two lines; join them"));
        }
    }
    Ok(arrows)
}

fn violations(arrows: &Arrows, manifests: &[Manifest], workspace: &[String]) -> Vec<String> {
    let mut found = list_faults(arrows, manifests);
    for engine in workspace.iter().filter(|p| is_engine(p)) {
        found
            .push(format!("Cargo.toml names {engine}: only crates/{ENGINE_DOOR} may name the tensor engine"));
    }
    for manifest in manifests {
        let (name, path) = (&manifest.name, manifest.path.display());
        if name != ENGINE_DOOR {
            for engine in manifest.all().filter(|p| is_engine(p)) {
                found.push(format!(
                    "{path} names {engine}: only crates/{ENGINE_DOOR} may name the tensor engine"
                ));
            }
        }
        let ours = |packages: &[String]| -> Vec<String> {
            packages.iter().filter_map(|p| p.strip_prefix(PREFIX)).map(str::to_owned).collect()
        };
        let Some(allowed) = arrows.get(name) else {
            // The house keeper itself needs no line as long as it knows no room.
            if name != "xtask" || manifest.all().any(|p| p.starts_with(PREFIX)) {
                found.push(format!("{path}: unknown crate, {LIST} has no line for `{name}`; add one"));
            }
            continue;
        };
        for to in ours(&manifest.normal).iter().filter(|to| !allowed.contains(*to)) {
            found.push(format!("{path}: the arrow {name} -> {to} is not in {LIST}"));
        }
        let below = reach(arrows, name);
        for to in ours(&manifest.dev).iter().filter(|to| !below.contains(*to)) {
            found.push(format!(
                "{path}: the dev-dependency {name} -> {to} does not point downward: {name} never reaches {to} in {LIST}"
            ));
        }
    }
    found
}

/// Arrows of the list that no manifest has.
fn unused(arrows: &Arrows, manifests: &[Manifest]) -> Vec<String> {
    let mut found = vec![];
    for manifest in manifests {
        for to in arrows.get(&manifest.name).into_iter().flatten() {
            if !manifest.all().any(|package| package.strip_prefix(PREFIX) == Some(to)) {
                let (name, path) = (&manifest.name, manifest.path.display());
                found.push(format!(
                    "{LIST}: {path} has no dependency for the arrow {name} -> {to}; remove it"
                ));
            }
        }
    }
    found
}

/// Faults of the list itself: crates that do not exist, cycles, `apps` and `labs` joined.
fn list_faults(arrows: &Arrows, manifests: &[Manifest]) -> Vec<String> {
    let exists = |name: &str| manifests.iter().any(|m| m.name == name);
    let mut found = vec![];
    for (from, to) in arrows.iter().filter(|(from, _)| !from.contains('/')) {
        if !exists(from) {
            found.push(format!("{LIST}: unknown crate `{from}`, there is no crates/{from}"));
        }
        for to in to.iter().filter(|to| !exists(to)) {
            found.push(format!("{LIST}: `{from} -> {to}` names an unknown crate, there is no crates/{to}"));
        }
        if reach(arrows, from).contains(from) {
            found.push(format!("{LIST}: `{from}` reaches itself; the arrows go one way"));
        }
        if let Some(other) =
            SIBLINGS.iter().find(|s| *s != from && to.contains(**s) && SIBLINGS.contains(&from.as_str()))
        {
            found.push(format!(
                "{LIST}: `{from} -> {other}` joins siblings; move what they share one floor down"
            ));
        }
    }
    found
}

/// Everything that `from` reaches in one or more steps.
fn reach(arrows: &Arrows, from: &str) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    let mut open = vec![from];
    while let Some(at) = open.pop() {
        for to in arrows.get(at).into_iter().flatten() {
            if seen.insert(to.clone()) {
                open.push(to);
            }
        }
    }
    seen
}

/// The members of a crate of siblings (`apps`, `labs`): its folders, and the files with a line of their own. One may not
/// say `crate::` another unless its line names that.
fn sibling_imports(arrows: &Arrows, name: &str, src: &Path) -> Vec<String> {
    let folders = fs::read_dir(src).into_iter().flatten().flatten().filter(|entry| entry.path().is_dir());
    let folders = folders.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let listed =
        arrows.keys().filter_map(|from| from.strip_prefix(name)?.strip_prefix('/')).map(str::to_owned);
    let members: BTreeSet<String> = folders.chain(listed).collect();
    let mut found = vec![];
    for member in &members {
        if !src.join(member).is_dir() && !src.join(format!("{member}.rs")).is_file() {
            found.push(format!(
                "{LIST}: `{name}/{member}` is neither a file nor a folder of {}",
                src.display()
            ));
        }
    }
    for member in &members {
        let allowed = arrows.get(&format!("{name}/{member}")).cloned().unwrap_or_default();
        let file = Some(src.join(format!("{member}.rs"))).filter(|file| file.is_file());
        for file in crate::sizes::files(&src.join(member), &["rs"]).into_iter().chain(file) {
            let text = fs::read_to_string(&file).unwrap_or_default();
            for other in members.iter().filter(|o| *o != member && !allowed.contains(*o)) {
                if imports(&text, other) {
                    found.push(format!(
                        "{}: {name}/{member} uses its sibling `crate::{other}`; move what they share one floor down, \
                         or list `{name}/{member} -> {other}` in {LIST}",
                        file.display()
                    ));
                }
            }
        }
    }
    found.sort();
    found
}

/// Whether `crate::module` is named, by itself or in a group `crate::{…, module::item}`.
fn imports(text: &str, module: &str) -> bool {
    let code: String = text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
    code.match_indices("crate::").any(|(at, path)| {
        let rest = &code[at + path.len()..];
        match rest.strip_prefix('{') {
            Some(group) => members_of(group).any(|member| begins_with(member, module)),
            None => begins_with(rest, module),
        }
    })
}

/// The members of a group of imports, from behind its brace: cut at the commas that stand in no inner group.
fn members_of(group: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0;
    let end = group.char_indices().find(|(_, letter)| {
        depth += i32::from(*letter == '{') - i32::from(*letter == '}');
        depth < 0
    });
    let whole = &group[..end.map_or(group.len(), |(at, _)| at)];
    let mut inner = 0;
    whole.split(move |letter| {
        inner += i32::from(letter == '{') - i32::from(letter == '}');
        inner == 0 && letter == ','
    })
}

/// Whether a path begins with this module.
fn begins_with(path: &str, module: &str) -> bool {
    let rest = path.trim_start().strip_prefix(module);
    rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
}

fn is_engine(package: &str) -> bool {
    package == ENGINE || package.starts_with("burn-")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# Title\n```arrows\nrecord   # the floor\ntensor -> record\ninit -> record\nadapt -> tensor record\n\
                        apps -> adapt init\n```\nadapt -> init\n";

    fn manifest(name: &str, text: &str) -> Manifest {
        Manifest::parse(Path::new(&format!("crates/{name}/Cargo.toml")), name, text).unwrap()
    }

    /// The house of `PAGE` with one manifest replaced by `text`.
    fn check(page: &str, name: &str, text: &str) -> Vec<String> {
        let mut manifests: Vec<_> =
            ["record", "tensor", "init", "adapt", "apps"].map(|n| manifest(n, "")).into_iter().collect();
        manifests.retain(|m| m.name != name);
        manifests.push(manifest(name, text));
        violations(&parse(page).unwrap(), &manifests, &[])
    }

    #[test]
    fn the_block_ends_at_its_fence_and_comments_are_dropped() {
        let arrows = parse(PAGE).unwrap();
        assert_eq!(arrows.len(), 5);
        assert!(arrows["record"].is_empty());
        assert_eq!(arrows["adapt"].iter().collect::<Vec<_>>(), ["record", "tensor"]);
    }

    #[test]
    fn listed_arrows_pass() {
        let text = "[dependencies]\nlowrank-record = { workspace = true }\nlowrank-tensor = { workspace = true }\nserde = '1'";
        assert_eq!(check(PAGE, "adapt", text), Vec::<String>::new());
    }

    #[test]
    fn an_arrow_without_a_dependency_is_found() {
        let text = "[dependencies]\nlowrank-tensor = { workspace = true }";
        let found = unused(&parse(PAGE).unwrap(), &[manifest("adapt", text), manifest("record", "")]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("adapt -> record; remove it"), "{found:?}");
        let text = format!("{text}\n[dev-dependencies]\nlowrank-record = '1'");
        assert!(unused(&parse(PAGE).unwrap(), &[manifest("adapt", &text)]).is_empty(), "tests use it");
    }

    #[test]
    fn a_forbidden_arrow_is_found() {
        let found = check(PAGE, "adapt", "[dependencies]\nlowrank-init = { workspace = true }");
        assert_eq!(
            found,
            ["crates/adapt/Cargo.toml: the arrow adapt -> init is not in docs/architecture.md"]
        );
    }

    #[test]
    fn a_renamed_forbidden_arrow_is_found() {
        let found =
            check(PAGE, "adapt", "[dependencies]\nstarts = { package = 'lowrank-init', path = '../init' }");
        assert!(found[0].contains("adapt -> init"), "{found:?}");
    }

    #[test]
    fn an_unknown_crate_is_found_on_both_sides() {
        let found = check(PAGE, "magic", "");
        assert!(found[0].contains("no line for `magic`"), "{found:?}");
        let page = PAGE.replace("record   #", "ghost\nrecord   #");
        let found = check(&page, "record", "");
        assert!(found[0].contains("unknown crate `ghost`"), "{found:?}");
    }

    #[test]
    fn dev_dependencies_point_downward() {
        let below = "[dev-dependencies]\nlowrank-tensor = { workspace = true }";
        assert!(check(PAGE, "apps", below).is_empty(), "apps reaches tensor through adapt");
        let above = "[dev-dependencies]\nlowrank-apps = { workspace = true }";
        assert!(check(PAGE, "adapt", above)[0].contains("does not point downward"));
    }

    #[test]
    fn the_engine_has_one_door() {
        assert!(check(PAGE, "tensor", "[dependencies]\nburn = '=0.22.1'").is_empty());
        let found = check(PAGE, "adapt", "[dev-dependencies]\nburn-flex = '1'");
        assert!(found[0].contains("adapt/Cargo.toml names burn-flex"), "{found:?}");
        let found = violations(&parse(PAGE).unwrap(), &[], &["burn".to_owned()]);
        assert!(found.iter().any(|f| f.starts_with("Cargo.toml names burn")), "{found:?}");
    }

    #[test]
    fn cycles_and_joined_siblings_are_found() {
        let cycle = parse("```arrows\na -> b\nb -> a\n```").unwrap();
        let found = list_faults(&cycle, &[manifest("a", ""), manifest("b", "")]);
        assert_eq!(found.iter().filter(|f| f.contains("reaches itself")).count(), 2, "{found:?}");
        let joined = parse("```arrows\napps -> labs\nlabs\n```").unwrap();
        let found = list_faults(&joined, &[manifest("apps", ""), manifest("labs", "")]);
        assert!(found[0].contains("joins siblings"), "{found:?}");
    }

    #[test]
    fn a_page_without_a_block_or_with_a_broken_line_is_refused() {
        assert!(parse("```text\na\n```").is_err());
        assert!(parse("```arrows\na b -> c\n```").is_err());
        assert!(parse("```arrows\na -> c\na\n```").is_err());
    }

    #[test]
    fn imports_are_seen_in_groups_and_over_lines() {
        for text in [
            "use crate::merge;",
            "use crate::merge::run;",
            "let x = crate::merge::run();",
            "use crate::{AppError, merge};",
            "use crate::{\n    error::{Because, Other},\n    merge::{run, stop},\n    page,\n};",
        ] {
            assert!(imports(text, "merge"), "{text}");
        }
        for text in [
            "// crate::merge",
            "use crate::merged;",
            "use crate::{AppError, page::merge};",
            "use crate::{page::{merge, draw}, error};",
            "use crate::{page};\nlet merge = 3;",
        ] {
            assert!(!imports(text, "merge"), "{text}");
        }
    }

    #[test]
    fn sibling_imports_are_found_unless_listed() {
        let dir = tempfile::tempdir().unwrap();
        for (file, text) in [
            ("tune/mod.rs", "use crate::merge::run;\n"),
            (
                "merge/mod.rs",
                "// crate::tune is only mentioned\nuse crate::tune_report::x;\nuse crate::page;\n",
            ),
        ] {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let found = sibling_imports(&Arrows::new(), "apps", dir.path());
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("apps/tune uses its sibling `crate::merge`"), "{found:?}");
        let listed = parse("```arrows\napps/tune -> merge\n```").unwrap();
        assert!(sibling_imports(&listed, "apps", dir.path()).is_empty());
        // A file is a member once it has a line, and shared ground without one.
        fs::write(dir.path().join("export.rs"), "use crate::merge::run;\n").unwrap();
        assert!(sibling_imports(&listed, "apps", dir.path()).is_empty());
        let listed = parse("```arrows\napps/tune -> merge\napps/export ->\napps/ghost ->\n```").unwrap();
        let found = sibling_imports(&listed, "apps", dir.path());
        assert!(found[0].contains("apps/export uses") && found[1].contains("apps/ghost"), "{found:?}");
    }
}
