//! Laws of every decomposition: put the matrix back together; orthonormal bases; descending values; fixed signs; the
//! truncation error that the spectrum predicts; the same bits on one thread and on two.

#![allow(clippy::unwrap_used, clippy::panic, reason = "clippy sees only the #[test] functions here as tests")]

use faer::{Mat, MatRef};
use lowrank_linalg::{
    IncrementalSvd, LinalgError, LowRank, Moments, Operator, OuterProducts, Pivoting, Sketch,
    SubspaceIteration, Svd, energy, ldu, multiply, narrow, orthonormal_basis, overlap, pivoted_qr,
    pseudo_inverse, qr, randomised_svd, svd, svd_in_f64, widen,
};
use lowrank_record::Seed;

/// A matrix that meets every law, and the rank it has.
struct Matrix {
    name: &'static str,
    a: Mat<f32>,
    rank: usize,
}

fn random(seed: u64, m: usize, n: usize) -> Mat<f32> {
    let draws = Seed(seed).normal(m * n);
    Mat::from_fn(m, n, |i, j| draws[i * n + j])
}

fn basis(seed: u64, d: usize, k: usize) -> Mat<f64> {
    orthonormal_basis(widen(random(seed, d, k).as_ref()).as_ref()).unwrap()
}

/// A matrix with these singular values and random bases.
fn with_values(m: usize, n: usize, values: &[f64]) -> Mat<f32> {
    let (u, v) = (basis(21, m, values.len()), basis(22, n, values.len()));
    let scaled = Mat::from_fn(m, values.len(), |i, j| u[(i, j)] * values[j]);
    narrow(multiply(scaled.as_ref(), v.transpose()).as_ref())
}

fn matrices() -> Vec<Matrix> {
    let clustered: Vec<f64> = (0..24).map(|i| if i < 12 { 3.0 + 1e-6 * f64::from(i) } else { 1.0 }).collect();
    let decaying: Vec<f64> = (0..40).map(|i| 0.5_f64.powi(i)).collect();
    let slow: Vec<f64> = (1..=60).map(|i| f64::from(i).powf(-0.5)).collect();
    let deficient = multiply(random(3, 50, 7).as_ref(), random(4, 7, 33).as_ref());
    let mut repeated = random(5, 30, 12);
    for i in 0..30 {
        repeated[(i, 3)] = repeated[(i, 2)];
        repeated[(i, 0)] = 0.0;
    }
    vec![
        Matrix { name: "tall", a: random(1, 90, 20), rank: 20 },
        Matrix { name: "wide", a: random(2, 20, 90), rank: 20 },
        Matrix { name: "square", a: random(6, 48, 48), rank: 48 },
        Matrix { name: "more than one block", a: random(16, 300, 270), rank: 270 },
        Matrix { name: "rank-deficient", a: deficient, rank: 7 },
        Matrix { name: "repeated and zero columns", a: repeated, rank: 10 },
        Matrix { name: "zero", a: Mat::zeros(9, 14), rank: 0 },
        Matrix { name: "one by one", a: Mat::from_fn(1, 1, |_, _| -2.5), rank: 1 },
        Matrix { name: "one row", a: random(8, 1, 30), rank: 1 },
        Matrix { name: "one column", a: random(8, 30, 1), rank: 1 },
        Matrix { name: "clustered", a: with_values(40, 24, &clustered), rank: 24 },
        Matrix { name: "fast-decaying", a: with_values(44, 52, &decaying), rank: 40 },
        Matrix { name: "slowly decaying", a: with_values(70, 60, &slow), rank: 60 },
        Matrix { name: "tiny", a: faer::Scale(1e-25_f32) * random(9, 25, 31), rank: 25 },
        Matrix { name: "huge", a: faer::Scale(1e30_f32) * random(9, 31, 25), rank: 25 },
    ]
}

type Decompose = fn(&Mat<f32>) -> Svd;

/// name, decomposition, tolerance in units of f32's ε·√max(m, n): of the error relative to σ₁, and of the distance of
/// the bases from orthonormal. The first row is so much looser because faer's f32 iteration is.
const DECOMPOSITIONS: &[(&str, Decompose, f64)] = &[
    ("svd", |a| svd(a.as_ref()).unwrap(), 50.0),
    ("svd in f64", |a| svd_in_f64(a.as_ref()).unwrap(), 3.0),
    ("randomised, full width", |a| full_width(a), 4.0),
    ("factors", |a| factors(a), 3.0),
];

