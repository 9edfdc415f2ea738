//! The invariants of both papers, and that each rule and stop does what it says.

use faer::{Mat, MatRef, Scale};
use lowrank_linalg::{multiply, orthonormal_basis};
use lowrank_record::Seed;

use super::*;
use crate::recovery::{DenseSensing, Entries, Identity, Measurement, RankOne, Start, unwatched};

fn normal(name: &str, rows: usize, cols: usize) -> Mat<f64> {
    let draws = Seed(9).at("law", name).normal(rows * cols);
    Mat::from_fn(rows, cols, |i, j| f64::from(draws[i * cols + j]))
}

/// Symmetric, positive, of rank 2 with eigenvalues 1 and 0.8.
fn truth(n: usize) -> Mat<f64> {
    let q = orthonormal_basis(normal("truth", n, 2).as_ref()).unwrap();
    let scaled = Mat::from_fn(n, 2, |i, j| q[(i, j)] * [1.0, 0.8][j]);
    multiply(scaled.as_ref(), q.transpose())
}

fn observed(measurement: &dyn Measurement, matrix: MatRef<'_, f64>) -> Vec<f64> {
    measurement.apply(matrix, Mat::<f64>::identity(matrix.ncols(), matrix.ncols()).as_ref())
}

/// The factors after so many steps of a given descent.
fn run(descent: Descent, measurement: &dyn Measurement, y: &[f64], start: &Factors) -> Solution {
    descent.solve(&Problem::new(measurement, y).unwrap(), start, &mut unwatched).unwrap()
}

fn apart(a: &Factors, b: &Factors) -> f64 {
    (&a.left - &b.left).norm_l2() + (&a.right - &b.right).norm_l2()
}

fn constant(step: f64, steps: usize) -> (Steps, Limits) {
    (Steps::Constant(step), Limits::steps(steps))
}

#[test]
fn the_imbalance_changes_by_the_square_of_the_step() {
    let all = Identity::new(8, 6).unwrap();
    let y = normal("y", 48, 1).col_as_slice(0).to_vec();
    let start = Factors::new(normal("l", 8, 3), normal("r", 6, 3)).unwrap();
    let step = 0.01;
    let (steps, limits) = constant(step, 1);
    let after = run(Descent::asymmetric(Loss::Squared, steps, limits), &all, &y, &start).factors;
    let residual = start.product() - MatRef::from_row_major_slice(&y, 8, 6);
    let gram = |a: &Mat<f64>, b: &Mat<f64>| {
        multiply(a.transpose(), a.as_ref()) - multiply(b.transpose(), b.as_ref())
    };
    let (rg, rf) = (
        multiply(residual.as_ref(), start.right.as_ref()),
        multiply(residual.transpose(), start.left.as_ref()),
    );
    let wanted = Scale(step * step) * gram(&rg, &rf);
    let found = gram(&after.left, &after.right) - gram(&start.left, &start.right);
    assert!((found - &wanted).norm_l2() < 1e-11 * wanted.norm_l2().max(1.0));
}

#[test]
fn a_balanced_asymmetric_run_is_the_symmetric_one() {
    let all = Identity::new(9, 9).unwrap();
    let y = observed(&all, truth(9).as_ref());
    let start = Factors::symmetric(normal("u", 9, 4));
    let (steps, limits) = constant(0.05, 50);
    let one = run(Descent::symmetric(Loss::Squared, steps, limits), &all, &y, &start).factors;
    let other = run(Descent::asymmetric(Loss::Squared, steps, limits), &all, &y, &start).factors;
    assert!(apart(&one, &other) < 1e-12);
}

