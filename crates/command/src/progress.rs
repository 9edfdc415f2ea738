//! What an application tells while it works, and the two things that it may ask the outside: the time and the memory.

/// The outside of an application: a terminal, a log, a test.
pub trait Progress {
    /// A line for the user.
    fn say(&mut self, line: &str);

    /// A piece of work of `total` steps begins.
    fn begin(&mut self, label: &str, total: u64);

    /// Step `done` of the work is finished; `note` holds what is worth seeing (loss, rate).
    fn step(&mut self, done: u64, note: &str);

    /// The piece of work is over.
    fn end(&mut self);

    /// Seconds since some fixed moment.
    fn now(&self) -> f64;

    /// The largest resident size of the process since the last call of [`Progress::reset_peak`], in bytes, where the
    /// system tells.
    fn peak_memory(&self) -> Option<u64>;

    /// Starts a new measurement of the peak, where the system can.
    fn reset_peak(&mut self);

    /// Whether the user asked to stop (Ctrl-C): finish the step, save, say how to go on.
    fn stopping(&self) -> bool;
}

/// Says nothing and never stops: for tests and for use as a library.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn say(&mut self, _line: &str) {}
    fn begin(&mut self, _label: &str, _total: u64) {}
    fn step(&mut self, _done: u64, _note: &str) {}
    fn end(&mut self) {}
    fn now(&self) -> f64 {
        0.0
    }
    fn peak_memory(&self) -> Option<u64> {
        None
    }
    fn reset_peak(&mut self) {}
    fn stopping(&self) -> bool {
        false
    }
}
