use serde_json::{Map, Value, json};

use super::{Kind, Settings};
use crate::peft::config::{KNOWN, Keys, MEANINGFUL, is_set, layers, number, or_null, targets, text};
use crate::peft::config::{text_or_texts, texts};
use crate::peft::{AdapterConfig, PeftError, Targets};

/// `adapter_config.json` of an adapter that is no LoRA, with our names; the key of the file in parentheses.
#[derive(Debug, Clone, PartialEq)]
pub struct TypedConfig {
    /// Modules that are changed (`target_modules`).
    pub targets: Targets,
    /// Modules that are not, whatever `targets` says (`exclude_modules`); VeRA has no such key.
    pub exclude: Option<Targets>,
    /// `CAUSAL_LM` and so on (`task_type`).
    pub task_type: Option<String>,
    /// Name or path of the base (`base_model_name_or_path`).
    pub base_model: Option<String>,
    /// Whether it is meant for use rather than training (`inference_mode`).
    pub inference_mode: bool,
    /// Whether the base stores its weights `[in, out]` (`fan_in_fan_out`); LoHa and LoKr have no such key.
    pub fan_in_fan_out: bool,
    /// Only these layers (`layers_to_transform`); IA3 has no such key.
    pub layers: Option<Vec<usize>>,
    /// What the list of layers is called (`layers_pattern`); IA3 has no such key.
    pub layers_pattern: Vec<String>,
    /// What the kind itself needs.
    pub settings: Settings,
    /// Every other key that PEFT knows for this kind, verbatim; written back as it was.
    pub other: Map<String, Value>,
}

/// Keys that every kind has and that have no field.
const COMMON: [&str; 3] = ["auto_mapping", "peft_version", "revision"];

/// Keys of one kind that have no field: none of them changes what the tensors mean.
fn known(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Lora => &[],
        Kind::Ia3 => &["init_ia3_weights"],
        Kind::Loha => &["rank_dropout", "module_dropout", "use_effective_conv2d", "init_weights"],
        Kind::Lokr => {
            &["rank_dropout", "rank_dropout_scale", "module_dropout", "use_effective_conv2d", "init_weights"]
        }
        Kind::Oft => &["module_dropout", "init_weights"],
        Kind::Boft => &["boft_dropout", "init_weights"],
        Kind::Vera => &["vera_dropout", "init_weights"],
        // PEFT looks at lora_alpha alone here.
        Kind::Adalora => &[
            "alpha_pattern",
            "beta1",
            "beta2",
            "deltaT",
            "init_lora_weights",
            "lora_bias",
            "lora_dropout",
            "orth_reg_weight",
            "r",
            "use_dora",
            "use_rslora",
        ],
    }
}

/// Keys that change what an AdaLoRA's tensors mean, or add something beside them, on top of LoRA's.
const MEANINGFUL_HERE: [&str; 2] = ["use_dora", "lora_bias"];

fn has_exclude(kind: Kind) -> bool {
    kind != Kind::Vera
}

fn has_layers(kind: Kind) -> bool {
    kind != Kind::Ia3
}

fn has_fan_in_fan_out(kind: Kind) -> bool {
    !matches!(kind, Kind::Loha | Kind::Lokr)
}

fn has_bias(kind: Kind) -> bool {
    matches!(kind, Kind::Oft | Kind::Boft | Kind::Vera | Kind::Adalora)
}

impl TypedConfig {
    /// An adapter for these modules; everything else as PEFT's defaults.
    #[must_use]
    pub fn new(settings: Settings, targets: Targets) -> TypedConfig {
        let mut other = Map::new();
        if settings.kind() == Kind::Oft {
            // Without it PEFT takes the file for one of before 0.18, whose rotations were others.
            other.insert("peft_version".to_owned(), json!("0.21.2"));
        }
        TypedConfig {
            targets,
            exclude: None,
            task_type: None,
            base_model: None,
            inference_mode: true,
            fan_in_fan_out: false,
            layers: None,
            layers_pattern: Vec::new(),
            settings,
            other,
        }
    }

