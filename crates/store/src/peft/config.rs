use serde_json::{Map, Value, json};

use super::{MAX_RANK, PeftError};

/// Which modules an adapter is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Targets {
    /// Full paths, or the last part or parts of paths.
    List(Vec<String>),
    /// A regular expression for the full path; `all-linear` stands for every linear module.
    Pattern(String),
}

impl Targets {
    /// As in the file.
    pub(super) fn to_value(&self) -> Value {
        match self {
            Targets::List(list) => json!(list),
            Targets::Pattern(pattern) => json!(pattern),
        }
    }

    /// Whether this is PEFT's word for every linear layer but the output layer.
    #[must_use]
    pub fn is_all_linear(&self) -> bool {
        matches!(self, Targets::Pattern(pattern) if pattern == "all-linear")
    }
}

/// PEFT's `init_lora_weights`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Init {
    /// `true` (zero left factor) or `false` (both random).
    Plain(bool),
    /// A named start.
    Named(String),
}

impl Init {
    /// Whether the base was changed at the start, so that the factors alone are wrong on the untouched base.
    #[must_use]
    pub fn changes_base(&self) -> bool {
        match self {
            Init::Plain(_) => false,
            Init::Named(name) => {
                matches!(name.as_str(), "pissa" | "olora" | "corda" | "lora_ga" | "loftq")
                    || is_fast_pissa(name)
            }
        }
    }

    fn known(&self) -> bool {
        match self {
            Init::Plain(_) => true,
            Init::Named(name) => {
                self.changes_base() || matches!(name.as_str(), "gaussian" | "eva" | "orthogonal" | "mica")
            }
        }
    }

    /// As in the file.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Init::Plain(value) => value.to_string(),
            Init::Named(name) => name.clone(),
        }
    }
}

/// `pissa_niter_4` and its like.
fn is_fast_pissa(name: &str) -> bool {
    name.strip_prefix("pissa_niter_").is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

/// `adapter_config.json` of a LoRA, with our names; the key of the file in parentheses.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterConfig {
    /// Rank of modules that no pattern names (`r`).
    pub rank: usize,
    /// α of modules that no pattern names (`lora_alpha`).
    pub alpha: f64,
    /// Modules with factors (`target_modules`).
    pub targets: Targets,
    /// Modules without, whatever `targets` says (`exclude_modules`).
    pub exclude: Option<Targets>,
    /// `CAUSAL_LM` and so on (`task_type`).
    pub task_type: Option<String>,
    /// Name or path of the base (`base_model_name_or_path`).
    pub base_model: Option<String>,
    /// How the factors began (`init_lora_weights`).
    pub init: Init,
    /// Whether it is meant for use rather than training (`inference_mode`).
    pub inference_mode: bool,
    /// Dropout on the input while training, 0 to 1 (`lora_dropout`).
    pub dropout: f64,
    /// Which biases of the base were trained: `none`, `all`, `lora_only` (`bias`).
    pub bias: String,
    /// Whether the base stores its weights `[in, out]` (`fan_in_fan_out`).
    pub fan_in_fan_out: bool,
    /// α/√r instead of α/r (`use_rslora`).
    pub rank_stabilised: bool,
    /// Magnitude and direction apart (`use_dora`).
    pub dora: bool,
    /// Whether the left factor has a bias (`lora_bias`).
    pub left_bias: bool,
    /// Ranks of some modules, first match first (`rank_pattern`).
    pub rank_pattern: Vec<(String, usize)>,
    /// α of some modules, first match first (`alpha_pattern`).
    pub alpha_pattern: Vec<(String, f64)>,
    /// Modules stored whole (`modules_to_save`).
    pub modules_to_save: Vec<String>,
    /// Only these layers (`layers_to_transform`).
    pub layers: Option<Vec<usize>>,
    /// What the list of layers is called (`layers_pattern`).
    pub layers_pattern: Vec<String>,
    /// Every other key, verbatim; written back as it was.
    pub other: Map<String, Value>,
}

/// Keys that PEFT 0.21 knows and that have no field above.
pub(super) const KNOWN: [&str; 22] = [
    "alora_invocation_tokens",
    "arrow_config",
    "auto_mapping",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "kasa_config",
    "layer_replication",
    "loftq_config",
    "lora_ga_config",
    "megatron_config",
    "megatron_core",
    "monteclora_config",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "target_parameters",
    "trainable_token_indices",
    "use_bdlora",
    "use_qalora",
    "velora_config",
];

