//! The backward: one task for each batch row and key head, so that no two tasks write the same gradient.

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use rayon::prelude::*;

use super::super::Real;
use super::{KEYS, QUERIES, Shape, gather};

/// Gradients of q, k and v from that of the output; `out` and `lse` are the forward's. The buffers are overwritten.
///
/// With `P = e^(scale·q kᵀ − lse)` and `D = Σ out ⊙ dout` for each row: `dv = Pᵀ dout`, `dS = P ⊙ (dout vᵀ − D)`,
/// `dq = scale·dS k`, `dk = scale·dSᵀ q`.
///
/// # Shapes
/// As in the forward, with `past = 0`.
#[allow(clippy::too_many_arguments)] // One tensor each.
pub fn backward<T: Real>(
    shape: &Shape,
    scale: f64,
    q: &[T],
    k: &[T],
    v: &[T],
    starts: &[u32],
    out: &[T],
    lse: &[T],
    dout: &[T],
    dq: &mut [T],
    dk: &mut [T],
    dv: &mut [T],
) {
    shape.check(q.len(), k.len(), v.len(), starts.len());
    assert_eq!(shape.past, 0, "gradients are taken in training, without a past");
    let Shape { time, heads, kv_heads, head_dim: d, .. } = *shape;
    let (group, width, kv_width) = (shape.group(), shape.width(), shape.kv_width());
    let tasks: Vec<Gradients<T>> = (0..shape.batch * kv_heads)
        .into_par_iter()
        .map(|task| {
            let (batch, kv_head) = (task / kv_heads, task % kv_heads);
            let rows = batch * time..(batch + 1) * time;
            let of_q = |of: &[T], by: T| {
                gather(&of[rows.start * width..rows.end * width], width, kv_head * group, group, d, by)
            };
            let of_k = |of: &[T]| {
                gather(&of[rows.start * kv_width..rows.end * kv_width], kv_width, kv_head, 1, d, T::ONE)
            };
            let (out, dout) = (of_q(out, T::ONE), of_q(dout, T::ONE));
            let d_rows = out.chunks_exact(d).zip(dout.chunks_exact(d));
            let d_rows = d_rows
                .map(|(out, dout)| T::from_f64(out.iter().zip(dout).map(|(&o, &g)| (o * g).to_f64()).sum()));
            let lse = &lse[rows.start * heads..rows.end * heads];
            let lse =
                lse.chunks_exact(heads).flat_map(|row| row[kv_head * group..(kv_head + 1) * group].to_vec());
            Head {
                group,
                d,
                starts: &starts[rows.clone()],
                q: of_q(q, T::from_f64(scale)),
                k: of_k(k),
                v: of_k(v),
                lse: lse.collect(),
                weighted: d_rows.collect(),
                dout,
            }
            .run(T::from_f64(scale))
        })
        .collect();
    dq.par_chunks_mut(width)
        .zip(dk.par_chunks_mut(kv_width))
        .zip(dv.par_chunks_mut(kv_width))
        .enumerate()
        .for_each(|(row, ((dq, dk), dv))| {
            let (batch, token) = (row / time, row % time);
            let tasks = &tasks[batch * kv_heads..(batch + 1) * kv_heads];
            for (kv_head, gradients) in tasks.iter().enumerate() {
                let (span, kv_span) = (group * d, kv_head * d..(kv_head + 1) * d);
                dq[kv_head * span..(kv_head + 1) * span]
                    .copy_from_slice(&gradients.dq[token * span..][..span]);
                dk[kv_span.clone()].copy_from_slice(&gradients.dk[token * d..][..d]);
                dv[kv_span].copy_from_slice(&gradients.dv[token * d..][..d]);
            }
        });
}

/// Gradients of one key head, contiguous.
struct Gradients<T> {
    /// `[time · group, d]`.
    dq: Vec<T>,
    /// `[time, d]`.
    dk: Vec<T>,
    /// `[time, d]`.
    dv: Vec<T>,
}

