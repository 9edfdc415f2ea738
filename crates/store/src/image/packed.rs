//! What tests write: streams of deflate whose one block is stored, with their sums. Readers are tested on compressed ones too.

/// The reflected CRC-32 of gzip and PNG.
pub(super) fn crc32(bytes: &[u8]) -> u32 {
    let step = |sum: u32, _| if sum & 1 == 1 { sum >> 1 ^ 0xedb8_8320 } else { sum >> 1 };
    !bytes.iter().fold(u32::MAX, |sum, &byte| (0..8).fold(sum ^ u32::from(byte), step))
}

/// A last block as it is, of fewer than 65,536 bytes.
fn stored(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap();
    [&[1], &length.to_le_bytes()[..], &(!length).to_le_bytes(), bytes].concat()
}

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let head = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let (sum, length) = (crc32(bytes).to_le_bytes(), (bytes.len() as u32).to_le_bytes());
    [&head[..], &stored(bytes), &sum, &length].concat()
}

pub(super) fn zlib(bytes: &[u8]) -> Vec<u8> {
    let (low, high) = bytes.iter().fold((1_u32, 0_u32), |(low, high), &byte| {
        let low = (low + u32::from(byte)) % 65521;
        (low, (high + low) % 65521)
    });
    [&[0x78, 1][..], &stored(bytes), &(high << 16 | low).to_be_bytes()].concat()
}