/// Keys that change what the factors mean, or add something beside them.
pub(super) const MEANINGFUL: [&str; 11] = [
    "alora_invocation_tokens",
    "arrow_config",
    "ensure_weight_tying",
    "kasa_config",
    "layer_replication",
    "monteclora_config",
    "target_parameters",
    "trainable_token_indices",
    "use_bdlora",
    "use_qalora",
    "velora_config",
];

impl AdapterConfig {
    /// A plain adapter for these modules; everything else as PEFT's defaults.
    #[must_use]
    pub fn new(rank: usize, alpha: f64, targets: Targets) -> AdapterConfig {
        AdapterConfig {
            rank,
            alpha,
            targets,
            exclude: None,
            task_type: None,
            base_model: None,
            init: Init::Plain(true),
            inference_mode: true,
            dropout: 0.0,
            bias: "none".to_owned(),
            fan_in_fan_out: false,
            rank_stabilised: false,
            dora: false,
            left_bias: false,
            rank_pattern: Vec::new(),
            alpha_pattern: Vec::new(),
            modules_to_save: Vec::new(),
            layers: None,
            layers_pattern: Vec::new(),
            other: Map::new(),
        }
    }

    /// Reads the configuration; `r`, `lora_alpha`, `target_modules` and `peft_type` must be there.
    ///
    /// # Errors
    /// The first thing wrong, by key.
    pub fn parse(value: &Value) -> Result<AdapterConfig, PeftError> {
        let Value::Object(map) = value else { return Err(PeftError::NotAnObject) };
        let mut keys = Keys { left: map.clone() };
        let kind: String = keys.need("peft_type", "text", text)?;
        if kind != "LORA" {
            return Err(PeftError::NotLora { found: kind });
        }
        let init = keys.get("init_lora_weights", "true, false or text", init)?.unwrap_or(Init::Plain(true));
        if !init.known() {
            return Err(PeftError::UnknownInit { found: init.text() });
        }
        Ok(AdapterConfig {
            rank: keys.need("r", RANK, rank)?,
            alpha: keys.need("lora_alpha", "a number", Value::as_f64)?,
            targets: keys.need("target_modules", "text or a list of texts", targets)?,
            exclude: keys.get("exclude_modules", "text or a list of texts", targets)?,
            task_type: keys.get("task_type", "text", text)?,
            base_model: keys.get("base_model_name_or_path", "text", text)?,
            init,
            inference_mode: keys.truth("inference_mode")?,
            dropout: keys.get("lora_dropout", "a number from 0 to 1", dropout)?.unwrap_or(0.0),
            bias: keys.get("bias", "text", text)?.unwrap_or_else(|| "none".to_owned()),
            fan_in_fan_out: keys.truth("fan_in_fan_out")?,
            rank_stabilised: keys.truth("use_rslora")?,
            dora: keys.truth("use_dora")?,
            left_bias: keys.truth("lora_bias")?,
            rank_pattern: keys
                .get("rank_pattern", "an object of whole numbers from 1 to 16777216", |v| pairs(v, rank))?
                .unwrap_or_default(),
            alpha_pattern: keys
                .get("alpha_pattern", "an object of numbers", |v| pairs(v, Value::as_f64))?
                .unwrap_or_default(),
            modules_to_save: keys.get("modules_to_save", "a list of texts", texts)?.unwrap_or_default(),
            layers: keys.get("layers_to_transform", "a whole number or a list of them", layers)?,
            layers_pattern: keys
                .get("layers_pattern", "text or a list of texts", text_or_texts)?
                .unwrap_or_default(),
            other: keys.left,
        })
    }

