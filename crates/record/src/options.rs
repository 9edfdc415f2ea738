//! From what was typed to what a method is made of.

use crate::{Card, Choice};

/// Why a choice of a method cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// The method has no such choice.
    #[error("{method} has no option {option}; {hint}")]
    Unknown {
        /// The method.
        method: &'static str,
        /// The option given.
        option: String,
        /// The nearest option, or all of them.
        hint: String,
    },
    /// The same choice given twice.
    #[error("{method}: option {option} is given twice; keep one")]
    Repeated {
        /// The method.
        method: &'static str,
        /// The option.
        option: &'static str,
    },
    /// A value that the choice does not take.
    #[error("{method}: {option} = {value} is not allowed; it takes {values}")]
    Value {
        /// The method.
        method: &'static str,
        /// The option.
        option: &'static str,
        /// The value given.
        value: String,
        /// What it takes.
        values: &'static str,
    },
}

/// Choices of one method: what was given, and the card's defaults for the rest. Every name has been checked.
#[derive(Debug, Clone)]
pub struct Options {
    card: &'static Card,
    given: Vec<(&'static str, String)>,
}

/// A value with a name, for choices among a few.
pub trait Named: Copy + PartialEq + 'static {
    /// Every name and its value; the first name of a value is the one that is written.
    const NAMES: &'static [(&'static str, Self)];

    /// The name of this value.
    #[must_use]
    fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, value)| *value == self).map_or("", |(name, _)| name)
    }
}

impl Named for bool {
    const NAMES: &'static [(&'static str, bool)] = &[("true", true), ("false", false)];
}

impl Options {
    /// Checks the names of the choices against the card.
    ///
    /// # Errors
    /// [`OptionError::Unknown`], [`OptionError::Repeated`].
    pub fn new<K: AsRef<str>, V: AsRef<str>>(
        card: &'static Card,
        options: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Options, OptionError> {
        let mut given: Vec<(&'static str, String)> = Vec::new();
        for (name, value) in options {
            let wanted = plain(name.as_ref());
            let known = || card.choices.iter().map(|choice| choice.name);
            let name = known().find(|known| *known == wanted).ok_or_else(|| OptionError::Unknown {
                method: card.name,
                option: name.as_ref().to_owned(),
                hint: nearest(&wanted, known()),
            })?;
            if given.iter().any(|(other, _)| *other == name) {
                return Err(OptionError::Repeated { method: card.name, option: name });
            }
            given.push((name, value.as_ref().to_owned()));
        }
        Ok(Options { card, given })
    }

    /// One of a few named values.
    ///
    /// # Errors
    /// [`OptionError::Value`].
    pub fn named<T: Named>(&self, choice: &'static str) -> Result<T, OptionError> {
        let wanted = plain(self.text(choice));
        let found = T::NAMES.iter().find(|(name, _)| *name == wanted).map(|(_, value)| *value);
        found.ok_or_else(|| self.bad(choice))
    }

    /// A number above zero.
    ///
    /// # Errors
    /// [`OptionError::Value`].
    pub fn positive(&self, choice: &'static str) -> Result<f64, OptionError> {
        let number = self.text(choice).parse().ok().filter(|x: &f64| x.is_finite() && *x > 0.0);
        number.ok_or_else(|| self.bad(choice))
    }

    /// A count from zero to `most`.
    ///
    /// # Errors
    /// [`OptionError::Value`].
    pub fn count(&self, choice: &'static str, most: usize) -> Result<usize, OptionError> {
        let number = self.text(choice).parse().ok().filter(|x: &usize| *x <= most);
        number.ok_or_else(|| self.bad(choice))
    }

    /// The value as typed, or the card's default.
    #[must_use]
    pub fn text(&self, choice: &str) -> &str {
        let given = self.given.iter().find(|(name, _)| *name == choice).map(|(_, value)| value.trim());
        given.or_else(|| self.choice(choice).map(|choice| choice.default)).unwrap_or_default()
    }

    /// The error for a value that a choice does not take.
    #[must_use]
    pub fn bad(&self, choice: &'static str) -> OptionError {
        let values = self.choice(choice).map_or("", |choice| choice.values);
        let value = self.text(choice).to_owned();
        OptionError::Value { method: self.card.name, option: choice, value, values }
    }

    fn choice(&self, name: &str) -> Option<&'static Choice> {
        self.card.choices.iter().find(|choice| choice.name == name)
    }
}

/// Lower case, words joined by hyphens.
#[must_use]
pub fn plain(name: &str) -> String {
    name.trim().to_lowercase().replace('_', "-")
}

/// "did you mean …" where a name is close, the list of names otherwise.
#[must_use]
pub fn nearest<'a>(wanted: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    let close = known.clone().map(|name| (strsim::damerau_levenshtein(wanted, name), name)).min();
    match close {
        // More than half the letters wrong is another word.
        Some((distance, name)) if distance <= name.chars().count().max(2) / 2 => {
            format!("did you mean {name}?")
        }
        Some(_) => format!("it knows {}", known.collect::<Vec<_>>().join(", ")),
        None => "it takes none".to_owned(),
    }
}
