/// What is wrong with a GGUF file, or with what was to become one.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum GgufError {
    /// It begins with something else.
    #[error("begins with {found:?} instead of \"GGUF\"; this is not a GGUF file")]
    BadMagic {
        /// The first bytes.
        found: Vec<u8>,
    },
    /// A version that is not read here.
    #[error("GGUF version {version}; 2 and 3 are read. Convert it again with a current tool")]
    BadVersion {
        /// The version.
        version: u32,
    },
    /// Written by a big-endian machine.
    #[error("this is a big-endian GGUF file; only little-endian ones are read")]
    BigEndian,
    /// The file ends inside something.
    #[error(
        "the file ends inside {what} at byte {at}: {needed} bytes are needed, {left} are left; it is cut off"
    )]
    CutOff {
        /// What was being read.
        what: String,
        /// Where.
        at: usize,
        /// Bytes needed.
        needed: usize,
        /// Bytes left.
        left: usize,
    },
    /// A string is longer than what is left.
    #[error("{what} at byte {at} claims {declared} bytes of text, {left} are left")]
    StringTooLong {
        /// What was being read.
        what: String,
        /// Where.
        at: usize,
        /// Claimed length.
        declared: u64,
        /// Bytes left.
        left: usize,
    },
    /// A string is not UTF-8.
    #[error("{what} is not UTF-8 at byte {at}")]
    NotUtf8 {
        /// What was being read.
        what: String,
        /// Position in the file.
        at: usize,
    },
    /// More items are claimed than the rest of the file can hold.
    #[error("{what} claims {declared} items, {left} bytes are left")]
    CountTooLarge {
        /// What was being read.
        what: String,
        /// Claimed number.
        declared: u64,
        /// Bytes left.
        left: usize,
    },
    /// An unknown type of value.
    #[error("key {key:?} has a value of unknown type {id}")]
    UnknownValueType {
        /// The key.
        key: String,
        /// The type.
        id: u32,
    },
    /// A truth value that is neither 0 nor 1.
    #[error("key {key:?} holds the truth value {found}")]
    BadBool {
        /// The key.
        key: String,
        /// What was found.
        found: u8,
    },
    /// Arrays in arrays in arrays.
    #[error("key {key:?} holds arrays nested deeper than {limit}")]
    NestedTooDeep {
        /// The key.
        key: String,
        /// The limit.
        limit: usize,
    },
    /// A key occurs twice.
    #[error("key {key:?} occurs twice")]
    DuplicateKey {
        /// The key.
        key: String,
    },
    /// The alignment is no power of two.
    #[error("general.alignment is {found}, which is not a power of two")]
    BadAlignment {
        /// What was found.
        found: u32,
    },
    /// A tensor without sides, or with more than four.
    #[error("tensor {name:?} has {found} sides; 1 to 4 are allowed")]
    BadSides {
        /// The tensor.
        name: String,
        /// How many.
        found: usize,
    },
    /// A tensor type that ggml does not know.
    #[error("tensor {name:?} has unknown type {id}")]
    UnknownTensorType {
        /// The tensor.
        name: String,
        /// The type.
        id: u32,
    },
    /// A tensor type that ggml knows and this does not.
    #[error(
        "tensor {name:?} is {kind}, which is not read here; use F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q4_K or Q6_K"
    )]
    UnreadTensorType {
        /// The tensor.
        name: String,
        /// ggml's name of the type.
        kind: &'static str,
    },
    /// A row does not fill whole blocks.
    #[error("tensor {name:?} has rows of {row} values, which do not fill whole blocks of {block}")]
    RowNotBlocks {
        /// The tensor.
        name: String,
        /// Values in a row.
        row: usize,
        /// Values in a block.
        block: usize,
    },
    /// The shape's product overflows.
    #[error("tensor {name:?} of shape {shape:?} is larger than this machine can address")]
    ShapeOverflow {
        /// The tensor.
        name: String,
        /// Its shape.
        shape: Vec<u64>,
    },
    /// A tensor lies outside the file.
    #[error(
        "tensor {name:?} lies at {begin}, {size} bytes long; the tensors end at {end}; the file is cut off"
    )]
    OutsideFile {
        /// The tensor.
        name: String,
        /// Where it begins, after the header.
        begin: u64,
        /// Its bytes.
        size: usize,
        /// Bytes after the header.
        end: usize,
    },
    /// A tensor does not lie right after the one before.
    #[error("tensor {name:?} lies at {begin} instead of {expected}; tensors must follow each other, aligned")]
    WrongOffset {
        /// The tensor.
        name: String,
        /// Where it begins.
        begin: u64,
        /// Where it should.
        expected: u64,
    },
    /// A name occurs twice.
    #[error("tensor {name:?} occurs twice")]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// More than padding follows the last tensor.
    #[error("{extra} bytes follow the last tensor")]
    TrailingBytes {
        /// How many.
        extra: usize,
    },
    /// A key that is needed is not there.
    #[error("no key {key:?}")]
    MissingKey {
        /// The key.
        key: String,
    },
    /// A key has another type than what is needed.
    #[error("key {key:?} holds {found}, {wanted} is needed")]
    WrongType {
        /// The key.
        key: String,
        /// What it holds.
        found: &'static str,
        /// What is needed.
        wanted: &'static str,
    },
    /// A key has another value than what is needed.
    #[error("key {key:?} is {found:?}; {wanted} is needed")]
    WrongValue {
        /// The key.
        key: String,
        /// What it says.
        found: String,
        /// What is needed.
        wanted: String,
    },
    /// To be written: the bytes do not match shape and type.
    #[error("tensor {name:?} of {dtype} and shape {shape:?} was given {found} bytes")]
    WrongBytes {
        /// The tensor.
        name: String,
        /// Its type.
        dtype: &'static str,
        /// Its shape.
        shape: Vec<usize>,
        /// Bytes given.
        found: usize,
    },
    /// To be written: a type that GGUF does not have.
    #[error("tensor {name:?} is {dtype}, which GGUF cannot hold")]
    NoSuchType {
        /// The tensor.
        name: String,
        /// Its type.
        dtype: &'static str,
    },
}