    /// The JSON object of the file; [`crate::json::sorted_text`] gives PEFT's spelling of it.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let mut map = self.other.clone();
        let mut put = |key: &str, value: Value| map.insert(key.to_owned(), value);
        put("peft_type", json!("LORA"));
        put("r", json!(self.rank));
        put("lora_alpha", number(self.alpha));
        put("target_modules", self.targets.to_value());
        put("exclude_modules", self.exclude.as_ref().map_or(Value::Null, Targets::to_value));
        put("task_type", json!(self.task_type));
        put("base_model_name_or_path", json!(self.base_model));
        put(
            "init_lora_weights",
            match &self.init {
                Init::Plain(value) => json!(value),
                Init::Named(name) => json!(name),
            },
        );
        put("inference_mode", json!(self.inference_mode));
        put("lora_dropout", json!(self.dropout));
        put("bias", json!(self.bias));
        put("fan_in_fan_out", json!(self.fan_in_fan_out));
        put("use_rslora", json!(self.rank_stabilised));
        put("use_dora", json!(self.dora));
        put("lora_bias", json!(self.left_bias));
        let ranks = self.rank_pattern.iter().map(|(key, rank)| (key.clone(), json!(rank)));
        put("rank_pattern", Value::Object(ranks.collect()));
        let alphas = self.alpha_pattern.iter().map(|(key, alpha)| (key.clone(), number(*alpha)));
        put("alpha_pattern", Value::Object(alphas.collect()));
        put("modules_to_save", or_null(&self.modules_to_save));
        put("layers_to_transform", json!(self.layers));
        put("layers_pattern", or_null(&self.layers_pattern));
        Value::Object(map)
    }

    /// Keys that PEFT 0.21 does not know; it would warn of them and drop them.
    #[must_use]
    pub fn unknown_keys(&self) -> Vec<&str> {
        self.other.keys().map(String::as_str).filter(|key| !KNOWN.contains(key)).collect()
    }

    /// The first key that is set and changes what the factors mean, in a way that is not supported here.
    #[must_use]
    pub fn unsupported(&self) -> Option<&'static str> {
        if self.bias != "none" {
            return Some("bias");
        }
        MEANINGFUL.into_iter().find(|key| self.is_set(key))
    }

    /// Whether a key without a field has a value other than nothing.
    pub(crate) fn is_set(&self, key: &str) -> bool {
        is_set(&self.other, key)
    }
}

/// Whether a key has a value other than nothing.
pub(super) fn is_set(map: &Map<String, Value>, key: &str) -> bool {
    match map.get(key) {
        None | Some(Value::Null | Value::Bool(false)) => false,
        Some(Value::Array(items)) => !items.is_empty(),
        Some(Value::Object(map)) => !map.is_empty(),
        Some(_) => true,
    }
}

/// `null` for an empty list, as PEFT writes it.
pub(super) fn or_null(list: &[String]) -> Value {
    if list.is_empty() { Value::Null } else { json!(list) }
}

/// A whole number without a decimal point, as PEFT writes it.
pub(super) fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 9e15 { json!(value as i64) } else { json!(value) }
}

/// The keys not yet read.
pub(super) struct Keys {
    pub(super) left: Map<String, Value>,
}

impl Keys {
    pub(super) fn get<T>(
        &mut self,
        key: &'static str,
        wanted: &'static str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>, PeftError> {
        match self.left.shift_remove(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match read(&value) {
                Some(read) => Ok(Some(read)),
                None => Err(PeftError::WrongType { key, found: short(&value), wanted }),
            },
        }
    }

    pub(super) fn need<T>(
        &mut self,
        key: &'static str,
        wanted: &'static str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<T, PeftError> {
        self.get(key, wanted, read)?.ok_or(PeftError::MissingKey { key })
    }

    pub(super) fn truth(&mut self, key: &'static str) -> Result<bool, PeftError> {
        Ok(self.get(key, "true or false", Value::as_bool)?.unwrap_or(false))
    }
}

/// A value for a message, at most 60 letters of it.
pub(crate) fn short(value: &Value) -> String {
    value.to_string().chars().take(60).collect()
}

pub(super) fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

pub(super) fn texts(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(text).collect()
}

pub(super) fn text_or_texts(value: &Value) -> Option<Vec<String>> {
    text(value).map(|one| vec![one]).or_else(|| texts(value))
}

/// What [`rank`] wants.
pub(crate) const RANK: &str = "a whole number from 1 to 16777216";

pub(crate) fn rank(value: &Value) -> Option<usize> {
    usize::try_from(value.as_u64()?).ok().filter(|&rank| rank > 0 && rank <= MAX_RANK)
}

fn dropout(value: &Value) -> Option<f64> {
    value.as_f64().filter(|share| (0.0..=1.0).contains(share))
}

pub(super) fn targets(value: &Value) -> Option<Targets> {
    text(value).map(Targets::Pattern).or_else(|| texts(value).map(Targets::List))
}

fn init(value: &Value) -> Option<Init> {
    value.as_bool().map(Init::Plain).or_else(|| text(value).map(Init::Named))
}

pub(super) fn layers(value: &Value) -> Option<Vec<usize>> {
    let one = |value: &Value| usize::try_from(value.as_u64()?).ok();
    one(value).map(|layer| vec![layer]).or_else(|| value.as_array()?.iter().map(one).collect())
}

