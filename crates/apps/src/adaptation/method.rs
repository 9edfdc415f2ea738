//! One method of adapting: where it starts, how the change is parametrised, and its rate.

use std::collections::BTreeMap;

use crate::recipes::Composed;

/// The initialiser of a method whose form makes its own start.
pub(crate) const OWN_START: &str = "none";

/// What one run does on the ground that it shares with others.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Method {
    /// What progress, tables and plots call it.
    pub(crate) name: String,
    /// The initialiser; [`OWN_START`] for a form that makes its own start.
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

impl Method {
    /// What a name was composed of, under this name, at this rate.
    pub(crate) fn of(name: &str, composed: Composed, rate: f64) -> Method {
        let Composed { init, init_options, form, form_options, .. } = composed;
        Method { name: name.to_lowercase().replace('_', "-"), init, init_options, form, form_options, rate }
    }

    /// Whether the two differ in nothing but their names.
    pub(crate) fn does_the_same(&self, other: &Method) -> bool {
        Method { name: String::new(), ..self.clone() } == Method { name: String::new(), ..other.clone() }
    }
}
