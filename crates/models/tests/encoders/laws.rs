//! What must hold of any network: its gradients are those of its loss, they reach every layer, and padding is not seen.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lowrank_adapt::forms::Lora;
use lowrank_adapt::{Form, Offset, Site, Start};
use lowrank_models::network::Text;
use lowrank_models::{Activation, Config, Decoder, Network, Passed, Recompute, Widen, encoder, vision};
use lowrank_record::Seed;
use lowrank_tensor::ops::{Layout, Observer, Targets};
use lowrank_tensor::{Var, cpu, to_rows};

use crate::reference::Reference;

/// Random adapters of rank 2 and scale 1.5 on every layer; their variables, layer by layer.
fn adapters(network: &mut impl Network) -> Vec<(String, Vec<Var>)> {
    let device = network.device().clone();
    let mount = |(name, linear): (String, &mut lowrank_adapt::Linear)| {
        let [out, inp] = linear.shape();
        let draw = |part: &str, count: usize| {
            Seed(7).at(&name, part).normal(count).into_iter().map(|value| 0.2 * value).collect()
        };
        let start = Start {
            left: draw("left", out * 2),
            right: draw("right", 2 * inp),
            core: None,
            rank: 2,
            offset: Offset::None,
        };
        let site = Site::alone(&name, linear.frozen().unwrap(), 2, 1.5, Seed(7), &device);
        let adapter = Lora::DEFAULT.build(&site, Some(start)).unwrap();
        let variables = adapter.trainable().into_iter().map(|(_, variable)| variable).collect();
        linear.mount("a", adapter).unwrap();
        (name, variables)
    };
    network.sites_mut().into_iter().map(mount).collect()
}

/// The gradient along a random direction of one layer's adapter, and along one of all layers', is the slope of the loss; and
/// every layer's adapter has a gradient.
fn gradients_are_slopes<N: Network>(
    name: &str,
    network: &mut N,
    batch: &N::Batch,
    evaluate: impl Fn(&N) -> Passed,
) {
    const STEP: f32 = 2e-3;
    let layers = adapters(network);
    let mut found: Vec<Vec<Option<Vec<f32>>>> = Vec::new();
    let mut collect = |gradients: &mut lowrank_tensor::Gradients| {
        let mut take = |variable: &Var| variable.take_gradient(gradients).map(to_rows);
        found = layers.iter().map(|(_, variables)| variables.iter().map(&mut take).collect()).collect();
    };
    let passed = network.gradients(batch, Recompute::Nothing, false, &mut collect).unwrap();
    let evaluated = evaluate(network);
    assert!((passed.loss_sum - evaluated.loss_sum).abs() < 1e-5 * passed.loss_sum.abs(), "{name}");
    assert!((passed.weight - evaluated.weight).abs() < 1e-9, "{name}");
    for ((layer, _), found) in layers.iter().zip(&found) {
        for gradient in found {
            let size = gradient.as_ref().map(|gradient| gradient.iter().map(|g| g.abs()).fold(0.0, f32::max));
            assert!(size.is_some_and(|size| size > 1e-6), "{name}: {layer} has the gradient {size:?}");
        }
    }
    let check = |which: &str, chosen: std::ops::Range<usize>| {
        let (mut variables, mut along, mut norm) = (Vec::new(), 0.0, 0.0);
        for layer in chosen {
            for (part, (variable, gradient)) in layers[layer].1.iter().zip(&found[layer]).enumerate() {
                let gradient = gradient.as_ref().unwrap();
                let direction = Seed(3).at(&layers[layer].0, &part.to_string()).normal(gradient.len());
                let pairs = || gradient.iter().zip(&direction).map(|(&g, &d)| (f64::from(g), f64::from(d)));
                along += pairs().map(|(g, d)| g * d).sum::<f64>();
                norm += pairs().map(|(g, _)| g * g).sum::<f64>();
                variables.push((variable, variable.values(), direction));
            }
        }
        let loss_at = |step: f32| {
            for (variable, origin, direction) in &variables {
                variable.assign(origin.iter().zip(direction).map(|(&o, &d)| o + step * d).collect());
            }
            evaluate(network).loss_sum
        };
        // Without the term of third order: the four-point difference.
        let (near, far) = (loss_at(STEP) - loss_at(-STEP), loss_at(2.0 * STEP) - loss_at(-2.0 * STEP));
        let slope = (8.0 * near - far) / (12.0 * f64::from(STEP));
        loss_at(0.0);
        // A random direction sees about the norm of the gradient; what f32 rounds off the loss is far below.
        let tolerance = 1e-3 * norm.sqrt() + 1e-4 * passed.loss_sum.abs();
        assert!(
            (along - slope).abs() < tolerance,
            "{name}, {which}: gradient {along}, slope {slope}, norm {norm}"
        );
        assert!(tolerance < 0.05 * norm.sqrt(), "{name}, {which}: {norm} is too small to say anything");
    };
    check(&layers[1].0, 1..2);
    check("all", 0..layers.len());
}

#[test]
fn gradients_of_encoders_are_slopes() {
    for name in ["bert-classify", "bert-masked", "roberta-regress", "roberta-masked", "minilm"] {
        let reference = Reference::new(name, "slopes");
        let purpose = encoder::Purpose::of(reference.config()).unwrap();
        let mut model = reference.encoder(purpose, Widen::Once);
        let input = reference.input();
        let count = input.batch * model.config.hidden;
        let labels = reference.labels(purpose);
        let labels = labels.unwrap_or_else(|| encoder::Labels::Vectors(Seed(4).normal(count)));
        let batch = encoder::Batch { input, labels };
        gradients_are_slopes(name, &mut model, &batch, |model| model.evaluate(&batch).unwrap());
    }
}