    /// Reads the configuration. What decides on the meaning of the tensors must be there.
    ///
    /// # Errors
    /// The first thing wrong, by key.
    pub fn parse(value: &Value) -> Result<TypedConfig, PeftError> {
        let Value::Object(map) = value else { return Err(PeftError::NotAnObject) };
        let mut keys = Keys { left: map.clone() };
        let kind = Kind::named(&keys.need("peft_type", "text", text)?)?;
        let settings = Settings::parse(kind, &mut keys)?;
        let list = "text or a list of texts";
        let exclude = if has_exclude(kind) { keys.get("exclude_modules", list, targets)? } else { None };
        let fan_in_fan_out = has_fan_in_fan_out(kind) && keys.truth("fan_in_fan_out")?;
        let (mut only, mut pattern) = (None, None);
        if has_layers(kind) {
            only = keys.get("layers_to_transform", "a whole number or a list of them", layers)?;
            pattern = keys.get("layers_pattern", list, text_or_texts)?;
        }
        if has_bias(kind) {
            let bias: Option<String> = keys.get("bias", "text", text)?;
            if bias.is_some_and(|bias| bias != "none") {
                return Err(PeftError::Unsupported { key: "bias" });
            }
        }
        let saved: Option<Vec<String>> = keys.get("modules_to_save", "a list of texts", texts)?;
        if saved.is_some_and(|saved| !saved.is_empty()) {
            return Err(PeftError::Unsupported { key: "modules_to_save" });
        }
        let config = TypedConfig {
            targets: keys.need("target_modules", list, targets)?,
            exclude,
            task_type: keys.get("task_type", "text", text)?,
            base_model: keys.get("base_model_name_or_path", "text", text)?,
            inference_mode: keys.truth("inference_mode")?,
            fan_in_fan_out,
            layers: only,
            layers_pattern: pattern.unwrap_or_default(),
            settings,
            other: keys.left,
        };
        config.check()?;
        Ok(config)
    }

    /// Refuses keys that PEFT does not know for this kind, and values that are not supported.
    pub(super) fn check(&self) -> Result<(), PeftError> {
        let kind = self.settings.kind();
        if kind == Kind::Lora {
            return Err(PeftError::IsLora);
        }
        let refused = |key: &str| PeftError::UnknownKey { kind: kind.name(), key: key.to_owned() };
        let of_lora = |key: &str| kind == Kind::Adalora && KNOWN.contains(&key);
        for key in self.other.keys().map(String::as_str) {
            if !COMMON.contains(&key) && !known(kind).contains(&key) && !of_lora(key) {
                return Err(refused(key));
            }
        }
        for (set, allowed, key) in [
            (self.exclude.is_some(), has_exclude(kind), "exclude_modules"),
            (self.fan_in_fan_out, has_fan_in_fan_out(kind), "fan_in_fan_out"),
            (self.layers.is_some(), has_layers(kind), "layers_to_transform"),
            (!self.layers_pattern.is_empty(), has_layers(kind), "layers_pattern"),
        ] {
            if set && !allowed {
                return Err(refused(key));
            }
        }
        if kind == Kind::Adalora
            && let Some(key) =
                MEANINGFUL.into_iter().chain(MEANINGFUL_HERE).find(|key| is_set(&self.other, key))
        {
            return Err(PeftError::Unsupported { key });
        }
        self.settings.check()
    }

    /// The JSON object of the file.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let kind = self.settings.kind();
        let mut map = self.other.clone();
        self.settings.write(&mut map);
        let mut put = |key: &str, value: Value| map.insert(key.to_owned(), value);
        put("peft_type", json!(kind.name()));
        put("target_modules", self.targets.to_value());
        put("task_type", json!(self.task_type));
        put("base_model_name_or_path", json!(self.base_model));
        put("inference_mode", json!(self.inference_mode));
        put("modules_to_save", Value::Null);
        if has_exclude(kind) {
            put("exclude_modules", self.exclude.as_ref().map_or(Value::Null, Targets::to_value));
        }
        if has_fan_in_fan_out(kind) {
            put("fan_in_fan_out", json!(self.fan_in_fan_out));
        }
        if has_layers(kind) {
            put("layers_to_transform", json!(self.layers));
            put("layers_pattern", or_null(&self.layers_pattern));
        }
        if has_bias(kind) {
            put("bias", json!("none"));
        }
        Value::Object(map)
    }

    /// What [`crate::peft::Matcher`] needs to tell targets, ranks and scales of modules.
    #[must_use]
    pub fn matching(&self) -> AdapterConfig {
        let (rank, alpha) = self.settings.rank_and_alpha();
        let mut config = AdapterConfig::new(rank, alpha, self.targets.clone());
        config.exclude.clone_from(&self.exclude);
        config.layers.clone_from(&self.layers);
        config.layers_pattern.clone_from(&self.layers_pattern);
        if let Settings::Loha { rank_pattern, alpha_pattern, .. }
        | Settings::Lokr { rank_pattern, alpha_pattern, .. } = &self.settings
        {
            config.rank_pattern.clone_from(rank_pattern);
            config.alpha_pattern.clone_from(alpha_pattern);
        }
        config
    }
}

/// A whole number without a decimal point where it is one.
pub(super) fn shown(value: f64) -> Value {
    number(value)
}
