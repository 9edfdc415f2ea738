//! The two float types, and the vectorised exponential.

use std::ops::{Add, Div, Mul, Neg, Sub};

use faer::traits::ComplexField;
use pulp::Arch;

use super::erfc;

/// f32 or f64.
pub trait Real:
    ComplexField
    + bytemuck::Pod
    + burn::tensor::Element
    + PartialOrd
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
{
    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;

    /// Rounds to this type.
    fn from_f64(value: f64) -> Self;

    /// Widens exactly.
    fn to_f64(self) -> f64;

    /// `eˣ`; exactly 0 far below the range of the type, NaN for NaN.
    fn exp(self) -> Self;

    /// `|x|`: an instruction, where a comparison would keep a loop from becoming vector code.
    fn abs(self) -> Self;

    /// `1 − erf(x)` for x ≥ 0, as precise relative to its own size as the type allows.
    fn erfc(self) -> Self;

    /// Runs a loop over values of this type compiled for the widest vectors of the machine.
    #[inline(always)]
    fn vectorised<R>(work: impl FnOnce() -> R) -> R {
        Arch::new().dispatch(work)
    }
}

impl Real for f32 {
    const ZERO: f32 = 0.0;
    const ONE: f32 = 1.0;

    #[inline(always)]
    fn from_f64(value: f64) -> f32 {
        value as f32
    }

    #[inline(always)]
    fn to_f64(self) -> f64 {
        f64::from(self)
    }

    /// `eˣ = 2ⁿ·eʳ` with `n = round(x / ln 2)` and |r| ≤ ln 2 / 2, `eʳ` by the polynomial of Cephes' `expf` (Moshier, 1989).
    /// At most 2 units in the last place from the true value. Unlike the library's, it has no branch and no table, so
    /// loops around it become vector code.
    #[inline(always)]
    fn exp(self) -> f32 {
        // Adding 1.5·2²³ rounds to the nearest integer, which then stands in the low bits: no conversion is needed.
        const ROUND: f32 = 12_582_912.0;
        // ln 2 in two parts, the first short, so that n·LN2_HIGH is exact.
        const LN2_HIGH: f32 = 0.693_359_4;
        const LN2_LOW: f32 = -2.121_944_4e-4;
        let x = self.clamp(-104.0, 88.8);
        let rounded = x * std::f32::consts::LOG2_E + ROUND;
        let n = rounded - ROUND;
        let r = (x - n * LN2_HIGH) - n * LN2_LOW;
        let mut p = 1.987_569_1e-4_f32;
        p = p * r + 1.398_199_9e-3;
        p = p * r + 8.333_452e-3;
        p = p * r + 4.166_579_6e-2;
        p = p * r + 0.166_666_65;
        p = p * r + 0.5;
        let e = p * (r * r) + r + 1.0;
        // 2ⁿ in two factors: n reaches beyond the exponents of normal numbers on both sides.
        let n = (rounded.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
        let half = n >> 1;
        let power = |n: i32| f32::from_bits((n.wrapping_add(127) as u32) << 23);
        e * power(half) * power(n - half)
    }

    #[inline(always)]
    fn abs(self) -> f32 {
        f32::abs(self)
    }

    #[inline(always)]
    fn erfc(self) -> f32 {
        erfc::single(self)
    }
}

impl Real for f64 {
    const ZERO: f64 = 0.0;
    const ONE: f64 = 1.0;

    #[inline(always)]
    fn from_f64(value: f64) -> f64 {
        value
    }

    #[inline(always)]
    fn to_f64(self) -> f64 {
        self
    }

    #[inline(always)]
    fn exp(self) -> f64 {
        f64::exp(self)
    }

    #[inline(always)]
    fn abs(self) -> f64 {
        f64::abs(self)
    }

