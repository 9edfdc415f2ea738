//! `y = x·Φ(x)`, `Φ` the normal distribution's cumulative function, exactly or by its approximation with a tanh.

use rayon::prelude::*;

use super::Real;

/// Values of one task.
const RUN: usize = 8192;

/// Which function multiplies x.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Gelu {
    /// `Φ(x) = ½·erfc(−x/√2)`: `gelu` in Hugging Face configurations.
    Exact,
    /// `½·(1 + tanh(√(2/π)·(x + 0.044715·x³)))`: `gelu_new`, `gelu_fast` and `gelu_pytorch_tanh` there.
    Tanh,
}

/// The factor of x and its derivative.
#[inline(always)]
fn exact<T: Real>(x: T) -> (T, T) {
    let half = T::from_f64(0.5);
    let distance = if x < T::ZERO { -x } else { x };
    let tail = half * (distance * T::from_f64(std::f64::consts::FRAC_1_SQRT_2)).erfc();
    let factor = if x < T::ZERO { tail } else { T::ONE - tail };
    // 1/√(2π)
    let density = T::from_f64(0.398_942_280_401_432_7) * Real::exp(-half * x * x);
    (factor, density)
}

/// As [`exact`]. `½·(1 + tanh u) = σ(2u)`, which needs one exponential and cancels nothing.
#[inline(always)]
fn tanh<T: Real>(x: T) -> (T, T) {
    // Beyond, the factor is 0 or 1 in either type, and its square would overflow. NaN passes.
    let far = T::from_f64(30.0);
    let x = if x > far { far } else { x };
    let x = if x < -far { -far } else { x };
    // 2·√(2/π)
    let slope = T::from_f64(1.595_769_121_605_730_7);
    let cubic = T::from_f64(0.044_715);
    let square = x * x;
    let factor = T::ONE / (T::ONE + Real::exp(-slope * x * (T::ONE + cubic * square)));
    let inner = slope * (T::ONE + T::from_f64(3.0) * cubic * square);
    (factor, factor * (T::ONE - factor) * inner)
}

/// Both slices have the same length.
pub fn forward<T: Real>(kind: Gelu, x: &[T], y: &mut [T]) {
    match kind {
        Gelu::Exact => each(x, y, exact),
        Gelu::Tanh => each(x, y, tanh),
    }
}

#[inline(always)]
fn each<T: Real>(x: &[T], y: &mut [T], factor: impl Fn(T) -> (T, T) + Sync) {
    y.par_chunks_mut(RUN).zip(x.par_chunks(RUN)).for_each(|(y, x)| {
        T::vectorised(
            #[inline(always)]
            || {
                for (y, &x) in y.iter_mut().zip(x) {
                    *y = x * factor(x).0;
                }
            },
        );
    });
}

/// `dx = dy·(F(x) + x·F′(x))`, F the factor of x. All slices have the same length.
pub fn backward<T: Real>(kind: Gelu, x: &[T], dy: &[T], dx: &mut [T]) {
    match kind {
        Gelu::Exact => each_backward(x, dy, dx, exact),
        Gelu::Tanh => each_backward(x, dy, dx, tanh),
    }
}

#[inline(always)]
fn each_backward<T: Real>(x: &[T], dy: &[T], dx: &mut [T], factor: impl Fn(T) -> (T, T) + Sync) {
    dx.par_chunks_mut(RUN).zip(x.par_chunks(RUN)).zip(dy.par_chunks(RUN)).for_each(|((dx, x), dy)| {
        T::vectorised(
            #[inline(always)]
            || {
                for ((dx, &x), &dy) in dx.iter_mut().zip(x).zip(dy) {
                    let (factor, slope) = factor(x);
                    *dx = dy * (factor + x * slope);
                }
            },
        );
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// x, and `torch.nn.functional.gelu(x, approximate=...)` in float64 (PyTorch 2), none and tanh.
    const REFERENCE: [(f64, f64, f64); 7] = [
        (-6.5, -2.610_399_119_085_116e-10, -6.278_311_204_255_26e-13),
        (-2.25, -0.027_505_063_473_850_51, -0.027_201_329_897_288_63),
        (-0.7, -0.169_374_556_556_151_1, -0.169_429_865_294_883_21),
        (0.0, 0.0, 0.0),
        (0.3, 0.185_373_426_656_685_8, 0.185_370_923_542_759_22),
        (1.5, 1.399_789_198_096_713, 1.399_571_576_980_232_8),
        (4.0, 3.999_873_315_032_667_5, 3.999_929_754_051_807_5),
    ];

    #[test]
    fn values_of_torch() {
        for (x, by_erf, by_tanh) in REFERENCE {
            for (kind, truth) in [(Gelu::Exact, by_erf), (Gelu::Tanh, by_tanh)] {
                let (mut double, mut single) = ([0.0_f64], [0.0_f32]);
                forward(kind, &[x], &mut double);
                forward(kind, &[x as f32], &mut single);
                assert!((double[0] - truth).abs() <= 1e-15 * x.abs().max(1.0), "{kind:?} {x}: {}", double[0]);
                let error = (f64::from(single[0]) - truth).abs();
                assert!(error <= 4e-7 * x.abs().max(1.0), "{kind:?} {x}: {}", single[0]);
            }
        }
    }

    #[test]
    fn far_out_it_is_the_identity_or_nothing() {
        let x = [-1e30_f32, -40.0, 40.0, 1e30];
        for kind in [Gelu::Exact, Gelu::Tanh] {
            let (mut y, mut dx) = ([0.0; 4], [0.0; 4]);
            forward(kind, &x, &mut y);
            backward(kind, &x, &[1.0; 4], &mut dx);
            assert_eq!((y, dx), ([0.0, 0.0, 40.0, 1e30], [0.0, 0.0, 1.0, 1.0]), "{kind:?}");
            forward(kind, &[f32::NAN], &mut y[..1]);
            assert!(y[0].is_nan(), "{kind:?}");
        }
    }
}
