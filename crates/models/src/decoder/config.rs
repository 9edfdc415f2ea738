//! The configuration of a decoder, from a Hugging Face `config.json` or from GGUF metadata.

use serde_json::Value;

use super::family::Family;
pub use super::rope_scaling::RopeScaling;
use crate::ModelError;

/// What stands between the two layers of the feed-forward part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub enum FeedForward {
    /// A gate beside the first: `silu(gate) ⊙ up`.
    SwiGlu,
    /// `x·Φ(x)`.
    Gelu,
    /// Its approximation with a tanh.
    GeluTanh,
}

impl FeedForward {
    /// Reads the activation of a feed-forward part without a gate.
    pub(super) fn of(json: &Value, key: &'static str, default: &str) -> Result<FeedForward, ModelError> {
        let name = match json.get(key) {
            None | Some(Value::Null) => default,
            Some(Value::String(name)) => name,
            Some(other) => return Err(bad(key, other, "it should be a name")),
        };
        match name {
            "gelu" | "gelu_python" => Ok(FeedForward::Gelu),
            "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" | "gelu_python_tanh" | "gelu_accurate" => {
                Ok(FeedForward::GeluTanh)
            }
            other => Err(bad(
                key,
                other,
                "supported are \"gelu\", \"gelu_new\", \"gelu_fast\" and \"gelu_pytorch_tanh\"",
            )),
        }
    }

    /// A name of `config.json`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            FeedForward::SwiGlu => "silu",
            FeedForward::Gelu => "gelu",
            FeedForward::GeluTanh => "gelu_new",
        }
    }
}

/// What the feed-forward part of a block sees, and where its result goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub enum Residual {
    /// The state behind the attention: `h ← h + a(n₁(h))`, then `h ← h + m(n₂(h))`.
    Sequential,
    /// The state before the block, by a norm of its own: `h ← h + a(n₁(h)) + m(n₂(h))`.
    Parallel,
    /// The same normed state as the attention: `h ← h + a(n(h)) + m(n(h))`.
    Shared,
}

/// Shape and constants of a decoder.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Config {
    /// `llama`, `gpt2` and so on: a type of [`super::family::model_types`].
    pub model_type: String,
    /// What names its tensors.
    pub family: Family,
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
    /// How many values of each head turn with the position; 0 where positions are learned.
    pub rotary_dim: usize,
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
    /// Whether an own head has a bias.
    pub head_bias: bool,
    /// What stands inside the feed-forward part.
    pub activation: FeedForward,
    /// How the feed-forward part joins the attention.
    pub residual: Residual,
    /// Number of past tokens each token sees, itself included, where attention slides.
    pub sliding_window: Option<usize>,
}

/// The largest size of any kind.
const LARGEST: usize = 0x7fff_ffff;
/// What errors about keys name.
pub(super) const PLACE: &str = "config.json";

impl Config {
    /// Reads `config.json`.
    ///
    /// # Errors
    /// [`ModelError`] naming the key that is absent or cannot be used.
    pub fn from_json(json: &Value) -> Result<Config, ModelError> {
        let model_type = text(json, "model_type")?;
        Family::of(model_type)?.read(model_type, json)
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
        // An upper bound of the number of parameters: 8 squares a block, the embedding and the head.
        let widest = self.hidden.max(self.intermediate).max(self.heads.saturating_mul(self.head_dim));
        let square = widest.checked_mul(widest).and_then(|square| square.checked_mul(8));
        let blocks = square.and_then(|block| block.checked_mul(self.layers));
        let values = blocks.and_then(|blocks| blocks.checked_add(2 * self.vocabulary * self.hidden));
        let learned = if self.rotary_dim == 0 { self.context * self.hidden } else { 0 };
        let values = values.and_then(|values| values.checked_add(learned));
        if values.is_none_or(|values| values > usize::MAX >> 8) {
            return Err(bad(
                "num_hidden_layers",
                self.layers,
                "the model has more values than can be counted",
            ));
        }
        if self.kv_heads > self.heads || !self.heads.is_multiple_of(self.kv_heads) {
            return Err(bad("num_key_value_heads", self.kv_heads, "it must divide num_attention_heads"));
        }
        if !self.rotary_dim.is_multiple_of(2) {
            return Err(bad("head_dim", self.head_dim, "rotary embedding needs an even head width"));
        }
        self.rope_scaling.check(self.rotary_dim)?;
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
        let gated = usize::from(self.activation == FeedForward::SwiGlu);
        let mlp = (2 + gated) * self.hidden * self.intermediate;
        let mlp_bias = if self.mlp_bias { (1 + gated) * self.intermediate + self.hidden } else { 0 };
        let norm = if self.family.table().layer_norm { 2 * self.hidden } else { self.hidden };
        let norms = if self.residual == Residual::Shared { norm } else { 2 * norm };
        let block = attention + biases + mlp + mlp_bias + norms;
        let embeddings = self.vocabulary * self.hidden * if self.tied { 1 } else { 2 };
        let positions = if self.rotary_dim == 0 { self.context * self.hidden } else { 0 };
        let head_bias = if self.head_bias { self.vocabulary } else { 0 };
        self.layers * block + embeddings + positions + norm + head_bias
    }

