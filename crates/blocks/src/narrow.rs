use half::{bf16, f16};

use crate::{BlockError, Format};

/// Narrows `f32` values to a stored format, with the rounding of the GGUF reference (`quantize_row_*_ref` in
/// `ggml-quants.c`): nearest even for F16 and BF16; for the block formats the quotient is taken in f32 with the scale
/// before that scale is itself rounded to half precision.
///
/// We differ where the reference is undefined or silent: a NaN, an infinity, or a value that would become infinite is
/// an error (F32, F64 and BF16 keep NaN and infinities), and a block whose scale underflows becomes zeros.
///
/// # Errors
/// [`BlockError::RowNotBlocks`], [`BlockError::NotFinite`], [`BlockError::OutOfRange`], or
/// [`BlockError::NotWritten`] for the K formats.
pub fn narrow(format: Format, values: &[f32]) -> Result<Vec<u8>, BlockError> {
    let bytes = format.row_bytes(values.len())?;
    let mut out = Vec::with_capacity(bytes);
    match format {
        Format::F64 => out.extend(values.iter().flat_map(|&v| f64::from(v).to_le_bytes())),
        Format::F32 => out.extend(values.iter().flat_map(|v| v.to_le_bytes())),
        Format::F16 => {
            for (index, &value) in values.iter().enumerate() {
                let half = f16::from_f32(value);
                if value.is_finite() && half.is_infinite() {
                    return Err(BlockError::OutOfRange { format, index, value });
                }
                out.extend(half.to_le_bytes());
            }
        }
        Format::BF16 => {
            for (index, &value) in values.iter().enumerate() {
                let half = bf16::from_f32(value);
                if value.is_finite() && half.is_infinite() {
                    return Err(BlockError::OutOfRange { format, index, value });
                }
                out.extend(half.to_le_bytes());
            }
        }
        Format::Q8_0 => blocks(format, values, &mut out, q8_0)?,
        Format::Q4_0 => blocks(format, values, &mut out, q4_0)?,
        Format::Q4_1 => blocks(format, values, &mut out, q4_1)?,
        Format::Q4_K | Format::Q6_K => return Err(BlockError::NotWritten { format }),
    }
    Ok(out)
}

/// Runs `one` over every block of 32 finite values; `one` gives back the number that half precision cannot hold.
fn blocks(
    format: Format,
    values: &[f32],
    out: &mut Vec<u8>,
    one: impl Fn(&[f32; 32], &mut Vec<u8>) -> Result<(), f32>,
) -> Result<(), BlockError> {
    if let Some((index, &value)) = values.iter().enumerate().find(|(_, value)| !value.is_finite()) {
        return Err(BlockError::NotFinite { format, index, value });
    }
    for (block, values) in values.as_chunks::<32>().0.iter().enumerate() {
        one(values, out).map_err(|value| BlockError::OutOfRange { format, index: 32 * block, value })?;
    }
    Ok(())
}

/// A number of the block's head, rounded to half precision.
fn half(value: f32, out: &mut Vec<u8>) -> Result<(), f32> {
    let half = f16::from_f32(value);
    if half.is_infinite() || half.is_nan() {
        return Err(value);
    }
    out.extend(half.to_le_bytes());
    Ok(())
}

/// 1 / d, or 0 where d is so small that its reciprocal overflows: half precision stores such a d as 0 anyway.
fn reciprocal(d: f32) -> f32 {
    let inverse = 1.0 / d;
    if inverse.is_finite() { inverse } else { 0.0 }
}

fn q8_0(values: &[f32; 32], out: &mut Vec<u8>) -> Result<(), f32> {
    let d = values.iter().fold(0.0_f32, |most, value| most.max(value.abs())) / 127.0;
    half(d, out)?;
    let inverse = reciprocal(d);
    out.extend(values.iter().map(|value| ((value * inverse).round() as i8).cast_unsigned()));
    Ok(())
}

/// The value of largest magnitude (the first of equals) becomes q = 0, that is −8 steps, so its sign decides the
/// sign of d.
fn q4_0(values: &[f32; 32], out: &mut Vec<u8>) -> Result<(), f32> {
    let most =
        values.iter().fold(0.0_f32, |most, &value| if value.abs() > most.abs() { value } else { most });
    let d = most / -8.0;
    half(d, out)?;
    let inverse = reciprocal(d);
    nibbles(values, out, |value| value * inverse + 8.5);
    Ok(())
}