fn full_width(a: &Mat<f32>) -> Svd {
    let k = a.nrows().min(a.ncols());
    randomised_svd(a, k, Sketch { oversampling: 0, power: 1 }, Seed(5)).unwrap().svd
}

/// The matrix as a product of itself and the identity, on the smaller side.
fn factors(a: &Mat<f32>) -> Svd {
    let (m, n) = a.shape();
    let (left, right) =
        if m < n { (Mat::identity(m, m), a.clone()) } else { (a.clone(), Mat::identity(n, n)) };
    LowRank::new(left, right).unwrap().factor().unwrap()
}

fn norm(a: MatRef<'_, f32>) -> f64 {
    energy(a).sqrt()
}

fn off_identity(gram: &Mat<f64>) -> f64 {
    energy((gram - Mat::<f64>::identity(gram.nrows(), gram.ncols())).as_ref()).sqrt()
}

#[test]
fn every_decomposition_puts_every_matrix_back_together() {
    for Matrix { name, a, rank } in &matrices() {
        let (m, n) = a.shape();
        let truth = svd_in_f64(a.as_ref()).unwrap();
        for &(method, decompose, tolerance) in DECOMPOSITIONS {
            let at = format!("{method} of {name}");
            let found = decompose(a);
            assert_eq!((found.left.nrows(), found.right.ncols(), found.rank()), (m, n, m.min(n)), "{at}");
            let rounding = tolerance * f64::from(f32::EPSILON) * (m.max(n) as f64).sqrt();
            let allowed = rounding * truth.values[0];
            let error = norm((found.reconstruct() - a).as_ref());
            assert!(error <= allowed, "{at}: error {error:e}, allowed {allowed:e}");
            let (u, v) = (widen(found.left.as_ref()), widen(found.right.as_ref()));
            for gram in [multiply(u.transpose(), u.as_ref()), multiply(v.as_ref(), v.transpose())] {
                let off = off_identity(&gram);
                assert!(off <= rounding, "{at}: {off:e} from orthonormal, allowed {rounding:e}");
            }
            assert!(found.values.is_sorted_by(|x, y| x >= y), "{at}: {:?}", found.values);
            for (index, (x, y)) in found.values.iter().zip(&truth.values).enumerate() {
                assert!((x - y).abs() <= allowed, "{at}: value {index} is {x:e}, not {y:e}");
                assert!(index < *rank || *x <= allowed, "{at}: value {index} beyond the rank is {x:e}");
            }
            for triplet in 0..found.rank() {
                let row = found.right.row(triplet);
                let largest =
                    row.iter().fold(0.0_f32, |most, &x| if x.abs() > most.abs() { x } else { most });
                assert!(largest >= 0.0, "{at}: right vector {triplet} points the other way");
            }
        }
    }
}

#[test]
fn truncation_has_the_error_the_spectrum_predicts() {
    for Matrix { name, a, rank } in &matrices() {
        for &(method, decompose, tolerance) in DECOMPOSITIONS {
            let found = decompose(a);
            for kept in [1, rank / 2, rank.saturating_sub(1)] {
                let predicted = found.tail(kept);
                let measured = norm((found.head(kept).reconstruct() - a).as_ref());
                // Rounding of the reconstruction dominates when (almost) nothing is cut.
                let rounding = tolerance * f64::from(f32::EPSILON) * (a.nrows().max(a.ncols()) as f64).sqrt();
                let off = (measured - predicted).abs();
                assert!(
                    off <= 1e-5 * predicted + rounding * found.values[0],
                    "{method} of {name} at {kept}: {measured:e} {predicted:e}"
                );
            }
        }
    }
}

