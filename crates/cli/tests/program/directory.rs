//! Tiny random models as Hugging Face directories, and images in an IDX file, as a test needs them.

use std::path::Path;

use lowrank_record::Seed;
use serde_json::{Value, json};

/// Writes `config.json` and `model.safetensors`: normal draws of variance 1/in for matrices, gains around 1, small biases.
pub fn write(path: &Path, config: &Value, tensors: &[(String, Vec<usize>)]) {
    std::fs::create_dir_all(path).unwrap();
    std::fs::write(path.join("config.json"), config.to_string()).unwrap();
    let (mut header, mut data) = (json!({}), Vec::new());
    for (name, shape) in tensors {
        let count: usize = shape.iter().product();
        let width: usize = shape[1..].iter().product();
        let (mean, deviation) = match shape.len() {
            1 if name.ends_with("bias") => (0.0, 0.1),
            1 => (1.0, 0.1),
            _ => (0.0, (1.0 / width as f32).sqrt()),
        };
        let begin = data.len();
        for draw in Seed(11).at("directory", name).normal(count) {
            data.extend((mean + deviation * draw).to_le_bytes());
        }
        header[name] = json!({"dtype": "F32", "shape": shape, "data_offsets": [begin, data.len()]});
    }
    let header = header.to_string().into_bytes();
    let file = [&(header.len() as u64).to_le_bytes()[..], &header, &data].concat();
    std::fs::write(path.join("model.safetensors"), file).unwrap();
}

