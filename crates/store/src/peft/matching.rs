//! PEFT's rules for which module a name in the configuration means.

use regex::{Regex, RegexBuilder};

use super::{AdapterConfig, PeftError, Targets};

/// A pattern of a file must not make a regular expression of any size.
const SIZE_LIMIT: usize = 1 << 20;

/// PEFT's `re.fullmatch` of a `target_modules` that is a text.
///
/// # Errors
/// [`PeftError::Pattern`] (look-around and back-references are not supported).
pub fn full_match(pattern: &str) -> Result<Regex, PeftError> {
    whole("", pattern)
}

/// PEFT's `re.match` and `re.fullmatch`: `before`, then the pattern, then the end of the name.
fn whole(before: &str, pattern: &str) -> Result<Regex, PeftError> {
    let wrong =
        |error: regex::Error| PeftError::Pattern { pattern: pattern.to_owned(), reason: error.to_string() };
    // Alone first: "a)(b" is no pattern, but would be one between parentheses.
    RegexBuilder::new(pattern).size_limit(SIZE_LIMIT).build().map_err(wrong)?;
    RegexBuilder::new(&format!("^(?:{before}(?:{pattern}))$")).size_limit(SIZE_LIMIT).build().map_err(wrong)
}

/// PEFT's `get_pattern_key`: the first key, in the given order, that matches the whole module path or all of its end
/// after a dot. `module` is without `base_model.model.`.
///
/// # Errors
/// [`PeftError::Pattern`] for a key that is no regular expression (look-around and back-references are not supported).
pub fn pattern_key<'a>(
    keys: impl IntoIterator<Item = &'a str>,
    module: &str,
) -> Result<Option<&'a str>, PeftError> {
    for key in keys {
        if whole(r"(?:.*\.)?", key)?.is_match(module) {
            return Ok(Some(key));
        }
    }
    Ok(None)
}

/// PEFT's matching of `target_modules`: a list means exact paths or their ends after a dot, a text means a regular
/// expression for the whole path. `all-linear` matches everything: which modules are linear, only the model knows.
///
/// # Errors
/// [`PeftError::Pattern`].
pub fn matches_target(targets: &Targets, module: &str) -> Result<bool, PeftError> {
    match targets {
        Targets::List(list) => Ok(in_list(list, module)),
        Targets::Pattern(pattern) if pattern == "all-linear" => Ok(true),
        Targets::Pattern(pattern) => Ok(full_match(pattern)?.is_match(module)),
    }
}

fn in_list(list: &[String], module: &str) -> bool {
    list.iter().any(|target| is_end(target, module))
}

/// Whether a target is the module's path, or its end after a dot.
#[must_use]
pub fn is_end(target: &str, module: &str) -> bool {
    module.strip_suffix(target).is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

/// The rules of one configuration, compiled once.
#[derive(Debug)]
pub struct Matcher<'a> {
    config: &'a AdapterConfig,
    target: Option<Regex>,
    exclude: Option<Regex>,
    layer: Vec<Regex>,
    ranks: Vec<Regex>,
    alphas: Vec<Regex>,
}

impl<'a> Matcher<'a> {
    /// Compiles every pattern of the configuration.
    ///
    /// # Errors
    /// [`PeftError::Pattern`].
    pub fn new(config: &'a AdapterConfig) -> Result<Matcher<'a>, PeftError> {
        let full = |targets: &Targets| match targets {
            Targets::Pattern(pattern) if pattern != "all-linear" => full_match(pattern).map(Some),
            _ => Ok(None),
        };
        let ends = |key: &String| whole(r"(?:.*\.)?", key);
        // The first number between dots after two names, or after the given name.
        let layer = if config.layers_pattern.is_empty() {
            vec![r"^.*?\.[^.]*\.(\d+)\.".to_owned()]
        } else {
            config.layers_pattern.iter().map(|name| format!(r"^(?:|.*?\.){name}\.(\d+)\.")).collect()
        };
        let layer = layer
            .into_iter()
            .map(|pattern| match RegexBuilder::new(&pattern).size_limit(SIZE_LIMIT).build() {
                Ok(regex) => Ok(regex),
                Err(error) => Err(PeftError::Pattern { pattern, reason: error.to_string() }),
            })
            .collect::<Result<_, _>>()?;
        Ok(Matcher {
            config,
            target: full(&config.targets)?,
            exclude: config.exclude.as_ref().map_or(Ok(None), full)?,
            layer,
            ranks: config.rank_pattern.iter().map(|(key, _)| ends(key)).collect::<Result<_, _>>()?,
            alphas: config.alpha_pattern.iter().map(|(key, _)| ends(key)).collect::<Result<_, _>>()?,
        })
    }

    /// Whether the module has factors (PEFT's `check_target_module_exists`).
    #[must_use]
    pub fn is_target(&self, module: &str) -> bool {
        let matches = |targets: &Targets, regex: &Option<Regex>| match (targets, regex) {
            (Targets::List(list), _) => in_list(list, module),
            (Targets::Pattern(_), Some(regex)) => regex.is_match(module),
            (Targets::Pattern(_), None) => true,
        };
        if self.config.exclude.as_ref().is_some_and(|exclude| matches(exclude, &self.exclude)) {
            return false;
        }
        if self.is_saved_whole(module) || !matches(&self.config.targets, &self.target) {
            return false;
        }
        match (&self.config.targets, &self.config.layers) {
            (Targets::List(list), Some(layers))
                if !layers.is_empty() && !list.iter().any(|t| t == module) =>
            {
                self.layer_of(module).is_some_and(|layer| layers.contains(&layer))
            }
            _ => true,
        }
    }

    /// Whether `modules_to_save` names the module or one that holds it.
    #[must_use]
    pub fn is_saved_whole(&self, module: &str) -> bool {
        let dotted = format!(".{module}.");
        self.config.modules_to_save.iter().any(|saved| dotted.contains(&format!(".{saved}.")))
    }

    fn layer_of(&self, module: &str) -> Option<usize> {
        self.layer.iter().find_map(|regex| regex.captures(module)?.get(1)?.as_str().parse().ok())
    }

    /// The rank of a module.
    #[must_use]
    pub fn rank(&self, module: &str) -> usize {
        let found = self.ranks.iter().position(|regex| regex.is_match(module));
        found.map_or(self.config.rank, |at| self.config.rank_pattern[at].1)
    }

    /// The α of a module.
    #[must_use]
    pub fn alpha(&self, module: &str) -> f64 {
        let found = self.alphas.iter().position(|regex| regex.is_match(module));
        found.map_or(self.config.alpha, |at| self.config.alpha_pattern[at].1)
    }

    /// The scale of a module, by [`lowrank_record::scale`].
    #[must_use]
    pub fn scale(&self, module: &str) -> f64 {
        lowrank_record::scale(self.alpha(module), self.rank(module), self.config.rank_stabilised)
    }
}

#[cfg(test)]
mod tests {
    use super::{Matcher, matches_target, pattern_key};
    use crate::peft::{AdapterConfig, PeftError, Targets};