#[test]
fn qr_puts_every_matrix_back_together() {
    for Matrix { name, a, .. } in &matrices() {
        let found = qr(a.as_ref()).unwrap();
        let (m, n) = a.shape();
        let error = norm((multiply(found.q.as_ref(), found.r.as_ref()) - a).as_ref());
        let allowed = 2.0 * f64::from(f32::EPSILON) * (m.max(n) as f64).sqrt() * norm(a.as_ref());
        assert!(error <= allowed, "{name}: {error:e} {allowed:e}");
        let q = widen(found.q.as_ref());
        assert!(off_identity(&multiply(q.transpose(), q.as_ref())) < 1e-5, "{name}");
        for j in 0..n.min(m) {
            assert!(found.r[(j, j)] >= 0.0, "{name}: diagonal {j}");
            assert!(
                (j + 1..m.min(n)).all(|i| found.r[(i, j)] == 0.0),
                "{name}: below the diagonal in column {j}"
            );
        }
    }
}

#[test]
fn pivoted_qr_puts_every_matrix_back_together() {
    for Matrix { name, a, rank } in &matrices() {
        let (m, n) = a.shape();
        let k = m.min(n);
        let found = pivoted_qr(a.as_ref(), k).unwrap();
        let a = widen(a.as_ref());
        let size = energy(a.as_ref()).sqrt();
        let error = energy((multiply(found.q.as_ref(), found.r.as_ref()) - &a).as_ref()).sqrt();
        assert!(error <= 1e-14 * (m.max(n) as f64) * size, "{name}: {error:e}");
        assert!(off_identity(&multiply(found.q.transpose(), found.q.as_ref())) < 1e-12, "{name}");
        let pivots: Vec<f64> = (0..k).map(|step| found.r[(step, found.columns[step])]).collect();
        // Each step takes the longest of what is left, and what is left never grows.
        assert!(pivots.windows(2).all(|two| two[1] <= two[0] * (1.0 + 1e-6)), "{name}: {pivots:?}");
        assert!(pivots[..*rank].iter().all(|&pivot| pivot > 0.0), "{name}: {pivots:?}");
        for (step, &column) in found.columns.iter().enumerate() {
            assert!((step + 1..k).all(|below| found.r[(below, column)] == 0.0), "{name}: column {column}");
            // An entry of a row is at most its pivot.
            let most = found.r.row(step).iter().fold(0.0_f64, |most, x| most.max(x.abs()));
            assert!(most <= pivots[step] * (1.0 + 1e-6), "{name}: row {step}: {most:e}");
        }
        // Fewer steps are the first of all steps.
        if k > 1 {
            let few = pivoted_qr(narrow(a.as_ref()).as_ref(), k / 2).unwrap();
            assert_eq!(few.columns, found.columns[..k / 2], "{name}");
            assert_eq!(few.q.as_ref(), found.q.as_ref().subcols(0, k / 2), "{name}");
        }
    }
}

#[test]
fn elimination_puts_every_matrix_back_together() {
    for Matrix { name, a, rank } in &matrices() {
        for pivoting in [Pivoting::Partial, Pivoting::Rook] {
            let at = format!("{pivoting:?} of {name}");
            let (m, n) = a.shape();
            let k = m.min(n);
            let found = ldu(a.as_ref(), k, pivoting).unwrap();
            let wide = widen(a.as_ref());
            let largest = largest_of(&wide);
            // What has no pivot is below the rounding of f32; the rest is exact to the growth of elimination.
            let rest = &wide - found.reconstruct();
            let error = largest_of(&rest);
            let steps = found.steps;
            let allowed = if steps == k { 1e-11 } else { 1e-6 * (k as f64).sqrt() } * largest;
            assert!(error <= allowed, "{at}: {error:e}, allowed {allowed:e}");
            // A spectrum that decays below the rounding of f32 has fewer usable pivots than its rank.
            assert!(steps == *rank || (steps < *rank && *name == "fast-decaying"), "{at}: {steps} of {rank}");
            for (k, (&row, &column)) in found.rows.iter().zip(&found.columns).enumerate() {
                assert_eq!((found.left[(row, k)], found.right[(k, column)]), (1.0, 1.0), "{at}");
                assert!(found.left.row(row).iter().skip(k + 1).all(|&x| x == 0.0), "{at}: row {row}");
                assert!((k + 1..found.right.nrows()).all(|i| found.right[(i, column)] == 0.0), "{at}");
            }
            assert!(largest_of(&found.left) <= 1.0 + 1e-9, "{at}: {}", largest_of(&found.left));
            assert!(pivoting == Pivoting::Partial || largest_of(&found.right) <= 1.0 + 1e-9, "{at}");
            let distinct = |list: &[usize]| list.iter().collect::<std::collections::BTreeSet<_>>().len();
            assert_eq!((distinct(&found.rows), distinct(&found.columns)), (k, k), "{at}");
            // Cut short, pivot rows and columns are exact, and the part is the cross approximation of them.
            if *rank > 3 {
                cross_is_exact(a, rank / 2, pivoting, &at);
            }
        }
    }
}

