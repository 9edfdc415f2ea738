//! The one check command: named steps, each with its time, cheapest first.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

/// What to do with the pages generated from the cards.
#[derive(Clone, Copy)]
pub enum Pages {
    /// Fail if they are not what the program would write.
    Check,
    /// Write them again.
    Write,
}

/// Format, arrows, sizes, clippy, rustdoc, generated pages.
pub fn check(root: &Path) -> Result<(), String> {
    let begin = Instant::now();
    step("format", || cargo(root, &["fmt", "--all", "--", "--check"], &[]))?;
    step("arrows", || crate::arrows::run(root))?;
    step("sizes", || crate::sizes::run(root))?;
    let clippy = ["clippy", "--release", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"];
    step("clippy", || cargo(root, &clippy, &[]))?;
    docs(root, Pages::Check)?;
    println!("check: all passed in {:.1} s", begin.elapsed().as_secs_f64());
    Ok(())
}

/// Rustdoc without warnings, then the generated pages.
pub fn docs(root: &Path, pages: Pages) -> Result<(), String> {
    let rustdoc = ["doc", "--release", "--workspace", "--no-deps", "--quiet"];
    step("rustdoc", || cargo(root, &rustdoc, &[("RUSTDOCFLAGS", "-D warnings")]))?;
    step("generated pages", || reference(root, pages))
}

/// The reference pages come from the cards, so the program itself writes and compares them.
fn reference(root: &Path, pages: Pages) -> Result<(), String> {
    let run = ["run", "--release", "--quiet", "--package", "lowrank-cli", "--", "reference"];
    match pages {
        Pages::Check => cargo(root, &[&run[..], &["--check", "docs/reference"]].concat(), &[])
            .map_err(|e| format!("{e}\nwrite them again with `cargo xtask docs --write`")),
        Pages::Write => cargo(root, &[&run[..], &["docs/reference"]].concat(), &[]),
    }
}

/// Runs one step, says its name before and its time after.
fn step(name: &str, work: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    println!("== {name}");
    let begin = Instant::now();
    let outcome = work();
    let seconds = begin.elapsed().as_secs_f64();
    match outcome {
        Ok(()) => {
            println!("== {name}: passed, {seconds:.1} s");
            Ok(())
        }
        Err(message) => Err(format!("{message}\n== {name}: FAILED after {seconds:.1} s")),
    }
}

/// Runs the cargo that started us, in the root, with output passed through.
fn cargo(root: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Result<(), String> {
    let program = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let shown = format!("cargo {}", arguments.join(" "));
    let status = Command::new(program)
        .args(arguments)
        .envs(environment.iter().copied())
        .current_dir(root)
        .status()
        .map_err(|e| format!("`{shown}` could not start: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("`{shown}` ended with {status}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_step_is_named_and_keeps_its_message() {
        let message = step("arrows", || Err("a -> b".to_owned())).unwrap_err();
        assert!(message.starts_with("a -> b\n== arrows: FAILED"), "{message}");
        assert!(step("arrows", || Ok(())).is_ok());
    }

    #[test]
    fn a_command_that_fails_is_shown() {
        let message = cargo(Path::new("."), &["no-such-command"], &[]).unwrap_err();
        assert!(message.contains("`cargo no-such-command` ended"), "{message}");
    }
}
