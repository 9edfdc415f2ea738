//! One method of adapting: where it starts, how the change is parametrised, and its rate.

use std::collections::BTreeMap;

/// What one run does on the ground that it shares with others.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Method {
    /// What progress, tables and plots call it.
    pub(crate) name: String,
    /// The initialiser.
    pub(crate) init: String,
    /// Its choices.
    pub(crate) init_options: BTreeMap<String, String>,
    /// The form of the change.
    pub(crate) form: String,
    /// Its choices.
    pub(crate) form_options: BTreeMap<String, String>,
    /// Learning rate at the top of the schedule.
    pub(crate) rate: f64,
}
