//! The configuration of the Llama family, from a Hugging Face `config.json` or from GGUF metadata.

use serde_json::Value;

use crate::ModelError;

/// Architectures of `config.json` that share this decoder.
pub const MODEL_TYPES: &[&str] = &["llama", "mistral", "qwen2"];

/// Shape and constants of a Llama-like decoder.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Config {
    /// `llama`, `mistral` or `qwen2`.
    pub model_type: String,
    /// Rows of the embedding.
    pub vocabulary: usize,
    /// Width of the hidden state.
    pub hidden: usize,
    /// Width inside the feed-forward part.
    pub intermediate: usize,
    /// Number of blocks.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// ε of the norms.
    pub norm_epsilon: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// How the rotary frequencies are stretched beyond the trained context.
    pub rope_scaling: RopeScaling,
    /// Longest sequence.
    pub context: usize,
    /// Whether the head is the embedding.
    pub tied: bool,
    /// Whether q, k and v have a bias.
    pub qkv_bias: bool,
    /// Whether the attention's output has a bias.
    pub output_bias: bool,
    /// Whether the feed-forward layers have a bias.
    pub mlp_bias: bool,
    /// Number of past tokens each token sees, itself included, where attention slides.
    pub sliding_window: Option<usize>,
}

/// Variants of rotary scaling.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub enum RopeScaling {
    /// As trained.
    None,
    /// All positions divided by a factor (Chen et al., "Extending Context Window … via Positional Interpolation", 2023).
    Linear {
        /// Divisor of the frequencies.
        factor: f64,
    },
    /// Llama 3.1: low frequencies divided, high ones kept, a ramp between.
    Llama3 {
        /// Divisor of the low frequencies.
        factor: f64,
        /// Wavelengths longer than `original / low` are divided.
        low: f64,
        /// Wavelengths shorter than `original / high` are kept.
        high: f64,
        /// Context of the original model.
        original: f64,
    },
    /// YaRN (Peng et al., 2023).
    Yarn {
        /// Divisor of the low frequencies.
        factor: f64,
        /// Rotations above which a frequency is kept.
        beta_fast: f64,
        /// Rotations below which a frequency is divided.
        beta_slow: f64,
        /// Context of the original model.
        original: f64,
        /// Factor on cosines and sines.
        attention_factor: f64,
    },
}

/// The largest size of any kind.
const LARGEST: usize = 0x7fff_ffff;

