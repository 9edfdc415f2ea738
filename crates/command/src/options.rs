//! Recipes: one struct is at once the flags, the keys of a TOML file and the printed recipe.
//!
//! A value comes from the command line if it was typed there, else from the recipe file, else from the default that the
//! help shows. Unknown keys are refused and the nearest known key is named.

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Args, Command};
use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use crate::AppError;

/// Reads a recipe file.
///
/// # Errors
/// [`AppError::Usage`] when it cannot be read.
pub fn read(path: &std::path::Path) -> Result<String, AppError> {
    lowrank_store::text::read(path).map_err(|error| AppError::usage(error.to_string()))
}

/// Merges a recipe file under the flags that were typed.
///
/// # Errors
/// [`AppError::Usage`] naming the unknown key and its nearest neighbour, or the key with a value of the wrong kind.
pub fn resolve<T: Args + Serialize + DeserializeOwned>(
    recipe: Option<&str>,
    matches: &ArgMatches,
) -> Result<T, AppError> {
    let typed = T::from_arg_matches(matches).map_err(|error| AppError::usage(error.to_string()))?;
    let Some(recipe) = recipe else { return Ok(typed) };
    let file: Table =
        recipe.parse().map_err(|error| AppError::usage(format!("the recipe is not TOML: {error}")))?;
    let known = keys::<T>();
    for key in file.keys() {
        if !known.iter().any(|(name, _)| name == key) {
            return Err(AppError::usage(format!(
                "unknown key \"{key}\" in the recipe{}",
                nearest(key, &known)
            )));
        }
    }
    let mut table = Table::try_from(&typed).map_err(|error| AppError::usage(error.to_string()))?;
    for (key, value) in file {
        let id = known.iter().find(|(name, _)| *name == key).map_or("", |(_, id)| id);
        if matches.value_source(id) != Some(ValueSource::CommandLine) {
            table.insert(key, value);
        }
    }
    Value::Table(table)
        .try_into()
        // Its message alone does not name the key.
        .map_err(|error: toml::de::Error| {
            AppError::usage(format!("in the recipe: {}", error.to_string().trim()))
        })
}

/// The recipe as TOML, every default filled in.
///
/// # Errors
/// [`AppError::Usage`] when a value cannot be written as TOML.
pub fn print<T: Serialize>(options: &T) -> Result<String, AppError> {
    toml::to_string(options).map_err(|error| AppError::usage(error.to_string()))
}

/// Keys as written in a recipe, with the flag's identifier.
fn keys<T: Args>() -> Vec<(String, String)> {
    let command = T::augment_args(Command::new("recipe"));
    let id = |arg: &Arg| (arg.get_id().as_str().replace('_', "-"), arg.get_id().as_str().to_owned());
    command.get_arguments().map(id).collect()
}

fn nearest(key: &str, known: &[(String, String)]) -> String {
    let near = known.iter().map(|(name, _)| (strsim::damerau_levenshtein(key, name), name));
    match near.min() {
        Some((distance, name)) if distance <= key.len().max(3) / 2 => format!("; did you mean \"{name}\"?"),
        _ => String::new(),
    }
}

/// `key=value` from the command line.
///
/// # Errors
/// A sentence when there is no equals sign.
pub fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() && !value.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("expected KEY=VALUE, found \"{text}\"")),
    }
}

/// Pairs as a table in TOML; numbers may be written bare.
pub mod table {
    use serde::{Deserialize, Deserializer, Serializer, ser::SerializeMap};

    /// Writes pairs as a table.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(pairs: &[(String, String)], serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(pairs.len()))?;
        for (key, value) in pairs {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }

    /// Reads a table as pairs.
    ///
    /// # Errors
    /// Those of the deserializer.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<(String, String)>, D::Error> {
        let table = toml::Table::deserialize(deserializer)?;
        let text = |value: toml::Value| match value {
            toml::Value::String(text) => text,
            other => other.to_string(),
        };
        Ok(table.into_iter().map(|(key, value)| (key, text(value))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, PartialEq, Args, Serialize, serde::Deserialize)]
    #[serde(rename_all = "kebab-case")]
    struct Tune {
        #[arg(long, default_value_t = 16)]
        rank: usize,
        #[arg(long, default_value_t = 16.0)]
        alpha: f64,
        #[arg(long, default_value_t = 8)]
        batch: usize,
        #[arg(long, value_parser = key_value, value_name = "KEY=VALUE")]
        #[serde(default, with = "table", skip_serializing_if = "Vec::is_empty")]
        rank_pattern: Vec<(String, String)>,
        #[arg(long)]
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        exclude: Vec<String>,
    }

    fn resolved(recipe: &str, flags: &[&str]) -> Result<Tune, AppError> {
        let command = Tune::augment_args(Command::new("tune"));
        let matches = command.try_get_matches_from([&["tune"], flags].concat()).unwrap();
        resolve(Some(recipe), &matches)
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let tune =
            resolved("rank = 4\nalpha = 8.0\nrank-pattern = { q_proj = 2 }", &["--rank", "8"]).unwrap();
        assert_eq!((tune.rank, tune.alpha, tune.batch), (8, 8.0, 8));
        assert_eq!(tune.rank_pattern, [("q_proj".to_owned(), "2".to_owned())]);
    }

    #[test]
    fn a_printed_recipe_reads_back_as_itself() {
        let tune =
            resolved("rank = 7\nrank-pattern = { gamma = \"64\" }", &["--exclude", "down_proj"]).unwrap();
        assert_eq!(resolved(&print(&tune).unwrap(), &[]).unwrap(), tune);
    }

    #[test]
    fn an_unknown_key_names_its_neighbour() {
        let message = resolved("ranc = 4", &[]).unwrap_err().to_string();
        assert!(message.contains("\"ranc\"") && message.contains("\"rank\""), "{message}");
        let message = resolved("rank = \"four\"", &[]).unwrap_err().to_string();
        assert!(message.contains("`rank`"), "{message}");
    }
}
