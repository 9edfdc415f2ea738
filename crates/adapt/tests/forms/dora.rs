//! Rows that the change of a DoRA cancels: refused by name whenever they come about, and right to the last digit before.

use lowrank_adapt::{AdaptError, Form, Linear, Offset, Site, Start, Weight, forms::Dora};
use lowrank_record::Seed;
use lowrank_tensor::{Matrix, cpu};

use crate::small::*;

const ROW: usize = 2;

/// A start of rank 1 that leaves `share` of one row of the weight and little of the others.
fn cancelling(base: &Matrix, share: f32) -> Start {
    let right = base.to_f32()[ROW * IN..(ROW + 1) * IN].to_vec();
    let mut left = vec![0.01; OUT];
    left[ROW] = (share - 1.0) / SCALE as f32;
    Start { left, right, core: None, rank: 1, offset: Offset::None }
}

fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|value| value * value).sum::<f64>().sqrt()
}

#[test]
fn a_row_that_cancels_to_rounding_is_refused_and_one_that_does_not_has_its_norm() {
    let (base, device) = (weight(), cpu());
    let site = Site::alone("a", &base, 1, SCALE, Seed(5), &device);
    for share in [0.0, 1e-7, 9e-4] {
        let refused = Dora.build(&site, Some(cancelling(&base, share))).err();
        let Some(AdaptError::NoDirection { row: ROW, norm, parts, .. }) = refused else {
            panic!("{share}: {refused:?}")
        };
        assert!(norm <= 1e-3 * parts && parts > 1.0, "{norm} {parts}");
    }
    for share in [2e-3, 0.1] {
        let start = cancelling(&base, share);
        let (w, scale) = (base.to_f32(), f64::from(start.left[ROW]) * SCALE);
        let left_over = |j: usize| f64::from(w[ROW * IN + j]) + scale * f64::from(start.right[j]);
        let wanted = norm((0..IN).map(left_over));
        let adapter = Dora.build(&site, Some(start)).unwrap();
        let magnitude = adapter.parts().into_iter().find(|part| part.name == "magnitude").unwrap();
        let found = f64::from(magnitude.values[ROW]);
        // The scale is folded into the left factor in f32: one rounding of a number near 1.
        assert!(
            (found - wanted).abs() < 2e-7 * norm((0..IN).map(|j| f64::from(w[ROW * IN + j]))),
            "{found} {wanted}"
        );
    }
}

#[test]
fn a_row_that_cancels_while_it_trains_is_named() {
    let mut linear = Linear::new(Weight::Frozen(weight()), None);
    let (base, device) = (weight(), cpu());
    let site = Site::alone("a", &base, 1, SCALE, Seed(5), &device);
    linear.mount("a", Dora.build(&site, Some(cancelling(&base, 1.0))).unwrap()).unwrap();
    linear.check().unwrap();
    let gone = cancelling(&base, 0.0).left;
    for (name, var) in find(&linear, "a").adapter.trainable() {
        if name == "left" {
            var.assign(gone.clone());
        }
    }
    assert!(matches!(linear.check(), Err(AdaptError::NoDirection { row: ROW, .. })));
    let said = linear.check().unwrap_err().to_string();
    assert!(said.contains("dora: row 2") && said.contains("exclude this site"), "{said}");
    // What is switched off is not computed.
    linear.activate(None).unwrap();
    linear.check().unwrap();
}

#[test]
fn a_stored_adapter_whose_row_cancels_is_refused() {
    let (base, device) = (weight(), cpu());
    let site = Site::alone("a", &base, 1, SCALE, Seed(5), &device);
    let mut parts = Dora.build(&site, Some(cancelling(&base, 1.0))).unwrap().parts();
    Dora.restore(&site, parts.clone(), Offset::None).unwrap();
    let left = parts.iter_mut().find(|part| part.name == "left").unwrap();
    left.values = cancelling(&base, 0.0).left;
    let refused = Dora.restore(&site, parts.clone(), Offset::None).err();
    assert!(matches!(refused, Some(AdaptError::NoDirection { row: ROW, .. })), "{refused:?}");
    // On another base the same parts are sound.
    let other = Matrix::from_f32(draws("another", OUT * IN), [OUT, IN]).unwrap();
    Dora.restore(&Site { base: &other, ..site }, parts, Offset::None).unwrap();
}
