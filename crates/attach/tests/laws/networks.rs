//! The same on encoders, vision transformers and T5: starts of every need, evidence in one pass, the function unchanged.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use lowrank_adapt::forms::Full;
use lowrank_adapt::{Linear, Offset};
use lowrank_attach::{
    Attached, Calibration, Collected, Plan, Site, Targets as Chosen, Way, attach, collect, collect_inputs,
};
use lowrank_init::{Exactness, Initialiser, Leading, methods};
use lowrank_models::{
    Encoder, ModelError, Network, Passed, Recompute, T5, Vision, Widen, encoder, t5, vision,
};
use lowrank_record::{Need, Promise, Seed};
use lowrank_store::{Dtype, Format, StoreError, TensorInfo, TensorSource, json};
use lowrank_tensor::ops::Targets;
use lowrank_tensor::{Device, Gradients, cpu, to_rows};
use serde_json::Value;

use crate::small::{leading, train_a_little, worst};

/// A network that counts its passes.
struct Counted<N> {
    network: N,
    backward: Cell<usize>,
    forward: Cell<usize>,
}

impl<N: Network> Network for Counted<N> {
    type Batch = N::Batch;

    fn sites(&self) -> Vec<(String, &Linear)> {
        self.network.sites()
    }

    fn sites_mut(&mut self) -> Vec<(String, &mut Linear)> {
        self.network.sites_mut()
    }

    fn device(&self) -> &Device {
        self.network.device()
    }

    fn bytes(&self) -> usize {
        self.network.bytes()
    }

    fn gradients(
        &self,
        batch: &N::Batch,
        recompute: Recompute,
        track_all: bool,
        collect: &mut dyn FnMut(&mut Gradients),
    ) -> Result<Passed, ModelError> {
        self.backward.set(self.backward.get() + 1);
        self.network.gradients(batch, recompute, track_all, collect)
    }

    fn weight(&self, batch: &N::Batch) -> f64 {
        self.network.weight(batch)
    }

    fn show_inputs(&self, batch: &N::Batch) -> Result<(), ModelError> {
        self.forward.set(self.forward.get() + 1);
        self.network.show_inputs(batch)
    }

    fn stream(&self, site: &str) -> usize {
        self.network.stream(site)
    }
}

/// Random weights by the names and shapes of a model of transformers.
struct Drawn {
    names: Vec<String>,
    tensors: BTreeMap<String, (TensorInfo, Vec<u8>)>,
    metadata: BTreeMap<String, String>,
}

impl TensorSource for Drawn {
    fn names(&self) -> &[String] {
        &self.names
    }

    fn info(&self, name: &str) -> Result<&TensorInfo, StoreError> {
        Ok(&self.tensors[name].0)
    }

    fn bytes(&self, name: &str) -> Result<&[u8], StoreError> {
        Ok(&self.tensors[name].1)
    }

    fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    fn path(&self) -> &Path {
        Path::new("drawn")
    }
}

/// A model of `crates/models/tests/reference`: what stands there, and weights drawn for it.
fn drawn(name: &str) -> (Value, Arc<dyn TensorSource>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tests/reference");
    let told = json::read(&folder.join(format!("{name}.json"))).unwrap();
    let mut tensors = BTreeMap::new();
    for (name, shape) in told["tensors"].as_object().unwrap() {
        let shape: Vec<usize> = serde_json::from_value(shape.clone()).unwrap();
        let draws = Seed(6).at("weight", name).normal(shape.iter().product());
        let is_gain = shape.len() == 1 && name.ends_with("weight");
        let value = |draw: f32| if is_gain { 1.0 + 0.1 * draw } else { 0.2 * draw };
        let bytes: Vec<u8> = draws.into_iter().flat_map(|draw| value(draw).to_le_bytes()).collect();
        let info = TensorInfo { name: name.clone(), dtype: Dtype::Real(Format::F32), shape };
        tensors.insert(name.clone(), (info, bytes));
    }
    let names = tensors.keys().cloned().collect();
    (told, Arc::new(Drawn { names, tensors, metadata: BTreeMap::new() }))
}

fn numbers(told: &Value, key: &str) -> Vec<f64> {
    told[key].as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
}

fn tokens(told: &Value) -> Vec<u32> {
    numbers(told, "tokens").into_iter().map(|token| token as u32).collect()
}

fn ids(told: &Value, key: &str) -> Vec<i32> {
    numbers(told, key).into_iter().map(|id| id as i32).collect()
}

fn visible(told: &Value) -> Vec<bool> {
    told["visible"].as_array().unwrap().iter().map(|value| value.as_bool().unwrap()).collect()
}

