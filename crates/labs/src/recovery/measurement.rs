//! What is measured of a matrix: linear functions of it, known by their products with factors.

mod dense;
mod entries;
mod identity;
mod rank_one;

use faer::{Mat, MatRef};

pub use dense::DenseSensing;
pub use entries::Entries;
pub use identity::Identity;
pub use rank_one::RankOne;

/// From the number of a measurement and its value `⟨A_i, L·Rᵀ⟩` to the weight of `A_i` in D.
pub type Weigh<'a> = dyn Fn(usize, f64) -> f64 + Sync + 'a;

/// Linear functions `X ↦ ⟨A_i, X⟩`, i = 1..m, of matrices X `[n1, n2]`. X comes as its factors, `X = L·Rᵀ`, and nothing of the size
/// of X is formed unless the measurement itself is of that size. Results depend on the arguments alone, not on the number of
/// threads.
pub trait Measurement: Sync {
    /// `(n1, n2)`.
    fn shape(&self) -> (usize, usize);

    /// The number m of measurements.
    fn count(&self) -> usize;

    /// The number u that makes the measurements isotropic: `(u²/m)·Σ ⟨A_i, X⟩·A_i ≈ X`. With it step sizes mean the same for each
    /// kind of measurement: 1 for Gaussian ones, `√(n1·n2)` for single entries.
    fn unit(&self) -> f64;

    /// `⟨A_i, left·rightᵀ⟩` for every i; left `[n1, k]`, right `[n2, k]`.
    fn apply(&self, left: MatRef<'_, f64>, right: MatRef<'_, f64>) -> Vec<f64>;

    /// `D = Σ_i weights_i·A_i`, of m weights, as an operator.
    fn adjoint<'a>(&'a self, weights: Vec<f64>) -> Box<dyn Adjoint + 'a>;

    /// Values and both products of the gradient in one go, `D = Σ_i weigh(i, ⟨A_i, L·Rᵀ⟩)·A_i`. The default is
    /// [`Measurement::apply`] and then [`Measurement::adjoint`]; measurements that can do it while what they read is still in the
    /// cache do it themselves.
    fn pull(&self, left: MatRef<'_, f64>, right: MatRef<'_, f64>, weigh: &Weigh<'_>) -> Pull {
        let values = self.apply(left, right);
        let weights = values.iter().enumerate().map(|(i, &value)| weigh(i, value)).collect();
        let adjoint = self.adjoint(weights);
        Pull { left: adjoint.times(right), right: adjoint.transpose_times(left), values }
    }
}

/// A weighted sum of measurement matrices, `D [n1, n2]`, known by its products.
pub trait Adjoint: Sync {
    /// `D·right`: `[n2, k] -> [n1, k]`.
    fn times(&self, right: MatRef<'_, f64>) -> Mat<f64>;
    /// `Dᵀ·left`: `[n1, k] -> [n2, k]`.
    fn transpose_times(&self, left: MatRef<'_, f64>) -> Mat<f64>;
    /// `‖D‖²_F`.
    fn energy(&self) -> f64;
}

/// What one look at all measurements gives.
#[derive(Debug, Clone, PartialEq)]
pub struct Pull {
    /// `⟨A_i, L·Rᵀ⟩`.
    pub values: Vec<f64>,
    /// `D·R`, `[n1, k]`.
    pub left: Mat<f64>,
    /// `Dᵀ·L`, `[n2, k]`.
    pub right: Mat<f64>,
}

/// `left·rightᵀ` in row-major order: entry (i, j) at `i·n2 + j`.
fn product_in_rows(left: MatRef<'_, f64>, right: MatRef<'_, f64>) -> Vec<f64> {
    let transposed = lowrank_linalg::multiply(right, left.transpose());
    let mut values = Vec::with_capacity(left.nrows() * right.nrows());
    (0..left.nrows()).for_each(|i| values.extend_from_slice(transposed.col_as_slice(i)));
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recovery::Loss;
    use lowrank_linalg::multiply;
    use lowrank_record::Seed;

    fn normal(seed: u64, rows: usize, cols: usize) -> Mat<f64> {
        let draws = Seed(seed).normal(rows * cols);
        Mat::from_fn(rows, cols, |i, j| f64::from(draws[i * cols + j]))
    }

    fn each() -> Vec<(&'static str, Box<dyn Measurement>)> {
        let triples = (0..70).map(|i| (i * 13 % 11, i % 9, 1.0));
        let mut seen = std::collections::BTreeSet::new();
        let triples: Vec<_> = triples.filter(|&(i, j, _)| seen.insert((i, j))).collect();
        vec![
            ("dense", Box::new(DenseSensing::gaussian(11, 9, 137, Seed(3)).unwrap())),
            ("rank one", Box::new(RankOne::gaussian(11, 9, 137, Seed(3)).unwrap())),
            ("entries", Box::new(Entries::from_triples(11, 9, triples).unwrap().0)),
            ("identity", Box::new(Identity::new(11, 9).unwrap())),
        ]
    }

    #[test]
    fn the_adjoint_is_the_adjoint() {
        for (name, a) in each() {
            let (left, right) = (normal(1, 11, 3), normal(2, 9, 3));
            let weights: Vec<f64> = Seed(4).normal(a.count()).into_iter().map(f64::from).collect();
            let values = a.apply(left.as_ref(), right.as_ref());
            let forward: f64 = values.iter().zip(&weights).map(|(v, w)| v * w).sum();
            let adjoint = a.adjoint(weights);
            let turned = adjoint.times(right.as_ref());
            let back: f64 = (0..3).map(|j| left.col(j).transpose() * turned.col(j)).sum();
            assert!((forward - back).abs() < 1e-11 * forward.abs().max(1.0), "{name}: {forward} {back}");
            let turned = adjoint.transpose_times(left.as_ref());
            let back: f64 = (0..3).map(|j| right.col(j).transpose() * turned.col(j)).sum();
            assert!((forward - back).abs() < 1e-11 * forward.abs().max(1.0), "{name}: {forward} {back}");
            let formed = adjoint.times(Mat::<f64>::identity(9, 9).as_ref());
            assert!((formed.squared_norm_l2() - adjoint.energy()).abs() < 1e-10 * adjoint.energy(), "{name}");
        }
    }

    #[test]
    fn a_pull_is_apply_and_adjoint_on_any_number_of_threads() {
        for (name, a) in each() {
            let (left, right) = (normal(1, 11, 3), normal(2, 9, 3));
            let weigh = |i: usize, value: f64| (value - 0.1 * i as f64).signum();
            let pull = |threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| a.pull(left.as_ref(), right.as_ref(), &weigh))
            };
            let once = pull(1);
            assert_eq!(once, pull(3), "{name}");
            let values = a.apply(left.as_ref(), right.as_ref());
            let weights = values.iter().enumerate().map(|(i, &value)| weigh(i, value)).collect();
            let adjoint = a.adjoint(weights);
            let close =
                |x: &Mat<f64>, y: Mat<f64>| assert!((x - &y).norm_l2() < 1e-12 * y.norm_l2(), "{name}");
            close(&once.left, adjoint.times(right.as_ref()));
            close(&once.right, adjoint.transpose_times(left.as_ref()));
            let apart = once.values.iter().zip(&values).map(|(x, y)| (x - y).abs()).fold(0.0, f64::max);
            assert!(apart < 1e-12, "{name}: {apart}");
        }
    }

