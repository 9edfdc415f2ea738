//! ggml's K formats: a super-block of 256 values whose sub-blocks have their own quantised scales.

use crate::widen::half_at;

/// `block_q4_K`, 144 bytes: `d: f16`, `dmin: f16`, `scales: [u8; 12]`, `qs: [u8; 128]`.
///
/// Each run of 32 bytes holds two sub-blocks of 32 values: the low nibbles, then the high nibbles.
/// value = d·scale·q − dmin·min.
pub(crate) fn q4_k(block: &[u8; 144], out: &mut [f32; 256]) {
    let (d, dmin) = (half_at(block, 0), half_at(block, 2));
    let (scales, minima) = scales_and_minima(&block[4..16]);
    let quants = block[16..].as_chunks::<32>().0;
    for (pair, (out, quants)) in out.as_chunks_mut::<64>().0.iter_mut().zip(quants).enumerate() {
        let factor = |sub: usize| (d * f32::from(scales[sub]), dmin * f32::from(minima[sub]));
        let ((d_low, m_low), (d_high, m_high)) = (factor(2 * pair), factor(2 * pair + 1));
        let (low, high) = out.split_at_mut(32);
        for ((low, high), &q) in low.iter_mut().zip(high).zip(quants) {
            *low = d_low * f32::from(q & 15) - m_low;
            *high = d_high * f32::from(q >> 4) - m_high;
        }
    }
}

/// Eight 6-bit scales and eight 6-bit minima from 12 bytes. Sub-blocks 0..4 have theirs in the low six bits of bytes
/// 0..4 and 4..8; sub-blocks 4..8 have the low four bits in bytes 8..12 and the high two at the top of the others.
fn scales_and_minima(packed: &[u8]) -> ([u8; 8], [u8; 8]) {
    let (mut scales, mut minima) = ([0; 8], [0; 8]);
    for i in 0..4 {
        scales[i] = packed[i] & 63;
        minima[i] = packed[i + 4] & 63;
        scales[i + 4] = (packed[i + 8] & 15) | ((packed[i] >> 6) << 4);
        minima[i + 4] = (packed[i + 8] >> 4) | ((packed[i + 4] >> 6) << 4);
    }
    (scales, minima)
}

/// `block_q6_K`, 210 bytes: `ql: [u8; 128]`, `qh: [u8; 64]`, `scales: [i8; 16]`, `d: f16`.
///
/// Each half of 128 values has 64 bytes of `ql`, 32 of `qh` and 8 scales; its four runs of 32 values take the low
/// nibbles of `ql[0..32]`, of `ql[32..64]`, then the high nibbles of both, and bits 0, 2, 4, 6 of `qh`.
/// value = d·scale·(q − 32), one scale for 16 values.
pub(crate) fn q6_k(block: &[u8; 210], out: &mut [f32; 256]) {
    let (low, rest) = block.split_at(128);
    let (high, scales) = rest.split_at(64);
    let d = half_at(block, 208);
    let halves =
        out.as_chunks_mut::<128>().0.iter_mut().zip(low.as_chunks::<64>().0).zip(high.as_chunks::<32>().0);
    for (half, ((out, low), high)) in halves.enumerate() {
        for (run, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let low = &low[32 * (run % 2)..][..32];
            let (low_shift, high_shift) = (4 * (run / 2), 2 * run);
            for (part, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
                let factor = d * f32::from(scales[8 * half + 2 * run + part].cast_signed());
                let (low, high) = (&low[16 * part..][..16], &high[16 * part..][..16]);
                for ((out, &low), &high) in out.iter_mut().zip(low).zip(high) {
                    let q = ((low >> low_shift) & 15) | (((high >> high_shift) & 3) << 4);
                    *out = factor * f32::from(q.cast_signed() - 32);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{q4_k, q6_k, scales_and_minima};

    #[test]
    fn six_bit_scales_by_hand() {
        // Scales 1, 2, 3, 4, then 0b10_0101 = 37, 0b11_1111 = 63, 0, 16; minima 5, 6, 7, 8, then 63, 1, 48, 0.
        let packed = [
            0b10_000001,
            0b11_000010,
            0b00_000011,
            0b01_000100,
            0b11_000101,
            0b00_000110,
            0b11_000111,
            0b00_001000,
            0b1111_0101,
            0b0001_1111,
            0b0000_0000,
            0b0000_0000,
        ];
        let (scales, minima) = scales_and_minima(&packed);
        assert_eq!(scales, [1, 2, 3, 4, 37, 63, 0, 16]);
        assert_eq!(minima, [5, 6, 7, 8, 63, 1, 48, 0]);
    }

    #[test]
    fn q4_k_by_hand() {
        let mut block = [0_u8; 144];
        block[1] = 0x38; // d = 0.5
        block[3] = 0x34; // dmin = 0.25
        block[4] = 2; // scale of sub-block 0
        block[9] = 4; // minimum of sub-block 1
        block[12] = 0x03; // scale of sub-block 4 is 3
        block[16] = 0xf9; // sub-block 0 value 0: q = 9; sub-block 1 value 0: q = 15, but its scale is 0
        block[16 + 64 + 31] = 0x07; // sub-block 4 value 31: q = 7
        let mut out = [f32::NAN; 256];
        q4_k(&block, &mut out);
        let mut expected = [0.0; 256];
        expected[0] = 0.5 * 2.0 * 9.0;
        expected[32..64].fill(-0.25 * 4.0);
        expected[4 * 32 + 31] = 0.5 * 3.0 * 7.0;
        assert_eq!(out, expected);
    }

    #[test]
    fn q6_k_by_hand() {
        let mut block = [0_u8; 210];
        block[209] = 0x3c; // d = 1
        block[192..208].fill(1);
        block[192 + 8 + 2 * 3] = 0xfe; // second half, run 3, first part: scale -2
        block[0] = 0x0f; // first half, run 0, value 0: low bits 15
        block[128] = 0b0000_0010; // and high bits 2: q = 47, value 15
        block[64 + 32] = 0x50; // second half, run 3, value 0: low bits 5
        block[128 + 32] = 0b1100_0000; // and high bits 3: q = 53, value -2 · 21
        let mut out = [f32::NAN; 256];
        q6_k(&block, &mut out);
        let mut expected = [-32.0; 256];
        expected[0] = 15.0;
        let run = 128 + 3 * 32;
        expected[run..run + 16].fill(64.0);
        expected[run] = -42.0;
        assert_eq!(out, expected);
    }
}
