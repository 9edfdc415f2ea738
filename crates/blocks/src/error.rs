use crate::Format;

/// What can be wrong with a request to widen or narrow numbers.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum BlockError {
    /// The values of a row do not fill whole blocks.
    #[error(
        "{values} values do not fill whole blocks of {block}, which {format} needs; choose another format"
    )]
    RowNotBlocks {
        /// The format asked for.
        format: Format,
        /// Values in the row.
        values: usize,
        /// Values in one block.
        block: usize,
    },
    /// The number of bytes is not what the number of values takes.
    #[error("{values} values of {format} take {expected} bytes, {found} were given")]
    WrongLength {
        /// The format asked for.
        format: Format,
        /// Values asked for.
        values: usize,
        /// Bytes that they take.
        expected: usize,
        /// Bytes given.
        found: usize,
    },
    /// The number of bytes does not fit into a `usize`.
    #[error("{values} values of {format} take more bytes than this machine can address")]
    TooLarge {
        /// The format asked for.
        format: Format,
        /// Values in the row.
        values: usize,
    },
    /// A value is NaN or infinite, which a block format cannot hold.
    #[error("value {index} is {value}, which {format} cannot hold; look for a diverged tensor")]
    NotFinite {
        /// The format asked for.
        format: Format,
        /// Position of the value.
        index: usize,
        /// The value.
        value: f32,
    },
    /// A finite value would become infinite.
    #[error("value {index} is {value}, beyond the range of {format}; store it as bf16 or f32")]
    OutOfRange {
        /// The format asked for.
        format: Format,
        /// Position of the value, or of the first value of its block.
        index: usize,
        /// The value.
        value: f32,
    },
    /// The format is read but not written.
    #[error("{format} is read but not written; narrow to F16, Q8_0, Q4_0 or Q4_1")]
    NotWritten {
        /// The format asked for.
        format: Format,
    },
    /// A value is NaN or infinite, which NF4 cannot hold.
    #[error("value {index} is {value}, which NF4 cannot hold; look for a diverged tensor")]
    Nf4NotFinite {
        /// Position of the value.
        index: usize,
        /// The value.
        value: f32,
    },
    /// A block of no values.
    #[error("a block of 0 values holds nothing; give blocks of 64 values, as is usual")]
    NoBlock,
}