    #[test]
    fn gradients_are_finite_differences_in_both_losses() {
        for (name, a) in each() {
            for loss in [Loss::Squared, Loss::Absolute] {
                let (left, right) = (normal(1, 11, 3), normal(2, 9, 3));
                let y: Vec<f64> = Seed(5).normal(a.count()).into_iter().map(f64::from).collect();
                let (unit, count) = (a.unit(), a.count());
                let value = |left: &Mat<f64>, right: &Mat<f64>| {
                    let values = a.apply(left.as_ref(), right.as_ref());
                    loss.value(values.iter().zip(&y).map(|(v, y)| v - y), unit, count)
                };
                let weigh = |i: usize, v: f64| loss.weight(v - y[i], unit, count);
                let pull = a.pull(left.as_ref(), right.as_ref(), &weigh);
                let step = 1e-6;
                for (i, j) in [(0, 0), (4, 2), (8, 1)] {
                    let moved = |by: f64| {
                        Mat::from_fn(11, 3, |p, q| left[(p, q)] + if (p, q) == (i, j) { by } else { 0.0 })
                    };
                    let slope = (value(&moved(step), &right) - value(&moved(-step), &right)) / (2.0 * step);
                    assert!(
                        (slope - pull.left[(i, j)]).abs() < 1e-5,
                        "{name} {loss:?} {slope} {}",
                        pull.left[(i, j)]
                    );
                    let moved = |by: f64| {
                        Mat::from_fn(9, 3, |p, q| right[(p, q)] + if (p, q) == (i, j) { by } else { 0.0 })
                    };
                    let slope = (value(&left, &moved(step)) - value(&left, &moved(-step))) / (2.0 * step);
                    assert!((slope - pull.right[(i, j)]).abs() < 1e-5, "{name} {loss:?} {slope}");
                }
            }
        }
    }

    #[test]
    fn the_unit_makes_them_isotropic() {
        // (u²/m)·Σ ⟨A_i, X⟩ A_i against X: exact for all entries, within the noise √(n/m) of a law of large numbers otherwise.
        let (left, right) = (normal(1, 8, 2), normal(2, 8, 2));
        let x = multiply(left.as_ref(), right.transpose());
        let all: Vec<_> = (0..64).map(|i| (i / 8, i % 8, 0.0)).collect();
        let each: Vec<(Box<dyn Measurement>, f64)> = vec![
            (Box::new(DenseSensing::gaussian(8, 8, 20_000, Seed(1)).unwrap()), 0.1),
            (Box::new(RankOne::gaussian(8, 8, 20_000, Seed(1)).unwrap()), 0.2),
            (Box::new(Entries::from_triples(8, 8, all).unwrap().0), 1e-12),
            (Box::new(Identity::new(8, 8).unwrap()), 1e-12),
        ];
        for (a, allowed) in each {
            let share = a.unit() * a.unit() / a.count() as f64;
            let weights = a.apply(left.as_ref(), right.as_ref()).iter().map(|v| share * v).collect();
            let back = a.adjoint(weights).times(Mat::<f64>::identity(8, 8).as_ref());
            assert!((back - &x).norm_l2() < allowed * x.norm_l2());
        }
    }
}