/// A ViT of two blocks on images of 8 x 8 in grey or colour, with the names that its files have; `labels` are those of its
/// head, none for a base alone.
pub fn vit(path: &Path, labels: &[&str]) {
    let (hidden, inner) = (16, 24);
    let prefix = if labels.is_empty() { "" } else { "vit." };
    let class = if labels.is_empty() { "ViTModel" } else { "ViTForImageClassification" };
    let named: serde_json::Map<String, Value> =
        labels.iter().enumerate().map(|(index, &label)| (index.to_string(), json!(label))).collect();
    let mut config = json!({
        "architectures": [class], "model_type": "vit", "hidden_size": hidden, "num_hidden_layers": 2,
        "num_attention_heads": 2, "intermediate_size": inner, "image_size": 8, "patch_size": 4, "num_channels": 3,
        "hidden_act": "gelu", "layer_norm_eps": 1e-12, "qkv_bias": true,
    });
    if !labels.is_empty() {
        config["id2label"] = Value::Object(named);
    }
    let mut tensors = vec![
        ("embeddings.cls_token".to_owned(), vec![1, 1, hidden]),
        ("embeddings.position_embeddings".to_owned(), vec![1, 5, hidden]),
        ("embeddings.patch_embeddings.projection.weight".to_owned(), vec![hidden, 3, 4, 4]),
        ("embeddings.patch_embeddings.projection.bias".to_owned(), vec![hidden]),
        ("layernorm.weight".to_owned(), vec![hidden]),
        ("layernorm.bias".to_owned(), vec![hidden]),
    ];
    for layer in 0..2 {
        for (name, out, inp) in [
            ("attention.attention.query", hidden, hidden),
            ("attention.attention.key", hidden, hidden),
            ("attention.attention.value", hidden, hidden),
            ("attention.output.dense", hidden, hidden),
            ("intermediate.dense", inner, hidden),
            ("output.dense", hidden, inner),
        ] {
            tensors.push((format!("encoder.layer.{layer}.{name}.weight"), vec![out, inp]));
            tensors.push((format!("encoder.layer.{layer}.{name}.bias"), vec![out]));
        }
        for norm in ["layernorm_before", "layernorm_after"] {
            tensors.push((format!("encoder.layer.{layer}.{norm}.weight"), vec![hidden]));
            tensors.push((format!("encoder.layer.{layer}.{norm}.bias"), vec![hidden]));
        }
    }
    for (name, _) in &mut tensors {
        *name = format!("{prefix}{name}");
    }
    if !labels.is_empty() {
        tensors.push(("classifier.weight".to_owned(), vec![labels.len(), hidden]));
        tensors.push(("classifier.bias".to_owned(), vec![labels.len()]));
    }
    write(path, &config, &tensors);
    let processor = json!({
        "image_processor_type": "ViTImageProcessor", "do_resize": true, "size": {"height": 8, "width": 8}, "resample": 2,
        "do_rescale": true, "rescale_factor": 1.0 / 255.0, "do_normalize": true, "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    });
    std::fs::write(path.join("preprocessor_config.json"), processor.to_string()).unwrap();
}

/// Images of 6 x 6 in `NAME-images-idx3-ubyte` and their labels beside them: bright in one corner of as many as there are
/// classes, with noise.
pub fn idx(folder: &Path, name: &str, images: usize, classes: usize) {
    let head = |shape: &[usize]| -> Vec<u8> {
        let sides = shape.iter().flat_map(|&side| (side as u32).to_be_bytes());
        [0, 0, 8, shape.len() as u8].into_iter().chain(sides).collect()
    };
    let (mut pixels, mut labels) = (head(&[images, 6, 6]), head(&[images]));
    for image in 0..images {
        let class = image % classes;
        labels.push(class as u8);
        let noise = Seed(5).at("idx", &image.to_string()).normal(36);
        for (place, draw) in noise.into_iter().enumerate() {
            let (row, column) = (place / 6, place % 6);
            let corner = usize::from(row >= 3) * 2 + usize::from(column >= 3);
            let bright = if corner == class { 170.0 } else { 60.0 };
            pixels.push((bright + 25.0 * draw).clamp(0.0, 255.0) as u8);
        }
    }
    std::fs::write(folder.join(format!("{name}-images-idx3-ubyte")), pixels).unwrap();
    std::fs::write(folder.join(format!("{name}-labels-idx1-ubyte")), labels).unwrap();
}

/// Words of the tokenizer of [`t5`].
pub const WORDS: [&str; 16] = [
    "what", "is", "plus", "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
    "?", "the", "sum",
];

/// A T5 of one block each, with a tokenizer of whole words that ends texts with `</s>`.
pub fn t5(path: &Path) {
    let (vocabulary, hidden, width, inner) = (24, 16, 12, 20);
    let config = json!({
        "architectures": ["T5ForConditionalGeneration"], "model_type": "t5", "vocab_size": vocabulary, "d_model": hidden,
        "d_kv": 6, "d_ff": inner, "num_layers": 1, "num_heads": 2, "relative_attention_num_buckets": 8,
        "relative_attention_max_distance": 12, "is_encoder_decoder": true, "feed_forward_proj": "relu",
        "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0, "tie_word_embeddings": true,
    });
    let mut tensors = vec![("shared.weight".to_owned(), vec![vocabulary, hidden])];
    for (side, attentions) in
        [("encoder", &["SelfAttention"][..]), ("decoder", &["SelfAttention", "EncDecAttention"])]
    {
        let at = |part: String| format!("{side}.block.0.layer.{part}");
        for (layer, attention) in attentions.iter().enumerate() {
            for part in ["q", "k", "v"] {
                tensors.push((at(format!("{layer}.{attention}.{part}.weight")), vec![width, hidden]));
            }
            tensors.push((at(format!("{layer}.{attention}.o.weight")), vec![hidden, width]));
            tensors.push((at(format!("{layer}.layer_norm.weight")), vec![hidden]));
        }
        tensors.push((at("0.SelfAttention.relative_attention_bias.weight".to_owned()), vec![8, 2]));
        let last = attentions.len();
        tensors.push((at(format!("{last}.DenseReluDense.wi.weight")), vec![inner, hidden]));
        tensors.push((at(format!("{last}.DenseReluDense.wo.weight")), vec![hidden, inner]));
        tensors.push((at(format!("{last}.layer_norm.weight")), vec![hidden]));
        tensors.push((format!("{side}.final_layer_norm.weight"), vec![hidden]));
    }
    write(path, &config, &tensors);
    let specials = ["<pad>", "</s>", "<unk>"];
    let vocabulary: serde_json::Map<String, Value> =
        specials.iter().chain(&WORDS).enumerate().map(|(id, &word)| (word.to_owned(), json!(id))).collect();
    let added: Vec<Value> = (0..)
        .zip(specials)
        .map(|(id, word): (usize, _)| {
            json!({"id": id, "content": word, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
                "special": true})
        })
        .collect();
    let end = json!({"SpecialToken": {"id": "</s>", "type_id": 0}});
    let text = |id: &str| json!({"Sequence": {"id": id, "type_id": 0}});
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": {"type": "TemplateProcessing", "single": [text("A"), end], "pair": [text("A"), end, text("B"), end],
            "special_tokens": {"</s>": {"id": "</s>", "ids": [1], "tokens": ["</s>"]}}},
        "decoder": null, "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"},
    });
    std::fs::write(path.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let special = json!({"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"});
    std::fs::write(path.join("tokenizer_config.json"), special.to_string()).unwrap();
}

/// Sums as questions and answers, in words of [`WORDS`].
pub fn sums() -> String {
    let numbers = &WORDS[3..13];
    let line = |(a, b): (usize, usize)| {
        let question = format!("what is {} plus {} ?", numbers[a], numbers[b]);
        json!({"question": question, "answer": format!("the sum is {}", numbers[a + b])}).to_string() + "\n"
    };
    (0..5).flat_map(|a| (0..5).map(move |b| (a, b))).map(line).collect()
}
