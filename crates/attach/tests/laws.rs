//! What must hold of every pair of start and form on a whole model; pairs join by their lines in the two catalogues.
#![allow(clippy::unwrap_used)] // A failure here is a failure of the test.

use lowrank_adapt::{Form, Offset};
use lowrank_attach::{
    Attached, Calibration, Gradients, Plan, Targets as Chosen, attach, attach_stored, collect, restore,
};
use lowrank_init::Initialiser;
use lowrank_models::{Config, Decoder, Recompute};
use lowrank_record::{Need, Promise, Seed};
use lowrank_store::peft::Factor;
use lowrank_tensor::ops::{Layout, Targets};
use lowrank_tensor::{cpu, to_rows};

const VOCABULARY: usize = 60;
/// Even: the orthogonal start halves it.
const RANK: usize = 4;

fn model() -> Decoder {
    let config = serde_json::json!({
        "model_type": "llama", "vocab_size": VOCABULARY, "hidden_size": 24, "intermediate_size": 40,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-5,
        "max_position_embeddings": 64, "tie_word_embeddings": true
    });
    Decoder::random(Config::from_json(&config).unwrap(), Seed(2), &cpu()).unwrap()
}

fn plan(model: &Decoder) -> Plan {
    let chosen = Chosen::parse("all-linear", None, None).unwrap();
    Plan::new(model, &chosen, RANK, 7.0, true, &[("q_proj".to_owned(), 2)], &[]).unwrap()
}

fn tokens(count: usize, name: &str) -> Vec<u32> {
    let draws = Seed(5).at("tokens", name).uniform(count, 1.0);
    draws.into_iter().map(|u| ((u.abs() * VOCABULARY as f32) as u32).min(VOCABULARY as u32 - 1)).collect()
}

fn calibration(rows: usize, name: &str) -> Calibration {
    let ids: Vec<i32> = tokens(rows * 9, &format!("{name} targets"))
        .iter()
        .enumerate()
        .map(|(index, &token)| if index % 4 == 0 { -1 } else { token as i32 })
        .collect();
    Calibration {
        tokens: tokens(rows * 9, name),
        targets: Targets { ids: ids.into(), weights: None },
        layout: Layout::dense(rows, 9),
    }
}

fn evidence(model: &mut Decoder, plan: &Plan, batches: &[Calibration]) -> Gradients {
    collect(model, plan, batches, Recompute::Nothing, 2, Seed(8)).unwrap()
}

fn started(
    model: &mut Decoder,
    initialiser: &dyn Initialiser,
    form: &dyn Form,
    offset: Offset,
) -> Vec<Attached> {
    let plan = plan(model);
    let needs = initialiser.needs().contains(&Need::Gradient);
    let gradients = needs.then(|| evidence(model, &plan, &[calibration(4, "calibration")]));
    attach(model, &plan, initialiser, form, offset, gradients.as_ref(), Seed(3), "a").unwrap()
}

fn logits(model: &Decoder) -> Vec<f32> {
    to_rows(model.logits(&tokens(18, "sample"), &Layout::dense(2, 9)).unwrap())
}

