//! What every study of the laboratories is asked, and what it hands over.

use lowrank_command::page::Page;

/// How much is run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) seeds: u64,
    pub(crate) first: u64,
    pub(crate) quick: bool,
}

/// What a study hands over.
pub(crate) struct Finished {
    pub(crate) json: String,
    pub(crate) title: String,
    /// A line for each statement: what became of it, what it says, what was measured.
    pub(crate) statements: Vec<String>,
    pub(crate) sentences: Vec<String>,
    pub(crate) page: Page,
    /// The note, with the command that runs it again.
    pub(crate) note: Box<dyn Fn(&str) -> String>,
}
