//! What must hold of every pair of start and form on a whole model; pairs join by their lines in the two catalogues.
#![allow(clippy::unwrap_used)] // A failure here is a failure of the test.

use lowrank_adapt::{Form, Offset};
use lowrank_attach::{
    AttachError, Attached, Calibration, Gradients, Plan, Targets as Chosen, attach, attach_stored, collect,
    restore,
};
use lowrank_init::{Exactness, InitError, Initialiser, Leading};
use lowrank_models::{Config, Decoder, Recompute};
use lowrank_record::{Need, Promise, Seed};
use lowrank_store::peft::Factor;
use lowrank_tensor::ops::{Layout, Targets};
use lowrank_tensor::{Matrix, cpu, to_rows};

const VOCABULARY: usize = 60;
/// Even: the orthogonal start halves it.
const RANK: usize = 4;

fn model() -> Decoder {
    built(true)
}

fn built(tied: bool) -> Decoder {
    let config = serde_json::json!({
        "model_type": "llama", "vocab_size": VOCABULARY, "hidden_size": 24, "intermediate_size": 40,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-5,
        "max_position_embeddings": 64, "tie_word_embeddings": tied
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

fn leading(rank: usize) -> Leading {
    lowrank_init::methods::LoraGa::DEFAULT.leading(rank)
}

fn evidence(model: &mut Decoder, plan: &Plan, batches: &[Calibration]) -> Gradients {
    collect(model, plan, batches, Recompute::Nothing, &leading, Seed(8)).unwrap()
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
                    // Of the weight's entries; the logits add a few hundred of those up.
                    Promise::Within(part) => assert!(f64::from(moved) < 200.0 * part, "{name}: {moved:e}"),
                    Promise::None => {}
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
fn whole_gradients(mut model: Decoder, batch: &Calibration) -> Vec<(String, Vec<f32>)> {
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
                let gradients = whole_gradients(built(true), batch);
                let (_, gradient) = gradients.iter().find(|(site, _)| site == name).unwrap();
                whole.resize(gradient.len(), 0.0);
                let share = weight(batch) / total;
                whole.iter_mut().zip(gradient).for_each(|(sum, more)| *sum += share * more);
            }
            let site = plan.sites.iter().find(|site| site.name == *name).unwrap();
            let [out, inp] = site.shape;
            let whole_matrix = faer::MatRef::from_row_major_slice(&whole, out, inp);
            let exact = lowrank_linalg::svd_in_f64(whole_matrix).unwrap();
            // Uᵀ·G·V is the diagonal of the values: the vectors are those of the gradient.
            let core = sketched.svd.left.transpose() * whole_matrix * sketched.svd.right.transpose();
            for (i, j) in (0..core.nrows()).flat_map(|i| (0..core.ncols()).map(move |j| (i, j))) {
                let wanted = if i == j { sketched.svd.values[i] } else { 0.0 };
                assert!((f64::from(core[(i, j)]) - wanted).abs() < 2e-2 * exact.values[0], "{name} {i} {j}");
            }
            for (found, exact) in sketched.svd.values.iter().zip(&exact.values) {
                assert!((found - exact).abs() < 2e-2 * exact, "{name}: {found} {exact}");
            }
            let energy: f64 = whole.iter().map(|&value| f64::from(value).powi(2)).sum();
            assert!(!sketched.exact || (sketched.energy - energy).abs() < 1e-3 * energy, "{name}");
            ratios.push(sketched.energy / energy);
        }
        // Over several passes each is an estimate from at least 8 columns, of relative deviation below sqrt(2 / 8).
        let mean = ratios.iter().sum::<f64>() / ratios.len() as f64;
        assert!((mean - 1.0).abs() < 3.0 * (2.0_f64 / 8.0 / ratios.len() as f64).sqrt(), "{mean}");
    }
}

#[test]
fn the_first_step_of_lora_ga_is_the_best_of_its_rank_through_the_whole_model() {
    // Spec 6.5: cos(first step, G) = sqrt(sum of the 2r leading squared singular values / sum of all).
    let batch = calibration(4, "calibration");
    let whole = whole_gradients(built(true), &batch);
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
fn the_head_has_a_gradient_of_its_own() {
    // A bare head is left out of the loss's forward; under observation it is not.
    let batches = [calibration(3, "first"), calibration(3, "second")];
    let mut model = built(false);
    let chosen = Chosen::parse("lm_head,q_proj", None, None).unwrap();
    let plan = Plan::new(&model, &chosen, 3, 7.0, true, &[], &[]).unwrap();
    for given in [&batches[..1], &batches[..]] {
        let seen = evidence(&mut model, &plan, given);
        let mut whole = vec![0.0_f32; VOCABULARY * 24];
        for batch in given {
            let gradients = whole_gradients(built(false), batch);
            let (_, gradient) = gradients.iter().find(|(site, _)| site == "lm_head").unwrap();
            // Batches with equally many targets.
            whole.iter_mut().zip(gradient).for_each(|(sum, more)| *sum += more / given.len() as f32);
        }
        let exact =
            lowrank_linalg::svd_in_f64(faer::MatRef::from_row_major_slice(&whole, VOCABULARY, 24)).unwrap();
        for (found, exact) in seen.sites["lm_head"].svd.values.iter().zip(&exact.values) {
            assert!((found - exact).abs() < 2e-2 * exact, "{found} {exact}");
        }
    }
}

#[test]
fn an_exact_decomposition_is_exact_and_takes_one_pass() {
    let mut model = model();
    let plan = plan(&model);
    let exact = |rank| Leading { exactness: Exactness::Exact, ..leading(rank) };
    let batches = [calibration(4, "first"), calibration(2, "second")];
    let seen = collect(&mut model, &plan, &batches[..1], Recompute::Nothing, &exact, Seed(8)).unwrap();
    for (name, gradient) in whole_gradients(built(true), &batches[0]) {
        let Some(found) = seen.sites.get(&name) else { continue };
        let [out, inp] = plan.sites.iter().find(|site| site.name == name).unwrap().shape;
        let svd =
            lowrank_linalg::svd_in_f64(faer::MatRef::from_row_major_slice(&gradient, out, inp)).unwrap();
        for (found, wanted) in found.svd.values.iter().zip(&svd.values) {
            assert!((found - wanted).abs() < 1e-5 * svd.values[0], "{name}: {found} {wanted}");
        }
    }
    let refused = collect(&mut model, &plan, &batches, Recompute::Nothing, &exact, Seed(8));
    assert!(matches!(refused, Err(AttachError::ExactInPasses { batches: 2 })));
}

#[test]
fn missing_evidence_is_an_error() {
    let mut model = model();
    let plan = plan(&model);
    let start = lowrank_init::methods::LoraGa::DEFAULT;
    let form = lowrank_adapt::ALL[0];
    let mut partial = evidence(&mut model, &plan, &[calibration(4, "calibration")]);
    partial.sites.remove(&plan.sites[3].name);
    for (gradients, missing) in [(None, &plan.sites[0].name), (Some(&partial), &plan.sites[3].name)] {
        let refused = attach(&mut model, &plan, &start, form, Offset::Shadow, gradients, Seed(3), "a");
        let Err(AttachError::Init { site, source: InitError::Missing { need: Need::Gradient, .. } }) =
            refused
        else {
            panic!("{refused:?}");
        };
        assert_eq!(&site, missing);
    }
    assert!(model.sites().iter().all(|(_, linear)| linear.adapters().is_empty()), "nothing was mounted");
    let none = collect(&mut model, &plan, &[], Recompute::Nothing, &leading, Seed(8));
    assert!(matches!(none, Err(AttachError::NoCalibration)));
}

#[test]
fn what_cannot_be_mounted_leaves_the_model_as_it_was() {
    let mut model = model();
    let (plan, form) = (plan(&model), lowrank_adapt::ALL[0]);
    let pissa = lowrank_init::methods::Pissa::DEFAULT;
    // The last layer has an adapter of this name already.
    let mut one = plan.clone();
    one.sites.drain(..one.sites.len() - 1);
    attach(&mut model, &one, &pissa, form, Offset::Shadow, None, Seed(3), "a").unwrap();
    let weights = |model: &Decoder| -> Vec<Vec<f32>> {
        model.sites().iter().map(|(_, linear)| linear.frozen().unwrap().to_f32()).collect()
    };
    let before = weights(&model);
    let refused = attach(&mut model, &plan, &pissa, form, Offset::Base, None, Seed(3), "a");
    assert!(matches!(refused, Err(AttachError::Adapt { .. })), "{refused:?}");
    assert!(weights(&model) == before);
    assert_eq!(model.sites().iter().filter(|(_, linear)| !linear.adapters().is_empty()).count(), 1);
}

#[test]
fn starts_and_plans_of_another_model_are_refused() {
    let (mut model, form) = (model(), lowrank_adapt::ALL[0]);
    let (plan, pissa) = (plan(&model), lowrank_init::methods::Pissa::DEFAULT);
    let short = attach_stored(&mut model, &plan, Vec::new(), form, "a");
    assert!(matches!(short, Err(AttachError::Starts { have: 0, want: 14 })), "{short:?}");
    let mut attached_to = |change: &dyn Fn(&mut lowrank_attach::Site)| {
        let mut other = plan.clone();
        change(&mut other.sites[4]);
        attach(&mut model, &other, &pissa, form, Offset::Shadow, None, Seed(3), "a").unwrap_err()
    };
    assert!(matches!(attached_to(&|site| site.name.push('x')), AttachError::UnknownSite(_)));
    assert!(matches!(attached_to(&|site| site.shape[0] += 2), AttachError::SiteShape { .. }));
}

#[test]
fn a_start_that_cannot_learn_or_overflows_is_refused() {
    let mut model = model();
    let plan = plan(&model);
    for (_, linear) in model.sites_mut() {
        let shape = linear.shape();
        let zero = Matrix::from_f32(vec![0.0; shape[0] * shape[1]], shape).unwrap();
        linear.replace_weight(zero).unwrap();
    }
    let form = lowrank_adapt::ALL[0];
    let refused = |name: &str, option: (&str, &str)| {
        let method = lowrank_init::by_name(name, [option]).unwrap();
        attach(&mut built(true), &plan, &*method, form, Offset::Shadow, None, Seed(3), "a").unwrap_err()
    };
    let huge = refused("orthogonal", ("width", "1e300"));
    assert!(matches!(huge, AttachError::Init { source: InitError::Overflow { .. }, .. }), "{huge}");
    let pissa = lowrank_init::methods::Pissa::DEFAULT;
    let zero = attach(&mut model, &plan, &pissa, form, Offset::Shadow, None, Seed(3), "a").unwrap_err();
    assert!(matches!(zero, AttachError::Init { source: InitError::ZeroWeight { .. }, .. }), "{zero}");
}

#[test]
fn a_pattern_that_is_none_is_named_as_it_was_typed() {
    let model = model();
    let chosen = Chosen::parse("all-linear", None, None).unwrap();
    let refused = Plan::new(&model, &chosen, 4, 7.0, true, &[("(=2".to_owned(), 2)], &[]).unwrap_err();
    assert!(refused.to_string().contains("(=2"), "{refused}");
}
