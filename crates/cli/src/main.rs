//! `lowrank`: the command line. Flags, progress and exit codes; the work is in `lowrank-apps`.
#![allow(clippy::print_stdout, clippy::print_stderr)] // Results go to standard output, notes to standard error.

mod commands;
mod terminal;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lowrank_command::AppError;

fn main() -> ExitCode {
    lowrank_apps::keep_memory();
    let matches = commands::command().get_matches();
    let stop = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&stop);
    // The first Ctrl-C finishes the step and saves; the second ends at once.
    let handler = ctrlc::set_handler(move || {
        if asked.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        eprintln!("\nstopping when this step is done; press Ctrl-C again to stop at once");
    });
    if let Err(error) = handler {
        eprintln!("warning: Ctrl-C will not save: {error}");
    }
    match commands::run(&matches, stop) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report(&error),
    }
}

fn report(error: &AppError) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::from(error.exit_code())
}
