//! `y = (x − μ)·c ⊙ gain + bias` with `μ = mean(x)` and `c = 1/√(mean((x − μ)²) + ε)` for each row.
//!
//! Memory-bound. The mean is taken out before the squares are added, so that a row far from zero loses nothing. Sums run
//! in f32 over runs of 256 values, sixteen lanes wide, and the runs in f64, as in [`super::rms_norm`].

use rayon::prelude::*;

use super::Real;
use super::real::{dot, sum};

/// Rows of one task.
const ROWS: usize = 32;

/// What the forward keeps of each row.
#[derive(Debug)]
pub struct Moments<'a, T> {
    /// `μ`, `[n]`.
    pub mean: &'a [T],
    /// `c`, `[n]`.
    pub inverse: &'a [T],
}

/// # Shapes
/// `x: [n, d]`, `gain: [d]`, `bias: [d]`, `y: [n, d]`, `mean: [n]` (receives `μ`), `inverse: [n]` (receives `c`).
pub fn forward<T: Real>(
    x: &[T],
    [gain, bias]: [&[T]; 2],
    epsilon: f64,
    y: &mut [T],
    mean: &mut [T],
    inverse: &mut [T],
) {
    let d = gain.len().max(1);
    let moments = mean.par_chunks_mut(ROWS).zip(inverse.par_chunks_mut(ROWS));
    let tasks = y.par_chunks_mut(ROWS * d).zip(x.par_chunks(ROWS * d)).zip(moments);
    tasks.for_each(|((y, x), (mean, inverse))| {
        T::vectorised(
            #[inline(always)]
            || {
                let rows = y.chunks_exact_mut(d).zip(x.chunks_exact(d)).zip(mean.iter_mut().zip(inverse));
                for ((y, x), (mean, inverse)) in rows {
                    *mean = T::from_f64(sum(x) / d as f64);
                    for (y, &x) in y.iter_mut().zip(x) {
                        *y = x - *mean;
                    }
                    *inverse = T::from_f64(1.0 / (dot(y, y) / d as f64 + epsilon).sqrt());
                    for ((y, &gain), &bias) in y.iter_mut().zip(gain).zip(bias) {
                        *y = *y * *inverse * gain + bias;
                    }
                }
            },
        );
    });
}

/// With `x̂ = (x − μ)·c` and `g = gain ⊙ dy`: `dx = c·(g − mean(g) − x̂·mean(g ⊙ x̂))`; `dgain = Σ x̂ ⊙ dy` and `dbias = Σ dy`
/// over the rows, in f64, each when wanted.
///
/// # Shapes
/// As in [`forward`]; `dx`, `dgain` and `dbias` are overwritten.
pub fn backward<T: Real>(
    x: &[T],
    gain: &[T],
    moments: &Moments<'_, T>,
    dy: &[T],
    dx: &mut [T],
    [dgain, dbias]: [Option<&mut [T]>; 2],
) {
    let d = gain.len().max(1);
    let rows_of = moments.mean.par_chunks(ROWS).zip(moments.inverse.par_chunks(ROWS));
    let tasks = dx.par_chunks_mut(ROWS * d).zip(x.par_chunks(ROWS * d)).zip(dy.par_chunks(ROWS * d));
    tasks.zip(rows_of).for_each(|(((dx, x), dy), (mean, inverse))| {
        T::vectorised(
            #[inline(always)]
            || {
                let mut normed = vec![T::ZERO; d];
                let rows = dx.chunks_exact_mut(d).zip(x.chunks_exact(d)).zip(dy.chunks_exact(d));
                for (((dx, x), dy), (&mean, &c)) in rows.zip(mean.iter().zip(inverse)) {
                    for ((dx, &dy), &gain) in dx.iter_mut().zip(dy).zip(gain) {
                        *dx = dy * gain;
                    }
                    for (normed, &x) in normed.iter_mut().zip(x) {
                        *normed = (x - mean) * c;
                    }
                    let shift = T::from_f64(sum(dx) / d as f64);
                    let shrink = T::from_f64(dot(dx, &normed) / d as f64);
                    for (dx, &normed) in dx.iter_mut().zip(&normed) {
                        *dx = c * (*dx - shift - normed * shrink);
                    }
                }
            },
        );
    });
    if let Some(dgain) = dgain {
        // Partial sums of fixed runs of rows, added in order.
        let rows = x.par_chunks(ROWS * d).zip(dy.par_chunks(ROWS * d));
        let rows = rows.zip(moments.mean.par_chunks(ROWS).zip(moments.inverse.par_chunks(ROWS)));
        let partial = rows.map(|((x, dy), (mean, inverse))| {
            let mut sums = vec![0.0; d];
            let rows = x.chunks_exact(d).zip(dy.chunks_exact(d)).zip(mean.iter().zip(inverse));
            for ((x, dy), (&mean, &c)) in rows {
                for ((sum, &x), &dy) in sums.iter_mut().zip(x).zip(dy) {
                    *sum += ((x - mean) * c * dy).to_f64();
                }
            }
            sums
        });
        add_in_order(&partial.collect::<Vec<_>>(), dgain);
    }
    if let Some(dbias) = dbias {
        let partial = dy.par_chunks(ROWS * d).map(|dy| {
            let mut sums = vec![0.0; d];
            for dy in dy.chunks_exact(d) {
                for (sum, &dy) in sums.iter_mut().zip(dy) {
                    *sum += dy.to_f64();
                }
            }
            sums
        });
        add_in_order(&partial.collect::<Vec<_>>(), dbias);
    }
}

fn add_in_order<T: Real>(partial: &[Vec<f64>], total: &mut [T]) {
    for (column, total) in total.iter_mut().enumerate() {
        *total = T::from_f64(partial.iter().map(|sums| sums[column]).sum());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lowrank_record::Seed;

    #[test]
    fn the_same_bits_on_any_number_of_threads() {
        let (n, d) = (500, 300);
        let draws = |name: &str, count: usize| Seed(8).at("layer_norm", name).normal(count);
        let (x, gain, bias, dy) = (draws("x", n * d), draws("gain", d), draws("bias", d), draws("dy", n * d));
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let (mut y, mut mean, mut inverse) = (vec![0.0; n * d], vec![0.0; n], vec![0.0; n]);
                forward(&x, [&gain, &bias], 1e-5, &mut y, &mut mean, &mut inverse);
                let (mut dx, mut dgain, mut dbias) = (vec![0.0; n * d], vec![0.0; d], vec![0.0; d]);
                let moments = Moments { mean: &mean, inverse: &inverse };
                backward(&x, &gain, &moments, &dy, &mut dx, [Some(&mut dgain), Some(&mut dbias)]);
                [y, dx, dgain, dbias]
            })
        };
        let one = run(1);
        assert!(one == run(2) && one == run(3));
    }

    #[test]
    fn a_row_far_from_zero_keeps_its_shape() {
        // In f32 the squares of such a row would hide its spread: E[x²] − μ² is 0 or negative here.
        let d = 64;
        let x: Vec<f32> = (0..d).map(|i| 4096.0 + (i % 2) as f32).collect();
        let (ones, zeros) = (vec![1.0; d], vec![0.0; d]);
        let (mut y, mut mean, mut inverse) = (vec![0.0; d], [0.0], [0.0]);
        forward(&x, [&ones, &zeros], 0.0, &mut y, &mut mean, &mut inverse);
        for (i, y) in y.iter().enumerate() {
            assert_eq!(*y, if i % 2 == 0 { -1.0 } else { 1.0 });
        }
    }
}