fn count(told: &Value, key: &str) -> usize {
    told[key].as_u64().unwrap() as usize
}

/// A start in the plain form, with what it needs collected in one pass of each kind.
fn started<N: Network>(
    name: &str,
    model: &mut Counted<N>,
    plan: &Plan,
    batch: &[Calibration<N::Batch>],
    initialiser: &dyn Initialiser,
) -> Vec<Attached> {
    let needs = initialiser.needs();
    model.backward.set(0);
    model.forward.set(0);
    let gradients = needs.contains(&Need::Gradient).then(|| {
        let leading = |rank| initialiser.leading(rank);
        collect(model, plan, batch, Recompute::Nothing, &leading, Seed(8)).unwrap()
    });
    let rank = |site: &Site| plan.largest_rank(initialiser, site);
    let most = plan.sites.iter().map(rank).max().unwrap();
    let inputs = needs.contains(&Need::Inputs).then(|| {
        let wanted = initialiser.inputs(most);
        collect_inputs(model, plan, batch, wanted, &rank, Seed(8)).unwrap()
    });
    assert_eq!(model.backward.get(), usize::from(gradients.is_some()), "{name}: backward passes");
    assert_eq!(model.forward.get(), usize::from(inputs.is_some()), "{name}: forward passes");
    let collected =
        Collected { gradients: gradients.as_ref(), inputs: inputs.as_ref(), first_rate: Some(0.01) };
    let form = lowrank_adapt::by_name("core", [("trains", "all")]).unwrap();
    let way = Way { initialiser: Some(initialiser), form: &*form, offset: Offset::Shadow };
    attach(model, plan, way, collected, Seed(3), "a").unwrap()
}

/// Starts of every need leave the function as it was and learn; what is collected is the leading part of the gradient; what
/// cannot be adapted is refused by name.
fn laws_hold<N: Network>(
    name: &str,
    make: &dyn Fn() -> N,
    batch: Calibration<N::Batch>,
    outputs: &dyn Fn(&N, &N::Batch) -> Vec<f32>,
) {
    let counted = || Counted { network: make(), backward: Cell::new(0), forward: Cell::new(0) };
    let batches = [batch];
    let chosen = Chosen::parse("all-linear", None, None).unwrap();
    let plan = Plan::new(&counted(), &chosen, 2, 3.0, false, &[], &[]).unwrap();
    assert!(plan.sites.iter().all(|site| !lowrank_models::is_head(&site.name)));
    let before = outputs(&make(), &batches[0].batch);
    let starts: [&dyn Initialiser; 5] = [
        &methods::Kaiming,
        &methods::Pissa::DEFAULT,
        &methods::LoraGa::DEFAULT,
        &methods::LoraSb::DEFAULT,
        &methods::Corda::DEFAULT,
    ];
    for initialiser in starts {
        let name = format!("{name}, {}", initialiser.card().name);
        let mut model = counted();
        let attached = started(&name, &mut model, &plan, &batches, initialiser);
        assert_eq!(attached.len(), plan.sites.len(), "{name}");
        let moved = worst(&outputs(&model.network, &batches[0].batch), &before);
        match initialiser.promise() {
            Promise::Zero => assert!(moved < 1e-6, "{name}: {moved:e}"),
            Promise::Exact => assert!(moved < 1e-3, "{name}: {moved:e}"),
            Promise::Within(_) | Promise::None => {}
        }
        train_a_little(&attached);
        assert!(worst(&outputs(&model.network, &batches[0].batch), &before) > 1e-3, "{name}: no effect");
    }
    // The gradient of a change that is a whole matrix is the whole gradient.
    let mut model = counted();
    let way = Way { initialiser: None, form: &Full::DEFAULT, offset: Offset::None };
    let attached = attach(&mut model, &plan, way, Collected::default(), Seed(3), "whole").unwrap();
    let mut whole: BTreeMap<String, Vec<f32>> = BTreeMap::new();
    let passed = model
        .gradients(&batches[0].batch, Recompute::Nothing, false, &mut |found| {
            for each in &attached {
                if let Some(gradient) = each.variables[0].1.take_gradient(found) {
                    whole.insert(each.site.name.clone(), to_rows(gradient));
                }
            }
        })
        .unwrap();
    assert!((passed.weight - model.weight(&batches[0].batch)).abs() < 1e-9, "{name}: known beforehand");
    let mut bare = counted();
    let exact = |rank| Leading { exactness: Exactness::Exact, ..leading(rank) };
    let seen = collect(&mut bare, &plan, &batches, Recompute::Nothing, &exact, Seed(8)).unwrap();
    for site in &plan.sites {
        let [out, inp] = site.shape;
        let gradient: Vec<f32> = whole[&site.name].iter().map(|value| value / passed.weight as f32).collect();
        let svd =
            lowrank_linalg::svd_in_f64(faer::MatRef::from_row_major_slice(&gradient, out, inp)).unwrap();
        for (found, wanted) in seen.sites[&site.name].svd.values.iter().zip(&svd.values) {
            let off = (found - wanted).abs();
            assert!(off < 1e-4 * svd.values[0] + 1e-9, "{name}, {}: {found} {wanted}", site.name);
        }
    }
    let mut strange = plan.clone();
    strange.sites[0].name.push('x');
    let way =
        Way { initialiser: Some(&methods::Kaiming), form: lowrank_adapt::ALL[0], offset: Offset::Shadow };
    let refused = attach(&mut bare, &strange, way, Collected::default(), Seed(3), "a").unwrap_err();
    assert!(refused.to_string().contains(&strange.sites[0].name), "{name}: {refused}");
    assert!(bare.sites().iter().all(|(_, linear)| linear.adapters().is_empty()), "{name}");
}

