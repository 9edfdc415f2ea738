//! The Llama family in GGUF: its names, its metadata, and its permuted query and key rows.
//!
//! The rows of each query and key head of Llama and Mistral models are put back into Hugging Face's order. Rows are whole
//! runs of bytes in every format, so quantised weights are reordered without being decoded.

use std::collections::BTreeSet;
use std::sync::Arc;

use lowrank_store::gguf::{LlamaCppBase, llama_cpp_name, pairs_to_halves};
use lowrank_store::{GgufFile, TensorSource};
use lowrank_tensor::{Device, Matrix};

use super::config::{self, Config, FeedForward, Residual, RopeScaling};
use super::family::Family;
use super::load::{Weights, Widen};
use super::rope_scaling::yarn_attention_factor;
use super::{Decoder, rope};
use crate::ModelError;
use crate::tensors::{mapped, refuse_extra, stored_format};

/// Divisors of the rotary frequencies, one for each pair of a head.
pub(super) const ROPE_FREQS: &str = "rope_freqs.weight";
/// What errors about keys name.
const PLACE: &str = "GGUF metadata";

/// Keys of `config.json`, which [`Config::check`] names, and what GGUF calls them behind the architecture.
const KEYS: [(&str, &str); 11] = [
    ("vocab_size", "token_embd.weight"),
    ("hidden_size", "embedding_length"),
    ("intermediate_size", "feed_forward_length"),
    ("num_hidden_layers", "block_count"),
    ("num_attention_heads", "attention.head_count"),
    ("num_key_value_heads", "attention.head_count_kv"),
    ("head_dim", "attention.key_length"),
    ("max_position_embeddings", "context_length"),
    ("rms_norm_eps", "attention.layer_norm_rms_epsilon"),
    ("rope_theta", "rope.freq_base"),
    ("rope_scaling", "rope.scaling"),
];

impl Config {
    /// Reads the metadata of a GGUF file, and its rotary factors, which are a tensor.
    ///
    /// # Errors
    /// [`ModelError`] naming the key that is absent or cannot be used.
    pub fn from_gguf(file: &GgufFile) -> Result<Config, ModelError> {
        let architecture = file.str("general.architecture")?;
        if !["llama", "qwen2"].contains(&architecture) {
            return Err(ModelError::Architecture {
                found: architecture.to_owned(),
                known: "llama, qwen2 (GGUF)".to_owned(),
            });
        }
        let metadata = Metadata { file, architecture };
        let (hidden, heads) = (metadata.count("embedding_length")?, metadata.count("attention.head_count")?);
        let head_dim = metadata.optional_count("attention.key_length")?.unwrap_or(hidden / heads.max(1));
        if let Some(rotated) = metadata.optional_count("rope.dimension_count")?
            && rotated != head_dim
        {
            let hint = format!("rotation of a part of a head of width {head_dim} is not supported");
            return Err(bad("rope.dimension_count", rotated, &hint));
        }
        let context = metadata.count("context_length")?;
        let sliding_window = metadata.sliding_window(context)?;
        let config = Config {
            // The two differ in the window alone, and `config.json` says one for Mistral only.
            model_type: if sliding_window.is_some() { "mistral" } else { architecture }.to_owned(),
            family: Family::Llama,
            vocabulary: file.info("token_embd.weight")?.shape.first().copied().unwrap_or(0),
            hidden,
            intermediate: metadata.count("feed_forward_length")?,
            layers: metadata.count("block_count")?,
            heads,
            kv_heads: metadata.optional_count("attention.head_count_kv")?.unwrap_or(heads),
            head_dim,
            norm_epsilon: f64::from(file.f32(&metadata.key("attention.layer_norm_rms_epsilon"))?),
            rotary_dim: head_dim,
            rope_theta: metadata.real("rope.freq_base")?.unwrap_or(10_000.0),
            rope_scaling: metadata.rope_scaling(context)?,
            context,
            tied: !file.contains("output.weight"),
            qkv_bias: file.contains("blk.0.attn_q.bias"),
            output_bias: file.contains("blk.0.attn_output.bias"),
            mlp_bias: file.contains("blk.0.ffn_gate.bias"),
            head_bias: false,
            activation: FeedForward::SwiGlu,
            residual: Residual::Sequential,
            sliding_window,
        };
        let mut config = config.check().map_err(|error| config::in_terms(error, PLACE, &KEYS))?;
        if let RopeScaling::Factors(factors) = &config.rope_scaling
            && let Some(named) = rope::llama3(&config, factors)
        {
            config.rope_scaling = named;
        }
        Ok(config)
    }

