//! Llama, Mistral and Qwen2: RMSNorm, rotary grouped-query attention, SwiGLU.

use serde_json::{Value, json};

use super::super::config::{Config, FeedForward, Residual, bad, count, flag, number, optional_count};
use super::super::family::{Family, ProjectionNames, Table};
use super::super::rope_scaling::RopeScaling;
use crate::ModelError;

pub(in super::super) const TABLE: Table = Table {
    embedding: "model.embed_tokens",
    positions: None,
    blocks: "model.layers",
    projection: ProjectionNames::Separate(["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
    output: "self_attn.o_proj",
    gate: Some("mlp.gate_proj"),
    up: "mlp.up_proj",
    down: "mlp.down_proj",
    input_norm: "input_layernorm",
    mlp_norm: Some("post_attention_layernorm"),
    norm: "model.norm",
    head: "lm_head",
    layer_norm: false,
    conv1d: false,
    optional_prefix: None,
    buffers: &["rotary_emb.inv_freq"],
};

/// Mistral's window where `config.json` does not say: transformers' default. An explicit `null` is no window.
const MISTRAL_WINDOW: usize = 4096;

pub(in super::super) fn read(model_type: &str, json: &Value) -> Result<Config, ModelError> {
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
    let qwen2 = model_type == "qwen2";
    let context = count(json, "max_position_embeddings")?;
    let (rope_theta, rope_scaling) = RopeScaling::from_json(json, "rope_theta", context)?;
    let biased = flag(json, "attention_bias", false)?;
    if qwen2 && flag(json, "use_sliding_window", false)? {
        let hint = "Qwen2 with sliding layers is not supported; set it to false";
        return Err(bad("use_sliding_window", true, hint));
    }
    let sliding_window = match json.get("sliding_window") {
        None if model_type == "mistral" => Some(MISTRAL_WINDOW),
        _ if model_type == "mistral" => optional_count(json, "sliding_window")?,
        _ => None,
    };
    let config = Config {
        model_type: model_type.to_owned(),
        family: Family::Llama,
        vocabulary: count(json, "vocab_size")?,
        hidden,
        intermediate: count(json, "intermediate_size")?,
        layers: count(json, "num_hidden_layers")?,
        heads,
        kv_heads,
        head_dim,
        norm_epsilon: number(json, "rms_norm_eps")?.unwrap_or(1e-6),
        rotary_dim: head_dim,
        rope_theta,
        rope_scaling,
        context,
        tied: flag(json, "tie_word_embeddings", false)?,
        qkv_bias: qwen2 || biased,
        output_bias: !qwen2 && biased,
        mlp_bias: flag(json, "mlp_bias", false)?,
        head_bias: false,
        activation: FeedForward::SwiGlu,
        residual: Residual::Sequential,
        sliding_window,
    };
    config.check()
}

pub(in super::super) fn write(config: &Config) -> Value {
    let architecture = match config.model_type.as_str() {
        "mistral" => "MistralForCausalLM",
        "qwen2" => "Qwen2ForCausalLM",
        _ => "LlamaForCausalLM",
    };
    let mut json = json!({
        "architectures": [architecture],
        "model_type": config.model_type,
        "vocab_size": config.vocabulary,
        "hidden_size": config.hidden,
        "intermediate_size": config.intermediate,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": config.norm_epsilon,
        "rope_theta": config.rope_theta,
        "max_position_embeddings": config.context,
        "tie_word_embeddings": config.tied,
        "torch_dtype": "float32",
    });
    if config.model_type == "llama" {
        json["attention_bias"] = config.qkv_bias.into();
        json["mlp_bias"] = config.mlp_bias.into();
    }
    if config.model_type == "mistral" {
        json["sliding_window"] = config.sliding_window.into();
    }
    if let Some(scaling) = config.rope_scaling.to_json(config.context) {
        json["rope_scaling"] = scaling;
    }
    json
}
