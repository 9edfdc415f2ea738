//! `y = x·c ⊙ gain` with `c = 1/√(mean(x²) + ε)` for each row.
//!
//! Memory-bound: one read and one write forward, two reads and one write backward. Squares and dot products are
//! added in f32 over runs of 256 values, sixteen lanes wide, and the runs in f64: a sum of d values is off by at most
//! about 16 roundings of f32, whatever d is.

use rayon::prelude::*;

use super::Real;
use super::real::dot;

/// Rows of one task.
const ROWS: usize = 32;

/// # Shapes
/// `x: [n, d]`, `gain: [d]`, `y: [n, d]`, `inverse: [n]` (receives `c`).
pub fn forward<T: Real>(x: &[T], gain: &[T], epsilon: f64, y: &mut [T], inverse: &mut [T]) {
    let d = gain.len().max(1);
    let tasks = y.par_chunks_mut(ROWS * d).zip(x.par_chunks(ROWS * d)).zip(inverse.par_chunks_mut(ROWS));
    tasks.for_each(|((y, x), inverse)| {
        T::vectorised(
            #[inline(always)]
            || {
                for ((y, x), inverse) in y.chunks_exact_mut(d).zip(x.chunks_exact(d)).zip(inverse) {
                    let square = dot(x, x);
                    *inverse = T::from_f64(1.0 / (square / d as f64 + epsilon).sqrt());
                    for ((y, &x), &gain) in y.iter_mut().zip(x).zip(gain) {
                        *y = x * *inverse * gain;
                    }
                }
            },
        );
    });
}

/// `dx = c·(gain ⊙ dy) − x·c³·mean(x ⊙ gain ⊙ dy)`; `dgain = Σ x·c ⊙ dy` over the rows, in f64, when wanted.
///
/// # Shapes
/// As in [`forward`]; `dx` and `dgain` are overwritten.
pub fn backward<T: Real>(
    x: &[T],
    gain: &[T],
    inverse: &[T],
    dy: &[T],
    dx: &mut [T],
    dgain: Option<&mut [T]>,
) {
    let d = gain.len().max(1);
    let tasks = dx.par_chunks_mut(ROWS * d).zip(x.par_chunks(ROWS * d)).zip(dy.par_chunks(ROWS * d));
    tasks.zip(inverse.par_chunks(ROWS)).for_each(|(((dx, x), dy), inverse)| {
        T::vectorised(
            #[inline(always)]
            || {
                let rows = dx.chunks_exact_mut(d).zip(x.chunks_exact(d)).zip(dy.chunks_exact(d)).zip(inverse);
                for (((dx, x), dy), &c) in rows {
                    for ((dx, &dy), &gain) in dx.iter_mut().zip(dy).zip(gain) {
                        *dx = dy * gain;
                    }
                    let mean = T::from_f64(dot(dx, x) / d as f64);
                    let shrink = c * c * c * mean;
                    for (dx, &x) in dx.iter_mut().zip(x) {
                        *dx = *dx * c - x * shrink;
                    }
                }
            },
        );
    });
    let Some(dgain) = dgain else { return };
    // Partial sums of fixed runs of rows, added in order.
    let partial: Vec<Vec<f64>> = x
        .par_chunks(ROWS * d)
        .zip(dy.par_chunks(ROWS * d))
        .zip(inverse.par_chunks(ROWS))
        .map(|((x, dy), inverse)| {
            let mut sums = vec![0.0; d];
            for ((x, dy), &c) in x.chunks_exact(d).zip(dy.chunks_exact(d)).zip(inverse) {
                for ((sum, &x), &dy) in sums.iter_mut().zip(x).zip(dy) {
                    *sum += (x * c * dy).to_f64();
                }
            }
            sums
        })
        .collect();
    for (column, dgain) in dgain.iter_mut().enumerate() {
        *dgain = T::from_f64(partial.iter().map(|sums| sums[column]).sum());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lowrank_record::Seed;

    #[test]
    fn the_same_bits_on_any_number_of_threads() {
        let (n, d) = (500, 300);
        let draws = |name: &str, count: usize| Seed(8).at("rms_norm", name).normal(count);
        let (x, gain, dy) = (draws("x", n * d), draws("gain", d), draws("dy", n * d));
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let (mut y, mut inverse) = (vec![0.0; n * d], vec![0.0; n]);
                forward(&x, &gain, 1e-5, &mut y, &mut inverse);
                let (mut dx, mut dgain) = (vec![0.0; n * d], vec![0.0; d]);
                backward(&x, &gain, &inverse, &dy, &mut dx, Some(&mut dgain));
                [y, dx, dgain]
            })
        };
        let one = run(1);
        assert!(one == run(2) && one == run(3));
    }
}