#[test]
fn factors_may_be_turned_from_the_right() {
    let a = DenseSensing::gaussian(9, 9, 120, Seed(1)).unwrap();
    let y = observed(&a, truth(9).as_ref());
    let q = orthonormal_basis(normal("q", 4, 4).as_ref()).unwrap();
    let turn = |factors: &Factors| {
        let turned = |factor: &Mat<f64>| multiply(factor.as_ref(), q.as_ref());
        Factors::new(turned(&factors.left), turned(&factors.right)).unwrap()
    };
    // Off by the rounding that the first sign of a residual near zero makes: few steps.
    for (loss, steps) in [(Loss::Squared, 40), (Loss::Absolute, 10)] {
        let (rule, limits) = constant(0.05, steps);
        for descent in [Descent::symmetric(loss, rule, limits), Descent::asymmetric(loss, rule, limits)] {
            let start = Factors::symmetric(normal("u", 9, 4));
            let turned = run(descent, &a, &y, &turn(&start)).factors;
            let plain = run(descent, &a, &y, &start).factors;
            assert!(apart(&turned, &turn(&plain)) < 1e-10, "{descent:?}");
        }
    }
}

#[test]
fn zero_columns_stay_zero_and_the_gradient_is_bounded() {
    let a = DenseSensing::gaussian(9, 9, 120, Seed(1)).unwrap();
    let y = observed(&a, truth(9).as_ref());
    let start = Mat::from_fn(9, 4, |i, j| if j == 2 { 0.0 } else { 0.1 * ((i + 3 * j) % 5) as f64 });
    let (steps, limits) = constant(0.1, 30);
    let found = run(Descent::symmetric(Loss::Absolute, steps, limits), &a, &y, &Factors::symmetric(start));
    assert!(found.factors.left.col(2).iter().all(|&x| x == 0.0) && found.factors.left.col(1).norm_l2() > 0.0);
    // ‖D‖ ≤ (1/m)·Σ‖A_i‖, here the mean length of 81 normal draws, below their root mean square 9.
    let weights = found.residual.iter().map(|&r| Loss::Absolute.weight(r, a.unit(), a.count())).collect();
    let size = a.adjoint(weights).energy().sqrt();
    assert!(size > 0.0 && size <= 9.0);
}

#[test]
fn the_order_of_measurements_does_not_matter() {
    let entries = Seed(3).normal(60 * 36);
    let order = Seed(4).permutation(60);
    let shuffled: Vec<f32> = order.iter().flat_map(|&i| entries[i * 36..(i + 1) * 36].to_vec()).collect();
    let (a, b) =
        (DenseSensing::from_rows(6, 6, entries).unwrap(), DenseSensing::from_rows(6, 6, shuffled).unwrap());
    let y = observed(&a, truth(6).as_ref());
    let other: Vec<f64> = order.iter().map(|&i| y[i]).collect();
    let start = Factors::symmetric(normal("u", 6, 3));
    for loss in [Loss::Squared, Loss::Absolute] {
        let (steps, limits) = constant(0.05, 10);
        let descent = Descent::symmetric(loss, steps, limits);
        assert!(
            apart(&run(descent, &a, &y, &start).factors, &run(descent, &b, &other, &start).factors) < 1e-11
        );
    }
}

#[test]
fn the_sub_gradient_method_sees_signs_only() {
    let a = DenseSensing::gaussian(9, 9, 120, Seed(1)).unwrap();
    let mut y = observed(&a, truth(9).as_ref());
    let start = Factors::symmetric(Scale(0.01) * normal("u", 9, 4));
    let (steps, limits) = constant(0.1, 60);
    let descent = Descent::symmetric(Loss::Absolute, steps, limits);
    // Four times the data and twice the start: twice the whole way, bit for bit, as both are powers of two.
    let plain = run(descent, &a, &y, &start).factors;
    let scaled: Vec<f64> = y.iter().map(|y| 4.0 * y).collect();
    let twice = run(descent, &a, &scaled, &Factors::symmetric(Scale(2.0) * &start.left)).factors;
    assert_eq!(twice.left, Scale(2.0) * &plain.left);
    // Outliers a million times as large change nothing.
    (0..12).for_each(|i| y[10 * i] += if i % 2 == 0 { 50.0 } else { -50.0 });
    let some = run(descent, &a, &y, &start).factors;
    (0..12).for_each(|i| y[10 * i] *= 1e6);
    assert_eq!(some, run(descent, &a, &y, &start).factors);
    assert_ne!(some, plain);
}

