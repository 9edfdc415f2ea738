//! Phi-1, Phi-1.5 and Phi-2: LayerNorm, one norm for attention and feed-forward part beside each other, rotation of a part
//! of each head, biases everywhere, the head too.

use serde_json::{Value, json};

use super::super::config::{
    Config, FeedForward, PLACE, Residual, count, in_terms, number, optional_count, refuse,
};
use super::super::family::{Family, ProjectionNames, Table};
use super::super::rope_scaling::RopeScaling;
use super::{head_width, rotary_part, turned};
use crate::ModelError;

pub(in super::super) const TABLE: Table = Table {
    embedding: "model.embed_tokens",
    positions: None,
    blocks: "model.layers",
    projection: ProjectionNames::Separate(["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
    output: "self_attn.dense",
    gate: None,
    up: "mlp.fc1",
    down: "mlp.fc2",
    input_norm: "input_layernorm",
    mlp_norm: None,
    norm: "model.final_layernorm",
    head: "lm_head",
    layer_norm: true,
    conv1d: false,
    optional_prefix: None,
    buffers: &["rotary_emb.inv_freq"],
};

/// Keys of the Llama family, which [`Config::check`] names, and what Phi calls them.
const KEYS: [(&str, &str); 1] = [("rms_norm_eps", "layer_norm_eps")];

pub(in super::super) fn read(json: &Value) -> Result<Config, ModelError> {
    refuse(json, "qk_layernorm", "norms of queries and keys")?;
    refuse(json, "tie_word_embeddings", "a head with a bias on the embedding's weight")?;
    let (hidden, heads) = (count(json, "hidden_size")?, count(json, "num_attention_heads")?);
    let head_dim = match optional_count(json, "head_dim")? {
        Some(width) => width,
        None => head_width("hidden_size", hidden, heads, "num_attention_heads")?,
    };
    let context = count(json, "max_position_embeddings")?;
    let (rope_theta, rope_scaling) = RopeScaling::from_json(json, "rope_theta", context)?;
    let config = Config {
        model_type: "phi".to_owned(),
        family: Family::Phi,
        vocabulary: count(json, "vocab_size")?,
        hidden,
        intermediate: count(json, "intermediate_size")?,
        layers: count(json, "num_hidden_layers")?,
        heads,
        kv_heads: optional_count(json, "num_key_value_heads")?.unwrap_or(heads),
        head_dim,
        norm_epsilon: number(json, "layer_norm_eps")?.unwrap_or(1e-5),
        rotary_dim: turned(json, "partial_rotary_factor", 0.5, head_dim)?,
        rope_theta,
        rope_scaling,
        context,
        tied: false,
        qkv_bias: true,
        output_bias: true,
        mlp_bias: true,
        head_bias: true,
        activation: FeedForward::of(json, "hidden_act", "gelu_new")?,
        residual: Residual::Shared,
        sliding_window: None,
    };
    config.check().map_err(|error| in_terms(error, PLACE, &KEYS))
}

pub(in super::super) fn write(config: &Config) -> Value {
    let mut json = json!({
        "architectures": ["PhiForCausalLM"],
        "model_type": "phi",
        "vocab_size": config.vocabulary,
        "hidden_size": config.hidden,
        "intermediate_size": config.intermediate,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "hidden_act": config.activation.name(),
        "layer_norm_eps": config.norm_epsilon,
        "partial_rotary_factor": rotary_part(config),
        "rope_theta": config.rope_theta,
        "max_position_embeddings": config.context,
        "tie_word_embeddings": false,
        "torch_dtype": "float32",
    });
    if config.head_dim * config.heads != config.hidden {
        json["head_dim"] = config.head_dim.into();
    }
    if let Some(scaling) = config.rope_scaling.to_json(config.context) {
        json["rope_scaling"] = scaling;
    }
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phi_2() -> Value {
        json!({"model_type": "phi", "vocab_size": 51200, "hidden_size": 2560, "intermediate_size": 10240,
            "num_hidden_layers": 32, "num_attention_heads": 32, "max_position_embeddings": 2048,
            "partial_rotary_factor": 0.4, "rope_scaling": null, "qk_layernorm": false, "tie_word_embeddings": false})
    }

    #[test]
    fn counts_the_parameters_of_phi_2() {
        let config = Config::from_json(&phi_2()).unwrap();
        assert_eq!(config.parameters(), 2_779_683_840);
        assert_eq!((config.head_dim, config.rotary_dim), (80, 32));
        assert_eq!(Config::from_json(&config.to_json()).unwrap(), config);
    }

    #[test]
    fn names_what_is_missing_or_not_supported() {
        for (key, value, words) in [
            ("qk_layernorm", json!(true), "qk_layernorm"),
            ("tie_word_embeddings", json!(true), "tie_word_embeddings"),
            ("hidden_act", json!("quick_gelu"), "quick_gelu"),
            ("partial_rotary_factor", json!("half"), "should be a number"),
            // 80 · 0.3375 = 27 values are no pairs.
            ("partial_rotary_factor", json!(0.3375), "pairs"),
            ("num_key_value_heads", json!(5), "must divide"),
        ] {
            let mut json = phi_2();
            json[key] = value;
            let message = Config::from_json(&json).unwrap_err().to_string();
            assert!(message.contains(words), "{key}: {message}");
        }
    }
}
