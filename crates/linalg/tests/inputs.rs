//! Facts of statistics of rows that come in batches: the same as of all rows at once, however they are split; what a cut
//! costs; when they have settled.

#![allow(clippy::unwrap_used, clippy::panic, reason = "clippy sees only the #[test] functions here as tests")]

use faer::{Mat, MatRef};
use lowrank_linalg::{
    Components, IncrementalSvd, LinalgError, Moments, energy, multiply, narrow, orthonormal_basis, overlap,
    svd_in_f64, widen,
};
use lowrank_record::Seed;

fn random(seed: u64, m: usize, n: usize) -> Mat<f32> {
    let draws = Seed(seed).normal(m * n);
    Mat::from_fn(m, n, |i, j| draws[i * n + j])
}

/// Rows `[n, d]` with covariance eigenvalues `i^-power` in a random basis, and a mean of this size.
fn rows(n: usize, d: usize, power: f64, mean: f64) -> Mat<f32> {
    let basis = orthonormal_basis(widen(random(1, d, d).as_ref()).as_ref()).unwrap();
    let draws = random(2, n, d);
    let scaled = Mat::from_fn(n, d, |i, j| f64::from(draws[(i, j)]) * ((j + 1) as f64).powf(-power / 2.0));
    let about = multiply(scaled.as_ref(), basis.transpose());
    let offset = random(3, 1, d);
    narrow(Mat::from_fn(n, d, |i, j| about[(i, j)] + mean * f64::from(offset[(0, j)])).as_ref())
}

/// In batches of these sizes, over and over.
fn batches<'a>(rows: &'a Mat<f32>, sizes: &[usize]) -> Vec<MatRef<'a, f32>> {
    let (mut parts, mut first) = (Vec::new(), 0);
    for size in sizes.iter().cycle() {
        if first == rows.nrows() {
            return parts;
        }
        let count = (*size).min(rows.nrows() - first);
        parts.push(rows.as_ref().subrows(first, count));
        first += count;
    }
    parts
}

/// The mean by its definition.
fn mean_of(rows: &Mat<f32>) -> Vec<f64> {
    let (n, d) = rows.shape();
    (0..d).map(|j| (0..n).map(|i| f64::from(rows[(i, j)])).sum::<f64>() / n as f64).collect()
}

/// Mean and covariance by their definitions, in two passes in f64.
fn by_hand(rows: &Mat<f32>) -> (Vec<f64>, Mat<f64>) {
    let (n, d) = rows.shape();
    let mean = mean_of(rows);
    let about = Mat::from_fn(n, d, |i, j| f64::from(rows[(i, j)]) - mean[j]);
    let covariance =
        Mat::from_fn(d, d, |j, k| (0..n).map(|i| about[(i, j)] * about[(i, k)]).sum::<f64>() / n as f64);
    (mean, covariance)
}

/// The leading components of all rows at once, from the decomposition of the rows themselves.
fn at_once(rows: &Mat<f32>, count: usize, centred: bool) -> (Vec<f64>, Mat<f32>) {
    let mean = mean_of(rows);
    let about = |j: usize| if centred { mean[j] } else { 0.0 };
    let whole = Mat::from_fn(rows.nrows(), rows.ncols(), |i, j| f64::from(rows[(i, j)]) - about(j));
    let svd = svd_in_f64(whole.as_ref()).unwrap().head(count);
    (svd.values, narrow(svd.right.as_ref()))
}

