//! The configuration of T5, from a Hugging Face `config.json`.

use serde_json::Value;

use crate::ModelError;
use crate::activation::Activation;
use crate::keys::{Keys, bad};

/// Architectures of `config.json` that share this network: T5, T5 1.1 and Flan-T5.
pub const MODEL_TYPES: &[&str] = &["t5"];

/// Shape and constants of an encoder–decoder.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Config {
    /// Rows of the embedding.
    pub vocabulary: usize,
    /// Width of the hidden state.
    pub hidden: usize,
    /// Width of one head; all heads together may be wider than the hidden state.
    pub head_dim: usize,
    /// Width inside the feed-forward part.
    pub intermediate: usize,
    /// Blocks of the encoder.
    pub encoder_layers: usize,
    /// Blocks of the decoder.
    pub decoder_layers: usize,
    /// Heads of queries, keys and values.
    pub heads: usize,
    /// Buckets of the relative positions.
    pub buckets: usize,
    /// Distance from which all positions share a bucket.
    pub max_distance: usize,
    /// ε of the norms.
    pub norm_epsilon: f64,
    /// Between the feed-forward layers.
    pub activation: Activation,
    /// Whether what is activated is a gate of a second layer.
    pub gated: bool,
    /// Whether the embedding is the head: where false, the file holds one.
    pub tied: bool,
    /// Whether the last hidden state is divided by √hidden: original T5 does it, and T5 1.1 does not.
    pub scaled: bool,
    /// The token that a decoder begins with.
    pub start: u32,
    /// The token that ends a sequence.
    pub end: u32,
}

impl Config {
    /// Reads `config.json`.
    ///
    /// # Errors
    /// [`ModelError`] naming the key that is absent or cannot be used.
    pub fn from_json(json: &Value) -> Result<Config, ModelError> {
        let keys = Keys(json);
        keys.model_type(MODEL_TYPES)?;
        if !keys.flag("is_encoder_decoder", true)? {
            return Err(bad("is_encoder_decoder", false, "one stack alone is not supported"));
        }
        let (gated, activation) = match keys.text("feed_forward_proj")?.unwrap_or("relu") {
            "relu" => (false, Activation::Relu),
            "gelu" => (false, Activation::Gelu),
            "gated-relu" => (true, Activation::Relu),
            // transformers takes the tanh form for this name.
            "gated-gelu" => (true, Activation::GeluTanh),
            other => {
                let hint = "supported are relu, gelu, gated-relu and gated-gelu";
                return Err(bad("feed_forward_proj", other, hint));
            }
        };
        let tied = keys.flag("tie_word_embeddings", true)?;
        let padding = keys.id("pad_token_id", 0)?;
        let encoder_layers = keys.count("num_layers")?;
        let config = Config {
            vocabulary: keys.count("vocab_size")?,
            hidden: keys.count("d_model")?,
            head_dim: keys.count("d_kv")?,
            intermediate: keys.count("d_ff")?,
            encoder_layers,
            decoder_layers: keys.optional_count("num_decoder_layers")?.unwrap_or(encoder_layers),
            heads: keys.count("num_heads")?,
            buckets: keys.optional_count("relative_attention_num_buckets")?.unwrap_or(32),
            max_distance: keys.optional_count("relative_attention_max_distance")?.unwrap_or(128),
            norm_epsilon: keys.epsilon("layer_norm_epsilon", 1e-6)?,
            activation,
            gated,
            tied,
            // Newer files say it; in older ones the key of the tied head stands for both.
            scaled: keys.flag("scale_decoder_outputs", tied)?,
            start: keys.id("decoder_start_token_id", padding)?,
            end: keys.id("eos_token_id", 1)?,
        };
        if config.start as usize >= config.vocabulary {
            return Err(bad("decoder_start_token_id", config.start, "it must lie inside the vocabulary"));
        }
        // Half of the buckets lie on either side, and half of those hold one distance each.
        if config.buckets < 4 || !config.buckets.is_multiple_of(4) {
            return Err(bad("relative_attention_num_buckets", config.buckets, "it must be a multiple of 4"));
        }
        if config.max_distance <= config.buckets / 2 {
            let hint = "it must exceed half of relative_attention_num_buckets";
            return Err(bad("relative_attention_max_distance", config.max_distance, hint));
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn t5() -> Value {
        json!({"model_type": "t5", "vocab_size": 20, "d_model": 16, "d_kv": 6, "d_ff": 24, "num_layers": 2, "num_heads": 3})
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        assert!(Config::from_json(&t5()).unwrap().scaled);
        for (key, value, named) in [
            ("feed_forward_proj", json!("gated-silu"), "feed_forward_proj"),
            ("is_encoder_decoder", json!(false), "is_encoder_decoder"),
            ("relative_attention_num_buckets", json!(6), "multiple of 4"),
            ("relative_attention_max_distance", json!(16), "exceed half"),
            ("pad_token_id", json!(20), "decoder_start_token_id"),
            ("d_kv", Value::Null, "d_kv"),
            ("model_type", json!("umt5"), "umt5"),
        ] {
            let mut json = t5();
            json[key] = value;
            let message = Config::from_json(&json).unwrap_err().to_string();
            assert!(message.contains(named), "{key}: {message}");
        }
    }

    #[test]
    fn the_head_is_scaled_where_it_is_tied_unless_the_file_says_otherwise() {
        let mut json = t5();
        json["tie_word_embeddings"] = json!(false);
        let config = Config::from_json(&json).unwrap();
        assert!(!config.tied && !config.scaled);
        json["tie_word_embeddings"] = json!(true);
        json["scale_decoder_outputs"] = json!(false);
        let config = Config::from_json(&json).unwrap();
        assert!(config.tied && !config.scaled);
    }
}
