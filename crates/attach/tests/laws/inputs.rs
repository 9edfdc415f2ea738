//! What layers are fed, and what a start makes of it.

use lowrank_adapt::Offset;
use lowrank_attach::{
    AttachError, Collected, Plan, Targets as Chosen, Way, attach, collect, collect_inputs, fed,
};
use lowrank_init::{CollectedInputs, GradientMap, Initialiser, InputsWanted, methods};
use lowrank_models::Recompute;
use lowrank_record::Seed;

use crate::small::*;

fn moments(seen: &CollectedInputs) -> &lowrank_linalg::Moments {
    match seen {
        CollectedInputs::Moments(moments) => moments,
        CollectedInputs::Components(_) => panic!("moments were asked for"),
    }
}

#[test]
fn layers_that_are_fed_the_same_share_one_statistic() {
    let mut model = model();
    let plan = plan(&model);
    let batches = [calibration(3, "first"), calibration(2, "second")];
    let seen =
        collect_inputs(&mut model, &plan, &batches, InputsWanted::moments(), &|site| site.rank, Seed(8))
            .unwrap();
    // Query, key and value; output; gate and up; down; in each of two blocks.
    assert_eq!(seen.collected.len(), 8);
    let group = |name: &str| seen.groups[&format!("model.layers.0.{name}")];
    assert!(
        group("self_attn.q_proj") == group("self_attn.k_proj")
            && group("self_attn.k_proj") == group("self_attn.v_proj")
    );
    assert!(group("mlp.gate_proj") == group("mlp.up_proj"));
    let apart = ["self_attn.q_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj"].map(group);
    assert!((0..4).all(|i| (0..i).all(|j| apart[i] != apart[j])));
    assert_eq!((seen.batches, seen.tokens), (2, 45));
    // The same statistic from one batch of both, and nothing is left behind on the model.
    assert!(model.sites().iter().all(|(_, linear)| !linear.shows_inputs()));
    for (name, group) in &seen.groups {
        assert_eq!(moments(&seen.collected[*group]).rows(), 45, "{name}");
    }
}

#[test]
fn tokens_that_are_not_let_in_have_no_part() {
    let mut model = model();
    let plan = plan(&model);
    let collect = |model: &mut _, batch| {
        collect_inputs(model, &plan, &[batch], InputsWanted::moments(), &|site| site.rank, Seed(8)).unwrap()
    };
    // The last places of each row are padding, whatever stands there.
    let masked = |fill: u32| {
        let mut batch = calibration(3, "first");
        for row in 0..3 {
            for place in 6..9 {
                batch.shown[0][9 * row + place] = false;
                batch.batch.tokens[9 * row + place] = fill;
            }
        }
        batch
    };
    let (one, other) = (collect(&mut model, masked(1)), collect(&mut model, masked(2)));
    assert_eq!(one.tokens, 18);
    assert!(one == other);
    let mut nothing = calibration(3, "first");
    nothing.shown[0].fill(false);
    let refused =
        collect_inputs(&mut model, &plan, &[nothing], InputsWanted::moments(), &|site| site.rank, Seed(8));
    assert!(matches!(refused, Err(AttachError::NothingShown)));
    let refused = collect_inputs(&mut model, &plan, &[], InputsWanted::moments(), &|site| site.rank, Seed(8));
    assert!(matches!(refused, Err(AttachError::NoInputs)));
}