#[test]
fn gradient_descent_goes_down_and_does_not_depend_on_threads() {
    let all = Identity::new(9, 9).unwrap();
    let y = observed(&all, truth(9).as_ref());
    for descent in [Descent::symmetric, Descent::asymmetric] {
        let (steps, limits) = constant(0.1, 300);
        let start = Start::Random { alpha: 0.3, ratio: 1.0 / 3.0 };
        let problem = Problem::new(&all, &y).unwrap();
        let start = start.factors(&problem, Loss::Squared, 4, Seed(2)).unwrap();
        let descent = descent(Loss::Squared, steps, limits);
        let solve = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| run(descent, &all, &y, &start))
        };
        let found = solve(1);
        assert!(found.trace.windows(2).all(|pair| pair[1].loss <= pair[0].loss), "{descent:?}");
        assert_eq!(found, solve(3));
    }
}

#[test]
fn every_measurement_rule_and_form_finds_the_matrix() {
    let (n, matrix) = (12, truth(12));
    let places: Vec<_> = Seed(6)
        .permutation(n * n)
        .into_iter()
        .take(110)
        .map(|p| (p / n, p % n, matrix[(p / n, p % n)]))
        .collect();
    let (entries, values) = Entries::from_triples(n, n, places).unwrap();
    let dense = DenseSensing::gaussian(n, n, 300, Seed(1)).unwrap();
    let rank_one = RankOne::gaussian(n, n, 400, Seed(1)).unwrap();
    let of = |a: &dyn Measurement| observed(a, matrix.as_ref());
    let each: [(&dyn Measurement, Vec<f64>); 3] =
        [(&dense, of(&dense)), (&rank_one, of(&rank_one)), (&entries, values)];
    let rules = [
        (Loss::Squared, Steps::Constant(0.2), None),
        (Loss::Squared, Steps::Polyak { optimum: 0.0, cap: 0.3 }, None),
        (Loss::Squared, Steps::Constant(0.3), Some(1e-3)),
        (Loss::Absolute, Steps::Geometric { first: 0.2, ratio: 0.995 }, None),
        (Loss::Absolute, Steps::LossProportional(0.3), None),
        (Loss::Absolute, Steps::Polyak { optimum: 0.0, cap: 0.2 }, None),
        (Loss::Absolute, Steps::PolyakEstimated { cap: 0.2 }, None),
        (Loss::Absolute, Steps::Adaptive { first: 0.2, patience: 30 }, None),
        (Loss::Absolute, Steps::Polyak { optimum: 0.0, cap: 1.0 }, Some(1e-3)),
    ];
    for (index, (measurement, y)) in each.iter().enumerate() {
        let problem = Problem::new(*measurement, y).unwrap();
        for (loss, steps, damping) in rules {
            let limits = Limits { tolerance: 1e-6, ..Limits::steps(6000) };
            let random = Start::Spectral { alpha: 0.3 };
            let symmetric = (
                Descent::symmetric(loss, steps, limits),
                random.symmetric(&problem, loss, 2, Seed(8)).unwrap(),
            );
            let asymmetric = (
                Descent::asymmetric(loss, steps, limits),
                random.factors(&problem, loss, 2, Seed(8)).unwrap(),
            );
            for (descent, start) in [symmetric, asymmetric] {
                let descent = Descent { precondition: damping, ..descent };
                let found = descent.solve(&problem, &start, &mut unwatched).unwrap();
                let error = found.factors.distance(matrix.as_ref()) / matrix.norm_l2();
                assert!(error < 1e-3, "measurement {index}, {descent:?}: {error:e}, {:?}", found.stop);
            }
        }
    }
}