    /// What decides how llama.cpp lays this model out; it runs Mistral as `llama`.
    ///
    /// # Errors
    /// [`ModelError::BadKey`] outside the Llama family.
    pub fn llama_cpp_base(&self) -> Result<LlamaCppBase, ModelError> {
        if self.family != Family::Llama {
            let hint = "llama.cpp's layout is known here for the Llama family alone; stay with Hugging Face's and PEFT's";
            return Err(config::bad("model_type", &self.model_type, hint));
        }
        let architecture = if self.model_type == "qwen2" { "qwen2" } else { "llama" }.to_owned();
        Ok(LlamaCppBase { architecture, heads: self.heads, kv_heads: self.kv_heads })
    }
}

/// The metadata of a model: `llama.block_count` by its part behind the architecture.
struct Metadata<'a> {
    file: &'a GgufFile,
    architecture: &'a str,
}

/// Only a value that is absent has a default; one of another kind is an error.
impl Metadata<'_> {
    fn key(&self, part: &str) -> String {
        format!("{}.{part}", self.architecture)
    }

    fn has(&self, part: &str) -> bool {
        self.file.value(&self.key(part)).is_some()
    }

    fn count(&self, part: &str) -> Result<usize, ModelError> {
        Ok(self.file.u32(&self.key(part))? as usize)
    }

    fn optional_count(&self, part: &str) -> Result<Option<usize>, ModelError> {
        self.has(part).then(|| self.count(part)).transpose()
    }

    fn real(&self, part: &str) -> Result<Option<f64>, ModelError> {
        Ok(self.has(part).then(|| self.file.f32(&self.key(part)).map(f64::from)).transpose()?)
    }

    /// 0 is no window.
    fn sliding_window(&self, context: usize) -> Result<Option<usize>, ModelError> {
        let window = self.optional_count("attention.sliding_window")?.filter(|&window| window > 0);
        match window {
            Some(window) if self.architecture == "qwen2" && window < context => {
                Err(bad("attention.sliding_window", window, "Qwen2 with sliding layers is not supported"))
            }
            _ if self.architecture == "qwen2" => Ok(None),
            window => Ok(window),
        }
    }

    /// As llama.cpp composes it (`llama_model::load_hparams`, `rope_yarn`): a file without a type is linear, and YaRN's
    /// own factor on cosines and sines is multiplied by `attn_factor`.
    fn rope_scaling(&self, context: usize) -> Result<RopeScaling, ModelError> {
        for key in UNCLEAR {
            if self.has(key) {
                let hint = "llama.cpp's loader passes over this key for this architecture; remove it";
                return Err(bad(key, "present", hint));
            }
        }
        let kind = self.has("rope.scaling.type").then(|| self.file.str(&self.key("rope.scaling.type")));
        let kind = kind.transpose()?;
        // The second is the name that older files use.
        let factor = match self.real("rope.scaling.factor")? {
            None => self.real("rope.scale_linear")?,
            factor => factor,
        };
        let attention = self.real("rope.scaling.attn_factor")?.unwrap_or(1.0);
        if attention != 1.0 && kind != Some("yarn") {
            return Err(bad("rope.scaling.attn_factor", attention, "it is supported for YaRN only"));
        }
        let scaling = match (kind, factor) {
            (Some("none"), _) | (None, None) => RopeScaling::None,
            (Some("linear") | None, Some(factor)) => RopeScaling::Linear { factor },
            (Some("yarn"), Some(factor)) => RopeScaling::Yarn {
                factor,
                beta_fast: YARN_BETAS[0],
                beta_slow: YARN_BETAS[1],
                original: self.optional_count("rope.scaling.original_context_length")?.unwrap_or(context)
                    as f64,
                attention_factor: yarn_attention_factor(factor) * attention,
            },
            (Some("linear" | "yarn"), None) => {
                return Err(ModelError::MissingKey {
                    place: PLACE,
                    key: "rope.scaling.factor",
                    expected: "a number",
                });
            }
            (Some(other), _) => {
                return Err(bad("rope.scaling.type", other, "known types are none, linear and yarn"));
            }
        };
        if !self.file.contains(ROPE_FREQS) {
            return Ok(scaling);
        }
        if scaling != RopeScaling::None {
            let hint = format!("{ROPE_FREQS} and another scaling together are not supported");
            return Err(bad("rope.scaling", format!("{scaling:?}"), &hint));
        }
        Ok(RopeScaling::Factors(self.file.widened(ROPE_FREQS)?))
    }
}

