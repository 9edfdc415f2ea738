//! What must hold of every form: a form joins by its rows.

use lowrank_adapt::{ALL, AdaptError, Linear, Site, Takes, Weight};
use lowrank_record::Seed;
use lowrank_tensor::{Matrix, cpu};

use crate::small::*;

#[test]
fn every_form_has_a_row_and_reads_its_own_settings_back() {
    for form in ALL {
        assert!(rows().iter().any(|row| row.form.card().name == form.card().name), "{}", form.card().name);
        let defaults: Vec<_> =
            form.card().choices.iter().map(|choice| (choice.name, choice.default.to_owned())).collect();
        assert_eq!(form.settings(), defaults);
    }
    for row in rows() {
        let again = lowrank_adapt::by_name(row.form.card().name, row.form.settings()).unwrap();
        assert_eq!(again.settings(), row.form.settings());
    }
}

#[test]
fn the_layer_computes_the_weight_plus_the_change() {
    for row in rows() {
        let linear = trained(&row);
        let adapter = &linear.adapters()[0].adapter;
        let change = adapter.delta(linear.frozen().unwrap());
        assert!(change.iter().any(|value| value.abs() > 0.1), "{}", row.name());
        close(&output(&linear), &changed(&linear, &["a"]), 1e-5, &row.name());
        if let Some(path) = adapter.low_rank() {
            close(&path.product(), &change, 1e-5, &row.name());
        }
    }
}

#[test]
fn a_layer_without_a_bias_is_served_too() {
    for row in rows() {
        let mut linear = Linear::new(Weight::Frozen(weight()), None);
        mount(&mut linear, &row, "a");
        train(&linear, "a");
        let mut values = weight().to_f32();
        let change = linear.adapters()[0].adapter.delta(&weight());
        values.iter_mut().zip(change).for_each(|(value, change)| *value += change);
        close(&output(&linear), &product(&values, &[0.0; OUT]), 1e-5, &row.name());
    }
}

#[test]
fn adapters_of_different_forms_add_up() {
    let rows = rows();
    for first in &rows {
        for second in &rows {
            let mut linear = layer();
            for (row, name) in [(first, "a"), (second, "b")] {
                mount(&mut linear, row, name);
                train(&linear, name);
            }
            let what = format!("{} and {}", first.name(), second.name());
            let wanted = changed(&linear, &["a", "b"]);
            close(&output(&linear), &wanted, 2e-5, &what);
            // One in the weight and one beside it, either way round.
            for name in ["a", "b"] {
                linear.merge(name).unwrap();
                close(&output(&linear), &wanted, 2e-5, &what);
                linear.unmerge(name).unwrap();
            }
        }
    }
}

#[test]
fn a_start_that_is_taken_back_or_made_by_the_form_leaves_the_function_unchanged() {
    for row in rows() {
        if row.form.takes() != Takes::Nothing && row.offset != lowrank_adapt::Offset::Shadow {
            continue;
        }
        let mut linear = layer();
        let before = output(&linear);
        mount(&mut linear, &row, "a");
        close(&output(&linear), &before, 1e-5, &row.name());
        let change = linear.adapters()[0].adapter.delta(linear.frozen().unwrap());
        assert!(change.iter().all(|value| value.abs() < 1e-5), "{}", row.name());
    }
}

