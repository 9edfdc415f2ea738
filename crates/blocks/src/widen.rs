use half::f16;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};

use crate::{BlockError, Format, k_blocks};

/// Widens stored numbers to `f32`, row after row. Since rows hold whole blocks, a matrix is one run of blocks.
///
/// The inner loops run over fixed-size arrays without branches, so that the compiler turns them into vector
/// instructions; nothing is assumed about the alignment of `bytes`, which may come from a mapped file.
///
/// # Errors
/// [`BlockError::RowNotBlocks`] or [`BlockError::WrongLength`] when `bytes` and `out` do not fit each other.
pub fn widen(format: Format, bytes: &[u8], out: &mut [f32]) -> Result<(), BlockError> {
    let expected = format.row_bytes(out.len())?;
    if expected != bytes.len() {
        return Err(BlockError::WrongLength { format, values: out.len(), expected, found: bytes.len() });
    }
    match format {
        Format::F64 => {
            for (out, bytes) in out.iter_mut().zip(bytes.as_chunks::<8>().0) {
                *out = f64::from_le_bytes(*bytes) as f32;
            }
        }
        Format::F32 => {
            for (out, bytes) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *out = f32::from_le_bytes(*bytes);
            }
        }
        Format::F16 => halves(bytes, out),
        Format::BF16 => {
            for (out, bytes) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *out = f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16);
            }
        }
        Format::Q8_0 => blocks::<34, 32>(bytes, out, q8_0),
        Format::Q4_0 => blocks::<18, 32>(bytes, out, q4_0),
        Format::Q4_1 => blocks::<20, 32>(bytes, out, q4_1),
        Format::Q4_K => blocks::<144, 256>(bytes, out, k_blocks::q4_k),
        Format::Q6_K => blocks::<210, 256>(bytes, out, k_blocks::q6_k),
    }
    Ok(())
}

/// Runs `one` over every block; generic over it so that it is inlined.
fn blocks<const BYTES: usize, const LEN: usize>(
    bytes: &[u8],
    out: &mut [f32],
    one: impl Fn(&[u8; BYTES], &mut [f32; LEN]),
) {
    for (out, bytes) in out.as_chunks_mut::<LEN>().0.iter_mut().zip(bytes.as_chunks::<BYTES>().0) {
        one(bytes, out);
    }
}

/// The conversion instruction of the processor needs aligned input, hence a small buffer on the stack.
fn halves(bytes: &[u8], out: &mut [f32]) {
    let mut buffer = [0_u16; 256];
    for (out, bytes) in out.chunks_mut(256).zip(bytes.chunks(512)) {
        for (bits, bytes) in buffer.iter_mut().zip(bytes.as_chunks::<2>().0) {
            *bits = u16::from_le_bytes(*bytes);
        }
        buffer[..out.len()].reinterpret_cast::<f16>().convert_to_f32_slice(out);
    }
}

/// The half-precision number at `at`.
pub(crate) fn half_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

fn q8_0(block: &[u8; 34], out: &mut [f32; 32]) {
    let d = half_at(block, 0);
    for (out, &q) in out.iter_mut().zip(&block[2..]) {
        *out = d * f32::from(q.cast_signed());
    }
}

/// Low nibbles are values 0..16, high nibbles values 16..32.
fn q4_0(block: &[u8; 18], out: &mut [f32; 32]) {
    let d = half_at(block, 0);
    let (low, high) = out.split_at_mut(16);
    for ((low, high), &q) in low.iter_mut().zip(high).zip(&block[2..]) {
        *low = d * f32::from((q & 15).cast_signed() - 8);
        *high = d * f32::from((q >> 4).cast_signed() - 8);
    }
}

fn q4_1(block: &[u8; 20], out: &mut [f32; 32]) {
    let (d, m) = (half_at(block, 0), half_at(block, 2));
    let (low, high) = out.split_at_mut(16);
    for ((low, high), &q) in low.iter_mut().zip(high).zip(&block[4..]) {
        *low = d * f32::from(q & 15) + m;
        *high = d * f32::from(q >> 4) + m;
    }
}

#[cfg(test)]
mod tests {
    use super::widen;
    use crate::{BlockError, Format};

    fn check(format: Format, bytes: &[u8], expected: &[f32]) {
        let mut out = vec![f32::NAN; expected.len()];
        widen(format, bytes, &mut out).unwrap();
        assert_eq!(out, expected, "{format}");
    }

    #[test]
    fn plain_numbers() {
        check(Format::F64, &[1.5_f64.to_le_bytes(), (-0.1_f64).to_le_bytes()].concat(), &[1.5, -0.1]);
        check(Format::F32, &[1.5_f32.to_le_bytes(), (-0.1_f32).to_le_bytes()].concat(), &[1.5, -0.1]);
        // 0x3555 = 2^-2 · (1 + 341/1024); 0x0001 is the least subnormal, 2^-24; 0xfbff is the lowest finite value.
        check(Format::F16, &[0x55, 0x35, 1, 0, 0xff, 0xfb], &[0.333_251_95, 2.0_f32.powi(-24), -65504.0]);
        // 0x4049 is the upper half of pi's bits.
        check(Format::BF16, &[0x49, 0x40, 0x80, 0xbf], &[3.140_625, -1.0]);
    }

    #[test]
    fn long_and_unaligned_halves() {
        let values: Vec<f32> = (0..1001).map(|i| (i as f32 - 500.0) / 8.0).collect();
        let mut bytes = vec![0xaa];
        bytes.extend(values.iter().flat_map(|&v| half::f16::from_f32(v).to_le_bytes()));
        check(Format::F16, &bytes[1..], &values);
    }

    #[test]
    fn q8_0_by_hand() {
        let mut block = vec![0x00, 0x38]; // d = 0.5
        block.extend([1, 0xff, 0x80, 0x7f]);
        block.extend([0; 28]);
        let mut expected = vec![0.5, -0.5, -64.0, 63.5];
        expected.resize(32, 0.0);
        check(Format::Q8_0, &block, &expected);
    }

    #[test]
    fn q4_0_by_hand() {
        let mut block = vec![0x00, 0xc0]; // d = -2
        block.push(0xf0); // value 0 has q = 0, value 16 has q = 15
        block.extend([0x88; 15]);
        let mut expected = vec![0.0; 32];
        expected[0] = 16.0;
        expected[16] = -14.0;
        check(Format::Q4_0, &block, &expected);
    }

    #[test]
    fn q4_1_by_hand() {
        let mut block = vec![0x00, 0x34, 0x00, 0xbe]; // d = 0.25, m = -1.5
        block.push(0x3f); // value 0 has q = 15, value 16 has q = 3
        block.extend([0x00; 15]);
        let mut expected = vec![-1.5; 32];
        expected[0] = 2.25;
        expected[16] = -0.75;
        check(Format::Q4_1, &block, &expected);
    }

    #[test]
    fn lengths_are_checked() {
        let error = BlockError::WrongLength { format: Format::F16, values: 3, expected: 6, found: 7 };
        assert_eq!(widen(Format::F16, &[0; 7], &mut [0.0; 3]), Err(error));
        let error = BlockError::RowNotBlocks { format: Format::Q8_0, values: 3, block: 32 };
        assert_eq!(widen(Format::Q8_0, &[0; 34], &mut [0.0; 3]), Err(error));
    }
}