fn largest_of(matrix: &Mat<f64>) -> f64 {
    matrix.col_iter().flat_map(|column| column.iter().map(|x| x.abs())).fold(0.0, f64::max)
}

/// `L·diag(d)·U = A[:, J] · A[I, J]⁻¹ · A[I, :]`, and nothing is left of the rows I and the columns J.
fn cross_is_exact(a: &Mat<f32>, rank: usize, pivoting: Pivoting, at: &str) {
    let (found, a) = (ldu(a.as_ref(), rank, pivoting).unwrap(), widen(a.as_ref()));
    let (m, n) = a.shape();
    let part = found.reconstruct();
    let largest = largest_of(&a);
    let rest = &a - &part;
    let off = |i: usize, j: usize| rest[(i, j)].abs() <= 1e-10 * largest;
    assert!(found.rows.iter().all(|&i| (0..n).all(|j| off(i, j))), "{at}: pivot rows");
    assert!(found.columns.iter().all(|&j| (0..m).all(|i| off(i, j))), "{at}: pivot columns");
    if found.steps < rank {
        return;
    }
    let columns = Mat::from_fn(m, rank, |i, k| a[(i, found.columns[k])]);
    let rows = Mat::from_fn(rank, n, |k, j| a[(found.rows[k], j)]);
    let core = Mat::from_fn(rank, rank, |k, l| a[(found.rows[k], found.columns[l])]);
    let inverse = pseudo_inverse(core.as_ref(), 0.0).unwrap();
    let condition = inverse.values[0] / inverse.values[rank - 1];
    let cross = multiply(multiply(columns.as_ref(), inverse.matrix.as_ref()).as_ref(), rows.as_ref());
    let apart = energy((cross - &part).as_ref()).sqrt();
    assert!(apart <= 1e-13 * condition * energy(part.as_ref()).sqrt(), "{at}: {apart:e}, {condition:e}");
}

#[test]
fn a_pseudo_inverse_meets_the_four_conditions_of_penrose() {
    for Matrix { name, a, rank } in &matrices() {
        let a = widen(a.as_ref());
        // Values below the rounding of f32 are noise of the rank-deficient ones.
        let found = pseudo_inverse(a.as_ref(), 1e-6).unwrap();
        assert!(found.kept == *rank || *name == "fast-decaying", "{name}: {} of {rank}", found.kept);
        if found.kept == 0 {
            continue;
        }
        let (ax, xa) =
            (multiply(a.as_ref(), found.matrix.as_ref()), multiply(found.matrix.as_ref(), a.as_ref()));
        let near = |x: &Mat<f64>, y: &Mat<f64>| energy((x - y).as_ref()) <= 1e-10 * energy(y.as_ref());
        // A without what was cut off, of which A⁺ knows nothing.
        let cut = svd_in_f64(a.as_ref()).unwrap().head(found.kept).reconstruct();
        assert!(near(&multiply(ax.as_ref(), a.as_ref()), &cut), "{name}: AXA = A");
        assert!(near(&multiply(xa.as_ref(), found.matrix.as_ref()), &found.matrix), "{name}: XAX = X");
        for projector in [ax, xa] {
            assert!(near(&projector.transpose().to_owned(), &projector), "{name}: projectors are symmetric");
        }
    }
}

#[test]
fn leading_and_minor_triplets_are_the_whole() {
    for Matrix { name, a, .. } in &matrices() {
        let all = svd_in_f64(widen(a.as_ref()).as_ref()).unwrap();
        let k = all.rank();
        for count in [0, 1, k / 2, k, k + 3] {
            let (head, minor) = (all.head(k - count.min(k)), all.minor(count));
            assert_eq!(minor.values, all.values[k - count.min(k)..], "{name}");
            // Nothing of the one is in the other.
            let left = multiply(head.left.transpose(), minor.left.as_ref());
            assert!(energy(left.as_ref()).sqrt() < 1e-11, "{name}");
            let sum = head.reconstruct() + minor.reconstruct();
            let error = energy((sum - widen(a.as_ref())).as_ref()).sqrt();
            assert!(error <= 1e-12 * (1.0 + all.values[0]) * (k as f64), "{name}: {error:e}");
        }
    }
}

