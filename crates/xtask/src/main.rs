//! House keeping of the workspace: `cargo xtask check | arrows | sizes | docs | bench`.
//!
//! Plain functions over files and processes; no crate of the workspace is linked, so this builds in seconds.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool")]
#![allow(clippy::disallowed_methods, reason = "it times the steps it runs")]

mod arrows;
mod bench;
mod manifest;
mod sizes;
mod steps;

use std::path::PathBuf;
use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask COMMAND

  check             format, arrows, sizes, clippy, rustdoc, generated pages; stops at the first failure
  arrows            compare the manifests with the list in docs/architecture.md
  sizes             list Rust files past 500 lines and names that say nothing
  docs [--write]    rustdoc without warnings, then the generated pages: checked, or written again
  bench step [--rounds N] [--steps N] [--threads 1,2]
                    one training step against PyTorch, alternating; LOWRANK_PYTHON names a Python with torch
  bench init --model FILE|DIR [--tokens FILE] [--methods a,b] [--rounds N] [--threads N] [--memory yes|no]
                    the starts against PEFT's, alternating, and the memory of each; the Python needs peft and attrs";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = workspace_root().and_then(|root| match words.as_slice() {
        ["check"] => steps::check(&root),
        ["arrows"] => arrows::run(&root),
        ["sizes"] => sizes::run(&root),
        ["docs"] => steps::docs(&root, steps::Pages::Check),
        ["docs", "--write"] => steps::docs(&root, steps::Pages::Write),
        ["bench", "step", options @ ..] => bench::step(&root, options),
        ["bench", "init", options @ ..] => bench::init(&root, options),
        ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            Ok(())
        }
        _ => {
            eprintln!("{USAGE}");
            std::process::exit(2);
        }
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

/// The folder of the workspace manifest: the nearest one above the current folder.
fn workspace_root() -> Result<PathBuf, String> {
    let here = std::env::current_dir().map_err(|e| format!("the current folder cannot be read: {e}"))?;
    here.ancestors()
        .find(|dir| {
            std::fs::read_to_string(dir.join("Cargo.toml")).is_ok_and(|text| text.contains("[workspace]"))
        })
        .map(PathBuf::from)
        .ok_or_else(|| {
            format!("no workspace manifest at or above {}; run it inside the repository", here.display())
        })
}
