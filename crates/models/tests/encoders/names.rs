//! Layers have the names of the modules of transformers 5.23.0, by `reference/make.py`: what a PEFT adapter must name.

use std::sync::Arc;

use lowrank_models::{Network, Vision, Widen, vision};
use lowrank_record::Seed;
use lowrank_tensor::{cpu, to_rows};

use crate::reference::Reference;

fn sites(network: &impl Network) -> Vec<String> {
    network.sites().into_iter().map(|(name, _)| name).collect()
}

#[test]
fn layers_are_named_as_the_modules_of_transformers() {
    for name in ["vit", "vit-features", "deit", "deit-distilled", "dinov2"] {
        let reference = Reference::new(name, "modules");
        let purpose = vision::Purpose::of(reference.config()).unwrap();
        let modules: Vec<String> = reference.list("linear");
        assert_eq!(sites(&reference.vision(purpose, Widen::Once)), modules, "{name}");
    }
    for (name, head) in [("t5", 1), ("t5-gated", 0)] {
        let reference = Reference::new(name, "modules");
        let mut modules: Vec<String> = reference.list("linear");
        // A tied head is the embedding, and no layer of its own.
        modules.truncate(modules.len() - head);
        assert_eq!(sites(&reference.t5(Widen::Once)), modules, "{name}");
    }
}

/// The names of a file as `transformers` 5 would write them if it wrote those of its modules.
fn of_modules(family: vision::Family, name: &str) -> String {
    let (layer, kind) = name.rsplit_once('.').unwrap_or((name, ""));
    match vision::names::of_version_5(family, layer) {
        Some(layer) => format!("{layer}.{kind}"),
        None if family == vision::Family::Dinov2 => name.to_owned(),
        None => name.replace("encoder.layer.", "layers."),
    }
}

#[test]
fn files_are_read_by_either_names() {
    for name in ["vit", "vit-features", "deit", "dinov2"] {
        let files = Reference::new(name, "by-files");
        let family = vision::Config::from_json(files.config()).unwrap().family;
        let modules = Reference::renamed(name, "by-modules", |name| of_modules(family, name));
        let purpose = vision::Purpose::of(files.config()).unwrap();
        let outputs = |reference: &Reference| {
            let model = reference.vision(purpose, Widen::Once);
            (sites(&model), to_rows(model.outputs(&Reference::images(12, 12)).unwrap()))
        };
        assert_eq!(outputs(&files), outputs(&modules), "{name}");
    }
}

#[test]
fn a_new_head_on_a_bare_base_names_the_base_as_its_class_does() {
    let reference = Reference::new("vit-features", "headed");
    let config = vision::Config::from_json(reference.config()).unwrap();
    let purpose = vision::Purpose::Fresh { labels: 4, seed: Seed(1) };
    let source = Arc::clone(&reference.source);
    let mut model = Vision::from_checkpoint(config, source, purpose, Widen::Once, &cpu()).unwrap();
    assert_eq!((model.task_layers(), model.classes()), (vec!["classifier".to_owned()], Some(4)));
    let outputs = |model: &Vision| to_rows(model.outputs(&Reference::images(12, 12)).unwrap());
    let first = outputs(&model);
    model.draw_head(Seed(2)).unwrap();
    assert_ne!(outputs(&model), first);
    model.draw_head(Seed(1)).unwrap();
    assert_eq!(outputs(&model), first);
    let named = sites(&model);
    assert_eq!(named[0], "vit.layers.0.attention.q_proj");
    assert_eq!(named.last().unwrap(), "classifier");
}
