//! A zip archive as NumPy writes it: files stored or deflated, named by the directory at the end.
//!
//! Source: PKWARE, "APPNOTE: .ZIP File Format Specification", 4.3. Archives of more than 4 GiB (zip64), encrypted ones and other
//! compressions are refused.

use zune_inflate::{DeflateDecoder, DeflateOptions};

use super::NpyError;

/// Bytes up to which an archive is unpacked.
const BYTES: usize = 1 << 30;
/// Bytes of the record at the end, and the longest comment behind it.
const END: usize = 22;
const COMMENT: usize = 0xffff;

fn damaged(problem: impl Into<String>) -> NpyError {
    NpyError::Archive(problem.into())
}

/// A little-endian number at a place.
fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<usize> {
    let part = bytes.get(at..at.checked_add(N)?)?;
    Some(part.iter().rev().fold(0, |sum, &byte| sum << 8 | usize::from(byte)))
}

/// The files of an archive with their names, unpacked and checked.
pub(super) fn unpacked(bytes: &[u8]) -> Result<Vec<(String, Vec<u8>)>, NpyError> {
    let from = bytes.len().saturating_sub(END + COMMENT);
    let tail = bytes.get(from..).unwrap_or_default();
    // The record's last field is the length of the comment that ends the file.
    let ends =
        |at: &usize| number::<2>(bytes, at + 20).is_some_and(|comment| at + END + comment == bytes.len());
    let mut places =
        tail.windows(4).enumerate().filter(|(_, four)| *four == b"PK\x05\x06").map(|(at, _)| from + at);
    let end = places.rfind(ends);
    let end = end.ok_or_else(|| damaged("no directory at its end; the file may be incomplete"))?;
    let cut = || damaged("its directory is cut off");
    let count = number::<2>(bytes, end + 10).ok_or_else(cut)?;
    let mut at = number::<4>(bytes, end + 16).ok_or_else(cut)?;
    let mut files = Vec::new();
    let mut left = BYTES;
    for _ in 0..count {
        if bytes.get(at..at + 4) != Some(b"PK\x01\x02") {
            return Err(damaged("its directory is damaged"));
        }
        let field = |offset: usize| number::<2>(bytes, at + offset).ok_or_else(cut);
        let long = |offset: usize| number::<4>(bytes, at + offset).ok_or_else(cut);
        let [flags, method] = [field(8)?, field(10)?];
        let [check, packed, size] = [long(16)?, long(20)?, long(24)?];
        let [name_length, extra, comment] = [field(28)?, field(30)?, field(32)?];
        let local = long(42)?;
        let name = bytes.get(at + 46..at + 46 + name_length).ok_or_else(cut)?;
        let name = String::from_utf8_lossy(name).into_owned();
        if flags & 1 != 0 {
            return Err(damaged(format!("{name} is encrypted")));
        }
        if [packed, size, local].contains(&0xffff_ffff) {
            return Err(damaged(format!("{name} is larger than 4 GiB")));
        }
        left = left.checked_sub(size).ok_or_else(|| damaged("it unpacks to more than 1 GiB"))?;
        let [skipped, more] = [26, 28].map(|offset| number::<2>(bytes, local + offset));
        let begin = local + 30 + skipped.ok_or_else(cut)? + more.ok_or_else(cut)?;
        let data = bytes.get(begin..begin + packed).ok_or_else(|| damaged(format!("{name} is cut off")))?;
        let data = match method {
            0 => data.to_vec(),
            8 => inflated(data, size).map_err(|problem| damaged(format!("{name}: {problem}")))?,
            other => return Err(damaged(format!("{name} is packed by method {other}; 0 and 8 are read"))),
        };
        if data.len() != size || crc(&data) as usize != check {
            return Err(damaged(format!("{name} is damaged: its length or checksum is another")));
        }
        files.push((name, data));
        at += 46 + name_length + extra + comment;
    }
    Ok(files)
}

fn inflated(data: &[u8], size: usize) -> Result<Vec<u8>, String> {
    let options =
        DeflateOptions::default().set_limit(size + 1).set_size_hint(size.min(data.len().saturating_mul(16)));
    DeflateDecoder::new_with_options(data, options)
        .decode_deflate()
        .map_err(|error| format!("{:?}", error.error))
}

/// The cyclic redundancy check of zip: polynomial 0xedb88320, reflected.
fn crc(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut index = 0;
        while index < 256 {
            let mut value = index as u32;
            let mut bit = 0;
            while bit < 8 {
                value = if value & 1 == 1 { value >> 1 ^ 0xedb8_8320 } else { value >> 1 };
                bit += 1;
            }
            table[index] = value;
            index += 1;
        }
        table
    };
    !bytes.iter().fold(!0, |crc: u32, &byte| TABLE[((crc ^ u32::from(byte)) & 255) as usize] ^ crc >> 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `numpy.savez_compressed(file, a=numpy.arange(3.0), b=numpy.zeros(40))`, the header of version 1.
    const PACKED: &[u8] = include_bytes!("packed.npz");

    #[test]
    fn what_numpy_packed_is_unpacked() {
        assert_eq!(crc(b"123456789"), 0xcbf4_3926, "the check value of the standard");
        let files = unpacked(PACKED).unwrap();
        assert_eq!(files.iter().map(|file| file.0.as_str()).collect::<Vec<_>>(), ["a.npy", "b.npy"]);
        assert_eq!(super::super::parse(&files[0].1).unwrap().values, [0.0, 1.0, 2.0]);
        assert_eq!(super::super::parse(&files[1].1).unwrap().values, [0.0; 40]);
    }

    #[test]
    fn no_damage_goes_unseen() {
        let whole = unpacked(PACKED).unwrap();
        for at in 0..PACKED.len() {
            assert!(unpacked(&PACKED[..at]).is_err(), "cut at {at}");
            let mut bytes = PACKED.to_vec();
            bytes[at] ^= 0x10;
            // Dates and attributes may change; a file's content may not.
            if let Ok(files) = unpacked(&bytes) {
                assert!(
                    files.iter().zip(&whole).all(|(a, b)| a.1 == b.1) && files.len() <= whole.len(),
                    "flipped at {at}"
                );
            }
        }
    }
}
