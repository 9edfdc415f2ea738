//! How gradients become steps. An optimiser is its own file, a variant of [`Method`] and a line in [`ALL`].

mod adamw;
mod sgd;

pub use adamw::AdamW;
pub use sgd::Sgd;

use lowrank_record::{Choice, Source};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::TrainError;

/// What an optimiser is: feeds listings, help and reference pages.
#[derive(Debug, Clone, PartialEq)]
pub struct OptimiserCard {
    /// The name typed by the user.
    pub name: &'static str,
    /// The method in one sentence, formula first.
    pub summary: &'static str,
    /// Where it was published.
    pub source: Source,
    /// The choices it takes, with their defaults.
    pub choices: &'static [Choice],
    /// Where we differ from the source, and why.
    pub notes: &'static [&'static str],
}

/// Every optimiser.
pub const ALL: &[&OptimiserCard] = &[&adamw::CARD, &sgd::CARD];

/// The chosen optimiser with its settings: `name = "adamw"` and that optimiser's own keys beside it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "lowercase")]
pub enum Method {
    /// Adam with decoupled weight decay.
    AdamW(AdamW),
    /// Stochastic gradient descent, with momentum where asked.
    Sgd(Sgd),
}

impl Default for Method {
    fn default() -> Self {
        Method::AdamW(AdamW::default())
    }
}

impl Method {
    /// The optimiser of this name, with choices from its card as the user types them; what is not chosen keeps its
    /// default.
    ///
    /// # Errors
    /// [`TrainError::Setting`] for a name, a choice or a value that is not in the catalogue, naming those that are.
    pub fn by_name<'a>(
        name: &str,
        choices: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Method, TrainError> {
        let named = |names: Vec<&str>| format!("one of {}", names.join(", "));
        let Some(card) = ALL.iter().find(|card| card.name == name) else {
            let known = ALL.iter().map(|card| card.name).collect();
            return Err(TrainError::setting("optimiser", name, named(known)));
        };
        let mut settings = Map::from_iter([("name".to_owned(), Value::from(name))]);
        for (key, value) in choices {
            let field = format!("optimiser.{key}");
            let Some(choice) = card.choices.iter().find(|choice| choice.name == key) else {
                let known = card.choices.iter().map(|choice| choice.name).collect();
                return Err(TrainError::setting(field, value, format!("{} for {name}", named(known))));
            };
            let bad = || TrainError::setting(&field, value, choice.values);
            settings.insert(key.to_owned(), value.parse().map_err(|_| bad())?);
            // Each value is tried by itself, so that the error can name it.
            let alone = Map::from_iter([
                ("name".to_owned(), Value::from(name)),
                (key.to_owned(), settings[key].clone()),
            ]);
            serde_json::from_value::<Method>(alone.into()).map_err(|_| bad())?;
        }
        let method: Method = serde_json::from_value(settings.into())
            .map_err(|error| TrainError::setting("optimiser", name, error.to_string()))?;
        method.check()?;
        Ok(method)
    }

    /// The card of the chosen optimiser.
    #[must_use]
    pub fn card(&self) -> &'static OptimiserCard {
        match self {
            Method::AdamW(_) => &adamw::CARD,
            Method::Sgd(_) => &sgd::CARD,
        }
    }

    /// Refuses settings that have no meaning.
    ///
    /// # Errors
    /// [`TrainError::Setting`], naming the field.
    pub fn check(&self) -> Result<(), TrainError> {
        match self {
            Method::AdamW(settings) => settings.check(),
            Method::Sgd(settings) => settings.check(),
        }
    }

    /// The optimiser at rest, for parameters of these sizes.
    #[must_use]
    pub fn build(&self, sizes: &[usize]) -> Box<dyn Optimiser> {
        match self {
            Method::AdamW(settings) => settings.build(sizes),
            Method::Sgd(settings) => settings.build(sizes),
        }
    }
}

/// The numbers of one update of one parameter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Update {
    /// Which update this is, from 1; bias corrections need it.
    pub count: u64,
    /// Learning rate, with schedule and group already in it.
    pub rate: f64,
    /// Weight decay; the value shrinks by the part `rate · decay`.
    pub decay: f64,
    /// What the gradient is multiplied by first: 1 / weight, times the clipping factor. Folded into the one pass
    /// over the memory instead of scaling the gradients in a pass of its own.
    pub scale: f64,
}