pub(super) fn pairs<T>(value: &Value, read: impl Fn(&Value) -> Option<T>) -> Option<Vec<(String, T)>> {
    value.as_object()?.iter().map(|(key, value)| Some((key.clone(), read(value)?))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{AdapterConfig, Init, PeftError as E, Targets};

    fn plain() -> Value {
        json!({"peft_type": "LORA", "r": 4, "lora_alpha": 6.5, "target_modules": ["q_proj"]})
    }

    #[test]
    fn what_is_read_is_written() {
        let mut value = plain();
        value["rank_pattern"] = json!({"z": 2, "a.*": 3});
        value["exclude_modules"] = json!(".*\\.0\\..*");
        value["layers_to_transform"] = json!(3);
        value["peft_version"] = json!("0.21.2");
        value["my_key"] = json!({"kept": [1, 2.5]});
        let config = AdapterConfig::parse(&value).unwrap();
        assert_eq!(
            config.rank_pattern,
            [("z".to_owned(), 2), ("a.*".to_owned(), 3)],
            "in the order of the file"
        );
        assert_eq!(config.layers, Some(vec![3]));
        assert_eq!(config.unknown_keys(), ["my_key"]);
        assert_eq!(config.exclude, Some(Targets::Pattern(".*\\.0\\..*".into())));
        let written = config.to_value();
        assert_eq!(written["my_key"], value["my_key"]);
        assert_eq!(written["lora_alpha"], json!(6.5));
        assert_eq!(AdapterConfig::parse(&written).unwrap(), config);
    }

    #[test]
    fn what_peft_would_guess_is_an_error() {
        for key in ["peft_type", "r", "lora_alpha", "target_modules"] {
            let mut value = plain();
            value.as_object_mut().unwrap().remove(key);
            assert_eq!(AdapterConfig::parse(&value), Err(E::MissingKey { key }));
        }
        let with = |key: &str, new: Value| {
            let mut value = plain();
            value[key] = new;
            AdapterConfig::parse(&value)
        };
        assert_eq!(with("peft_type", json!("IA3")), Err(E::NotLora { found: "IA3".into() }));
        assert_eq!(
            with("init_lora_weights", json!("nystrom")),
            Err(E::UnknownInit { found: "nystrom".into() })
        );
        let wanted = "a whole number from 1 to 16777216";
        let large = E::WrongType { key: "r", found: "16777217".into(), wanted };
        assert_eq!(with("r", json!(16_777_217)), Err(large));
        let ranks = with("rank_pattern", json!({"q_proj": u64::MAX}));
        assert!(matches!(ranks, Err(E::WrongType { key: "rank_pattern", .. })), "{ranks:?}");
        for share in [json!(-0.1), json!(1.5), json!("0.1")] {
            let dropout = with("lora_dropout", share);
            assert!(matches!(dropout, Err(E::WrongType { key: "lora_dropout", .. })), "{dropout:?}");
        }
        assert_eq!(with("lora_dropout", json!(1)).unwrap().dropout, 1.0);
        assert_eq!(with("r", json!(0)), Err(E::WrongType { key: "r", found: "0".into(), wanted }));
        assert_eq!(with("r", json!(2.5)), Err(E::WrongType { key: "r", found: "2.5".into(), wanted }));
        let wrong = E::WrongType { key: "use_dora", found: "1".into(), wanted: "true or false" };
        assert_eq!(with("use_dora", json!(1)), Err(wrong));
        assert_eq!(AdapterConfig::parse(&json!([])), Err(E::NotAnObject));
        assert_eq!(
            with("layer_replication", json!([[0, 4]])).unwrap().unsupported(),
            Some("layer_replication")
        );
        assert_eq!(with("use_qalora", json!(false)).unwrap().unsupported(), None);
        for key in ["kasa_config", "monteclora_config", "velora_config", "arrow_config"] {
            assert_eq!(with(key, json!({"a": 1})).unwrap().unsupported(), Some(key));
            assert_eq!(with(key, Value::Null).unwrap().unsupported(), None);
            assert_eq!(with(key, json!({"a": 1})).unwrap().unknown_keys(), [""; 0]);
        }
        // PEFT itself is of two minds about capitals: some names it lowers first, others not.
        let capital = with("init_lora_weights", json!("Gaussian")).unwrap_err();
        assert!(capital.to_string().contains("lower case"), "{capital}");
    }

    #[test]
    fn offset_starts_are_known() {
        for name in ["pissa", "pissa_niter_16", "olora", "corda", "lora_ga", "loftq"] {
            assert!(Init::Named(name.into()).changes_base(), "{name}");
        }
        for name in ["gaussian", "eva", "orthogonal", "mica", "pissa_niter_", "pissa_niter_x"] {
            assert!(!Init::Named(name.into()).changes_base(), "{name}");
        }
    }
}
