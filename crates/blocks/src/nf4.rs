//! NF4: blocks of 4-bit indices into a fixed code book, each block carrying its largest magnitude.
//!
//! The code book holds quantiles of the standard normal distribution, divided by the largest, with an exact zero; a value
//! becomes the nearest code times the largest magnitude of its block. Blocks run along the rows of a matrix, row after row,
//! and may cross the end of a row; the last may be short.
//!
//! Source: Dettmers, Pagnoni, Holtzman, Zettlemoyer, "QLoRA: Efficient Finetuning of Quantized LLMs", 2023, appendix E (the
//! code book), without the second quantisation of the magnitudes. A pair of functions beside [`crate::Format`] and not a
//! format of it: no file that this project reads holds NF4, and the length of a block is the caller's.

use crate::BlockError;

/// The code book, ascending.
pub const NF4_CODES: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// Numbers in NF4.
#[derive(Debug, Clone, PartialEq)]
pub struct Nf4 {
    /// Two indices a byte, the first in the high half; the last low half is 0 for an odd count.
    pub codes: Vec<u8>,
    /// The largest magnitude of each block.
    pub largest: Vec<f32>,
    /// Values in a block.
    pub block: usize,
    /// How many values there are.
    pub count: usize,
}

/// Narrows `values` to NF4 in blocks of `block` values.
///
/// # Errors
/// [`BlockError::Nf4NotFinite`], [`BlockError::NoBlock`] for blocks of no values.
pub fn narrow_nf4(values: &[f32], block: usize) -> Result<Nf4, BlockError> {
    if block == 0 {
        return Err(BlockError::NoBlock);
    }
    if let Some((index, &value)) = values.iter().enumerate().find(|(_, value)| !value.is_finite()) {
        return Err(BlockError::Nf4NotFinite { index, value });
    }
    let mut largest = Vec::with_capacity(values.len().div_ceil(block));
    let mut indices = Vec::with_capacity(values.len());
    for values in values.chunks(block) {
        let most = values.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
        largest.push(most);
        // A block of zeros: 0/0 is no number, and the code of zero is.
        indices.extend(values.iter().map(|value| if most > 0.0 { nearest(value / most) } else { ZERO }));
    }
    let codes = indices.chunks(2).map(|two| (two[0] << 4) | two.get(1).copied().unwrap_or(0)).collect();
    Ok(Nf4 { codes, largest, block, count: values.len() })
}

/// Widens NF4 to numbers, as many as were narrowed.
#[must_use]
pub fn widen_nf4(stored: &Nf4) -> Vec<f32> {
    let indices = stored.codes.iter().flat_map(|byte| [byte >> 4, byte & 15]).take(stored.count);
    let of = |index: usize| stored.largest.get(index / stored.block.max(1)).copied().unwrap_or(0.0);
    indices.enumerate().map(|(index, code)| NF4_CODES[usize::from(code)] * of(index)).collect()
}

/// The index of the code that is zero.
const ZERO: u8 = 7;

/// The index of the nearest code; half-way goes to the lower one.
fn nearest(value: f32) -> u8 {
    let halves = NF4_CODES.windows(2).map(|two| (two[0] + two[1]) / 2.0);
    halves.filter(|half| value > *half).count() as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_book_is_made_of_quantiles_of_the_normal_distribution() {
        assert!(NF4_CODES.is_sorted() && NF4_CODES[usize::from(ZERO)] == 0.0);
        // Appendix E: 8 equally spaced probabilities from 1 − δ to 1/2 below, 9 above, δ = (1/32 + 1/30)/2, the zero
        // shared. Abramowitz and Stegun 7.1.26 for Φ, good to 1.5e-7.
        let phi = |x: f64| {
            let z = x.abs() / std::f64::consts::SQRT_2;
            let t = 1.0 / (1.0 + 0.327_591_1 * z);
            let terms = [1.061_405_429, -1.453_152_027, 1.421_413_741, -0.284_496_736, 0.254_829_592];
            let erf = 1.0 - terms.iter().fold(0.0, |sum, a| (sum + a) * t) * (-z * z).exp();
            0.5 + 0.5 * erf * x.signum()
        };
        let offset = 1.0 - (1.0 / 32.0 + 1.0 / 30.0) / 2.0;
        // Bisection for the quantile that every code is divided by.
        let (mut low, mut high) = (1.0, 3.0);
        for _ in 0..60 {
            let middle = (low + high) / 2.0;
            if phi(middle) < offset { low = middle } else { high = middle }
        }
        for (index, &code) in NF4_CODES.iter().enumerate() {
            let below = 0.5 - (offset - 0.5) * (7.0 - index as f64) / 7.0;
            let above = 0.5 + (offset - 0.5) * (index as f64 - 7.0) / 8.0;
            let wanted = if index < 8 { below } else { above };
            let found = phi(f64::from(code) * low);
            assert!((found - wanted).abs() < 2e-6, "{index}: {found} {wanted}");
        }
    }

    #[test]
    fn each_value_becomes_the_nearest_code_of_its_block() {
        let values = lowrank_record::Seed(6).normal(64 * 3 + 7);
        for block in [1, 16, 64, 1000] {
            let stored = narrow_nf4(&values, block).unwrap();
            assert_eq!(stored.largest.len(), values.len().div_ceil(block));
            assert_eq!(stored.codes.len(), values.len().div_ceil(2));
            let back = widen_nf4(&stored);
            assert_eq!(back.len(), values.len());
            for (values, back) in values.chunks(block).zip(back.chunks(block)) {
                let most = values.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
                for (value, back) in values.iter().zip(back) {
                    let error = (value - back).abs();
                    let best = NF4_CODES.iter().map(|code| (value - code * most).abs()).fold(9.0, f32::min);
                    assert!(error <= best + 1e-6 * most, "{value} became {back}, {best} off is possible");
                }
            }
            // Narrowing what was widened changes nothing: the largest is a code, ±1.
            assert_eq!(widen_nf4(&narrow_nf4(&back, block).unwrap()), back);
        }
    }

    #[test]
    fn bytes_by_hand() {
        // Largest 2: −1, 0.5 (0.440… is nearest), 0, 1 -> codes 0, 12, 7, 15; then a short block of zeros.
        let stored = narrow_nf4(&[-2.0, 1.0, 0.0, 2.0, 0.0], 4).unwrap();
        assert_eq!((&stored.codes[..], &stored.largest[..]), (&[0x0c, 0x7f, 0x70][..], &[2.0, 0.0][..]));
        assert_eq!(widen_nf4(&stored), [-2.0, 2.0 * NF4_CODES[12], 0.0, 2.0, 0.0]);
    }

    #[test]
    fn what_it_cannot_hold_is_an_error() {
        assert_eq!(narrow_nf4(&[1.0], 0), Err(BlockError::NoBlock));
        let error = BlockError::Nf4NotFinite { index: 1, value: f32::INFINITY };
        assert_eq!(narrow_nf4(&[1.0, f32::INFINITY], 64), Err(error));
        assert_eq!(narrow_nf4(&[], 64).map(|stored| widen_nf4(&stored)), Ok(vec![]));
    }
}
