//! Merging keeps the function, and taking out the bytes.

use lowrank_adapt::{AdaptError, Linear};
use lowrank_tensor::Matrix;

use crate::small::*;

fn held(linear: &Linear) -> (Vec<f32>, Vec<f32>) {
    (linear.frozen().unwrap().to_f32(), linear.bias().unwrap().to_f32())
}

#[test]
fn merging_keeps_the_function_and_unmerging_the_bytes() {
    for row in rows() {
        let original = held(&layer());
        let mut linear = trained(&row);
        let adapted = output(&linear);
        linear.merge("a").unwrap();
        close(&output(&linear), &adapted, 1e-5, &row.name());
        assert!(held(&linear) != original);
        // Whatever would count the change twice, or lose the weight, is refused meanwhile.
        assert!(
            matches!(linear.admits("b", true), Err(AdaptError::Merged(_)))
                && linear.admits("b", false).is_ok()
        );
        for refused in [linear.enable("a", true), linear.merge("a"), linear.unmount("a").map(drop)] {
            assert!(matches!(refused, Err(AdaptError::Merged(_))), "{refused:?}");
        }
        let other = Matrix::from_f32(original.0.clone(), [OUT, IN]).unwrap();
        assert!(matches!(linear.replace_weight(other), Err(AdaptError::Merged(_))));
        linear.unmerge("a").unwrap();
        assert!(held(&linear) == original);
        assert!(output(&linear) == adapted, "{}", row.name());
        // An adapter that was off stays off.
        linear.enable("a", false).unwrap();
        linear.merge("a").unwrap();
        linear.unmerge("a").unwrap();
        assert!(!linear.adapters()[0].enabled);
    }
}

#[test]
fn several_adapters_merge_and_unmerge_in_any_order() {
    for row in rows() {
        let mut linear = layer();
        let original = held(&linear);
        for name in ["a", "b", "c"] {
            mount(&mut linear, &row, name);
            train(&linear, name);
        }
        linear.enable("c", false).unwrap();
        let adapted = output(&linear);
        let check = |linear: &Linear| close(&output(linear), &adapted, 2e-5, &row.name());
        // One in the weight, one beside it.
        linear.merge("a").unwrap();
        let with_a = held(&linear);
        check(&linear);
        linear.merge("b").unwrap();
        let with_both = held(&linear);
        assert!(with_both != with_a && with_a != original);
        check(&linear);
        assert!(matches!(linear.merge("a"), Err(AdaptError::Merged(_))));
        assert!(matches!(linear.unmerge("c"), Err(AdaptError::Unknown(_))));
        // In the order in which they came, and in the other; what is left is as if it had been merged alone.
        linear.unmerge("a").unwrap();
        assert!(held(&linear) != with_a && held(&linear) != original);
        check(&linear);
        linear.unmerge("b").unwrap();
        assert!(held(&linear) == original);
        linear.merge("a").unwrap();
        linear.merge("b").unwrap();
        assert!(held(&linear) == with_both);
        linear.unmerge("b").unwrap();
        assert!(held(&linear) == with_a);
        linear.unmerge("a").unwrap();
        assert!(held(&linear) == original && output(&linear) == adapted);
        let on: Vec<bool> = linear.adapters().iter().map(|mounted| mounted.enabled).collect();
        assert_eq!(on, [true, true, false]);
    }
}
