//! Matrix products of row-major slices, cut into fixed tiles of the result.
//!
//! Each tile is one sequential faer product, and tiles depend on the shape alone, so results do not depend on the number
//! of threads. A tile packs its right-hand side again: at 256 rows that is one packed value for 512 flops of each column.

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use rayon::prelude::*;

use super::{Real, RowSource, SliceRows};

/// Rows of the result in one tile.
const ROWS: usize = 256;
/// Tiles that a result has at least, so that few rows do not leave threads idle, unless they would be narrower than
/// [`NARROW`].
const TILES: usize = 4;
/// Columns of the narrowest tile.
const NARROW: usize = 128;
/// Below this many rows a product is a few dot products (decoding one token) and is cut along its columns instead.
const FEW: usize = 8;

fn accum(add: bool) -> Accum {
    if add { Accum::Add } else { Accum::Replace }
}

/// Hands out the tiles of a row-major `[n, m]` result with their first row and column.
fn tiled<T: Real>(y: &mut [T], [n, m]: [usize; 2], work: impl Fn(usize, usize, MatMut<'_, T>) + Sync) {
    let across = TILES.div_ceil(n.div_ceil(ROWS));
    let columns = m.div_ceil(across).next_multiple_of(16).max(NARROW);
    let y = MatMut::from_row_major_slice_mut(y, n, m);
    y.par_row_chunks_mut(ROWS).enumerate().for_each(|(down, rows)| {
        rows.par_col_chunks_mut(columns)
            .enumerate()
            .for_each(|(across, tile)| work(down * ROWS, across * columns, tile));
    });
}

/// `y [n, m] (+)= x [n, k] · wᵀ`, w `[m, k]`.
pub fn nt<T: Real>(y: &mut [T], x: &[T], w: &[T], [n, k, m]: [usize; 3], add: bool) {
    assert_eq!((y.len(), x.len(), w.len()), (n * m, n * k, m * k), "sizes of y, x and w");
    if y.is_empty() {
        return;
    }
    if is_few(n) {
        return few(y, x, &SliceRows { values: w, cols: k }, add);
    }
    let x = MatRef::from_row_major_slice(x, n, k);
    let w = MatRef::from_row_major_slice(w, m, k).transpose();
    tiled(y, [n, m], |row, column, tile| {
        let (x, w) = (x.subrows(row, tile.nrows()), w.subcols(column, tile.ncols()));
        matmul(tile, accum(add), x, w, T::ONE, Par::Seq);
    });
}

/// Whether a product of `n` rows is one for [`few`].
#[must_use]
pub fn is_few(n: usize) -> bool {
    n < FEW
}

/// `y [n, m] (+)= x [n, k] · wᵀ` for few rows: w `[m, k]` is read once, in blocks of its rows, which are independent. Each
/// is widened by the task that multiplies it, so that no widened weight goes through memory.
pub fn few<T: Real>(y: &mut [T], x: &[T], w: &dyn RowSource<T>, add: bool) {
    const BLOCK: usize = 64;
    let (m, k) = (w.rows(), w.cols());
    let n = y.len() / m.max(1);
    assert_eq!((y.len(), x.len()), (n * m, n * k), "sizes of y and x");
    if y.is_empty() {
        return;
    }
    let parts = (0..m.div_ceil(BLOCK)).into_par_iter().map_init(Vec::new, |scratch, block| {
        let cols = BLOCK.min(m - block * BLOCK);
        let w = MatRef::from_row_major_slice(w.read(block * BLOCK..block * BLOCK + cols, scratch), cols, k);
        let mut part = vec![T::ZERO; n * cols];
        let y = MatMut::from_row_major_slice_mut(&mut part, n, cols);
        matmul(y, Accum::Replace, MatRef::from_row_major_slice(x, n, k), w.transpose(), T::ONE, Par::Seq);
        part
    });
    columns(y, [n, m], BLOCK, &parts.collect::<Vec<_>>(), add);
}

/// Writes parts `[n, block]`, each row-major and the last perhaps narrower, beside each other into y `[n, m]`.
fn columns<T: Real>(y: &mut [T], [n, m]: [usize; 2], block: usize, parts: &[Vec<T>], add: bool) {
    for (index, part) in parts.iter().enumerate() {
        let cols = part.len() / n.max(1);
        for (row, part) in part.chunks_exact(cols.max(1)).enumerate() {
            let y = &mut y[row * m + index * block..][..cols];
            for (y, &part) in y.iter_mut().zip(part) {
                *y = if add { *y + part } else { part };
            }
        }
    }
}

/// `y [n, m] (+)= x [n, k] · w [k, m]`.
pub fn nn<T: Real>(y: &mut [T], x: &[T], w: &[T], [n, k, m]: [usize; 3], add: bool) {
    assert_eq!((y.len(), x.len(), w.len()), (n * m, n * k, k * m), "sizes of y, x and w");
    if y.is_empty() {
        return;
    }
    let x = MatRef::from_row_major_slice(x, n, k);
    let w = MatRef::from_row_major_slice(w, k, m);
    tiled(y, [n, m], |row, column, tile| {
        let (x, w) = (x.subrows(row, tile.nrows()), w.subcols(column, tile.ncols()));
        matmul(tile, accum(add), x, w, T::ONE, Par::Seq);
    });
}

/// A low-rank path beside a frozen product, in one pass over x: `hidden [n, r] = x · first`, then
/// `y [n, m] (+)= x · w + hidden · second`, with x `[n, k]`, w `[k, m]`, first `[k, r]`, second `[r, m]`, whichever way they
/// lie in memory. A tile's rows of x and y stay in the cache between the three products, and threads meet once instead of
/// three times. Only for enough rows to share: see [`shares`].
pub fn beside<T: Real>(
    y: &mut [T],
    hidden: &mut [T],
    x: &[T],
    [w, first, second]: [MatRef<'_, T>; 3],
    add: bool,
) {
    let ((k, m), r) = (w.shape(), first.ncols());
    let n = x.len() / k.max(1);
    let x = MatRef::from_row_major_slice(x, n, k);
    let y = MatMut::from_row_major_slice_mut(y, n, m).par_row_chunks_mut(ROWS);
    let hidden = MatMut::from_row_major_slice_mut(hidden, n, r).par_row_chunks_mut(ROWS);
    y.zip(hidden).enumerate().for_each(|(block, (mut y, mut hidden))| {
        let x = x.subrows(block * ROWS, y.nrows());
        matmul(hidden.as_mut(), Accum::Replace, x, first, T::ONE, Par::Seq);
        matmul(y.as_mut(), accum(add), x, w, T::ONE, Par::Seq);
        matmul(y, Accum::Add, hidden.as_ref(), second, T::ONE, Par::Seq);
    });
}

/// Whether `n` rows are enough tiles for [`beside`].
#[must_use]
pub fn shares(n: usize) -> bool {
    n.div_ceil(ROWS) >= TILES
}

/// `y [m, k] (+)= xᵀ · z`, x `[n, m]`, z `[n, k]`: sums over the n rows.
pub fn tn<T: Real>(y: &mut [T], x: &[T], z: &[T], [n, m, k]: [usize; 3], add: bool) {
    assert_eq!((y.len(), x.len(), z.len()), (m * k, n * m, n * k), "sizes of y, x and z");
    if y.is_empty() {
        return;
    }
    let x = MatRef::from_row_major_slice(x, n, m);
    let z = MatRef::from_row_major_slice(z, n, k);
    if m <= k {
        // A short, wide result (the gradient of a right factor) is cut along its columns: y = (zᵀx)ᵀ.
        const COLS: usize = 256;
        let parts: Vec<Vec<T>> = (0..k.div_ceil(COLS))
            .into_par_iter()
            .map(|block| {
                let cols = COLS.min(k - block * COLS);
                let mut part = vec![T::ZERO; m * cols];
                let z = z.subcols(block * COLS, cols);
                let y = MatMut::from_row_major_slice_mut(&mut part, m, cols);
                matmul(y, Accum::Replace, x.transpose(), z, T::ONE, Par::Seq);
                part
            })
            .collect();
        columns(y, [m, k], COLS, &parts, add);
        return;
    }
    y.par_chunks_mut(ROWS * k).enumerate().for_each(|(block, y)| {
        let rows = y.len() / k;
        let x = x.subcols(block * ROWS, rows).transpose();
        matmul(MatMut::from_row_major_slice_mut(y, rows, k), accum(add), x, z, T::ONE, Par::Seq);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use lowrank_record::Seed;

    fn draws(name: &str, count: usize) -> Vec<f64> {
        Seed(5).at("product", name).normal(count).into_iter().map(f64::from).collect()
    }

    #[test]
    fn products_equal_their_sums() {
        for [n, k, m] in [
            [1, 70, 130],
            [5, 3, 2],
            [300, 17, 40],
            [513, 9, 300],
            [40, 20, 7],
            [200, 5, 700],
            [40, 600, 300],
        ] {
            for add in [false, true] {
                let (x, w, z) = (draws("x", n * k), draws("w", m * k), draws("z", n * m));
                let (mut y, mut back, mut gram) = (draws("y", n * m), draws("b", n * k), draws("g", m * k));
                let (y0, back0, gram0) = (y.clone(), back.clone(), gram.clone());
                nt(&mut y, &x, &w, [n, k, m], add);
                nn(&mut back, &z, &w, [n, m, k], add);
                tn(&mut gram, &z, &x, [n, m, k], add);
                let old = |value: f64| if add { value } else { 0.0 };
                let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-10 * (n + m + k) as f64, "{a} {b}");
                for i in 0..n {
                    for j in 0..m {
                        let dot: f64 = (0..k).map(|t| x[i * k + t] * w[j * k + t]).sum();
                        close(y[i * m + j], old(y0[i * m + j]) + dot);
                    }
                    for t in 0..k {
                        let dot: f64 = (0..m).map(|j| z[i * m + j] * w[j * k + t]).sum();
                        close(back[i * k + t], old(back0[i * k + t]) + dot);
                    }
                }
                for j in 0..m {
                    for t in 0..k {
                        let dot: f64 = (0..n).map(|i| z[i * m + j] * x[i * k + t]).sum();
                        close(gram[j * k + t], old(gram0[j * k + t]) + dot);
                    }
                }
            }
        }
    }

    #[test]
    fn the_same_bits_on_any_number_of_threads() {
        // Several tiles down and across, several blocks of columns, and few rows.
        for [n, k, m] in [[1100, 300, 700], [300, 700, 600], [3, 600, 500]] {
            let narrow = |values: Vec<f64>| values.into_iter().map(|v| v as f32).collect::<Vec<f32>>();
            let (x, w, z) = (narrow(draws("x", n * k)), narrow(draws("w", m * k)), narrow(draws("z", n * m)));
            let (first, second) = (narrow(draws("first", k * 4)), narrow(draws("second", 4 * m)));
            let run = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| {
                    let (mut y, mut back, mut gram) = (vec![0.0; n * m], vec![0.0; n * k], vec![0.0; m * k]);
                    nt(&mut y, &x, &w, [n, k, m], false);
                    nn(&mut back, &z, &w, [n, m, k], false);
                    tn(&mut gram, &z, &x, [n, m, k], false);
                    let (mut sum, mut hidden) = (y.clone(), vec![0.0; n * 4]);
                    let rows = MatRef::from_row_major_slice;
                    let parts = [rows(&w, m, k).transpose(), rows(&first, k, 4), rows(&second, 4, m)];
                    beside(&mut sum, &mut hidden, &x, parts, true);
                    [y, back, gram, sum, hidden]
                })
            };
            let one = run(1);
            assert!(one == run(2) && one == run(3), "{n} {k} {m}");
        }
    }

    #[test]
    fn a_path_beside_a_product_equals_its_sums_over_several_tiles() {
        // The last tile is not full; x·w + (x·first)·second, with factors as they lie in the forward and in the backward.
        let (n, k, m, r) = (3 * ROWS + 32, 11, 7, 3);
        assert!(shares(n) && !shares(n - 33));
        let (x, w) = (draws("x", n * k), draws("w", k * m));
        let (first, second) = (draws("first", k * r), draws("second", r * m));
        for transposed in [false, true] {
            let view = |values: &'_ [f64], rows: usize, cols: usize| {
                let rows_of = if transposed { (cols, rows) } else { (rows, cols) };
                let view = MatRef::from_row_major_slice(values, rows_of.0, rows_of.1);
                let owned = if transposed { view.transpose().to_owned() } else { view.to_owned() };
                assert_eq!(owned.shape(), (rows, cols));
                owned
            };
            let (wm, fm, sm) = (view(&w, k, m), view(&first, k, r), view(&second, r, m));
            for add in [false, true] {
                let (mut y, mut hidden) = (draws("y", n * m), vec![9.0; n * r]);
                let y0 = y.clone();
                beside(&mut y, &mut hidden, &x, [wm.as_ref(), fm.as_ref(), sm.as_ref()], add);
                for i in 0..n {
                    let inner: Vec<f64> =
                        (0..r).map(|j| (0..k).map(|t| x[i * k + t] * fm[(t, j)]).sum()).collect();
                    for (j, inner) in inner.iter().enumerate() {
                        assert!((hidden[i * r + j] - inner).abs() < 1e-10);
                    }
                    for o in 0..m {
                        let product: f64 = (0..k).map(|t| x[i * k + t] * wm[(t, o)]).sum();
                        let path: f64 = inner.iter().enumerate().map(|(j, h)| h * sm[(j, o)]).sum();
                        let old = if add { y0[i * m + o] } else { 0.0 };
                        assert!((y[i * m + o] - (old + product + path)).abs() < 1e-10);
                    }
                }
            }
        }
    }
}