fn worst(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn every_pair_keeps_its_promise_at_step_0() {
    let before = logits(&model());
    for initialiser in lowrank_init::ALL {
        for form in lowrank_adapt::ALL {
            for offset in [Offset::Shadow, Offset::Base] {
                let mut model = model();
                let attached = started(&mut model, *initialiser, *form, offset);
                assert_eq!(attached.len(), plan(&model).sites.len());
                let moved = worst(&logits(&model), &before);
                let name = initialiser.card().name;
                match initialiser.card().promise {
                    Promise::Zero => assert!(moved == 0.0, "{name}: {moved:e}"),
                    Promise::Exact => assert!(moved < 2e-4, "{name}: {moved:e}"),
                    Promise::Within(_) | Promise::None => {}
                }
                // The start's own factors are not zero on at least one side, or nothing could be trained.
                for each in &attached {
                    let (left, right) = &each.initial;
                    assert!(left.iter().chain(right).any(|value| *value != 0.0), "{name}");
                }
            }
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    for initialiser in lowrank_init::ALL {
        let factors = || {
            let mut model = model();
            let attached = started(&mut model, *initialiser, lowrank_adapt::ALL[0], Offset::Shadow);
            attached.into_iter().map(|each| each.initial).collect::<Vec<_>>()
        };
        assert!(factors() == factors(), "{}", initialiser.card().name);
    }
}

#[test]
fn a_stored_start_is_the_start_again() {
    for offset in [Offset::Shadow, Offset::Base] {
        let (mut first, mut again) = (model(), model());
        let form = lowrank_adapt::ALL[0];
        let attached = started(&mut first, &lowrank_init::methods::Pissa::DEFAULT, form, offset);
        let starts = attached
            .iter()
            .map(|each| {
                let (left, right) = each.initial.clone();
                lowrank_adapt::Start { left, right, rank: each.site.rank, offset: each.offset }
            })
            .collect();
        let plan = plan(&again);
        let stored = attach_stored(&mut again, &plan, starts, form, "a").unwrap();
        assert!(logits(&again) == logits(&first), "{offset:?}");
        assert!(stored.iter().zip(&attached).all(|(a, b)| a.initial == b.initial && a.offset == offset));
        for ((_, a), (_, b)) in again.sites().iter().zip(first.sites()) {
            assert!(a.frozen().unwrap().to_f32() == b.frozen().unwrap().to_f32(), "{offset:?}");
        }
    }
}

#[test]
fn stored_factors_are_mounted_as_they_are() {
    let mut trained = model();
    let attached = started(
        &mut trained,
        &lowrank_init::methods::Gaussian::DEFAULT,
        lowrank_adapt::ALL[0],
        Offset::Shadow,
    );
    for each in &attached {
        for (_, var) in &each.variables {
            let noise = Seed(4).at("noise", &each.site.name).normal(var.values().len());
            var.assign(var.values().iter().zip(noise).map(|(value, noise)| value + 0.05 * noise).collect());
        }
    }
    let values = |each: &Attached, part: &str| {
        each.variables.iter().find(|(name, _)| *name == part).map(|(_, var)| var.values()).unwrap()
    };
    let factors: Vec<Factor> = attached
        .iter()
        .map(|each| {
            let [out, inp] = each.site.shape;
            let (left, right) = (values(each, "left"), values(each, "right"));
            Factor::linear(&each.site.name, (out, inp, each.site.rank), left, right)
        })
        .collect();
    let scale = |name: &str| attached.iter().find(|each| each.site.name == name).unwrap().site.scale;
    let mut fresh = model();
    restore(&mut fresh, &factors, &scale, lowrank_adapt::ALL[0], "b").unwrap();
    let mounted = fresh.sites().iter().filter(|(_, linear)| !linear.adapters().is_empty()).count();
    assert_eq!(mounted, factors.len());
    assert!(worst(&logits(&fresh), &logits(&trained)) < 1e-5);
    assert!(worst(&logits(&fresh), &logits(&model())) > 1e-2, "the change is not nothing");
    let mut strange = factors;
    strange[0].module.push('x');
    assert!(restore(&mut model(), &strange, &scale, lowrank_adapt::ALL[0], "b").is_err());
}

/// The whole gradient of every site, by training the weights themselves.
fn whole_gradients(batch: &Calibration) -> Vec<(String, Vec<f32>)> {
    let mut model = model();
    let variables = model.train_all().unwrap();
    let mut found = Vec::new();
    let passed = model
        .gradients(
            &batch.tokens,
            &batch.targets,
            &batch.layout,
            Recompute::Nothing,
            false,
            &mut |gradients| {
                for (name, variable) in &variables {
                    if let Some(gradient) = variable.take_gradient(gradients) {
                        found.push((name.trim_end_matches(".weight").to_owned(), to_rows(gradient)));
                    }
                }
            },
        )
        .unwrap();
    for (_, gradient) in &mut found {
        gradient.iter_mut().for_each(|value| *value /= passed.weight as f32);
    }
    found
}

#[test]
fn evidence_is_the_leading_part_of_the_whole_gradient() {
    let batches = [calibration(3, "first"), calibration(2, "second")];
    let mut model = model();
    let plan = plan(&model);
    for given in [&batches[..1], &batches[..]] {
        let seen = evidence(&mut model, &plan, given);
        let weight = |batch: &Calibration| batch.targets.ids.iter().filter(|&&id| id >= 0).count() as f32;
        let total: f32 = given.iter().map(weight).sum();
        let mut ratios = Vec::new();
        for (name, sketched) in &seen.sites {
            let mut whole: Vec<f32> = Vec::new();
            for batch in given {
                let gradients = whole_gradients(batch);
                let (_, gradient) = gradients.iter().find(|(site, _)| site == name).unwrap();
                whole.resize(gradient.len(), 0.0);
                let share = weight(batch) / total;
                whole.iter_mut().zip(gradient).for_each(|(sum, more)| *sum += share * more);
            }
            let site = plan.sites.iter().find(|site| site.name == *name).unwrap();
            let [out, inp] = site.shape;
            let exact =
                lowrank_linalg::svd_in_f64(faer::MatRef::from_row_major_slice(&whole, out, inp)).unwrap();
            for (found, exact) in sketched.svd.values.iter().zip(&exact.values) {
                assert!((found - exact).abs() < 2e-2 * exact, "{name}: {found} {exact}");
            }
            let energy: f64 = whole.iter().map(|&value| f64::from(value).powi(2)).sum();
            assert!(!sketched.exact || (sketched.energy - energy).abs() < 1e-3 * energy, "{name}");
            ratios.push(sketched.energy / energy);
        }
        // Over several passes each is an unbiased estimate of relative deviation below sqrt(2 / 16).
        let mean = ratios.iter().sum::<f64>() / ratios.len() as f64;
        assert!((mean - 1.0).abs() < 3.0 * (2.0_f64 / 16.0 / ratios.len() as f64).sqrt(), "{mean}");
    }
}

#[test]
fn the_first_step_of_lora_ga_is_the_best_of_its_rank_through_the_whole_model() {
    // Spec 6.5: cos(first step, G) = sqrt(sum of the 2r leading squared singular values / sum of all).
    let batch = calibration(4, "calibration");
    let whole = whole_gradients(&batch);
    let mut model = model();
    let attached =
        started(&mut model, &lowrank_init::methods::LoraGa::DEFAULT, lowrank_adapt::ALL[0], Offset::Shadow);
    let mut gradients: Vec<Vec<Vec<f32>>> = vec![Vec::new(); attached.len()];
    model
        .gradients(&batch.tokens, &batch.targets, &batch.layout, Recompute::Nothing, false, &mut |found| {
            for (each, slot) in attached.iter().zip(&mut gradients) {
                for (_, variable) in &each.variables {
                    slot.extend(variable.take_gradient(found).map(to_rows));
                }
            }
        })
        .unwrap();
    // One step of SGD so small that the product of the two changes is nothing.
    const RATE: f32 = 1e-4;
    let delta = |model: &Decoder, name: &str| {
        let (_, linear) = model.sites().into_iter().find(|(site, _)| site == name).unwrap();
        linear.adapters()[0].adapter.delta(linear.frozen().unwrap())
    };
    for (each, gradients) in attached.iter().zip(&gradients) {
        let before = delta(&model, &each.site.name);
        for ((_, variable), gradient) in each.variables.iter().zip(gradients) {
            variable.assign(variable.values().iter().zip(gradient).map(|(v, g)| v - RATE * g).collect());
        }
        let step: Vec<f64> = delta(&model, &each.site.name)
            .iter()
            .zip(&before)
            .map(|(after, before)| f64::from(before - after))
            .collect();
        let (_, gradient) = whole.iter().find(|(name, _)| *name == each.site.name).unwrap();
        let dot: f64 = step.iter().zip(gradient).map(|(s, &g)| s * f64::from(g)).sum();
        let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
        let cosine =
            dot / (norm(&mut step.iter().copied()) * norm(&mut gradient.iter().map(|&g| f64::from(g))));
        let [out, inp] = each.site.shape;
        let values = lowrank_linalg::svd_in_f64(faer::MatRef::from_row_major_slice(gradient, out, inp))
            .unwrap()
            .values;
        let energy = |values: &[f64]| values.iter().map(|value| value * value).sum::<f64>();
        let optimum = (energy(&values[..2 * each.site.rank]) / energy(&values)).sqrt();
        assert!(optimum < 0.999, "{}: the law says nothing where the gradient has that rank", each.site.name);
        assert!((cosine - optimum).abs() < 1e-3, "{}: {cosine} {optimum}", each.site.name);
    }
}

#[test]
fn missing_evidence_is_an_error() {
    let mut model = model();
    let plan = plan(&model);
    let start = lowrank_init::methods::LoraGa::DEFAULT;
    let form = lowrank_adapt::ALL[0];
    assert!(attach(&mut model, &plan, &start, form, Offset::Shadow, None, Seed(3), "a").is_err());
    assert!(model.sites().iter().all(|(_, linear)| linear.adapters().is_empty()), "nothing was mounted");
    assert!(collect(&mut model, &plan, &[], Recompute::Nothing, 2, Seed(8)).is_err());
}