#[test]
fn each_run_says_why_it_ended() {
    let all = Identity::new(6, 6).unwrap();
    let y = observed(&all, truth(6).as_ref());
    let problem = Problem::new(&all, &y).unwrap();
    let start =
        Start::Random { alpha: 0.3, ratio: 0.5 }.factors(&problem, Loss::Squared, 2, Seed(1)).unwrap();
    let solve = |loss, steps, limits: Limits| {
        let descent = Descent::asymmetric(loss, steps, limits);
        descent.solve(&problem, &start, &mut unwatched).unwrap()
    };
    let (steps, limits) = constant(0.2, 3000);
    assert_eq!(solve(Loss::Squared, steps, Limits::steps(5)).stop, Stop::Budget);
    let found = solve(Loss::Squared, steps, Limits { tolerance: 1e-8, ..limits });
    assert!(found.stop == Stop::Converged && found.quality.relative_residual <= 1e-8);
    assert!(found.iterations < 3000 && found.quality.best_iteration == found.iterations);
    let found = solve(Loss::Absolute, Steps::Constant(0.2), Limits { patience: Some(200), ..limits });
    assert_eq!(found.stop, Stop::Stagnated, "a constant step circles around its goal");
    let vanishing = Steps::Geometric { first: 0.2, ratio: 0.9 };
    assert_eq!(solve(Loss::Absolute, vanishing, limits).stop, Stop::StepVanished);
    let found = solve(Loss::Squared, Steps::Constant(50.0), limits);
    assert_eq!(found.stop, Stop::Diverged);
    assert!(found.factors.left.is_all_finite() && found.residual.iter().all(|r| r.is_finite()));
    let asked = Descent::asymmetric(Loss::Squared, steps, limits)
        .solve(&problem, &start, &mut |moment| (Some(moment.loss), moment.iteration < 7))
        .unwrap();
    assert_eq!((asked.stop, asked.iterations), (Stop::Asked, 7));
    assert!(asked.trace.iter().all(|line| line.seen == Some(line.loss)));
}

#[test]
fn what_cannot_be_begun_is_refused() {
    let all = Identity::new(6, 5).unwrap();
    let y = vec![1.0; 30];
    let problem = Problem::new(&all, &y).unwrap();
    let (steps, limits) = constant(0.1, 5);
    let start = Factors::new(Mat::zeros(6, 2), Mat::zeros(5, 2)).unwrap();
    let refused =
        |descent: Descent, start: &Factors| descent.solve(&problem, start, &mut unwatched).unwrap_err();
    let plain = Descent::asymmetric(Loss::Squared, steps, limits);
    let symmetric = Descent::symmetric(Loss::Squared, steps, limits);
    assert_eq!(refused(symmetric, &start), RecoveryError::NotSquare { rows: 6, cols: 5 });
    let large = Factors::new(Mat::zeros(6, 6), Mat::zeros(5, 6)).unwrap();
    assert_eq!(refused(plain, &large), RecoveryError::Rank { rank: 6, rows: 6, cols: 5 });
    let other = Factors::new(Mat::zeros(5, 2), Mat::zeros(6, 2)).unwrap();
    assert!(matches!(refused(plain, &other), RecoveryError::Shape { what: "the left factor", .. }));
    assert!(matches!(
        refused(Descent { steps: Steps::Constant(0.0), ..plain }, &start),
        RecoveryError::Setting { .. }
    ));
    assert!(matches!(refused(plain.preconditioned(-1.0), &start), RecoveryError::Setting { .. }));
}

#[test]
fn the_change_of_balance_makes_a_slow_run_fast() {
    // Over-parameterised from a small start: the spare columns hardly move until the factors are rebalanced.
    let all = Identity::new(12, 12).unwrap();
    let matrix = truth(12);
    let y = observed(&all, matrix.as_ref());
    let problem = Problem::new(&all, &y).unwrap();
    let start =
        Start::Random { alpha: 0.1, ratio: 1.0 / 3.0 }.factors(&problem, Loss::Squared, 5, Seed(3)).unwrap();
    let (steps, limits) = constant(0.1, 1500);
    let plain = Descent::asymmetric(Loss::Squared, steps, limits);
    let error = |descent: Descent| run(descent, &all, &y, &start).factors.distance(matrix.as_ref());
    let slow = error(plain);
    for when in [When::Step(400), When::Settled] {
        let fast = error(plain.rebalanced(1.0, when));
        assert!(fast < 1e-12 && fast < 1e-6 * slow, "{when:?}: {fast:e} against {slow:e}");
    }
}
