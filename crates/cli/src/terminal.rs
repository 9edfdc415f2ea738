//! The terminal: a progress bar where there is one, plain lines otherwise, nothing with `--quiet`.
#![allow(clippy::disallowed_methods, clippy::print_stderr)] // The command line is where clocks and output belong.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use lowrank_command::Progress;

/// How much is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Show {
    /// Progress bars on a terminal, plain lines elsewhere.
    Progress,
    /// Nothing but results and errors.
    Quiet,
}

/// The user's terminal.
pub struct Terminal {
    show: Show,
    start: Instant,
    stop: Arc<AtomicBool>,
    bar: Option<ProgressBar>,
    label: String,
    total: u64,
    shown: f64,
    is_terminal: bool,
}

impl Terminal {
    /// Notes go to standard error, so that results on standard output can be piped.
    pub fn new(show: Show, stop: Arc<AtomicBool>) -> Terminal {
        let is_terminal = std::io::stderr().is_terminal();
        Terminal {
            show,
            start: Instant::now(),
            stop,
            bar: None,
            label: String::new(),
            total: 0,
            shown: 0.0,
            is_terminal,
        }
    }
}

impl Progress for Terminal {
    fn say(&mut self, line: &str) {
        match (&self.bar, self.show) {
            (_, Show::Quiet) => {}
            (Some(bar), Show::Progress) => bar.suspend(|| eprintln!("{line}")),
            (None, Show::Progress) => eprintln!("{line}"),
        }
    }

    fn begin(&mut self, label: &str, total: u64) {
        label.clone_into(&mut self.label);
        self.total = total;
        self.shown = f64::NEG_INFINITY;
        if self.show == Show::Progress && self.is_terminal {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("{prefix:>14} {wide_bar} {pos}/{len} {msg} {eta} left");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_prefix(self.label.clone());
            self.bar = Some(bar);
        }
    }

    fn step(&mut self, done: u64, note: &str) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            bar.set_message(note.to_owned());
            return;
        }
        // Without a terminal: one line every few seconds, and the last one.
        let now = self.now();
        if self.show == Show::Progress && (done == self.total || now - self.shown >= 5.0) {
            self.shown = now;
            eprintln!("{} {done}/{} {note}", self.label, self.total);
        }
    }

    fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn now(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    fn peak_memory(&self) -> Option<u64> {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let line = status.lines().find(|line| line.starts_with("VmHWM"))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1024)
    }

    fn reset_peak(&mut self) {
        // Linux only; elsewhere the peak is that of the whole process.
        let _ = std::fs::write("/proc/self/clear_refs", "5");
    }

    fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}
