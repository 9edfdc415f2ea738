//! Writing a decoder as GGUF: llama.cpp's names, metadata and row order.

use lowrank_blocks::narrow;
use lowrank_store::gguf::{Entry, Value, encode, halves_to_pairs, llama_cpp_name};
use lowrank_store::{Dtype, Format, StoreError};

use super::config::{Config, PLACE, RopeScaling};
use super::gguf::{ROPE_FREQS, YARN_BETAS};
use super::rope_scaling::yarn_attention_factor;
use super::{Decoder, rope};
use crate::ModelError;

impl Config {
    /// The metadata that llama.cpp and [`Config::from_gguf`] read. llama.cpp runs Mistral without its window: it reads
    /// the key, but for other architectures.
    ///
    /// # Errors
    /// [`ModelError::BadKey`] for a rotary scaling that this writer does not express, or outside the Llama family.
    pub fn to_gguf(&self, name: &str) -> Result<Vec<(String, Value)>, ModelError> {
        let architecture = self.llama_cpp_base()?.architecture;
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
        if let Some(window) = self.sliding_window {
            values.push((key("attention.sliding_window"), count(window)));
        }
        let real = |value: f64| Value::F32(value as f32);
        let mut scaled = |kind: &str, factor: f64| {
            values.push((key("rope.scaling.type"), text(kind)));
            values.push((key("rope.scaling.factor"), real(factor)));
        };
        match &self.rope_scaling {
            RopeScaling::None => {}
            // Their factors are a tensor, which llama.cpp knows in this architecture alone.
            RopeScaling::Llama3 { .. } | RopeScaling::Factors(_) if architecture == "llama" => {}
            RopeScaling::Linear { factor } => scaled("linear", *factor),
            RopeScaling::Yarn { factor, beta_fast, beta_slow, original, attention_factor }
                if [*beta_fast, *beta_slow] == YARN_BETAS =>
            {
                scaled("yarn", *factor);
                values.push((key("rope.scaling.original_context_length"), count(*original as usize)));
                let beyond = attention_factor / yarn_attention_factor(*factor);
                if beyond != 1.0 {
                    values.push((key("rope.scaling.attn_factor"), real(beyond)));
                }
            }
            other => {
                return Err(ModelError::BadKey {
                    place: PLACE,
                    key: "rope_scaling",
                    found: format!("{other:?}"),
                    hint: "GGUF has no keys for this; write a Hugging Face directory".to_owned(),
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
        let base = self.config.llama_cpp_base()?;
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
        if matches!(self.config.rope_scaling, RopeScaling::Llama3 { .. } | RopeScaling::Factors(_)) {
            let factors = rope::factors(&self.config);
            let bytes = factors.iter().flat_map(|factor| factor.to_le_bytes()).collect();
            tensors.push((ROPE_FREQS.to_owned(), Dtype::Real(Format::F32), vec![factors.len()], bytes));
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
    use lowrank_store::{GgufFile, TensorSource};
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

    fn drawn(model_type: &str, tied: bool, changes: &serde_json::Value) -> Decoder {
        let mut json = serde_json::json!({
            "model_type": model_type, "vocab_size": 40, "hidden_size": 32, "intermediate_size": 64,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": (2.0_f64.powi(-15)),
            "max_position_embeddings": 64, "tie_word_embeddings": tied,
        });
        for (key, change) in changes.as_object().unwrap() {
            json[key] = change.clone();
        }
        Decoder::build(Config::from_json(&json).unwrap(), &mut Drawn, Widen::Once, &cpu()).unwrap()
    }

    fn written(model: &Decoder) -> GgufFile {
        GgufFile::from_bytes(model.to_gguf("test", Format::F32, Vec::new()).unwrap()).unwrap()
    }

    #[test]
    fn a_written_model_reads_back_with_the_same_logits() {
        let scaled = |scaling: serde_json::Value| serde_json::json!({ "rope_scaling": scaling });
        let linear = scaled(serde_json::json!({"rope_type": "linear", "factor": 2.0}));
        let mut llama3 =
            scaled(serde_json::json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}));
        // So that the last frequency of so narrow a head is a low one, as in real models.
        llama3["rope_theta"] = 5e5.into();
        let yarn = scaled(serde_json::json!({"rope_type": "yarn", "factor": 4.0,
            "original_max_position_embeddings": 16}));
        let factors = scaled(RopeScaling::Factors(vec![1.0, 1.5, 2.0, 4.0]).to_json(64).unwrap());
        for (model_type, tied, changes) in [
            ("llama", true, &linear),
            ("qwen2", false, &linear),
            ("llama", false, &llama3),
            ("llama", true, &factors),
            ("qwen2", true, &yarn),
            ("mistral", false, &serde_json::json!({"sliding_window": 3})),
        ] {
            let model = drawn(model_type, tied, changes);
            let again = Decoder::from_gguf(written(&model), Widen::OnUse, &cpu()).unwrap();
            assert_eq!(again.config, model.config);
            let tokens = [3, 17, 2, 39, 8];
            let logits = |model: &Decoder| to_rows(model.logits(&tokens, &Layout::dense(1, 5)).unwrap());
            assert_eq!(logits(&model), logits(&again));
        }
    }

    #[test]
    fn query_rows_are_in_the_order_of_the_converter() {
        // NumPy's w.reshape(heads, 2, d/2, in).swapaxes(1, 2).reshape(w.shape), spelled out by coordinates.
        let model = drawn("llama", true, &serde_json::json!({}));
        let stored = written(&model).widened("blk.1.attn_q.weight").unwrap();
        let (heads, d, inp) = (4, 8, 32);
        let original = Seed(4).at("weight", "model.layers.1.self_attn.q_proj.weight").uniform(32 * inp, 0.3);
        for (head, half, i) in
            (0..heads).flat_map(|h| (0..2).flat_map(move |half| (0..d / 2).map(move |i| (h, half, i))))
        {
            let from = ((head * 2 + half) * (d / 2) + i) * inp;
            let to = ((head * (d / 2) + i) * 2 + half) * inp;
            assert_eq!(stored[to..to + inp], original[from..from + inp], "head {head}, half {half}, {i}");
        }
    }

    #[test]
    fn what_gguf_cannot_say_is_refused() {
        let dynamic = serde_json::json!({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}});
        let betas =
            serde_json::json!({"rope_scaling": {"rope_type": "yarn", "factor": 2.0, "beta_fast": 16.0}});
        for model in [drawn("llama", true, &dynamic), drawn("llama", true, &betas)] {
            let error = model.to_gguf("test", Format::F32, Vec::new()).unwrap_err().to_string();
            assert!(error.contains("rope_scaling"), "{error}");
        }
    }

    /// A tiny model's file with some metadata changed: `None` takes a key out.
    fn read(changes: &[(&str, Option<Value>)]) -> Result<Config, String> {
        let model = drawn("llama", true, &serde_json::json!({}));
        let mut values = model.config.to_gguf("test").unwrap();
        for (key, change) in changes {
            values.retain(|(known, _)| known != key);
            values.extend(change.clone().map(|value| ((*key).to_owned(), value)));
        }
        let file = written(&model);
        let entries: Vec<Entry<'_>> = file
            .names()
            .iter()
            .map(|name| {
                let info = file.info(name).unwrap();
                Entry { name, dtype: info.dtype, shape: &info.shape, bytes: file.bytes(name).unwrap() }
            })
            .collect();
        let file = GgufFile::from_bytes(encode(&values, &entries).unwrap()).unwrap();
        Config::from_gguf(&file).map_err(|error| error.to_string())
    }

    #[test]
    fn rotary_keys_are_read_as_llama_cpp_reads_them() {
        let text = |text: &str| Some(Value::String(text.to_owned()));
        let scaling = |changes: &[(&str, Option<Value>)]| read(changes).map(|config| config.rope_scaling);
        let linear = Ok(RopeScaling::Linear { factor: 4.0 });
        let four = || Some(Value::F32(4.0));
        assert_eq!(scaling(&[("llama.rope.scaling.factor", four())]), linear);
        assert_eq!(scaling(&[("llama.rope.scale_linear", four())]), linear);
        let none = [("llama.rope.scaling.type", text("none")), ("llama.rope.scaling.factor", four())];
        assert_eq!(scaling(&none), Ok(RopeScaling::None));
        let yarn = [
            ("llama.rope.scaling.type", text("yarn")),
            ("llama.rope.scaling.factor", four()),
            ("llama.rope.scaling.attn_factor", Some(Value::F32(0.5))),
        ];
        let Ok(RopeScaling::Yarn { original, attention_factor, .. }) = scaling(&yarn) else { panic!() };
        assert_eq!((original, attention_factor), (64.0, 0.5 * (1.0 + 0.1 * 4.0_f64.ln())));
        // What would be another function is refused by name.
        for (changes, word) in [
            (&[("llama.rope.scaling.type", text("linear"))][..], "rope.scaling.factor"),
            (&[("llama.rope.scaling.type", text("longrope"))], "longrope"),
            (&[("llama.rope.scaling.attn_factor", Some(Value::F32(0.5)))], "attn_factor"),
            (&[("llama.rope.scaling.yarn_beta_fast", Some(Value::F32(16.0)))], "yarn_beta_fast"),
        ] {
            let error = scaling(changes).unwrap_err();
            assert!(error.contains(word) && error.starts_with("GGUF metadata"), "{error}");
        }
    }

    #[test]
    fn sizes_that_a_file_only_claims_are_errors() {
        let huge = |key: &'static str, size: u32| [(key, Some(Value::U32(size)))];
        let error = read(&huge("llama.block_count", u32::MAX)).unwrap_err();
        assert!(error.contains("\"block_count\" is 4294967295"), "{error}");
        assert!(read(&huge("llama.attention.head_count", 0)).unwrap_err().contains("attention.head_count"));
        // As many blocks as a configuration may have, and none of them in the file.
        let many = Config { layers: 0x7fff_ffff, ..drawn("llama", true, &serde_json::json!({})).config };
        let file = written(&drawn("llama", true, &serde_json::json!({"num_hidden_layers": 1})));
        let mut weights = crate::decoder::gguf::GgufWeights::new(std::sync::Arc::new(file), &many).unwrap();
        let error = Decoder::build(many, &mut weights, Widen::OnUse, &cpu()).err().unwrap().to_string();
        assert!(error.contains("blk.1."), "{error}");
    }
}
