use std::fmt;

use crate::BlockError;

#[expect(non_camel_case_types, reason = "Q4_K and Q6_K are the names in every file and manual")]
/// How stored numbers are laid out. The block formats are ggml's (`ggml-common.h`): little-endian, each block
/// carrying its own scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Format {
    /// IEEE double; widening rounds to nearest.
    F64,
    /// IEEE single.
    F32,
    /// IEEE half.
    F16,
    /// The upper half of an IEEE single.
    BF16,
    /// 32 values: `d: f16`, 32 × `q: i8`; value = d·q.
    Q8_0,
    /// 32 values: `d: f16`, 16 bytes of two nibbles; value = d·(q − 8).
    Q4_0,
    /// 32 values: `d: f16`, `m: f16`, 16 bytes of two nibbles; value = d·q + m.
    Q4_1,
    /// 256 values in 8 sub-blocks: `d`, `dmin: f16`, 12 bytes of 6-bit scales and minima, 128 bytes of nibbles;
    /// value = d·scale·q − dmin·min.
    Q4_K,
    /// 256 values in 16 sub-blocks: 128 bytes of low nibbles, 64 bytes of high bit pairs, 16 × `scale: i8`,
    /// `d: f16`; value = d·scale·(q − 32).
    Q6_K,
}

impl Format {
    /// Every format, in the order of the enum.
    pub const ALL: [Format; 9] = [
        Format::F64,
        Format::F32,
        Format::F16,
        Format::BF16,
        Format::Q8_0,
        Format::Q4_0,
        Format::Q4_1,
        Format::Q4_K,
        Format::Q6_K,
    ];

    /// The name as GGUF and safetensors spell it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Format::F64 => "F64",
            Format::F32 => "F32",
            Format::F16 => "F16",
            Format::BF16 => "BF16",
            Format::Q8_0 => "Q8_0",
            Format::Q4_0 => "Q4_0",
            Format::Q4_1 => "Q4_1",
            Format::Q4_K => "Q4_K",
            Format::Q6_K => "Q6_K",
        }
    }

    /// The format of this name, in any case.
    #[must_use]
    pub fn named(name: &str) -> Option<Format> {
        Format::ALL.into_iter().find(|format| format.name().eq_ignore_ascii_case(name))
    }

    /// Values in one block; 1 for plain numbers.
    #[must_use]
    pub const fn block_len(self) -> usize {
        match self {
            Format::F64 | Format::F32 | Format::F16 | Format::BF16 => 1,
            Format::Q8_0 | Format::Q4_0 | Format::Q4_1 => 32,
            Format::Q4_K | Format::Q6_K => 256,
        }
    }

    /// Bytes of one block.
    #[must_use]
    pub const fn block_bytes(self) -> usize {
        match self {
            Format::F64 => 8,
            Format::F32 => 4,
            Format::F16 | Format::BF16 => 2,
            Format::Q8_0 => 34,
            Format::Q4_0 => 18,
            Format::Q4_1 => 20,
            Format::Q4_K => 144,
            Format::Q6_K => 210,
        }
    }

    /// Whether values share a block.
    #[must_use]
    pub const fn is_block(self) -> bool {
        self.block_len() > 1
    }

    /// Bits that one value takes, its share of the block's scales included.
    #[must_use]
    pub fn bits_per_value(self) -> f64 {
        8.0 * self.block_bytes() as f64 / self.block_len() as f64
    }

    /// Bytes of a row of `values` numbers.
    ///
    /// # Errors
    /// [`BlockError::RowNotBlocks`] when the row does not fill whole blocks, [`BlockError::TooLarge`] when the count
    /// does not fit.
    pub const fn row_bytes(self, values: usize) -> Result<usize, BlockError> {
        let block = self.block_len();
        if !values.is_multiple_of(block) {
            return Err(BlockError::RowNotBlocks { format: self, values, block });
        }
        match (values / block).checked_mul(self.block_bytes()) {
            Some(bytes) => Ok(bytes),
            None => Err(BlockError::TooLarge { format: self, values }),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::Format;
    use crate::BlockError;

    #[test]
    fn rows_take_whole_blocks() {
        assert_eq!(Format::Q4_1.row_bytes(576), Ok(18 * 20));
        assert_eq!(Format::Q6_K.row_bytes(512), Ok(420));
        assert_eq!(Format::BF16.row_bytes(7), Ok(14));
        let error = BlockError::RowNotBlocks { format: Format::Q4_K, values: 576, block: 256 };
        assert_eq!(Format::Q4_K.row_bytes(576), Err(error));
        let error = BlockError::TooLarge { format: Format::F64, values: usize::MAX };
        assert_eq!(Format::F64.row_bytes(usize::MAX), Err(error));
    }

    #[test]
    fn names_come_back() {
        for format in Format::ALL {
            assert_eq!(Format::named(&format.to_string().to_lowercase()), Some(format));
        }
        assert_eq!(Format::named("Q5_0"), None);
        assert_eq!(Format::Q4_K.bits_per_value(), 4.5);
        assert_eq!(Format::Q6_K.bits_per_value(), 6.5625);
    }
}
