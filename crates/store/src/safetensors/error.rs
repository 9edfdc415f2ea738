/// What is wrong with a safetensors file, or with tensors that were to become one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SafetensorsError {
    /// Not even the length of the header is there.
    #[error("{len} bytes are too few for a safetensors file; it is empty or cut off")]
    TooShort {
        /// Bytes in the file.
        len: usize,
    },
    /// A header beyond what the format allows.
    #[error(
        "the header claims {declared} bytes, beyond the limit of {limit}; this is not a safetensors file"
    )]
    HeaderTooLong {
        /// Claimed length.
        declared: u64,
        /// The format's limit.
        limit: u64,
    },
    /// The header runs past the end.
    #[error(
        "the header claims {declared} bytes, {left} are left in the file; it is cut off, or no safetensors file"
    )]
    HeaderPastEnd {
        /// Claimed length.
        declared: u64,
        /// Bytes after the length.
        left: usize,
    },
    /// The header is not UTF-8.
    #[error("the header is not UTF-8 at byte {at}")]
    HeaderNotUtf8 {
        /// Position in the header.
        at: usize,
    },
    /// The header is not the JSON of the format.
    #[error("the header is not valid at byte {column}: {message}")]
    HeaderJson {
        /// Position in the header.
        column: usize,
        /// What the parser says.
        message: String,
    },
    /// `__metadata__` occurs twice.
    #[error("__metadata__ occurs twice")]
    DuplicateMetadata,
    /// A name occurs twice.
    #[error("tensor {name:?} occurs twice")]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// A dtype that is not known here.
    #[error("tensor {name:?} has dtype {dtype:?}; known are F64, F32, F16, BF16, integers and BOOL")]
    UnknownDtype {
        /// The tensor.
        name: String,
        /// Its dtype.
        dtype: String,
    },
    /// The shape's product overflows.
    #[error("tensor {name:?} of shape {shape:?} is larger than this machine can address")]
    ShapeOverflow {
        /// The tensor.
        name: String,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// The end lies before the beginning.
    #[error("tensor {name:?} ends at {end}, before it begins at {begin}")]
    OffsetsReversed {
        /// The tensor.
        name: String,
        /// Where it begins.
        begin: usize,
        /// Where it ends.
        end: usize,
    },
    /// The offsets do not match shape and dtype.
    #[error("tensor {name:?} of shape {shape:?} takes {expected} bytes, its offsets give {found}")]
    SizeMismatch {
        /// The tensor.
        name: String,
        /// Its shape.
        shape: Vec<usize>,
        /// Bytes that it takes.
        expected: usize,
        /// Bytes that it has.
        found: usize,
    },
    /// A tensor does not begin at a multiple of its element size.
    #[error("tensor {name:?} begins at {begin}, not at a multiple of {size}")]
    Misaligned {
        /// The tensor.
        name: String,
        /// Where it begins.
        begin: usize,
        /// Bytes of an element.
        size: usize,
    },
    /// Two tensors share bytes.
    #[error("tensor {name:?} begins at {begin}, inside one that ends at {end}")]
    Overlap {
        /// The later tensor.
        name: String,
        /// Where it begins.
        begin: usize,
        /// Where the earlier ends.
        end: usize,
    },
    /// Bytes that belong to no tensor.
    #[error("the bytes from {end} to {begin}, before tensor {name:?}, belong to no tensor")]
    Gap {
        /// The tensor after the gap.
        name: String,
        /// Where it begins.
        begin: usize,
        /// Where the one before ends.
        end: usize,
    },
    /// The data are cut off.
    #[error("the tensors take {needed} bytes, {found} are there; the file is cut off")]
    DataCutOff {
        /// Bytes of all tensors.
        needed: usize,
        /// Bytes after the header.
        found: usize,
    },
    /// Bytes after the last tensor.
    #[error("{extra} bytes follow the last tensor")]
    TrailingBytes {
        /// How many.
        extra: usize,
    },
    /// The reference parser refuses what passed all checks above.
    #[error("refused by the safetensors library: {message}")]
    Library {
        /// What it says.
        message: String,
    },
    /// To be written: the bytes do not match shape and dtype.
    #[error("tensor {name:?} of {dtype} and shape {shape:?} was given {found} bytes")]
    WrongBytes {
        /// The tensor.
        name: String,
        /// Its dtype.
        dtype: &'static str,
        /// Its shape.
        shape: Vec<usize>,
        /// Bytes given.
        found: usize,
    },
    /// To be written: a block format, which safetensors does not know.
    #[error("tensor {name:?} is {dtype}, which safetensors cannot hold; write GGUF, or widen it")]
    BlockFormat {
        /// The tensor.
        name: String,
        /// Its dtype.
        dtype: &'static str,
    },
    /// To be written: the name that the format keeps for itself.
    #[error("a tensor cannot be called __metadata__")]
    ReservedName,
}

/// What is wrong with the index of a sharded model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// A name occurs twice.
    #[error("tensor {name:?} is listed twice")]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// Nothing is listed.
    #[error("weight_map lists no tensor")]
    Empty,
    /// A shard outside the folder.
    #[error("shard {shard:?} is not a plain file name")]
    BadShardName {
        /// The name.
        shard: String,
    },
    /// A shard is not there.
    #[error("shard {shard:?} is missing; fetch it again")]
    MissingShard {
        /// The file name.
        shard: String,
    },
    /// A listed tensor is not in its shard.
    #[error("tensor {name:?} is not in its shard {shard:?}")]
    MissingTensor {
        /// The tensor.
        name: String,
        /// The shard.
        shard: String,
    },
    /// A shard holds a tensor that is not listed for it.
    #[error("shard {shard:?} holds tensor {name:?}, which the index does not list there")]
    ExtraTensor {
        /// The tensor.
        name: String,
        /// The shard.
        shard: String,
    },
}
