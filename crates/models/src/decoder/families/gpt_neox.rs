//! GPT-NeoX and Pythia: LayerNorm, a projection for queries, keys and values head by head, rotation of a part of each head,
//! attention and feed-forward part beside each other.

use serde_json::{Value, json};

use super::super::config::{Config, FeedForward, PLACE, Residual, count, flag, in_terms, number};
use super::super::family::{Family, Order, ProjectionNames, Table};
use super::super::rope_scaling::RopeScaling;
use super::{head_width, rotary_part, turned};
use crate::ModelError;

pub(in super::super) const TABLE: Table = Table {
    embedding: "gpt_neox.embed_in",
    positions: None,
    blocks: "gpt_neox.layers",
    projection: ProjectionNames::Fused("attention.query_key_value", Order::Heads),
    output: "attention.dense",
    gate: None,
    up: "mlp.dense_h_to_4h",
    down: "mlp.dense_4h_to_h",
    input_norm: "input_layernorm",
    mlp_norm: Some("post_attention_layernorm"),
    norm: "gpt_neox.final_layer_norm",
    head: "embed_out",
    layer_norm: true,
    conv1d: false,
    optional_prefix: None,
    buffers: &[".attention.bias", ".attention.masked_bias", "rotary_emb.inv_freq"],
};

/// Keys of the Llama family, which [`Config::check`] names, and what GPT-NeoX calls them.
pub(super) const KEYS: [(&str, &str); 2] =
    [("rms_norm_eps", "layer_norm_eps"), ("rope_theta", "rotary_emb_base")];

pub(in super::super) fn read(json: &Value) -> Result<Config, ModelError> {
    let (hidden, heads) = (count(json, "hidden_size")?, count(json, "num_attention_heads")?);
    let head_dim = head_width("hidden_size", hidden, heads, "num_attention_heads")?;
    let context = count(json, "max_position_embeddings")?;
    let (rope_theta, rope_scaling) = RopeScaling::from_json(json, "rotary_emb_base", context)?;
    let biased = flag(json, "attention_bias", true)?;
    let parallel = flag(json, "use_parallel_residual", true)?;
    let config = Config {
        model_type: "gpt_neox".to_owned(),
        family: Family::GptNeox,
        vocabulary: count(json, "vocab_size")?,
        hidden,
        intermediate: count(json, "intermediate_size")?,
        layers: count(json, "num_hidden_layers")?,
        heads,
        kv_heads: heads,
        head_dim,
        norm_epsilon: number(json, "layer_norm_eps")?.unwrap_or(1e-5),
        rotary_dim: turned(json, "rotary_pct", 0.25, head_dim)?,
        rope_theta,
        rope_scaling,
        context,
        tied: flag(json, "tie_word_embeddings", false)?,
        qkv_bias: biased,
        output_bias: biased,
        mlp_bias: true,
        head_bias: false,
        activation: FeedForward::of(json, "hidden_act", "gelu")?,
        residual: if parallel { Residual::Parallel } else { Residual::Sequential },
        sliding_window: None,
    };
    config.check().map_err(|error| in_terms(error, PLACE, &KEYS))
}

pub(in super::super) fn write(config: &Config) -> Value {
    let mut json = json!({
        "architectures": ["GPTNeoXForCausalLM"],
        "model_type": "gpt_neox",
        "vocab_size": config.vocabulary,
        "hidden_size": config.hidden,
        "intermediate_size": config.intermediate,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "hidden_act": config.activation.name(),
        "layer_norm_eps": config.norm_epsilon,
        "rotary_pct": rotary_part(config),
        "rotary_emb_base": config.rope_theta,
        "max_position_embeddings": config.context,
        "use_parallel_residual": config.residual == Residual::Parallel,
        "attention_bias": config.qkv_bias,
        "tie_word_embeddings": config.tied,
        "torch_dtype": "float32",
    });
    if let Some(scaling) = config.rope_scaling.to_json(config.context) {
        json["rope_scaling"] = scaling;
    }
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pythia() -> Value {
        json!({"model_type": "gpt_neox", "vocab_size": 50304, "hidden_size": 512, "intermediate_size": 2048,
            "num_hidden_layers": 6, "num_attention_heads": 8, "max_position_embeddings": 2048, "rotary_pct": 0.25,
            "rotary_emb_base": 10000, "use_parallel_residual": true})
    }

    #[test]
    fn counts_the_parameters_of_pythia_70m() {
        let config = Config::from_json(&pythia()).unwrap();
        assert_eq!(config.parameters(), 70_426_624);
        assert_eq!((config.rotary_dim, config.residual), (16, Residual::Parallel));
        assert_eq!(Config::from_json(&config.to_json()).unwrap(), config);
    }

    #[test]
    fn older_and_newer_keys_say_the_same() {
        let mut old = pythia();
        (old["rotary_pct"], old["rotary_emb_base"]) = (json!(0.5), json!(5000));
        let mut new = pythia();
        new["rope_parameters"] =
            json!({"rope_type": "default", "rope_theta": 5000.0, "partial_rotary_factor": 0.5});
        let (old, new) = (Config::from_json(&old).unwrap(), Config::from_json(&new).unwrap());
        assert_eq!(old, new);
        assert_eq!((old.rope_theta, old.rotary_dim), (5000.0, 32));
    }

    #[test]
    fn names_what_is_missing_or_not_supported() {
        for (key, value, words) in [
            ("hidden_act", json!("relu"), "relu"),
            ("rotary_pct", json!(0.05), "\"rotary_pct\" is 0.05"),
            ("rotary_pct", json!(1.5), "\"rotary_pct\" is 1.5"),
            ("rotary_emb_base", json!(0.0), "\"rotary_emb_base\" is 0"),
            ("rope_scaling", json!({"type": "su", "factor": 2.0}), "su"),
            ("num_attention_heads", json!(7), "\"hidden_size\" is 512"),
            ("use_parallel_residual", json!("yes"), "true or false"),
        ] {
            let mut json = pythia();
            json[key] = value;
            let message = Config::from_json(&json).unwrap_err().to_string();
            assert!(message.contains(words), "{key}: {message}");
        }
    }
}