/// One state buffer of an optimiser: its name, and one vector for each parameter.
pub type Buffer<'a> = (&'static str, &'a mut Vec<Vec<f32>>);

/// An optimiser with its state.
///
/// Plain element-wise arithmetic in a fixed order: the same state and gradient give the same bits.
pub trait Optimiser: Send {
    /// Moves the value of parameter `index` by one step. `value` and `gradient` have the size given when building.
    fn update(&mut self, index: usize, value: &mut [f32], gradient: &[f32], update: Update);

    /// The state buffers in a fixed order, to be saved and put back; empty for an optimiser without memory.
    fn buffers(&mut self) -> Vec<Buffer<'_>>;
}

/// Zeros for each parameter: the state at rest.
fn at_rest(sizes: &[usize]) -> Vec<Vec<f32>> {
    sizes.iter().map(|&size| vec![0.0; size]).collect()
}

#[cfg(test)]
mod tests {
    use super::{ALL, AdamW, Method, Sgd};

    #[test]
    fn names_are_what_the_user_types() {
        for card in ALL {
            let text = format!("{{\"name\":\"{}\"}}", card.name);
            let method: Method = serde_json::from_str(&text).unwrap();
            assert_eq!(method.card().name, card.name);
            method.check().unwrap();
        }
        assert_eq!(Method::default().card().name, "adamw");
    }

    #[test]
    fn defaults_on_the_cards_are_the_defaults_of_the_settings() {
        for card in ALL {
            let method: Method = serde_json::from_str(&format!("{{\"name\":\"{}\"}}", card.name)).unwrap();
            let settings = serde_json::to_value(method).unwrap();
            assert_eq!(settings.as_object().unwrap().len(), card.choices.len() + 1, "{}", card.name);
            for choice in card.choices {
                assert_eq!(
                    settings[choice.name].to_string(),
                    choice.default,
                    "{}.{}",
                    card.name,
                    choice.name
                );
            }
        }
    }

    #[test]
    fn unknown_keys_are_refused() {
        for text in [r#"{"name":"adamw","momentum":0.9}"#, r#"{"name":"sgd","beta":1}"#, r#"{"name":"lion"}"#]
        {
            assert!(serde_json::from_str::<Method>(text).is_err(), "{text}");
        }
        let method: Method = serde_json::from_str(r#"{"name":"adamw","beta2":0.95}"#).unwrap();
        assert_eq!(method, Method::AdamW(AdamW { beta2: 0.95, ..AdamW::default() }));
    }

    #[test]
    fn choices_are_typed_by_the_names_on_the_card() {
        let method = Method::by_name("sgd", [("momentum", "0.9"), ("nesterov", "true")]).unwrap();
        assert_eq!(method, Method::Sgd(Sgd { momentum: 0.9, nesterov: true }));
        assert_eq!(Method::by_name("adamw", []).unwrap(), Method::default());
        for (name, key, value, said) in [
            ("adam", "beta1", "0.9", "adamw, sgd"),
            ("adamw", "momentum", "0.9", "beta1, beta2, epsilon"),
            ("adamw", "beta1", "high", "0 to below 1"),
            ("adamw", "beta1", "true", "0 to below 1"),
            ("adamw", "beta1", "1.5", "below 1"),
        ] {
            let message = Method::by_name(name, [(key, value)]).unwrap_err().to_string();
            assert!(
                message.contains(said) && message.contains(if name == "adam" { name } else { key }),
                "{message}"
            );
        }
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        for (method, field) in [
            (Method::AdamW(AdamW { beta1: 1.0, ..AdamW::default() }), "beta1"),
            (Method::AdamW(AdamW { beta2: -0.1, ..AdamW::default() }), "beta2"),
            (Method::AdamW(AdamW { epsilon: 0.0, ..AdamW::default() }), "epsilon"),
            (Method::Sgd(Sgd { momentum: f64::NAN, nesterov: false }), "momentum"),
            (Method::Sgd(Sgd { momentum: 0.0, nesterov: true }), "nesterov"),
        ] {
            let message = method.check().unwrap_err().to_string();
            assert!(message.contains(field), "{message}");
        }
    }
}
