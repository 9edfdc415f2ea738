//! What is collected is the leading part of the gradient, however it is collected.

use lowrank_adapt::Offset;
use lowrank_attach::{
    AttachError, Calibration, Collected, Plan, Targets as Chosen, Way, admits_passes, attach, collect,
};
use lowrank_init::{Exactness, InitError, Leading};
use lowrank_models::{Decoder, Network, Recompute};
use lowrank_record::{Need, Seed};
use lowrank_tensor::to_rows;

use crate::small::*;

#[test]
fn evidence_is_the_leading_part_of_the_whole_gradient() {
    let batches = [calibration(3, "first"), calibration(2, "second")];
    let mut model = model();
    let plan = plan(&model);
    for given in [&batches[..1], &batches[..]] {
        let seen = evidence(&mut model, &plan, given);
        let weight =
            |batch: &Calibration| batch.batch.targets.ids.iter().filter(|&&id| id >= 0).count() as f32;
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
    Network::gradients(&model, &batch.batch, Recompute::Nothing, false, &mut |found| {
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
        let way = Way { initialiser: Some(&start), form, offset: Offset::Shadow };
        let collected = Collected { gradients, ..Collected::default() };
        let refused = attach(&mut model, &plan, way, collected, Seed(3), "a");
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
fn auto_is_admitted_in_passes_and_fast_there() {
    let mut model = model();
    let plan = plan(&model);
    let auto = |rank| Leading { exactness: Exactness::Auto, ..leading(rank) };
    let batches = [calibration(4, "first"), calibration(2, "second")];
    assert!(admits_passes(&auto(RANK), 2).is_ok());
    let in_passes = collect(&mut model, &plan, &batches, Recompute::Nothing, &auto, Seed(8)).unwrap();
    let fast = evidence(&mut model, &plan, &batches);
    assert!(in_passes.sites == fast.sites);
    let exact = Leading { exactness: Exactness::Exact, ..leading(RANK) };
    assert!(admits_passes(&exact, 1).is_ok());
    assert!(matches!(admits_passes(&exact, 2), Err(AttachError::ExactInPasses { batches: 2 })));
}

#[test]
fn computing_blocks_again_changes_no_evidence() {
    let batches = [calibration(3, "first"), calibration(2, "second")];
    let mut model = model();
    let plan = plan(&model);
    for given in [&batches[..1], &batches[..]] {
        let kept = evidence(&mut model, &plan, given);
        let again = collect(&mut model, &plan, given, Recompute::Blocks, &leading, Seed(8)).unwrap();
        assert!(again.sites == kept.sites, "{} batches", given.len());
        assert_eq!((again.loss, again.weight), (kept.loss, kept.weight));
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let batches = [calibration(3, "first"), calibration(2, "second")];
    for given in [&batches[..1], &batches[..]] {
        let work = || {
            let mut model = model();
            let plan = plan(&model);
            let seen = evidence(&mut model, &plan, given);
            let start = lowrank_init::methods::LoraGa::DEFAULT;
            let form = lowrank_adapt::ALL[0];
            let way = Way { initialiser: Some(&start), form, offset: Offset::Base };
            let collected = Collected { gradients: Some(&seen), ..Collected::default() };
            let attached = attach(&mut model, &plan, way, collected, Seed(3), "a");
            let initial: Vec<_> = attached.unwrap().into_iter().map(|each| each.initial).collect();
            (seen.sites, seen.loss, initial, logits(&model))
        };
        let on =
            |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(work);
        let one = on(1);
        for threads in [2, 3] {
            assert!(on(threads) == one, "{} batches on {threads} threads", given.len());
        }
    }
}
