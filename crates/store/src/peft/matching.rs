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
        if path_end(key)?.is_match(module) {
            return Ok(Some(key));
        }
    }
    Ok(None)
}

/// A pattern for the whole module path, or all of its end after a dot.
fn path_end(key: &str) -> Result<Regex, PeftError> {
    whole(r"(?:.*\.)?", key)
}

/// Whether a target is the module's path, or its end after a dot.
#[must_use]
pub fn is_end(target: &str, module: &str) -> bool {
    module.strip_suffix(target).is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

/// Whether an entry of `modules_to_save` names the module, or one that holds it.
pub(super) fn is_inside(saved: &str, module: &str) -> bool {
    format!(".{module}.").contains(&format!(".{saved}."))
}

/// PEFT's matching of `target_modules`, compiled.
#[derive(Debug)]
enum Chosen<'a> {
    /// Exact paths, or their ends after a dot.
    Ends(&'a [String]),
    /// A text means a regular expression for the whole path.
    Pattern(Regex),
    /// `all-linear`: which modules are linear, only the model knows.
    AllLinear,
}

impl<'a> Chosen<'a> {
    fn new(targets: &'a Targets) -> Result<Chosen<'a>, PeftError> {
        Ok(match targets {
            Targets::List(list) => Chosen::Ends(list),
            Targets::Pattern(_) if targets.is_all_linear() => Chosen::AllLinear,
            Targets::Pattern(pattern) => Chosen::Pattern(full_match(pattern)?),
        })
    }

    fn matches(&self, module: &str) -> bool {
        match self {
            Chosen::Ends(list) => list.iter().any(|target| is_end(target, module)),
            Chosen::Pattern(regex) => regex.is_match(module),
            Chosen::AllLinear => true,
        }
    }
}

/// The rules of one configuration, compiled once.
#[derive(Debug)]
pub struct Matcher<'a> {
    config: &'a AdapterConfig,
    targets: Chosen<'a>,
    exclude: Option<Chosen<'a>>,
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
            targets: Chosen::new(&config.targets)?,
            exclude: config.exclude.as_ref().map(Chosen::new).transpose()?,
            layer,
            ranks: config.rank_pattern.iter().map(|(key, _)| path_end(key)).collect::<Result<_, _>>()?,
            alphas: config.alpha_pattern.iter().map(|(key, _)| path_end(key)).collect::<Result<_, _>>()?,
        })
    }

    /// Whether the module has factors (PEFT's `check_target_module_exists`).
    #[must_use]
    pub fn is_target(&self, module: &str) -> bool {
        if self.exclude.as_ref().is_some_and(|exclude| exclude.matches(module)) {
            return false;
        }
        if self.is_saved_whole(module) || !self.targets.matches(module) {
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
        self.config.modules_to_save.iter().any(|saved| is_inside(saved, module))
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
    use super::{Matcher, pattern_key};
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
            let config = AdapterConfig::new(1, 1.0, targets);
            assert_eq!(Matcher::new(&config).unwrap().is_target(Q), expected, "{config:?}");
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