#[test]
fn an_adapter_is_rebuilt_from_its_parts() {
    let device = cpu();
    for row in rows() {
        let linear = trained(&row);
        let mounted = &linear.adapters()[0];
        let parts = mounted.adapter.parts();
        for part in &parts {
            assert_eq!(part.values.len(), part.shape.iter().product::<usize>(), "{}", row.name());
        }
        let base = weight();
        // Neither the seed nor the name is looked at.
        let site = Site::alone("another", &base, RANK, SCALE, Seed(6), &device);
        let restored = row.form.restore(&site, parts.clone(), row.offset).unwrap();
        assert!(restored.parts() == parts, "{}", row.name());
        assert!(restored.delta(&base) == mounted.adapter.delta(&base), "{}", row.name());
        let (new, old) = (restored.trainable(), mounted.adapter.trainable());
        assert_eq!(new.len(), old.len());
        for ((name, var), (before, held)) in new.iter().zip(&old) {
            assert!(name == before && var.values() == held.values(), "{}", row.name());
        }
        let mut again = layer();
        again.mount("a", restored).unwrap();
        assert!(output(&again) == output(&linear), "{}", row.name());
        // A part that is missing, strange or of another shape is refused by name.
        for index in 0..parts.len() {
            let mut short = parts.clone();
            let gone = short.remove(index).name;
            let refused = row.form.restore(&site, short, row.offset).err();
            let rebuilt =
                matches!(&refused, Some(AdaptError::MissingPart { .. } | AdaptError::UnknownPart { .. }));
            assert!(rebuilt, "{} without {gone}: {refused:?}", row.name());
            let mut bent = parts.clone();
            bent[index].values.push(0.0);
            let refused = row.form.restore(&site, bent, row.offset).err();
            assert!(matches!(refused, Some(AdaptError::PartShape { .. })), "{}: {refused:?}", row.name());
        }
        let mut strange = parts;
        strange.push(lowrank_adapt::Part::new("stranger", &[1], vec![0.0]));
        assert!(matches!(row.form.restore(&site, strange, row.offset), Err(AdaptError::UnknownPart { .. })));
    }
}

#[test]
fn a_trained_weight_and_an_adapter_exclude_each_other() {
    for row in rows() {
        let mut linear = trained(&row);
        assert!(matches!(linear.train_weight(&cpu()), Err(AdaptError::Adapted)));
        let mounted = linear.unmount("a").unwrap();
        linear.train_weight(&cpu()).unwrap();
        assert!(matches!(linear.mount("a", mounted.adapter), Err(AdaptError::Trained)));
        let other = Matrix::from_f32(vec![0.0; OUT * IN], [OUT, IN]).unwrap();
        assert!(matches!(linear.replace_weight(other), Err(AdaptError::Trained)));
    }
}

#[test]
fn adapters_switch_on_and_off_and_go() {
    for row in rows() {
        let mut linear = layer();
        let plain = output(&linear);
        mount(&mut linear, &row, "a");
        train(&linear, "a");
        linear.enable("a", false).unwrap();
        assert!(output(&linear) == plain);
        linear.enable("a", true).unwrap();
        assert!(output(&linear) != plain);
        assert!(matches!(linear.enable("b", true), Err(AdaptError::Unknown(_))));
        let again = trained(&row).unmount("a").unwrap();
        assert!(linear.mount("a", again.adapter).is_err(), "a name is taken once");
        linear.unmount("a").unwrap();
        assert!(output(&linear) == plain);
    }
}

#[test]
fn nothing_is_recorded_outside_training() {
    let rows = rows();
    for row in &rows {
        let mut linear = trained(row);
        assert!(!linear.forward(input()).is_autodiff(), "{}", row.name());
        assert!(linear.forward(input().autodiff()).is_tracked(), "{}", row.name());
        mount(&mut linear, &rows[0], "b");
        assert!(!linear.forward(input()).is_autodiff(), "{}", row.name());
    }
}

#[test]
fn the_footprint_is_what_is_built() {
    for row in rows() {
        let linear = trained(&row);
        let mounted = find(&linear, "a");
        let count = |var: &lowrank_tensor::Var| var.values().len();
        let trained: usize = mounted.adapter.trainable().iter().map(|(_, var)| count(var)).sum();
        let all: usize = mounted.adapter.parts().iter().map(|part| part.values.len()).sum();
        let found = row.form.footprint([OUT, IN], row.rank, row.offset);
        assert_eq!((found.trained, found.trained + found.frozen), (trained, all), "{}", row.name());
        assert!(found.products > 0, "{}", row.name());
    }
}
