//! Which adapters there are, and which prompt takes which.

use std::path::{Path, PathBuf};

use lowrank_record::nearest;
use lowrank_store::jsonl;
use serde_json::Value;

use super::Generate;
use crate::AppError;
use lowrank_command::Because;

/// What a prompt names that is to be continued by the model alone.
const NONE: &str = "none";

/// An adapter that prompts can name.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Adapter {
    pub(super) name: String,
    pub(super) folder: PathBuf,
    /// What its scale is multiplied with.
    pub(super) times: f64,
}

/// Every adapter, in the order in which they were given.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Adapters(pub(super) Vec<Adapter>);

/// A prompt with its adapter.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Request {
    pub(super) prompt: String,
    /// None is the model alone.
    pub(super) adapter: Option<String>,
    /// Where it came from, for messages.
    pub(super) place: String,
}

/// `NAME=DIR`, or a folder that gives its own name.
pub(super) fn adapter(text: &str) -> Result<(String, PathBuf), String> {
    if let Some((name, folder)) = text.split_once('=')
        && !name.contains(['/', '\\'])
        && !Path::new(text).exists()
    {
        if name.is_empty() || folder.is_empty() {
            return Err(format!("expected NAME=DIR or DIR, found \"{text}\""));
        }
        return Ok((name.to_owned(), PathBuf::from(folder)));
    }
    let folder = PathBuf::from(text);
    // `.` and `..` have no name of their own; the folder is looked at later.
    let name = folder.file_name().map_or_else(|| text.to_owned(), |name| name.to_string_lossy().into_owned());
    Ok((name, folder))
}

impl Adapters {
    /// # Errors
    /// [`AppError::Usage`] for a name that is taken or has a meaning of its own, and for a scale of no adapter.
    pub(super) fn of(options: &Generate) -> Result<Adapters, AppError> {
        let mut adapters = Adapters(Vec::with_capacity(options.adapter.len()));
        for (name, folder) in &options.adapter {
            if name == NONE {
                return Err(AppError::usage(format!(
                    "--adapter {NONE}={}: {NONE} is the model without an adapter; give it another name",
                    folder.display()
                )));
            }
            if adapters.0.iter().any(|known| known.name == *name) {
                return Err(AppError::usage(format!(
                    "two adapters are called {name:?}; name them, as in --adapter first={}",
                    folder.display()
                )));
            }
            adapters.0.push(Adapter { name: name.clone(), folder: folder.clone(), times: 1.0 });
        }
        for (name, factor) in &options.adapter_scale {
            adapters.known(name, "--adapter-scale")?;
            let times = factor.parse().ok().filter(|factor: &f64| factor.is_finite());
            let times = times.ok_or_else(|| {
                AppError::usage(format!("--adapter-scale {name}={factor}: \"{factor}\" is no number"))
            })?;
            for adapter in adapters.0.iter_mut().filter(|adapter| adapter.name == *name) {
                adapter.times = times;
            }
        }
        Ok(adapters)
    }

    fn known(&self, name: &str, place: &str) -> Result<(), AppError> {
        if self.0.iter().any(|adapter| adapter.name == name) {
            return Ok(());
        }
        let hint = if self.0.is_empty() {
            "none was given: --adapter NAME=DIR".to_owned()
        } else {
            nearest(name, self.0.iter().map(|adapter| adapter.name.as_str()))
        };
        Err(AppError::usage(format!("{place}: no adapter is called {name:?}; {hint}")))
    }

    /// The adapter of a prompt that names this one, or none at all.
    fn chosen(&self, named: Option<&str>, place: &str) -> Result<Option<String>, AppError> {
        match (named, self.0.as_slice()) {
            (Some(NONE), _) | (None, []) => Ok(None),
            (Some(name), _) => self.known(name, place).map(|()| Some(name.to_owned())),
            (None, [only]) => Ok(Some(only.name.clone())),
            (None, _) => {
                let names: Vec<&str> = self.0.iter().map(|adapter| adapter.name.as_str()).collect();
                Err(AppError::usage(format!(
                    "{place}: which adapter? It must name one of {}, or {NONE}: --use NAME, or \"adapter\" in a line of --prompts",
                    names.join(", ")
                )))
            }
        }
    }
}

