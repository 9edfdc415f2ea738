//! What is mounted keeps its promise, or nothing is mounted.

use lowrank_adapt::{AdaptError, Linear, Offset, Part, Takes};
use lowrank_attach::{
    AttachError, Attached, Collected, Plan, StoredParts, StoredStart, Targets as Chosen, Way, attach,
    attach_stored, restore, restore_parts,
};
use lowrank_init::{InitError, Initialiser};
use lowrank_linalg::LowRank;
use lowrank_models::Decoder;
use lowrank_record::{Promise, Seed};
use lowrank_store::peft::Factor;
use lowrank_tensor::Matrix;

use crate::small::*;

/// What may be said of a pair of a start and a form that does not go together.
fn is_named_refusal(error: &AttachError) -> bool {
    match error {
        AttachError::TakesNoStart { .. } => true,
        AttachError::Adapt { source, .. } => {
            matches!(
                source,
                AdaptError::Core { .. } | AdaptError::NotDiagonal { .. } | AdaptError::NeverLearns { .. }
            )
        }
        _ => false,
    }
}

#[test]
fn every_pair_keeps_its_promise_at_step_0_or_is_refused_by_name() {
    let before = logits(&model());
    let (mut attached_pairs, mut refused_pairs) = (0, 0);
    for initialiser in lowrank_init::ALL {
        for form in lowrank_adapt::ALL {
            for offset in [Offset::Shadow, Offset::Base] {
                let mut model = model();
                let name = format!("{} in {}", initialiser.card().name, form.card().name);
                let attached = match try_started(&mut model, *initialiser, *form, offset) {
                    Ok(attached) => attached,
                    Err(error) => {
                        assert!(is_named_refusal(&error), "{name}: {error}");
                        assert!(logits(&model) == before, "{name}: a refusal leaves the model as it was");
                        refused_pairs += 1;
                        continue;
                    }
                };
                attached_pairs += 1;
                assert_eq!(attached.len(), plan(&model).sites.len());
                let moved = worst(&logits(&model), &before);
                match initialiser.promise() {
                    Promise::Zero => assert!(moved < 1e-6, "{name}: {moved:e}"),
                    Promise::Exact => assert!(moved < 4e-4, "{name}: {moved:e}"),
                    // Of the weight's entries; the logits add a few hundred of those up.
                    Promise::Within(part) => assert!(f64::from(moved) < 200.0 * part, "{name}: {moved:e}"),
                    Promise::None => {}
                }
                for each in &attached {
                    // At least one side is not zero, or nothing could be trained.
                    let (left, right) = each.initial.as_ref().unwrap();
                    let parts = each.parts.iter().flat_map(|part| &part.values);
                    assert!(left.iter().chain(right).chain(parts).any(|value| *value != 0.0), "{name}");
                    assert!(!each.variables.is_empty(), "{name}: nothing is trained");
                }
            }
        }
    }
    // As many as there are: a pair that stops attaching, or starts to, is noticed.
    assert!(attached_pairs > 2 * 30 && refused_pairs > 2 * 100, "{attached_pairs} {refused_pairs}");
}

#[test]
fn a_form_that_makes_its_own_start_begins_as_the_base() {
    let before = logits(&model());
    for form in lowrank_adapt::ALL.iter().filter(|form| form.takes() == Takes::Nothing) {
        let name = form.card().name;
        // The widths of the small model have no blocks of the usual sizes.
        let options: &[(&str, &str)] =
            if matches!(name, "oft" | "boft") { &[("block-size", "8")] } else { &[] };
        let form = lowrank_adapt::by_name(name, options.iter().copied()).unwrap();
        let mut model = model();
        let plan = plan(&model);
        let way = Way { initialiser: None, form: &*form, offset: Offset::Shadow };
        let attached = attach(&mut model, &plan, way, Collected::default(), Seed(3), "a").unwrap();
        assert!(worst(&logits(&model), &before) < 1e-5, "{name}");
        train_a_little(&attached);
        let trained = logits(&model);
        assert!(worst(&trained, &before) > 1e-3, "{name}: what is trained changes nothing");
        // What is kept of it mounts again, and trained parts too.
        let mut again = built(true);
        let parts: Vec<StoredParts> = model
            .sites()
            .iter()
            .filter(|(_, linear)| !linear.adapters().is_empty())
            .map(|(site, linear)| StoredParts {
                module: site.clone(),
                shape: None,
                rank: plan.sites.iter().find(|planned| planned.name == *site).unwrap().rank,
                parts: linear.adapters()[0].adapter.parts(),
            })
            .collect();
        let scale = |site: &str| plan.sites.iter().find(|planned| planned.name == site).unwrap().scale;
        restore_parts(&mut again, parts, &scale, &*form, "b").unwrap();
        assert!(worst(&logits(&again), &trained) < 1e-5, "{name}");
    }
    let lora = lowrank_adapt::ALL[0];
    let way = Way { initialiser: None, form: lora, offset: Offset::Shadow };
    let mut model = model();
    let plan = plan(&model);
    let refused = attach(&mut model, &plan, way, Collected::default(), Seed(3), "a").unwrap_err();
    assert!(matches!(refused, AttachError::NeedsStart { form: "lora" }), "{refused}");
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    for initialiser in lowrank_init::ALL {
        let form = lowrank_adapt::by_name("core", [("trains", "all")]).unwrap();
        let factors = || {
            let mut model = model();
            let attached = started(&mut model, *initialiser, &*form, Offset::Shadow);
            attached.into_iter().map(|each| each.initial).collect::<Vec<_>>()
        };
        assert!(factors() == factors(), "{}", initialiser.card().name);
    }
}