/// Keys of other architectures, of which llama.cpp's versions make different things.
const UNCLEAR: [&str; 5] = [
    "rope.scaling.yarn_ext_factor",
    "rope.scaling.yarn_attn_factor",
    "rope.scaling.yarn_beta_fast",
    "rope.scaling.yarn_beta_slow",
    "rope.scaling.yarn_log_multiplier",
];

/// The fast and the slow bound with which llama.cpp runs YaRN in these architectures; no key of a file changes them.
pub(super) const YARN_BETAS: [f64; 2] = [32.0, 1.0];

fn bad(key: &'static str, found: impl std::fmt::Display, hint: &str) -> ModelError {
    ModelError::BadKey { place: PLACE, key, found: found.to_string(), hint: hint.to_owned() }
}

impl Decoder {
    /// A decoder from an open GGUF file.
    ///
    /// # Errors
    /// [`ModelError`] naming what is missing, extra or misshaped.
    pub fn from_gguf(file: GgufFile, widen: Widen, device: &Device) -> Result<Decoder, ModelError> {
        let config = Config::from_gguf(&file)?;
        let mut weights = GgufWeights::new(Arc::new(file), &config)?;
        Decoder::build(config, &mut weights, widen, device)
    }
}

/// Weights of a GGUF file by their Hugging Face names.
pub struct GgufWeights {
    file: Arc<dyn TensorSource>,
    base: LlamaCppBase,
    asked: BTreeSet<String>,
}

impl GgufWeights {
    /// Reads from an open file.
    ///
    /// # Errors
    /// As [`Config::llama_cpp_base`].
    pub fn new(file: Arc<dyn TensorSource>, config: &Config) -> Result<GgufWeights, ModelError> {
        Ok(GgufWeights { file, base: config.llama_cpp_base()?, asked: BTreeSet::new() })
    }

    fn fetch(&mut self, name: &str, shape: &[usize], [rows, cols]: [usize; 2]) -> Result<Matrix, ModelError> {
        let missing = || ModelError::MissingTensor(name.to_owned());
        let stored = llama_cpp_name(name).ok_or_else(missing)?;
        self.asked.insert(stored.clone());
        let Some(heads) = self.base.reordered_heads(name) else {
            return mapped(&self.file, &stored, shape, [rows, cols]);
        };
        let format = stored_format(&*self.file, &stored, shape)?;
        let (bytes, rows_stored) = (self.file.bytes(&stored)?, shape[0]);
        let bytes = pairs_to_halves(bytes, bytes.len() / rows_stored, rows_stored / heads);
        Matrix::from_bytes(Arc::new(bytes), format, [rows, cols])
            .map_err(|source| ModelError::Matrix { name: stored, source })
    }
}

impl Weights for GgufWeights {
    fn matrix(&mut self, name: &str, shape: [usize; 2]) -> Result<Matrix, ModelError> {
        self.fetch(name, &shape, shape)
    }

    fn vector(&mut self, name: &str, width: usize) -> Result<Matrix, ModelError> {
        self.fetch(name, &[width], [1, width])
    }

    fn finish(&mut self) -> Result<(), ModelError> {
        // The rotary factors went into the configuration.
        refuse_extra(&*self.file, &self.asked, |name| name == ROPE_FREQS)
    }
}