/// Every prompt with its adapter: those of the command line, then those of the file.
///
/// # Errors
/// [`AppError::Usage`] naming the prompt or the line.
pub(super) fn of(options: &Generate, adapters: &Adapters) -> Result<Vec<Request>, AppError> {
    let (prompts, uses) = (&options.prompt, &options.uses);
    if uses.len() > 1 && uses.len() != prompts.len() {
        return Err(AppError::usage(format!(
            "--use is given {} times for {} prompts; give it once, or once for each --prompt in their order",
            uses.len(),
            prompts.len()
        )));
    }
    if prompts.is_empty() && !uses.is_empty() {
        return Err(AppError::usage(
            "--use belongs to --prompt; a line of --prompts names its own adapter: {\"prompt\": \"…\", \"adapter\": \"NAME\"}",
        ));
    }
    let mut requests = Vec::new();
    for (index, prompt) in prompts.iter().enumerate() {
        let place =
            if prompts.len() == 1 { "--prompt".to_owned() } else { format!("--prompt {}", index + 1) };
        let named = if uses.len() == 1 { uses.first() } else { uses.get(index) };
        let adapter = adapters.chosen(named.map(String::as_str), &place)?;
        requests.push(Request { prompt: prompt.clone(), adapter, place });
    }
    if let Some(file) = &options.prompts {
        let before = requests.len();
        for line in jsonl::read(file).input("--prompts")? {
            let (number, value) = line.input("--prompts")?;
            let place = format!("{}, line {number}", file.display());
            let (prompt, named) = read(&value).map_err(|why| AppError::usage(format!("{place}: {why}")))?;
            let adapter = adapters.chosen(named.as_deref(), &place)?;
            requests.push(Request { prompt, adapter, place });
        }
        if requests.len() == before {
            return Err(AppError::usage(format!("{} holds no prompts", file.display())));
        }
    }
    Ok(requests)
}

/// A line: its prompt, and the adapter that it names.
fn read(line: &Value) -> Result<(String, Option<String>), String> {
    let expected = "expected {\"prompt\": \"…\", \"adapter\": \"NAME\"} or a string";
    let keys = match line {
        Value::String(prompt) => return Ok((prompt.clone(), None)),
        Value::Object(keys) => keys,
        _ => return Err(expected.to_owned()),
    };
    if let Some(strange) = keys.keys().find(|key| !["prompt", "adapter"].contains(&key.as_str())) {
        return Err(format!("the key {strange:?} has no meaning; {expected}"));
    }
    let prompt = keys.get("prompt").and_then(Value::as_str).ok_or(expected)?;
    match keys.get("adapter") {
        None => Ok((prompt.to_owned(), None)),
        Some(Value::Null) => Ok((prompt.to_owned(), Some(NONE.to_owned()))),
        Some(Value::String(name)) => Ok((prompt.to_owned(), Some(name.clone()))),
        Some(_) => Err(expected.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapters(names: &[&str]) -> Adapters {
        let adapter = |name: &&str| Adapter { name: (*name).to_owned(), folder: PathBuf::new(), times: 1.0 };
        Adapters(names.iter().map(adapter).collect())
    }

    #[test]
    fn a_folder_has_its_own_name_or_the_one_that_is_given() {
        let of = |text: &str| adapter(text).unwrap();
        assert_eq!(of("legal=runs/3/adapter"), ("legal".to_owned(), PathBuf::from("runs/3/adapter")));
        assert_eq!(of("runs/3/adapter"), ("adapter".to_owned(), PathBuf::from("runs/3/adapter")));
        assert_eq!(of("runs/rate=3/a"), ("a".to_owned(), PathBuf::from("runs/rate=3/a")));
        assert!(adapter("=a").is_err() && adapter("a=").is_err());
    }

    #[test]
    fn a_prompt_takes_the_adapter_it_names_or_the_only_one() {
        let (none, one, two) = (adapters(&[]), adapters(&["legal"]), adapters(&["legal", "medical"]));
        let name = |name: &str| Some(name.to_owned());
        assert_eq!(none.chosen(None, "p").unwrap(), None);
        assert_eq!(one.chosen(None, "p").unwrap(), name("legal"));
        assert_eq!(one.chosen(Some("none"), "p").unwrap(), None);
        assert_eq!(two.chosen(Some("medical"), "p").unwrap(), name("medical"));
        for (adapters, named, words) in [
            (&none, Some("legal"), "none was given"),
            (&two, None, "one of legal, medical, or none"),
            (&two, Some("legall"), "no adapter is called \"legall\"; did you mean legal?"),
        ] {
            let said = adapters.chosen(named, "p").unwrap_err().to_string();
            assert!(said.starts_with("p: ") && said.contains(words), "{said}");
        }
    }

    #[test]
    fn a_line_is_a_prompt_with_or_without_an_adapter() {
        let of = |line: &str| read(&serde_json::from_str(line).unwrap());
        assert_eq!(of(r#""a""#).unwrap(), ("a".to_owned(), None));
        let named = ("a".to_owned(), Some("b".to_owned()));
        assert_eq!(of(r#"{"prompt": "a", "adapter": "b"}"#).unwrap(), named);
        assert_eq!(of(r#"{"prompt": "a", "adapter": null}"#).unwrap().1.as_deref(), Some(NONE));
        for line in
            [r#"{"adapter": "b"}"#, "3", r#"{"prompt": "a", "scale": 2}"#, r#"{"prompt": "a", "adapter": 1}"#]
        {
            assert!(of(line).unwrap_err().contains("expected {"), "{line}");
        }
    }
}