impl Config {
    /// Reads `config.json`.
    ///
    /// # Errors
    /// [`ModelError`] naming the key that is absent or cannot be used.
    pub fn from_json(json: &Value) -> Result<Config, ModelError> {
        let model_type = text(json, "model_type")?;
        if !MODEL_TYPES.contains(&model_type) {
            return Err(ModelError::Architecture {
                found: model_type.to_owned(),
                known: MODEL_TYPES.join(", "),
            });
        }
        let activation = json.get("hidden_act").and_then(Value::as_str).unwrap_or("silu");
        if activation != "silu" {
            return Err(bad("hidden_act", activation, "only \"silu\" (SwiGLU) is supported"));
        }
        let (hidden, heads) = (count(json, "hidden_size")?, count(json, "num_attention_heads")?);
        let kv_heads = optional_count(json, "num_key_value_heads")?.unwrap_or(heads);
        let head_dim = match optional_count(json, "head_dim")? {
            Some(width) => width,
            None if hidden % heads == 0 => hidden / heads,
            None => return Err(bad("hidden_size", hidden, "it must be a multiple of num_attention_heads")),
        };
        let flag = |key: &'static str, default: bool| match json.get(key) {
            None | Some(Value::Null) => Ok(default),
            Some(Value::Bool(value)) => Ok(*value),
            Some(other) => Err(bad(key, other, "it should be true or false")),
        };
        let qwen2 = model_type == "qwen2";
        let context = count(json, "max_position_embeddings")?;
        let (rope_theta, rope_scaling) = rope(json, context)?;
        let slides = if qwen2 { flag("use_sliding_window", false)? } else { model_type == "mistral" };
        let biased = flag("attention_bias", false)?;
        if qwen2 && slides {
            return Err(bad(
                "use_sliding_window",
                true,
                "Qwen2 with sliding layers is not supported; set it to false",
            ));
        }
        let config = Config {
            model_type: model_type.to_owned(),
            vocabulary: count(json, "vocab_size")?,
            hidden,
            intermediate: count(json, "intermediate_size")?,
            layers: count(json, "num_hidden_layers")?,
            heads,
            kv_heads,
            head_dim,
            norm_epsilon: number(json, "rms_norm_eps")?.unwrap_or(1e-6),
            rope_theta,
            rope_scaling,
            context,
            tied: flag("tie_word_embeddings", false)?,
            qkv_bias: qwen2 || biased,
            output_bias: !qwen2 && biased,
            mlp_bias: flag("mlp_bias", false)?,
            sliding_window: if slides { optional_count(json, "sliding_window")? } else { None },
        };
        config.check()
    }

    /// Whether the sizes fit each other, and are those of a model: nothing that is computed from them overflows.
    pub(crate) fn check(self) -> Result<Config, ModelError> {
        for (key, size) in [
            ("vocab_size", self.vocabulary),
            ("hidden_size", self.hidden),
            ("intermediate_size", self.intermediate),
            ("num_hidden_layers", self.layers),
            ("num_attention_heads", self.heads),
            ("num_key_value_heads", self.kv_heads),
            ("head_dim", self.head_dim),
            ("max_position_embeddings", self.context),
        ] {
            if !(1..=LARGEST).contains(&size) {
                return Err(bad(key, size, &format!("it should be from 1 to {LARGEST}")));
            }
        }
        let widest = self.hidden.max(self.intermediate).max(self.heads.saturating_mul(self.head_dim));
        let block = widest.checked_mul(8 * widest).and_then(|block| block.checked_mul(self.layers));
        if block.is_none_or(|values| values > usize::MAX >> 8) {
            return Err(bad(
                "num_hidden_layers",
                self.layers,
                "the model has more values than can be counted",
            ));
        }
        self.rope_scaling.check()?;
        if self.kv_heads > self.heads || !self.heads.is_multiple_of(self.kv_heads) {
            return Err(bad("num_key_value_heads", self.kv_heads, "it must divide num_attention_heads"));
        }
        if !self.head_dim.is_multiple_of(2) {
            return Err(bad("head_dim", self.head_dim, "rotary embedding needs an even head width"));
        }
        if !(self.norm_epsilon >= 0.0 && self.norm_epsilon.is_finite()) {
            return Err(bad("rms_norm_eps", self.norm_epsilon, "it must be a small positive number"));
        }
        if !(self.rope_theta > 0.0 && self.rope_theta.is_finite()) {
            return Err(bad("rope_theta", self.rope_theta, "it must be a positive number"));
        }
        Ok(self)
    }

    /// Number of parameters, a tied head counted once.
    #[must_use]
    pub fn parameters(&self) -> usize {
        let (q, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let attention = self.hidden * (2 * q + 2 * kv);
        let biases =
            if self.qkv_bias { q + 2 * kv } else { 0 } + if self.output_bias { self.hidden } else { 0 };
        let mlp = 3 * self.hidden * self.intermediate;
        let mlp_bias = if self.mlp_bias { 2 * self.intermediate + self.hidden } else { 0 };
        let block = attention + biases + mlp + mlp_bias + 2 * self.hidden;
        let embeddings = self.vocabulary * self.hidden * if self.tied { 1 } else { 2 };
        self.layers * block + embeddings + self.hidden
    }

    /// `config.json` of the same model, as `transformers` reads it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let architecture = match self.model_type.as_str() {
            "mistral" => "MistralForCausalLM",
            "qwen2" => "Qwen2ForCausalLM",
            _ => "LlamaForCausalLM",
        };
        let mut json = serde_json::json!({
            "architectures": [architecture],
            "model_type": self.model_type,
            "vocab_size": self.vocabulary,
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "rms_norm_eps": self.norm_epsilon,
            "rope_theta": self.rope_theta,
            "max_position_embeddings": self.context,
            "tie_word_embeddings": self.tied,
            "torch_dtype": "float32",
        });
        if self.model_type == "llama" {
            json["attention_bias"] = self.qkv_bias.into();
            json["mlp_bias"] = self.mlp_bias.into();
        }
        if self.model_type == "mistral" {
            json["sliding_window"] = self.sliding_window.into();
        }
        if let Some(scaling) = self.rope_scaling.to_json() {
            json["rope_scaling"] = scaling;
        }
        json
    }
}

