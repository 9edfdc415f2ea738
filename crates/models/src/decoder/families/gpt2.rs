//! GPT-2: LayerNorm, learned positions, one projection for queries, keys and values, GELU by tanh.
//!
//! The weights inside the blocks are stored `[in, out]` (`Conv1D` of transformers), and the checkpoints of OpenAI's models
//! leave `transformer.` out; layers go by the names that transformers and PEFT use, with it.

use serde_json::{Value, json};

use super::super::config::{
    Config, FeedForward, PLACE, Residual, count, flag, in_terms, number, optional_count, refuse,
    refuse_unless,
};
use super::super::family::{Family, Order, ProjectionNames, Table};
use super::super::rope_scaling::RopeScaling;
use super::head_width;
use crate::ModelError;

pub(in super::super) const TABLE: Table = Table {
    embedding: "transformer.wte",
    positions: Some("transformer.wpe"),
    blocks: "transformer.h",
    projection: ProjectionNames::Fused("attn.c_attn", Order::Blocks),
    output: "attn.c_proj",
    gate: None,
    up: "mlp.c_fc",
    down: "mlp.c_proj",
    input_norm: "ln_1",
    mlp_norm: Some("ln_2"),
    norm: "transformer.ln_f",
    head: "lm_head",
    layer_norm: true,
    conv1d: true,
    optional_prefix: Some("transformer."),
    buffers: &[".attn.bias", ".attn.masked_bias"],
};

/// Keys of the Llama family, which [`Config::check`] names, and what GPT-2 calls them.
const KEYS: [(&str, &str); 7] = [
    ("hidden_size", "n_embd"),
    ("intermediate_size", "n_inner"),
    ("num_hidden_layers", "n_layer"),
    ("num_attention_heads", "n_head"),
    ("num_key_value_heads", "n_head"),
    ("max_position_embeddings", "n_positions"),
    ("rms_norm_eps", "layer_norm_epsilon"),
];

pub(in super::super) fn read(json: &Value) -> Result<Config, ModelError> {
    refuse(json, "scale_attn_by_inverse_layer_idx", "scores that are divided by the layer's number")?;
    refuse(json, "reorder_and_upcast_attn", "attention in another order of operations")?;
    refuse(json, "add_cross_attention", "attention to an encoder")?;
    refuse_unless(json, "scale_attn_weights", "scores that are not divided by √(head width)")?;
    let (hidden, heads) = (count(json, "n_embd")?, count(json, "n_head")?);
    let config = Config {
        model_type: "gpt2".to_owned(),
        family: Family::Gpt2,
        vocabulary: count(json, "vocab_size")?,
        hidden,
        intermediate: optional_count(json, "n_inner")?.unwrap_or(4 * hidden),
        layers: count(json, "n_layer")?,
        heads,
        kv_heads: heads,
        head_dim: head_width("n_embd", hidden, heads, "n_head")?,
        norm_epsilon: number(json, "layer_norm_epsilon")?.unwrap_or(1e-5),
        rotary_dim: 0,
        rope_theta: 10_000.0,
        rope_scaling: RopeScaling::None,
        context: count(json, "n_positions")?,
        tied: flag(json, "tie_word_embeddings", true)?,
        qkv_bias: true,
        output_bias: true,
        mlp_bias: true,
        head_bias: false,
        activation: FeedForward::of(json, "activation_function", "gelu_new")?,
        residual: Residual::Sequential,
        sliding_window: None,
    };
    config.check().map_err(|error| in_terms(error, PLACE, &KEYS))
}

pub(in super::super) fn write(config: &Config) -> Value {
    json!({
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": config.vocabulary,
        "n_embd": config.hidden,
        "n_inner": config.intermediate,
        "n_layer": config.layers,
        "n_head": config.heads,
        "n_positions": config.context,
        "activation_function": config.activation.name(),
        "layer_norm_epsilon": config.norm_epsilon,
        "tie_word_embeddings": config.tied,
        "torch_dtype": "float32",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> Value {
        json!({"model_type": "gpt2", "vocab_size": 50257, "n_embd": 768, "n_layer": 12, "n_head": 12,
            "n_positions": 1024})
    }

    #[test]
    fn counts_the_parameters_of_gpt2() {
        let config = Config::from_json(&small()).unwrap();
        assert_eq!(config.parameters(), 124_439_808);
        assert_eq!((config.intermediate, config.tied), (3072, true));
        assert_eq!(Config::from_json(&config.to_json()).unwrap(), config);
    }

    #[test]
    fn names_what_is_missing_or_not_supported() {
        for (key, value, words) in [
            ("scale_attn_by_inverse_layer_idx", json!(true), "scale_attn_by_inverse_layer_idx"),
            ("reorder_and_upcast_attn", json!(true), "reorder_and_upcast_attn"),
            ("add_cross_attention", json!(true), "add_cross_attention"),
            ("scale_attn_weights", json!(false), "scale_attn_weights"),
            ("activation_function", json!("relu"), "relu"),
            ("n_head", json!(7), "\"n_embd\" is 768"),
            ("n_embd", Value::Null, "\"n_embd\" is missing"),
            ("layer_norm_epsilon", json!(-1.0), "\"layer_norm_epsilon\" is -1"),
        ] {
            let mut json = small();
            json[key] = value;
            let message = Config::from_json(&json).unwrap_err().to_string();
            assert!(message.contains(words), "{key}: {message}");
        }
    }
}
