//! Several adapters are mounted at once, and one is active.

use lowrank_adapt::Offset;
use lowrank_attach::{AttachError, Collected, Plan, Targets as Chosen, Way, activate, attach, mounted};
use lowrank_models::Decoder;
use lowrank_record::Seed;

use crate::small::*;

/// Mounts a form that makes its own start on some layers, and moves it.
fn mount(model: &mut Decoder, form: &str, targets: &str) -> usize {
    let form = lowrank_adapt::by_name(form, std::iter::empty::<(&str, &str)>()).unwrap();
    let plan =
        Plan::new(&*model, &Chosen::parse(targets, None, None).unwrap(), 2, 4.0, false, &[], &[]).unwrap();
    let way = Way { initialiser: None, form: &*form, offset: Offset::None };
    let name = form.card().name;
    let attached = attach(model, &plan, way, Collected::default(), Seed(3), name).unwrap();
    for each in &attached {
        for (part, var) in &each.variables {
            let moved = Seed(7).at(&each.site.name, part).normal(var.values().len());
            var.assign(var.values().iter().zip(moved).map(|(value, more)| value + 0.1 * more).collect());
        }
    }
    attached.len()
}

#[test]
fn each_computes_what_it_does_alone_and_none_is_the_model() {
    let mut several = model();
    let plain = logits(&several);
    // One of them does not change every layer.
    let ways = [("vera", "all-linear"), ("ia3", "q_proj,v_proj"), ("loha", "all-linear")];
    let mut alone = Vec::new();
    for (form, targets) in ways {
        mount(&mut several, form, targets);
        let mut one = model();
        let layers = mount(&mut one, form, targets);
        let found = logits(&one);
        assert!(found != plain, "{form} does something");
        alone.push((form, layers, found));
    }
    assert_eq!(mounted(&several), ["vera", "ia3", "loha"]);
    for (form, layers, wanted) in alone.iter().chain(alone.iter().rev()) {
        assert_eq!(activate(&mut several, Some(form)).unwrap(), *layers);
        assert!(logits(&several) == *wanted, "{form}");
    }
    assert_eq!(activate(&mut several, None).unwrap(), 0);
    assert!(logits(&several) == plain);

    activate(&mut several, Some("ia3")).unwrap();
    let refused = activate(&mut several, Some("verra")).unwrap_err();
    assert!(matches!(refused, AttachError::UnknownAdapter { .. }));
    assert!(refused.to_string().contains("did you mean vera?"), "{refused}");
    assert!(logits(&several) == alone[1].2, "a refusal changes nothing");
}