    #[inline(always)]
    fn erfc(self) -> f64 {
        erfc::double(self)
    }
}

/// `x ← e^(x − shift)` in place; returns the sum. f32 values are added in sixteen lanes of f32 over short runs and the
/// runs in f64.
pub(super) fn exp_and_sum<T: Real>(values: &mut [T], shift: T) -> f64 {
    const LANES: usize = 16;
    T::vectorised(
        #[inline(always)]
        || {
            let mut total = 0.0;
            for run in values.chunks_mut(LANES * 16) {
                let mut lanes = [T::ZERO; LANES];
                let mut groups = run.chunks_exact_mut(LANES);
                for group in &mut groups {
                    for (value, lane) in group.iter_mut().zip(&mut lanes) {
                        *value = Real::exp(*value - shift);
                        *lane += *value;
                    }
                }
                for (value, lane) in groups.into_remainder().iter_mut().zip(&mut lanes) {
                    *value = Real::exp(*value - shift);
                    *lane += *value;
                }
                total += lanes.iter().map(|lane| lane.to_f64()).sum::<f64>();
            }
            total
        },
    )
}

/// The largest value, as the shift of a softmax; `−∞` of nothing. NaN is passed over: it shows in the sum of
/// exponentials, and a comparison that keeps it would be three instructions for one.
pub(super) fn largest<T: Real>(values: &[T]) -> T {
    let larger = |best: T, next: T| if next > best { next } else { best };
    T::vectorised(
        #[inline(always)]
        || {
            const LANES: usize = 16;
            let mut lanes = [T::from_f64(f64::NEG_INFINITY); LANES];
            let mut groups = values.chunks_exact(LANES);
            for group in &mut groups {
                for (value, lane) in group.iter().zip(&mut lanes) {
                    *lane = larger(*lane, *value);
                }
            }
            groups.remainder().iter().chain(&lanes).copied().fold(lanes[0], larger)
        },
    )
}

/// `Σ aᵢ·bᵢ`: f32 values are added in sixteen lanes over short runs and the runs in f64. To be called inside
/// [`Real::vectorised`].
#[inline(always)]
pub(super) fn dot<T: Real>(a: &[T], b: &[T]) -> f64 {
    const LANES: usize = 16;
    let mut total = 0.0;
    for (a, b) in a.chunks(LANES * 16).zip(b.chunks(LANES * 16)) {
        let mut lanes = [T::ZERO; LANES];
        let (mut left, mut right) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
        for (a, b) in (&mut left).zip(&mut right) {
            for ((a, b), lane) in a.iter().zip(b).zip(&mut lanes) {
                *lane += *a * *b;
            }
        }
        for ((a, b), lane) in left.remainder().iter().zip(right.remainder()).zip(&mut lanes) {
            *lane += *a * *b;
        }
        total += lanes.iter().map(|lane| lane.to_f64()).sum::<f64>();
    }
    total
}

/// `Σ aᵢ`, added as in [`dot`]. To be called inside [`Real::vectorised`].
#[inline(always)]
pub(super) fn sum<T: Real>(values: &[T]) -> f64 {
    const LANES: usize = 16;
    let mut total = 0.0;
    for run in values.chunks(LANES * 16) {
        let mut lanes = [T::ZERO; LANES];
        let mut groups = run.chunks_exact(LANES);
        for group in &mut groups {
            for (value, lane) in group.iter().zip(&mut lanes) {
                *lane += *value;
            }
        }
        for (value, lane) in groups.remainder().iter().zip(&mut lanes) {
            *lane += *value;
        }
        total += lanes.iter().map(|lane| lane.to_f64()).sum::<f64>();
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponential_is_within_two_units_in_the_last_place() {
        let mut worst = 0.0_f64;
        for step in 0..400_000 {
            let x = -87.0 + 175.0 * (step as f32 / 400_000.0);
            let truth = f64::from(x).exp();
            let ulp = f64::from(f32::from_bits((truth as f32).to_bits() + 1)) - f64::from(truth as f32);
            worst = worst.max((f64::from(Real::exp(x)) - truth).abs() / ulp);
        }
        assert!(worst <= 2.0, "{worst}");
    }

    #[test]
    fn exponential_at_the_edges() {
        assert_eq!(Real::exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(Real::exp(-1e30_f32), 0.0);
        assert_eq!(Real::exp(0.0_f32), 1.0);
        assert_eq!(Real::exp(1e30_f32), f32::INFINITY);
        assert!(Real::exp(f32::NAN).is_nan());
    }

    #[test]
    fn sums_and_maxima_of_odd_lengths() {
        for length in [0, 1, 15, 16, 17, 300, 513] {
            let mut values: Vec<f32> = (0..length).map(|i| (i as f32 * 0.37).sin()).collect();
            let most = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            assert_eq!(largest(&values), most);
            let squares: f64 = values.iter().map(|&v| f64::from(v).powi(2)).sum();
            assert!((dot(&values, &values) - squares).abs() <= 1e-6 * squares.max(1.0));
            let plain: f64 = values.iter().map(|&v| f64::from(v)).sum();
            assert!((sum(&values) - plain).abs() <= 1e-6 * length.max(1) as f64);
            let truth: f64 = values.iter().map(|&v| f64::from(v - 0.5).exp()).sum();
            let total = exp_and_sum(&mut values, 0.5);
            assert!((total - truth).abs() <= 1e-6 * truth.max(1.0), "{total} {truth}");
        }
        let mut values = [1.0, f32::NAN, 2.0];
        let shift = largest(&values);
        assert!(exp_and_sum(&mut values, shift).is_nan(), "NaN is not lost");
    }
}
