//! The Llama family in GGUF: its names, its metadata, and its permuted query and key rows.
//!
//! The rows of each query and key head of Llama and Mistral models are put back into Hugging Face's order. Rows are whole runs of bytes in every format, so
//! quantised weights are reordered without being decoded.

use std::collections::BTreeSet;
use std::sync::Arc;

use lowrank_store::gguf::{LlamaCppBase, llama_cpp_name, pairs_to_halves};
use lowrank_store::{GgufFile, TensorSource};
use lowrank_tensor::{Device, Matrix};

use super::Decoder;
use super::config::{Config, RopeScaling};
use super::load::{Weights, Widen, mapped, refuse_extra, stored_format};
use crate::ModelError;

impl Config {
    /// Reads the metadata of a GGUF file.
    ///
    /// # Errors
    /// [`ModelError`] naming the key that is absent or cannot be used.
    pub fn from_gguf(file: &GgufFile) -> Result<Config, ModelError> {
        let architecture = file.str("general.architecture")?.to_owned();
        if !["llama", "qwen2"].contains(&architecture.as_str()) {
            return Err(ModelError::Architecture {
                found: architecture,
                known: "llama, qwen2 (GGUF)".to_owned(),
            });
        }
        let key = |part: &str| format!("{architecture}.{part}");
        let count = |part: &str| file.u32(&key(part)).map(|value| value as usize);
        // Only a value that is absent has a default; one of another kind is an error.
        let has = |part: &str| file.value(&key(part)).is_some();
        let optional = |part: &str| has(part).then(|| count(part)).transpose();
        let real = |part: &str| has(part).then(|| file.f32(&key(part)).map(f64::from)).transpose();
        let (hidden, heads) = (count("embedding_length")?, count("attention.head_count")?.max(1));
        let head_dim = optional("attention.key_length")?.unwrap_or(hidden / heads);
        if let Some(rotated) = optional("rope.dimension_count")?
            && rotated != head_dim
        {
            return Err(ModelError::BadKey {
                key: "rope.dimension_count",
                found: rotated.to_string(),
                hint: format!("rotation of a part of a head of width {head_dim} is not supported"),
            });
        }
        let embedding = file.info("token_embd.weight")?;
        let context = count("context_length")?;
        let scaling = has("rope.scaling.type").then(|| file.str(&key("rope.scaling.type"))).transpose()?;
        let rope_scaling = match scaling.unwrap_or("none") {
            "none" => RopeScaling::None,
            "linear" => RopeScaling::Linear { factor: real("rope.scaling.factor")?.unwrap_or(1.0) },
            other => {
                return Err(ModelError::BadKey {
                    key: "rope.scaling.type",
                    found: other.to_owned(),
                    hint: "GGUF models with no or linear rotary scaling are supported".to_owned(),
                });
            }
        };
        if file.contains("rope_freqs.weight") {
            return Err(ModelError::BadKey {
                key: "rope_freqs.weight",
                found: "present".to_owned(),
                hint: "GGUF models with per-frequency rotary factors (Llama 3.1) are not supported; use the \
                       Hugging Face directory of the model"
                    .to_owned(),
            });
        }
        Config {
            model_type: architecture.clone(),
            vocabulary: embedding.shape[0],
            hidden,
            intermediate: count("feed_forward_length")?,
            layers: count("block_count")?,
            heads,
            kv_heads: optional("attention.head_count_kv")?.unwrap_or(heads),
            head_dim,
            norm_epsilon: f64::from(file.f32(&key("attention.layer_norm_rms_epsilon"))?),
            rope_theta: real("rope.freq_base")?.unwrap_or(10_000.0),
            rope_scaling,
            context,
            tied: !file.contains("output.weight"),
            qkv_bias: file.contains("blk.0.attn_q.bias"),
            output_bias: file.contains("blk.0.attn_output.bias"),
            mlp_bias: file.contains("blk.0.ffn_gate.bias"),
            sliding_window: None,
        }
        .check()
    }

    /// What decides how llama.cpp lays this model out; it runs Mistral as `llama`.
    #[must_use]
    pub fn llama_cpp_base(&self) -> LlamaCppBase {
        let architecture = if self.model_type == "qwen2" { "qwen2" } else { "llama" };
        LlamaCppBase { architecture: architecture.to_owned(), heads: self.heads, kv_heads: self.kv_heads }
    }
}

impl Decoder {
    /// A decoder from an open GGUF file.
    ///
    /// # Errors
    /// [`ModelError`] naming what is missing, extra or misshaped.
    pub fn from_gguf(file: GgufFile, widen: Widen, device: &Device) -> Result<Decoder, ModelError> {
        let config = Config::from_gguf(&file)?;
        let mut weights = GgufWeights::new(Arc::new(file), &config);
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
    #[must_use]
    pub fn new(file: Arc<dyn TensorSource>, config: &Config) -> GgufWeights {
        GgufWeights { file, base: config.llama_cpp_base(), asked: BTreeSet::new() }
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
        refuse_extra(&*self.file, &self.asked, |_| false)
    }
}
