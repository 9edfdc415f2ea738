//! The complementary error function of numbers that are not negative, without branches or tables, so that loops around
//! it become vector code.
//!
//! `erfc(z) = t·exp(−z² + g(t))` with `t = 1/(1 + z/2)`: g is smooth on all of `0 < t ≤ 1` (the form is that of Schonfelder,
//! "Chebyshev Expansions for the Error and Related Functions", 1978). Its Chebyshev coefficients in `s = 2t − 1` were
//! computed for this file with 40 digits: for f64 as they are, for f32 the first eleven, gathered by powers of s.

use super::Real;

/// Chebyshev coefficients of g, the constant first.
const CHEBYSHEV: [f64; 28] = [
    -0.651_326_859_890_854_7,
    0.641_969_792_356_490_2,
    0.019_476_473_204_185_836,
    -0.009_561_514_786_808_632,
    -0.000_946_595_344_482_036_9,
    0.000_366_839_497_852_761_45,
    4.252_332_480_690_777e-5,
    -2.027_857_811_253_424_2e-5,
    -1.624_290_004_647_025_6e-6,
    1.303_655_835_580_523_2e-6,
    1.562_644_172_206_614_2e-8,
    -8.523_809_591_492_654e-8,
    6.529_054_439_098_851_5e-9,
    5.059_343_495_551_469e-9,
    -9.913_641_564_930_33e-10,
    -2.273_651_222_931_836e-10,
    9.646_791_102_015_527e-11,
    2.394_038_083_039_114_6e-12,
    -6.886_027_526_497_553e-12,
    8.944_879_273_090_725e-13,
    3.130_921_399_342_958e-13,
    -1.127_082_236_136_725_2e-13,
    3.810_905_255_189_232e-16,
    7.106_097_613_609_237e-15,
    -1.523_028_201_457_104_3e-15,
    -9.457_494_571_291_233e-17,
    1.210_237_189_224_279e-16,
    -2.816_663_087_747_177e-17,
];

/// The same series up to degree 10 by powers of s, lowest first; what is cut off is below 9e-8.
const POWERS: [f32; 11] = [
    -6.717_941e-1,
    6.726_422_3e-1,
    4.734_388_7e-2,
    -4.687_489e-2,
    -9.880_019e-3,
    8.703_812e-3,
    1.794_066_3e-3,
    -2.048_734_8e-3,
    -2.279_109_6e-4,
    3.337_359e-4,
    8.000_738_5e-6,
];

/// Off by at most 6e-7 of its value for z below 2, and by 4e-6 of its value (which is then below 0.005) beyond, where `z²`
/// rounds.
#[inline(always)]
pub(super) fn single(z: f32) -> f32 {
    let t = 1.0 / (1.0 + 0.5 * z);
    let s = t + t - 1.0;
    let g = POWERS.iter().rev().fold(0.0, |g, power| g * s + power);
    t * Real::exp(g - z * z)
}

/// Off by at most 2e-15 of its value for z below 2, and by the rounding of `z²` beyond. Clenshaw's recurrence.
#[inline(always)]
pub(super) fn double(z: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.5 * z);
    let s = t + t - 1.0;
    let [constant, rest @ ..] = &CHEBYSHEV;
    let (mut last, mut before) = (0.0, 0.0);
    for coefficient in rest.iter().rev() {
        (last, before) = (2.0 * s * last - before + coefficient, last);
    }
    t * Real::exp(s * last - before + constant - z * z)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// z and erfc(z), computed with mpmath at 40 digits.
    const REFERENCE: [(f64, f64); 9] = [
        (0.0, 1.0),
        (0.001, 0.998_871_621_209_030_7),
        (0.1, 0.887_537_083_981_715_2),
        (0.5, 0.479_500_122_186_953_5),
        (0.843_75, 0.232_774_338_767_658_38),
        (1.25, 0.077_099_871_743_541_77),
        (2.0, 0.004_677_734_981_047_266),
        (3.5, 7.430_983_723_414_128e-7),
        (5.75, 4.232_136_617_425_738e-16),
    ];

    #[test]
    fn values_at_forty_digits() {
        for (z, truth) in REFERENCE {
            let rounding = 1.0_f64.max(z * z);
            let (double, single) = (double(z), f64::from(single(z as f32)));
            assert!((double - truth).abs() <= 2e-15 * rounding * truth, "{z}: {double} {truth}");
            // The nearest f32 to z is another number: erfc changes by at most 2z + 1 of its value for each unit.
            let moved = f64::from(z as f32) - z;
            let allowed = 6e-7_f64.max(4e-6 * f64::from(u8::from(z >= 2.0))) + moved.abs() * (2.0 * z + 1.5);
            assert!((single - truth).abs() <= allowed * truth, "{z}: {single} {truth}");
        }
    }

    #[test]
    fn far_out_it_is_nothing() {
        assert_eq!((single(1e30), double(1e200)), (0.0, 0.0));
        assert!(single(f32::NAN).is_nan() && double(f64::NAN).is_nan());
    }
}