/// One key head of one batch row, contiguous; rows of q go token by token, then head by head.
struct Head<'a, T> {
    group: usize,
    d: usize,
    starts: &'a [u32],
    /// Already multiplied by the scale.
    q: Vec<T>,
    k: Vec<T>,
    v: Vec<T>,
    lse: Vec<T>,
    /// `D`, one for each row of q.
    weighted: Vec<T>,
    dout: Vec<T>,
}

impl<T: Real> Head<'_, T> {
    fn run(&self, scale: T) -> Gradients<T> {
        let (group, d, time) = (self.group, self.d, self.starts.len());
        let mut gradients = Gradients {
            dq: vec![T::ZERO; time * group * d],
            dk: vec![T::ZERO; time * d],
            dv: vec![T::ZERO; time * d],
        };
        let (mut p, mut dp) = (vec![T::ZERO; QUERIES * group * KEYS], vec![T::ZERO; QUERIES * group * KEYS]);
        for first in (0..time).step_by(QUERIES) {
            let tokens = QUERIES.min(time - first);
            let rows = tokens * group;
            let at = first * group * d..(first + tokens) * group * d;
            let q = MatRef::from_row_major_slice(&self.q[at.clone()], rows, d);
            let dout = MatRef::from_row_major_slice(&self.dout[at.clone()], rows, d);
            let from =
                self.starts[first..first + tokens].iter().min().map_or(0, |&s| s as usize) / KEYS * KEYS;
            for key in (from..first + tokens).step_by(KEYS) {
                let count = KEYS.min(first + tokens - key);
                let keys = key * d..(key + count) * d;
                let k = MatRef::from_row_major_slice(&self.k[keys.clone()], count, d);
                let v = MatRef::from_row_major_slice(&self.v[keys.clone()], count, d);
                let (p, dp) = (&mut p[..rows * count], &mut dp[..rows * count]);
                product(p, [rows, count], Accum::Replace, q, k.transpose(), T::ONE);
                product(dp, [rows, count], Accum::Replace, dout, v.transpose(), T::ONE);
                self.probabilities(p, dp, first, key, count);
                let scores = MatRef::from_row_major_slice(p, rows, count);
                let dscores = MatRef::from_row_major_slice(dp, rows, count);
                product(
                    &mut gradients.dv[keys.clone()],
                    [count, d],
                    Accum::Add,
                    scores.transpose(),
                    dout,
                    T::ONE,
                );
                // q holds the scale already, so dk needs no factor.
                product(&mut gradients.dk[keys], [count, d], Accum::Add, dscores.transpose(), q, T::ONE);
                product(&mut gradients.dq[at.clone()], [rows, d], Accum::Add, dscores, k, scale);
            }
        }
        gradients
    }

    /// Scores to probabilities, and `dp` to the gradient of the scores, 0 where a token does not see a key.
    fn probabilities(&self, p: &mut [T], dp: &mut [T], first: usize, key: usize, count: usize) {
        T::vectorised(
            #[inline(always)]
            || {
                for (row, (p, dp)) in p.chunks_exact_mut(count).zip(dp.chunks_exact_mut(count)).enumerate() {
                    let token = first + row / self.group;
                    let start = (self.starts[token] as usize).clamp(key, key + count) - key;
                    let end = ((token + 1).clamp(key, key + count) - key).max(start);
                    let (lse, weighted) =
                        (self.lse[first * self.group + row], self.weighted[first * self.group + row]);
                    for (p, dp) in p[start..end].iter_mut().zip(&mut dp[start..end]) {
                        *p = Real::exp(*p - lse);
                        *dp = *p * (*dp - weighted);
                    }
                    for hidden in [0..start, end..count] {
                        p[hidden.clone()].fill(T::ZERO);
                        dp[hidden].fill(T::ZERO);
                    }
                }
            },
        );
    }
}

fn product<T: Real>(
    to: &mut [T],
    [m, n]: [usize; 2],
    accum: Accum,
    a: MatRef<'_, T>,
    b: MatRef<'_, T>,
    alpha: T,
) {
    matmul(MatMut::from_row_major_slice_mut(to, m, n), accum, a, b, alpha, Par::Seq);
}
