//! Base64 as RFC 4648 has it (the alphabet with `+` and `/`); line ends between the characters are passed over.

/// The bytes of a text, or the index of the first character that does not belong.
pub(super) fn decode(text: &str) -> Result<Vec<u8>, usize> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut held, mut padding) = (0_u32, 0_u32, 0);
    for (at, letter) in text.bytes().enumerate() {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'\r' | b'\n' => continue,
            // At most two, at the end of a group of four.
            b'=' if padding < 2 && held > 0 => {
                padding += 1;
                continue;
            }
            _ => return Err(at),
        };
        if padding > 0 {
            return Err(at);
        }
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    // Six bits over are half a byte's letter; padding, where it is written, fills the group.
    let whole = held != 6 && bits == 0 && (padding == 0 || padding * 2 == held);
    if whole { Ok(out) } else { Err(text.len()) }
}

#[cfg(test)]
mod tests {
    use super::decode;

    #[test]
    fn reads_the_vectors_of_the_standard_and_refuses_what_is_none() {
        // RFC 4648, section 10.
        for (text, bytes) in [
            ("", ""),
            ("Zg==", "f"),
            ("Zm8=", "fo"),
            ("Zm9v", "foo"),
            ("Zm9vYg==", "foob"),
            ("Zm9v\nYmFy", "foobar"),
        ] {
            assert_eq!(decode(text).unwrap(), bytes.as_bytes(), "{text}");
        }
        for (text, at) in
            [("Zm9!", 3), ("Zg==Zg", 4), ("Z", 1), ("Zg=", 3), ("=", 0), ("Zm8==", 5), ("Zh==", 4)]
        {
            assert_eq!(decode(text), Err(at), "{text}");
        }
    }
}
