//! The formats against the Python package `gguf`, bit for bit. Origin: `reference/make.py` (gguf 0.19.0, 2026-11-23).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail by panicking")]

#[rustfmt::skip]
#[path = "reference/vectors.rs"]
mod vectors;

use lowrank_blocks::{Format, narrow, widen};
use vectors as v;

fn fingerprint(values: &[f32]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in values.iter().flat_map(|value| value.to_le_bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash
}

fn check(format: Format, bytes: &[u8], wide: (u64, [u32; 8]), written: bool) {
    let count = bytes.len() / format.block_bytes() * format.block_len();
    let mut out = vec![0.0; count];
    widen(format, bytes, &mut out).unwrap();
    let ends: Vec<u32> = out[..4].iter().chain(&out[count - 4..]).map(|value| value.to_bits()).collect();
    assert_eq!(ends, wide.1, "{format}: first and last values");
    assert_eq!(fingerprint(&out), wide.0, "{format}: all values");
    if written {
        let values: Vec<f32> = v::VALUES.iter().map(|&bits| f32::from_bits(bits)).collect();
        assert_eq!(narrow(format, &values).unwrap(), bytes, "{format}: narrowed bytes");
    }
}

#[test]
fn formats_agree_with_gguf_bit_for_bit() {
    check(Format::F16, v::F16_BYTES, v::F16_WIDE, true);
    check(Format::BF16, v::BF16_BYTES, v::BF16_WIDE, true);
    check(Format::Q8_0, v::Q8_0_BYTES, v::Q8_0_WIDE, true);
    check(Format::Q4_0, v::Q4_0_BYTES, v::Q4_0_WIDE, true);
    check(Format::Q4_1, v::Q4_1_BYTES, v::Q4_1_WIDE, true);
    check(Format::Q4_K, v::Q4_K_BYTES, v::Q4_K_WIDE, false);
    check(Format::Q6_K, v::Q6_K_BYTES, v::Q6_K_WIDE, false);
}