fn moments(parts: &[MatRef<'_, f32>]) -> Moments {
    let mut moments = Moments::new(parts[0].ncols());
    parts.iter().for_each(|part| moments.absorb(*part).unwrap());
    moments
}

fn incremental(parts: &[MatRef<'_, f32>], count: usize, more: usize, centred: bool) -> IncrementalSvd {
    let mut state = IncrementalSvd::new(parts[0].ncols(), count, more, centred, Seed(9)).unwrap();
    parts.iter().for_each(|part| state.absorb(*part).unwrap());
    state
}

const SPLITS: [&[usize]; 4] = [&[5000], &[1], &[300, 7, 41], &[1024, 2]];

#[test]
fn moments_are_those_of_the_definition_however_rows_are_split() {
    // A mean a hundred times the spread: sums of squares about zero would lose four digits.
    let rows = rows(1500, 23, 1.0, 100.0);
    let (mean, covariance) = by_hand(&rows);
    for split in SPLITS {
        let found = moments(&batches(&rows, split));
        assert_eq!(found.rows(), 1500);
        let off = found.mean().iter().zip(&mean).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(off < 1e-11, "{split:?}: mean {off:e} off");
        let off = energy((found.covariance() - &covariance).as_ref()).sqrt();
        assert!(off < 1e-11, "{split:?}: covariance {off:e} off");
        let trace: f64 = (0..23).map(|j| covariance[(j, j)]).sum();
        assert!((found.energy(true) / (1500.0 * trace) - 1.0).abs() < 1e-11);
        assert!((found.energy(false) / energy(rows.as_ref()) - 1.0).abs() < 1e-12);
        let second = multiply(widen(rows.as_ref()).transpose(), widen(rows.as_ref()).as_ref());
        let off = energy((found.second_moment() - faer::Scale(1.0 / 1500.0) * &second).as_ref()).sqrt();
        assert!(off < 1e-12 * second.norm_l2(), "{split:?}: second moment {off:e} off");
        for (j, variance) in found.variance().into_iter().enumerate() {
            assert!((variance - covariance[(j, j)]).abs() < 1e-12 * 1e4, "{split:?}: variance {j}");
        }
    }
    assert_eq!(Moments::new(4).energy(false), 0.0);
}

#[test]
fn merged_moments_are_those_of_all_rows() {
    let rows = rows(700, 17, 0.5, 3.0);
    let parts = batches(&rows, &[450, 250]);
    let (mut first, second) = (moments(&parts[..1]), moments(&parts[1..]));
    let whole = moments(&[rows.as_ref()]);
    first.merge(&second).unwrap();
    assert_eq!(first.rows(), 700);
    assert!(energy((first.second_moment() - whole.second_moment()).as_ref()).sqrt() < 1e-12);
    let unchanged = first.clone();
    first.merge(&Moments::new(17)).unwrap();
    assert_eq!(first, unchanged);
    assert!(matches!(first.merge(&Moments::new(16)), Err(LinalgError::Shape { .. })));
}

#[test]
fn what_is_not_a_number_is_refused_and_leaves_no_trace() {
    let rows = rows(40, 6, 1.0, 1.0);
    let mut broken = rows.clone();
    broken[(31, 2)] = f32::NAN;
    let (mut sums, mut state) = (moments(&[rows.as_ref()]), incremental(&[rows.as_ref()], 2, 2, true));
    let before = (sums.clone(), state.clone());
    for refused in [sums.absorb(broken.as_ref()), state.absorb(broken.as_ref())] {
        assert!(matches!(refused, Err(LinalgError::NonFinite { row: 31, col: 2, .. })), "{refused:?}");
    }
    for refused in [sums.absorb(random(1, 3, 7).as_ref()), state.absorb(random(1, 3, 7).as_ref())] {
        assert!(matches!(refused, Err(LinalgError::Shape { want_cols: 6, cols: 7, .. })), "{refused:?}");
    }
    assert!((sums, state) == before);
    assert!(IncrementalSvd::new(6, 7, 0, true, Seed(1)).is_err());
    assert!(IncrementalSvd::new(6, 0, 0, true, Seed(1)).is_err());
    assert!(before.0.principal(7, true, Seed(1)).is_err() && before.1.components(0).is_err());
}

fn close(found: &Components, (values, right): &(Vec<f64>, Mat<f32>), total: f64, at: &str) {
    assert_eq!(found.count(), values.len(), "{at}");
    for (i, (ratio, value)) in found.ratios().iter().zip(values).enumerate() {
        assert!((ratio - value * value / total).abs() < 1e-6, "{at}: ratio {i} is {ratio}");
    }
    // Signs are fixed on both sides, so vectors are compared as they are.
    let off = (found.right.clone() - right).col_iter().flat_map(|c| c.iter().copied()).fold(0.0, f32::max);
    assert!(off < 1e-4, "{at}: components {off:e} off");
}

#[test]
fn without_a_cut_components_are_those_of_all_rows_in_any_split_and_order() {
    let rows = rows(600, 12, 1.0, 2.0);
    let turned = Mat::from_fn(600, 12, |i, j| rows[(599 - i, j)]);
    for centred in [true, false] {
        let whole = at_once(&rows, 12, centred);
        let total: f64 = whole.0.iter().map(|value| value * value).sum();
        for split in SPLITS {
            for rows in [&rows, &turned] {
                let parts = batches(rows, split);
                let at = format!("{split:?}, centred: {centred}");
                let found = incremental(&parts, 12, 0, centred);
                close(&found.components(12).unwrap(), &whole, total, &at);
                assert_eq!(found.rows(), 600, "{at}");
                let (mean, covariance) = by_hand(rows);
                let found = found.components(12).unwrap();
                let off = found.mean.iter().zip(&mean).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                assert!(off < 1e-12, "{at}: mean {off:e} off");
                let spread: f64 = (0..12).map(|j| covariance[(j, j)]).sum();
                if centred {
                    assert!((found.energy / (600.0 * spread) - 1.0).abs() < 1e-12, "{at}");
                }
                let exact = moments(&parts).principal(12, centred, Seed(1)).unwrap();
                close(&exact, &whole, total, &format!("moments, {at}"));
            }
        }
    }
}

#[test]
fn a_few_rows_wait_for_more_and_are_never_lost() {
    let rows = rows(200, 10, 1.0, 1.0);
    let (by_three, at_once) = (batches(&rows, &[3]), batches(&rows, &[9]));
    let (slow, quick) = (incremental(&by_three, 4, 5, true), incremental(&at_once, 4, 5, true));
    assert!(slow == quick, "batches of 3 are not batches of 9");
    // 198 in updates, 2 waiting.
    assert_eq!((slow.rows(), slow.updates()), (200, 22));
    let found = slow.components(4).unwrap();
    assert_eq!(found.rows, 200);
    assert!((found.energy / moments(&by_three).energy(true) - 1.0).abs() < 1e-12);
    // Fewer rows than components in all.
    let two = incremental(&batches(&rows, &[2])[..1], 4, 0, true).components(4).unwrap();
    assert_eq!((two.count(), two.rows), (2, 2));
    assert!(two.values[1] < 1e-6 * two.values[0], "two rows about their mean have one direction");
}

/// What the components hold of the best that as many could: these singular values.
fn held(found: &Components, rows: &Mat<f32>, best: &[f64]) -> f64 {
    let mean = mean_of(rows);
    let about = Mat::from_fn(rows.nrows(), rows.ncols(), |i, j| (f64::from(rows[(i, j)]) - mean[j]) as f32);
    let inside = multiply(about.as_ref(), found.right.transpose());
    energy(inside.as_ref()) / squares(best)
}

fn squares(values: &[f64]) -> f64 {
    values.iter().map(|value| value * value).sum()
}

#[test]
fn a_cut_costs_little_and_less_with_more_components_kept() {
    for (power, least, kept) in [(0.5, 0.97, 0.995), (1.0, 0.99, 0.9995)] {
        let rows = rows(20 * 128, 64, power, 0.5);
        let parts = batches(&rows, &[128]);
        let plain = incremental(&parts, 12, 0, true).components(12).unwrap();
        let more = incremental(&parts, 12, 12, true).components(12).unwrap();
        let best = at_once(&rows, 12, true).0;
        let (plain, more) = (held(&plain, &rows, &best), held(&more, &rows, &best));
        assert!(plain >= least && plain <= 1.0 + 1e-5, "i^-{power}: {plain} of the best");
        assert!(more >= kept && more <= 1.0 + 1e-5, "i^-{power}, twice as many kept: {more} of the best");
        assert!(more > plain, "i^-{power}");
    }
}

#[test]
fn wide_rows_are_sketched_and_hold_nearly_as_much() {
    // 530 wide: randomised, since an exact decomposition of [265, 530] takes twenty times the operations.
    let rows = rows(4 * 256, 530, 1.0, 0.5);
    let (values, right) = at_once(&rows, 4, true);
    let found = incremental(&batches(&rows, &[256]), 4, 4, true).components(4).unwrap();
    let part = held(&found, &rows, &values);
    assert!(part > 0.99 && part <= 1.0 + 1e-5, "{part} of the best");
    let stated = found.captured() * found.energy / squares(&values);
    assert!((stated - part).abs() < 2e-2 && stated <= part + 1e-4, "{stated} stated, {part} held");
    // Above 128 the moments are iterated on, to the end.
    let iterated = moments(&batches(&rows, &[256])).principal(4, true, Seed(3)).unwrap();
    assert!(iterated.exact && iterated.converged && !found.exact);
    for (value, wanted) in iterated.values.iter().zip(&values) {
        assert!((value / wanted - 1.0).abs() < 1e-7, "{value} {wanted}");
    }
    let together = overlap(iterated.right.transpose(), right.transpose()).unwrap();
    assert!(together > 1.0 - 1e-6, "{together}");
}

#[test]
fn a_spectrum_too_flat_to_be_iterated_is_not_called_converged() {
    // White inputs: the sixteenth and the seventeenth eigenvalue differ by less than a hundredth.
    let white = rows(900, 530, 0.0, 0.0);
    let moments = moments(&batches(&white, &[300]));
    let stopped = moments.principal(8, true, Seed(3)).unwrap();
    assert!(stopped.exact && !stopped.converged);
    // All of it is decomposed where all of it is iterated on.
    let whole = moments.principal(300, true, Seed(3)).unwrap();
    assert!(whole.converged);
    let part = squares(&stopped.values) / squares(&whole.values[..8]);
    assert!(part < 1.0 - 1e-9 && part > 0.9, "{part} of the best");
}

#[test]
fn components_settle_as_rows_come_in() {
    let rows = rows(4000, 24, 2.0, 0.5);
    let mut state = IncrementalSvd::new(24, 4, 4, true, Seed(1)).unwrap();
    let mut seen = Vec::new();
    for part in batches(&rows, &[100]) {
        state.absorb(part).unwrap();
        seen.push((state.cosines(), state.carried()));
    }
    assert_eq!(seen[0], (None, None));
    let first = |seen: &(Option<Vec<f64>>, Option<Vec<f64>>)| {
        let (cosines, carried) = (seen.0.as_ref().unwrap(), seen.1.as_ref().unwrap());
        (cosines[..4].iter().copied().fold(1.0, f64::min), carried[3])
    };
    let (early, late) = (first(&seen[1]), first(&seen[39]));
    assert!(late.0 > 0.999 && late.1 > 0.9999, "{late:?}");
    assert!(early.0 < late.0 && early.1 < late.1, "{early:?} {late:?}");
    let carried = seen[39].1.clone().unwrap();
    assert!(carried.iter().all(|part| (0.0..=1.0).contains(part)), "{carried:?}");
    let found = state.components(4).unwrap();
    assert_eq!((found.cosines, found.carried), seen[39].clone());
}