#[test]
fn eva_moves_ranks_and_keeps_budget_and_scales() {
    let mut model = model();
    let chosen = Chosen::parse("all-linear", None, None).unwrap();
    let plan = Plan::new(&model, &chosen, 4, 7.0, true, &[], &[]).unwrap();
    let eva = methods::Eva::DEFAULT;
    let shown = Shown::to(&mut model, &plan, &eva);
    let moved = plan.redistributed(&eva, shown.inputs.as_ref().unwrap(), Seed(1)).unwrap();
    let sum = |plan: &Plan| plan.sites.iter().map(|site| site.rank).sum::<usize>();
    assert_eq!(sum(&moved), sum(&plan));
    assert!(moved.sites.iter().any(|site| site.rank != 4), "no rank was moved");
    assert!(moved.sites.iter().all(|site| site.rank <= 8 && (site.scale - 3.5).abs() < 1e-12));
    // Layers of a group begin with leading rows of the same matrix.
    let way = Way { initialiser: Some(&eva), form: lowrank_adapt::ALL[0], offset: Offset::Shadow };
    let attached = attach(&mut model, &moved, way, shown.collected(), Seed(3), "a").unwrap();
    let right = |name: &str| {
        let each = attached.iter().find(|each| each.site.name.ends_with(name));
        each.map(|each| each.initial.clone().unwrap().1)
    };
    if let (Some(q), Some(k)) = (right("0.self_attn.q_proj"), right("0.self_attn.k_proj")) {
        let shorter = q.len().min(k.len());
        assert!(worst(&q[..shorter], &k[..shorter]) < 1e-5);
    }
}

#[test]
fn a_map_of_the_gradient_is_that_of_all_batches_together() {
    let mut model = model();
    let plan = plan(&model);
    let leading = |rank: usize| methods::LoraSb::DEFAULT.leading(rank);
    assert_eq!(leading(2).of, GradientMap::Sign);
    let (first, second) = (calibration(3, "first"), calibration(2, "second"));
    let whole: Vec<_> = [&first, &second].map(|batch| whole_gradients(built(true), batch)).into();
    let seen = collect(&mut model, &plan, &[first, second], Recompute::Nothing, &leading, Seed(8)).unwrap();
    assert_eq!(seen.of, GradientMap::Sign);
    for site in &plan.sites {
        let gradient = |batch: usize| &whole[batch].iter().find(|(name, _)| *name == site.name).unwrap().1;
        let weights = [20.0, 13.0];
        let sum: Vec<f32> =
            gradient(0).iter().zip(gradient(1)).map(|(a, b)| weights[0] * a + weights[1] * b).collect();
        let [out, inp] = site.shape;
        let sign = GradientMap::Sign.apply(faer::MatRef::from_row_major_slice(&sum, out, inp));
        let exact = lowrank_linalg::svd_in_f64(sign.as_ref()).unwrap();
        for (found, wanted) in seen.sites[&site.name].svd.values.iter().zip(&exact.values) {
            assert!((found - wanted).abs() < 0.05 * exact.values[0], "{}: {found} {wanted}", site.name);
        }
    }
    let missing = attach(
        &mut model,
        &plan,
        Way {
            initialiser: Some(&methods::LoraSb::DEFAULT),
            form: &lowrank_adapt::forms::Core::DEFAULT,
            offset: Offset::Shadow,
        },
        Collected { gradients: Some(&seen), ..Collected::default() },
        Seed(3),
        "a",
    );
    assert!(missing.unwrap_err().to_string().contains("rate"), "the first rate is asked for by name");
}

#[test]
fn kept_inputs_are_those_of_which_statistics_are_made() {
    let mut model = model();
    let plan = plan(&model);
    let mut batch = calibration(3, "first");
    for row in 0..3 {
        batch.shown[0][9 * row + 8] = false;
    }
    let batches = [batch];
    let seen =
        collect_inputs(&mut model, &plan, &batches, InputsWanted::moments(), &|site| site.rank, Seed(8))
            .unwrap();
    let kept = fed(&mut model, &plan, &batches[0], 1000).unwrap();
    assert_eq!(kept.len(), plan.sites.len());
    for site in &plan.sites {
        let rows = kept[&site.name].as_ref();
        assert_eq!(rows.shape(), (24, site.shape[1]), "{}", site.name);
        let mut again = lowrank_linalg::Moments::new(site.shape[1]);
        again.absorb(rows).unwrap();
        assert_eq!(&again, moments(&seen.collected[seen.groups[&site.name]]), "{}", site.name);
    }
    let first = fed(&mut model, &plan, &batches[0], 5).unwrap();
    let name = &plan.sites[0].name;
    assert_eq!(first[name].as_ref(), kept[name].as_ref().subrows(0, 5));
    assert!(model.sites().iter().all(|(_, linear)| !linear.shows_inputs()));
}