    fn list(targets: &[&str]) -> Targets {
        Targets::List(targets.iter().map(|&target| target.to_owned()).collect())
    }

    const Q: &str = "model.layers.10.self_attn.q_proj";

    #[test]
    fn pattern_keys_match_as_in_peft() {
        // (keys, the one that matches); worked out from re.match(rf"(.*\.)?({key})$", name).
        let cases: [(&[&str], Option<&str>); 9] = [
            (&["q_proj"], Some("q_proj")),
            (&["proj"], None),
            (&["k_proj", "self_attn.q_proj", "q_proj"], Some("self_attn.q_proj")),
            (&["q_proj", Q], Some("q_proj")),
            (&[Q], Some(Q)),
            (&["layers.1.self_attn.q_proj"], None),
            (&[r"layers\.\d+\..*"], Some(r"layers\.\d+\..*")),
            (&["^q_proj"], None),
            (&["k_proj|q_proj"], Some("k_proj|q_proj")),
        ];
        for (keys, expected) in cases {
            assert_eq!(pattern_key(keys.iter().copied(), Q).unwrap(), expected, "{keys:?}");
        }
        let error = pattern_key(["a)(b"], "ab").unwrap_err();
        assert!(matches!(error, PeftError::Pattern { .. }), "{error}");
        let error = pattern_key(["(a{1000}){1000}"], "ab").unwrap_err();
        assert!(error.to_string().contains("size limit"), "{error}");
    }

    #[test]
    fn targets_match_as_in_peft() {
        let cases = [
            (list(&["q_proj"]), true),
            (list(&["self_attn.q_proj"]), true),
            (list(&["proj"]), false),
            (list(&[Q]), true),
            (list(&[r".*q_proj"]), false),
            (list(&[]), false),
            (Targets::Pattern(r".*\.q_proj".into()), true),
            (Targets::Pattern("q_proj".into()), false),
            (Targets::Pattern("model.*(q|k)_proj".into()), true),
            (Targets::Pattern("a|model.*".into()), true),
            (Targets::Pattern("all-linear".into()), true),
        ];
        for (targets, expected) in cases {
            assert_eq!(matches_target(&targets, Q).unwrap(), expected, "{targets:?}");
        }
    }

    #[test]
    fn one_configuration_decides_for_a_module() {
        let mut config = AdapterConfig::new(4, 6.0, list(&["q_proj", "k_proj"]));
        config.rank_pattern = vec![("layers.10.*".into(), 9), ("q_proj".into(), 2)];
        config.alpha_pattern = vec![("q_proj".into(), 8.0)];
        let matcher = Matcher::new(&config).unwrap();
        let other = "model.layers.3.self_attn.k_proj";
        assert_eq!((matcher.rank(Q), matcher.alpha(Q), matcher.scale(Q)), (9, 8.0, 8.0 / 9.0));
        assert_eq!((matcher.rank(other), matcher.alpha(other), matcher.scale(other)), (4, 6.0, 1.5));
        config.rank_stabilised = true;
        assert_eq!(Matcher::new(&config).unwrap().scale(other), 3.0);
        config.exclude = Some(Targets::Pattern(r".*layers\.3\..*".into()));
        let matcher = Matcher::new(&config).unwrap();
        assert!(matcher.is_target(Q) && !matcher.is_target(other));
        config.exclude = None;
        config.layers = Some(vec![3]);
        let matcher = Matcher::new(&config).unwrap();
        assert!(!matcher.is_target(Q) && matcher.is_target(other));
        config.layers_pattern = vec!["blocks".into()];
        assert!(!Matcher::new(&config).unwrap().is_target(other));
        config.layers = None;
        config.modules_to_save = vec!["layers.3".into()];
        assert!(!Matcher::new(&config).unwrap().is_target(other));
    }
}