#[test]
fn a_sketch_finds_the_leading_part_and_says_how_much_it_is() {
    let values: Vec<f64> = (1..=96).map(|i| f64::from(i).powf(-0.5)).collect();
    let a = with_values(160, 96, &values);
    let truth = svd_in_f64(a.as_ref()).unwrap();
    for rank in [4, 8, 16] {
        let best = truth.head(rank).energy();
        let found = randomised_svd(&a, rank, Sketch::for_rank(rank), Seed(3)).unwrap();
        assert!(found.exact);
        assert!(found.svd.energy() <= best * (1.0 + 1e-6));
        assert!(found.svd.energy() >= 0.99 * best, "rank {rank}: {} of {best}", found.svd.energy());
        assert!((found.captured() - found.svd.energy() / truth.energy()).abs() < 1e-6);
        // More power is no worse, and four iterations nearly reach the optimum.
        let more = randomised_svd(&a, rank, Sketch { oversampling: 3 * rank, power: 4 }, Seed(3)).unwrap();
        assert!(more.svd.energy() >= 0.9995 * best, "rank {rank}: {} of {best}", more.svd.energy());
        let close = overlap(more.svd.right.transpose(), truth.head(rank).right.transpose()).unwrap();
        assert!(close > 0.98, "rank {rank}: overlap {close}");
    }
}

/// Batches of a gradient δᵀX with a few strong directions.
fn batches() -> Vec<(Mat<f32>, Mat<f32>)> {
    (0..5).map(|b| (random(40 + b, 30 + b as usize, 64), random(50 + b, 30 + b as usize, 48))).collect()
}

fn dense(batches: &[(Mat<f32>, Mat<f32>)]) -> Mat<f32> {
    let mut sum = Mat::<f32>::zeros(64, 48);
    for (delta, x) in batches {
        sum += multiply(delta.transpose(), x.as_ref());
    }
    sum
}

fn outer(batches: &[(Mat<f32>, Mat<f32>)]) -> OuterProducts<'_> {
    let mut sum = OuterProducts::new(64, 48);
    for (delta, x) in batches {
        sum.push(delta.as_ref(), x.as_ref()).unwrap();
    }
    sum
}

#[test]
fn operators_agree_with_the_matrix_they_stand_for() {
    let held = batches();
    let factors = LowRank::new(random(60, 64, 5), random(61, 5, 48)).unwrap();
    let outer = outer(&held);
    let rows: [(&str, &dyn Operator, Mat<f32>); 2] =
        [("factors", &factors, factors.reconstruct()), ("outer products", &outer, dense(&held))];
    for (name, operator, matrix) in rows {
        assert_eq!((operator.rows(), operator.cols()), matrix.shape(), "{name}");
        let (x, y) = (random(70, 48, 3), random(71, 64, 3));
        let size = norm(matrix.as_ref());
        let off = norm((operator.apply(x.as_ref()) - multiply(matrix.as_ref(), x.as_ref())).as_ref());
        assert!(off < 1e-5 * size, "{name}: {off:e}");
        let off =
            norm((operator.apply_transpose(y.as_ref()) - multiply(matrix.transpose(), y.as_ref())).as_ref());
        assert!(off < 1e-5 * size, "{name}: {off:e}");
        if let Some(known) = operator.energy() {
            assert!((known / energy(matrix.as_ref()) - 1.0).abs() < 1e-5, "{name}");
        }
    }
}

fn stepwise(
    held: &[(Mat<f32>, Mat<f32>)],
    width: usize,
    passes: usize,
    rank: usize,
) -> lowrank_linalg::Sketched {
    let mut iteration = SubspaceIteration::start(Seed(8), 64, 48, width, passes).unwrap();
    while iteration.passes_left() > 0 {
        for (delta, x) in held {
            iteration.absorb_outer(delta.as_ref(), x.as_ref()).unwrap();
        }
        iteration.end_pass().unwrap();
    }
    iteration.finish(rank, None).unwrap()
}

