//! What can be wrong with a model on disk or with what it is fed.

/// Why a model cannot be built or run.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A configuration key is absent.
    #[error("{place}: the key \"{key}\" is missing; it should hold {expected}")]
    MissingKey {
        /// What was read: `config.json` or the metadata of a GGUF file.
        place: &'static str,
        /// The key.
        key: &'static str,
        /// What it should hold.
        expected: &'static str,
    },
    /// A configuration key holds something that cannot be used.
    #[error("{place}: \"{key}\" is {found}; {hint}")]
    BadKey {
        /// What was read: `config.json` or the metadata of a GGUF file.
        place: &'static str,
        /// The key.
        key: &'static str,
        /// What it holds.
        found: String,
        /// What would do.
        hint: String,
    },
    /// The architecture is not one of ours.
    #[error("the model is of type \"{found}\"; lowrank loads {known}")]
    Architecture {
        /// The type named by the model.
        found: String,
        /// The types that we load.
        known: String,
    },
    /// A tensor is absent.
    #[error("tensor \"{0}\" is missing from the model files; the download may be incomplete")]
    MissingTensor(String),
    /// A tensor is there that the architecture has no place for.
    #[error(
        "the model files hold {count} tensors that this architecture has no place for, first \"{first}\"; \
         loading would silently ignore them"
    )]
    ExtraTensors {
        /// The first by name.
        first: String,
        /// How many.
        count: usize,
    },
    /// A tensor has another shape than the configuration says.
    #[error("tensor \"{name}\" has shape {found:?}, the configuration says {expected:?}")]
    Shape {
        /// Name in the file.
        name: String,
        /// Shape in the file.
        found: Vec<usize>,
        /// Shape by the configuration.
        expected: Vec<usize>,
    },
    /// A tensor does not hold real numbers.
    #[error("tensor \"{name}\" holds {dtype}; weights must be real numbers")]
    Dtype {
        /// Name in the file.
        name: String,
        /// What it holds.
        dtype: &'static str,
    },
    /// A token id lies outside the vocabulary.
    #[error(
        "token id {token} at index {index} lies outside the vocabulary of {vocabulary}; is this the model's own tokenizer?"
    )]
    Token {
        /// The id.
        token: u32,
        /// Where it stands.
        index: usize,
        /// Size of the vocabulary.
        vocabulary: usize,
    },
    /// A sequence is longer than the context.
    #[error("{length} tokens exceed the model's context of {context}; shorten the input")]
    Context {
        /// Tokens given.
        length: usize,
        /// Tokens that the model takes.
        context: usize,
    },
    /// Logits from which no token can be chosen.
    #[error(
        "the logits behind {seen} tokens are not finite: a weight or an adapter holds NaN or is too large; \
         look at the loss of its training, or generate without the adapter"
    )]
    NotFinite {
        /// Tokens that the model had seen.
        seen: usize,
    },
    /// A part of a batch has another number of values than its sides say.
    #[error("the batch holds {found} {what}, its sides say {expected}")]
    Batch {
        /// What was counted.
        what: &'static str,
        /// Values given.
        found: usize,
        /// Values by the sides of the batch.
        expected: usize,
    },
    /// A sequence without a token.
    #[error("row {row} of the batch is all padding; leave it out")]
    Padding {
        /// The row.
        row: usize,
    },
    /// A class that the head does not have.
    #[error("label {label} of row {index} is none of the head's {labels} classes; are they the data's?")]
    Label {
        /// The class.
        label: i32,
        /// The row.
        index: usize,
        /// Classes of the head.
        labels: usize,
    },
    /// A segment that the model does not have.
    #[error("segment {segment} at index {index} is none of the model's {segments}")]
    Segment {
        /// The segment (token type).
        segment: u32,
        /// Where it stands.
        index: usize,
        /// Segments of the model.
        segments: usize,
    },
    /// Labels of another kind than the head answers.
    #[error("the batch asks for {asked}, the model's head gives {given}")]
    Labels {
        /// What the labels of the batch are.
        asked: &'static str,
        /// What the head gives.
        given: &'static str,
    },
    /// A head that the network cannot be built with.
    #[error("{asked}: {problem}")]
    Head {
        /// What was asked for.
        asked: &'static str,
        /// Why it cannot be had, and what can.
        problem: String,
    },
    /// An image of a size that the network cannot take.
    #[error("an image of {height} x {width}: {problem}")]
    Image {
        /// Rows of pixels.
        height: usize,
        /// Columns of pixels.
        width: usize,
        /// Why it cannot be taken.
        problem: String,
    },
    /// Layers that do not follow each other.
    #[error(
        "weights [out, in] of {shapes:?} make no network: each layer takes as many values as the one before it gives"
    )]
    Layers {
        /// The shapes, first to last.
        shapes: Vec<[usize; 2]>,
    },
    /// A network that keeps its activations.
    #[error("{0} keeps all its activations; take recompute = nothing")]
    Recompute(&'static str),
    /// A target lies outside the vocabulary.
    #[error(transparent)]
    Target(#[from] lowrank_tensor::ops::TargetError),
    /// Stored bytes are not a matrix.
    #[error("tensor \"{name}\": {source}")]
    Matrix {
        /// Name in the file.
        name: String,
        /// What is wrong.
        source: lowrank_tensor::MatrixError,
    },
    /// An adapter does not fit.
    #[error(transparent)]
    Adapt(#[from] lowrank_adapt::AdaptError),
    /// A file could not be read.
    #[error(transparent)]
    Store(#[from] lowrank_store::StoreError),
}
