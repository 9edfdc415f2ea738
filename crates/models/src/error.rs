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
    /// Layers that are no chain.
    #[error(
        "layers of shapes {shapes:?} make no network: give at least one, each as wide as what the one before it gives"
    )]
    Mlp {
        /// The shapes, `[out, in]`.
        shapes: Vec<[usize; 2]>,
    },
    /// Rows of another width.
    #[error("{values} values are no rows of {width}")]
    Width {
        /// How many values there are.
        values: usize,
        /// Values of a row.
        width: usize,
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