    /// `config.json` of the same model, as `transformers` reads it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        self.family.write(self)
    }
}

pub(super) fn bad(key: &'static str, found: impl std::fmt::Display, hint: &str) -> ModelError {
    ModelError::BadKey { place: PLACE, key, found: found.to_string(), hint: hint.to_owned() }
}

/// An error of [`Config::check`], by the names that stand in the file: `(ours, theirs)`.
pub(super) fn in_terms(
    error: ModelError,
    place: &'static str,
    keys: &[(&'static str, &'static str)],
) -> ModelError {
    match error {
        ModelError::BadKey { key, found, hint, .. } => {
            let name = keys.iter().find(|(ours, _)| *ours == key).map_or(key, |(_, theirs)| theirs);
            ModelError::BadKey { place, key: name, found, hint }
        }
        other => other,
    }
}

/// Refuses a switch that is on.
pub(super) fn refuse(json: &Value, key: &'static str, what: &str) -> Result<(), ModelError> {
    match flag(json, key, false)? {
        true => Err(bad(key, true, &format!("{what} is not supported"))),
        false => Ok(()),
    }
}

/// Refuses a switch that is off.
pub(super) fn refuse_unless(json: &Value, key: &'static str, what: &str) -> Result<(), ModelError> {
    match flag(json, key, true)? {
        true => Ok(()),
        false => Err(bad(key, false, &format!("{what} is not supported"))),
    }
}

pub(super) fn flag(json: &Value, key: &'static str, default: bool) -> Result<bool, ModelError> {
    match json.get(key) {
        None | Some(Value::Null) => Ok(default),
        Some(Value::Bool(value)) => Ok(*value),
        Some(other) => Err(bad(key, other, "it should be true or false")),
    }
}

fn text<'a>(json: &'a Value, key: &'static str) -> Result<&'a str, ModelError> {
    json.get(key).and_then(Value::as_str).ok_or(ModelError::MissingKey {
        place: PLACE,
        key,
        expected: "a text",
    })
}

pub(super) fn number(json: &Value, key: &'static str) -> Result<Option<f64>, ModelError> {
    match json.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value.as_f64().map(Some).ok_or_else(|| bad(key, value, "it should be a number")),
    }
}

pub(super) fn count(json: &Value, key: &'static str) -> Result<usize, ModelError> {
    let expected = "a positive whole number";
    optional_count(json, key)?.ok_or(ModelError::MissingKey { place: PLACE, key, expected })
}

pub(super) fn optional_count(json: &Value, key: &'static str) -> Result<Option<usize>, ModelError> {
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
        json["rope_parameters"] = json!({"rope_type": "dynamic", "factor": 2.0});
        assert_eq!(Config::from_json(&json).unwrap().rope_scaling, RopeScaling::Dynamic { factor: 2.0 });
        json["rope_parameters"] = json!({"rope_type": "longrope"});
        assert!(Config::from_json(&json).unwrap_err().to_string().contains("longrope"));
    }

    #[test]
    fn a_mistral_slides_unless_it_says_that_it_does_not() {
        let mut json = smollm();
        assert_eq!(Config::from_json(&json).unwrap().sliding_window, None);
        json["model_type"] = json!("mistral");
        assert_eq!(Config::from_json(&json).unwrap().sliding_window, Some(4096));
        for (written, window) in [(json!(128), Some(128)), (Value::Null, None)] {
            json["sliding_window"] = written;
            let config = Config::from_json(&json).unwrap();
            assert_eq!(config.sliding_window, window);
            assert_eq!(Config::from_json(&config.to_json()).unwrap(), config);
        }
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
        assert!(change("intermediate_size", json!(LARGEST)).contains("counted"));
        // Heads times their width exceed 64 bits; so do the values of the embedding.
        let mut json = smollm();
        json["num_attention_heads"] = json!(LARGEST);
        json["num_key_value_heads"] = json!(1);
        json["head_dim"] = json!(LARGEST - 1);
        assert!(Config::from_json(&json).unwrap_err().to_string().contains("counted"));
        let mut json = smollm();
        json["vocab_size"] = json!(LARGEST);
        json["hidden_size"] = json!(9 << 21);
        json["num_hidden_layers"] = json!(1);
        assert!(Config::from_json(&json).unwrap_err().to_string().contains("counted"));
        assert!(change("rope_scaling", json!({"type": "linear", "factor": 0.0})).contains("positive"));
        let bounds = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 4.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192});
        assert!(change("rope_scaling", bounds).contains("positive"));
        assert!(change("hidden_size", Value::Null).contains("\"hidden_size\" is missing"));
        assert!(change("hidden_size", json!(-3)).contains("positive whole number"));
        assert!(change("num_key_value_heads", json!(2)).contains("must divide"));
        assert!(change("model_type", json!("bloom")).contains("llama, mistral, qwen2"));
    }
}