fn q4_1(values: &[f32; 32], out: &mut Vec<u8>) -> Result<(), f32> {
    let least = values.iter().copied().fold(f32::INFINITY, f32::min);
    let most = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let d = (most - least) / 15.0;
    half(d, out)?;
    half(least, out)?;
    let inverse = reciprocal(d);
    nibbles(values, out, |value| (value - least) * inverse + 0.5);
    Ok(())
}

/// `as u8` truncates, as the reference does; value i and value i + 16 share a byte.
fn nibbles(values: &[f32; 32], out: &mut Vec<u8>, quantum: impl Fn(f32) -> f32) {
    let q = |value: f32| (quantum(value) as u8).min(15);
    let (low, high) = values.split_at(16);
    out.extend(low.iter().zip(high).map(|(&low, &high)| q(low) | (q(high) << 4)));
}

#[cfg(test)]
mod tests {
    use super::narrow;
    use crate::{BlockError, Format, widen};

    /// Deterministic values with both signs and several magnitudes.
    fn values(count: usize) -> Vec<f32> {
        lowrank_record::Seed(5).normal(count)
    }

    #[test]
    fn round_trips_stay_within_half_a_step() {
        let values = values(32 * 20);
        for format in [Format::Q8_0, Format::Q4_0, Format::Q4_1] {
            let bytes = narrow(format, &values).unwrap();
            assert_eq!(bytes.len(), format.row_bytes(values.len()).unwrap());
            let mut back = vec![0.0; values.len()];
            widen(format, &bytes, &mut back).unwrap();
            for (block, back) in values.chunks(32).zip(back.chunks(32)) {
                let most = block.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
                let range = block.iter().copied().fold(f32::MIN, f32::max)
                    - block.iter().copied().fold(f32::MAX, f32::min);
                // Half a step, and for Q4_0 a whole one: its grid ends at +7 steps, and the other end may be cut.
                let bound = match format {
                    Format::Q8_0 => most / 127.0 * 0.5,
                    Format::Q4_0 => most / 8.0,
                    _ => range / 15.0 * 0.5,
                };
                // The scale (and minimum) are rounded to 11 bits.
                let bound = bound + 2.0 * most / 2048.0;
                for (value, back) in block.iter().zip(back) {
                    assert!((value - back).abs() <= bound, "{format}: {value} became {back}, bound {bound}");
                }
            }
        }
    }

    #[test]
    fn plain_formats_round_to_nearest_even() {
        assert_eq!(narrow(Format::F32, &[-0.1]).unwrap(), (-0.1_f32).to_le_bytes());
        // 1 + 2^-8 lies between the bf16 numbers 1 and 1 + 2^-7: even wins. 1 + 3·2^-8 goes up to 1 + 2^-6.
        let ties = [1.0 + 2.0_f32.powi(-8), 1.0 + 3.0 * 2.0_f32.powi(-8)];
        assert_eq!(narrow(Format::BF16, &ties).unwrap(), [0x80, 0x3f, 0x82, 0x3f]);
        let ties = [1.0 + 2.0_f32.powi(-11), 1.0 + 3.0 * 2.0_f32.powi(-11)];
        assert_eq!(narrow(Format::F16, &ties).unwrap(), [0x00, 0x3c, 0x02, 0x3c]);
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let error = BlockError::OutOfRange { format: Format::F16, index: 1, value: 70000.0 };
        assert_eq!(narrow(Format::F16, &[1.0, 70000.0]), Err(error));
        let mut block = [0.0; 64];
        block[40] = f32::INFINITY;
        let error = BlockError::NotFinite { format: Format::Q8_0, index: 40, value: f32::INFINITY };
        assert_eq!(narrow(Format::Q8_0, &block), Err(error));
        block[40] = 1e9;
        let error = BlockError::OutOfRange { format: Format::Q4_0, index: 32, value: -1.25e8 };
        assert_eq!(narrow(Format::Q4_0, &block), Err(error));
        assert_eq!(narrow(Format::Q4_K, &[0.0; 256]), Err(BlockError::NotWritten { format: Format::Q4_K }));
        assert!(matches!(narrow(Format::Q4_1, &[0.0; 20]), Err(BlockError::RowNotBlocks { .. })));
    }

    #[test]
    fn tiny_and_zero_blocks_become_zeros() {
        for format in [Format::Q8_0, Format::Q4_0, Format::Q4_1] {
            for value in [0.0, 1e-42] {
                let bytes = narrow(format, &[value; 32]).unwrap();
                let mut back = [1.0; 32];
                widen(format, &bytes, &mut back).unwrap();
                assert_eq!(back, [0.0; 32], "{format} {value}");
            }
        }
    }
}
