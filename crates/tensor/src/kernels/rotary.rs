//! Turns each pair of a head by its position: `(a, b) ← (a·cos − b·sin, b·cos + a·sin)`. The backward is the opposite angle.

use rayon::prelude::*;

use super::Real;

/// Cosines and sines, `[positions, rotary_dim / 2]`, row-major.
#[derive(Debug, Clone, Copy)]
pub struct Tables<'a> {
    /// Cosines.
    pub cos: &'a [f32],
    /// Sines.
    pub sin: &'a [f32],
    /// Width of a head.
    pub head_dim: usize,
    /// How many values at the beginning of a head turn; even, at most `head_dim`.
    pub rotary_dim: usize,
}

/// Which way to turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// By the position's angle.
    Forward,
    /// Back: the transpose, hence the gradient.
    Backward,
}

/// Turns rows of heads; pairs are (i, i + rotary_dim/2); what is behind them is copied.
///
/// # Shapes
/// `x`, `y`: `[n, heads · head_dim]`, `positions: [n]`.
pub fn apply<T: Real>(x: &[T], y: &mut [T], tables: &Tables<'_>, positions: &[u32], direction: Direction) {
    if positions.is_empty() {
        return;
    }
    let (d, turned, half) = (tables.head_dim, tables.rotary_dim, tables.rotary_dim / 2);
    let width = x.len() / positions.len();
    let sign = if direction == Direction::Forward { T::ONE } else { -T::ONE };
    y.par_chunks_mut(width).zip(x.par_chunks(width)).zip(positions).with_min_len(16).for_each(
        |((y, x), &position)| {
            let at = position as usize * half..(position as usize + 1) * half;
            let (cos, sin) = (&tables.cos[at.clone()], &tables.sin[at]);
            T::vectorised(
                #[inline(always)]
                || {
                    for (y, x) in y.chunks_exact_mut(d).zip(x.chunks_exact(d)) {
                        let (y, rest) = y.split_at_mut(turned);
                        let (x, rest_of_x) = x.split_at(turned);
                        rest.copy_from_slice(rest_of_x);
                        let ((ya, yb), (xa, xb)) = (y.split_at_mut(half), x.split_at(half));
                        let pairs = ya.iter_mut().zip(yb).zip(xa.iter().zip(xb));
                        for (((ya, yb), (&a, &b)), (&cos, &sin)) in pairs.zip(cos.iter().zip(sin)) {
                            let (cos, sin) =
                                (T::from_f64(f64::from(cos)), T::from_f64(f64::from(sin)) * sign);
                            *ya = a * cos - b * sin;
                            *yb = b * cos + a * sin;
                        }
                    }
                },
            );
        },
    );
}
