//! Causal grouped-query attention in tiles: `out = softmax(scale·q kᵀ + mask) v`, without the score matrix in memory.
//!
//! Queries of one key/value head are taken together: a tile holds `QUERIES` tokens times the query heads of the group,
//! so that its products with a tile of `KEYS` keys are large enough to run at the machine's rate. The forward keeps a
//! running maximum and sum (Milakov & Gimelshein, "Online normalizer calculation for softmax", 2018) and one log-sum-exp
//! for each row; the backward recomputes a tile's probabilities from it (Dao et al., "FlashAttention", 2022).
//!
//! Floor: 4·d flops forward and 10·d backward for each visible pair of query head and key.

mod backward;
mod forward;

pub use backward::backward;
pub use forward::forward;

use super::Real;

/// Tokens in a tile of queries.
const QUERIES: usize = 64;
/// Keys in a tile.
const KEYS: usize = 128;

/// Sizes of an attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Rows of the batch.
    pub batch: usize,
    /// Query tokens in each row.
    pub time: usize,
    /// Keys in each row before the first query; 0 in training.
    pub past: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
}

impl Shape {
    /// Query heads that share a key head.
    fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// Keys in each row.
    fn keys(&self) -> usize {
        self.past + self.time
    }

    /// Values in a row of q.
    fn width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Values in a row of k or v.
    fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    fn check(&self, q: usize, k: usize, v: usize, starts: usize) {
        let (rows, keys) = (self.batch * self.time, self.batch * self.keys());
        assert_eq!(self.heads % self.kv_heads, 0, "query heads are a multiple of key heads");
        assert_eq!(
            (q, k, v),
            (rows * self.width(), keys * self.kv_width(), keys * self.kv_width()),
            "sizes of q, k, v"
        );
        assert_eq!(starts, rows, "one start for each query token");
    }
}

/// Copies the heads `first..first + heads` of rows of `width` into `[rows · heads, head_dim]`, times a factor.
fn gather<T: Real>(
    from: &[T],
    width: usize,
    first: usize,
    heads: usize,
    head_dim: usize,
    factor: T,
) -> Vec<T> {
    let mut out = Vec::with_capacity(from.len() / width.max(1) * heads * head_dim);
    for row in from.chunks_exact(width) {
        out.extend(row[first * head_dim..(first + heads) * head_dim].iter().map(|&value| value * factor));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use lowrank_record::Seed;

    fn draws(name: &str, count: usize) -> Vec<f64> {
        Seed(6).at("attention", name).normal(count).into_iter().map(f64::from).collect()
    }

    struct Case {
        shape: Shape,
        q: Vec<f64>,
        k: Vec<f64>,
        v: Vec<f64>,
        starts: Vec<u32>,
    }

    fn case(batch: usize, time: usize, past: usize, kv_heads: usize, group: usize) -> Case {
        let shape = Shape { batch, time, past, heads: kv_heads * group, kv_heads, head_dim: 6 };
        let documents = |row: usize| if row % time > time / 3 { (past + time / 3) as u32 } else { 0 };
        let starts =
            (0..batch * time).map(|row| if past > 0 { 1 } else { documents(row).min((row % time) as u32) });
        Case {
            shape,
            q: draws("q", batch * time * shape.width()),
            k: draws("k", batch * shape.keys() * shape.kv_width()),
            v: draws("v", batch * shape.keys() * shape.kv_width()),
            starts: starts.collect(),
        }
    }

    /// Row by row, in the order of the formula.
    fn plain(case: &Case, scale: f64) -> Vec<f64> {
        let Case { shape, q, k, v, starts } = case;
        let d = shape.head_dim;
        let mut out = Vec::new();
        for row in 0..shape.batch * shape.time {
            let (batch, time) = (row / shape.time, row % shape.time);
            for head in 0..shape.heads {
                let at =
                    |key: usize| ((batch * shape.keys() + key) * shape.kv_heads + head / shape.group()) * d;
                let q = &q[(row * shape.heads + head) * d..][..d];
                let visible = starts[row] as usize..shape.past + time + 1;
                let dot = |key: usize| scale * q.iter().zip(&k[at(key)..]).map(|(q, k)| q * k).sum::<f64>();
                let total: f64 = visible.clone().map(|key| dot(key).exp()).sum();
                for i in 0..d {
                    out.push(visible.clone().map(|key| dot(key).exp() / total * v[at(key) + i]).sum());
                }
            }
        }
        out
    }

    #[test]
    fn equals_the_formula_over_tiles_documents_and_a_past() {
        for (batch, time, past, kv_heads, group) in
            [(2, 37, 0, 2, 3), (1, 200, 0, 1, 2), (1, 5, 9, 2, 1), (1, 1, 300, 3, 3), (2, 64, 0, 1, 1)]
        {
            let case = case(batch, time, past, kv_heads, group);
            let mut out = vec![0.0; case.q.len()];
            let mut lse = vec![0.0; batch * time * case.shape.heads];
            forward(&case.shape, 0.37, &case.q, &case.k, &case.v, &case.starts, &mut out, &mut lse);
            for (found, expected) in out.iter().zip(plain(&case, 0.37)) {
                assert!((found - expected).abs() < 1e-12, "{found} {expected} at {:?}", case.shape);
            }
        }
    }

    #[test]
    fn the_same_bits_on_any_number_of_threads() {
        let case = case(2, 150, 0, 2, 3);
        let narrow = |values: &[f64]| values.iter().map(|&value| value as f32).collect::<Vec<f32>>();
        let (q, k, v) = (narrow(&case.q), narrow(&case.k), narrow(&case.v));
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let (mut out, mut lse) = (vec![0.0; q.len()], vec![0.0; 300 * case.shape.heads]);
                forward(&case.shape, 0.4, &q, &k, &v, &case.starts, &mut out, &mut lse);
                let (mut dq, mut dk, mut dv) = (vec![0.0; q.len()], vec![0.0; k.len()], vec![0.0; v.len()]);
                backward(
                    &case.shape,
                    0.4,
                    &q,
                    &k,
                    &v,
                    &case.starts,
                    &out,
                    &lse,
                    &q,
                    &mut dq,
                    &mut dk,
                    &mut dv,
                );
                (out, dq, dk, dv)
            })
        };
        assert_eq!(run(1), run(3));
    }

    #[test]
    fn large_scores_stay_finite() {
        let mut case = case(1, 20, 0, 1, 2);
        case.q.iter_mut().for_each(|value| *value *= 1e4);
        let (mut out, mut lse) = (vec![0.0; case.q.len()], vec![0.0; 20 * case.shape.heads]);
        forward(&case.shape, 1.0, &case.q, &case.k, &case.v, &case.starts, &mut out, &mut lse);
        assert!(out.iter().chain(&lse).all(|value| value.is_finite()));
    }
}