#[test]
fn the_gradient_is_never_formed_and_the_factors_are_the_same() {
    let held = batches();
    let in_steps = stepwise(&held, 16, 6, 6);
    let at_once = randomised_svd(&outer(&held), 6, Sketch { oversampling: 10, power: 2 }, Seed(8)).unwrap();
    assert!(in_steps == at_once, "the two ways differ");
    assert!(!in_steps.exact);
    let matrix = dense(&held);
    let from_dense = randomised_svd(&matrix, 6, Sketch { oversampling: 10, power: 2 }, Seed(8)).unwrap();
    for (x, y) in in_steps.svd.values.iter().zip(&from_dense.svd.values) {
        assert!((x / y - 1.0).abs() < 1e-4, "{x} {y}");
    }
    // √(2/16) is one standard deviation of the estimate at the worst spectrum.
    assert!((in_steps.energy / energy(matrix.as_ref()) - 1.0).abs() < 0.7, "{}", in_steps.energy);
    // An odd number of passes ends on the other side; more passes capture no less.
    let truth = svd_in_f64(matrix.as_ref()).unwrap().head(6).energy();
    let mut before = 0.0;
    for passes in 2..9 {
        let held = stepwise(&held, 16, passes, 6).svd.energy() / truth;
        assert!(held >= before - 1e-6 && held <= 1.0 + 1e-5, "{passes} passes: {held} after {before}");
        before = held;
    }
    assert!(before > 0.99, "{before}");
}

#[test]
fn an_iteration_refuses_what_it_cannot_use() {
    let mut iteration = SubspaceIteration::start(Seed(8), 6, 5, 3, 2).unwrap();
    assert!(matches!(SubspaceIteration::start(Seed(8), 6, 5, 6, 2), Err(LinalgError::Rank { rank: 6, .. })));
    assert!(matches!(SubspaceIteration::start(Seed(8), 6, 5, 3, 1), Err(LinalgError::Passes { .. })));
    assert!(matches!(iteration.absorb(random(1, 5, 3).as_ref()), Err(LinalgError::Shape { .. })));
    let (delta, x) = (random(1, 4, 6), random(2, 3, 5));
    assert!(matches!(iteration.absorb_outer(delta.as_ref(), x.as_ref()), Err(LinalgError::Shape { .. })));
    assert!(matches!(
        iteration.clone().finish(2, None),
        Err(LinalgError::Passes { planned: 2, done: 0, .. })
    ));
    iteration.absorb(Mat::from_fn(6, 3, |_, _| f32::NAN).as_ref()).unwrap();
    assert!(matches!(iteration.end_pass(), Err(LinalgError::NonFinite { .. })));
    let message = randomised_svd(&random(1, 4, 6), 5, Sketch::for_rank(5), Seed(1)).unwrap_err().to_string();
    assert_eq!(message, "rank 5 asked of a matrix [4, 6]: give a rank from 1 to 4");
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let a = random(30, 700, 420);
    let held = batches();
    let work = || {
        let sketched = randomised_svd(&a, 8, Sketch::for_rank(8), Seed(2)).unwrap();
        let exact = svd(a.as_ref().subcols(0, 90)).unwrap();
        let sum = LowRank::new(random(31, 700, 9), random(32, 9, 420)).unwrap().truncate(4).unwrap();
        let pivoted = pivoted_qr(a.as_ref(), 20).unwrap();
        let eliminated = [Pivoting::Partial, Pivoting::Rook].map(|way| ldu(a.as_ref(), 20, way).unwrap());
        let plain = qr(a.as_ref().subcols(0, 60)).unwrap();
        let mut moments = Moments::new(420);
        moments.absorb(a.as_ref()).unwrap();
        let mut incremental = IncrementalSvd::new(420, 8, 8, true, Seed(3)).unwrap();
        incremental.absorb(a.as_ref()).unwrap();
        let rows = (moments.principal(5, true, Seed(4)).unwrap(), moments, incremental);
        ((sketched, exact, sum, plain), stepwise(&held, 12, 5, 4), (pivoted, eliminated), rows)
    };
    let on = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(work);
    let one = on(1);
    for threads in [2, 3] {
        assert!(one == on(threads), "{threads} threads give other bits");
    }
    assert!(one == work(), "the global pool gives other bits");
}