impl RopeScaling {
    /// Whether its numbers give finite angles.
    fn check(self) -> Result<(), ModelError> {
        let numbers = match self {
            RopeScaling::None => vec![],
            RopeScaling::Linear { factor } => vec![factor],
            RopeScaling::Llama3 { factor, low, high, original } => vec![factor, low, high - low, original],
            RopeScaling::Yarn { factor, beta_fast, beta_slow, original, attention_factor } => {
                vec![factor, beta_slow, beta_fast - beta_slow, original, attention_factor]
            }
        };
        match numbers.iter().find(|number| !(number.is_finite() && **number > 0.0)) {
            Some(_) => Err(bad(
                "rope_scaling",
                format!("{self:?}"),
                "its numbers should be positive, and the high bound above the low one",
            )),
            None => Ok(()),
        }
    }

    fn to_json(self) -> Option<Value> {
        match self {
            RopeScaling::None => None,
            RopeScaling::Linear { factor } => {
                Some(serde_json::json!({"rope_type": "linear", "factor": factor}))
            }
            RopeScaling::Llama3 { factor, low, high, original } => Some(serde_json::json!({
                "rope_type": "llama3", "factor": factor, "low_freq_factor": low, "high_freq_factor": high,
                "original_max_position_embeddings": original as u64,
            })),
            RopeScaling::Yarn { factor, beta_fast, beta_slow, original, attention_factor } => {
                Some(serde_json::json!({
                    "rope_type": "yarn", "factor": factor, "beta_fast": beta_fast, "beta_slow": beta_slow,
                    "original_max_position_embeddings": original as u64, "attention_factor": attention_factor,
                }))
            }
        }
    }
}

/// Newer files keep everything in `rope_parameters`, older ones split it into `rope_theta` and `rope_scaling`.
fn rope(json: &Value, context: usize) -> Result<(f64, RopeScaling), ModelError> {
    let parameters = json.get("rope_parameters").filter(|value| value.is_object());
    let inside = parameters.map(|parameters| number(parameters, "rope_theta")).transpose()?.flatten();
    let theta = inside.or(number(json, "rope_theta")?).unwrap_or(10_000.0);
    let Some(scaling) = parameters.or_else(|| json.get("rope_scaling").filter(|value| value.is_object()))
    else {
        return Ok((theta, RopeScaling::None));
    };
    let kind =
        scaling.get("rope_type").or_else(|| scaling.get("type")).and_then(Value::as_str).unwrap_or("default");
    let need =
        |key: &'static str| number(scaling, key)?.ok_or(ModelError::MissingKey { key, expected: "a number" });
    let original = number(scaling, "original_max_position_embeddings")?;
    let scaling = match kind {
        "default" => RopeScaling::None,
        "linear" => RopeScaling::Linear { factor: need("factor")? },
        "llama3" => RopeScaling::Llama3 {
            factor: need("factor")?,
            low: need("low_freq_factor")?,
            high: need("high_freq_factor")?,
            original: need("original_max_position_embeddings")?,
        },
        "yarn" => {
            let factor = need("factor")?;
            RopeScaling::Yarn {
                factor,
                beta_fast: number(scaling, "beta_fast")?.unwrap_or(32.0),
                beta_slow: number(scaling, "beta_slow")?.unwrap_or(1.0),
                original: original.unwrap_or(context as f64),
                attention_factor: number(scaling, "attention_factor")?
                    .unwrap_or_else(|| if factor <= 1.0 { 1.0 } else { 0.1 * factor.ln() + 1.0 }),
            }
        }
        other => return Err(bad("rope_scaling", other, "known types are default, linear, llama3 and yarn")),
    };
    Ok((theta, scaling))
}