#[test]
fn starts_keep_their_promises_on_encoders() {
    for name in ["bert-classify", "roberta-regress", "bert-masked"] {
        let (told, source) = drawn(name);
        let purpose = encoder::Purpose::of(&told["config"]).unwrap();
        let make = || {
            let config = encoder::Config::from_json(&told["config"]).unwrap();
            Encoder::from_checkpoint(config, Arc::clone(&source), purpose, Widen::Once, &cpu()).unwrap()
        };
        let visible = visible(&told);
        let input = encoder::Input {
            tokens: tokens(&told),
            segments: None,
            visible: Some(visible.clone()),
            batch: count(&told, "batch"),
            time: count(&told, "time"),
        };
        let targets = || Targets { ids: ids(&told, "labels").into(), weights: None };
        let labels = match name {
            "bert-classify" => encoder::Labels::Classes(targets()),
            "bert-masked" => encoder::Labels::Tokens(targets()),
            _ => encoder::Labels::Values(
                numbers(&told, "labels").into_iter().map(|label| label as f32).collect(),
            ),
        };
        let batch = Calibration { batch: encoder::Batch { input, labels }, shown: vec![visible] };
        laws_hold(name, &make, batch, &|model, batch| to_rows(model.outputs(&batch.input).unwrap()));
    }
}

#[test]
fn starts_keep_their_promises_on_vision_transformers() {
    let (told, source) = drawn("vit");
    let make = || {
        let config = vision::Config::from_json(&told["config"]).unwrap();
        let purpose = vision::Purpose::Classify;
        Vision::from_checkpoint(config, Arc::clone(&source), purpose, Widen::Once, &cpu()).unwrap()
    };
    let [height, width] = make().config.image;
    let pixels = Seed(4).normal(2 * make().config.channels * height * width);
    let images = vision::Images { pixels, batch: 2, height, width };
    let targets = Targets { ids: [2, 0].into(), weights: None };
    let batch = Calibration { batch: vision::Batch { images, targets }, shown: Vec::new() };
    laws_hold("vit", &make, batch, &|model, batch| to_rows(model.outputs(&batch.images).unwrap()));
}

#[test]
fn starts_keep_their_promises_on_t5() {
    let (told, source) = drawn("t5-gated");
    let make = || {
        let config = t5::Config::from_json(&told["config"]).unwrap();
        T5::from_checkpoint(config, Arc::clone(&source), Widen::Once, &cpu()).unwrap()
    };
    let (batch, time) = (count(&told, "batch"), count(&told, "time"));
    let answers = ids(&told, "answers");
    let length = answers.len() / batch;
    let late = |row: &[i32]| [0].into_iter().chain(row[..length - 1].to_vec()).map(|id| id.max(0) as u32);
    let given = answers.chunks_exact(length).flat_map(|row| late(row).collect::<Vec<u32>>()).collect();
    let visible = visible(&told);
    let source_side = t5::Source { tokens: tokens(&told), visible: Some(visible.clone()), batch, time };
    let learned: Vec<bool> = answers.iter().map(|&id| id >= 0).collect();
    let targets = Targets { ids: answers.into(), weights: None };
    let batch = Calibration {
        batch: t5::Batch { source: source_side, tokens: given, targets },
        shown: vec![visible, learned],
    };
    laws_hold("t5", &make, batch, &|model, batch| {
        to_rows(model.logits(&batch.source, &batch.tokens).unwrap())
    });
}
