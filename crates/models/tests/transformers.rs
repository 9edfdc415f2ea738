//! Our forward is transformers' forward. The models beside this file and their logits were made by `transformers/make.py`
//! with transformers 5.23.0 and torch 2.15 (CPU, f32, eager attention).
#![allow(clippy::unwrap_used)] // A failure here is a failure of the test.

use std::path::Path;
use std::sync::Arc;

use lowrank_models::{Config, Decoder, Widen};
use lowrank_store::{json, tensors};
use lowrank_tensor::{cpu, ops::Layout, to_rows};

/// The Llama family: heads for every query, for a few, for one; tied and own head; biases; a head size of its own; rotary
/// scaling `llama3`, `linear` and `yarn`; configurations of before and since transformers 5.
/// GPT-2: heads of odd width; its own names and masks; an own head. GPT-NeoX: both orders of the residual connections, a part of
/// each head turned, scaled, without biases, tied. Phi: heads of few keys, a part of a head of odd width.
const MODELS: [&str; 16] = [
    "llama-mha-untied",
    "llama-gqa-tied",
    "llama-bias",
    "qwen2-bias",
    "mistral",
    "llama3-rope",
    "linear-rope",
    "yarn-rope",
    "gpt2",
    "gpt2-bare",
    "gpt2-untied",
    "neox-parallel",
    "neox-sequential",
    "neox-scaled",
    "phi",
    "phi-partial",
];

#[test]
fn logits_equal_those_of_transformers() {
    for name in MODELS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transformers").join(name);
        let rows: Vec<Vec<u32>> =
            serde_json::from_value(json::read(&folder.join("tokens.json")).unwrap()).unwrap();
        let expected = tensors::open(&folder.join("expected.safetensors")).unwrap();
        let longest = expected.info("logits").unwrap().shape[1];
        let expected = expected.widened("logits").unwrap();
        for widen in [Widen::Once, Widen::OnUse] {
            let config = Config::from_json(&json::read(&folder.join("config.json")).unwrap()).unwrap();
            let vocabulary = config.vocabulary;
            let model =
                Decoder::from_checkpoint(config, Arc::from(tensors::open(&folder).unwrap()), widen, &cpu());
            let model = model.unwrap();
            let given = Config::from_json(&json::read(&folder.join("config.json")).unwrap()).unwrap();
            assert_eq!(Config::from_json(&given.to_json()).unwrap(), given, "{name}: written and read again");
            // All rows in one batch, filled up behind their ends.
            let mut tokens = Vec::new();
            for row in &rows {
                tokens.extend(row);
                tokens.resize(tokens.len() + longest - row.len(), 0);
            }
            let logits = to_rows(model.logits(&tokens, &Layout::dense(rows.len(), longest)).unwrap());
            let mut worst = 0.0_f32;
            let mut largest = 0.0_f32;
            for (index, row) in rows.iter().enumerate() {
                let range = index * longest * vocabulary..(index * longest + row.len()) * vocabulary;
                for (ours, theirs) in logits[range.clone()].iter().zip(&expected[range]) {
                    worst = worst.max((ours - theirs).abs());
                    largest = largest.max(theirs.abs());
                }
            }
            assert!(largest > 2.0, "{name}: logits of some size");
            assert!(worst <= 1e-4, "{name}, {widen:?}: logits differ by {worst:e}");
        }
    }
}
