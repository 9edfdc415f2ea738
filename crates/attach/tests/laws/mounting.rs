//! What is mounted keeps its promise, or nothing is mounted.

use lowrank_adapt::{AdaptError, Linear, Offset, Takes};
use lowrank_attach::{AttachError, Plan, Targets as Chosen, attach, attach_stored, restore};
use lowrank_init::{Base, Evidence, InitError, Initialiser, Options, Start};
use lowrank_linalg::LowRank;
use lowrank_models::Decoder;
use lowrank_record::{Card, Promise, Seed};
use lowrank_store::peft::Factor;
use lowrank_tensor::Matrix;

use crate::small::*;

#[test]
fn every_pair_keeps_its_promise_at_step_0() {
    let before = logits(&model());
    for initialiser in lowrank_init::ALL {
        for form in lowrank_adapt::ALL {
            if form.takes() != Takes::Factors {
                continue;
            }
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
                lowrank_adapt::Start { left, right, core: None, rank: each.site.rank, offset: each.offset }
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
    attach(&mut model, &one, &pissa, form, Offset::Shadow, None, Seed(3), "a").unwrap();
    let weights = |model: &Decoder| -> Vec<Vec<f32>> {
        model.sites().iter().map(|(_, linear)| linear.frozen().unwrap().to_f32()).collect()
    };
    let before = weights(&model);
    let refused = |model: &mut Decoder, name| {
        attach(model, &plan, &pissa, form, Offset::Base, None, Seed(3), name).unwrap_err()
    };
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
    let start = |rank| lowrank_adapt::Start {
        left: vec![0.5; plan.sites[0].shape[0] * rank],
        right: vec![0.5; plan.sites[0].shape[1] * rank],
        core: None,
        rank,
        offset: Offset::Shadow,
    };
    let mut one = plan.clone();
    one.sites.truncate(1);
    let (rank, want) = (one.sites[0].rank + 1, one.sites[0].rank);
    let other = attach_stored(&mut model, &one, vec![start(rank)], form, "a").unwrap_err();
    assert!(matches!(&other, AttachError::StoredRank { rank: 3, want: 2, .. }), "{other}");
    assert_eq!((rank, want), (3, 2));
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
    let tiny = refused("orthogonal", ("width", "1e-60"));
    assert!(matches!(tiny, AttachError::Init { source: InitError::Vanishes { .. }, .. }), "{tiny}");
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
            attached.extend(attach(&mut model, &plan, start, form, offset, None, Seed(3), name).unwrap());
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
                let change = now.add(&factors(&each.initial.0, &each.initial.1, -each.site.scale)).unwrap();
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

/// A start that brings another weight along.
struct Quantised;

impl Initialiser for Quantised {
    fn card(&self) -> &'static Card {
        lowrank_init::methods::Pissa::DEFAULT.card()
    }
    fn configure(&self, _: &Options) -> Result<Box<dyn Initialiser>, InitError> {
        Ok(Box::new(Quantised))
    }
    fn start(&self, seen: &Evidence<'_>, rank: usize, seed: Seed) -> Result<Start, InitError> {
        let start = lowrank_init::methods::Pissa::DEFAULT.start(seen, rank, seed)?;
        let weight = seen.weight("quantised")?;
        Ok(Start { base: Base::Replace(weight.to_owned()), ..start })
    }
}

#[test]
fn a_start_that_nothing_takes_back_or_up_again_is_refused() {
    let (mut model, form) = (model(), lowrank_adapt::ALL[0]);
    let plan = plan(&model);
    let pissa = lowrank_init::methods::Pissa::DEFAULT;
    let mut refused = |start: &dyn Initialiser, offset| {
        attach(&mut model, &plan, start, form, offset, None, Seed(3), "a").unwrap_err()
    };
    let bare = refused(&pissa, Offset::None);
    assert!(matches!(&bare, AttachError::NotTakenBack { init: "pissa", .. }), "{bare}");
    for offset in [Offset::None, Offset::Shadow, Offset::Base] {
        let replacing = refused(&Quantised, offset);
        assert!(matches!(&replacing, AttachError::Replaces { init: "pissa", .. }), "{replacing}");
    }
    assert!(model.sites().iter().all(|(_, linear)| linear.adapters().is_empty()), "nothing was mounted");
}
