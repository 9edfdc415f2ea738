//! Edges through a whole model: weights of a small rank, ranks that a start decides, little evidence or none. Each is handled, or
//! refused by the name of the layer.

use std::collections::BTreeMap;

use lowrank_adapt::{Form, Offset};
use lowrank_attach::{
    AttachError, Calibration, Collected, Plan, Targets as Chosen, Way, attach, collect, collect_inputs,
};
use lowrank_init::{InitError, Initialiser, InputsWanted, by_name, methods};
use lowrank_models::network::Text;
use lowrank_models::{Decoder, Network, Recompute};
use lowrank_record::Seed;
use lowrank_tensor::Matrix;
use lowrank_tensor::ops::{Layout, Targets};

use crate::small::*;

const DEFICIENT: &str = "model.layers.0.mlp.up_proj";
const SILENT: &str = "model.layers.0.self_attn.o_proj";

/// Puts other weights into a layer.
fn changed(model: &mut Decoder, layer: &str, value: impl Fn(usize, usize) -> f32) {
    for (name, linear) in model.sites_mut() {
        if name == layer {
            let [out, inp] = linear.shape();
            let values = (0..out * inp).map(|index| value(index / inp, index % inp)).collect();
            linear.replace_weight(Matrix::from_f32(values, [out, inp]).unwrap()).unwrap();
        }
    }
}

/// Whose up projection has rank 1 and rows of zeros.
fn deficient() -> Decoder {
    let mut model = model();
    let row = |i: usize| if i.is_multiple_of(5) { 0.0 } else { (i as f32 * 0.7).sin() };
    changed(&mut model, DEFICIENT, |i, j| 0.2 * row(i) * (1.0 + j as f32).cos());
    model
}

fn form(name: &str) -> Box<dyn Form> {
    lowrank_adapt::by_name(name, [("", ""); 0]).unwrap()
}

fn start(name: &str, choices: &[(&str, &str)]) -> Box<dyn Initialiser> {
    by_name(name, choices.iter().copied()).unwrap()
}

#[test]
fn scales_and_diagonals_train_on_a_weight_of_small_rank() {
    let before = logits(&deficient());
    let ways: [(Option<&str>, &str); 5] = [
        (None, "ia3"),
        (Some("svfit"), "diag"),
        (Some("loldu"), "diag"),
        (Some("nlora"), "core"),
        (Some("lora-xs"), "core"),
    ];
    for (init, name) in ways {
        let mut model = deficient();
        let (plan, form) = (plan(&model), form(name));
        let initialiser = init.map(|init| start(init, &[]));
        let way = Way { initialiser: initialiser.as_deref(), form: &*form, offset: Offset::Shadow };
        let attached = attach(&mut model, &plan, way, Collected::default(), Seed(3), "a").unwrap();
        let moved = worst(&logits(&model), &before);
        assert!(moved < 4e-4 || init == Some("lora-xs"), "{init:?} in {name}: {moved:e}");
        let warned = |layer: &str| {
            attached.iter().find(|each| each.site.name == layer).unwrap().report.get("warning").is_some()
        };
        assert_eq!(warned(DEFICIENT), init.is_some(), "{init:?} in {name}");
        assert!(!warned("model.layers.1.mlp.up_proj"), "{init:?} in {name}");
        // Every value of the layer has a gradient that is a number, and what is trained is a number.
        let batch = calibration(3, "first");
        let mut seen = 0;
        let look = &mut |found: &mut _| {
            for each in attached.iter().filter(|each| each.site.name == DEFICIENT) {
                for (_, variable) in &each.variables {
                    let gradient = lowrank_tensor::to_rows(variable.take_gradient(found).unwrap());
                    assert!(gradient.iter().all(|value| value.is_finite()), "{init:?} in {name}");
                    assert!(gradient.iter().any(|value| *value != 0.0), "{init:?} in {name}: nothing learns");
                    seen += gradient.len();
                }
            }
        };
        Network::gradients(&model, &batch.batch, Recompute::Nothing, false, look).unwrap();
        assert!(seen > 0, "{init:?} in {name}");
        train_a_little(&attached);
        assert!(logits(&model).iter().all(|value| value.is_finite()), "{init:?} in {name}");
    }
}

