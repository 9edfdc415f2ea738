//! What does not fit a network is refused by name, and a file may hold more heads than one.

use std::sync::Arc;

use lowrank_models::{Encoder, ModelError, Network, Recompute, T5, Vision, Widen, encoder, t5, vision};
use lowrank_record::Seed;
use lowrank_tensor::ops::Targets;
use lowrank_tensor::{cpu, to_rows};

use crate::reference::Reference;

fn targets(ids: &[i32]) -> Targets {
    Targets { ids: ids.into(), weights: None }
}

/// What is done to a batch that fits.
type Change<'a> = &'a dyn Fn(&mut encoder::Batch);

/// The message of what should fail.
fn message<T>(result: Result<T, ModelError>) -> String {
    match result {
        Ok(_) => String::from("nothing was refused"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_base_without_a_prefix_is_the_same_base() {
    let (prefixed, bare) = (
        Reference::new("bert-classify", "prefixed"),
        Reference::renamed("bert-classify", "bare", |name| {
            name.strip_prefix("bert.").unwrap_or(name).to_owned()
        }),
    );
    let outputs = |reference: &Reference| {
        let model = reference.encoder(encoder::Purpose::Embed, Widen::Once);
        (to_rows(model.outputs(&reference.input()).unwrap()), model.sites().remove(0).0)
    };
    let ((values, name), (bare_values, bare_name)) = (outputs(&prefixed), outputs(&bare));
    assert_eq!(values, bare_values);
    assert_eq!(name, "bert.encoder.layer.0.attention.self.query");
    assert_eq!(bare_name, "encoder.layer.0.attention.self.query");
}

#[test]
fn a_new_head_depends_on_its_seed_alone_and_keeps_the_base() {
    let reference = Reference::new("roberta-masked", "fresh");
    let fresh = |seed: u64, labels: usize| {
        reference.encoder(encoder::Purpose::Fresh { labels, seed: Seed(seed) }, Widen::Once)
    };
    let outputs = |model: &Encoder| to_rows(model.outputs(&reference.input()).unwrap());
    assert_eq!(outputs(&fresh(1, 4)), outputs(&fresh(1, 4)));
    assert_ne!(outputs(&fresh(1, 4)), outputs(&fresh(2, 4)));
    assert_eq!(outputs(&fresh(1, 4)).len(), 3 * 4);
    let (masked, model) = (reference.encoder(encoder::Purpose::MaskedLanguage, Widen::Once), fresh(1, 4));
    let hidden = |model: &Encoder| to_rows(model.hidden(&reference.input()).unwrap());
    assert_eq!(hidden(&masked), hidden(&model));
    let names: Vec<String> = model.sites().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names[12..], ["classifier.dense", "classifier.out_proj"]);
    // BERT's pooler is the base's, where there is one.
    let reference = Reference::new("bert-classify", "fresh");
    let purpose = encoder::Purpose::Fresh { labels: 5, seed: Seed(1) };
    let (fresh, read) =
        (reference.encoder(purpose, Widen::Once), reference.encoder(encoder::Purpose::Classify, Widen::Once));
    let pooler = |model: &Encoder| model.sites()[12].1.frozen().unwrap().to_f32();
    assert_eq!(pooler(&fresh), pooler(&read));
    let vision = Reference::new("dinov2", "fresh");
    let model = vision.vision(vision::Purpose::Fresh { labels: 7, seed: Seed(1) }, Widen::Once);
    assert_eq!(to_rows(model.outputs(&Reference::images(12, 12)).unwrap()).len(), 2 * 7);
    let config = vision::Config::from_json(vision.config()).unwrap();
    let purpose = vision::Purpose::Fresh { labels: 0, seed: Seed(1) };
    let none = Vision::from_checkpoint(config, Arc::clone(&vision.source), purpose, Widen::Once, &cpu());
    assert!(message(none).contains("0 classes"));
}

#[test]
fn tensors_that_are_missing_or_unknown_are_named() {
    let broken = |from: &'static str, to: &'static str, test: &str| {
        let reference = Reference::renamed("bert-classify", test, |name| name.replace(from, to));
        let config = encoder::Config::from_json(reference.config()).unwrap();
        let purpose = encoder::Purpose::Classify;
        message(Encoder::from_checkpoint(config, reference.source, purpose, Widen::Once, &cpu()))
    };
    let legacy = broken("LayerNorm.weight", "LayerNorm.gamma", "legacy");
    assert!(legacy.contains("bert.embeddings.LayerNorm.weight"), "{legacy}");
    let headless = broken("classifier.", "other.", "headless");
    assert!(headless.contains("classifier.weight"), "{headless}");
    let reference = Reference::renamed("minilm", "extra", |name| {
        name.replace("layer.1.output.dense.bias", "layer.1.crossattention.bias")
    });
    let config = encoder::Config::from_json(reference.config()).unwrap();
    let source = Arc::clone(&reference.source);
    let missing =
        message(Encoder::from_checkpoint(config, source, encoder::Purpose::Embed, Widen::Once, &cpu()));
    assert!(missing.contains("layer.1.output.dense.bias"), "{missing}");
    let mut config = encoder::Config::from_json(reference.config()).unwrap();
    config.layers = 1;
    let extra = message(Encoder::from_checkpoint(
        config,
        reference.source,
        encoder::Purpose::Embed,
        Widen::Once,
        &cpu(),
    ));
    assert!(extra.contains("no place for") && extra.contains("layer.1."), "{extra}");
}

#[test]
fn copies_of_what_is_tied_are_no_layers() {
    let plain = Reference::new("t5", "plain");
    let copies =
        ["shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"];
    let copied = Reference::copied("t5", "copied", |name| match name {
        "shared.weight" => copies.map(str::to_owned).to_vec(),
        other => vec![other.to_owned()],
    });
    let logits = |reference: &Reference| {
        let (model, batch) = (reference.t5(Widen::Once), reference.answers());
        assert!(model.sites().iter().all(|(name, _)| name != "lm_head"));
        to_rows(model.logits(&batch.source, &batch.tokens).unwrap())
    };
    assert_eq!(logits(&plain), logits(&copied));
    // A head of another content is a layer, whatever the configuration says.
    let gated = Reference::new("t5-gated", "own");
    let mut config = t5::Config::from_json(gated.config()).unwrap();
    config.tied = true;
    let own = T5::from_checkpoint(config, Arc::clone(&gated.source), Widen::Once, &cpu()).unwrap();
    assert_eq!(own.sites().pop().unwrap().0, "lm_head");
    // One that should be there and is not is missed.
    let mut config = t5::Config::from_json(plain.config()).unwrap();
    config.tied = false;
    let none = message(T5::from_checkpoint(config, Arc::clone(&plain.source), Widen::Once, &cpu()));
    assert!(none.contains("lm_head.weight"), "{none}");
    // BERT's decoder and the buffer of old exports.
    let masked = Reference::copied("bert-masked", "copied", |name| match name {
        "cls.predictions.bias" => vec![name.to_owned(), "cls.predictions.decoder.bias".to_owned()],
        "bert.embeddings.LayerNorm.bias" => vec![name.to_owned(), "bert.embeddings.position_ids".to_owned()],
        other => vec![other.to_owned()],
    });
    assert_eq!(masked.encoder(encoder::Purpose::MaskedLanguage, Widen::Once).sites().len(), 13);
}

#[test]
fn batches_that_do_not_fit_an_encoder_are_refused() {
    let reference = Reference::new("bert-classify", "batches");
    let model = reference.encoder(encoder::Purpose::Classify, Widen::Once);
    let good = encoder::Batch {
        input: reference.input(),
        labels: reference.labels(encoder::Purpose::Classify).unwrap(),
    };
    let refused = |change: &dyn Fn(&mut encoder::Batch)| {
        let mut batch = good.clone();
        change(&mut batch);
        message(model.gradients(&batch, Recompute::Nothing, false, &mut |_| {}))
    };
    assert_eq!(refused(&|_| {}), "nothing was refused");
    let cases: [(Change<'_>, &str); 9] = [
        (&|batch| batch.input.tokens[4] = 23, "token id 23 at index 4"),
        (&|batch| batch.input.time = 8, "27 tokens, its sides say 24"),
        (&|batch| batch.input.segments = Some(vec![2; 27]), "segment 2 at index 0"),
        (&|batch| batch.input.visible = Some(vec![true; 5]), "5 padding marks"),
        (
            &|batch| batch.input.visible.as_mut().unwrap()[9..18].fill(false),
            "row 1 of the batch is all padding",
        ),
        (&|batch| batch.labels = encoder::Labels::Classes(targets(&[0, 3, 1])), "label 3 of row 1"),
        (&|batch| batch.labels = encoder::Labels::Classes(targets(&[0])), "1 labels, its sides say 3"),
        (&|batch| batch.labels = encoder::Labels::Values(vec![0.0; 3]), "asks for a number"),
        (
            &|batch| batch.input = encoder::Input::padded(&[vec![1; 13]], 0),
            "13 tokens exceed the model's context of 12",
        ),
    ];
    for (change, expected) in cases {
        let found = refused(change);
        assert!(found.contains(expected), "{found} should contain {expected}");
    }
    let recomputed = message(model.gradients(&good, Recompute::Blocks, false, &mut |_| {}));
    assert!(recomputed.contains("keeps all its activations"), "{recomputed}");
    // A batch without a single masked token has no loss, and is no error.
    let reference = Reference::new("bert-masked", "batches");
    let model = reference.encoder(encoder::Purpose::MaskedLanguage, Widen::Once);
    let batch =
        encoder::Batch { input: reference.input(), labels: encoder::Labels::Tokens(targets(&[-1; 27])) };
    let passed = model.gradients(&batch, Recompute::Nothing, true, &mut |_| {}).unwrap();
    assert!(passed.loss_sum == 0.0 && passed.weight == 0.0);
}

#[test]
fn batches_that_do_not_fit_the_others_are_refused() {
    let model = Reference::new("vit", "batches").vision(vision::Purpose::Classify, Widen::Once);
    let images = |height, width, count| vision::Images { pixels: vec![0.0; count], batch: 1, height, width };
    for (images, expected) in [
        (images(12, 14, 504), "multiples of the patch's, 4 x 4"),
        (images(12, 12, 5), "5 pixel values, its sides say 432"),
        (images(0, 12, 0), "multiples"),
    ] {
        let found = message(model.outputs(&images));
        assert!(found.contains(expected), "{found} should contain {expected}");
    }
    let batch = vision::Batch { images: Reference::images(12, 12), targets: targets(&[0, 3]) };
    assert!(message(model.evaluate(&batch)).contains("label 3 of row 1"));
    let features = Reference::new("vit-features", "batches").vision(vision::Purpose::Features, Widen::Once);
    assert!(message(features.evaluate(&batch)).contains("the model's head gives features"));

    let reference = Reference::new("t5", "batches");
    let model = reference.t5(Widen::Once);
    let good = reference.answers();
    let refused = |change: &dyn Fn(&mut t5::Batch)| {
        let mut batch = good.clone();
        change(&mut batch);
        message(model.gradients(&batch, Recompute::Nothing, false, &mut |_| {}))
    };
    assert_eq!(refused(&|_| {}), "nothing was refused");
    assert!(refused(&|batch| batch.tokens[2] = 23).contains("token id 23 at index 2"));
    assert!(refused(&|batch| batch.tokens.push(1)).contains("19 tokens of answers, its sides say 18"));
    assert!(refused(&|batch| batch.targets = targets(&[23; 18])).contains("label 23 of row 0"));
    assert!(refused(&|batch| batch.source.visible = Some(vec![false; 27])).contains("row 0 of the batch"));
    assert!(message(model.generate(&good.source, 3, &[])).contains("3 sequences, its sides say 1"));
}
