//! Writing a decoder as GGUF: llama.cpp's names, metadata and row order.

use lowrank_blocks::narrow;
use lowrank_store::gguf::{Entry, Value, encode, halves_to_pairs, llama_cpp_name};
use lowrank_store::{Dtype, Format, StoreError};

use super::Decoder;
use super::config::{Config, RopeScaling};
use crate::ModelError;

impl Config {
    /// The metadata that llama.cpp and [`Config::from_gguf`] read.
    ///
    /// # Errors
    /// [`ModelError::BadKey`] for a rotary scaling that this writer does not express.
    pub fn to_gguf(&self, name: &str) -> Result<Vec<(String, Value)>, ModelError> {
        let architecture = self.llama_cpp_base().architecture;
        let text = |text: &str| Value::String(text.to_owned());
        let count = |count: usize| Value::U32(count as u32);
        let key = |part: &str| format!("{architecture}.{part}");
        let mut values = vec![
            ("general.architecture".to_owned(), text(&architecture)),
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
        let base = self.config.llama_cpp_base();
        let mut values = self.config.to_gguf(name)?;
        values.extend(tokenizer);
        let mut tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = Vec::new();
        for weight in self.named_weights() {
            let Some(stored) = llama_cpp_name(&weight.name) else {
                return Err(ModelError::MissingTensor(weight.name));
            };
            let rows = weight.shape[0];
            let mut numbers = weight.values.to_f32();
            if let Some(heads) = base.reordered_heads(&weight.name) {
                numbers = halves_to_pairs(&numbers, numbers.len() / rows, rows / heads);
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

#[cfg(test)]
mod tests {
    use lowrank_record::Seed;
    use lowrank_store::GgufFile;
    use lowrank_tensor::ops::Layout;
    use lowrank_tensor::{cpu, to_rows};

    use super::*;
    use crate::decoder::load::{Weights, Widen};
    use lowrank_tensor::Matrix;

    /// Every weight, gain and bias drawn: none may be lost or mistaken for another.
    struct Drawn;

    impl Weights for Drawn {
        fn matrix(&mut self, name: &str, [out, inp]: [usize; 2]) -> Result<Matrix, ModelError> {
            Ok(Matrix::from_f32(Seed(4).at("weight", name).uniform(out * inp, 0.3), [out, inp]).unwrap())
        }

        fn vector(&mut self, name: &str, width: usize) -> Result<Matrix, ModelError> {
            Ok(Matrix::from_f32(Seed(4).at("vector", name).uniform(width, 0.5), [1, width]).unwrap())
        }

        fn finish(&mut self) -> Result<(), ModelError> {
            Ok(())
        }
    }

    #[test]
    fn a_written_model_reads_back_with_the_same_logits() {
        for (model_type, tied) in [("llama", true), ("qwen2", false)] {
            let config = Config::from_json(&serde_json::json!({
                "model_type": model_type, "vocab_size": 40, "hidden_size": 32, "intermediate_size": 64,
                "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": (2.0_f64.powi(-15)),
                "max_position_embeddings": 64, "tie_word_embeddings": tied,
                "rope_scaling": {"rope_type": "linear", "factor": 2.0},
            }));
            let model = Decoder::build(config.unwrap(), &mut Drawn, Widen::Once, &cpu()).unwrap();
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
