//! The forward: tiles of queries in parallel, each over its visible keys.

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use rayon::prelude::*;

use super::super::Real;
use super::super::real::{exp_and_sum, largest};
use super::{KEYS, QUERIES, Shape, gather};

/// # Shapes
/// `q: [batch·time, heads·head_dim]`, `k`, `v`: `[batch·(past+time), kv_heads·head_dim]`, `starts: [batch·time]` (the first
/// key of its batch row that a query sees; it sees all up to its own), `out` like q, `lse: [batch·time·heads]`.
#[allow(clippy::too_many_arguments)] // One tensor each.
pub fn forward<T: Real>(
    shape: &Shape,
    scale: f64,
    q: &[T],
    k: &[T],
    v: &[T],
    starts: &[u32],
    out: &mut [T],
    lse: &mut [T],
) {
    shape.check(q.len(), k.len(), v.len(), starts.len());
    if out.is_empty() {
        return;
    }
    let (width, heads) = (shape.width(), shape.heads);
    // Each batch row is cut into tiles of queries, so a tile's rows of `out` and `lse` are one run.
    let tiles: Vec<_> = out
        .chunks_mut(shape.time * width)
        .zip(lse.chunks_mut(shape.time * heads))
        .flat_map(|(out, lse)| out.chunks_mut(QUERIES * width).zip(lse.chunks_mut(QUERIES * heads)))
        .enumerate()
        .collect();
    let tiles_per_row = shape.time.div_ceil(QUERIES);
    tiles.into_par_iter().for_each(|(index, (out, lse))| {
        let (batch, first) = (index / tiles_per_row, index % tiles_per_row * QUERIES);
        let row = batch * shape.time + first;
        let rows = out.len() / width;
        let q = &q[row * width..][..rows * width];
        let keys = batch * shape.keys() * shape.kv_width()..(batch + 1) * shape.keys() * shape.kv_width();
        for kv_head in 0..shape.kv_heads {
            let tile = Tile { shape, kv_head, first: shape.past + first, starts: &starts[row..row + rows] };
            tile.run(T::from_f64(scale), q, &k[keys.clone()], &v[keys.clone()], out, lse);
        }
    });
}

/// Queries of one key head in one tile.
struct Tile<'a> {
    shape: &'a Shape,
    kv_head: usize,
    /// Key index of the first query itself.
    first: usize,
    starts: &'a [u32],
}

impl Tile<'_> {
    fn run<T: Real>(&self, scale: T, q: &[T], k: &[T], v: &[T], out: &mut [T], lse: &mut [T]) {
        let Shape { heads, head_dim: d, .. } = *self.shape;
        let (group, kv_width) = (self.shape.group(), self.shape.kv_width());
        let tokens = self.starts.len();
        let rows = tokens * group;
        let q = gather(q, self.shape.width(), self.kv_head * group, group, d, scale);
        let (mut sums, mut maxima) = (vec![0.0_f64; rows], vec![T::from_f64(f64::NEG_INFINITY); rows]);
        let mut accumulated = vec![T::ZERO; rows * d];
        let mut scores = vec![T::ZERO; rows * KEYS];
        let from = self.starts.iter().min().map_or(0, |&start| start as usize) / KEYS * KEYS;
        for key in (from..self.first + tokens).step_by(KEYS) {
            let count = KEYS.min(self.first + tokens - key);
            let k = strided(k, key, count, kv_width, self.kv_head * d, d);
            let v = strided(v, key, count, kv_width, self.kv_head * d, d);
            let scores = &mut scores[..rows * count];
            matmul(
                MatMut::from_row_major_slice_mut(scores, rows, count),
                Accum::Replace,
                MatRef::from_row_major_slice(&q, rows, d),
                k.transpose(),
                T::ONE,
                Par::Seq,
            );
            for (row, scores) in scores.chunks_exact_mut(count).enumerate() {
                let token = row / group;
                let visible = self.visible(token, key, count);
                scores[..visible.start].fill(T::ZERO);
                scores[visible.end..].fill(T::ZERO);
                if visible.is_empty() {
                    continue;
                }
                let seen = &mut scores[visible];
                let best = largest(seen);
                if best > maxima[row] {
                    // A new maximum: what was accumulated shrinks by e^(old − new), which is 0 for the first tile.
                    let shrink = Real::exp(maxima[row] - best);
                    sums[row] *= shrink.to_f64();
                    accumulated[row * d..(row + 1) * d].iter_mut().for_each(|value| *value *= shrink);
                    maxima[row] = best;
                }
                sums[row] += exp_and_sum(seen, maxima[row]);
            }
            matmul(
                MatMut::from_row_major_slice_mut(&mut accumulated, rows, d),
                Accum::Add,
                MatRef::from_row_major_slice(scores, rows, count),
                v,
                T::ONE,
                Par::Seq,
            );
        }
        for row in 0..rows {
            let (token, head) = (row / group, self.kv_head * group + row % group);
            let inverse = T::from_f64(1.0 / sums[row]);
            let out = &mut out[(token * heads + head) * d..][..d];
            for (out, &value) in out.iter_mut().zip(&accumulated[row * d..]) {
                *out = value * inverse;
            }
            lse[token * heads + head] = T::from_f64(maxima[row].to_f64() + sums[row].ln());
        }
    }

    /// The keys of a tile that a token sees, counted from the tile's first.
    fn visible(&self, token: usize, key: usize, count: usize) -> std::ops::Range<usize> {
        let start = (self.starts[token] as usize).clamp(key, key + count) - key;
        let end = (self.first + token + 1).clamp(key, key + count) - key;
        start..end.max(start)
    }
}

/// Rows `first..first + count` of one head in a matrix of `width` columns, as a view.
pub(super) fn strided<T: Real>(
    values: &[T],
    first: usize,
    count: usize,
    width: usize,
    column: usize,
    d: usize,
) -> MatRef<'_, T> {
    MatRef::from_row_major_slice(&values[first * width..(first + count) * width], count, width)
        .subcols(column, d)
}
