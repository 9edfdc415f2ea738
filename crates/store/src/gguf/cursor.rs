use super::GgufError;

/// Reads forward through bytes; every step checks what is left before anything is allocated.
#[derive(Debug)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Cursor<'a> {
        Cursor { bytes, at: 0 }
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    pub(super) fn take(&mut self, count: usize, what: &str) -> Result<&'a [u8], GgufError> {
        let left = self.left();
        if count > left {
            return Err(GgufError::CutOff { what: what.to_owned(), at: self.at, needed: count, left });
        }
        let taken = &self.bytes[self.at..self.at + count];
        self.at += count;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], GgufError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N, what)?);
        Ok(out)
    }

    pub(super) fn u32(&mut self, what: &str) -> Result<u32, GgufError> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    pub(super) fn u64(&mut self, what: &str) -> Result<u64, GgufError> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// A number of items that take at least `least` bytes each.
    pub(super) fn count(&mut self, least: usize, what: &str) -> Result<usize, GgufError> {
        let declared = self.u64(what)?;
        let left = self.left();
        match usize::try_from(declared) {
            Ok(count) if count.checked_mul(least).is_some_and(|bytes| bytes <= left) => Ok(count),
            _ => Err(GgufError::CountTooLarge { what: what.to_owned(), declared, left }),
        }
    }

    pub(super) fn string(&mut self, what: &str) -> Result<String, GgufError> {
        let at = self.at;
        let declared = self.u64(what)?;
        let left = self.left();
        let length = match usize::try_from(declared) {
            Ok(length) if length <= left => length,
            _ => return Err(GgufError::StringTooLong { what: what.to_owned(), at, declared, left }),
        };
        let start = self.at;
        let bytes = self.take(length, what)?;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(error) => Err(GgufError::NotUtf8 { what: what.to_owned(), at: start + error.valid_up_to() }),
        }
    }
}
