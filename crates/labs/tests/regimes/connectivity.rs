//! Starts have the norm of their control, and the rank that was asked for.

use faer::Mat;
use lowrank_labs::regimes::connectivity::{
    Aligned, CATALOGUE, Connectivity, Dale, Given, Motif, Norm, Shuffled, Soules, Split, Truncated, gaussian,
    start,
};
use lowrank_labs::regimes::{RegimeError, Spectrum};
use lowrank_linalg::{directions, svd_in_f64};
use lowrank_record::Seed;

use crate::{norm, random};

fn all(size: usize) -> Vec<Box<dyn Connectivity>> {
    vec![
        Box::new(Truncated { rank: 3 }),
        Box::new(Soules { decay: 1.0, split: Split::Random }),
        Box::new(Dale { excitatory: 0.8, balanced: true }),
        Box::new(Motif { chain: 0.5, strength: 0.3, reciprocal: 0.4 }),
        Box::new(Given { weights: random(size, size, 7) }),
        Box::new(Shuffled { weights: random(size, size, 7) }),
        Box::new(Aligned { direction: random(size, size, 8), rank: 2 }),
    ]
}

#[test]
fn every_start_has_the_norm_of_the_control_and_is_the_same_for_the_same_seed() {
    let control = gaussian(30, 1.25, Seed(1));
    for connectivity in all(30) {
        for wanted in [Norm::Frobenius, Norm::SpectralRadius, Norm::TopSingularValue] {
            let draw =
                |seed: u64| start(connectivity.as_ref(), control.as_ref(), wanted, Seed(seed)).unwrap();
            let found = wanted.of(draw(5).as_ref()).unwrap() / wanted.of(control.as_ref()).unwrap();
            assert!((found - 1.0).abs() < 1e-12, "{} {}", connectivity.name(), wanted.words());
            assert_eq!(draw(5), draw(5));
        }
        assert!(CATALOGUE.iter().any(|entry| entry.name == connectivity.name()));
    }
}

#[test]
fn truncation_gives_the_rank_and_all_of_it_the_control_itself() {
    let control = gaussian(24, 1.25, Seed(2));
    for rank in [1, 4, 16, 23, 24] {
        let found = start(&Truncated { rank }, control.as_ref(), Norm::Frobenius, Seed(0)).unwrap();
        assert_eq!(directions(&svd_in_f64(found.as_ref()).unwrap().values), rank);
        assert!((norm(&found) / norm(&control) - 1.0).abs() < 1e-12);
    }
    let whole = start(&Truncated { rank: 24 }, control.as_ref(), Norm::Frobenius, Seed(0)).unwrap();
    assert_eq!(whole, control);
    for rank in [0, 25] {
        let refused = start(&Truncated { rank }, control.as_ref(), Norm::Frobenius, Seed(0)).unwrap_err();
        assert_eq!(refused, RegimeError::Rank { rank, size: 24 });
    }
    let spectrum = |rank: usize| {
        let weights = start(&Truncated { rank }, control.as_ref(), Norm::Frobenius, Seed(0)).unwrap();
        Spectrum::of(weights.as_ref()).unwrap()
    };
    let (low, high) = (spectrum(1), spectrum(24));
    assert!((low.effective_rank - 1.0).abs() < 1e-6 && high.effective_rank > 15.0);
    // The confound: at one Frobenius norm the low rank has the larger singular value.
    assert!(low.top_singular_value > 2.0 * high.top_singular_value);
}

#[test]
fn shuffling_keeps_every_entry_and_no_structure() {
    let weights = Mat::from_fn(10, 10, |i, j| if j == 0 { 1.0 + i as f64 } else { 0.0 });
    let found = Shuffled { weights: weights.clone() }.draw(weights.as_ref(), Seed(3)).unwrap();
    let sorted = |a: &Mat<f64>| {
        let mut values: Vec<f64> = (0..100).map(|at| a[(at / 10, at % 10)]).collect();
        values.sort_by(f64::total_cmp);
        values
    };
    assert_eq!(sorted(&found), sorted(&weights));
    assert!(directions(&svd_in_f64(found.as_ref()).unwrap().values) > 2);
}

#[test]
fn what_has_no_such_norm_or_shape_is_refused() {
    let control = gaussian(5, 1.25, Seed(1));
    let shift = Given { weights: Mat::from_fn(5, 5, |i, j| if j == i + 1 { 1.0 } else { 0.0 }) };
    let refused = start(&shift, control.as_ref(), Norm::SpectralRadius, Seed(0)).unwrap_err();
    assert!(refused.to_string().contains("spectral radius of its weights is 0"), "{refused}");
    let wrong = Given { weights: Mat::zeros(4, 4) };
    assert!(start(&wrong, control.as_ref(), Norm::Frobenius, Seed(0)).is_err());
    let oblong = Given { weights: Mat::zeros(5, 4) };
    let refused = start(&oblong, control.as_ref(), Norm::Frobenius, Seed(0)).unwrap_err();
    assert!(refused.to_string().contains("square"), "{refused}");
    let broken = Given { weights: Mat::from_fn(5, 5, |_, _| f64::INFINITY) };
    assert!(start(&broken, control.as_ref(), Norm::Frobenius, Seed(0)).is_err());
}