#[test]
fn gradients_of_vision_transformers_are_slopes() {
    for name in ["vit", "deit", "deit-distilled", "dinov2"] {
        let reference = Reference::new(name, "slopes");
        let mut model = reference.vision(vision::Purpose::Classify, Widen::Once);
        let targets = Targets { ids: [2, 0].into(), weights: Some([0.5, 2.0].into()) };
        let batch = vision::Batch { images: Reference::images(16, 24), targets };
        gradients_are_slopes(name, &mut model, &batch, |model| model.evaluate(&batch).unwrap());
    }
}

#[test]
fn gradients_of_t5_are_slopes() {
    for name in ["t5", "t5-gated"] {
        let reference = Reference::new(name, "slopes");
        let mut model = reference.t5(Widen::Once);
        // A difference over the kinks of ReLU is no derivative; that of ReLU itself has a test beside it.
        model.config.activation = Activation::Gelu;
        let batch = reference.answers();
        gradients_are_slopes(name, &mut model, &batch, |model| model.evaluate(&batch).unwrap());
    }
}

fn decoder() -> (Decoder, Text) {
    let json = serde_json::json!({
        "model_type": "llama", "vocab_size": 30, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 16
    });
    let decoder = Decoder::random(Config::from_json(&json).unwrap(), Seed(5), &cpu()).unwrap();
    let tokens: Vec<u32> = (0..14).map(|at| at * 11 % 30).collect();
    let ids = (0..14).map(|at| if at % 4 == 0 { -1 } else { at * 7 % 30 }).collect();
    (decoder, Text { tokens, targets: Targets { ids, weights: None }, layout: Layout::dense(2, 7) })
}

#[test]
fn a_decoder_is_a_network_too() {
    let (mut model, batch) = decoder();
    let names = |model: &Decoder| model.sites().into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    let listed: Vec<String> = Network::sites(&model).into_iter().map(|(name, _)| name).collect();
    assert_eq!(listed, names(&model));
    assert_eq!(Network::bytes(&model), Decoder::bytes(&model));
    gradients_are_slopes("decoder", &mut model, &batch, |model| {
        let losses = model.log_likelihoods(&batch.tokens, &batch.targets.ids, &batch.layout).unwrap();
        let weight = batch.targets.ids.iter().filter(|&&id| id >= 0).count() as f64;
        Passed { loss_sum: losses.into_iter().map(f64::from).sum(), weight }
    });
}

#[derive(Default)]
struct Counter(AtomicUsize);

impl Observer for Counter {
    fn observe(&self, inputs: &[f32], output_gradients: &[f32], n: usize) {
        assert!(inputs.len().is_multiple_of(n) && output_gradients.len().is_multiple_of(n));
        assert!(output_gradients.iter().any(|&value| value != 0.0));
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Evidence is seen at every layer, once each, where nothing is trained.
fn every_layer_is_observed<N: Network>(name: &str, network: &mut N, batch: &N::Batch) {
    let counters: Vec<Arc<Counter>> = network
        .sites_mut()
        .into_iter()
        .map(|(_, linear)| {
            let counter = Arc::new(Counter::default());
            linear.observe(Some(Arc::clone(&counter) as Arc<dyn Observer>));
            counter
        })
        .collect();
    for (track_all, expected) in [(false, 0), (true, 1)] {
        network.gradients(batch, Recompute::Nothing, track_all, &mut |_| {}).unwrap();
        for ((site, _), counter) in network.sites().iter().zip(&counters) {
            assert_eq!(counter.0.swap(0, Ordering::Relaxed), expected, "{name}: {site}");
        }
    }
}

#[test]
fn evidence_is_seen_at_every_layer_once() {
    for name in ["bert-classify", "roberta-masked"] {
        let reference = Reference::new(name, "observed");
        let purpose = encoder::Purpose::of(reference.config()).unwrap();
        let (input, labels) = (reference.input(), reference.labels(purpose).unwrap());
        let batch = encoder::Batch { input, labels };
        every_layer_is_observed(name, &mut reference.encoder(purpose, Widen::OnUse), &batch);
    }
    let reference = Reference::new("deit-distilled", "observed");
    let targets = Targets { ids: [2, 0].into(), weights: None };
    let batch = vision::Batch { images: Reference::images(12, 12), targets };
    let mut model = reference.vision(vision::Purpose::Classify, Widen::OnUse);
    every_layer_is_observed("deit-distilled", &mut model, &batch);
    let reference = Reference::new("t5-gated", "observed");
    every_layer_is_observed("t5-gated", &mut reference.t5(Widen::OnUse), &reference.answers());
    let (mut model, batch) = decoder();
    every_layer_is_observed("decoder", &mut model, &batch);
}

#[test]
fn padding_changes_nothing() {
    for name in ["bert-classify", "minilm", "roberta-regress"] {
        let reference = Reference::new(name, "padding");
        let model = reference.encoder(encoder::Purpose::of(reference.config()).unwrap(), Widen::Once);
        let rows: Vec<Vec<u32>> = vec![vec![2, 7, 19, 5, 11], vec![2, 15], vec![2, 9, 12, 20, 17, 4, 8]];
        let padded = to_rows(model.outputs(&encoder::Input::padded(&rows, model.config.padding)).unwrap());
        let alone = rows.iter().flat_map(|row| {
            let input = encoder::Input {
                tokens: row.clone(),
                segments: None,
                visible: None,
                batch: 1,
                time: row.len(),
            };
            to_rows(model.outputs(&input).unwrap())
        });
        for (padded, alone) in padded.iter().zip(alone) {
            assert!((padded - alone).abs() < 1e-5, "{name}: {padded} {alone}");
        }
    }
}
