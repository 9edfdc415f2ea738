//! Writing a decoder as GGUF: llama.cpp's names, metadata and row order.

use lowrank_blocks::narrow;
use lowrank_store::gguf::{Entry, Value, encode};
use lowrank_store::{Dtype, Format, StoreError};

use super::Decoder;
use super::config::{Config, RopeScaling};
use super::gguf::gguf_name;
use crate::ModelError;

impl Config {
    /// The metadata that llama.cpp and [`Config::from_gguf`] read.
    ///
    /// # Errors
    /// [`ModelError::BadKey`] for a rotary scaling that this writer does not express.
    pub fn to_gguf(&self, name: &str) -> Result<Vec<(String, Value)>, ModelError> {
        let architecture = if self.model_type == "qwen2" { "qwen2" } else { "llama" };
        let text = |text: &str| Value::String(text.to_owned());
        let count = |count: usize| Value::U32(count as u32);
        let key = |part: &str| format!("{architecture}.{part}");
        let mut values = vec![
            ("general.architecture".to_owned(), text(architecture)),
            ("general.name".to_owned(), text(name)),
            (key("context_length"), count(self.context)),
            (key("embedding_length"), count(self.hidden)),
            (key("block_count"), count(self.layers)),
            (key("feed_forward_length"), count(self.intermediate)),
            (key("attention.head_count"), count(self.heads)),
            (key("attention.head_count_kv"), count(self.kv_heads)),
            (key("attention.key_length"), count(self.head_dim)),
            (key("attention.value_length"), count(self.head_dim)),
            (key("rope.dimension_count"), count(self.head_dim)),
            (key("attention.layer_norm_rms_epsilon"), Value::F32(self.norm_epsilon as f32)),
            (key("rope.freq_base"), Value::F32(self.rope_theta as f32)),
            (key("vocab_size"), count(self.vocabulary)),
        ];
        match self.rope_scaling {
            RopeScaling::None => {}
            RopeScaling::Linear { factor } => {
                values.push((key("rope.scaling.type"), text("linear")));
                values.push((key("rope.scaling.factor"), Value::F32(factor as f32)));
            }
            other => {
                return Err(ModelError::BadKey {
                    key: "rope_scaling",
                    found: format!("{other:?}"),
                    hint: "write a Hugging Face directory and let llama.cpp's own script convert it"
                        .to_owned(),
                });
            }
        }
        Ok(values)
    }
}

impl Decoder {
    /// The model as the bytes of a GGUF file: matrices in `format`, vectors in f32. `tokenizer` holds the
    /// `tokenizer.ggml.*` values.
    ///
    /// # Errors
    /// [`ModelError`] when the configuration cannot be written or a row does not fill whole blocks.
    pub fn to_gguf(
        &self,
        name: &str,
        format: Format,
        tokenizer: Vec<(String, Value)>,
    ) -> Result<Vec<u8>, ModelError> {
        let mut values = self.config.to_gguf(name)?;
        values.extend(tokenizer);
        let mut tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = Vec::new();
        for weight in self.named_weights() {
            let Some((stored, heads)) = gguf_name(&weight.name, &self.config) else {
                return Err(ModelError::MissingTensor(weight.name));
            };
            let rows = weight.shape[0];
            let mut numbers = weight.values.to_f32();
            if let Some(heads) = heads {
                numbers = permuted(&numbers, heads, rows);
            }
            let format = if weight.shape.len() == 1 { Format::F32 } else { format };
            if let Some(width) = weight.shape.get(1) {
                format.row_bytes(*width).map_err(|source| ModelError::Matrix {
                    name: weight.name.clone(),
                    source: source.into(),
                })?;
            }
            let bytes = narrow(format, &numbers)
                .map_err(|source| ModelError::Matrix { name: weight.name, source: source.into() })?;
            tensors.push((stored, Dtype::Real(format), weight.shape, bytes));
        }
        let entries: Vec<Entry<'_>> = tensors
            .iter()
            .map(|(name, dtype, shape, bytes)| Entry { name, dtype: *dtype, shape, bytes })
            .collect();
        encode(&values, &entries)
            .map_err(|cause| ModelError::Store(StoreError::Gguf { path: name.into(), cause }))
    }
}

/// Rows from Hugging Face's order (i, i + d/2) to llama.cpp's (2i, 2i + 1).
fn permuted(values: &[f32], heads: usize, rows: usize) -> Vec<f32> {
    let width = values.len() / rows.max(1);
    let head_dim = rows / heads.max(1);
    let half = head_dim / 2;
    let mut out = Vec::with_capacity(values.len());
    for row in 0..rows {
        let (head, within) = (row / head_dim, row % head_dim);
        let from = head * head_dim + within / 2 + (within % 2) * half;
        out.extend_from_slice(&values[from * width..(from + 1) * width]);
    }
    out
}

#[cfg(test)]
mod tests {
    use lowrank_record::Seed;
    use lowrank_store::GgufFile;
    use lowrank_tensor::ops::Layout;
    use lowrank_tensor::{cpu, to_rows};

    use super::*;
    use crate::decoder::load::Widen;

    #[test]
    fn a_written_model_reads_back_with_the_same_logits() {
        for (model_type, tied) in [("llama", true), ("qwen2", false)] {
            let config = Config::from_json(&serde_json::json!({
                "model_type": model_type, "vocab_size": 40, "hidden_size": 32, "intermediate_size": 64,
                "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": (2.0_f64.powi(-15)),
                "max_position_embeddings": 64, "tie_word_embeddings": tied,
                "rope_scaling": {"rope_type": "linear", "factor": 2.0},
            }));
            let model = Decoder::random(config.unwrap(), Seed(4), &cpu()).unwrap();
            let bytes = model.to_gguf("test", Format::F32, Vec::new()).unwrap();
            let file = GgufFile::from_bytes(bytes).unwrap();
            let again = Decoder::from_gguf(file, Widen::OnUse, &cpu()).unwrap();
            assert_eq!(again.config, Config { model_type: model_type.to_owned(), ..model.config.clone() });
            let tokens = [3, 17, 2, 39, 8];
            let logits = |model: &Decoder| to_rows(model.logits(&tokens, &Layout::dense(1, 5)).unwrap());
            assert_eq!(logits(&model), logits(&again));
        }
    }
}
