//! `y = silu(gate) ⊙ up`, `silu(g) = g·σ(g)`. Memory-bound once the exponential is vectorised.

use rayon::prelude::*;

use super::Real;

/// Values of one task.
const RUN: usize = 8192;

#[inline(always)]
fn sigmoid<T: Real>(g: T) -> T {
    T::ONE / (T::ONE + Real::exp(-g))
}

/// All slices have the same length.
pub fn forward<T: Real>(gate: &[T], up: &[T], y: &mut [T]) {
    y.par_chunks_mut(RUN).zip(gate.par_chunks(RUN)).zip(up.par_chunks(RUN)).for_each(|((y, gate), up)| {
        T::vectorised(
            #[inline(always)]
            || {
                for ((y, &g), &u) in y.iter_mut().zip(gate).zip(up) {
                    *y = g * sigmoid(g) * u;
                }
            },
        );
    });
}

/// `dup = dy·g·σ`, `dgate = dy·u·σ·(1 + g·(1 − σ))`. All slices have the same length.
pub fn backward<T: Real>(gate: &[T], up: &[T], dy: &[T], dgate: &mut [T], dup: &mut [T]) {
    let outputs = dgate.par_chunks_mut(RUN).zip(dup.par_chunks_mut(RUN));
    let inputs = gate.par_chunks(RUN).zip(up.par_chunks(RUN)).zip(dy.par_chunks(RUN));
    outputs.zip(inputs).for_each(|((dgate, dup), ((gate, up), dy))| {
        T::vectorised(
            #[inline(always)]
            || {
                let inputs = gate.iter().zip(up).zip(dy);
                for ((dgate, dup), ((&g, &u), &dy)) in dgate.iter_mut().zip(dup).zip(inputs) {
                    let s = sigmoid(g);
                    *dup = dy * g * s;
                    *dgate = dy * u * s * (T::ONE + g * (T::ONE - s));
                }
            },
        );
    });
}