#[test]
fn a_start_that_chooses_its_ranks_has_them_and_keeps_scale_and_function() {
    let before = logits(&model());
    for (choices, fixed) in [
        (&[("rank", "full")][..], None),
        (&[("rank", "energy"), ("share", "0.9")][..], None),
        (&[("rank", "fixed")][..], Some(RANK)),
    ] {
        let mut model = model();
        let (planned, svfit, diag) = (plan(&model), start("svfit", choices), form("diag"));
        let chosen = planned.chosen(&model, &*svfit).unwrap();
        assert!(planned.chosen(&model, &*start("pissa", &[])).unwrap() == planned);
        // Chosen by the weight alone, whatever was planned before.
        assert!(
            chosen
                .chosen(&model, &*svfit)
                .unwrap()
                .sites
                .iter()
                .zip(&chosen.sites)
                .all(|(a, b)| a.rank == b.rank)
        );
        let weights: BTreeMap<_, _> = model
            .sites()
            .into_iter()
            .map(|(name, linear)| (name, linear.frozen().unwrap().to_f32()))
            .collect();
        for (site, old) in chosen.sites.iter().zip(&planned.sites) {
            let [out, inp] = site.shape;
            assert!((site.scale / old.scale - 1.0).abs() < 1e-12, "{}", site.name);
            let again = lowrank_record::scale(site.alpha, site.rank, chosen.rank_stabilised);
            assert!((again / old.scale - 1.0).abs() < 1e-12, "{}", site.name);
            let weight = faer::MatRef::from_row_major_slice(&weights[&site.name], out, inp);
            let values = lowrank_linalg::svd_in_f64(weight).unwrap().values;
            let held = |rank: usize| lowrank_linalg::energy_fraction(&values, rank);
            match (choices[0].1, fixed) {
                ("full", _) => assert_eq!(site.rank, out.min(inp)),
                ("energy", _) => {
                    assert!(held(site.rank) >= 0.9 && held(site.rank - 1) < 0.9, "{}", site.name)
                }
                _ => assert_eq!(site.rank, old.rank),
            }
        }
        let way = Way { initialiser: Some(&*svfit), form: &*diag, offset: Offset::Shadow };
        let attached = attach(&mut model, &chosen, way, Collected::default(), Seed(3), "a").unwrap();
        for (each, site) in attached.iter().zip(&chosen.sites) {
            assert_eq!(each.variables[0].1.values().len(), site.rank, "{}", site.name);
        }
        let moved = worst(&logits(&model), &before);
        assert!(moved < 4e-4, "{choices:?}: {moved:e}");
    }
    // A weight that has no rank is named.
    let mut silent = model();
    changed(&mut silent, SILENT, |_, _| 0.0);
    let energy = start("svfit", &[("rank", "energy")]);
    let refused = plan(&silent).chosen(&silent, &*energy).unwrap_err();
    assert!(
        matches!(&refused, AttachError::Init { site, source: InitError::ZeroWeight { .. } } if site == SILENT),
        "{refused}"
    );
}

#[test]
fn a_huge_rho_asks_for_no_more_than_there_is() {
    let mut model = model();
    let chosen = Chosen::parse("all-linear", None, None).unwrap();
    let plan = Plan::new(&model, &chosen, 4, 7.0, true, &[], &[]).unwrap();
    let eva = start("eva", &[("rho", "1e9")]);
    let budget: usize = plan.sites.iter().map(|site| site.rank).sum();
    let most: Vec<usize> = plan.sites.iter().map(|site| plan.largest_rank(&*eva, site)).collect();
    assert!(plan.sites.iter().zip(&most).all(|(site, &most)| most <= site.shape[0].min(site.shape[1])));
    assert_eq!(eva.inputs(24).count, 24);
    // Of a single layer its own rank is all that there is to give out.
    let one = Plan { sites: plan.sites[..1].to_vec(), ..plan.clone() };
    assert_eq!(one.largest_rank(&*eva, &one.sites[0]), 4);
    let shown = Shown::to(&mut model, &plan, &*eva);
    let moved = plan.redistributed(&*eva, shown.inputs.as_ref().unwrap(), Seed(1)).unwrap();
    let sum: usize = moved.sites.iter().map(|site| site.rank).sum();
    assert!(
        sum <= budget && moved.sites.iter().all(|site| site.rank <= site.shape[0].min(site.shape[1])),
        "{sum}"
    );
    let way = Way { initialiser: Some(&*eva), form: lowrank_adapt::ALL[0], offset: Offset::Shadow };
    let before = logits(&model);
    attach(&mut model, &moved, way, shown.collected(), Seed(3), "a").unwrap();
    assert!(worst(&logits(&model), &before) < 1e-6);
}

#[test]
fn a_control_moves_ranks_as_its_method_does() {
    let mut model = model();
    let plan = plan(&model);
    let (eva, control) = (start("eva", &[]), start("random-control", &[("of", "eva")]));
    let ranks = |model: &mut Decoder, initialiser: &dyn Initialiser| {
        let shown = Shown::to(model, &plan, initialiser);
        let moved = plan.redistributed(initialiser, shown.inputs.as_ref().unwrap(), Seed(1)).unwrap();
        moved.sites.into_iter().map(|site| (site.name, site.rank)).collect::<Vec<_>>()
    };
    let (wanted, found) = (ranks(&mut model, &*eva), ranks(&mut model, &*control));
    assert_eq!(found, wanted);
    assert!(
        plan.sites.iter().map(|site| site.rank).ne(wanted.iter().map(|(_, rank)| *rank)),
        "no rank was moved"
    );
}

