//! The difference of two products as factors in which nothing large cancels.

#![allow(clippy::unwrap_used, clippy::panic, reason = "clippy sees only the #[test] functions here as tests")]

use faer::Mat;
use lowrank_linalg::{LowRank, energy, multiply, widen};
use lowrank_record::Seed;

#[test]
fn a_difference_of_products_is_made_of_small_factors() {
    // A start a thousand times what it moved by.
    let (out, inp, rank) = (40, 30, 4);
    let draw = |seed: u64, rows: usize, cols: usize, size: f32| {
        let draws = Seed(seed).normal(rows * cols);
        Mat::from_fn(rows, cols, |i, j| size * draws[i * cols + j])
    };
    let start = LowRank { left: draw(1, out, rank, 1.0), right: draw(2, rank, inp, 1.0) };
    let trained = LowRank {
        left: &start.left + draw(3, out, rank, 1e-3),
        right: &start.right + draw(4, rank, inp, 1e-3),
    };
    let product = |factors: &LowRank| {
        multiply(widen(factors.left.as_ref()).as_ref(), widen(factors.right.as_ref()).as_ref())
    };
    let wanted = product(&trained) - product(&start);
    let size = energy(wanted.as_ref()).sqrt();
    let moved = trained.moved_from(&start).unwrap();
    assert_eq!((moved.rank(), moved.shape()), (2 * rank, (out, inp)));
    // In f64 the same change; in f32 its own rounding, where side by side the start's is a thousand times as large.
    assert!(energy((product(&moved) - &wanted).as_ref()).sqrt() < 1e-6 * size);
    let off =
        |factors: &LowRank| energy((widen(factors.reconstruct().as_ref()) - &wanted).as_ref()).sqrt() / size;
    let beside = trained.add(&start.times(-1.0)).unwrap();
    assert!(off(&moved) < 1e-6 && off(&beside) > 1e-5, "{:e} {:e}", off(&moved), off(&beside));
    // What did not move is zero.
    assert_eq!(energy(start.moved_from(&start).unwrap().reconstruct().as_ref()), 0.0);
    assert!(trained.moved_from(&LowRank::zeros(out, inp, rank + 1)).is_err());
}