fn bad(key: &'static str, found: impl std::fmt::Display, hint: &str) -> ModelError {
    ModelError::BadKey { key, found: found.to_string(), hint: hint.to_owned() }
}

fn text<'a>(json: &'a Value, key: &'static str) -> Result<&'a str, ModelError> {
    json.get(key).and_then(Value::as_str).ok_or(ModelError::MissingKey { key, expected: "a text" })
}

fn number(json: &Value, key: &'static str) -> Result<Option<f64>, ModelError> {
    match json.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value.as_f64().map(Some).ok_or_else(|| bad(key, value, "it should be a number")),
    }
}

fn count(json: &Value, key: &'static str) -> Result<usize, ModelError> {
    optional_count(json, key)?.ok_or(ModelError::MissingKey { key, expected: "a positive whole number" })
}

fn optional_count(json: &Value, key: &'static str) -> Result<Option<usize>, ModelError> {
    match json.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_u64() {
            Some(count) if (1..=LARGEST as u64).contains(&count) => Ok(Some(count as usize)),
            _ => Err(bad(key, value, "it should be a positive whole number")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn smollm() -> Value {
        json!({"model_type": "llama", "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536,
            "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "rms_norm_eps": 1e-5,
            "rope_theta": 100_000.0, "max_position_embeddings": 8192, "tie_word_embeddings": true})
    }

    #[test]
    fn counts_the_parameters_of_smollm2() {
        let config = Config::from_json(&smollm()).unwrap();
        assert_eq!(config.parameters(), 134_515_008);
        assert_eq!(config.head_dim, 64);
        assert_eq!(Config::from_json(&config.to_json()).unwrap(), config);
    }

    #[test]
    fn reads_every_rope_variant_and_both_layouts() {
        let mut json = smollm();
        json["rope_scaling"] = json!({"type": "linear", "factor": 4.0});
        assert_eq!(Config::from_json(&json).unwrap().rope_scaling, RopeScaling::Linear { factor: 4.0 });
        json["rope_scaling"] = Value::Null;
        json["rope_parameters"] = json!({"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0,
            "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192});
        let config = Config::from_json(&json).unwrap();
        assert_eq!(config.rope_theta, 5e5);
        assert!(matches!(config.rope_scaling, RopeScaling::Llama3 { factor: 8.0, .. }));
        json["rope_parameters"] = json!({"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4});
        let wanted = RopeScaling::Yarn {
            factor: 4.0,
            beta_fast: 32.0,
            beta_slow: 1.0,
            original: 8192.0,
            attention_factor: 0.1 * 4.0_f64.ln() + 1.0,
        };
        assert_eq!(Config::from_json(&json).unwrap().rope_scaling, wanted);
        json["rope_parameters"] = json!({"rope_type": "longrope"});
        assert!(Config::from_json(&json).unwrap_err().to_string().contains("longrope"));
    }

    #[test]
    fn names_what_is_missing_or_wrong() {
        let change = |key: &str, value: Value| {
            let mut json = smollm();
            json[key] = value;
            Config::from_json(&json).unwrap_err().to_string()
        };
        assert!(change("tie_word_embeddings", json!("true")).contains("true or false"));
        assert!(change("rms_norm_eps", json!("1e-5")).contains("should be a number"));
        assert!(change("intermediate_size", json!(0x7fff_ffff_u32)).contains("counted"));
        assert!(change("rope_scaling", json!({"type": "linear", "factor": 0.0})).contains("positive"));
        let bounds = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 4.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192});
        assert!(change("rope_scaling", bounds).contains("positive"));
        assert!(change("hidden_size", Value::Null).contains("\"hidden_size\" is missing"));
        assert!(change("hidden_size", json!(-3)).contains("positive whole number"));
        assert!(change("num_key_value_heads", json!(2)).contains("must divide"));
        assert!(change("model_type", json!("gpt2")).contains("llama, mistral, qwen2"));
    }
}
