//! The configuration of BERT and RoBERTa, from a Hugging Face `config.json`.

use serde_json::Value;

use crate::ModelError;
use crate::activation::Activation;
use crate::keys::{Keys, bad};

/// Architectures of `config.json` that share this encoder.
pub const MODEL_TYPES: &[&str] = &["bert", "roberta"];

/// Whose names and positions an encoder has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub enum Family {
    /// Devlin et al., "BERT", 2019; MiniLM (Wang et al., 2020) is one.
    Bert,
    /// Liu et al., "RoBERTa", 2019: positions count from behind the padding's.
    Roberta,
}

/// Shape and constants of an encoder.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Config {
    /// `bert` or `roberta`.
    pub family: Family,
    /// Rows of the word embedding.
    pub vocabulary: usize,
    /// Width of the hidden state.
    pub hidden: usize,
    /// Width inside the feed-forward part.
    pub intermediate: usize,
    /// Number of blocks.
    pub layers: usize,
    /// Heads of queries, keys and values.
    pub heads: usize,
    /// Rows of the position embedding.
    pub positions: usize,
    /// Rows of the segment (token type) embedding.
    pub segments: usize,
    /// ε of the norms.
    pub norm_epsilon: f64,
    /// Between the two feed-forward layers.
    pub activation: Activation,
    /// The padding token.
    pub padding: u32,
    /// Classes of the classification head; 1 is a regression.
    pub labels: usize,
    /// Whether the masked-language head is the word embedding.
    pub tied: bool,
}

impl Config {
    /// Reads `config.json`.
    ///
    /// # Errors
    /// [`ModelError`] naming the key that is absent or cannot be used.
    pub fn from_json(json: &Value) -> Result<Config, ModelError> {
        let keys = Keys(json);
        let family = match keys.model_type(MODEL_TYPES)? {
            "bert" => Family::Bert,
            _ => Family::Roberta,
        };
        for key in ["is_decoder", "add_cross_attention"] {
            if keys.flag(key, false)? {
                return Err(bad(key, true, "an encoder sees its whole input, and no other network's states"));
            }
        }
        let positions = keys.text("position_embedding_type")?.unwrap_or("absolute");
        if positions != "absolute" {
            return Err(bad("position_embedding_type", positions, "only \"absolute\" is supported"));
        }
        let labels = keys.labels()?;
        match keys.text("problem_type")? {
            None | Some("single_label_classification") => {}
            Some("regression") if labels == 1 => {}
            Some(other) => {
                let hint = "supported are single_label_classification, and regression with one label";
                return Err(bad("problem_type", other, hint));
            }
        }
        let (hidden, heads) = (keys.count("hidden_size")?, keys.count("num_attention_heads")?);
        keys.head_dim(hidden, heads)?;
        let config = Config {
            family,
            vocabulary: keys.count("vocab_size")?,
            hidden,
            intermediate: keys.count("intermediate_size")?,
            layers: keys.count("num_hidden_layers")?,
            heads,
            positions: keys.count("max_position_embeddings")?,
            segments: keys.count("type_vocab_size")?,
            norm_epsilon: keys.epsilon("layer_norm_eps", 1e-12)?,
            activation: Activation::of("hidden_act", keys.text("hidden_act")?.unwrap_or("gelu"))?,
            padding: keys.id("pad_token_id", u32::from(family == Family::Roberta))?,
            labels,
            tied: keys.flag("tie_word_embeddings", true)?,
        };
        if config.padding as usize >= config.vocabulary {
            return Err(bad("pad_token_id", config.padding, "it must lie inside the vocabulary"));
        }
        if config.context() == 0 {
            let hint = "no position is left behind the padding's";
            return Err(bad("max_position_embeddings", config.positions, hint));
        }
        Ok(config)
    }

    /// Longest sequence: RoBERTa's positions begin behind the padding token's.
    #[must_use]
    pub fn context(&self) -> usize {
        self.positions.saturating_sub(self.first_position() as usize)
    }

    /// Position of the first token.
    pub(super) fn first_position(&self) -> u32 {
        match self.family {
            Family::Bert => 0,
            Family::Roberta => self.padding.saturating_add(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn bert() -> Value {
        json!({"model_type": "bert", "vocab_size": 20, "hidden_size": 16, "num_hidden_layers": 2,
            "num_attention_heads": 2, "intermediate_size": 24, "max_position_embeddings": 12, "type_vocab_size": 2})
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        for (key, value, named) in [
            ("hidden_act", json!("silu"), "hidden_act"),
            ("position_embedding_type", json!("relative_key"), "position_embedding_type"),
            ("is_decoder", json!(true), "is_decoder"),
            ("add_cross_attention", json!(true), "add_cross_attention"),
            ("problem_type", json!("multi_label_classification"), "problem_type"),
            ("num_attention_heads", json!(3), "hidden_size"),
            ("pad_token_id", json!(20), "pad_token_id"),
            ("model_type", json!("electra"), "bert, roberta"),
        ] {
            let mut json = bert();
            json[key] = value;
            let message = Config::from_json(&json).unwrap_err().to_string();
            assert!(message.contains(named), "{key}: {message}");
        }
    }

    #[test]
    fn roberta_has_fewer_positions_than_rows() {
        let mut json = bert();
        assert_eq!(Config::from_json(&json).unwrap().context(), 12);
        json["model_type"] = json!("roberta");
        assert_eq!(Config::from_json(&json).unwrap().context(), 10);
        json["max_position_embeddings"] = json!(2);
        assert!(Config::from_json(&json).unwrap_err().to_string().contains("no position"));
    }
}