#[test]
fn a_stored_start_is_the_start_again() {
    let starts: [(&dyn Initialiser, &str); 4] = [
        (&lowrank_init::methods::Pissa::DEFAULT, "lora"),
        (&lowrank_init::methods::Pissa::DEFAULT, "dora"),
        (&lowrank_init::methods::Svfit::DEFAULT, "diag"),
        (&lowrank_init::methods::Loftq::DEFAULT, "lora"),
    ];
    for (start, form) in starts {
        for offset in [Offset::Shadow, Offset::Base] {
            let (mut first, mut again) = (model(), model());
            let form = lowrank_adapt::by_name(form, [("", ""); 0]).unwrap();
            let attached = started(&mut first, start, &*form, offset);
            let sites = first.sites();
            let stored = attached.iter().map(|each| {
                let linear = sites.iter().find(|(name, _)| *name == each.site.name).unwrap().1;
                StoredStart {
                    parts: each.parts.clone(),
                    initial: each.initial.clone(),
                    offset: each.offset,
                    base: each.replaced.then(|| linear.frozen().unwrap().to_f32()),
                }
            });
            let plan = plan(&again);
            let mounted = attach_stored(&mut again, &plan, stored.collect(), &*form, "a").unwrap();
            assert!(logits(&again) == logits(&first), "{offset:?}");
            let same = |(a, b): (&Attached, &Attached)| {
                a.initial == b.initial && a.offset == b.offset && a.replaced == b.replaced
            };
            assert!(mounted.iter().zip(&attached).all(same));
            for ((_, a), (_, b)) in again.sites().iter().zip(first.sites()) {
                assert!(a.frozen().unwrap().to_f32() == b.frozen().unwrap().to_f32(), "{offset:?}");
            }
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
    train_a_little(&attached);
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

#[test]
fn what_cannot_be_mounted_leaves_the_model_as_it_was() {
    let mut model = model();
    let (plan, form) = (plan(&model), lowrank_adapt::ALL[0]);
    let pissa = lowrank_init::methods::Pissa::DEFAULT;
    // The last layer has an adapter of this name already.
    let mut one = plan.clone();
    one.sites.drain(..one.sites.len() - 1);
    bare(&mut model, &one, &pissa, form, Offset::Shadow, "a").unwrap();
    let weights = |model: &Decoder| -> Vec<Vec<f32>> {
        model.sites().iter().map(|(_, linear)| linear.frozen().unwrap().to_f32()).collect()
    };
    let before = weights(&model);
    let refused =
        |model: &mut Decoder, name| bare(model, &plan, &pissa, form, Offset::Base, name).unwrap_err();
    let adapted =
        |model: &Decoder| model.sites().iter().map(|(_, linear)| linear.adapters().len()).sum::<usize>();
    let taken = refused(&mut model, "a");
    assert!(matches!(&taken, AttachError::Adapt { source: AdaptError::Taken(_), .. }), "{taken}");
    assert!(weights(&model) == before && adapted(&model) == 1);
    // The adapter of the last layer is in its weight, which another base would replace.
    let last = |model: &mut Decoder, change: &dyn Fn(&mut Linear)| {
        let mut sites = model.sites_mut();
        change(
            sites.iter_mut().rfind(|(site, _)| *site == one.sites[0].name).map(|(_, linear)| linear).unwrap(),
        );
    };
    last(&mut model, &|linear| linear.merge("a").unwrap());
    let merged = weights(&model);
    let refusal = refused(&mut model, "b");
    assert!(matches!(&refusal, AttachError::Adapt { source: AdaptError::Merged(_), .. }), "{refusal}");
    assert!(weights(&model) == merged && adapted(&model) == 1);
    last(&mut model, &|linear| linear.unmerge("a").unwrap());
    assert!(weights(&model) == before);
}

#[test]
fn starts_and_plans_of_another_model_are_refused() {
    let (mut model, form) = (model(), lowrank_adapt::ALL[0]);
    let (plan, pissa) = (plan(&model), lowrank_init::methods::Pissa::DEFAULT);
    let short = attach_stored(&mut model, &plan, Vec::new(), form, "a");
    assert!(matches!(short, Err(AttachError::Starts { have: 0, want: 14 })), "{short:?}");
    let start = |rank: usize| StoredStart {
        parts: vec![
            Part::new("right", &[rank, plan.sites[0].shape[1]], vec![0.5; plan.sites[0].shape[1] * rank]),
            Part::new(
                "left",
                &[plan.sites[0].shape[0] + 1, rank],
                vec![0.5; (plan.sites[0].shape[0] + 1) * rank],
            ),
        ],
        initial: None,
        offset: Offset::None,
        base: None,
    };
    let mut one = plan.clone();
    one.sites.truncate(1);
    let other = attach_stored(&mut model, &one, vec![start(2)], form, "a").unwrap_err();
    let AttachError::Adapt { source: AdaptError::PartShape { part: "left", .. }, .. } = &other else {
        panic!("{other}");
    };
    let baseless = StoredStart { offset: Offset::Base, ..start(2) };
    let other = attach_stored(&mut model, &one, vec![baseless], form, "a").unwrap_err();
    assert!(matches!(&other, AttachError::StoredBase { .. }), "{other}");
    let mut attached_to = |change: &dyn Fn(&mut lowrank_attach::Site)| {
        let mut other = plan.clone();
        change(&mut other.sites[4]);
        bare(&mut model, &other, &pissa, form, Offset::Shadow, "a").unwrap_err()
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
        bare(&mut built(true), &plan, &*method, form, Offset::Shadow, "a").unwrap_err()
    };
    let huge = refused("orthogonal", ("width", "1e300"));
    assert!(matches!(huge, AttachError::Init { source: InitError::Overflow { .. }, .. }), "{huge}");
    let tiny = refused("orthogonal", ("width", "1e-60"));
    assert!(matches!(tiny, AttachError::Init { source: InitError::Vanishes { .. }, .. }), "{tiny}");
    let pissa = lowrank_init::methods::Pissa::DEFAULT;
    let zero = bare(&mut model, &plan, &pissa, form, Offset::Shadow, "a").unwrap_err();
    assert!(matches!(zero, AttachError::Init { source: InitError::ZeroWeight { .. }, .. }), "{zero}");
}

#[test]
fn a_pattern_that_is_none_is_named_as_it_was_typed() {
    let model = model();
    let chosen = Chosen::parse("all-linear", None, None).unwrap();
    let refused = Plan::new(&model, &chosen, 4, 7.0, true, &[("(=2".to_owned(), 2)], &[]).unwrap_err();
    assert!(refused.to_string().contains("(=2"), "{refused}");
}

#[test]
fn two_adapters_add_their_changes() {
    let form = lowrank_adapt::ALL[0];
    let before = logits(&model());
    for offset in [Offset::Shadow, Offset::Base] {
        let mut model = model();
        let plan = plan(&model);
        let starts: [(&dyn Initialiser, &str); 2] = [
            (&lowrank_init::methods::Pissa::DEFAULT, "a"),
            (&lowrank_init::methods::LoraGaControl::DEFAULT, "b"),
        ];
        let mut attached = Vec::new();
        for (start, name) in starts {
            attached.extend(bare(&mut model, &plan, start, form, offset, name).unwrap());
        }
        assert!(worst(&logits(&model), &before) < 4e-4, "{offset:?}: both together begin as the base");
        train_a_little(&attached);
        // W + Σ scale·(left·right − left₀·right₀), formed by hand.
        let mut by_hand = built(true);
        for (name, linear) in by_hand.sites_mut() {
            let [out, inp] = linear.shape();
            let mut weight = linear.frozen().unwrap().to_f32();
            for each in attached.iter().filter(|each| each.site.name == name) {
                let factors = |left: &[f32], right: &[f32], scale: f64| {
                    LowRank::from_rows(left, right, out, inp, each.site.rank).unwrap().times(scale)
                };
                let now = factors(&values(each, "left"), &values(each, "right"), each.site.scale);
                let (left, right) = each.initial.as_ref().unwrap();
                let change = now.add(&factors(left, right, -each.site.scale)).unwrap();
                let change = lowrank_linalg::to_rows(change.reconstruct().as_ref());
                weight.iter_mut().zip(change).for_each(|(weight, change)| *weight += change);
            }
            linear.replace_weight(Matrix::from_f32(weight, [out, inp]).unwrap()).unwrap();
        }
        let (found, wanted) = (logits(&model), logits(&by_hand));
        assert!(worst(&wanted, &before) > 1e-2, "the changes are not nothing");
        assert!(worst(&found, &wanted) < 4e-4, "{offset:?}: {:e}", worst(&found, &wanted));
    }
}

#[test]
fn a_start_that_nothing_takes_back_is_refused() {
    let (mut model, form) = (model(), lowrank_adapt::ALL[0]);
    let plan = plan(&model);
    let pissa = lowrank_init::methods::Pissa::DEFAULT;
    let refused = bare(&mut model, &plan, &pissa, form, Offset::None, "a").unwrap_err();
    assert!(matches!(&refused, AttachError::NotTakenBack { init: "pissa", .. }), "{refused}");
    assert!(model.sites().iter().all(|(_, linear)| linear.adapters().is_empty()), "nothing was mounted");
}