#[test]
fn moments_are_of_every_batch_however_many() {
    let mut model = model();
    let chosen = Chosen::parse("q_proj", None, Some("0")).unwrap();
    let plan = Plan::new(&model, &chosen, 2, 7.0, true, &[], &[]).unwrap();
    let one = |index: usize| {
        let targets = Targets { ids: vec![-1; 2].into(), weights: None };
        let batch = Text { tokens: tokens(2, &index.to_string()), targets, layout: Layout::dense(1, 2) };
        Calibration { batch, shown: vec![vec![true; 2]] }
    };
    let batches: Vec<Calibration> = (0..300).map(one).collect();
    for wanted in [InputsWanted::moments(), methods::Eva::DEFAULT.inputs(4)] {
        let seen = collect_inputs(&mut model, &plan, &batches, wanted, &|site| site.rank, Seed(8)).unwrap();
        assert_eq!((seen.batches, seen.tokens), (300, 600));
        assert_eq!(seen.collected[0].inputs().rows(), 600);
    }
}

/// One row of so many tokens, of which all but the first carry loss.
fn sample(length: usize) -> Calibration {
    let tokens = tokens(length, "sample");
    let ids: Vec<i32> =
        tokens.iter().enumerate().map(|(i, &id)| if i == 0 { -1 } else { id as i32 }).collect();
    let targets = Targets { ids: ids.into(), weights: None };
    let batch = Text { tokens, targets, layout: Layout::dense(1, length) };
    Calibration { batch, shown: vec![vec![true; length]] }
}

#[test]
fn one_sample_is_evidence_enough_or_refused_by_name() {
    let lora = lowrank_adapt::ALL[0];
    for (name, choices, length, enough) in [
        ("eva", &[("rho", "1")][..], 3, false),
        ("eva", &[("rho", "1")][..], 9, true),
        ("corda", &[][..], 2, true),
        ("lora-ga", &[][..], 9, true),
        ("lora-sb", &[][..], 9, true),
    ] {
        let mut model = model();
        let (plan, initialiser) = (plan(&model), start(name, choices));
        let batch = [sample(length)];
        let gradients = initialiser.needs().contains(&lowrank_record::Need::Gradient).then(|| {
            collect(&mut model, &plan, &batch, Recompute::Nothing, &|rank| initialiser.leading(rank), Seed(8))
                .unwrap()
        });
        let inputs = initialiser.needs().contains(&lowrank_record::Need::Inputs).then(|| {
            let wanted = initialiser.inputs(RANK);
            collect_inputs(&mut model, &plan, &batch, wanted, &|site| site.rank, Seed(8)).unwrap()
        });
        let collected =
            Collected { gradients: gradients.as_ref(), inputs: inputs.as_ref(), first_rate: Some(0.01) };
        let core = form("core");
        let form = if name == "lora-sb" { &*core } else { lora };
        let way = Way { initialiser: Some(&*initialiser), form, offset: Offset::Shadow };
        match attach(&mut model, &plan, way, collected, Seed(3), "a") {
            Ok(attached) => {
                assert!(enough, "{name} from {length} tokens");
                assert!(
                    attached
                        .iter()
                        .all(|each| each.parts.iter().all(|part| part.values.iter().all(|x| x.is_finite())))
                );
            }
            Err(AttachError::Init { site, source: InitError::FewDirections { have, rank, .. } }) => {
                assert!(
                    !enough && have < rank && plan.sites.iter().any(|planned| planned.name == site),
                    "{name}: {site}"
                );
            }
            Err(error) => panic!("{name} from {length} tokens: {error}"),
        }
    }
}

#[test]
fn labels_that_are_all_masked_are_refused() {
    let mut model = model();
    let plan = plan(&model);
    let mut batch = calibration(3, "first");
    batch.batch.targets.ids = vec![-1; 27].into();
    let refused = collect(&mut model, &plan, &[batch], Recompute::Nothing, &leading, Seed(8)).unwrap_err();
    assert!(matches!(refused, AttachError::NoLoss), "{refused}");
}

#[test]
fn a_layer_whose_gradient_is_zero_is_named() {
    // Behind the value, query and key projections nothing passes on what they give.
    let silent = || {
        let mut model = model();
        changed(&mut model, SILENT, |_, _| 0.0);
        model
    };
    let chosen = Chosen::parse("q_proj,v_proj", None, None).unwrap();
    for (name, form_name) in [("lora-ga", "lora"), ("lora-sb", "core"), ("lora-sb-control", "core")] {
        let mut model = silent();
        let plan = Plan::new(&model, &chosen, 2, 7.0, true, &[], &[]).unwrap();
        let (initialiser, form) = (start(name, &[]), form(form_name));
        let shown = Shown::to(&mut model, &plan, &*initialiser);
        let before = logits(&model);
        let way = Way { initialiser: Some(&*initialiser), form: &*form, offset: Offset::Shadow };
        let refused = attach(&mut model, &plan, way, shown.collected(), Seed(3), "a").unwrap_err();
        let AttachError::Init { site, source: InitError::ZeroGradient { .. } } = &refused else {
            panic!("{name}: {refused}")
        };
        assert!(site.starts_with("model.layers.0.self_attn."), "{site}");
        assert!(logits(&model) == before, "{name}: a refusal leaves the model as it was");
    }
}
