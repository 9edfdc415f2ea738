//! Our outputs and losses are those of transformers 5.23.0 (torch 2.15, CPU, f32, eager attention), by `reference/make.py`.

use lowrank_models::{Passed, Widen, encoder, vision};
use lowrank_tensor::to_rows;

use crate::reference::Reference;

const BOTH: [Widen; 2] = [Widen::Once, Widen::OnUse];

/// The largest difference, relative to the largest value.
fn close(name: &str, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{name}");
    let size = expected.iter().fold(0.0_f32, |size, value| size.max(value.abs()));
    assert!(size > 0.1, "{name}: outputs of some size");
    let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0_f32, f32::max);
    assert!(worst <= 1e-5 * size, "{name}: outputs differ by {worst:e} of {size}");
}

fn loses(name: &str, found: Passed, reference: &Reference) {
    let expected = reference.json["loss"].as_f64().unwrap();
    let mean = found.loss_sum / found.weight;
    assert!((mean - expected).abs() <= 1e-5 * expected.abs(), "{name}: loss {mean}, expected {expected}");
}

#[test]
fn encoders_answer_as_those_of_transformers() {
    // All five: both families; a classifier, a regression, masked language and no head; both forms of GELU; segments.
    for name in ["bert-classify", "bert-masked", "minilm", "roberta-regress", "roberta-masked"] {
        let reference = Reference::new(name, "answers");
        let purpose = encoder::Purpose::of(reference.config()).unwrap();
        for widen in BOTH {
            let model = reference.encoder(purpose, widen);
            let input = reference.input();
            close(name, &to_rows(model.outputs(&input).unwrap()), &reference.list::<f32>("expected"));
            if let Some(labels) = reference.labels(purpose) {
                loses(name, model.evaluate(&encoder::Batch { input, labels }).unwrap(), &reference);
            }
        }
    }
}

#[test]
fn vision_transformers_answer_as_those_of_transformers() {
    // Three families; one and two heads; with and without biases; images of the size of training and of another.
    for name in ["vit", "vit-features", "deit", "deit-distilled", "dinov2"] {
        let reference = Reference::new(name, "answers");
        let purpose = vision::Purpose::of(reference.config()).unwrap();
        for widen in BOTH {
            let model = reference.vision(purpose, widen);
            for size in reference.json["sizes"].as_array().unwrap() {
                let side = |key: &str| size[key].as_u64().unwrap() as usize;
                let images = Reference::images(side("height"), side("width"));
                let expected: Vec<f32> = serde_json::from_value(size["expected"].clone()).unwrap();
                close(
                    &format!("{name}, {}", side("height")),
                    &to_rows(model.outputs(&images).unwrap()),
                    &expected,
                );
            }
        }
    }
}

#[test]
fn t5_answers_as_that_of_transformers() {
    // The original with a tied and scaled head, and 1.1 with its own; stacks of one height and of two.
    for name in ["t5", "t5-gated"] {
        let reference = Reference::new(name, "answers");
        for widen in BOTH {
            let model = reference.t5(widen);
            let batch = reference.answers();
            let logits = model.logits(&batch.source, &batch.tokens).unwrap();
            close(name, &to_rows(logits), &reference.list::<f32>("expected"));
            loses(name, model.evaluate(&batch).unwrap(), &reference);
            // Each row alone, without its padding, continued greedily.
            let time = batch.source.time;
            let visible = batch.source.visible.as_ref().unwrap();
            for (row, expected) in reference.list::<Vec<u32>>("written").into_iter().enumerate() {
                let range = row * time..(row + 1) * time;
                let shown = batch.source.tokens[range.clone()].iter().zip(&visible[range]);
                let tokens: Vec<u32> = shown.filter(|(_, seen)| **seen).map(|(token, _)| *token).collect();
                let source =
                    lowrank_models::t5::Source { time: tokens.len(), tokens, visible: None, batch: 1 };
                let written = model.generate(&source, 8, &[model.config.end]).unwrap();
                assert_eq!(written, expected, "{name}, row {row}");
            }
        }
    }
}
